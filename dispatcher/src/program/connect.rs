//! Connects to what the settings name. What no waiting heals ends the process; what may pass is tried again, and told
//! once for each change.

use std::fs::OpenOptions;
use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dispatcher::ledger::postgres::{PostgresConfig, PostgresLedger};
use dispatcher::ledger::sqlite::SqliteLedger;
use dispatcher::ledger::{Ledger, LedgerError};
use dispatcher::queue::memory::MemoryQueue;
use dispatcher::queue::rabbitmq::{RabbitConfig, RabbitQueue};
use dispatcher::queue::{Queue, QueueError};
use dispatcher::readiness::{Finding, Probe};
use dispatcher::service::Tenure;
use dispatcher_core::limits::{MEMORY_QUEUE_MESSAGES_MAX, START_RETRY_PAUSE_MAX, START_RETRY_PAUSE_MIN};
use tokio::time::sleep;

use super::exit::Failure;
use super::settings::{Database, QueueChoice};

/// A ledger that is connected.
pub(crate) struct ConnectedLedger {
    pub(crate) ledger: Arc<dyn Ledger>,
    pub(crate) tenure: Tenure,
    /// Held by the one process that may use a file.
    _lock: Option<File>,
}

impl ConnectedLedger {
    /// Ends its connections in order.
    pub(crate) async fn close(&self) {
        if let Tenure::Shared(postgres) = &self.tenure {
            postgres.close().await;
        }
    }
}

/// A queue that is connected, or will be.
pub(crate) struct ConnectedQueue {
    pub(crate) queue: Arc<dyn Queue>,
    rabbit: Option<Arc<RabbitQueue>>,
}

impl ConnectedQueue {
    /// Ends its connections in order: what was acknowledged is told to the broker.
    pub(crate) async fn close(&self) {
        if let Some(rabbit) = &self.rabbit {
            rabbit.close().await;
        }
    }
}

/// Connects to the ledger, however long that takes.
pub(crate) async fn ledger(database: &Database, probe: &Probe) -> Result<ConnectedLedger, Failure> {
    let connected = match database {
        Database::Postgres(config) => {
            let postgres = Arc::new(postgres(config, probe).await?);
            let ledger = Arc::clone(&postgres) as Arc<dyn Ledger>;
            ConnectedLedger { ledger, tenure: Tenure::Shared(postgres), _lock: None }
        }
        Database::Sqlite(path) => sqlite(path, probe).await?,
    };
    probe.set_ledger(Finding::Ok);
    Ok(connected)
}

async fn postgres(config: &PostgresConfig, probe: &Probe) -> Result<PostgresLedger, Failure> {
    let mut retry = Retry::new();
    loop {
        let error = match PostgresLedger::connect(config.clone()).await {
            Ok(ledger) => return Ok(ledger),
            Err(error) => error,
        };
        let Some(finding) = may_pass(&error) else { return Err(error.into()) };
        probe.set_ledger(finding);
        if retry.is_news(&error.to_string()) {
            tracing::warn!(%error, reason = finding.as_str(), "not ready: the database cannot be used yet; trying again");
        }
        retry.pause().await;
    }
}

/// What readiness says of an error that waiting may heal; `None` for one that somebody has to mend.
fn may_pass(error: &LedgerError) -> Option<Finding> {
    match error {
        LedgerError::Unavailable(_) => Some(Finding::Unreachable),
        // The operator migrates, or `dispatcher migrate` does.
        LedgerError::Schema { found, needed, .. } if found < needed => Some(Finding::SchemaTooOld),
        LedgerError::Schema { .. } | LedgerError::Refused(_) => None,
    }
}

/// A file can be used by one process, which makes it if it is not there, for its user alone.
async fn sqlite(path: &Path, probe: &Probe) -> Result<ConnectedLedger, Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        let path = path.display();
        Failure::Configuration(format!("--database sqlite:{path}: {error}; name a file that this user may write"))
    };
    let private = |path: &Path| OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path);
    let lock = private(&with_suffix(path, ".lock")).map_err(|error| failed(&error))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let path = path.display();
            let message =
                format!("--database sqlite:{path}: another process uses it: stop that one, or name another file");
            return Err(Failure::Configuration(message));
        }
        Err(TryLockError::Error(error)) => return Err(failed(&error)),
    }
    // SQLite makes a database of an empty file, and gives the files beside it the mode of the database.
    let made: io::Result<File> = private(path);
    made.map_err(|error| failed(&error))?;
    let mut retry = Retry::new();
    let ledger = loop {
        let error = match SqliteLedger::open(path).await {
            Ok(ledger) => break ledger,
            Err(LedgerError::Refused(message)) => return Err(failed(&message)),
            Err(error @ LedgerError::Schema { .. }) => return Err(error.into()),
            Err(error @ LedgerError::Unavailable(_)) => error,
        };
        probe.set_ledger(Finding::Unreachable);
        if retry.is_news(&error.to_string()) {
            tracing::warn!(%error, "not ready: the database's file cannot be used yet; trying again");
        }
        retry.pause().await;
    };
    Ok(ConnectedLedger { ledger: Arc::new(ledger), tenure: Tenure::Alone, _lock: Some(lock) })
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Connects to the queue. A broker that is not there is no obstacle: its client goes on trying.
pub(crate) async fn queue(choice: QueueChoice, probe: &Probe) -> Result<ConnectedQueue, Failure> {
    let connected = match choice {
        QueueChoice::Rabbit(config) => {
            let rabbit = Arc::new(rabbit(*config, probe).await?);
            ConnectedQueue { queue: Arc::clone(&rabbit) as Arc<dyn Queue>, rabbit: Some(rabbit) }
        }
        QueueChoice::Memory => {
            ConnectedQueue { queue: Arc::new(MemoryQueue::new(MEMORY_QUEUE_MESSAGES_MAX)), rabbit: None }
        }
    };
    probe.set_queue(if connected.queue.is_connected() { Finding::Ok } else { Finding::Unreachable });
    Ok(connected)
}

