//! The two systems that are compared on the same servers, each in processes of its own: the bare pipeline, and
//! Harborhook's distributed pair.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dispatcher::ledger::postgres::{PostgresConfig, PostgresLedger};
use dispatcher::ledger::{Balance, Ledger};
use dispatcher_core::id::TenantId;
use dispatcher_core::seal::SealingKey;
use hyper::StatusCode;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use super::child::Child;
use super::load::Subject;
use super::pipeline;
use super::servers::Storage;
use super::sink::Sink;
use super::table::{Route, TENANT, table};
use crate::http::Client;
use crate::process::dispatcher;

const READY_DEADLINE: Duration = Duration::from_mins(1);
const SETTLE_DEADLINE: Duration = Duration::from_mins(2);
/// Nothing arrives for this long when nothing is under way any more.
const QUIET: Duration = Duration::from_millis(300);
/// Seals the secrets of the benchmark's routing table.
const SEALING_KEY: [u8; 32] = [7; 32];
/// Everything that an operator would want to know, and nothing for each event.
const LOG: &str = "warn";

/// A running system.
pub struct System {
    parts: Vec<Child>,
    /// Where events are posted.
    publish_url: String,
    /// Harborhook's ledger; the bare pipeline has none.
    ledger: Option<PostgresLedger>,
    storage: Storage,
    _files: TempDir,
}

/// Where a system finds its servers: at the storage itself, or through something that counts.
pub struct Addresses {
    /// URL of the database.
    pub database: String,
    /// URL of the vhost.
    pub broker: String,
}

impl Addresses {
    /// Those of the storage itself.
    pub fn of(storage: &Storage) -> Self {
        Self { database: storage.database(), broker: storage.broker().to_owned() }
    }
}

impl System {
    /// Starts the bare pipeline.
    pub async fn pipeline(storage: Storage, addresses: &Addresses, sink: &Sink) -> Result<Self> {
        pipeline::prepare(&storage.database(), storage.broker()).await?;
        let files = tempfile::tempdir()?;
        let authorities = files.path().join("authorities.pem");
        fs::write(&authorities, sink.certificate.pem())?;
        let servers = ["--database", &addresses.database, "--queue", &addresses.broker];
        let mut ingest = Child::again("ingest", [["pipeline-ingest"].as_slice(), &servers].concat())?;
        let (plain, tls) = (sink.address.to_string(), sink.tls_address.to_string());
        let authorities = authorities.to_str().context("a temporary path is text")?;
        let targets = ["--sink", &plain, "--tls-sink", &tls, "--authorities", authorities];
        let deliver = Child::again("deliver", [["pipeline-deliver"].as_slice(), &servers, &targets].concat())?;
        let publish_url = format!("http://{}", ingest.address("api").await?);
        Ok(Self { parts: vec![ingest, deliver], publish_url, ledger: None, storage, _files: files })
    }

    /// Migrates the ledger, publishes the routing table, starts the two dispatchers and waits until they are ready.
    pub async fn harborhook(storage: Storage, addresses: &Addresses, sink: &Sink) -> Result<Self> {
        let config = PostgresConfig::new(&storage.database());
        PostgresLedger::migrate(&config).await?;
        let ledger = PostgresLedger::connect(config).await?;
        ledger.publish_table(table(&SealingKey::from_bytes(&SEALING_KEY), sink), None).await?;
        let files = tempfile::tempdir()?;
        let key_file = files.path().join("sealing.key");
        fs::write(&key_file, SEALING_KEY)?;
        let start = |name: &'static str, role: &str, options: &[&str]| -> Result<Child> {
            let mut command = Command::new(dispatcher()?);
            command.args([role, "--log", LOG, "--admin-listen", "127.0.0.1:0", "--sealing-key-file"]).arg(&key_file);
            command.args(["--database", &addresses.database, "--queue", &addresses.broker]).args(options);
            Child::start(name, &mut command)
        };
        let mut ingest = start("ingest", "ingest", &["--listen", "127.0.0.1:0"])?;
        let reachable = ["--allow-http", "--allow-address", "127.0.0.0/8", "--allow-port", "any"];
        let mut deliver = start("deliver", "deliver", &reachable)?;
        let admins = [ingest.address("admin").await?, deliver.address("admin").await?];
        let publish_url = format!("http://{}/v1/tenants/{TENANT}/events:publish", ingest.address("api").await?);
        for admin in admins {
            wait_until_ready(&format!("http://{admin}/readyz")).await?;
        }
        Ok(Self { parts: vec![ingest, deliver], publish_url, ledger: Some(ledger), storage, _files: files })
    }

    /// What to load it with.
    pub fn subject(&self, route: Route, payload_bytes: usize) -> Subject {
        let (url, event_type) = match &self.ledger {
            Some(_) => (self.publish_url.clone(), Some(route.event_type())),
            None => (format!("{}/{}", self.publish_url, pipeline::path(route)), None),
        };
        Subject { url, event_type, fanout: route.fanout(), payload_bytes }
    }

    /// Its processes.
    pub fn parts(&self) -> &[Child] {
        &self.parts
    }

    /// Its database and vhost.
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// Waits until everything that it accepted has arrived, and proves it.
    pub async fn settle(&self, sink: &Sink) -> Result<()> {
        self.drain(sink).await?;
        self.prove().await
    }

    /// Waits until everything that it accepted has arrived.
    pub async fn drain(&self, sink: &Sink) -> Result<()> {
        let deadline = Instant::now() + SETTLE_DEADLINE;
        loop {
            let arrivals = sink.arrivals();
            sleep(QUIET).await;
            if sink.arrivals() == arrivals && self.open().await? == 0 {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "the backlog did not drain");
        }
    }

    /// Of Harborhook, proves by the ledger that what was accepted is exactly what was delivered. That reads all of it.
    pub async fn prove(&self) -> Result<()> {
        match &self.ledger {
            Some(ledger) => balance(ledger).await?.map_or(Ok(()), |balance| prove(&balance)),
            None => Ok(()),
        }
    }

    /// Deliveries that are open; of the bare pipeline nobody knows.
    async fn open(&self) -> Result<u64> {
        let Some(ledger) = &self.ledger else { return Ok(0) };
        Ok(ledger.backlog().await?.by_tenant.iter().map(|(_, open)| open).sum())
    }

    /// Ends its processes, then its storage.
    pub async fn stop(self) -> Result<()> {
        for part in self.parts {
            part.stop().await?;
        }
        if let Some(ledger) = self.ledger {
            ledger.close().await;
        }
        Ok(())
    }
}

async fn wait_until_ready(url: &str) -> Result<()> {
    let client = Client::default();
    let ready = async {
        while !client.get(url).await.is_ok_and(|(status, _)| status == StatusCode::OK) {
            sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(READY_DEADLINE, ready).await.with_context(|| format!("{url} never said that it is ready"))
}

async fn balance(ledger: &PostgresLedger) -> Result<Option<Balance>> {
    let tenant = TenantId::of_namespace_name(TENANT);
    Ok(ledger.balance().await?.into_iter().find(|balance| balance.tenant == tenant))
}

fn prove(balance: &Balance) -> Result<()> {
    let Balance { accepted, delivered, dead, cancelled, open, .. } = balance;
    let sum = delivered + dead + cancelled + open;
    ensure!(*accepted == sum, "{accepted} deliveries were accepted, and {sum} are accounted for");
    ensure!(accepted == delivered, "{dead} deliveries are dead and {cancelled} cancelled");
    Ok(())
}
