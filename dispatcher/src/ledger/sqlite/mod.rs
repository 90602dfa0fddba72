//! The embedded ledger: one SQLite file.
//!
//! One connection writes, each write in its own `BEGIN IMMEDIATE` transaction; a few others read. A statement is
//! a round trip to its connection's thread, so a batch of rows is one statement: the rows are one JSON array
//! that `json_each` unfolds, and bodies and excerpts are one blob that `substr` cuts. The same text for every
//! size of batch also keeps every statement prepared.

mod accept;
mod claim;
mod dispatchers;
mod encode;
mod facts;
mod finish;
mod listing;
mod open;
mod pools;
mod record;
mod replays;
mod retention;
mod routes;
mod take;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use dispatcher_core::id::{DeliveryId, EndpointId, EventId, ReplayId, TenantId};
use dispatcher_core::limits::CLAIM_DELIVERIES_MAX;
use dispatcher_core::table::{TableChange, TableVersion};
use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection, Sqlite, SqlitePool, Transaction};
use tokio::sync::{Mutex, MutexGuard};
use uuid::Uuid;

use super::{
    Accepted, AttemptRecord, Backlog, Balance, Beat, Change, Claim, Claimed, DeliveryQuery, DeliveryRecord,
    DisableReason, Disabled, DispatcherRecord, EndpointFacts, EventQuery, EventRecord, GateChange, Heartbeat, Hold,
    Holder, Ledger, LedgerClock, LedgerError, Maintained, NewEvent, NewReplay, Page, PoolLoad, PoolMetric, Recorded,
    ReplayCursor, ReplayPage, ReplayRecord, ReplayScope, ReplaySettled, ReplayStage, ReplayStep, Replayed, TableLoad,
};
use crate::clock::now_unix_ms;

/// Stands for "never" in columns of times; the largest integer that JSON carries exactly.
const NEVER_MS: u64 = (1 << 53) - 1;

/// A ledger in one SQLite file, for one host.
pub struct SqliteLedger {
    writer: Mutex<SqliteConnection>,
    readers: SqlitePool,
    /// The last turn that a claim gave to a lane, in milliseconds; turns never repeat within a process.
    last_turn_ms: AtomicU64,
    holder: Holder,
}

impl SqliteLedger {
    /// Opens or creates the ledger in a file and brings its schema up to date.
    ///
    /// # Errors
    /// [`LedgerError::Schema`] if a newer release has written the file; [`LedgerError::Refused`] if it is no database, or
    /// one that may not be written; [`LedgerError::Unavailable`] if it cannot be used now: try again.
    pub async fn open(path: &Path) -> Result<Self, LedgerError> {
        let (writer, readers) = open::connect(path).await?;
        Ok(Self { writer: Mutex::new(writer), readers, last_turn_ms: AtomicU64::new(0), holder: Holder::default() })
    }

    /// Opens or creates the ledger as `ledger.sqlite` in an existing folder.
    pub async fn open_in(folder: &Path) -> Result<Self, LedgerError> {
        Self::open(&folder.join("ledger.sqlite")).await
    }

    async fn writer(&self) -> MutexGuard<'_, SqliteConnection> {
        self.writer.lock().await
    }

    /// A turn later than every earlier one, and than everything that is due now: a lane that has had its turn
    /// stands behind all that have not.
    fn next_turn_ms(&self, now_ms: u64) -> u64 {
        let later = |last: u64| now_ms.max(last) + 1;
        let update = self.last_turn_ms.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(later(last)));
        later(update.unwrap_or_default())
    }
}

/// Begins a write. Dropped without a commit it is rolled back, so a cancelled caller leaves nothing behind.
async fn begin(writer: &mut SqliteConnection) -> Result<Transaction<'_, Sqlite>, LedgerError> {
    Ok(writer.begin_with("BEGIN IMMEDIATE").await?)
}

impl From<sqlx::Error> for LedgerError {
    fn from(error: sqlx::Error) -> Self {
        if let sqlx::Error::Database(database) = &error
            && let Some(postgres) = database.try_downcast_ref()
        {
            return super::postgres::classify(postgres);
        }
        match &error {
            sqlx::Error::Database(database) if is_refusal(database.code().as_deref()) => {
                Self::Refused(database.message().to_owned())
            }
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::Encode(_) => {
                Self::Refused("a column holds or was given a value of the wrong form".to_owned())
            }
            _ => Self::Unavailable(error.to_string()),
        }
    }
}

