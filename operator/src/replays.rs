//! The worker of replays: it carries out what plans order, step by step, and reports how far it has come.
//!
//! All that it knows stands in the ledger, step by step: whenever it ends, another one goes on where it was. Replays take
//! turns, one step each, so that none waits for another to be through.

mod choice;
mod driver;
mod routes;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use dispatcher::ledger::{Ledger, ReplayStage};
use dispatcher_core::id::ReplayId;
use dispatcher_core::limits::{REPLAY_REPORT_INTERVAL, REPLAYS_FINISHED_KEPT_MAX};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use self::driver::{Driver, Ground};
use self::routes::Routes;
use crate::plan::replay::{ReplayJob, ReplayProgress};

/// How far replays have come, by their identities.
pub type ReplayProgresses = HashMap<ReplayId, ReplayProgress>;

/// What is to be worked on, and in whose name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Orders {
    jobs: Vec<ReplayJob>,
    epoch: Option<u64>,
}

/// Where whoever plans gives orders and reads reports.
#[derive(Clone, Debug)]
pub struct ReplayDesk {
    orders: watch::Sender<Orders>,
    progress: watch::Receiver<Arc<ReplayProgresses>>,
}

/// Works on replays as long as it runs.
pub struct ReplayWorker {
    ledger: Arc<dyn Ledger>,
    orders: watch::Receiver<Orders>,
    progress: watch::Sender<Arc<ReplayProgresses>>,
    reported_at: Duration,
    drivers: BTreeMap<ReplayId, Driver>,
    /// Those that are complete, newest last: a plan may ask for them once more before their statuses are written.
    finished: VecDeque<(ReplayId, ReplayProgress)>,
    routes: Routes,
}

/// A worker without orders, and its desk.
pub fn worker(ledger: Arc<dyn Ledger>) -> (ReplayWorker, ReplayDesk) {
    let (orders, orders_of_worker) = watch::channel(Orders::default());
    let (progress_of_worker, progress) = watch::channel(Arc::default());
    let worker = ReplayWorker {
        ledger,
        orders: orders_of_worker,
        progress: progress_of_worker,
        reported_at: Duration::ZERO,
        drivers: BTreeMap::new(),
        finished: VecDeque::new(),
        routes: Routes::default(),
    };
    (worker, ReplayDesk { orders, progress })
}

impl ReplayDesk {
    /// Orders all that is to be worked on from now on, alone or as the leader of an epoch. Whoever is no leader any more
    /// orders nothing.
    pub fn order(&self, jobs: Vec<ReplayJob>, epoch: Option<u64>) {
        let orders = Orders { jobs, epoch };
        self.orders.send_if_modified(|present| {
            let is_new = *present != orders;
            *present = orders;
            is_new
        });
    }

    /// How far the ordered replays have come, by the last report.
    pub fn progress(&self) -> Arc<ReplayProgresses> {
        Arc::clone(&self.progress.borrow())
    }

    /// Waits for a report that is worth planning again. Never ends once the worker has.
    pub async fn reported(&mut self) {
        if self.progress.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl ReplayWorker {
    /// Works until it is told to stop, or nobody can give orders any more.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let start = Instant::now();
        loop {
            let wait = tokio::select! {
                () = shutdown.cancelled() => return,
                wait = self.turn(start.elapsed()) => wait,
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                ordered = self.orders.changed() => if ordered.is_err() { return },
                () = until(wait) => {}
            }
        }
    }

    /// Takes the orders that are there, lets every replay take one step, and reports. `now` is the time on any clock that
    /// does not go back. Answers when there is more to do, if there is without new orders.
    ///
    /// May be dropped at any moment: what was begun is committed as a whole or not at all.
    pub async fn turn(&mut self, now: Duration) -> Option<Duration> {
        let epoch = self.take_orders(now);
        let mut wait: Option<Duration> = None;
        for driver in self.drivers.values_mut() {
            let next = driver.step(&Ground { ledger: &*self.ledger, epoch }, &mut self.routes, now).await;
            wait = [wait, next].into_iter().flatten().min();
        }
        if self.drivers.is_empty() {
            self.routes = Routes::default();
        }
        self.keep_finished();
        let report = self.report(now);
        [wait, report].into_iter().flatten().min()
    }

    /// Answers in whose name they were given.
    fn take_orders(&mut self, now: Duration) -> Option<u64> {
        let Orders { jobs, epoch } = self.orders.borrow_and_update().clone();
        let mut drivers = std::mem::take(&mut self.drivers);
        for job in jobs {
            if self.finished.iter().any(|(replay, _)| *replay == job.replay) {
                continue;
            }
            let driver = match drivers.remove(&job.replay) {
                Some(driver) => Some(driver.with(job)),
                None => Driver::new(job, now),
            };
            self.drivers.extend(driver.map(|driver| (driver.replay(), driver)));
        }
        epoch
    }

    fn keep_finished(&mut self) {
        let finished = self.drivers.iter().filter_map(|(replay, driver)| {
            let progress = driver.progress()?;
            progress.record.finished_at_unix_ms.is_some().then_some((*replay, progress))
        });
        self.finished.extend(finished);
        for (replay, _) in &self.finished {
            self.drivers.remove(replay);
        }
        while self.finished.len() > REPLAYS_FINISHED_KEPT_MAX {
            self.finished.pop_front();
        }
    }

    /// At once what changes a condition, and the counts from time to time. Answers when there are more counts to report, also
    /// if nothing is to be done until then.
    fn report(&mut self, now: Duration) -> Option<Duration> {
        let working = self.drivers.iter().filter_map(|(replay, driver)| Some((*replay, driver.progress()?)));
        let progress: ReplayProgresses = self.finished.iter().cloned().chain(working).collect();
        let present = Arc::clone(&self.progress.borrow());
        let is_news = progress.len() != present.len()
            || progress.iter().any(|(replay, progress)| present.get(replay).is_none_or(|it| tells_more(it, progress)));
        let due_in = (self.reported_at + REPLAY_REPORT_INTERVAL).saturating_sub(now);
        if !is_news && *present == progress {
            return None;
        }
        if !is_news && !due_in.is_zero() {
            return Some(due_in);
        }
        self.reported_at = now;
        self.progress.send_replace(Arc::new(progress));
        None
    }
}

/// Whether the second says something that the first does not, beside counts.
fn tells_more(first: &ReplayProgress, second: &ReplayProgress) -> bool {
    let essence = |progress: &ReplayProgress| {
        let record = &progress.record;
        (record.cursor.stage == ReplayStage::Done, record.finished_at_unix_ms, progress.trouble.clone())
    };
    essence(first) != essence(second)
}

async fn until(wait: Option<Duration>) {
    match wait {
        Some(wait) => sleep(wait).await,
        None => std::future::pending().await,
    }
}
