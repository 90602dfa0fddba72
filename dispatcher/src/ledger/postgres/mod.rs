//! The distributed ledger: a PostgreSQL database, from version 14 on.
//!
//! Any number of processes work on it at once. Statements take whole batches as arrays; rows are locked in the order
//! outbox, due, deliveries, lanes, each by key, and claims never wait for a lock, so nothing deadlocks. Statements are
//! written so that each row is looked up by key whatever the planner believes of a table's size (`ANY` over an array,
//! `LATERAL` with `OFFSET 0`): these tables are empty in one minute and hold millions in the next. Every time is the
//! database's. A write that is tried again because its commit was unclear changes nothing the second time.

mod accept;
mod claim;
mod connect;
mod dispatchers;
mod encode;
mod error;
mod events;
mod facts;
mod finish;
mod listing;
mod maintain;
mod migrate;
mod patience;
mod pools;
mod record;
mod replays;
mod retention;
mod routes;
mod statistics;
mod take;
mod writer;

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use dispatcher_core::id::{DeliveryId, EndpointId, EventId, ReplayId, TenantId};
use dispatcher_core::table::{TableChange, TableVersion};
use sqlx::PgPool;
use tokio::sync::Notify;
use uuid::Uuid;

use self::claim::OutboxBounds;
pub use self::connect::PostgresConfig;
pub(super) use self::error::classify;
use self::patience::Patience;
use self::statistics::{Counted, Statistics};
use self::writer::Writer;
use super::pools::count_accepted;
use super::{
    Accepted, AttemptRecord, Backlog, Balance, Beat, Change, Claim, Claimed, DeliveryQuery, DeliveryRecord,
    DisableReason, Disabled, DispatcherRecord, EndpointFacts, EventQuery, EventRecord, GateChange, Heartbeat, Hold,
    Holder, Ledger, LedgerClock, LedgerError, Maintained, NewEvent, NewReplay, Page, PoolLoad, PoolMetric, Recorded,
    ReplayCursor, ReplayPage, ReplayRecord, ReplayScope, ReplaySettled, ReplayStage, ReplayStep, Replayed, TableLoad,
};

/// A ledger in a PostgreSQL database.
pub struct PostgresLedger {
    pool: PgPool,
    beats: PgPool,
    statistics: Arc<Statistics>,
    outbox_bounds: OutboxBounds,
    clock: LedgerClock,
    holder: Holder,
    patience: Patience,
    /// Accepts.
    acceptor: Writer,
    /// Records.
    recorder: Writer,
}

impl PostgresLedger {
    /// Connects to a database whose schema is there already.
    ///
    /// # Errors
    /// [`LedgerError::Schema`] if the schema is missing, too old or too new; [`LedgerError::Refused`] if the
    /// configuration is wrong, so that trying again is of no use: a malformed URL, a certificate that is not trusted,
    /// a password or a right that is missing; [`LedgerError::Unavailable`] if the server does not answer or takes no
    /// writes: try again.
    pub async fn connect(config: PostgresConfig) -> Result<Self, LedgerError> {
        let clock = LedgerClock::new(config.wall_clock);
        let patience = Patience::new(config.answer_timeout, config.statement_timeout);
        let connect::Pools { work, beats } = connect::open(&config, &clock, patience).await?;
        Ok(Self {
            pool: work,
            beats,
            statistics: Arc::default(),
            outbox_bounds: OutboxBounds::default(),
            clock,
            holder: Holder::default(),
            patience,
            acceptor: Writer::default(),
            recorder: Writer::default(),
        })
    }

    /// Brings the schema up to date, under a lock, and makes the partitions of the coming days. Errors as for
    /// [`Self::connect`].
    pub async fn migrate(config: &PostgresConfig) -> Result<(), LedgerError> {
        migrate::migrate(config).await
    }

    /// Notifies `changed` whenever any process publishes a table. Runs until it is dropped or the connection fails;
    /// then polling has to do until it is called again. It keeps one connection of the pool.
    pub async fn watch_table(&self, changed: Arc<Notify>) -> Result<(), LedgerError> {
        routes::watch(&self.pool, &changed).await
    }

