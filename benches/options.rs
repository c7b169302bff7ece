//! What the command line asks for.

use crate::broker::Kind;
use crate::{Result, rows};
use lexopt::prelude::*;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub(crate) const HELP: &str = "\
Larder beside Debian's mosquitto, row by row.

    benches/run [OPTIONS] [ROW or GROUP...]      without a name: the group `peers`

Each row is run on a new broker in a directory of its own, in turn (A B A B), and the table has the medians. The broker
has the first core for itself, the generator the second.

    --list              the rows, by groups
    --quick             one round of one second
    --rounds N          rounds (3)
    --seconds N         seconds that a rate is measured for (3)
    --brokers A,B       of larder, mosquitto, relay (all that a row is for)
    --backlog N         messages of the rows with a backlog of any length (1000000)
    --dir DIR           where the brokers have their data (target/bench); not in memory
    --out FILE          the table, also into a file
    --larder FILE       the program (target/release/larder)
    --mosquitto FILE    the program (mosquitto)
    --set KEY=VALUE     a key of Larder's configuration, as in `limits.receive_maximum=1000`
    --window N          messages of one publisher on their way, instead of a row's own
    --under COMMAND     starts brokers under a program, as in `strace -D -c -f -o counts`
";

/// The command line.
pub(crate) struct Options {
    pub(crate) names: Vec<String>,
    pub(crate) rounds: usize,
    pub(crate) elapsed: Duration,
    pub(crate) brokers: Vec<Kind>,
    pub(crate) backlog: u64,
    pub(crate) directory: PathBuf,
    pub(crate) out: Option<PathBuf>,
    pub(crate) larder: String,
    pub(crate) mosquitto: String,
    pub(crate) larder_config: String,
    pub(crate) window: Option<u64>,
    pub(crate) under: Vec<String>,
}

pub(crate) enum Asked {
    Run(Box<Options>),
    Help,
    List,
    Relay(SocketAddr),
}

pub(crate) fn parse() -> Result<Asked> {
    let mut options = Options {
        names: Vec::new(),
        rounds: 3,
        elapsed: Duration::from_secs(3),
        brokers: Kind::ALL.to_vec(),
        backlog: 1_000_000,
        directory: "target/bench".into(),
        out: None,
        larder: "target/release/larder".into(),
        mosquitto: "mosquitto".into(),
        larder_config: String::new(),
        window: None,
        under: Vec::new(),
    };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("help") | Short('h') => return Ok(Asked::Help),
            Long("list") => return Ok(Asked::List),
            Long("relay") => return Ok(Asked::Relay(parser.value()?.parse()?)),
            Long("quick") => {
                options.rounds = 1;
                options.elapsed = Duration::from_secs(1);
            }
            Long("rounds") => options.rounds = parser.value()?.parse::<usize>()?.max(1),
            Long("seconds") => options.elapsed = Duration::from_secs(parser.value()?.parse()?),
            Long("brokers") => {
                let value = parser.value()?.string()?;
                options.brokers = value.split(',').map(kind).collect::<Result<_>>()?;
            }
            Long("backlog") => options.backlog = parser.value()?.parse()?,
            Long("dir") => options.directory = parser.value()?.into(),
            Long("out") => options.out = Some(parser.value()?.into()),
            Long("larder") => options.larder = parser.value()?.string()?,
            Long("mosquitto") => options.mosquitto = parser.value()?.string()?,
            Long("set") => {
                options.larder_config += &parser.value()?.string()?;
                options.larder_config.push('\n');
            }
            Long("window") => options.window = Some(parser.value()?.parse()?),
            Long("under") => {
                let value = parser.value()?.string()?;
                options.under = value.split_whitespace().map(str::to_owned).collect();
            }
            Value(name) => options.names.push(name.string()?),
            _ => return Err(argument.unexpected().into()),
        }
    }
    if options.names.is_empty() {
        options.names.push(rows::PEERS.into());
    }
    Ok(Asked::Run(Box::new(options)))
}

fn kind(name: &str) -> Result<Kind> {
    let known = Kind::ALL.into_iter().find(|kind| kind.name() == name);
    known.ok_or_else(|| format!("no broker {name:?}: larder, mosquitto, relay").into())
}
