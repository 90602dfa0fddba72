//! The program: from the command line to an exit code that a supervisor understands.

mod arguments;
mod serve;
mod settings;

use std::process::ExitCode;

use clap::Parser;
use dispatcher::process;

use self::arguments::{Arguments, Command};

/// Runs what the command line says.
pub fn main() -> ExitCode {
    let Arguments { log, command: Command::Run(arguments) } = Arguments::parse();
    process::run(&log, async { serve::run(settings::read(&arguments)?).await })
}
