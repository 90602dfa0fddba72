//! `cargo run --release -p e2e --bin bench -- [--quick] [--json]`: prints the figures; see `docs/performance.md`.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};
use e2e::bench::report::{write_json, write_table};
use e2e::bench::run::{Effort, run};
use e2e::bench::server::serve;

/// Measures Harborhook beside a bare HTTP client, on this machine.
#[derive(Parser)]
struct Arguments {
    /// One short repeat instead of medians of several.
    #[arg(long)]
    quick: bool,
    /// One JSON object a row instead of a table.
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// The system under test, in a process of its own.
    #[command(hide = true)]
    Serve {
        /// Folder of its ledger.
        #[arg(long)]
        data: PathBuf,
        /// Where it delivers to.
        #[arg(long)]
        sink: SocketAddr,
    },
}

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(Command::Serve { data, sink }) = arguments.command {
        return serve(&data, sink).await;
    }
    let rows = run(if arguments.quick { Effort::QUICK } else { Effort::FULL }).await?;
    let mut stdout = std::io::stdout().lock();
    if arguments.json { write_json(&mut stdout, &rows) } else { write_table(&mut stdout, &rows) }?;
    Ok(())
}
