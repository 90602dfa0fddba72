//! The embedded pair, SQLite and the in-process queue, beside a bare client.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use dispatcher::ledger::Ledger;
use dispatcher::ledger::sqlite::SqliteLedger;
use dispatcher::queue::memory::MemoryQueue;
use dispatcher::service::{Service, ServiceConfig};
use dispatcher_core::address::AddressPolicy;
use dispatcher_core::limits::MEMORY_QUEUE_MESSAGES_MAX;
use dispatcher_core::seal::SealingKey;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::child::{Child, tell_address};
use super::load::{FixedRate, Subject, closed_loop};
use super::report::{Row, median, percentile_milliseconds};
use super::run::{Effort, PERCENTILES, RATES};
use super::sink::{PAYLOAD_BYTES, Sink};
use super::table::{Route, TENANT, table};

const IDLE_DEADLINE: Duration = Duration::from_mins(1);
/// Seals the secrets of the benchmark's routing table.
const SEALING_KEY: [u8; 32] = [7; 32];

/// A running system.
struct Server {
    child: Child,
    api: SocketAddr,
    _data: TempDir,
}

impl Server {
    /// Starts it with a fresh ledger and routes to a sink.
    async fn start(sink: &Sink) -> Result<Self> {
        let data = tempfile::tempdir()?;
        let ledger = SqliteLedger::open_in(data.path()).await?;
        ledger.publish_table(table(&SealingKey::from_bytes(&SEALING_KEY), sink), None).await?;
        drop(ledger);
        let arguments: [&OsStr; 3] = ["serve".as_ref(), "--data".as_ref(), data.path().as_os_str()];
        let mut child = Child::again("serve", arguments)?;
        let api = child.address("api").await?;
        Ok(Self { child, api, _data: data })
    }

    fn subject(&self, route: Route) -> Subject {
        let url = format!("http://{}/v1/tenants/{TENANT}/events:publish", self.api);
        Subject { url, event_type: Some(route.event_type()), fanout: route.fanout(), payload_bytes: PAYLOAD_BYTES }
    }

    /// Waits until nothing is open any more.
    async fn wait_until_idle(&self) -> Result<()> {
        let url = format!("http://{}/v1/tenants/{TENANT}/deliveries?state=open&limit=1", self.api);
        let client = crate::http::Client::default();
        let idle = async {
            loop {
                let (_, page) = client.get(&url).await?;
                let page: serde_json::Value = serde_json::from_slice(&page)?;
                if page["items"].as_array().context("a page has items")?.is_empty() {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(IDLE_DEADLINE, idle).await.context("the backlog did not drain")?
    }
}

/// The hidden command: serves on the embedded pair until it is killed, and tells where it listens.
pub async fn serve(data: &Path) -> Result<()> {
    let ledger: Arc<dyn Ledger> = Arc::new(SqliteLedger::open_in(data).await?);
    let sealing_key = Arc::new(SealingKey::from_bytes(&SEALING_KEY));
    let queue = Arc::new(MemoryQueue::new(MEMORY_QUEUE_MESSAGES_MAX));
    let config = ServiceConfig::new(ledger, queue, sealing_key, AddressPolicy::development());
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let service = Service::start(config, listener, None, CancellationToken::new()).await?;
    tell_address("api", service.address).await?;
    service.join.await??;
    Ok(())
}

/// What one repeat measured: the bare client and the system, figure by figure.
#[derive(Default)]
struct Repeat {
    relay_limit: f64,
    one_to_one: f64,
    one_to_ten: f64,
    /// For each rate and percentile: the bare client's, then the system's.
    latencies: Vec<(f64, f64)>,
    peak_memory_mebibytes: f64,
}

/// Measures everything and answers the rows.
pub async fn measure(sink: &Sink, effort: &Effort) -> Result<Vec<Row>> {
    let mut repeats = Vec::new();
    for _ in 0..effort.repeats {
        repeats.push(repeat(sink, effort).await?);
    }
    Ok(rows(&repeats))
}

async fn repeat(sink: &Sink, effort: &Effort) -> Result<Repeat> {
    let url = format!("http://{}/relay", sink.address);
    let relay = Subject { url, event_type: None, fanout: 1, payload_bytes: PAYLOAD_BYTES };
    let server = Server::start(sink).await?;
    let (to_one, to_ten) = (server.subject(Route::One), server.subject(Route::Ten));
    let mut result = Repeat::default();
    // Latencies first: they need a system that is not still busy with a closed loop's rest.
    for rate in RATES {
        let (bare, ours) = (FixedRate::new(relay.clone(), rate), FixedRate::new(to_one.clone(), rate));
        let measured = ours.duration(effort.measured);
        let mut bare = bare.run(sink, effort.warm_up, measured).await?;
        let mut ours = ours.run(sink, effort.warm_up, measured).await?;
        for percent in PERCENTILES {
            let pair = (percentile_milliseconds(&mut bare, percent), percentile_milliseconds(&mut ours, percent));
            result.latencies.push(pair);
        }
    }
    result.relay_limit = closed_loop(sink, &relay, effort.warm_up, effort.measured).await?;
    result.one_to_one = closed_loop(sink, &to_one, effort.warm_up, effort.measured).await?;
    server.wait_until_idle().await?;
    result.one_to_ten = closed_loop(sink, &to_ten, effort.warm_up, effort.measured).await?;
    result.peak_memory_mebibytes = server.child.peak_memory_mebibytes()?;
    server.child.stop().await?;
    Ok(result)
}

fn rows(repeats: &[Repeat]) -> Vec<Row> {
    let middle = |figure: &dyn Fn(&Repeat) -> f64| median(repeats.iter().map(figure).collect());
    let relay = middle(&|repeat| repeat.relay_limit);
    let mut rows = vec![
        Row::new("relay_limit", "requests/s", relay, Some(relay)),
        Row::new("one_to_one", "deliveries/s", middle(&|repeat| repeat.one_to_one), Some(relay)),
        Row::new("one_to_ten", "deliveries/s", middle(&|repeat| repeat.one_to_ten), Some(relay)),
    ];
    let latency_rows = RATES.iter().flat_map(|rate| PERCENTILES.map(|percent| (rate, percent)));
    for (index, (rate, percent)) in latency_rows.enumerate() {
        let bare = middle(&|repeat| repeat.latencies[index].0);
        let ours = middle(&|repeat| repeat.latencies[index].1);
        rows.push(Row::new(format!("latency_{rate}_p{percent}"), "ms", ours, Some(bare)));
    }
    rows.push(Row::new("peak_memory", "MiB", middle(&|repeat| repeat.peak_memory_mebibytes), None));
    rows
}