    /// Closes all connections, once what is under way is finished. What was counted last is written before.
    pub async fn close(&self) {
        self.statistics.flush_quietly(&self.pool, self.patience).await;
        self.acceptor.rest().await;
        self.recorder.rest().await;
        self.beats.close().await;
        self.pool.close().await;
    }
}

#[async_trait]
impl Ledger for PostgresLedger {
    async fn accept(&self, events: Vec<NewEvent>) -> Result<Vec<Accepted>, LedgerError> {
        let accepting = self.acceptor.write(&self.pool, async |connection| accept::accept(connection, &events).await);
        let answers = self.patience.answer(accepting).await?;
        self.statistics.add_accepted(count_accepted(&events, &answers));
        self.statistics.flush_in_background(&self.pool, self.patience);
        Ok(answers)
    }

    async fn record(&self, changes: Vec<Change>) -> Result<Vec<Recorded>, LedgerError> {
        let (holder, mut counted) = (self.holder.get(), Counted::default());
        let recording = self
            .recorder
            .write(&self.pool, async |connection| record::record(connection, &changes, holder, &mut counted).await);
        let answers = self.patience.answer(recording).await;
        self.statistics.add(counted);
        let answers = answers?;
        self.statistics.flush_when_due(&self.pool, self.patience).await;
        Ok(answers)
    }

    async fn take(&self, holds: Vec<Hold>, lease: Duration) -> Result<Vec<Option<u32>>, LedgerError> {
        self.patience.answer(take::take(&self.pool, &holds, lease, self.holder.get())).await
    }

    async fn claim(&self, claim: Claim) -> Result<Claimed, LedgerError> {
        self.statistics.flush_when_due(&self.pool, self.patience).await;
        self.patience.answer(claim::claim(&self.pool, &claim, &self.outbox_bounds)).await
    }

    async fn expire_all_leases(&self) -> Result<(), LedgerError> {
        self.patience.answer(take::expire_all_leases(&self.pool)).await
    }

    async fn set_gates(&self, gates: Vec<GateChange>) -> Result<(), LedgerError> {
        self.patience.answer(routes::set_gates(&self.pool, &gates)).await
    }

    async fn disable(&self, endpoint: EndpointId, revision: &str, reason: DisableReason) -> Result<(), LedgerError> {
        self.patience.answer(routes::disable(&self.pool, endpoint, revision, reason)).await
    }

    async fn disabled(&self) -> Result<Vec<Disabled>, LedgerError> {
        self.patience.answer(routes::disabled(&self.pool)).await
    }

    async fn cancel_orphans(&self, grace: Duration, rows_max: u32) -> Result<u64, LedgerError> {
        self.patience.count(finish::cancel_orphans(&self.pool, grace, rows_max)).await
    }

    async fn publish_table(&self, change: TableChange, epoch: Option<u64>) -> Result<TableVersion, LedgerError> {
        self.patience.count(routes::publish_table(&self.pool, &change, epoch)).await
    }

    async fn load_table(&self, since: Option<TableVersion>) -> Result<TableLoad, LedgerError> {
        self.patience.answer(routes::load_table(&self.pool, since)).await
    }

    async fn events(&self, tenant: TenantId, query: EventQuery) -> Result<Page<EventRecord>, LedgerError> {
        self.patience.answer(events::events(&self.pool, tenant, &query)).await
    }

    async fn event(&self, tenant: TenantId, event: EventId) -> Result<Option<EventRecord>, LedgerError> {
        self.patience.answer(events::event(&self.pool, tenant, event)).await
    }

    async fn deliveries(&self, tenant: TenantId, query: DeliveryQuery) -> Result<Page<DeliveryRecord>, LedgerError> {
        self.patience.answer(listing::deliveries(&self.pool, tenant, &query)).await
    }

    async fn delivery(&self, tenant: TenantId, delivery: DeliveryId) -> Result<Option<DeliveryRecord>, LedgerError> {
        self.patience.answer(listing::delivery(&self.pool, tenant, delivery)).await
    }

    async fn attempts(
        &self,
        tenant: TenantId,
        delivery: DeliveryId,
        rows_max: u32,
    ) -> Result<Vec<AttemptRecord>, LedgerError> {
        self.patience.answer(listing::attempts(&self.pool, tenant, delivery, rows_max)).await
    }

