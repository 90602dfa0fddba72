//! A ledger before a real one: somebody is told of each call before it is made, and may fail it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dispatcher::ledger::{
    Accepted, AttemptRecord, Backlog, Balance, Beat, Change, Claim, Claimed, DeliveryQuery, DeliveryRecord,
    DisableReason, Disabled, DispatcherRecord, EndpointFacts, EventQuery, EventRecord, GateChange, Heartbeat, Hold,
    Ledger, LedgerClock, LedgerError, Maintained, NewEvent, NewReplay, Page, PoolLoad, PoolMetric, Recorded,
    ReplayCursor, ReplayPage, ReplayRecord, ReplayScope, ReplaySettled, ReplayStep, Replayed, TableLoad,
};
use dispatcher_core::id::{DeliveryId, EndpointId, EventId, ReplayId, TenantId};
use dispatcher_core::table::{TableChange, TableVersion};
use uuid::Uuid;

/// Who is told.
#[async_trait]
pub(crate) trait Before: Send + Sync + 'static {
    /// A method is about to be called, by its name.
    async fn call(&self, method: &'static str) -> Result<(), LedgerError>;

    /// These events are about to be accepted.
    fn accept(&self, _events: &[NewEvent]) -> Result<(), LedgerError> {
        Ok(())
    }
}

/// The real ledger, and who is told before it.
pub(crate) struct LedgerProxy<B> {
    pub(crate) real: Arc<dyn Ledger>,
    pub(crate) before: B,
}

macro_rules! told_before {
    ($($method:ident($($argument:ident: $type:ty),*) -> $answer:ty;)*) => {
        #[async_trait]
        impl<B: Before> Ledger for LedgerProxy<B> {
            async fn accept(&self, events: Vec<NewEvent>) -> Result<Vec<Accepted>, LedgerError> {
                self.before.call("accept").await?;
                self.before.accept(&events)?;
                self.real.accept(events).await
            }

            fn clock(&self) -> LedgerClock {
                self.real.clock()
            }

            $(async fn $method(&self, $($argument: $type),*) -> Result<$answer, LedgerError> {
                self.before.call(stringify!($method)).await?;
                self.real.$method($($argument),*).await
            })*
        }
    };
}

told_before! {
    record(changes: Vec<Change>) -> Vec<Recorded>;
    take(holds: Vec<Hold>, lease: Duration) -> Vec<Option<u32>>;
    claim(claim: Claim) -> Claimed;
    expire_all_leases() -> ();
    set_gates(gates: Vec<GateChange>) -> ();
    disable(endpoint: EndpointId, revision: &str, reason: DisableReason) -> ();
    disabled() -> Vec<Disabled>;
    cancel_orphans(grace: Duration, rows_max: u32) -> u64;
    publish_table(change: TableChange, epoch: Option<u64>) -> TableVersion;
    load_table(since: Option<TableVersion>) -> TableLoad;
    events(tenant: TenantId, query: EventQuery) -> Page<EventRecord>;
    event(tenant: TenantId, event: EventId) -> Option<EventRecord>;
    deliveries(tenant: TenantId, query: DeliveryQuery) -> Page<DeliveryRecord>;
    delivery(tenant: TenantId, delivery: DeliveryId) -> Option<DeliveryRecord>;
    attempts(tenant: TenantId, delivery: DeliveryId, rows_max: u32) -> Vec<AttemptRecord>;
    replay(tenant: TenantId, delivery: DeliveryId) -> Replayed;
    begin_replay(replay: NewReplay, epoch: Option<u64>) -> ReplayRecord;
    replay_page(scope: ReplayScope, after: ReplayCursor, rows_max: u32) -> ReplayPage;
    advance_replay(step: ReplayStep, epoch: Option<u64>) -> Option<ReplayRecord>;
    settle_replay(
        tenant: TenantId, replay: ReplayId, after: Option<DeliveryId>, rows_max: u32, epoch: Option<u64>
    ) -> Option<ReplaySettled>;
    backlog() -> Backlog;
    balance() -> Vec<Balance>;
    endpoint_facts(tenant: TenantId, window: Duration) -> Vec<EndpointFacts>;
    expire_idempotency_keys(rows_max: u32) -> u64;
    ping() -> ();
    beat(heartbeat: Heartbeat) -> Beat;
    retire(instance: Uuid) -> ();
    dispatchers(seen_within: Duration) -> Vec<DispatcherRecord>;
    pool_loads(pools: &[String]) -> Vec<PoolLoad>;
    publish_pool_metrics(metrics: &[PoolMetric], epoch: Option<u64>) -> ();
    maintain(retention: Duration) -> Maintained;
}
