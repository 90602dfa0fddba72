//! The servers that both systems use, each with a database and a vhost of its own.

use std::time::Duration;

use anyhow::{Context, Result};
use sqlx::{Connection, PgConnection};
use testbed::{PostgresServer, RabbitServer, TestDatabase, TestVhost};

use super::usage;

/// What an installation would set, but for the sizes, which fit this machine. Nothing is traded for safety.
const POSTGRES_SETTINGS: &[(&str, &str)] = &[
    ("fsync", "on"),
    ("synchronous_commit", "on"),
    ("full_page_writes", "on"),
    ("shared_buffers", "'1GB'"),
    ("max_wal_size", "'4GB'"),
];

/// A private PostgreSQL and a private RabbitMQ.
pub struct Servers {
    postgres: PostgresServer,
    rabbitmq: RabbitServer,
}

/// A database and a vhost. They go with the value.
pub struct Storage {
    database: TestDatabase,
    vhost: TestVhost,
}

/// Positions of a server from whose differences work is read.
#[derive(Clone, Copy, Debug)]
pub struct ServerUse {
    /// CPU time of PostgreSQL.
    pub postgres_cpu: Duration,
    /// CPU time of RabbitMQ.
    pub rabbitmq_cpu: Duration,
    /// Bytes of WAL.
    pub wal_bytes: u64,
}

impl Servers {
    /// Starts both.
    pub async fn start() -> Result<Self> {
        let missing = "the distributed pair needs private servers, see the lines above";
        Ok(Self {
            postgres: testbed::postgres(POSTGRES_SETTINGS).await?.context(missing)?,
            rabbitmq: testbed::rabbitmq(&[]).await?.context(missing)?,
        })
    }

    /// An empty database and an empty vhost.
    pub async fn storage(&self) -> Result<Storage> {
        Ok(Storage {
            database: TestDatabase::create(self.postgres.url()).await?,
            vhost: TestVhost::create(self.rabbitmq.url(), self.rabbitmq.management_url()).await?,
        })
    }

    /// What they have used so far.
    pub async fn used(&self) -> Result<ServerUse> {
        let mut connection = PgConnection::connect(self.postgres.url()).await?;
        let wal_bytes: i64 =
            sqlx::query_scalar("SELECT (pg_current_wal_lsn() - '0/0')::int8").fetch_one(&mut connection).await?;
        connection.close().await?;
        Ok(ServerUse {
            postgres_cpu: usage::cpu_of_tree(self.postgres.process_id().context("PostgreSQL runs")?)?,
            rabbitmq_cpu: usage::cpu_of_tree(self.rabbitmq.process_id().context("RabbitMQ runs")?)?,
            wal_bytes: u64::try_from(wal_bytes)?,
        })
    }

    /// Writes out what is dirty, so that no measurement pays for the one before it.
    pub async fn checkpoint(&self) -> Result<()> {
        let mut connection = PgConnection::connect(self.postgres.url()).await?;
        sqlx::query("CHECKPOINT").execute(&mut connection).await?;
        connection.close().await?;
        Ok(())
    }
}

impl Storage {
    /// URL of the database; without TLS, which would hide the counted work.
    pub fn database(&self) -> String {
        format!("{}?sslmode=disable", self.database.url())
    }

    /// URL of the vhost.
    pub fn broker(&self) -> &str {
        self.vhost.url()
    }
}
