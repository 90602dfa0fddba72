//! From a command line to an exit code.

use std::io;
use std::process::ExitCode;

use tokio::runtime::{Builder, Runtime};

use super::{Exit, Failure, LogArguments, install_tls_provider, start_log};

/// Runs a service: the exit code tells a supervisor how it ended, and one line on the standard error stream why. Nothing is
/// logged of the targets `never_logged`, whatever the command line asks for.
pub fn run(
    log: &LogArguments,
    never_logged: &[&str],
    service: impl Future<Output = Result<Exit, Failure>>,
) -> ExitCode {
    let exit = ended(log, never_logged, service).unwrap_or_else(|failure| {
        failure.tell();
        failure.exit()
    });
    exit.into()
}

fn ended(
    log: &LogArguments,
    never_logged: &[&str],
    service: impl Future<Output = Result<Exit, Failure>>,
) -> Result<Exit, Failure> {
    install_tls_provider();
    start_log(log, never_logged)?;
    let runtime = runtime().map_err(|error| Failure::Configuration(error.to_string()))?;
    let result = runtime.block_on(service);
    // What has not ended by now was asked to end and did not.
    runtime.shutdown_background();
    result
}

/// The runtime of a program.
///
/// # Errors
/// If the system refuses it threads.
pub fn runtime() -> io::Result<Runtime> {
    let built = Builder::new_multi_thread().enable_all().build();
    built.map_err(|error| io::Error::new(error.kind(), format!("the runtime cannot start: {error}")))
}
