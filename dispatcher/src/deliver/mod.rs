//! Delivers what the queue brings: the consuming loop, and how it starts and stops.
//!
//! ```text
//! Received ──▶ late? take ──▶ one task an item (part) ──▶ admit ──▶ exchange ──▶ recorder ──▶ acknowledge
//!                                                          │            │ longer than the soft budget
//!                                                          ▼            ▼
//!                                              waits behind its gate    slow track: recorded as in flight
//! ```
//!
//! What is received and not committed is bounded by the prefetch, what is in flight by two semaphores, and what one
//! endpoint may use of them by its window.

mod acknowledgement;
mod admit;
mod endpoints;
mod exchange;
mod part;
mod recorder;
mod singly;
mod state;
#[cfg(test)]
pub(crate) mod tests;
mod transform;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dispatcher_core::delivery::{Next, Outcome};
use dispatcher_core::id::{DeliveryId, EndpointId, EventId, TenantId};
use dispatcher_core::limits::{
    CONSUME_RETRY_PAUSE_MIN, DELETED_SUBSCRIPTION_PAUSE, DELETION_GRACE, DRAIN_DEADLINE, FAST_TRACK_EXCHANGES_MAX,
    LEASE, LEASE_MARGIN, LEDGER_RETRY_PAUSE_MAX, LEDGER_RETRY_PAUSE_MIN, MESSAGE_RETURNS_MAX, PREFETCH_DELIVERIES_MAX,
    SHORTAGE_LOG_INTERVAL, SLOW_TRACK_EXCHANGES_MAX, SOFT_BUDGET, TOKEN_REQUEST_TIMEOUT,
};
use dispatcher_core::table::DEFAULT_POOL;
use tokio::sync::{Notify, Semaphore, broadcast};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use self::acknowledgement::Acknowledgement;
use self::endpoints::Endpoints;
use self::recorder::{Recorder, RecorderHandle};
use self::transform::Transforms;
use crate::clock::now_unix_ms;
use crate::http::{Client, NotMade, Tokens};
use crate::ledger::{Hold, Ledger, LedgerClock};
use crate::metrics::{Counted, Metrics, Role};
use crate::queue::{Acknowledge, Consumer, Item, Queue, Received, Work};
use crate::snapshot::SnapshotReceiver;

/// The delivering role of one process and one pool.
pub struct Deliver {
    /// Pool, identity and bounds.
    pub config: DeliverConfig,
    /// Where outcomes are committed.
    pub ledger: Arc<dyn Ledger>,
    /// Where work comes from.
    pub queue: Arc<dyn Queue>,
    /// The routing table.
    pub snapshot: SnapshotReceiver,
    /// Sends requests.
    pub client: Client,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Every committed attempt is told here.
    pub observers: broadcast::Sender<Arc<Observed>>,
    /// Notified when something is due sooner than the next regular look.
    pub due_changed: Arc<Notify>,
}

/// Identity and bounds of a delivering process.
#[derive(Clone, Debug)]
pub struct DeliverConfig {
    /// The pool that it works for.
    pub pool: String,
    /// Who it is.
    pub instance: Uuid,
    /// Most exchanges on the fast track.
    pub fast_track_max: usize,
    /// Most exchanges on the slow track.
    pub slow_track_max: usize,
    /// Most deliveries that are received and not acknowledged.
    pub prefetch_deliveries_max: usize,
    /// How long an exchange may stay on the fast track, and a delivery wait for its endpoint.
    pub soft_budget: Duration,
    /// Lease of work that is taken over.
    pub lease: Duration,
    /// Part of every lease that is kept free for recording.
    pub lease_margin: Duration,
    /// How long a drain waits for exchanges in flight.
    pub drain_deadline: Duration,
    /// How long a delivery is held while its subscription is not in the table; then it is cancelled.
    pub deletion_grace: Duration,
    /// How long such a delivery is left alone before it is looked at again.
    pub deletion_pause: Duration,
}

