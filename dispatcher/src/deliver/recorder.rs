//! Commits outcomes in batches that form by themselves: what arrived during the last flush, and for a few times as long
//! afterwards, is the next batch. Nobody waits for an outcome but the broker, and few large batches cost far less than many
//! small ones; meanwhile the server's log is free for commits that producers wait for. Where there is little to do a flush
//! is short, and so is the pause.
//!
//! While the ledger does not answer, the batch is kept and tried again, and no new attempt is made: what would have to
//! be repeated after a crash stays within what was in flight.

use std::sync::Arc;
use std::time::Duration;

use dispatcher_core::delivery::Next;
use dispatcher_core::id::{EndpointId, EventId};
use dispatcher_core::limits::{
    DUE_POLL_INTERVAL, LEDGER_RETRY_PAUSE_MAX, LEDGER_RETRY_PAUSE_MIN, RECORD_BATCH_OUTCOMES_MAX, RECORD_BATCH_WANTED,
    RECORD_PAUSE_COMMITS, RECORD_PAUSE_MAX, RECORD_WAITING_MAX,
};
use tokio::sync::{Notify, broadcast, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Observed;
use super::acknowledgement::Acknowledgement;
use crate::gathering::Gathering;
use crate::ledger::isolate::{Halved, commit_halving};
use crate::ledger::{Change, DisableReason, GateChange, Ledger, LedgerError, Recorded};
use crate::metrics::{Metrics, Role};

/// Something to commit.
pub(super) enum Entry {
    /// What became of deliveries.
    Outcome {
        change: Change,
        /// Told once the change is committed.
        observed: Vec<Observed>,
        acknowledgement: Option<Arc<Acknowledgement>>,
    },
    /// What it means for an endpoint.
    Effect(Effect),
}

/// A change of an endpoint's lane.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Gate(GateChange),
    Disable { endpoint: EndpointId, revision: String, reason: DisableReason },
}

impl Entry {
    /// What it counts for in a batch.
    fn outcomes(&self) -> usize {
        match self {
            Self::Outcome { change: Change::Part { results, .. }, .. } => results.len(),
            Self::Outcome { change: Change::Delivery { .. }, .. } | Self::Effect(_) => 1,
        }
    }
}

/// Hands entries to the recorder.
#[derive(Clone)]
pub(super) struct RecorderHandle {
    entries: mpsc::Sender<Entry>,
    gathering: Arc<Gathering>,
    answers: watch::Receiver<bool>,
}

impl RecorderHandle {
    /// Hands an entry over; waits while too many do. Entries are committed in the order in which they were sent.
    pub(super) async fn send(&self, entry: Entry) {
        let Ok(place) = self.entries.reserve().await else {
            tracing::debug!("an outcome came after the recorder had ended; its lease runs out");
            return;
        };
        self.gathering.add(entry.outcomes());
        place.send(entry);
    }

    /// Hands over what an exchange means for its endpoint, and leaves nothing.
    pub(super) async fn send_effects(&self, effects: &mut Vec<Effect>) {
        for effect in effects.drain(..) {
            self.send(Entry::Effect(effect)).await;
        }
    }

    /// Waits until the ledger takes outcomes, at most this long.
    pub(super) async fn wait_until_it_answers(&self, at_most: impl FnOnce() -> Duration) {
        if !*self.answers.borrow() {
            let mut answers = self.answers.clone();
            // Late or ended: whoever asks looks at the lease next.
            tokio::time::timeout(at_most(), answers.wait_for(|answers| *answers)).await.ok();
        }
    }
}

/// The one task that writes outcomes.
pub(super) struct Recorder {
    ledger: Arc<dyn Ledger>,
    metrics: Arc<Metrics>,
    observers: broadcast::Sender<Arc<Observed>>,
    due_changed: Arc<Notify>,
    entries: mpsc::Receiver<Entry>,
    gathering: Arc<Gathering>,
    answers: watch::Sender<bool>,
}

#[derive(Default)]
struct Batch {
    changes: Vec<Change>,
    outcomes: usize,
    observed: Vec<Observed>,
    acknowledgements: Vec<Arc<Acknowledgement>>,
    gates: Vec<GateChange>,
    disables: Vec<(EndpointId, String, DisableReason)>,
}

impl Recorder {
    pub(super) fn new(
        ledger: Arc<dyn Ledger>,
        metrics: Arc<Metrics>,
        observers: broadcast::Sender<Arc<Observed>>,
        due_changed: Arc<Notify>,
    ) -> (RecorderHandle, Self) {
        let (sender, entries) = mpsc::channel(RECORD_WAITING_MAX);
        let (answers, receiver) = watch::channel(true);
        let gathering = Arc::new(Gathering::new(RECORD_BATCH_WANTED));
        let handle = RecorderHandle { entries: sender, gathering: Arc::clone(&gathering), answers: receiver };
        (handle, Self { ledger, metrics, observers, due_changed, entries, gathering, answers })
    }

    /// What was handed over and not committed yet.
    #[cfg(test)]
    pub(super) fn waiting(&mut self) -> Vec<Entry> {
        std::iter::from_fn(|| self.entries.try_recv().ok()).collect()
    }

