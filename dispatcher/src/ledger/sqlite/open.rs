//! Opening the file: connection options and migrations.

use std::path::Path;

use dispatcher_core::limits::{LEDGER_BUSY_TIMEOUT, LEDGER_READERS_MAX};
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, SqlitePool};

use super::LedgerError;

static MIGRATIONS: Migrator = sqlx::migrate!("../migrations/sqlite");

/// Opens the one writer, brings the schema up to date, and opens the readers.
pub(super) async fn connect(path: &Path) -> Result<(SqliteConnection, SqlitePool), LedgerError> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // With NORMAL a commit may be lost with the power, and "committed" would be false.
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(LEDGER_BUSY_TIMEOUT)
        .foreign_keys(false)
        .pragma("temp_store", "memory")
        .pragma("cache_size", "-65536")
        // Pages in the log before a commit copies them to the file; each copy costs two further syncs.
        .pragma("wal_autocheckpoint", "4000")
        .disable_statement_logging();
    let mut writer = options.connect().await.map_err(of_opening)?;
    migrate(&mut writer).await?;
    let readers = SqlitePoolOptions::new()
        .max_connections(LEDGER_READERS_MAX)
        .test_before_acquire(false)
        .connect_with(options.create_if_missing(false).read_only(true))
        .await
        .map_err(of_opening)?;
    Ok((writer, readers))
}

async fn migrate(writer: &mut SqliteConnection) -> Result<(), LedgerError> {
    let first = MIGRATIONS.run(&mut *writer).await;
    // Another process that opened the file at the same moment may have migrated it meanwhile.
    let result = match first {
        Err(MigrateError::Execute(_) | MigrateError::ExecuteMigration(..)) => MIGRATIONS.run(writer).await,
        other => other,
    };
    let needed = MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or_default();
    result.map_err(|error| match error {
        MigrateError::VersionMissing(found) => LedgerError::Schema {
            found,
            needed,
            hint: "a newer release has written it; use that release, or another data folder",
        },
        MigrateError::VersionMismatch(found) => LedgerError::Schema {
            found,
            needed,
            hint: "it was written by a build that was never released; use another data folder",
        },
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => of_opening(error),
        other => LedgerError::Unavailable(format!("its schema could not be brought up to date: {other}")),
    })
}

/// Reads an error that ended an attempt to open the file. Of these no waiting heals what the file is or may be used for:
/// PERM, READONLY, CORRUPT, CANTOPEN, AUTH, NOTADB (<https://www.sqlite.org/rescode.html>).
fn of_opening(error: sqlx::Error) -> LedgerError {
    let code = error.as_database_error().and_then(|database| database.code()?.parse::<u32>().ok());
    match (error.as_database_error(), code.map(|extended| extended & 0xff)) {
        (Some(database), Some(3 | 8 | 11 | 14 | 23 | 26)) => LedgerError::Refused(database.message().to_owned()),
        _ => error.into(),
    }
}
