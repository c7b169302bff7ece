//! Larder beside other brokers: `benches/run --help`.

#![expect(
    clippy::disallowed_methods,
    reason = "a benchmark reads clocks and waits"
)]

mod broker;
mod crowd;
mod link;
mod load;
mod machine;
mod measure;
mod options;
mod relay;
mod rows;
mod table;
mod tally;
mod wire;

use machine::Core;
use options::{Asked, Options};
use rows::Row;
use std::error::Error;
use std::fs::{self, File};
use std::io::{self, Write};
use std::process::ExitCode;
use table::Samples;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to be told where standard error cannot be written.
            let _ = writeln!(io::stderr(), "larder-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let mut stdout = io::stdout();
    match options::parse()? {
        Asked::Help => stdout.write_all(options::HELP.as_bytes())?,
        Asked::List => {
            for row in rows::all() {
                writeln!(stdout, "{:<8} {:<24} {}", row.group, row.name, row.about)?;
            }
        }
        Asked::Relay(address) => relay::run(address)?,
        Asked::Run(options) => compare(&options, &mut stdout)?,
    }
    Ok(())
}

fn compare(options: &Options, stdout: &mut impl Write) -> Result<()> {
    let rows = chosen(options)?;
    fs::create_dir_all(&options.directory)?;
    if machine::is_in_memory(&options.directory)? {
        let directory = options.directory.display();
        return Err(format!("{directory} is in memory: choose another with --dir").into());
    }
    machine::raise_open_files()?;
    machine::pin(Core::Generator)?;
    let mut file = options.out.as_ref().map(File::create).transpose()?;
    let mut tell = |text: &str| -> Result<()> {
        writeln!(stdout, "{text}")?;
        if let Some(file) = &mut file {
            writeln!(file, "{text}")?;
        }
        Ok(())
    };
    tell(table::HEAD)?;
    for row in &rows {
        let (mut samples, mut sync_times) = (Samples::new(), Vec::new());
        for _ in 0..options.rounds {
            for &kind in &options.brokers {
                if row.kinds.contains(&kind) {
                    sync_times.push(machine::sync_time(&options.directory)?);
                    let sample = measure::measure(kind, row, options)
                        .map_err(|error| format!("{}, {}: {error}", row.name, kind.name()))?;
                    samples.entry(kind).or_default().push(sample);
                }
            }
        }
        tell(table::lines(row, &samples, &sync_times).trim_end())?;
    }
    tell("")?;
    tell(table::LEGEND)
}

fn chosen(options: &Options) -> Result<Vec<Row>> {
    let all = rows::all();
    for name in &options.names {
        if !all.iter().any(|row| row.is_named(name)) {
            return Err(format!("no row or group {name:?}; --list names them").into());
        }
    }
    let mut rows = all;
    rows.retain(|row| options.names.iter().any(|name| row.is_named(name)));
    Ok(rows)
}