    /// Commits until all handles are gone and nothing is left, or until it is told to give up.
    pub(super) async fn run(mut self, giving_up: CancellationToken) {
        let mut rests_until = Instant::now();
        loop {
            let gathered = tokio::select! {
                () = giving_up.cancelled() => return,
                gathered = self.gather(rests_until) => gathered,
            };
            let Some(batch) = gathered else { return };
            let begun = Instant::now();
            tokio::select! {
                () = giving_up.cancelled() => return,
                () = self.flush(batch) => {}
            }
            rests_until = Instant::now() + (begun.elapsed() * RECORD_PAUSE_COMMITS).min(RECORD_PAUSE_MAX);
        }
    }

    /// Waits for the first entry, and until then or a full batch for more. `None` once nothing comes any more.
    async fn gather(&mut self, until: Instant) -> Option<Batch> {
        let mut batch = Batch::default();
        batch.add(self.entries.recv().await?);
        self.gathering.rest_until(until).await;
        while batch.outcomes < RECORD_BATCH_OUTCOMES_MAX
            && let Ok(entry) = self.entries.try_recv()
        {
            batch.add(entry);
        }
        self.gathering.take(batch.outcomes);
        Some(batch)
    }

    /// Commits a batch, however long the ledger takes to answer.
    async fn flush(&self, mut batch: Batch) {
        let mut pause = LEDGER_RETRY_PAUSE_MIN;
        while let Err(error) = self.commit(&mut batch).await {
            self.metrics.ledger_failed(Role::Deliver);
            if self.answers.send_replace(false) {
                tracing::warn!(%error, "outcomes cannot be recorded; no new attempt is made until they are");
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LEDGER_RETRY_PAUSE_MAX);
        }
        if !self.answers.send_replace(true) {
            tracing::info!("outcomes are recorded again");
        }
    }

    /// Commits what is left of a batch. Gates go first, so that what is parked behind one is not claimed before it
    /// closes.
    async fn commit(&self, batch: &mut Batch) -> Result<(), LedgerError> {
        while let Some((endpoint, revision, reason)) = batch.disables.last() {
            let disabled = self.ledger.disable(*endpoint, revision, *reason).await;
            settle(disabled, "an endpoint could not be disabled")?;
            batch.disables.pop();
        }
        let opens = batch.gates.iter().any(|gate| gate.closed_for < DUE_POLL_INTERVAL);
        if !batch.gates.is_empty() {
            settle(self.ledger.set_gates(batch.gates.clone()).await, "gates could not be set")?;
            batch.gates.clear();
        }
        let is_due_soon = batch.changes.iter().any(is_due_soon);
        self.record(&batch.changes).await?;
        for acknowledgement in batch.acknowledgements.drain(..) {
            acknowledgement.committed();
        }
        for observed in batch.observed.drain(..) {
            // Nobody watching is no failure.
            self.observers.send(Arc::new(observed)).ok();
        }
        if opens || is_due_soon {
            self.due_changed.notify_one();
        }
        Ok(())
    }

    /// Records changes, but for those that the ledger refuses. Recording a change again after another one has failed
    /// does no harm: its hold is gone by then.
    async fn record(&self, changes: &[Change]) -> Result<(), LedgerError> {
        let Halved { answers, interrupted } = commit_halving(changes, |slice| self.ledger.record(slice)).await;
        let recorded = answers.iter().filter(|answer| answer.is_ok()).count();
        if recorded > 0 {
            let superseded = answers.iter().filter(|answer| matches!(answer, Ok(Recorded::Superseded))).count();
            self.metrics.record_committed(recorded, superseded);
        }
        for (change, answer) in changes.iter().zip(&answers) {
            if let Err(error) = answer {
                // Given back to the queue it would be sent again at once; left alone it is due again when its lease
                // is over.
                self.metrics.ledger_failed(Role::Deliver);
                let event = event_of(change);
                tracing::error!(%error, %event, "the ledger refuses an outcome: this is a defect, report it");
            }
        }
        interrupted.map_or(Ok(()), Err)
    }
}

impl Batch {
    fn add(&mut self, entry: Entry) {
        self.outcomes += entry.outcomes();
        match entry {
            Entry::Outcome { change, observed, acknowledgement } => {
                self.changes.push(change);
                self.observed.extend(observed);
                self.acknowledgements.extend(acknowledgement);
            }
            Entry::Effect(Effect::Gate(gate)) => self.gates.push(gate),
            Entry::Effect(Effect::Disable { endpoint, revision, reason }) => {
                self.disables.push((endpoint, revision, reason));
            }
        }
    }
}

/// A refusal is final and only told; an unavailable ledger is asked again.
fn settle(result: Result<(), LedgerError>, message: &'static str) -> Result<(), LedgerError> {
    match result {
        Err(error @ LedgerError::Refused(_)) => {
            tracing::error!(%error, "{message}: this is a defect, report it");
            Ok(())
        }
        other => other,
    }
}

fn is_due_soon(change: &Change) -> bool {
    let soon = |next: &Next| matches!(next, Next::Waiting { delay } if *delay < DUE_POLL_INTERVAL);
    match change {
        Change::Part { results, .. } => results.iter().any(|result| soon(&result.next)),
        Change::Delivery { result, .. } => soon(&result.next),
    }
}

fn event_of(change: &Change) -> EventId {
    match change {
        Change::Part { event, .. } => *event,
        Change::Delivery { result, .. } => result.key.event,
    }
}