async fn rabbit(config: RabbitConfig, probe: &Probe) -> Result<RabbitQueue, Failure> {
    let mut retry = Retry::new();
    loop {
        let error = match RabbitQueue::connect(config.clone()).await {
            Ok(queue) => return Ok(queue),
            Err(QueueError::Misconfigured(message)) => return Err(Failure::Configuration(message)),
            Err(error @ QueueError::Unavailable(_)) => error,
        };
        probe.set_queue(Finding::Unreachable);
        if retry.is_news(&error.to_string()) {
            tracing::warn!(%error, "not ready: the queue cannot be used yet; trying again");
        }
        retry.pause().await;
    }
}

/// Loads what needs the ledger to answer, however long that takes.
pub(crate) async fn retried<T>(mut attempt: impl AsyncFnMut() -> Result<T, LedgerError>) -> Result<T, Failure> {
    let mut retry = Retry::new();
    loop {
        let error = match attempt().await {
            Ok(done) => return Ok(done),
            Err(error @ LedgerError::Unavailable(_)) => error,
            Err(error) => return Err(error.into()),
        };
        if retry.is_news(&error.to_string()) {
            tracing::warn!(%error, "not ready: the routing table cannot be loaded yet; trying again");
        }
        retry.pause().await;
    }
}

/// Growing pauses between attempts, and what was told of the last one.
pub(crate) struct Retry {
    pause: Duration,
    told: Option<String>,
}

impl Retry {
    pub(crate) fn new() -> Self {
        Self { pause: START_RETRY_PAUSE_MIN, told: None }
    }

    /// Whether this differs from what was told last; from now on it is told.
    pub(crate) fn is_news(&mut self, message: &str) -> bool {
        let is_news = self.told.as_deref() != Some(message);
        if is_news {
            self.told = Some(message.to_owned());
        }
        is_news
    }

    /// Waits until the next attempt is due.
    pub(crate) async fn pause(&mut self) {
        sleep(self.pause).await;
        self.pause = (self.pause * 2).min(START_RETRY_PAUSE_MAX);
    }
}

#[cfg(test)]
mod tests {
    use dispatcher::ledger::DispatcherRole;
    use dispatcher::readiness::Check;
    use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
    use sqlx::{ConnectOptions, Executor};

    use super::*;

    /// A connection of somebody else, who makes the file if it is not there.
    async fn beside(path: &Path) -> SqliteConnection {
        SqliteConnectOptions::new().filename(path).create_if_missing(true).connect().await.unwrap()
    }

    #[tokio::test]
    async fn a_file_that_is_busy_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("busy");
        let mut busy = beside(&path).await;
        busy.execute("BEGIN EXCLUSIVE").await.unwrap();
        let probe = Probe::new(DispatcherRole::All);
        let mut opening = std::pin::pin!(sqlite(&path, &probe));
        let told = async {
            while !probe.readiness().await.checks.contains(&(Check::Ledger, Finding::Unreachable)) {
                sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            opened = &mut opening => panic!("it was not waited for: {:?}", opened.err()),
            () = told => {}
        }
        busy.execute("COMMIT").await.unwrap();
        opening.await.unwrap();
    }

    #[tokio::test]
    async fn a_file_that_no_waiting_makes_usable_is_refused_for_what_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let (text, newer) = (folder.path().join("text"), folder.path().join("newer"));
        std::fs::write(&text, "This is no database, although it is long enough to be the header of one. ".repeat(9))
            .unwrap();
        drop(SqliteLedger::open(&newer).await.unwrap());
        let migration = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                         VALUES (999, 'newer', true, '', 0)";
        beside(&newer).await.execute(migration).await.unwrap();
        let probe = Probe::new(DispatcherRole::All);
        for (path, what, not) in [(text, "name a file", "try again"), (newer, "use that release", "name a file")] {
            let failure = sqlite(&path, &probe).await.err().expect(what).to_string();
            assert!(failure.contains(what) && !failure.contains(not), "{failure}");
        }
    }
}
