//! The checker: nothing lost, copies bounded, recovered in time, and the balance by SQL at the end and all the time.

use std::io::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dispatcher_core::id::DeliveryId;
use dispatcher_core::limits::{BROKER_HEARTBEAT_SECONDS, LEASE};
use hyper::StatusCode;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use uuid::Uuid;

use super::stall::stalled;
use super::{Acknowledged, Distributed, Failures, Published, until};

/// Shortest pause between two looks at the balance while there is load.
const BALANCE_INTERVAL: Duration = Duration::from_millis(20);
/// The pause is this many times what a look takes, so that looking is not the load.
const BALANCE_REST: u32 = 4;
/// How long to wait for a connection to a database that may be down.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long recovery may take once the part is back, where somebody is told that it is.
const RECOVERY_MAX: Duration = Duration::from_secs(5);
/// By how much a machine may be slower, however much else it does.
const BUSY_MACHINE: u32 = 4;
/// Fewest looks at the balance while something was open.
const LOOKS_MIN: usize = 5;

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
    /// What a producer may get to see of the failure.
    pub producer: Sees,
}

/// What a producer gets to see instead of an acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sees {
    /// Nothing: each request is acknowledged.
    Nothing,
    /// Connections that end without an answer.
    BrokenConnections,
    /// 503.
    Unavailable,
}

impl Sees {
    fn allows(self, failures: &Failures) -> bool {
        failures.keys().all(|status| match self {
            Self::Nothing => false,
            Self::BrokenConnections => status.is_none(),
            Self::Unavailable => *status == Some(StatusCode::SERVICE_UNAVAILABLE),
        })
    }
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
    recovered: Option<Recovered>,
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
    /// Those of the looks at which something was open.
    pub under_load: usize,
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

/// How long a recovery took, and how long of it something stood still for want of a core or the disk, where that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Recovered {
    took: Duration,
    stalled: Option<Duration>,
}

impl Recovered {
    /// Whether it took longer than promised: what the machine itself stood still for is no fault of ours. It cannot
    /// excuse everything, and a machine that does not tell is taken to be busy.
    fn is_late(self, at_most: Duration) -> bool {
        let busy = at_most * BUSY_MACHINE;
        self.took > self.stalled.map_or(busy, |stalled| (at_most + stalled).min(busy))
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
        Ok(Self { name, system, bounds, pool, watch, recovered: None })
    }

    /// The balance now.
    pub async fn balance(&self) -> Result<Balance> {
        Ok(Balance::read(&self.pool).await?)
    }

    /// A connection to the row's database, for other questions.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Waits until the balance has been looked at often enough while something was open: for a row whose load is over soon.
    pub async fn is_looked_at(&self) -> Result<()> {
        until("the balance is looked at", async || Ok(lock(&self.watch.watched).under_load >= LOOKS_MIN)).await?;
        Ok(())
    }

    /// Call it when the part that failed is back: waits until all that is acknowledged by now has arrived and is
    /// recorded, and keeps how long that took; of several times the longest.
    pub async fn recovers(&mut self, acknowledged: &Acknowledged) -> Result<()> {
        let (start, stalled_before) = (Instant::now(), stalled());
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
        let stalled = stalled().zip(stalled_before).map(|(now, before)| now.saturating_sub(before));
        self.recovered = self.recovered.max(Some(Recovered { took: start.elapsed(), stalled }));
        Ok(())
    }

    /// The end: all of it has arrived and is finished, and everything is within bounds. Prints the row.
    ///
    /// `published` is all that ever was, so the ledger must hold as many events: a request that was repeated because its
    /// answer never came is not accepted twice.
    pub async fn conclude(self, published: &Published) -> Result<()> {
        self.system.receiver.take_all(self.deliveries(&published.acknowledged)).await.context(self.name)?;
        self.conclude_with(published, 0).await
    }