/// Whether an SQLite result code means that the statement or its data is at fault, not the file or the disk:
/// ERROR, TOOBIG, CONSTRAINT, MISMATCH, RANGE (<https://www.sqlite.org/rescode.html>).
fn is_refusal(code: Option<&str>) -> bool {
    let primary = code.and_then(|code| code.parse::<u32>().ok()).map(|extended| extended & 0xff);
    matches!(primary, Some(1 | 18 | 19 | 20 | 25))
}

#[async_trait]
impl Ledger for SqliteLedger {
    async fn accept(&self, events: Vec<NewEvent>) -> Result<Vec<Accepted>, LedgerError> {
        accept::accept(&mut *self.writer().await, &events, now_unix_ms()).await
    }

    async fn record(&self, changes: Vec<Change>) -> Result<Vec<Recorded>, LedgerError> {
        record::record(&mut *self.writer().await, &changes, self.holder.get(), now_unix_ms()).await
    }

    async fn take(&self, holds: Vec<Hold>, lease: Duration) -> Result<Vec<Option<u32>>, LedgerError> {
        let lease_until_ms = now_unix_ms() + encode::milliseconds(lease);
        take::take(&mut *self.writer().await, &holds, lease_until_ms, self.holder.get()).await
    }

    async fn claim(&self, claim: Claim) -> Result<Claimed, LedgerError> {
        let horizon_ms = now_unix_ms().max(self.last_turn_ms.load(Ordering::Relaxed));
        let look = claim::look(&self.readers, &claim.pool, horizon_ms, now_unix_ms()).await?;
        if look.due_in != Some(Duration::ZERO) && !look.is_abandoned {
            return Ok(Claimed { items: Vec::new(), next_due_in: look.due_in });
        }
        let work = {
            let mut writer = self.writer().await;
            let now_ms = now_unix_ms();
            let turn_ms = self.next_turn_ms(now_ms);
            if look.is_abandoned {
                dispatchers::free_abandoned(&mut writer, CLAIM_DELIVERIES_MAX, now_ms).await?;
            }
            claim::claim(&mut writer, &claim, claim::Times { now_ms, turn_ms }).await?
        };
        claim::with_events(&self.readers, work).await
    }

    async fn expire_all_leases(&self) -> Result<(), LedgerError> {
        take::expire_all_leases(&mut *self.writer().await, now_unix_ms()).await
    }

    async fn set_gates(&self, gates: Vec<GateChange>) -> Result<(), LedgerError> {
        routes::set_gates(&mut *self.writer().await, &gates, now_unix_ms()).await
    }

    async fn disable(&self, endpoint: EndpointId, revision: &str, reason: DisableReason) -> Result<(), LedgerError> {
        routes::disable(&mut *self.writer().await, endpoint, revision, reason).await
    }

    async fn disabled(&self) -> Result<Vec<Disabled>, LedgerError> {
        routes::disabled(&self.readers).await
    }

    async fn cancel_orphans(&self, grace: Duration, rows_max: u32) -> Result<u64, LedgerError> {
        finish::cancel_orphans(&mut *self.writer().await, grace, rows_max, now_unix_ms()).await
    }

    async fn publish_table(&self, change: TableChange, epoch: Option<u64>) -> Result<TableVersion, LedgerError> {
        routes::publish_table(&mut *self.writer().await, &change, epoch, now_unix_ms()).await
    }

    async fn load_table(&self, since: Option<TableVersion>) -> Result<TableLoad, LedgerError> {
        routes::load_table(&self.readers, since).await
    }

    async fn events(&self, tenant: TenantId, query: EventQuery) -> Result<Page<EventRecord>, LedgerError> {
        listing::events(&self.readers, tenant, &query).await
    }

    async fn event(&self, tenant: TenantId, event: EventId) -> Result<Option<EventRecord>, LedgerError> {
        listing::event(&self.readers, tenant, event).await
    }

    async fn deliveries(&self, tenant: TenantId, query: DeliveryQuery) -> Result<Page<DeliveryRecord>, LedgerError> {
        listing::deliveries(&self.readers, tenant, &query).await
    }

    async fn delivery(&self, tenant: TenantId, delivery: DeliveryId) -> Result<Option<DeliveryRecord>, LedgerError> {
        listing::delivery(&self.readers, tenant, delivery).await
    }

    async fn attempts(
        &self,
        tenant: TenantId,
        delivery: DeliveryId,
        rows_max: u32,
    ) -> Result<Vec<AttemptRecord>, LedgerError> {
        listing::attempts(&self.readers, tenant, delivery, rows_max).await
    }

