//! A ledger whose recording is unavailable for a while, before a real one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
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
use tokio::sync::Notify;
use uuid::Uuid;

/// Fails to record as often as it was told, and never answers whoever takes work over if it was told so.
pub(crate) struct UnavailableLedger {
    real: Arc<dyn Ledger>,
    failures: Failures,
    takes_hang: Option<Arc<Notify>>,
}

/// How often recording still fails, and has failed.
#[derive(Clone)]
pub(crate) struct Failures {
    left: Arc<AtomicUsize>,
    seen: Arc<AtomicUsize>,
}

impl Failures {
    pub(crate) fn left(&self) -> usize {
        self.left.load(Ordering::SeqCst)
    }

    pub(crate) fn seen(&self) -> usize {
        self.seen.load(Ordering::SeqCst)
    }

    /// From now on recording succeeds.
    pub(crate) fn end(&self) {
        self.left.store(0, Ordering::SeqCst);
    }

    fn check(&self) -> Result<(), LedgerError> {
        let one_less = |left: usize| left.checked_sub(1);
        match self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less) {
            Ok(_) => {
                self.seen.fetch_add(1, Ordering::SeqCst);
                Err(LedgerError::Unavailable("the disk is full".into()))
            }
            Err(_) => Ok(()),
        }
    }
}

impl UnavailableLedger {
    /// What is left of the failures, and what puts the ledger before a real one.
    pub(crate) fn failing(failures: usize) -> (Failures, impl FnOnce(Arc<dyn Ledger>) -> Arc<dyn Ledger>) {
        let failures = Failures { left: Arc::new(AtomicUsize::new(failures)), seen: Arc::default() };
        let inner = failures.clone();
        (failures, move |real| Arc::new(Self { real, failures: inner, takes_hang: None }))
    }

    /// A ledger that never answers a take, and notifies `asked` of one.
    pub(crate) fn hanging(asked: &Arc<Notify>) -> impl FnOnce(Arc<dyn Ledger>) -> Arc<dyn Ledger> + use<> {
        let takes_hang = Some(Arc::clone(asked));
        let failures = Failures { left: Arc::default(), seen: Arc::default() };
        move |real| Arc::new(Self { real, failures, takes_hang })
    }
}

#[async_trait]
impl Ledger for UnavailableLedger {
    async fn accept(&self, events: Vec<NewEvent>) -> Result<Vec<Accepted>, LedgerError> {
        self.real.accept(events).await
    }

    async fn record(&self, changes: Vec<Change>) -> Result<Vec<Recorded>, LedgerError> {
        self.failures.check()?;
        self.real.record(changes).await
    }

    async fn take(&self, holds: Vec<Hold>, lease: Duration) -> Result<Vec<Option<u32>>, LedgerError> {
        if let Some(asked) = &self.takes_hang {
            asked.notify_one();
            std::future::pending::<()>().await;
        }
        self.real.take(holds, lease).await
    }

    async fn claim(&self, claim: Claim) -> Result<Claimed, LedgerError> {
        self.real.claim(claim).await
    }

    async fn expire_all_leases(&self) -> Result<(), LedgerError> {
        self.real.expire_all_leases().await
    }

    async fn set_gates(&self, gates: Vec<GateChange>) -> Result<(), LedgerError> {
        self.real.set_gates(gates).await
    }

    async fn disable(&self, endpoint: EndpointId, revision: &str, reason: DisableReason) -> Result<(), LedgerError> {
        self.real.disable(endpoint, revision, reason).await
    }

    async fn disabled(&self) -> Result<Vec<Disabled>, LedgerError> {
        self.real.disabled().await
    }

    async fn cancel_orphans(&self, grace: Duration, rows_max: u32) -> Result<u64, LedgerError> {
        self.real.cancel_orphans(grace, rows_max).await
    }

    async fn publish_table(&self, change: TableChange, epoch: Option<u64>) -> Result<TableVersion, LedgerError> {
        self.real.publish_table(change, epoch).await
    }

    async fn load_table(&self, since: Option<TableVersion>) -> Result<TableLoad, LedgerError> {
        self.real.load_table(since).await
    }

    async fn events(&self, tenant: TenantId, query: EventQuery) -> Result<Page<EventRecord>, LedgerError> {
        self.real.events(tenant, query).await
    }

    async fn event(&self, tenant: TenantId, event: EventId) -> Result<Option<EventRecord>, LedgerError> {
        self.real.event(tenant, event).await
    }

    async fn deliveries(&self, tenant: TenantId, query: DeliveryQuery) -> Result<Page<DeliveryRecord>, LedgerError> {
        self.real.deliveries(tenant, query).await
    }

    async fn delivery(&self, tenant: TenantId, delivery: DeliveryId) -> Result<Option<DeliveryRecord>, LedgerError> {
        self.real.delivery(tenant, delivery).await
    }

    async fn attempts(
        &self,
        tenant: TenantId,
        delivery: DeliveryId,
        rows_max: u32,
    ) -> Result<Vec<AttemptRecord>, LedgerError> {
        self.real.attempts(tenant, delivery, rows_max).await
    }

    async fn replay(&self, tenant: TenantId, delivery: DeliveryId) -> Result<Replayed, LedgerError> {
        self.real.replay(tenant, delivery).await
    }

    async fn begin_replay(&self, replay: NewReplay, epoch: Option<u64>) -> Result<ReplayRecord, LedgerError> {
        self.real.begin_replay(replay, epoch).await
    }

    async fn replay_page(
        &self,
        scope: ReplayScope,
        after: ReplayCursor,
        rows_max: u32,
    ) -> Result<ReplayPage, LedgerError> {
        self.real.replay_page(scope, after, rows_max).await
    }

    async fn advance_replay(&self, step: ReplayStep, epoch: Option<u64>) -> Result<Option<ReplayRecord>, LedgerError> {
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
        self.real.settle_replay(tenant, replay, after, rows_max, epoch).await
    }

    async fn backlog(&self) -> Result<Backlog, LedgerError> {
        self.real.backlog().await
    }

    async fn balance(&self) -> Result<Vec<Balance>, LedgerError> {
        self.real.balance().await
    }

    async fn endpoint_facts(&self, tenant: TenantId, window: Duration) -> Result<Vec<EndpointFacts>, LedgerError> {
        self.real.endpoint_facts(tenant, window).await
    }

    async fn expire_idempotency_keys(&self, rows_max: u32) -> Result<u64, LedgerError> {
        self.real.expire_idempotency_keys(rows_max).await
    }

    async fn ping(&self) -> Result<(), LedgerError> {
        self.real.ping().await
    }

    async fn beat(&self, heartbeat: Heartbeat) -> Result<Beat, LedgerError> {
        self.real.beat(heartbeat).await
    }

    async fn retire(&self, instance: Uuid) -> Result<(), LedgerError> {
        self.real.retire(instance).await
    }

    async fn dispatchers(&self, seen_within: Duration) -> Result<Vec<DispatcherRecord>, LedgerError> {
        self.real.dispatchers(seen_within).await
    }

    async fn pool_loads(&self, pools: &[String]) -> Result<Vec<PoolLoad>, LedgerError> {
        self.real.pool_loads(pools).await
    }

    async fn publish_pool_metrics(&self, metrics: &[PoolMetric]) -> Result<(), LedgerError> {
        self.real.publish_pool_metrics(metrics).await
    }

    async fn maintain(&self, retention: Duration) -> Result<Maintained, LedgerError> {
        self.real.maintain(retention).await
    }

    fn clock(&self) -> LedgerClock {
        self.real.clock()
    }
}
