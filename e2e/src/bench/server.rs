//! The system under test in a process of its own: this binary again, with the hidden command `serve`.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use dispatcher::ledger::Ledger;
use dispatcher::ledger::sqlite::SqliteLedger;
use dispatcher::queue::memory::MemoryQueue;
use dispatcher::service::{Service, ServiceConfig};
use dispatcher_core::address::AddressPolicy;
use dispatcher_core::id::{EndpointId, SubscriptionId, TenantId};
use dispatcher_core::limits::{MAX_IN_FLIGHT_MAX, MEMORY_QUEUE_MESSAGES_MAX};
use dispatcher_core::recipient::RecipientRule;
use dispatcher_core::redacted::Redacted;
use dispatcher_core::retry::RetryPolicy;
use dispatcher_core::seal::SealingKey;
use dispatcher_core::table::{
    BodyFormat, BreakerPolicy, DEFAULT_POOL, DeliveryPolicy, EndpointRow, EndpointSecrets, EndpointState, KeyBytes,
    Row, SigningKey, SigningScheme, SubscriptionRow, TableChange, TenantRow,
};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

const TENANT: &str = "bench";
/// Endpoints of the fan-out; the first of them alone receives what goes one to one.
const ENDPOINTS: usize = 10;
const START_DEADLINE: Duration = Duration::from_secs(30);
const IDLE_DEADLINE: Duration = Duration::from_mins(1);

/// A running system. It is killed when dropped.
pub struct Server {
    child: Child,
    api: SocketAddr,
    _data: TempDir,
}

impl Server {
    /// Starts it with a fresh ledger and routes to a sink.
    pub async fn start(sink: SocketAddr) -> Result<Self> {
        let data = tempfile::tempdir()?;
        let mut child = Command::new(std::env::current_exe()?)
            .arg("serve")
            .arg("--data")
            .arg(data.path())
            .arg("--sink")
            .arg(sink.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("its output is piped")?).lines();
        let line = tokio::time::timeout(START_DEADLINE, lines.next_line()).await.context("it never listened")??;
        let line = line.context("it ended before it listened")?;
        Ok(Self { child, api: line.parse()?, _data: data })
    }

    /// Where events are published.
    pub fn publish_url(&self) -> String {
        format!("http://{}/v1/tenants/{TENANT}/events:publish", self.api)
    }

    /// Waits until nothing is open any more.
    pub async fn wait_until_idle(&self) -> Result<()> {
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

    /// Largest resident memory of the process so far.
    pub fn peak_memory_mebibytes(&self) -> Result<f64> {
        let pid = self.child.id().context("it is running")?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("the kernel tells VmHWM")?;
        let kibibytes: f64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kibibytes / 1024.0)
    }

    /// Ends it.
    pub async fn stop(mut self) -> Result<()> {
        self.child.kill().await.context("it could not be stopped")
    }
}

/// The hidden command: serves on the embedded pair until it is killed, and prints where it listens.
pub async fn serve(data: &Path, sink: SocketAddr) -> Result<()> {
    let ledger: Arc<dyn Ledger> = Arc::new(SqliteLedger::open_in(data).await?);
    let sealing_key = Arc::new(SealingKey::from_bytes(&[7; 32]));
    ledger.publish_table(TableChange { put: table(&sealing_key, sink), drop: Vec::new() }).await?;
    let queue = Arc::new(MemoryQueue::new(MEMORY_QUEUE_MESSAGES_MAX));
    let config = ServiceConfig::new(ledger, queue, sealing_key, AddressPolicy::development());
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let service = Service::start(config, listener, None, CancellationToken::new()).await?;
    let mut stdout = tokio::io::stdout();
    stdout.write_all(format!("{}\n", service.address).as_bytes()).await?;
    stdout.flush().await?;
    service.join.await??;
    Ok(())
}

/// One subscription to the first endpoint, one to all of them.
fn table(sealing_key: &SealingKey, sink: SocketAddr) -> Vec<Row> {
    let tenant = TenantId::of_namespace_name(TENANT);
    let endpoints: Vec<_> = (0..ENDPOINTS).map(|number| endpoint(sealing_key, sink, tenant, number)).collect();
    let all: Vec<EndpointId> = endpoints.iter().map(|endpoint| endpoint.id).collect();
    let mut rows = vec![
        Row::Tenant(TenantRow { id: tenant, name: TENANT.to_owned() }),
        Row::Subscription(subscription(tenant, "one", vec![all[0]])),
        Row::Subscription(subscription(tenant, "ten", all)),
    ];
    rows.extend(endpoints.into_iter().map(|endpoint| Row::Endpoint(Box::new(endpoint))));
    rows
}

fn endpoint(sealing_key: &SealingKey, sink: SocketAddr, tenant: TenantId, number: usize) -> EndpointRow {
    let name = format!("sink-{number}");
    let id = EndpointId::derive(tenant, &name);
    let secrets = EndpointSecrets {
        url: Redacted::new(format!("http://{sink}/{name}")),
        keys: vec![SigningKey { bytes: Redacted::new(KeyBytes(vec![42; 32])), retires_at_unix_ms: None }],
        headers: Vec::new(),
        tls: None,
        token: None,
    };
    EndpointRow {
        id,
        tenant,
        name,
        revision: "1".to_owned(),
        recipient: RecipientRule::Unaddressed,
        state: EndpointState::Active,
        host: sink.to_string(),
        policy: DeliveryPolicy {
            timeout_seconds: 15,
            retry: RetryPolicy::default(),
            rate_limit: None,
            max_in_flight: MAX_IN_FLIGHT_MAX,
            circuit_breaker: BreakerPolicy::default(),
            disable_after_failing_for_seconds: None,
            format: BodyFormat::Payload,
            signing_scheme: SigningScheme::StandardWebhooks,
        },
        pool: DEFAULT_POOL.to_owned(),
        sealed: sealing_key.seal(id, &secrets),
    }
}

fn subscription(tenant: TenantId, name: &str, mut endpoints: Vec<EndpointId>) -> SubscriptionRow {
    endpoints.sort();
    SubscriptionRow {
        id: SubscriptionId::derive(tenant, name),
        tenant,
        name: name.to_owned(),
        endpoints,
        event_types: vec![format!("bench.{name}")],
        filter: None,
        transform: None,
        suspended: false,
    }
}
