//! The program: from the command line to an exit code that a supervisor understands.

mod arguments;
mod connect;
mod exit;
mod listen;
mod log;
mod migrate;
mod queue_url;
mod serve;
mod settings;
mod signals;

use std::process::ExitCode;

use clap::Parser;

use self::arguments::{Arguments, Command};
use self::exit::{Exit, Failure};

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
    // One TLS provider for the whole process. An error means that one is installed already, which is what is wanted.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    log::start(&arguments.log)?;
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
