//! The two systems that are compared on the same servers, each in processes of its own: the bare pipeline, and
//! Harborhook's distributed pair.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dispatcher::ledger::postgres::{PostgresConfig, PostgresLedger};
use dispatcher::ledger::{Balance, Ledger};
use dispatcher_core::seal::SealingKey;
use tokio::time::{Instant, sleep};

use super::child::Child;
use super::load::Subject;
use super::pipeline;
use super::servers::Storage;
use super::sink::Sink;
use super::table::{TENANT, event_type, table};

const SETTLE_DEADLINE: Duration = Duration::from_mins(2);
/// Nothing arrives for this long when nothing is under way any more.
const QUIET: Duration = Duration::from_millis(300);

/// A running system.
pub struct System {
    parts: Vec<Child>,
    api: SocketAddr,
    /// Harborhook's ledger; the bare pipeline has none.
    ledger: Option<PostgresLedger>,
    /// Its database and vhost, until it is dropped.
    pub storage: Storage,
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
        let Addresses { database, broker } = addresses;
        let common = ["--database", database, "--queue", broker];
        let mut ingest = Child::again("ingest", [["pipeline-ingest"].as_slice(), &common].concat())?;
        let sink = sink.address.to_string();
        let deliver = [["pipeline-deliver"].as_slice(), &common, &["--sink", &sink]].concat();
        let deliver = Child::again("deliver", deliver)?;
        let api = ingest.address("api").await?;
        Ok(Self { parts: vec![ingest, deliver], api, ledger: None, storage })
    }

    /// Migrates the ledger, publishes the routing table and starts the dispatchers.
    pub async fn harborhook(storage: Storage, addresses: &Addresses, sink: &Sink) -> Result<Self> {
        let config = PostgresConfig::new(&storage.database());
        PostgresLedger::migrate(&config).await?;
        let ledger = PostgresLedger::connect(config).await?;
        ledger.publish_table(table(&SealingKey::from_bytes(&SEALING_KEY), sink.address)).await?;
        let Addresses { database, broker } = addresses;
        let common = ["distributed", "--database", database, "--queue", broker];
        let mut ingest = Child::again("ingest", common)?;
        let api = ingest.address("api").await?;
        Ok(Self { parts: vec![ingest], api, ledger: Some(ledger), storage })
    }

    /// What to load it with.
    pub fn subject(&self, fanout: u64, payload_bytes: usize) -> Subject {
        let (path, event_type) = match &self.ledger {
            Some(_) => (format!("v1/tenants/{TENANT}/events:publish"), Some(event_type(fanout))),
            None => (fanout.to_string(), None),
        };
        Subject { url: format!("http://{}/{path}", self.api), event_type, fanout, payload_bytes }
    }

    /// Its processes.
    pub fn parts(&self) -> &[Child] {
        &self.parts
    }

    /// Waits until everything that it accepted has arrived. Of Harborhook, proves by the ledger that what was accepted
    /// is exactly what was delivered, and answers the balance.
    pub async fn settle(&self, sink: &Sink) -> Result<Option<Balance>> {
        let deadline = Instant::now() + SETTLE_DEADLINE;
        loop {
            let arrivals = sink.arrivals();
            sleep(QUIET).await;
            let quiet = sink.arrivals() == arrivals;
            let balance = match &self.ledger {
                Some(ledger) if quiet => ledger.balance().await?.into_iter().next(),
                _ => None,
            };
            if quiet && balance.is_none_or(|balance| balance.open == 0) {
                if let Some(Balance { accepted, delivered, dead, cancelled, open, .. }) = balance {
                    let sum = delivered + dead + cancelled + open;
                    ensure!(accepted == sum, "{accepted} deliveries were accepted, and {sum} are accounted for");
                    ensure!(accepted == delivered, "{dead} deliveries are dead and {cancelled} cancelled");
                }
                return Ok(balance);
            }
            ensure!(Instant::now() < deadline, "the backlog did not drain: {balance:?}");
        }
    }

    /// Ends its processes.
    pub async fn stop(self) -> Result<Storage> {
        for part in self.parts {
            part.stop().await.context("a part of a system")?;
        }
        if let Some(ledger) = self.ledger {
            ledger.close().await;
        }
        Ok(self.storage)
    }
}

/// Seals the secrets of the benchmark's routing table.
const SEALING_KEY: [u8; 32] = [7; 32];

pub async fn serve(database: &str, broker: &str) -> Result<()> {
    use std::sync::Arc;
    let ledger: Arc<dyn Ledger> = Arc::new(PostgresLedger::connect(PostgresConfig::new(database)).await?);
    let queue =
        dispatcher::queue::rabbitmq::RabbitQueue::connect(dispatcher::queue::rabbitmq::RabbitConfig::new(broker))
            .await?;
    let key = Arc::new(SealingKey::from_bytes(&SEALING_KEY));
    let config = dispatcher::service::ServiceConfig::new(
        ledger,
        Arc::new(queue),
        key,
        dispatcher_core::address::AddressPolicy::development(),
    );
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
    let service =
        dispatcher::service::Service::start(config, listener, None, tokio_util::sync::CancellationToken::new()).await?;
    super::child::tell_address("api", service.address).await?;
    service.join.await??;
    Ok(())
}
