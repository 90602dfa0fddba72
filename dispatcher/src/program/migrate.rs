//! `migrate`: brings the schema up to date.

use std::time::Duration;

use dispatcher::ledger::LedgerError;
use dispatcher::ledger::postgres::{PostgresConfig, PostgresLedger};
use dispatcher::process::{Exit, Failure, Retry, check_files};
use dispatcher_core::limits::MIGRATE_PATIENCE;
use tokio::time::Instant;

use super::arguments::MigrateArguments;

/// Migrates, as often as it is asked to. A database that cannot be reached is waited for, but not for ever: whoever
/// migrates wants to know.
pub(crate) async fn run(arguments: &MigrateArguments) -> Result<Exit, Failure> {
    check_files(&arguments.database)?;
    let config = PostgresConfig::new(arguments.database.expose());
    let deadline = Instant::now() + MIGRATE_PATIENCE;
    let mut retry = Retry::new();
    loop {
        let error = match PostgresLedger::migrate(&config).await {
            Ok(()) => {
                tracing::info!("the schema is up to date");
                return Ok(Exit::Done);
            }
            Err(error) => error,
        };
        match error {
            LedgerError::Refused(_) | LedgerError::Schema { .. } | LedgerError::Superseded { .. } => {
                return Err(error.into());
            }
            LedgerError::Unavailable(_) if Instant::now() >= deadline => {
                return Err(unreachable(&error, MIGRATE_PATIENCE));
            }
            LedgerError::Unavailable(_) => {}
        }
        if retry.is_news(&error.to_string()) {
            tracing::warn!(%error, "the database cannot be migrated yet; trying again");
        }
        retry.pause().await;
    }
}

fn unreachable(error: &LedgerError, patience: Duration) -> Failure {
    let seconds = patience.as_secs();
    Failure::Unreachable(format!(
        "{error}; tried for {seconds} seconds: check that the database runs and that its URL names its host and port"
    ))
}
