//! The program: from the command line to an exit code that a supervisor understands.

mod arguments;
mod serve;
mod settings;

use std::process::ExitCode;

use clap::Parser;
use dispatcher::process;

use self::arguments::{Arguments, Command};

/// What the client of the API server logs holds bodies that it could not read, and whatever secret is in them. What
/// matters of it is told by those who ask.
const NEVER_LOGGED: [&str; 1] = ["kube_client::client"];

/// Runs what the command line says.
pub fn main() -> ExitCode {
    let Arguments { log, command: Command::Run(arguments) } = Arguments::parse();
    process::run(&log, &NEVER_LOGGED, async { serve::run(settings::read(&arguments)?).await })
}