    async fn replay(&self, tenant: TenantId, delivery: DeliveryId) -> Result<Replayed, LedgerError> {
        if let Some(run) = finish::replay(&mut *self.writer().await, tenant, delivery, now_unix_ms()).await? {
            return Ok(Replayed::Started { run });
        }
        // It was not finished just now, whatever has become of it since.
        let record = listing::delivery(&self.readers, tenant, delivery).await?;
        Ok(if record.is_some() { Replayed::StillOpen } else { Replayed::NotFound })
    }

    async fn begin_replay(&self, replay: NewReplay, epoch: Option<u64>) -> Result<ReplayRecord, LedgerError> {
        replays::begin_replay(&mut *self.writer().await, &replay, epoch, now_unix_ms()).await
    }

    async fn replay_page(
        &self,
        scope: ReplayScope,
        after: ReplayCursor,
        rows_max: u32,
    ) -> Result<ReplayPage, LedgerError> {
        replays::page(&self.readers, &scope, after, rows_max).await
    }

    async fn advance_replay(&self, step: ReplayStep, epoch: Option<u64>) -> Result<Option<ReplayRecord>, LedgerError> {
        replays::advance(&mut *self.writer().await, &step, epoch, now_unix_ms()).await
    }

    async fn settle_replay(
        &self,
        tenant: TenantId,
        replay: ReplayId,
        after: Option<DeliveryId>,
        rows_max: u32,
        epoch: Option<u64>,
    ) -> Result<Option<ReplaySettled>, LedgerError> {
        let runs = replays::Runs::look(&self.readers, replay, after, rows_max).await?;
        let next = runs.next(rows_max);
        if runs.none_over() {
            return replays::unchanged(&self.readers, (tenant, replay), next).await;
        }
        let settled = replays::settle(&mut *self.writer().await, (tenant, replay), &runs, epoch, now_unix_ms()).await?;
        Ok(settled.map(|settled| ReplaySettled { next, ..settled }))
    }

    async fn backlog(&self) -> Result<Backlog, LedgerError> {
        facts::backlog(&self.readers, now_unix_ms()).await
    }

    async fn balance(&self) -> Result<Vec<Balance>, LedgerError> {
        facts::balance(&self.readers).await
    }

    async fn endpoint_facts(&self, tenant: TenantId, window: Duration) -> Result<Vec<EndpointFacts>, LedgerError> {
        facts::endpoint_facts(&self.readers, tenant, window, now_unix_ms()).await
    }

    async fn expire_idempotency_keys(&self, rows_max: u32) -> Result<u64, LedgerError> {
        finish::expire_idempotency_keys(&mut *self.writer().await, rows_max, now_unix_ms()).await
    }

    async fn ping(&self) -> Result<(), LedgerError> {
        sqlx::query("SELECT table_version FROM ledger").fetch_one(&self.readers).await?;
        Ok(())
    }

    async fn beat(&self, heartbeat: Heartbeat) -> Result<Beat, LedgerError> {
        let ledger_unix_ms = now_unix_ms();
        dispatchers::beat(&mut *self.writer().await, &heartbeat, ledger_unix_ms).await?;
        self.holder.beats(heartbeat.instance);
        Ok(Beat { ledger_unix_ms, clock_offset_ms: 0 })
    }

    async fn retire(&self, instance: Uuid) -> Result<(), LedgerError> {
        self.holder.retires(instance);
        dispatchers::retire(&mut *self.writer().await, instance, now_unix_ms()).await
    }

    async fn dispatchers(&self, seen_within: Duration) -> Result<Vec<DispatcherRecord>, LedgerError> {
        dispatchers::dispatchers(&self.readers, seen_within, now_unix_ms()).await
    }

    async fn pool_loads(&self, pools: &[String]) -> Result<Vec<PoolLoad>, LedgerError> {
        pools::loads(&self.readers, pools, now_unix_ms()).await
    }

    async fn publish_pool_metrics(&self, metrics: &[PoolMetric], epoch: Option<u64>) -> Result<(), LedgerError> {
        pools::publish_metrics(&mut *self.writer().await, metrics, epoch, now_unix_ms()).await
    }

    async fn maintain(&self, retention: Duration) -> Result<Maintained, LedgerError> {
        retention::maintain(&self.writer, retention, now_unix_ms()).await
    }

    fn clock(&self) -> LedgerClock {
        // All processes that share the file share this host's clock.
        LedgerClock::default()
    }
}
