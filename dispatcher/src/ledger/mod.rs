//! The ledger: the truth about every event and delivery.
//!
//! A delivery that is not finished is a row with a due time. Outbox, retry, crash recovery, a paused
//! endpoint, an open circuit, `Retry-After` and replay only set that time. All times are the ledger's
//! own: callers give durations.
//!
//! Invariants of every implementation, held by one conformance suite:
//! - accepted = delivered + dead + cancelled + open, per tenant, in every snapshot;
//! - every change is compare-and-set on `(run, gen)`; a stale holder changes no state;
//! - a finished delivery becomes unfinished only by [`Ledger::replay`] and [`Ledger::advance_replay`];
//! - the targets of an event are those that it was accepted for, and those that a replay has added since.

mod claiming;
mod clock;
mod days;
mod dispatchers;
mod histogram;
pub mod isolate;
mod paging;
mod pools;
pub mod postgres;
mod records;
mod replays;
pub mod sqlite;
mod work;

use std::time::Duration;

use async_trait::async_trait;
use dispatcher_core::id::{DeliveryId, EndpointId, EventId, ReplayId, TenantId};
use dispatcher_core::table::{Row, RowKey, TableChange, TableVersion};
use uuid::Uuid;

pub use self::clock::LedgerClock;
use self::dispatchers::Holder;
pub use self::dispatchers::{Beat, DispatcherRecord, DispatcherRole, Heartbeat};
pub use self::pools::{PoolLoad, PoolMetric};
pub use self::records::{
    AttemptRecord, Backlog, Balance, Cursor, DeliveryQuery, DeliveryRecord, EndpointFacts, EventQuery, EventRecord,
    Page,
};
pub use self::replays::{
    NewReplay, ReplayCursor, ReplayFound, ReplayPage, ReplayRecord, ReplayScope, ReplaySettled, ReplayStage, ReplayStep,
};
pub use self::work::{
    Accepted, Change, Claim, Claimed, DeliveryResult, DisableReason, Disabled, GateChange, Hold, Idempotency, NewEvent,
    Recorded,
};

