//! The command line: what was asked for, and the subcommands that need no broker.

pub mod check;
pub mod demo;
mod machine;
pub mod run;

use crate::config::{Bind, Config, ConfigError};
use lexopt::prelude::*;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// `larder run`: the broker.
    Run(RunArguments),
    /// `larder check`: reads the configuration and says what comes of it.
    Check {
        /// The configuration file; without it, the defaults.
        config: Option<PathBuf>,
    },
    /// `larder demo`.
    Demo {
        /// The address of a broker that plays the cloud; without it, one of its own.
        cloud: Option<String>,
    },
    /// `larder --help`: prints [`HELP`].
    Help,
    /// `larder --version`: prints [`VERSION`].
    Version,
}

/// How the broker is to run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunArguments {
    /// The configuration file. None is looked for: without it the defaults hold.
    pub config: Option<PathBuf>,
    /// Where to listen, in place of the configuration's listeners; empty: as the configuration says.
    pub listen: Vec<Bind>,
    /// Where to keep the data, in place of the configuration's `data_dir`.
    pub data: Option<PathBuf>,
}

/// What `larder --help` prints.
pub const HELP: &str = "\
Larder, an MQTT broker for the edge: what it acknowledges is on your flash.

Usage: larder COMMAND [OPTIONS]

  run      Run the broker; without options on 127.0.0.1:1883, with all defaults.
             --config FILE   the configuration; none is looked for by itself
             --listen ADDR   listen here instead, may be repeated:
                             127.0.0.1:1883, [::1]:1883 or unix:PATH
             --data DIR      keep sessions and messages here instead
             Example: larder run --config /etc/larder/larder.toml
  check    Print what a configuration means, and what it needs of memory.
             --config FILE   the configuration; without it, the defaults
             Example: larder check --config /etc/larder/larder.toml
  demo     Show a gateway that loses its cloud, its power, and no message.
             --cloud URL     play with this broker instead of one of its own
             Example: larder demo --cloud mqtt://192.168.1.10:1883

  -h, --help      Print this.
  -V, --version   Print the version.

Without --config and --data, the data is kept in $STATE_DIRECTORY (systemd sets
it), else in /var/lib/larder if that can be written, else in
$XDG_STATE_HOME/larder or ~/.local/state/larder.
RUST_LOG goes before the configuration's log level: error, warn, info, debug,
trace or off.

Exit: 0 when it did what was asked, 1 when the configuration or the machine
stands in the way, 2 on a wrong command line.
";

/// What `larder --version` prints.
pub const VERSION: &str = concat!("larder ", env!("CARGO_PKG_VERSION"), "\n");

/// Exit code when the configuration cannot be run.
pub const EXIT_CONFIG: u8 = 1;
/// Exit code when the command line is wrong.
pub const EXIT_USAGE: u8 = 2;

/// Understands a command line, without the program's name.
///
/// # Errors
/// The first argument that has no meaning.
pub fn parse(
    arguments: impl IntoIterator<Item = impl Into<OsString>>,
) -> Result<Command, UsageError> {
    let mut parser = lexopt::Parser::from_args(arguments);
    let command = match parser.next()? {
        None => return Err(UsageError::Nothing),
        Some(Short('h') | Long("help")) => return Ok(Command::Help),
        Some(Short('V') | Long("version")) => return Ok(Command::Version),
        Some(Value(command)) => command.to_string_lossy().into_owned(),
        Some(other) => return Err(other.unexpected().into()),
    };
    match command.as_str() {
        "run" => run(parser),
        "check" => check(parser),
        "demo" => demo(parser),
        "help" => Ok(Command::Help),
        "version" => Ok(Command::Version),
        _ => Err(UsageError::Wrong(format!(
            "{command:?} is no command; the commands are run, check, demo"
        ))),
    }
}

/// The configuration with which the broker is to run: the file's or the defaults, and what the command line changes.
///
/// # Errors
/// The first thing that cannot be run.
pub fn configuration(arguments: RunArguments) -> Result<Config, ConfigError> {
    let memory = machine::memory();
    let Some(file) = arguments.config else {
        let data = arguments.data.or_else(machine::data_dir);
        let data = data.ok_or_else(|| {
            ConfigError::of_argument(
                "larder run",
                "there is no place that could be written; choose one with --data DIR",
            )
        })?;
        return Config::without_file(arguments.listen, data, memory);
    };
    let mut config = Config::load(&file, memory)?;
    if !arguments.listen.is_empty() {
        config.listen_on(arguments.listen)?;
    }
    if let Some(data) = arguments.data {
        config.data_dir = data;
    }
    Ok(config)
}

/// Why a command line has no meaning. Prints as the line for standard error, without the program's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UsageError {
    /// It is empty.
    Nothing,
    /// What is wrong with it.
    Wrong(String),
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UsageError::Nothing => {
                f.write_str("what is to be done? `larder --help` tells what can be")
            }
            UsageError::Wrong(fault) => write!(f, "{fault} (`larder --help` tells more)"),
        }
    }
}

impl std::error::Error for UsageError {}

