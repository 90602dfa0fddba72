//! Delivers one item of a message: all targets of a part, or the due deliveries of one event.
//!
//! A part is recorded as a whole, so its task gathers a result for each target. None takes longer than its wait and
//! its soft budget: what is still in flight by then goes to the slow track and is recorded as such.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dispatcher_core::delivery::{DeliveryKey, EndReason, Next};
use dispatcher_core::event::Event;
use dispatcher_core::table::TableVersion;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::oneshot;

use super::acknowledgement::Acknowledgement;
use super::exchange::{self, Ended, Step};
use super::recorder::Entry;
use super::{Observed, Worker};
use crate::ledger::{Change, DeliveryResult};
use crate::queue::{DueDelivery, Item, Work};

/// One delivery to make, under a hold.
#[derive(Clone)]
pub(super) struct Job {
    pub(super) event: Arc<Event>,
    pub(super) key: DeliveryKey,
    pub(super) attempt_number: u32,
    /// Age of the run when the item arrived.
    pub(super) run_age: Duration,
    pub(super) arrived: Instant,
    pub(super) lease_until_unix_ms: u64,
    /// Version of the table that chose the target.
    pub(super) table_version: TableVersion,
    pub(super) run: u32,
    pub(super) r#gen: u32,
}

impl Job {
    /// The delivery goes back without an attempt.
    pub(super) fn wait(&self, delay: Duration) -> Ended {
        self.without_attempt(Next::Waiting { delay })
    }

    /// The delivery is no longer wanted.
    pub(super) fn cancel(&self, reason: EndReason) -> Ended {
        self.without_attempt(Next::Cancelled(reason))
    }

    fn without_attempt(&self, next: Next) -> Ended {
        let result = DeliveryResult { key: self.key, attempt: None, next };
        Ended { result, observed: None, effects: Vec::new() }
    }

