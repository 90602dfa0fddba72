//! The program: from the command line to an exit code that a supervisor understands.

mod arguments;
mod connect;
mod migrate;
mod queue_url;
mod serve;
mod settings;

use std::process::ExitCode;

use clap::Parser;
use dispatcher::process;

use self::arguments::{Arguments, Command};

/// Runs what the command line says.
pub(crate) fn main() -> ExitCode {
    let Arguments { log, command } = Arguments::parse();
    process::run(&log, &[], async {
        match command {
            Command::Migrate(arguments) => migrate::run(&arguments).await,
            Command::Ingest(arguments) => serve::run(settings::of_ingest(&arguments)?).await,
            Command::Deliver(arguments) => serve::run(settings::of_deliver(&arguments)?).await,
            Command::All(arguments) => serve::run(settings::of_all(&arguments)?).await,
        }
    })
}
