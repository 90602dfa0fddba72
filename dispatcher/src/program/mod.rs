//! The program: from the command line to an exit code that a supervisor understands.

mod arguments;
mod connect;
mod migrate;
mod queue_url;
mod serve;
mod settings;

use std::process::ExitCode;

use clap::Parser;
use dispatcher::process::{self, Exit, Failure};

use self::arguments::{Arguments, Command};

/// Runs what the command line says.
pub(crate) fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let exit = run(arguments).unwrap_or_else(|failure| {
        failure.tell();
        failure.exit()
    });
    exit.into()
}

fn run(arguments: Arguments) -> Result<Exit, Failure> {
    process::install_tls_provider();
    process::start_log(&arguments.log, &[])?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Configuration(format!("the runtime cannot start: {error}")))?;
    let result = runtime.block_on(async {
        match arguments.command {
            Command::Migrate(arguments) => migrate::run(&arguments).await,
            Command::Ingest(arguments) => serve::run(settings::of_ingest(&arguments)?).await,
            Command::Deliver(arguments) => serve::run(settings::of_deliver(&arguments)?).await,
            Command::All(arguments) => serve::run(settings::of_all(&arguments)?).await,
        }
    });
    // What has not ended by now was asked to end and did not.
    runtime.shutdown_background();
    result
}
