//! The program: from the command line to an exit code that a supervisor understands.

mod arguments;
mod serve;
mod settings;

use std::process::ExitCode;

use clap::Parser;
use dispatcher::process::{self, Exit, Failure};

use self::arguments::{Arguments, Command};

/// What the client of the API server logs holds bodies that it could not read, and whatever secret is in them. What
/// matters of it is told by those who ask.
const NEVER_LOGGED: [&str; 1] = ["kube_client::client"];

/// Runs what the command line says.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let exit = run(arguments).unwrap_or_else(|failure| {
        failure.tell();
        failure.exit()
    });
    exit.into()
}

fn run(arguments: Arguments) -> Result<Exit, Failure> {
    process::install_tls_provider();
    process::start_log(&arguments.log, &NEVER_LOGGED)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Configuration(format!("the runtime cannot start: {error}")))?;
    let result = runtime.block_on(async {
        match arguments.command {
            Command::Run(arguments) => serve::run(settings::read(&arguments)?).await,
        }
    });
    // What has not ended by now was asked to end and did not.
    runtime.shutdown_background();
    result
}
