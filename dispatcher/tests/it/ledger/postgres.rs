//! The distributed ledger on a real server: the shared suites, and what only many processes can do.

mod clocks;
mod connecting;
mod copying;
mod interleavings;
mod maintenance;
mod owners;
mod pools;
mod rolling;
mod silence;
mod tls;
mod together;

use std::sync::Arc;

use dispatcher::ledger::Ledger;
use dispatcher::ledger::postgres::{PostgresConfig, PostgresLedger};
use sqlx::{Connection, PgConnection};
use testbed::TestDatabase;

/// A migrated database of its own and the ledger in it; `None`, with a word on the error stream, where there is no
/// server.
async fn open() -> Option<(Arc<dyn Ledger>, TestDatabase)> {
    let database = database().await?;
    let ledger: Arc<dyn Ledger> = Arc::new(connect(&database).await);
    Some((ledger, database))
}

/// A migrated database.
async fn database() -> Option<TestDatabase> {
    let database = testbed::database().await.unwrap()?;
    PostgresLedger::migrate(&config(&database)).await.unwrap();
    Some(database)
}

fn config(database: &TestDatabase) -> PostgresConfig {
    PostgresConfig { pool_connections_max: 4, ..PostgresConfig::new(database.url()) }
}

async fn connect(database: &TestDatabase) -> PostgresLedger {
    PostgresLedger::connect(config(database)).await.unwrap()
}

/// A connection beside the ledger's.
async fn raw(database: &TestDatabase) -> PgConnection {
    PgConnection::connect(database.url()).await.unwrap()
}

super::conformance::conformance_suite!(open);
super::model::model_suite!(open);
