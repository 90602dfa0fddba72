//! A ledger that fails until it is repaired, before a real one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
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

/// Fails whatever the API asks; refuses events of one type even when repaired.
pub(crate) struct BrokenLedger {
    real: Arc<dyn Ledger>,
    broken: Gate,
}

/// Whether the ledger is still broken, and how often it was asked to store events.
#[derive(Clone)]
pub(crate) struct Gate {
    broken: Arc<AtomicBool>,
    accepts: Arc<AtomicUsize>,
}

impl Gate {
    pub(crate) fn repair(&self) {
        self.broken.store(false, Ordering::SeqCst);
    }

    pub(crate) fn accepts(&self) -> usize {
        self.accepts.load(Ordering::SeqCst)
    }

    fn check(&self) -> Result<(), LedgerError> {
        let broken = self.broken.load(Ordering::SeqCst);
        if broken { Err(LedgerError::Unavailable("the disk is full".into())) } else { Ok(()) }
    }
}

impl BrokenLedger {
    /// The type of events that are refused as data.
    pub(crate) const REFUSED_TYPE: &str = "refused";

    /// The gate, and what puts the ledger before a real one.
    pub(crate) fn gated() -> (Gate, impl FnOnce(Arc<dyn Ledger>) -> Arc<dyn Ledger>) {
        let gate = Gate { broken: Arc::new(AtomicBool::new(true)), accepts: Arc::default() };
        let broken = gate.clone();
        (gate, move |real| Arc::new(Self { real, broken }))
    }
}

#[async_trait]
impl Ledger for BrokenLedger {
    async fn accept(&self, events: Vec<NewEvent>) -> Result<Vec<Accepted>, LedgerError> {
        self.broken.accepts.fetch_add(1, Ordering::SeqCst);
        self.broken.check()?;
        if events.iter().any(|new| new.event.event_type == Self::REFUSED_TYPE) {
            return Err(LedgerError::Refused("not this type".into()));
        }
        self.real.accept(events).await
    }

    async fn record(&self, changes: Vec<Change>) -> Result<Vec<Recorded>, LedgerError> {
        self.broken.check()?;
        self.real.record(changes).await
    }

    async fn take(&self, holds: Vec<Hold>, lease: Duration) -> Result<Vec<Option<u32>>, LedgerError> {
        self.broken.check()?;
        self.real.take(holds, lease).await
    }

    async fn claim(&self, claim: Claim) -> Result<Claimed, LedgerError> {
        self.broken.check()?;
        self.real.claim(claim).await
    }

    async fn expire_all_leases(&self) -> Result<(), LedgerError> {
        self.broken.check()?;
        self.real.expire_all_leases().await
    }

    async fn set_gates(&self, gates: Vec<GateChange>) -> Result<(), LedgerError> {
        self.broken.check()?;
        self.real.set_gates(gates).await
    }

    async fn disable(&self, endpoint: EndpointId, revision: &str, reason: DisableReason) -> Result<(), LedgerError> {
        self.broken.check()?;
        self.real.disable(endpoint, revision, reason).await
    }

    async fn disabled(&self) -> Result<Vec<Disabled>, LedgerError> {
        self.broken.check()?;
        self.real.disabled().await
    }

    async fn cancel_orphans(&self, grace: Duration, rows_max: u32) -> Result<u64, LedgerError> {
        self.broken.check()?;
        self.real.cancel_orphans(grace, rows_max).await
    }

    async fn publish_table(&self, change: TableChange, epoch: Option<u64>) -> Result<TableVersion, LedgerError> {
        self.broken.check()?;
        self.real.publish_table(change, epoch).await
    }

    async fn load_table(&self, since: Option<TableVersion>) -> Result<TableLoad, LedgerError> {
        self.broken.check()?;
        self.real.load_table(since).await
    }

    async fn events(&self, tenant: TenantId, query: EventQuery) -> Result<Page<EventRecord>, LedgerError> {
        self.broken.check()?;
        self.real.events(tenant, query).await
    }

