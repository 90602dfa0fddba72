//! The Harborhook command line: runs everything in one process for development, and speaks to a running server.

mod answer;
mod cli;
mod client;
mod commands;
mod dev;
mod exit;
mod input;
mod listen;
mod output;
mod publish;
mod receiver;
mod schemes;
mod table;
mod times;

use std::process::ExitCode;

use clap::Parser;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

use crate::cli::Cli;
use crate::exit::{Exit, Failure};
use crate::output::Output;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let output = Output::new(cli.output);
    let exit = match prepare().map(|runtime| (runtime.block_on(commands::run(cli, &output)), runtime)) {
        Ok((result, runtime)) => {
            // What has not ended by now was asked to end and did not, or was interrupted a second time.
            runtime.shutdown_background();
            result
        }
        Err(failure) => Err(failure),
    };
    let exit = exit.unwrap_or_else(|failure| report(&output, &failure));
    match output.finish() {
        Err(failure) if exit == Exit::Done => failure.exit(),
        _ => exit,
    }
    .into()
}

/// One TLS provider for the whole process, the log on stderr, and the runtime.
fn prepare() -> Result<tokio::runtime::Runtime, Failure> {
    dispatcher::process::install_tls_provider();
    let filter = EnvFilter::builder().with_env_var("HARBORHOOK_LOG").with_default_directive(LevelFilter::WARN.into());
    tracing_subscriber::fmt().with_env_filter(filter.from_env_lossy()).with_writer(std::io::stderr).init();
    dispatcher::process::runtime().map_err(|error| Failure::Local(error.to_string()))
}

fn report(output: &Output, failure: &Failure) -> Exit {
    if !failure.is_closed_pipe() {
        output.notice(&format!("error: {failure}"));
    }
    failure.exit()
}
