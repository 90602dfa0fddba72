//! A system for a row, on shared servers or on servers that the row may break.

use dispatcher_core::limits::{FAST_TRACK_EXCHANGES_MAX, PREFETCH_DELIVERIES_MAX};
use e2e::distributed::{Bounds, Distributed, Recovery, Routes, Sees};
use testbed::{PostgresServer, RabbitServer, TestDatabase, TestVhost};
use tokio::sync::{Mutex, MutexGuard};

/// Seeds every choice that a row makes.
pub(super) const SEED: u64 = 20_261_124;

/// What one process can have sent without having committed what became of it, while it lives: its exchanges in flight.
pub(super) const IN_FLIGHT: usize = FAST_TRACK_EXCHANGES_MAX;
/// What one process holds of the queue, and with which it can be lost, or cut off.
pub(super) const HELD: usize = PREFETCH_DELIVERIES_MAX;

/// Of a failure that no producer sees anything of.
pub(super) const fn bounds(copies_max: usize, recovery: Recovery) -> Bounds {
    Bounds { copies_max, recovery, producer: Sees::Nothing }
}

/// The fields are dropped in this order: what uses a server before it.
pub(super) struct Bed {
    pub(super) system: Distributed,
    pub(super) vhost: TestVhost,
    pub(super) database: TestDatabase,
    pub(super) postgres: Option<PostgresServer>,
    pub(super) rabbitmq: Option<RabbitServer>,
    _alone: MutexGuard<'static, ()>,
}

/// Servers of the row's own.
#[derive(Default)]
pub(super) struct Own {
    pub(super) postgres: Option<PostgresServer>,
    pub(super) rabbitmq: Option<RabbitServer>,
}

impl Bed {
    /// On servers that others use too. `None` without servers; the test bed has said so.
    pub(super) async fn shared() -> Option<Self> {
        Self::with_routes(|routes| routes).await
    }

    /// On shared servers, with routes that the row changes.
    pub(super) async fn with_routes(change: impl FnOnce(Routes) -> Routes) -> Option<Self> {
        Self::with(async || Some(Own::default()), change).await
    }

    /// On servers of the row's own.
    pub(super) async fn own(start: impl AsyncFnOnce() -> Option<Own>) -> Option<Self> {
        Self::with(start, |routes| routes).await
    }

    /// On a RabbitMQ of the row's own.
    pub(super) async fn own_rabbitmq() -> Option<Self> {
        Self::own(async || Some(Own { postgres: None, rabbitmq: Some(testbed::rabbitmq(&[]).await.unwrap()?) })).await
    }

    /// On servers of the row's own, with routes that the row changes. Rows run one after another: each needs the machine
    /// to itself.
    pub(super) async fn with(
        start: impl AsyncFnOnce() -> Option<Own>,
        change: impl FnOnce(Routes) -> Routes,
    ) -> Option<Self> {
        static ONE: Mutex<()> = Mutex::const_new(());
        let alone = ONE.lock().await;
        let Own { postgres, rabbitmq } = start().await?;
        let database = match &postgres {
            Some(server) => TestDatabase::create(server.url()).await.unwrap(),
            None => testbed::database().await.unwrap()?,
        };
        let vhost = match &rabbitmq {
            Some(server) => TestVhost::create(server.url(), server.management_url()).await.unwrap(),
            None => testbed::vhost().await.unwrap()?,
        };
        let system = Distributed::new(database.url(), vhost.url(), change).await.unwrap();
        Some(Self { system, vhost, database, postgres, rabbitmq, _alone: alone })
    }
}