/// The seam. One implementation per database.
#[async_trait]
pub trait Ledger: Send + Sync + 'static {
    /// Commits events with their resolved targets, all in one transaction. Answers in the order asked.
    ///
    /// An event whose identity is already there is [`Accepted::New`] again: the caller retried an unclear commit.
    async fn accept(&self, events: Vec<NewEvent>) -> Result<Vec<Accepted>, LedgerError>;

    /// Commits what became of deliveries: each change whole, and a change that builds on an earlier one of the batch after
    /// it; a batch may take several transactions. Answers in the order asked.
    async fn record(&self, changes: Vec<Change>) -> Result<Vec<Recorded>, LedgerError>;

    /// Takes over late or redelivered work by compare-and-set, raising its `gen` and renewing its lease.
    /// Answers the new `gen`, or `None` where somebody else has taken or finished it.
    async fn take(&self, holds: Vec<Hold>, lease: Duration) -> Result<Vec<Option<u32>>, LedgerError>;

    /// Claims work whose time has come, fairly by endpoint: outbox parts whose lease is over, then due deliveries
    /// of endpoints with an open gate. What is claimed is leased and carries a new `gen`.
    async fn claim(&self, claim: Claim) -> Result<Claimed, LedgerError>;

    /// Makes everything that somebody holds due at once. Only for a process that has just started and holds the
    /// ledger alone: whoever held the work is gone.
    async fn expire_all_leases(&self) -> Result<(), LedgerError>;

    /// Closes or opens the gates of endpoints: one timestamp each, whatever waits behind it. A change for another
    /// revision than the table has by now, or for an endpoint that it does not have, does nothing.
    async fn set_gates(&self, gates: Vec<GateChange>) -> Result<(), LedgerError>;

    /// Disables an endpoint until its revision changes: closes the gate and remembers why. Does nothing if the table
    /// has another revision by now, or has no such endpoint.
    async fn disable(&self, endpoint: EndpointId, revision: &str, reason: DisableReason) -> Result<(), LedgerError>;

    /// Endpoints that are disabled, with the revision that they were disabled at.
    async fn disabled(&self) -> Result<Vec<Disabled>, LedgerError>;

    /// Cancels what waits for endpoints that have been deleted for longer than `grace`, at most `rows_max`
    /// deliveries a call. Answers how many.
    async fn cancel_orphans(&self, grace: Duration, rows_max: u32) -> Result<u64, LedgerError>;

    /// Applies a change of the routing table and answers the new version. In the same transaction: gates of
    /// endpoints that are suspended, held or dropped close; gates of endpoints that became active, or whose
    /// revision changed, open; a disabled endpoint with a new revision is enabled.
    /// An empty change answers the present version.
    ///
    /// `epoch` is that of a leader among several who may write. The ledger keeps the highest, even with an empty change,
    /// and answers a lower one with [`LedgerError::Superseded`]: a leader that was replaced without noticing writes
    /// nothing. Whoever writes alone gives none.
    async fn publish_table(&self, change: TableChange, epoch: Option<u64>) -> Result<TableVersion, LedgerError>;

    /// The routing table: what changed since a version, or all of it.
    async fn load_table(&self, since: Option<TableVersion>) -> Result<TableLoad, LedgerError>;

    /// Events of a tenant, newest first.
    async fn events(&self, tenant: TenantId, query: EventQuery) -> Result<Page<EventRecord>, LedgerError>;

    /// One event with its body.
    async fn event(&self, tenant: TenantId, event: EventId) -> Result<Option<EventRecord>, LedgerError>;

    /// Deliveries of a tenant, newest first; those still in the outbox included (state open, no attempts).
    async fn deliveries(&self, tenant: TenantId, query: DeliveryQuery) -> Result<Page<DeliveryRecord>, LedgerError>;

    /// One delivery.
    async fn delivery(&self, tenant: TenantId, delivery: DeliveryId) -> Result<Option<DeliveryRecord>, LedgerError>;

    /// Attempts of a delivery, all runs: the newest `rows_max`, oldest first.
    async fn attempts(
        &self,
        tenant: TenantId,
        delivery: DeliveryId,
        rows_max: u32,
    ) -> Result<Vec<AttemptRecord>, LedgerError>;

    /// Starts a new run of a finished delivery. The delivery keeps its identity.
    async fn replay(&self, tenant: TenantId, delivery: DeliveryId) -> Result<Replayed, LedgerError>;

    /// Begins a replay of many deliveries, unless it has begun: answers how far it has come. Of a tenant's replays the
    /// newest are remembered. `epoch` is as for [`Ledger::publish_table`], but a higher one is not kept.
    async fn begin_replay(&self, replay: NewReplay, epoch: Option<u64>) -> Result<ReplayRecord, LedgerError>;

    /// What a replay finds after a place, at most `rows_max` rows looked at: nothing is written. What waits, what is in the
    /// outbox and what was cancelled is not found, nor what its endpoint or subscription has left the routing table for.
    async fn replay_page(
        &self,
        scope: ReplayScope,
        after: ReplayCursor,
        rows_max: u32,
    ) -> Result<ReplayPage, LedgerError>;

    /// Commits a step of a replay, all in one transaction, if no other was committed since. Answers how far the replay has
    /// come; its `step` tells whether this one took effect. `None` if there is no such replay.
    ///
    /// What is missing becomes a target of its event, as if it had been one when the event was accepted.
    async fn advance_replay(&self, step: ReplayStep, epoch: Option<u64>) -> Result<Option<ReplayRecord>, LedgerError>;

    /// Looks whether runs that a replay started are over, at most `rows_max` after a delivery, and counts those that are.
    /// `None` if there is no such replay.
    async fn settle_replay(
        &self,
        tenant: TenantId,
        replay: ReplayId,
        after: Option<DeliveryId>,
        rows_max: u32,
        epoch: Option<u64>,
    ) -> Result<Option<ReplaySettled>, LedgerError>;

    /// Open deliveries, for admission: counted from the tables, so call it about once a second.
    async fn backlog(&self) -> Result<Backlog, LedgerError>;

    /// The balance of every tenant, in one snapshot. `accepted` must equal the sum of the others.
    async fn balance(&self) -> Result<Vec<Balance>, LedgerError>;

    /// What an endpoint's deliveries did over the last `window`, for statuses.
    async fn endpoint_facts(&self, tenant: TenantId, window: Duration) -> Result<Vec<EndpointFacts>, LedgerError>;

    /// Removes idempotency keys whose time is over, at most `rows_max` a call. Answers how many.
    async fn expire_idempotency_keys(&self, rows_max: u32) -> Result<u64, LedgerError>;

    /// Whether the ledger answers.
    async fn ping(&self) -> Result<(), LedgerError>;

    /// Tells that a process is alive; call it each [`HEARTBEAT_INTERVAL`](dispatcher_core::limits::HEARTBEAT_INTERVAL),
    /// and again at once when it failed. From then on what is recorded as in flight through this value is held by that
    /// instance: once it has been silent for
    /// [`HEARTBEAT_DEAD_AFTER`](dispatcher_core::limits::HEARTBEAT_DEAD_AFTER), while others were heard of, claims take
    /// it back before its lease is over. What a process holds that never beat is taken back only then. Also compares
    /// the clocks.
    async fn beat(&self, heartbeat: Heartbeat) -> Result<Beat, LedgerError>;

    /// Forgets a process that has finished, which must not beat any more. What it still holds in flight is due at once;
    /// what it has queued may be in another's hands, and waits for the end of its lease.
    async fn retire(&self, instance: Uuid) -> Result<(), LedgerError>;

    /// Processes that were heard of within a time, in the order of their identities, at most
    /// [`DISPATCHERS_READ_MAX`](dispatcher_core::limits::DISPATCHERS_READ_MAX). One of a newer release whose role this
    /// release does not know is not among them.
    async fn dispatchers(&self, seen_within: Duration) -> Result<Vec<DispatcherRecord>, LedgerError>;

    /// What these pools have to do and get done, in the order asked. Cheap enough to be asked every few seconds.
    async fn pool_loads(&self, pools: &[String]) -> Result<Vec<PoolLoad>, LedgerError>;

    /// Tells autoscalers of these pools, and of no others any longer: they read the table `pool_metrics`. `epoch` is as
    /// for [`Self::publish_table`].
    async fn publish_pool_metrics(&self, metrics: &[PoolMetric], epoch: Option<u64>) -> Result<(), LedgerError>;

    /// Keeps the ledger in order: forgets processes that are long silent, makes room for the coming days where the
    /// database needs it, gives up deliveries of events that are older than `retention`, and removes what is older
    /// and finished. Call it every few minutes, in any number of processes. `retention` counts in whole days, by UTC,
    /// and is at least one.
    async fn maintain(&self, retention: Duration) -> Result<Maintained, LedgerError>;

    /// The ledger's clock, as far as this process knows it: identities and leases are made by it.
    fn clock(&self) -> LedgerClock;
}