impl Default for DeliverConfig {
    fn default() -> Self {
        Self {
            pool: DEFAULT_POOL.to_owned(),
            instance: Uuid::new_v4(),
            fast_track_max: FAST_TRACK_EXCHANGES_MAX,
            slow_track_max: SLOW_TRACK_EXCHANGES_MAX,
            prefetch_deliveries_max: PREFETCH_DELIVERIES_MAX,
            soft_budget: SOFT_BUDGET,
            lease: LEASE,
            lease_margin: LEASE_MARGIN,
            drain_deadline: DRAIN_DEADLINE,
            deletion_grace: DELETION_GRACE,
            deletion_pause: DELETED_SUBSCRIPTION_PAUSE,
        }
    }
}

/// An attempt that has been committed, for whoever watches.
#[derive(Clone, Debug)]
pub struct Observed {
    /// Whose it is.
    pub tenant: TenantId,
    /// The tenant's name.
    pub tenant_name: String,
    /// The event.
    pub event: EventId,
    /// Its type.
    pub event_type: String,
    /// The delivery.
    pub delivery: DeliveryId,
    /// The endpoint.
    pub endpoint: EndpointId,
    /// The endpoint's name.
    pub endpoint_name: String,
    /// Number of the attempt within its run, from 1.
    pub attempt_number: u32,
    /// Its result.
    pub outcome: Outcome,
    /// Status code, if the receiver answered.
    pub status_code: Option<u16>,
    /// How long it took, answer included.
    pub duration: Duration,
    /// What follows.
    pub next: Next,
}

impl Deliver {
    /// Delivers until `shutdown`, then drains: nothing more is received, exchanges in flight may end within the drain
    /// deadline, what was not sent is given back, and all of it is committed and acknowledged.
    pub async fn run(self, shutdown: CancellationToken) {
        let giving_up = CancellationToken::new();
        let (handle, recorder) = Recorder::new(
            Arc::clone(&self.ledger),
            Arc::clone(&self.metrics),
            self.observers.clone(),
            self.due_changed,
        );
        let mut recording = tokio::spawn(recorder.run(giving_up.clone()));
        let lease = self.config.lease;
        let worker = Arc::new(Worker {
            fast: Arc::new(Semaphore::new(self.config.fast_track_max)),
            slow: Arc::new(Semaphore::new(self.config.slow_track_max)),
            config: self.config,
            clock: self.ledger.clock(),
            ledger: self.ledger,
            snapshot: self.snapshot,
            tokens: Tokens::new(self.client.clone(), TOKEN_REQUEST_TIMEOUT),
            client: self.client,
            metrics: self.metrics,
            observers: self.observers,
            endpoints: Endpoints::default(),
            transforms: Transforms::default(),
            recorder: handle,
            stopping: shutdown,
            aborting: CancellationToken::new(),
            tasks: TaskTracker::new(),
            shortage_told_at_ms: AtomicU64::new(0),
        });
        let consumer = worker.consume(self.queue.as_ref()).await;
        if !worker.drain().await {
            giving_up.cancel();
        }
        // The last sender goes with the worker: the recorder commits what it has and ends.
        drop(worker);
        if tokio::time::timeout(lease, &mut recording).await.is_err() {
            tracing::warn!("the ledger does not answer; what is not recorded is due again when its lease is over");
            giving_up.cancel();
            if recording.await.is_err() {
                tracing::error!("the recorder ended by a panic");
            }
        }
        // Kept until here: acknowledgements need it, and dropping it gives back the rest.
        drop(consumer);
    }
}

/// What all tasks of a delivering process share.
struct Worker {
    config: DeliverConfig,
    ledger: Arc<dyn Ledger>,
    /// What leases and ages are counted by.
    clock: LedgerClock,
    snapshot: SnapshotReceiver,
    client: Client,
    tokens: Tokens,
    metrics: Arc<Metrics>,
    observers: broadcast::Sender<Arc<Observed>>,
    endpoints: Endpoints,
    transforms: Transforms,
    recorder: RecorderHandle,
    fast: Arc<Semaphore>,
    slow: Arc<Semaphore>,
    /// Nothing new is sent.
    stopping: CancellationToken,
    /// Exchanges in flight are given up.
    aborting: CancellationToken,
    tasks: TaskTracker,
    /// When it was last told that this machine lacks something, in milliseconds since the Unix epoch.
    shortage_told_at_ms: AtomicU64,
}