    async fn event(&self, tenant: TenantId, event: EventId) -> Result<Option<EventRecord>, LedgerError> {
        self.broken.check()?;
        self.real.event(tenant, event).await
    }

    async fn deliveries(&self, tenant: TenantId, query: DeliveryQuery) -> Result<Page<DeliveryRecord>, LedgerError> {
        self.broken.check()?;
        self.real.deliveries(tenant, query).await
    }

    async fn delivery(&self, tenant: TenantId, delivery: DeliveryId) -> Result<Option<DeliveryRecord>, LedgerError> {
        self.broken.check()?;
        self.real.delivery(tenant, delivery).await
    }

    async fn attempts(
        &self,
        tenant: TenantId,
        delivery: DeliveryId,
        rows_max: u32,
    ) -> Result<Vec<AttemptRecord>, LedgerError> {
        self.broken.check()?;
        self.real.attempts(tenant, delivery, rows_max).await
    }

    async fn replay(&self, tenant: TenantId, delivery: DeliveryId) -> Result<Replayed, LedgerError> {
        self.broken.check()?;
        self.real.replay(tenant, delivery).await
    }

    async fn begin_replay(&self, replay: NewReplay, epoch: Option<u64>) -> Result<ReplayRecord, LedgerError> {
        self.broken.check()?;
        self.real.begin_replay(replay, epoch).await
    }

    async fn replay_page(
        &self,
        scope: ReplayScope,
        after: ReplayCursor,
        rows_max: u32,
    ) -> Result<ReplayPage, LedgerError> {
        self.broken.check()?;
        self.real.replay_page(scope, after, rows_max).await
    }

    async fn advance_replay(&self, step: ReplayStep, epoch: Option<u64>) -> Result<Option<ReplayRecord>, LedgerError> {
        self.broken.check()?;
        self.real.advance_replay(step, epoch).await
    }

    async fn settle_replay(
        &self,
        tenant: TenantId,
        replay: ReplayId,
        after: Option<DeliveryId>,
        rows_max: u32,
        epoch: Option<u64>,
    ) -> Result<Option<ReplaySettled>, LedgerError> {
        self.broken.check()?;
        self.real.settle_replay(tenant, replay, after, rows_max, epoch).await
    }

    async fn backlog(&self) -> Result<Backlog, LedgerError> {
        self.broken.check()?;
        self.real.backlog().await
    }

    async fn balance(&self) -> Result<Vec<Balance>, LedgerError> {
        self.broken.check()?;
        self.real.balance().await
    }

    async fn endpoint_facts(&self, tenant: TenantId, window: Duration) -> Result<Vec<EndpointFacts>, LedgerError> {
        self.broken.check()?;
        self.real.endpoint_facts(tenant, window).await
    }

    async fn expire_idempotency_keys(&self, rows_max: u32) -> Result<u64, LedgerError> {
        self.broken.check()?;
        self.real.expire_idempotency_keys(rows_max).await
    }

    async fn ping(&self) -> Result<(), LedgerError> {
        self.broken.check()?;
        self.real.ping().await
    }

    async fn beat(&self, heartbeat: Heartbeat) -> Result<Beat, LedgerError> {
        self.broken.check()?;
        self.real.beat(heartbeat).await
    }

    async fn retire(&self, instance: Uuid) -> Result<(), LedgerError> {
        self.broken.check()?;
        self.real.retire(instance).await
    }

    async fn dispatchers(&self, seen_within: Duration) -> Result<Vec<DispatcherRecord>, LedgerError> {
        self.broken.check()?;
        self.real.dispatchers(seen_within).await
    }

    async fn pool_loads(&self, pools: &[String]) -> Result<Vec<PoolLoad>, LedgerError> {
        self.real.pool_loads(pools).await
    }

    async fn publish_pool_metrics(&self, metrics: &[PoolMetric]) -> Result<(), LedgerError> {
        self.real.publish_pool_metrics(metrics).await
    }

    async fn maintain(&self, retention: Duration) -> Result<Maintained, LedgerError> {
        self.broken.check()?;
        self.real.maintain(retention).await
    }

    fn clock(&self) -> LedgerClock {
        self.real.clock()
    }
}
