//! The `larder` program.

use larder::budget;
use larder::cli::{self, Command};
use std::io::{self, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::parse(std::env::args_os().skip(1)) {
        Ok(Command::Run(arguments)) => cli::run::run(arguments),
        Ok(Command::Check { config }) => cli::check::run(config, budget::table),
        Ok(Command::Help) => print(cli::HELP),
        Ok(Command::Version) => print(cli::VERSION),
        Ok(Command::Demo { cloud }) => cli::demo::run(cloud),
        Err(error) => {
            // Nobody is left to be told where standard error cannot be written.
            let _ = writeln!(io::stderr(), "larder: {error}");
            ExitCode::from(cli::EXIT_USAGE)
        }
    }
}

fn print(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
