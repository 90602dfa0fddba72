//! The distributed pair as users run it: real `dispatcher` processes on a real database and a real broker, a producer
//! that remembers what was acknowledged, a receiver that counts what arrives, and a checker that compares the two.

mod broker;
mod check;
mod processes;
mod producer;
mod receiver;
mod routes;
mod stall;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use dispatcher::clock::now_unix_ms;
use dispatcher::ledger::postgres::{PostgresConfig, PostgresLedger};
use dispatcher::ledger::{Ledger, NewEvent};
use dispatcher_core::delivery::split_into_parts;
use dispatcher_core::event::{Attributes, Event};
use dispatcher_core::id::EventId;
use dispatcher_core::limits::ACCEPT_BATCH_EVENTS_MAX;
use dispatcher_core::seal::SealingKey;
use dispatcher_core::table::{DEFAULT_POOL, TableChange};
use tempfile::TempDir;
use tokio::time::Instant;

pub use broker::Broker;
pub use check::{Balance, BalanceWatch, Bounds, Recovery, Row, Sees, Watched};
pub use processes::{Process, Role};
pub use producer::{Acknowledged, Failures, Load, Producer, Published, event_id};
pub use receiver::{Answer, Arrivals, Receiver};
pub use routes::{Routes, TENANT};

/// Longest wait for what must happen, on a machine that does much else.
pub const DEADLINE: Duration = Duration::from_mins(5);
/// Pause between two looks at a condition that nobody announces.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// The key of every test's system. It seals nothing that is worth anything.
const SEALING_KEY: [u8; 32] = [7; 32];

/// One system: a database and a vhost of its own, its routing table, its receiver, and a folder for its logs.
pub struct Distributed {
    /// Where everything is delivered to.
    pub receiver: Receiver,
    /// Who gets what.
    pub routes: Routes,
    /// The ledger, for what a test does to it by itself.
    pub ledger: PostgresLedger,
    database_url: String,
    queue_url: String,
    folder: TempDir,
}

impl Distributed {
    /// Brings the schema up with `dispatcher migrate` and publishes routes to a fresh receiver, which the caller may
    /// change before.
    pub async fn new(database_url: &str, queue_url: &str, change: impl FnOnce(Routes) -> Routes) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("sealing.key"), SEALING_KEY)?;
        processes::migrate(database_url, folder.path()).await?;
        let receiver = Receiver::start().await?;
        let routes = change(Routes::to(&receiver.url()));
        let ledger = PostgresLedger::connect(PostgresConfig::new(database_url)).await?;
        let (database_url, queue_url) = (database_url.to_owned(), queue_url.to_owned());
        let system = Self { receiver, routes, ledger, database_url, queue_url, folder };
        system.publish_routes().await?;
        Ok(system)
    }

    /// Publishes the routes as they are now.
    pub async fn publish_routes(&self) -> Result<()> {
        let put = self.routes.rows(&self.sealing_key());
        self.ledger.publish_table(TableChange { put, drop: Vec::new() }, None).await?;
        Ok(())
    }

    /// The key that its processes share.
    pub fn sealing_key(&self) -> Arc<SealingKey> {
        Arc::new(SealingKey::from_bytes(&SEALING_KEY))
    }

    /// Accepts events as a process would that publishes nothing of them: into the ledger, leased.
    pub async fn accept(&self, numbers: Range<u64>, lease: Duration) -> Result<Acknowledged> {
        let table_version = self.ledger.load_table(None).await?.version;
        let now = now_unix_ms();
        let mut accepted = Acknowledged::new();
        let numbers: Vec<u64> = numbers.collect();
        for batch in numbers.chunks(ACCEPT_BATCH_EVENTS_MAX) {
            let mut events = Vec::with_capacity(batch.len());
            for number in batch {
                let event = self.event(EventId::from_parts(now, rand::random()), *number);
                accepted.insert(*number, event.id);
                let targets = self.routes.targets().into_iter().map(|target| (DEFAULT_POOL.to_owned(), target));
                let parts = split_into_parts(targets.collect());
                events.push(NewEvent { event: Arc::new(event), parts, table_version, idempotency: None, lease });
            }
            self.ledger.accept(events).await?;
        }
        Ok(accepted)
    }

    fn event(&self, id: EventId, number: u64) -> Event {
        Event {
            id,
            tenant: self.routes.tenant(),
            event_type: "order.created".to_owned(),
            recipient: None,
            content_type: "application/json".to_owned(),
            body: format!(r#"{{"number":{number}}}"#).into(),
            attributes: Attributes::default(),
        }
    }

    /// URL of the database.
    pub fn database_url(&self) -> &str {
        &self.database_url
    }

    /// URL of the vhost.
    pub fn queue_url(&self) -> &str {
        &self.queue_url
    }

    /// Starts a process that accepts events; returns when it is ready.
    pub async fn ingest(&self) -> Result<Process> {
        self.start(Role::Ingest, &self.database_url, &self.queue_url).await
    }

    /// Starts a process that delivers; returns when it is ready.
    pub async fn deliver(&self) -> Result<Process> {
        self.start(Role::Deliver, &self.database_url, &self.queue_url).await
    }

    /// Starts a process that reaches its servers by other ways, for example through a proxy.
    pub async fn start(&self, role: Role, database_url: &str, queue_url: &str) -> Result<Process> {
        self.start_command(self.command(role, database_url, queue_url)?, role).await
    }

    /// The command line of a process, for [`Self::start_command`].
    pub fn command(&self, role: Role, database_url: &str, queue_url: &str) -> Result<tokio::process::Command> {
        processes::command(role, database_url, queue_url, &self.key_file())
    }

    /// Starts a process by a command line of the caller's, see [`Self::command`].
    pub async fn start_command(&self, command: tokio::process::Command, role: Role) -> Result<Process> {
        Process::start(command, role, self.folder.path()).await
    }

    /// Folder of this system: its key and the logs of its processes.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn key_file(&self) -> PathBuf {
        self.folder.path().join("sealing.key")
    }
}

impl Drop for Distributed {
    /// What the processes said last belongs to the story of a test that fails.
    fn drop(&mut self) {
        if std::thread::panicking() {
            processes::show_logs(self.folder.path());
        }
    }
}

/// Waits for a condition.
pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> Result<bool>) -> Result<Duration> {
    let start = Instant::now();
    while !condition().await.with_context(|| format!("while waiting: {what}"))? {
        if start.elapsed() > DEADLINE {
            bail!("in vain: {what}");
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    Ok(start.elapsed())
}
