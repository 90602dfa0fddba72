//! `migrate`: brings the schema up to date.

use std::time::Duration;

use dispatcher::ledger::LedgerError;
use dispatcher::ledger::postgres::{PostgresConfig, PostgresLedger};
use dispatcher_core::limits::{MIGRATE_PATIENCE, START_RETRY_PAUSE_MAX, START_RETRY_PAUSE_MIN};
use tokio::time::{Instant, sleep};

use super::arguments::MigrateArguments;
use super::exit::{Exit, Failure};

/// Migrates, as often as it is asked to. A database that cannot be reached is waited for, but not for ever: whoever
/// migrates wants to know.
pub(crate) async fn run(arguments: &MigrateArguments) -> Result<Exit, Failure> {
    let config = PostgresConfig::new(arguments.database.expose());
    let deadline = Instant::now() + MIGRATE_PATIENCE;
    let mut pause = START_RETRY_PAUSE_MIN;
    loop {
        let error = match PostgresLedger::migrate(&config).await {
            Ok(()) => {
                tracing::info!("the schema is up to date");
                return Ok(Exit::Done);
            }
            Err(error) => error,
        };
        match error {
            LedgerError::Refused(_) | LedgerError::Schema { .. } => {
                return Err(Failure::Configuration(error.to_string()));
            }
            LedgerError::Unavailable(_) if Instant::now() + pause < deadline => {
                tracing::warn!(%error, "the database cannot be migrated yet; trying again");
            }
            LedgerError::Unavailable(_) => return Err(unreachable(&error, MIGRATE_PATIENCE)),
        }
        sleep(pause).await;
        pause = (pause * 2).min(START_RETRY_PAUSE_MAX);
    }
}

fn unreachable(error: &LedgerError, patience: Duration) -> Failure {
    let seconds = patience.as_secs();
    Failure::Unreachable(format!(
        "{error}; tried for {seconds} seconds: check that the database runs and that its URL names its host and port"
    ))
}
