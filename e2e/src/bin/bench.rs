//! `cargo run --release -p e2e --bin bench -- [--quick] [--json] [--plane PLANE] [--pair PAIR] [--only ROW] [--rows N]
//! [--resources N]`: prints the figures; see `docs/performance.md`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use e2e::bench::pipeline::deliver::Sinks;
use e2e::bench::report::{write_json, write_table};
use e2e::bench::run::{Effort, Pair, Plane, Selection, run};
use e2e::bench::{control, embedded, pipeline};
use tokio::signal::unix::{SignalKind, signal};

/// Measures Harborhook on this machine, beside a bare HTTP client and a bare pipeline.
#[derive(Parser)]
struct Arguments {
    /// One short repeat instead of medians of several.
    #[arg(long)]
    quick: bool,
    /// One JSON object a row instead of a table.
    #[arg(long)]
    json: bool,
    /// Only this plane; without it, both.
    #[arg(long)]
    plane: Option<Plane>,
    /// Only the data plane, and there this pair of ledger and queue; without it, both.
    #[arg(long, conflicts_with = "plane")]
    pair: Option<Pair>,
    /// Of the distributed pair only this row; can be given several times: relay_limit, ingest_only, one_to_one, latency_200,
    /// and so on, and counted for all that is counted.
    #[arg(long, value_name = "ROW")]
    only: Vec<String>,
    /// Also measures the distributed pair on a ledger that holds this many rows already; making ten million takes minutes.
    #[arg(long, value_name = "N", default_value_t = 0)]
    rows: u64,
    /// Measures the control plane among this many Endpoints, and as many Subscriptions.
    #[arg(long, value_name = "N", default_value_t = control::ENDPOINTS_DEFAULT, value_parser = at_least_one)]
    resources: usize,
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

/// As a shell reports an end by a signal: 128 and its number.
const INTERRUPTED: u8 = 130;
const TERMINATED: u8 = 143;

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<ExitCode> {
    // One TLS provider for the whole process. An error means that one is installed already, which is what is wanted.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let arguments = Arguments::parse();
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    // Whatever runs ends with what is dropped: its processes, its servers, its files.
    tokio::select! {
        done = measure(arguments) => done.map(|()| ExitCode::SUCCESS),
        _ = interrupt.recv() => Ok(ExitCode::from(INTERRUPTED)),
        _ = terminate.recv() => Ok(ExitCode::from(TERMINATED)),
    }
}

async fn measure(arguments: Arguments) -> Result<()> {
    match &arguments.command {
        Some(Command::Serve { data }) => return embedded::serve(data).await,
        Some(Command::PipelineIngest(servers)) => {
            return pipeline::ingest::run(&servers.database, &servers.queue).await;
        }
        Some(Command::PipelineDeliver { servers, sink, tls_sink, authorities }) => {
            let sinks = Sinks { plain: *sink, tls: *tls_sink, authorities };
            return pipeline::deliver::run(&servers.database, &servers.queue, sinks).await;
        }
        None => {}
    }
    let is_json = arguments.json;
    let rows = Box::pin(run(selection(arguments))).await?;
    let mut stdout = std::io::stdout().lock();
    if is_json { write_json(&mut stdout, &rows) } else { write_table(&mut stdout, &rows) }?;
    Ok(())
}

fn selection(arguments: Arguments) -> Selection {
    let (effort, control) =
        if arguments.quick { (Effort::QUICK, control::Effort::QUICK) } else { (Effort::FULL, control::Effort::FULL) };
    let pairs = match (arguments.plane, arguments.pair) {
        (Some(Plane::Control), _) => Vec::new(),
        (_, Some(pair)) => vec![pair],
        (_, None) => vec![Pair::Embedded, Pair::Distributed],
    };
    let with_control = arguments.plane != Some(Plane::Data) && arguments.pair.is_none();
    Selection {
        pairs,
        effort: Effort { ledger_rows: arguments.rows, only: arguments.only, ..effort },
        control: with_control.then_some(control::Effort { endpoints: arguments.resources, ..control }),
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("at least one".to_owned()),
        Ok(number) => Ok(number),
        Err(error) => Err(error.to_string()),
    }
}