/// What maintenance did, and what it found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Maintained {
    /// Days that partitions were made for.
    pub days_made: u32,
    /// Days that are gone with all that was of them.
    pub days_dropped: u32,
    /// Deliveries that were given up because their day is over.
    pub deliveries_ended: u64,
    /// Events outside every day's partition. More than none means that a process's clock was wrong by days, or that
    /// nobody has called for maintenance: an alarm.
    pub events_outside: u64,
}

/// Why the ledger could not do it. No message carries a value of the caller's.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The database cannot be reached or refuses work; nothing was done, or it is unclear: try again, same ids.
    #[error("the ledger is not available: {0}")]
    Unavailable(String),
    /// The database's schema is not the one this release knows.
    #[error("the ledger's schema is version {found}, this release needs {needed}: {hint}")]
    Schema {
        /// What stands there.
        found: i64,
        /// What is needed.
        needed: i64,
        /// What to do.
        hint: &'static str,
    },
    /// The data itself was refused and nothing was done; of a batch of [`Ledger::record`], changes before those that
    /// build on them may be committed, and are stale when they are tried again. A defect of ours:
    /// [`isolate::commit_halving`] halves the batch until the offender stands alone.
    #[error("the ledger refused the data: {0}")]
    Refused(String),
    /// Another leader has written since; nothing was done.
    #[error("another leader, of epoch {present}, has written the routing table: one of epoch {asked} may not any more")]
    Superseded {
        /// The epoch that was given.
        asked: u64,
        /// The highest one that the ledger has seen.
        present: u64,
    },
}

/// Compares a leader's epoch with the highest one that the ledger has seen. Answers whether it is higher.
fn check_epoch(asked: Option<u64>, present: u64) -> Result<bool, LedgerError> {
    match asked {
        Some(asked) if asked < present => Err(LedgerError::Superseded { asked, present }),
        Some(asked) => Ok(asked > present),
        None => Ok(false),
    }
}

/// A loaded table, or what changed in it.
#[derive(Clone, Debug, Default)]
pub struct TableLoad {
    /// Which life of which ledger counts the versions. Versions of different histories must not be compared: after a
    /// restore the same one may stand for another table. Whoever was told of another history loads the whole table.
    pub history: String,
    /// Version of the whole.
    pub version: TableVersion,
    /// Whether this is the whole table, to replace what the reader has.
    pub complete: bool,
    /// Rows that are there.
    pub rows: Vec<Row>,
    /// The version that last changed each of them, in their order.
    pub row_versions: Vec<TableVersion>,
    /// Rows that were dropped.
    pub dropped: Vec<RowKey>,
    /// Rows of kinds that only a newer release knows, which were passed over; counted over the whole table whenever it
    /// has another version than asked for.
    pub unknown_count: usize,
}

/// What became of a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replayed {
    /// The delivery is open again, in this run.
    Started {
        /// The new run.
        run: u32,
    },
    /// It is not finished, so there is nothing to replay.
    StillOpen,
    /// The tenant has no such delivery.
    NotFound,
}
