//! The schema and its version.

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::{PgConnection, PgPoolOptions};
use sqlx::{ConnectOptions, Connection};

use super::error::of_connecting;
use super::{LedgerError, PostgresConfig, connect, maintain};

static MIGRATIONS: Migrator = sqlx::migrate!("../migrations/postgres");

const TOO_OLD: &str = "run `dispatcher migrate` of this release first";
const TOO_NEW: &str = "a newer release has changed it for good; use that release";

/// Applies what is missing, under an advisory lock, so that of several only one does. A newer schema that this
/// release may still work with is left as it is. A server that does not answer is not waited for.
pub(super) async fn migrate(config: &PostgresConfig) -> Result<(), LedgerError> {
    // A large ledger may take its time.
    let options = connect::options(config)?.options([("statement_timeout", "0")]);
    let (mut connection, found) = connect::in_time(config, async {
        let mut connection = options.connect().await.map_err(of_connecting)?;
        let found = Found::read(&mut connection).await?;
        Ok((connection, found))
    })
    .await?;
    if found.version <= needed() {
        MIGRATIONS.run(&mut connection).await.map_err(of_migration)?;
    }
    check(&mut connection).await?;
    connection.close().await?;
    let pool = PgPoolOptions::new().max_connections(1).connect_lazy_with(options);
    maintain::make_partitions(&pool).await?;
    pool.close().await;
    Ok(())
}

/// Whether this release may work with the schema.
pub(super) async fn check(connection: &mut PgConnection) -> Result<(), LedgerError> {
    let Found { version, usable_from } = Found::read(connection).await?;
    let schema = |hint| LedgerError::Schema { found: version, needed: needed(), hint };
    if version < needed() {
        return Err(schema(TOO_OLD));
    }
    if usable_from > needed() {
        return Err(schema(TOO_NEW));
    }
    Ok(())
}

fn needed() -> i64 {
    MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or_default()
}

/// What stands in the database.
struct Found {
    /// Version of the schema; 0 if there is none.
    version: i64,
    /// The oldest release, by the version that it needs, that may work with it.
    usable_from: i64,
}

impl Found {
    async fn read(connection: &mut PgConnection) -> Result<Self, LedgerError> {
        let exists = "SELECT to_regclass('_sqlx_migrations') IS NOT NULL AND to_regclass('ledger') IS NOT NULL";
        if !sqlx::query_scalar(exists).fetch_one(&mut *connection).await.map_err(of_connecting)? {
            return Ok(Self { version: 0, usable_from: 0 });
        }
        let (version, usable_from): (Option<i64>, i64) =
            sqlx::query_as("SELECT (SELECT max(version) FROM _sqlx_migrations WHERE success), usable_from FROM ledger")
                .fetch_one(connection)
                .await
                .map_err(of_connecting)?;
        Ok(Self { version: version.unwrap_or_default(), usable_from })
    }
}

fn of_migration(error: MigrateError) -> LedgerError {
    match error {
        MigrateError::VersionMissing(found) => LedgerError::Schema { found, needed: needed(), hint: TOO_NEW },
        MigrateError::VersionMismatch(found) => LedgerError::Schema {
            found,
            needed: needed(),
            hint: "it was written by a build that was never released; use another database",
        },
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => of_connecting(error),
        other => LedgerError::Unavailable(format!("the schema could not be brought up to date: {other}")),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_server_that_takes_the_connection_and_says_nothing_is_not_waited_for() {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("postgres://u@{}/d", silent.local_addr().unwrap());
        let config = PostgresConfig { acquire_timeout: Duration::from_millis(50), ..PostgresConfig::new(&url) };
        let error = timeout(Duration::from_mins(1), migrate(&config)).await.expect("it ends").unwrap_err();
        assert!(matches!(error, LedgerError::Unavailable(_)), "{error}");
    }
}