    async fn replay(&self, tenant: TenantId, delivery: DeliveryId) -> Result<Replayed, LedgerError> {
        if let Some(run) = self.patience.answer(finish::replay(&self.pool, tenant, delivery)).await? {
            return Ok(Replayed::Started { run });
        }
        // It was not finished just now, whatever has become of it since.
        let record = self.patience.answer(listing::delivery(&self.pool, tenant, delivery)).await?;
        Ok(if record.is_some() { Replayed::StillOpen } else { Replayed::NotFound })
    }

    async fn begin_replay(&self, replay: NewReplay, epoch: Option<u64>) -> Result<ReplayRecord, LedgerError> {
        self.patience.answer(replays::begin(&self.pool, &replay, epoch)).await
    }

    async fn replay_page(
        &self,
        scope: ReplayScope,
        after: ReplayCursor,
        rows_max: u32,
    ) -> Result<ReplayPage, LedgerError> {
        self.patience.count(replays::page(&self.pool, &scope, after, rows_max)).await
    }

    async fn advance_replay(&self, step: ReplayStep, epoch: Option<u64>) -> Result<Option<ReplayRecord>, LedgerError> {
        self.patience.answer(replays::advance(&self.pool, &step, epoch)).await
    }

    async fn settle_replay(
        &self,
        tenant: TenantId,
        replay: ReplayId,
        after: Option<DeliveryId>,
        rows_max: u32,
        epoch: Option<u64>,
    ) -> Result<Option<ReplaySettled>, LedgerError> {
        self.patience.answer(replays::settle(&self.pool, (tenant, replay), (after, rows_max), epoch)).await
    }

    async fn backlog(&self) -> Result<Backlog, LedgerError> {
        self.patience.count(facts::backlog(&self.pool)).await
    }

    async fn balance(&self) -> Result<Vec<Balance>, LedgerError> {
        self.patience.count(facts::balance(&self.pool)).await
    }

    async fn endpoint_facts(&self, tenant: TenantId, window: Duration) -> Result<Vec<EndpointFacts>, LedgerError> {
        self.statistics.flush(&self.pool, self.patience).await?;
        self.patience.count(facts::endpoint_facts(&self.pool, tenant, window)).await
    }

    async fn expire_idempotency_keys(&self, rows_max: u32) -> Result<u64, LedgerError> {
        self.patience.count(finish::expire_idempotency_keys(&self.pool, rows_max)).await
    }

    async fn ping(&self) -> Result<(), LedgerError> {
        self.patience.answer(connect::ping(&self.pool)).await
    }

    async fn beat(&self, heartbeat: Heartbeat) -> Result<Beat, LedgerError> {
        let asked = Instant::now();
        let ledger_unix_ms = self.patience.answer(dispatchers::beat(&self.beats, &heartbeat)).await?;
        self.holder.beats(heartbeat.instance);
        self.clock.compare(asked, Instant::now(), ledger_unix_ms);
        Ok(Beat { ledger_unix_ms, clock_offset_ms: self.clock.offset_ms() })
    }

    async fn retire(&self, instance: Uuid) -> Result<(), LedgerError> {
        self.holder.retires(instance);
        self.patience.answer(dispatchers::retire(&self.beats, instance)).await
    }

    async fn dispatchers(&self, seen_within: Duration) -> Result<Vec<DispatcherRecord>, LedgerError> {
        self.patience.answer(dispatchers::dispatchers(&self.pool, seen_within)).await
    }

    async fn pool_loads(&self, pools: &[String]) -> Result<Vec<PoolLoad>, LedgerError> {
        self.statistics.flush(&self.pool, self.patience).await?;
        self.patience.count(pools::loads(&self.pool, pools)).await
    }

    async fn publish_pool_metrics(&self, metrics: &[PoolMetric], epoch: Option<u64>) -> Result<(), LedgerError> {
        self.patience.answer(pools::publish_metrics(&self.pool, metrics, epoch)).await
    }

    async fn maintain(&self, retention: Duration) -> Result<Maintained, LedgerError> {
        patience::maintain(maintain::maintain(&self.pool, retention)).await
    }

    fn clock(&self) -> LedgerClock {
        self.clock.clone()
    }
}