impl From<lexopt::Error> for UsageError {
    fn from(error: lexopt::Error) -> UsageError {
        UsageError::Wrong(error.to_string())
    }
}

fn run(mut parser: lexopt::Parser) -> Result<Command, UsageError> {
    let mut run = RunArguments::default();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("config") => run.config = Some(parser.value()?.into()),
            Long("data") => run.data = Some(parser.value()?.into()),
            Long("listen") => {
                let bind = parser.value()?.string()?.parse();
                run.listen
                    .push(bind.map_err(|fault| UsageError::Wrong(format!("--listen: {fault}")))?);
            }
            Short('h') | Long("help") => return Ok(Command::Help),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Command::Run(run))
}

fn check(mut parser: lexopt::Parser) -> Result<Command, UsageError> {
    let mut config = None;
    while let Some(argument) = parser.next()? {
        match argument {
            Long("config") => config = Some(parser.value()?.into()),
            Short('h') | Long("help") => return Ok(Command::Help),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Command::Check { config })
}

fn demo(mut parser: lexopt::Parser) -> Result<Command, UsageError> {
    let mut cloud = None;
    while let Some(argument) = parser.next()? {
        match argument {
            Long("cloud") => cloud = Some(parser.value()?.string()?),
            Short('h') | Long("help") => return Ok(Command::Help),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Command::Demo { cloud })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn parsed(line: &str) -> Result<Command, String> {
        parse(line.split_whitespace()).map_err(|error| error.to_string())
    }

    #[test]
    fn commands() {
        let run = |run| Ok(Command::Run(run));
        assert_eq!(parsed("run"), run(RunArguments::default()));
        assert_eq!(
            parsed("run --config a.toml --listen 127.0.0.1:1 --data=d --listen unix:s"),
            run(RunArguments {
                config: Some("a.toml".into()),
                listen: vec![
                    Bind::Tcp("127.0.0.1:1".parse().unwrap()),
                    Bind::Unix("s".into())
                ],
                data: Some("d".into()),
            })
        );
        assert_eq!(parsed("check"), Ok(Command::Check { config: None }));
        assert_eq!(
            parsed("check --config f"),
            Ok(Command::Check {
                config: Some("f".into())
            })
        );
        assert_eq!(parsed("demo"), Ok(Command::Demo { cloud: None }));
        assert_eq!(
            parsed("demo --cloud mqtt://c"),
            Ok(Command::Demo {
                cloud: Some("mqtt://c".into())
            })
        );
        for help in [
            "--help",
            "-h",
            "help",
            "run --help",
            "check -h",
            "demo --help",
        ] {
            assert_eq!(parsed(help), Ok(Command::Help), "{help}");
        }
        for version in ["--version", "-V", "version"] {
            assert_eq!(parsed(version), Ok(Command::Version));
        }
    }

    #[test]
    fn what_has_no_meaning_is_told_in_one_line() {
        for (line, expected) in [
            ("", "what is to be done?"),
            (
                "walk",
                "\"walk\" is no command; the commands are run, check, demo",
            ),
            ("-x", "invalid option '-x'"),
            ("run --confg a", "invalid option '--confg'"),
            ("run a.toml", "unexpected argument \"a.toml\""),
            ("run --config", "missing argument for option '--config'"),
            (
                "run --listen 1883",
                "--listen: \"1883\" is not an address; write for example",
            ),
            ("check --data d", "invalid option '--data'"),
            ("demo cloud", "unexpected argument \"cloud\""),
        ] {
            let error = parsed(line).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
            assert!(
                !error.contains('\n') && error.contains("larder --help"),
                "{error}"
            );
        }
    }

    #[test]
    fn help_names_every_option_and_fits_a_terminal() {
        for word in [
            "run",
            "check",
            "demo",
            "--config",
            "--listen",
            "--data",
            "--cloud",
            "--help",
            "--version",
        ] {
            assert!(HELP.contains(word), "{word}");
        }
        assert!(HELP.lines().all(|line| line.len() <= 80));
        assert_eq!(HELP.matches("Example:").count(), 3);
    }

    #[test]
    fn the_command_line_goes_before_the_file() {
        let file = std::env::temp_dir().join(format!("larder-cli-{}.toml", std::process::id()));
        std::fs::write(&file, "data_dir = \"/from/file\"\n[limits]\nlinks = 7\n").unwrap();
        let with = |data: Option<&str>, listen: &[&str]| {
            configuration(RunArguments {
                config: Some(file.clone()),
                listen: listen.iter().map(|bind| bind.parse().unwrap()).collect(),
                data: data.map(Into::into),
            })
        };
        let plain = with(None, &[]).unwrap();
        let changed = with(Some("here"), &["127.0.0.1:7"]).unwrap();
        let refused = with(None, &["0.0.0.0:7"]);
        std::fs::remove_file(&file).unwrap();
        assert_eq!(plain.data_dir, PathBuf::from("/from/file"));
        assert_eq!(
            (changed.data_dir, changed.limits.links),
            (PathBuf::from("here"), 7)
        );
        assert_eq!(changed.listeners[0].bind.to_string(), "127.0.0.1:7");
        assert!(refused.is_err());
    }
}
