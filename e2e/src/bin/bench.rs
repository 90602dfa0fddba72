//! `cargo run --release -p e2e --bin bench -- [--quick] [--json] [--pair PAIR] [--only ROW]
//! [--rows N]`: prints the figures; see `docs/performance.md`.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use e2e::bench::pipeline::deliver::Sinks;
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
    /// Of the distributed pair only this row; can be given several times: relay_limit, ingest_only, one_to_one, latency_200,
    /// and so on, and counted for all that is counted.
    #[arg(long, value_name = "ROW")]
    only: Vec<String>,
    /// Also measures the distributed pair on a ledger that holds this many rows already; making ten million takes minutes.
    #[arg(long, value_name = "N", default_value_t = 0)]
    rows: u64,
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
        /// Where it delivers to over TLS.
        #[arg(long)]
        tls_sink: SocketAddr,
        /// Who vouches for that.
        #[arg(long)]
        authorities: PathBuf,
    },
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
    // One TLS provider for the whole process. An error means that one is installed already, which is what is wanted.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let arguments = Arguments::parse();
    match arguments.command {
        Some(Command::Serve { data }) => return embedded::serve(&data).await,
        Some(Command::PipelineIngest(servers)) => {
            return pipeline::ingest::run(&servers.database, &servers.queue).await;
        }
        Some(Command::PipelineDeliver { servers, sink, tls_sink, authorities }) => {
            let sinks = Sinks { plain: sink, tls: tls_sink, authorities: &authorities };
            return pipeline::deliver::run(&servers.database, &servers.queue, sinks).await;
        }
        None => {}
    }
    let pairs = arguments.pair.map_or_else(|| vec![Pair::Embedded, Pair::Distributed], |pair| vec![pair]);
    let usual = if arguments.quick { Effort::QUICK } else { Effort::FULL };
    let effort = Effort { ledger_rows: arguments.rows, only: arguments.only, ..usual };
    let rows = run(&pairs, &effort).await?;
    let mut stdout = std::io::stdout().lock();
    if arguments.json { write_json(&mut stdout, &rows) } else { write_table(&mut stdout, &rows) }?;
    Ok(())
}
