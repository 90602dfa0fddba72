//! The checker: nothing lost, copies bounded, recovered in time, and the balance by SQL at the end and all the time.

use std::io::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dispatcher_core::id::DeliveryId;
use dispatcher_core::limits::{BROKER_HEARTBEAT_SECONDS, LEASE};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use uuid::Uuid;

use super::receiver::Arrivals;
use super::{Acknowledged, Distributed, until};

/// Shortest pause between two looks at the balance while there is load.
const BALANCE_INTERVAL: Duration = Duration::from_millis(200);
/// The pause is this many times what a look takes, so that looking is not the load.
const BALANCE_REST: u32 = 4;
/// How long to wait for a connection to a database that may be down.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long recovery may take once the part is back, where somebody is told that it is.
const RECOVERY_MAX: Duration = Duration::from_secs(5);
/// By how much a machine that does much else may be slower.
const BUSY_MACHINE: u32 = 4;

/// The balance of all tenants, in one snapshot. `targets` of an event are accepted deliveries; a delivery is open from
/// the outbox on until its last result. `astray` counts rows of `due` without an open delivery, and open deliveries
/// without one.
const BALANCE: &str = "
    SELECT coalesce(e.events, 0) AS events, coalesce(e.accepted, 0) AS accepted,
           coalesce(d.delivered, 0) AS delivered, coalesce(d.dead, 0) AS dead, coalesce(d.cancelled, 0) AS cancelled,
           coalesce(d.open, 0) + coalesce(o.open, 0) AS open, a.astray
    FROM (SELECT count(*) AS events, sum(fanout_count)::int8 AS accepted FROM events) e
    CROSS JOIN (SELECT count(*) FILTER (WHERE state = 1) AS delivered, count(*) FILTER (WHERE state = 2) AS dead,
                       count(*) FILTER (WHERE state = 3) AS cancelled, count(*) FILTER (WHERE state = 0) AS open
                FROM deliveries) d
    CROSS JOIN (SELECT sum(target_count)::int8 AS open FROM outbox) o
    CROSS JOIN (SELECT count(*) AS astray FROM (SELECT id FROM deliveries WHERE state = 0) open
                FULL JOIN due ON due.delivery = open.id WHERE open.id IS NULL OR due.delivery IS NULL) a";

/// What is open of these events and deliveries.
const OPEN: &str = "SELECT (SELECT count(*) FROM outbox WHERE event = ANY($1))
                         + (SELECT count(*) FROM due WHERE delivery = ANY($2))";

/// What is in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Balance {
    /// Events.
    pub events: i64,
    /// Their targets.
    pub accepted: i64,
    /// Deliveries that were answered with 2xx.
    pub delivered: i64,
    /// Given up.
    pub dead: i64,
    /// Cancelled.
    pub cancelled: i64,
    /// Not finished.
    pub open: i64,
    /// Rows of `due` and open deliveries that have no counterpart.
    pub astray: i64,
}

impl Balance {
    /// That of a ledger now.
    pub async fn read(pool: &PgPool) -> Result<Self, sqlx::Error> {
        sqlx::query_as(BALANCE).fetch_one(pool).await
    }

    /// Whether it is one.
    pub fn holds(&self) -> bool {
        self.accepted == self.delivered + self.dead + self.cancelled + self.open && self.astray == 0
    }
}

/// The bounds that a row promises.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Most copies: requests that a receiver had answered with 2xx, and got once more.
    pub copies_max: usize,
    /// How recovery may begin.
    pub recovery: Recovery,
}

/// Who tells that a part is back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// A connection does.
    AtOnce,
    /// Only the end of a lease does.
    AfterLease,
    /// Two silent heartbeats and then the end of a lease do: until the broker gives up the connection of a process that
    /// stands, it goes on to hand it work.
    AfterHeartbeats,
    /// It begins at once, and takes as long as the backlog takes.
    WithTheBacklog,
}

impl Recovery {
    /// How long it may take, where that is bounded.
    fn at_most(self) -> Option<Duration> {
        match self {
            Self::AtOnce => Some(RECOVERY_MAX),
            Self::AfterLease => Some(RECOVERY_MAX + LEASE),
            Self::AfterHeartbeats => Some(RECOVERY_MAX + LEASE + 2 * heartbeat()),
            Self::WithTheBacklog => None,
        }
    }
}

fn heartbeat() -> Duration {
    Duration::from_secs(BROKER_HEARTBEAT_SECONDS.into())
}

/// One row of the failure table while it is tested. From its start on the balance is looked at all the time.
pub struct Row<'a> {
    name: &'static str,
    system: &'a Distributed,
    bounds: Bounds,
    pool: PgPool,
    watch: BalanceWatch,
    recovery: Option<Duration>,
}

/// Looks at the balance of a ledger until it is dropped.
pub struct BalanceWatch {
    watching: JoinHandle<()>,
    watched: Arc<Mutex<Watched>>,
}

/// What was seen of the balance.
#[derive(Debug, Default)]
pub struct Watched {
    /// How often it was looked at.
    pub looks: usize,
    /// Every time that it did not hold.
    pub broken: Vec<Balance>,
}