    /// The change that a result of this delivery alone is.
    fn change(&self, result: DeliveryResult) -> Change {
        Change::Delivery { run: self.run, r#gen: self.r#gen, result }
    }
}

/// Delivers an item and hands every result to the recorder.
pub(super) async fn deliver(worker: Arc<Worker>, item: Item, acknowledgement: Arc<Acknowledgement>) {
    match &item.work {
        Work::Part { part, r#gen, targets } => {
            // The rows that the part becomes begin with run 1 and the gen of the part.
            let age =
                Duration::from_millis(worker.clock.now_unix_ms().saturating_sub(item.event.accepted_at_unix_ms()));
            let arrived = Instant::now();
            let jobs = targets.iter().map(|target| Job {
                key: DeliveryKey::new(item.event.tenant, item.event.id, *target),
                event: Arc::clone(&item.event),
                attempt_number: 1,
                run_age: age,
                arrived,
                lease_until_unix_ms: item.lease_until_unix_ms,
                table_version: item.table_version,
                run: 1,
                r#gen: *r#gen,
            });
            let gathered = gather(&worker, jobs.collect()).await;
            let change = Change::Part {
                event: item.event.id,
                tenant: item.event.tenant,
                part: *part,
                r#gen: *r#gen,
                results: gathered.results,
            };
            let acknowledgement = Some(acknowledgement);
            worker.recorder.send(Entry::Outcome { change, observed: gathered.observed, acknowledgement }).await;
            // Only now may the results of the slow ones follow: they build on the rows that this change makes.
            for slow in gathered.slow {
                slow.send(()).ok();
            }
        }
        Work::Due(deliveries) => deliver_due(&worker, &item, deliveries, &acknowledgement).await,
    }
}

#[derive(Default)]
struct Gathered {
    results: Vec<DeliveryResult>,
    observed: Vec<Observed>,
    slow: Vec<oneshot::Sender<()>>,
}

impl Gathered {
    fn add(&mut self, worker: &Arc<Worker>, job: Job, step: Step) {
        match step {
            Step::Ended(Ended { result, observed, .. }) => {
                self.results.push(result);
                self.observed.extend(observed);
            }
            Step::Slow { lease, rest } => {
                self.results.push(in_flight(&job, lease));
                self.slow.push(follow(worker, job, rest));
            }
        }
    }
}

/// Runs all deliveries of a part at once and gathers a result for each.
async fn gather(worker: &Arc<Worker>, mut jobs: Vec<Job>) -> Gathered {
    let mut gathered = Gathered { results: Vec::with_capacity(jobs.len()), ..Gathered::default() };
    // One alone, as most are, needs nothing that tells it from others.
    if jobs.len() == 1
        && let Some(job) = jobs.pop()
    {
        let (job, step) = Box::pin(attempt(worker, job)).await;
        gathered.add(worker, job, step);
        return gathered;
    }
    let mut running: FuturesUnordered<_> = jobs.into_iter().map(|job| attempt(worker, job)).collect();
    while let Some((job, step)) = running.next().await {
        gathered.add(worker, job, step);
    }
    gathered
}

/// Due deliveries have rows of their own, so each is recorded when it ends.
async fn deliver_due(
    worker: &Arc<Worker>,
    item: &Item,
    deliveries: &[DueDelivery],
    acknowledgement: &Arc<Acknowledgement>,
) {
    let arrived = Instant::now();
    let jobs = deliveries.iter().map(|due| Job {
        key: DeliveryKey {
            delivery: due.delivery,
            tenant: item.event.tenant,
            event: item.event.id,
            target: due.target,
        },
        event: Arc::clone(&item.event),
        attempt_number: due.attempts + 1,
        run_age: due.run_age,
        arrived,
        lease_until_unix_ms: item.lease_until_unix_ms,
        table_version: item.table_version,
        run: due.run,
        r#gen: due.r#gen,
    });
    let mut running: FuturesUnordered<_> = jobs.map(|job| attempt(worker, job)).collect();
    while let Some((job, step)) = running.next().await {
        let acknowledgement = Some(Arc::clone(acknowledgement));
        match step {
            Step::Ended(Ended { result, observed, .. }) => {
                let observed = observed.into_iter().collect();
                worker.recorder.send(Entry::Outcome { change: job.change(result), observed, acknowledgement }).await;
            }
            Step::Slow { lease, rest } => {
                let change = job.change(in_flight(&job, lease));
                worker.recorder.send(Entry::Outcome { change, observed: Vec::new(), acknowledgement }).await;
                follow(worker, job, rest).send(()).ok();
            }
        }
    }
}

async fn attempt(worker: &Arc<Worker>, job: Job) -> (Job, Step) {
    let mut step = exchange::attempt(worker, &job).await;
    if let Step::Ended(ended) = &mut step {
        worker.recorder.send_effects(&mut ended.effects).await;
    }
    (job, step)
}

fn in_flight(job: &Job, lease: Duration) -> DeliveryResult {
    DeliveryResult { key: job.key, attempt: None, next: Next::InFlight { lease } }
}

/// Lets an exchange on the slow track end by itself, and records its result once the answer says that it may.
fn follow(worker: &Arc<Worker>, job: Job, rest: BoxFuture<'static, Ended>) -> oneshot::Sender<()> {
    let (recorded, may_follow) = oneshot::channel();
    let follower = Arc::clone(worker);
    let counted = worker.metrics.work().slow();
    worker.tasks.spawn(async move {
        let Ended { result, observed, mut effects } = tokio::select! {
            ended = rest => ended,
            () = follower.aborting.cancelled() => job.wait(Duration::ZERO),
        };
        follower.recorder.send_effects(&mut effects).await;
        // An error means that the task which should have said so has gone; the ledger decides by the hold.
        may_follow.await.ok();
        let (change, observed) = (job.change(result), observed.into_iter().collect());
        follower.recorder.send(Entry::Outcome { change, observed, acknowledgement: None }).await;
        drop(counted);
    });
    recorded
}
