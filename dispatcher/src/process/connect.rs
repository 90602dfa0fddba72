//! Connects to the ledger. What no waiting heals ends the process; what may pass is tried again, and told once for each
//! change.

use std::fs::OpenOptions;
use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dispatcher_core::limits::{START_RETRY_PAUSE_MAX, START_RETRY_PAUSE_MIN};
use tokio::time::sleep;

use super::{Database, Failure};
use crate::ledger::postgres::{PostgresConfig, PostgresLedger};
use crate::ledger::sqlite::SqliteLedger;
use crate::ledger::{Ledger, LedgerError};
use crate::readiness::Finding;
use crate::service::Tenure;

/// What a process does with a ledger, which decides what it may do with the file of an embedded one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// It accepts and delivers: only one process at a time may do that in a file, and it takes a lock.
    Work,
    /// It writes the routing table, beside the one process that works.
    Control,
}

/// A ledger that is connected.
pub struct ConnectedLedger {
    /// The ledger.
    pub ledger: Arc<dyn Ledger>,
    /// With whom it is shared.
    pub tenure: Tenure,
    /// Held by the one process that may work in a file.
    _lock: Option<File>,
}

impl ConnectedLedger {
    /// Ends its connections in order.
    pub async fn close(&self) {
        if let Tenure::Shared(postgres) = &self.tenure {
            postgres.close().await;
        }
    }
}

/// Connects to the ledger, however long that takes. `tell` is given what it waits for.
///
/// # Errors
/// What no waiting heals.
pub async fn connect_ledger(
    database: &Database,
    r#use: Use,
    tell: &(dyn Fn(Finding) + Sync),
) -> Result<ConnectedLedger, Failure> {
    let connected = match database {
        Database::Postgres(config) => {
            let postgres = Arc::new(postgres(config, r#use, tell).await?);
            let ledger = Arc::clone(&postgres) as Arc<dyn Ledger>;
            ConnectedLedger { ledger, tenure: Tenure::Shared(postgres), _lock: None }
        }
        Database::Sqlite(path) => sqlite(path, r#use, tell).await?,
    };
    tell(Finding::Ok);
    Ok(connected)
}

/// Whoever controls brings the schema up to date first; the others wait for it.
async fn postgres(
    config: &PostgresConfig,
    r#use: Use,
    tell: &(dyn Fn(Finding) + Sync),
) -> Result<PostgresLedger, Failure> {
    let attempt = async || {
        if r#use == Use::Control {
            PostgresLedger::migrate(config).await?;
        }
        PostgresLedger::connect(config.clone()).await
    };
    let mut retry = Retry::new();
    loop {
        let error = match attempt().await {
            Ok(ledger) => return Ok(ledger),
            Err(error) => error,
        };
        let Some(finding) = may_pass(&error) else { return Err(error.into()) };
        tell(finding);
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
        LedgerError::Schema { .. } | LedgerError::Refused(_) | LedgerError::Superseded { .. } => None,
    }
}

/// One process can work in a file. Whoever comes first makes it, for its user alone.
async fn sqlite(path: &Path, r#use: Use, tell: &(dyn Fn(Finding) + Sync)) -> Result<ConnectedLedger, Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        let path = path.display();
        Failure::Configuration(format!("--database sqlite:{path}: {error}; name a file that this user may write"))
    };
    let private = |path: &Path| OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path);
    let lock = match r#use {
        Use::Control => None,
        Use::Work => {
            let lock = private(&with_suffix(path, ".lock")).map_err(|error| failed(&error))?;
            match lock.try_lock() {
                Ok(()) => Some(lock),
                Err(TryLockError::WouldBlock) => {
                    let path = path.display();
                    let message = format!(
                        "--database sqlite:{path}: another process uses it: stop that one, or name another file"
                    );
                    return Err(Failure::Configuration(message));
                }
                Err(TryLockError::Error(error)) => return Err(failed(&error)),
            }
        }
    };
    // SQLite makes a database of an empty file, and gives the files beside it the mode of the database.
    let made: io::Result<File> = private(path);
    made.map_err(|error| failed(&error))?;
    let mut retry = Retry::new();
    let ledger = loop {
        let error = match SqliteLedger::open(path).await {
            Ok(ledger) => break ledger,
            Err(LedgerError::Refused(message)) => return Err(failed(&message)),
            Err(error @ (LedgerError::Schema { .. } | LedgerError::Superseded { .. })) => return Err(error.into()),
            Err(error @ LedgerError::Unavailable(_)) => error,
        };
        tell(Finding::Unreachable);
        if retry.is_news(&error.to_string()) {
            tracing::warn!(%error, "not ready: the database's file cannot be used yet; trying again");
        }
        retry.pause().await;
    };
    Ok(ConnectedLedger { ledger: Arc::new(ledger), tenure: Tenure::Alone, _lock: lock })
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Does what needs the ledger to answer, however long that takes.
///
/// # Errors
/// What no waiting heals.
pub async fn retried<T>(mut attempt: impl AsyncFnMut() -> Result<T, LedgerError>) -> Result<T, Failure> {
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
pub struct Retry {
    pause: Duration,
    told: Option<String>,
}

impl Default for Retry {
    fn default() -> Self {
        Self::new()
    }
}

impl Retry {
    /// Begins with the shortest pause.
    pub fn new() -> Self {
        Self { pause: START_RETRY_PAUSE_MIN, told: None }
    }

    /// Whether this differs from what was told last; from now on it is told.
    pub fn is_news(&mut self, message: &str) -> bool {
        let is_news = self.told.as_deref() != Some(message);
        if is_news {
            self.told = Some(message.to_owned());
        }
        is_news
    }

    /// Waits until the next attempt is due.
    pub async fn pause(&mut self) {
        sleep(self.pause).await;
        self.pause = (self.pause * 2).min(START_RETRY_PAUSE_MAX);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

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
        let found = Mutex::new(None);
        let tell = |finding| *found.lock().unwrap() = Some(finding);
        let mut opening = std::pin::pin!(sqlite(&path, Use::Work, &tell));
        let told = async {
            while *found.lock().unwrap() != Some(Finding::Unreachable) {
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
        for (path, what, not) in [(text, "name a file", "try again"), (newer, "use that release", "name a file")] {
            let failure = sqlite(&path, Use::Work, &|_| ()).await.err().expect(what).to_string();
            assert!(failure.contains(what) && !failure.contains(not), "{failure}");
        }
    }

    #[tokio::test]
    async fn one_process_works_in_a_file_while_another_controls_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        let _working = sqlite(&path, Use::Work, &|_| ()).await.unwrap();
        let _controlling = sqlite(&path, Use::Control, &|_| ()).await.unwrap();
        let failure = sqlite(&path, Use::Work, &|_| ()).await.err().unwrap().to_string();
        assert!(failure.contains("another process uses it"), "{failure}");
    }
}