    /// As [`Self::conclude`], where this many deliveries were cancelled by the test and need not arrive.
    pub async fn conclude_with(self, published: &Published, cancelled: usize) -> Result<()> {
        until("everything is finished", async || Ok(self.balance().await.is_ok_and(|balance| balance.open == 0)))
            .await
            .context(self.name)?;
        let balance = self.balance().await?;
        let at_most = self.bounds.recovery.at_most();
        let recovery = self.recovery(at_most);
        let Watched { looks, under_load, broken } = self.watch.end();
        let (copies, strange) = self.system.receiver.look(|arrivals| (arrivals.copies(), arrivals.strange));
        let (events, copies_max) = (published.acknowledged.len(), self.bounds.copies_max);
        let line = format!(
            "| `{}` | {events} | 0 | {copies} of {copies_max} | {recovery} | {under_load} of {looks} |",
            self.name,
        );
        // To the stream itself: the test runner would swallow a print.
        writeln!(std::io::stderr(), "{line}")?;
        ensure!(broken.is_empty(), "{line}\nthe balance was broken {} times, first so: {:?}", broken.len(), broken[0]);
        ensure!(under_load >= LOOKS_MIN, "{line}\nhardly anybody looked at the balance while there was work");
        ensure!(balance.holds() && balance.dead == 0, "{line}\n{balance:?}");
        ensure!(to_usize(balance.events) == events, "{line}\nacknowledged once, accepted twice: {balance:?}");
        ensure!(to_usize(balance.cancelled) == cancelled, "{line}\n{balance:?}");
        ensure!(copies <= copies_max, "{line}\ntoo many copies");
        ensure!(strange == 0, "{line}\nreceivers would have refused {strange} requests as forged or of another time");
        let (sees, failures) = (self.bounds.producer, &published.failures);
        ensure!(sees.allows(failures), "{line}\na producer may see {sees:?}, and saw {failures:?}");
        let is_late = self.recovered.zip(at_most).is_some_and(|(recovered, at_most)| recovered.is_late(at_most));
        ensure!(!is_late, "{line}\ntoo slow");
        Ok(())
    }

    /// The longest recovery, what was promised, and what the machine itself stood still for meanwhile.
    fn recovery(&self, at_most: Option<Duration>) -> String {
        let seconds =
            |time: Option<Duration>| time.map_or("-".to_owned(), |time| format!("{:.1} s", time.as_secs_f64()));
        let stalled = self.recovered.and_then(|recovered| recovered.stalled);
        let stalled = stalled.map_or(String::new(), |stalled| format!(" + {}", seconds(Some(stalled))));
        format!("{} of {}{stalled}", seconds(self.recovered.map(|recovered| recovered.took)), seconds(at_most))
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
            watched.under_load += usize::from(balance.open > 0);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_machine_stood_still_for_excuses_as_much_and_never_everything() {
        let seconds = Duration::from_secs;
        for (took, stalled, is_late) in [
            (5, Some(0), false),
            (6, Some(0), true),
            (6, Some(1), false),
            (8, Some(2), true),
            (20, Some(100), false),
            (21, Some(100), true),
            (20, None, false),
            (21, None, true),
        ] {
            let recovered = Recovered { took: seconds(took), stalled: stalled.map(seconds) };
            assert_eq!(recovered.is_late(seconds(5)), is_late, "{recovered:?}");
        }
    }

    #[test]
    fn a_producer_sees_what_was_announced_and_nothing_else() {
        let (broken, busy, wrong) =
            (None, Some(StatusCode::SERVICE_UNAVAILABLE), Some(StatusCode::INTERNAL_SERVER_ERROR));
        for (sees, allowed) in [
            (Sees::Nothing, [false, false, false]),
            (Sees::BrokenConnections, [true, false, false]),
            (Sees::Unavailable, [false, true, false]),
        ] {
            assert!(sees.allows(&Failures::new()));
            assert_eq!([broken, busy, wrong].map(|failure| sees.allows(&[(failure, 1)].into())), allowed, "{sees:?}");
        }
    }
}