impl Worker {
    /// Receives until it is told to stop. Answers the consumer, which must outlive what it brought.
    async fn consume(self: &Arc<Self>, queue: &dyn Queue) -> Option<Box<dyn Consumer>> {
        let mut pause = Duration::ZERO;
        let mut snapshot = self.snapshot.clone();
        loop {
            if self.stopping.is_cancelled() {
                return None;
            }
            match queue.consume(&self.config.pool, self.config.prefetch_deliveries_max).await {
                Ok(mut consumer) => {
                    while let Some(received) = self.next(consumer.as_mut()).await {
                        pause = Duration::ZERO;
                        if snapshot.has_changed().unwrap_or_default() {
                            self.endpoints.evict(&snapshot.borrow_and_update().index);
                        }
                        self.receive(received);
                    }
                    if self.stopping.is_cancelled() {
                        return Some(consumer);
                    }
                }
                Err(error) => tracing::warn!(%error, "nothing can be consumed; trying again"),
            }
            pause = (pause * 2).clamp(CONSUME_RETRY_PAUSE_MIN, LEDGER_RETRY_PAUSE_MAX);
            tokio::select! { () = self.stopping.cancelled() => {}, () = tokio::time::sleep(pause) => {} }
        }
    }

    /// The next message; `None` when there is a reason to stop or to consume anew.
    async fn next(&self, consumer: &mut dyn Consumer) -> Option<Received> {
        tokio::select! {
            biased;
            () = self.stopping.cancelled() => None,
            received = consumer.next() => match received {
                Ok(received) => received,
                Err(error) => {
                    tracing::warn!(%error, "the queue was lost; consuming anew");
                    None
                }
            },
        }
    }

    fn receive(self: &Arc<Self>, received: Received) {
        let Received { message, redelivered, delivery_count, ack } = received;
        let held = self.metrics.work().received(message.deliveries());
        let ack: Box<dyn Acknowledge> = Box::new(Held { ack, _held: held });
        if delivery_count > MESSAGE_RETURNS_MAX {
            let deliveries = message.deliveries();
            tracing::error!(delivery_count, deliveries, "a message keeps coming back; its work is done one by one");
            self.tasks.spawn(singly::deliver(Arc::clone(self), message.items, ack));
            return;
        }
        let is_late = redelivered || message.items.iter().any(|item| self.is_late(item.lease_until_unix_ms));
        if is_late {
            let worker = Arc::clone(self);
            self.tasks.spawn(async move {
                if let Some(items) = worker.take(message.items, redelivered).await {
                    worker.start(items, Acknowledgement::new(ack));
                }
            });
        } else {
            self.start(message.items, Acknowledgement::new(ack));
        }
    }

    fn start(self: &Arc<Self>, items: Vec<Item>, acknowledgement: Acknowledgement) {
        let changes = items.iter().map(|item| match &item.work {
            Work::Part { .. } => 1,
            Work::Due(deliveries) => deliveries.len(),
        });
        let Some(acknowledgement) = acknowledgement.after(changes.sum()) else { return };
        for item in items {
            self.tasks.spawn(part::deliver(Arc::clone(self), item, Arc::clone(&acknowledgement)));
        }
    }

    /// Whether too little of a lease is left to send anything under it.
    fn is_late(&self, lease_until_unix_ms: u64) -> bool {
        self.time_left(lease_until_unix_ms).is_zero()
    }

    /// How long something can wait until too little of its lease is left to send it.
    fn time_left(&self, lease_until_unix_ms: u64) -> Duration {
        let needed = self.config.soft_budget + self.config.lease_margin;
        Duration::from_millis(lease_until_unix_ms.saturating_sub(self.clock.now_unix_ms() + as_ms(needed)))
    }