impl BalanceWatch {
    /// Begins to look. A database that does not answer is asked again.
    pub fn begin(pool: PgPool) -> Self {
        let watched = Arc::default();
        Self { watching: tokio::spawn(watch(pool, Arc::clone(&watched))), watched }
    }

    /// Looks no more, and answers what was seen.
    pub fn end(self) -> Watched {
        std::mem::take(&mut *lock(&self.watched))
    }
}

impl Drop for BalanceWatch {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

impl<'a> Row<'a> {
    /// Begins to look. A database that does not answer is asked again: it may be what fails.
    pub fn begin(name: &'static str, system: &'a Distributed, bounds: Bounds) -> Result<Self> {
        let pool = PgPoolOptions::new()
            .max_connections(2)
            .acquire_timeout(CONNECT_TIMEOUT)
            .connect_lazy(system.database_url())?;
        let watch = BalanceWatch::begin(pool.clone());
        Ok(Self { name, system, bounds, pool, watch, recovery: None })
    }

    /// The balance now.
    pub async fn balance(&self) -> Result<Balance> {
        Ok(Balance::read(&self.pool).await?)
    }

    /// A connection to the row's database, for other questions.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Call it when the part that failed is back: waits until all that is acknowledged by now has arrived and is
    /// recorded, and keeps how long that took; of several times the longest.
    pub async fn recovers(&mut self, acknowledged: &Acknowledged) -> Result<()> {
        let start = Instant::now();
        let deliveries = self.deliveries(acknowledged);
        self.system.receiver.take_all(deliveries.clone()).await.context(self.name)?;
        let events: Vec<Uuid> = acknowledged.values().map(|event| event.0).collect();
        let deliveries: Vec<Uuid> = deliveries.into_iter().map(|delivery| delivery.0).collect();
        until("what has arrived is recorded", async || {
            let open = sqlx::query_scalar::<_, i64>(OPEN).bind(&events).bind(&deliveries).fetch_one(&self.pool).await;
            Ok(open.is_ok_and(|open| open == 0))
        })
        .await
        .context(self.name)?;
        self.recovery = self.recovery.max(Some(start.elapsed()));
        Ok(())
    }

    /// The end: all of it has arrived and is finished, and everything is within bounds. Prints the row.
    ///
    /// `acknowledged` is all that was ever published, so the ledger must hold as many events: a request that was
    /// repeated because its answer never came is not accepted twice.
    pub async fn conclude(self, acknowledged: &Acknowledged) -> Result<()> {
        self.system.receiver.take_all(self.deliveries(acknowledged)).await.context(self.name)?;
        self.conclude_with(acknowledged.len(), 0).await
    }

    /// As [`Self::conclude`], where this many deliveries were cancelled by the test and need not arrive.
    pub async fn conclude_with(self, events: usize, cancelled: usize) -> Result<()> {
        until("everything is finished", async || Ok(self.balance().await.is_ok_and(|balance| balance.open == 0)))
            .await
            .context(self.name)?;
        let balance = self.balance().await?;
        let Watched { looks, broken } = self.watch.end();
        let copies = self.system.receiver.look(Arrivals::copies);
        let at_most = self.bounds.recovery.at_most();
        let seconds =
            |time: Option<Duration>| time.map_or("-".to_owned(), |time| format!("{:.1} s", time.as_secs_f64()));
        let line = format!(
            "| `{}` | {events} | 0 | {copies} of {} | {} of {} | {looks} |",
            self.name,
            self.bounds.copies_max,
            seconds(self.recovery),
            seconds(at_most)
        );
        // To the stream itself: the test runner would swallow a print.
        writeln!(std::io::stderr(), "{line}")?;
        ensure!(broken.is_empty(), "{line}\nthe balance was broken {} times, first so: {:?}", broken.len(), broken[0]);
        ensure!(looks > 0, "{line}\nnobody looked at the balance");
        ensure!(balance.holds() && balance.dead == 0, "{line}\n{balance:?}");
        ensure!(to_usize(balance.events) == events, "{line}\nacknowledged once, accepted twice: {balance:?}");
        ensure!(to_usize(balance.cancelled) == cancelled, "{line}\n{balance:?}");
        ensure!(copies <= self.bounds.copies_max, "{line}\ntoo many copies");
        let is_late = self.recovery.zip(at_most).is_some_and(|(took, at_most)| took > at_most * BUSY_MACHINE);
        ensure!(!is_late, "{line}\ntoo slow");
        Ok(())
    }

    fn deliveries(&self, acknowledged: &Acknowledged) -> Vec<DeliveryId> {
        acknowledged.values().flat_map(|event| self.system.routes.deliveries_of(*event)).collect()
    }
}

async fn watch(pool: PgPool, watched: Arc<Mutex<Watched>>) {
    loop {
        let start = Instant::now();
        if let Ok(balance) = Balance::read(&pool).await {
            let mut watched = lock(&watched);
            watched.looks += 1;
            if !balance.holds() {
                watched.broken.push(balance);
            }
        }
        tokio::time::sleep(BALANCE_INTERVAL.max(start.elapsed() * BALANCE_REST)).await;
    }
}

fn to_usize(count: i64) -> usize {
    usize::try_from(count).unwrap_or_default()
}

/// Nothing panics while it holds this lock.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
