//! `cargo run --release -p e2e --bin bench -- [--quick] [--json] [--pair PAIR]`: prints the figures; see
//! `docs/performance.md`.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use e2e::bench::report::{write_json, write_table};
use e2e::bench::run::{Effort, Pair, run};
use e2e::bench::{embedded, pipeline};

/// Measures Harborhook on this machine, beside a bare HTTP client and a bare pipeline.
#[derive(Parser)]
struct Arguments {
    /// One short repeat instead of medians of several.
    #[arg(long)]
    quick: bool,
    /// One JSON object a row instead of a table.
    #[arg(long)]
    json: bool,
    /// Only this pair of ledger and queue; without it, both.
    #[arg(long)]
    pair: Option<Pair>,
    #[command(subcommand)]
    command: Option<Command>,
}

/// What is measured, in processes of its own.
#[derive(Subcommand)]
enum Command {
    /// The embedded pair.
    #[command(hide = true)]
    Serve {
        /// Folder of its ledger.
        #[arg(long)]
        data: PathBuf,
        /// Where it delivers to.
        #[arg(long)]
        sink: SocketAddr,
    },
    /// The first half of the bare pipeline.
    #[command(hide = true)]
    PipelineIngest(Servers),
    /// The second half of the bare pipeline.
    #[command(hide = true)]
    PipelineDeliver {
        #[command(flatten)]
        servers: Servers,
        /// Where it delivers to.
        #[arg(long)]
        sink: SocketAddr,
    },
    /// The distributed pair in one process.
    #[command(hide = true)]
    Distributed(Servers),
}

#[derive(Args)]
struct Servers {
    /// URL of the database.
    #[arg(long)]
    database: String,
    /// URL of the broker.
    #[arg(long)]
    queue: String,
}

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    match arguments.command {
        Some(Command::Serve { data, sink }) => return embedded::serve(&data, sink).await,
        Some(Command::PipelineIngest(servers)) => {
            return pipeline::ingest::run(&servers.database, &servers.queue).await;
        }
        Some(Command::PipelineDeliver { servers, sink }) => {
            return pipeline::deliver::run(&servers.database, &servers.queue, sink, None).await;
        }
        Some(Command::Distributed(servers)) => {
            return e2e::bench::system::serve(&servers.database, &servers.queue).await;
        }
        None => {}
    }
    let pairs = arguments.pair.map_or_else(|| vec![Pair::Embedded, Pair::Distributed], |pair| vec![pair]);
    let rows = run(&pairs, if arguments.quick { Effort::QUICK } else { Effort::FULL }).await?;
    let mut stdout = std::io::stdout().lock();
    if arguments.json { write_json(&mut stdout, &rows) } else { write_table(&mut stdout, &rows) }?;
    Ok(())
}