    /// Takes over late work before anything of it is sent. What somebody else has by now is left out. `None` if the
    /// process stops before the ledger answers: the message goes back.
    async fn take(&self, mut items: Vec<Item>, redelivered: bool) -> Option<Vec<Item>> {
        let is_taken = |item: &Item| redelivered || self.is_late(item.lease_until_unix_ms);
        let late: Vec<bool> = items.iter().map(is_taken).collect();
        let holds: Vec<Hold> =
            items.iter().zip(&late).filter(|(_, late)| **late).flat_map(|(item, _)| holds(item)).collect();
        let mut pause = LEDGER_RETRY_PAUSE_MIN;
        let (taken, lease_until_unix_ms) = loop {
            let lease_until_unix_ms = self.clock.now_unix_ms() + as_ms(self.config.lease);
            match self.ledger.take(holds.clone(), self.config.lease).await {
                Ok(taken) => break (taken, lease_until_unix_ms),
                Err(error) => {
                    self.metrics.ledger_failed(Role::Deliver);
                    tracing::debug!(%error, "late work cannot be taken over now");
                }
            }
            tokio::select! { () = self.stopping.cancelled() => return None, () = tokio::time::sleep(pause) => {} }
            pause = (pause * 2).min(LEDGER_RETRY_PAUSE_MAX);
        };
        let mut taken = taken.into_iter();
        for (item, late) in items.iter_mut().zip(late) {
            if late {
                item.lease_until_unix_ms = lease_until_unix_ms;
                renew(&mut item.work, &mut taken);
            }
        }
        items.retain(|item| item.work.deliveries() > 0);
        Some(items)
    }

    /// Says what this machine lacks, but not for each delivery that meets it.
    fn tell_of_shortage(&self, reason: NotMade) {
        let (now_ms, told_at_ms) = (now_unix_ms(), self.shortage_told_at_ms.load(Ordering::Relaxed));
        if now_ms.saturating_sub(told_at_ms) >= as_ms(SHORTAGE_LOG_INTERVAL) {
            self.shortage_told_at_ms.store(now_ms, Ordering::Relaxed);
            tracing::error!(error = %reason, reason = reason.as_str(), "exchanges cannot be made; they wait");
        }
    }

    /// Waits for everything in flight, at first for its own end, then by giving it up. Answers whether all of it has
    /// ended: what waits for a ledger that does not answer may not.
    async fn drain(&self) -> bool {
        self.tasks.close();
        if tokio::time::timeout(self.config.drain_deadline, self.tasks.wait()).await.is_ok() {
            return true;
        }
        tracing::warn!("exchanges are still in flight at the end of the drain; they are given up");
        self.aborting.cancel();
        let ended = tokio::time::timeout(self.config.lease, self.tasks.wait()).await.is_ok();
        if !ended {
            tracing::warn!("work is still held after it was given up; it is due again when its lease is over");
        }
        ended
    }
}

/// A receipt that is counted until it is settled.
struct Held {
    ack: Box<dyn Acknowledge>,
    _held: Counted,
}

impl Acknowledge for Held {
    fn acknowledge(self: Box<Self>) {
        self.ack.acknowledge();
    }
}

fn holds(item: &Item) -> Vec<Hold> {
    match &item.work {
        Work::Part { part, r#gen, .. } => vec![Hold::Part { event: item.event.id, part: *part, r#gen: *r#gen }],
        Work::Due(deliveries) => deliveries
            .iter()
            .map(|due| Hold::Delivery { delivery: due.delivery, run: due.run, r#gen: due.r#gen })
            .collect(),
    }
}

/// Puts the new generations into work, and takes out of it what was not taken over.
fn renew(work: &mut Work, taken: &mut impl Iterator<Item = Option<u32>>) {
    match work {
        Work::Part { r#gen, targets, .. } => match taken.next().flatten() {
            Some(new) => *r#gen = new,
            None => targets.clear(),
        },
        Work::Due(deliveries) => deliveries.retain_mut(|due| match taken.next().flatten() {
            Some(new) => {
                due.r#gen = new;
                true
            }
            None => false,
        }),
    }
}

fn as_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
