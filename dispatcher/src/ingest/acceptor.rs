//! The batching writer: turns requests into commits, answers them, and hands the work to the queue from memory.
//!
//! Whatever arrived while the last batch was committed and published is the next one, up to the limits: one request at
//! low load is one commit, hundreds at high load are one commit too. Where there is much to do the writer also rests. A
//! queue that does not answer holds nobody up: the writer waits for it only for a moment, and goes on.

use std::sync::Arc;
use std::time::Duration;

use dispatcher_core::delivery::Target;
use dispatcher_core::event::Event;
use dispatcher_core::id::EventId;
use dispatcher_core::limits::{
    ACCEPT_BATCH_BYTES_MAX, ACCEPT_BATCH_EVENTS_MAX, ACCEPT_BATCH_TARGETS_MAX, ACCEPT_BATCH_WANTED,
    ACCEPT_LEDGER_LOOK_PAUSE, ACCEPT_LEDGER_LOOK_TIMEOUT, ACCEPT_PUBLISH_PATIENCE, ACCEPT_WAITING_MAX,
    ACCEPT_WAITING_TARGETS_MAX, LEASE,
};
use dispatcher_core::table::TableVersion;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::progress::Progress;
use super::publish::{Place, Publisher};
use super::rest::{Rest, is_crowd};
use super::room::Room;
use crate::gathering::Gathering;
use crate::ledger::isolate::{Halved, commit_halving};
use crate::ledger::{Accepted, Idempotency, Ledger, LedgerError, NewEvent};
use crate::metrics::{Metrics, Role};
use crate::queue::Queue;

/// An event with its targets, to be accepted.
#[derive(Clone, Debug)]
pub struct NewRequest {
    /// The event.
    pub event: Arc<Event>,
    /// Its targets, each with its pool.
    pub targets: Vec<(String, Target)>,
    /// Version of the table that decided the targets.
    pub table_version: TableVersion,
    /// The producer's key, if there is one.
    pub idempotency: Option<Idempotency>,
}

/// What a producer is told about an accepted event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The event; of the first request if this one is a repetition.
    pub event_id: EventId,
    /// Number of its targets.
    pub fanout_count: u32,
    /// Whether the same request had been accepted before.
    pub repeated: bool,
}

/// Why an event was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AcceptError {
    /// Too many requests wait.
    #[error("too many requests wait to be stored")]
    Full,
    /// The process is about to stop.
    #[error("the service is stopping")]
    Stopping,
    /// The ledger does not answer.
    #[error("the ledger does not answer")]
    Unavailable,
    /// The idempotency key was used for another request.
    #[error("the idempotency key was used for another request")]
    Conflict,
    /// The ledger refused the event: a defect of ours.
    #[error("the ledger refused the event")]
    Refused,
}

/// The handle of the writer; cheap to clone.
#[derive(Clone)]
pub struct Acceptor {
    sender: mpsc::Sender<Waiting>,
    /// One permit for each target that may wait.
    room: Arc<Semaphore>,
    /// The events that wait.
    gathering: Arc<Gathering>,
    progress: Arc<Progress>,
}

/// The writer itself: one task.
pub struct AcceptorTask {
    receiver: mpsc::Receiver<Waiting>,
    gathering: Arc<Gathering>,
    ledger: Arc<dyn Ledger>,
    queue: Arc<dyn Queue>,
    publisher: Publisher,
    metrics: Arc<Metrics>,
    progress: Arc<Progress>,
}

type Answer = Result<Receipt, AcceptError>;

/// What became of a batch.
struct Committed {
    /// Whether the ledger took it.
    is_stored: bool,
    /// Whether it says that there is much to do.
    is_crowd: bool,
    /// How long the ledger took.
    took: Duration,
}

/// Requests that belong together, and who waits for them.
struct Waiting {
    requests: Vec<NewRequest>,
    reply: oneshot::Sender<Vec<Answer>>,
    /// Their place in the line.
    _place: OwnedSemaphorePermit,
}

/// What counts towards the limits of a transaction.
#[derive(Clone, Copy, Default)]
struct Size {
    events: usize,
    targets: usize,
    body_bytes: usize,
}

impl Size {
    fn of(requests: &[NewRequest]) -> Self {
        Self {
            events: requests.len(),
            targets: requests.iter().map(|request| request.targets.len()).sum(),
            body_bytes: requests.iter().map(|request| request.event.body.len()).sum(),
        }
    }

    fn with(self, other: Self) -> Self {
        Self {
            events: self.events + other.events,
            targets: self.targets + other.targets,
            body_bytes: self.body_bytes + other.body_bytes,
        }
    }

    fn fits(self) -> bool {
        self.events <= ACCEPT_BATCH_EVENTS_MAX
            && self.targets <= ACCEPT_BATCH_TARGETS_MAX
            && self.body_bytes <= ACCEPT_BATCH_BYTES_MAX
    }
}

impl Acceptor {
    /// A handle and the task behind it.
    pub fn new(ledger: Arc<dyn Ledger>, queue: Arc<dyn Queue>, metrics: Arc<Metrics>) -> (Self, AcceptorTask) {
        let (sender, receiver) = mpsc::channel(ACCEPT_WAITING_MAX);
        let progress = Arc::new(Progress::new());
        let publisher = Publisher::new(Arc::clone(&queue), Arc::clone(&metrics));
        let gathering = Arc::new(Gathering::new(ACCEPT_BATCH_WANTED));
        let room = Arc::new(Semaphore::new(ACCEPT_WAITING_TARGETS_MAX));
        let handle = Self { sender, room, gathering: Arc::clone(&gathering), progress: Arc::clone(&progress) };
        (handle, AcceptorTask { receiver, gathering, ledger, queue, publisher, metrics, progress })
    }

    /// Accepts one event; answers after the commit.
    pub async fn accept(&self, request: NewRequest) -> Answer {
        self.accept_all(vec![request]).await?.pop().unwrap_or(Err(AcceptError::Stopping))
    }

    /// Accepts events that came in one request, in one commit. Answers in the order asked.
    pub async fn accept_all(&self, requests: Vec<NewRequest>) -> Result<Vec<Answer>, AcceptError> {
        let (reply, answers) = oneshot::channel();
        let targets = u32::try_from(Size::of(&requests).targets).map_err(|_| AcceptError::Full)?;
        let place = Arc::clone(&self.room).try_acquire_many_owned(targets).map_err(|_| AcceptError::Full)?;
        let in_line = self.sender.try_reserve().map_err(|error| match error {
            mpsc::error::TrySendError::Full(()) => AcceptError::Full,
            mpsc::error::TrySendError::Closed(()) => AcceptError::Stopping,
        })?;
        self.gathering.add(requests.len());
        in_line.send(Waiting { requests, reply, _place: place });
        // The task answers everything that it received; without an answer nothing is known to be stored.
        answers.await.map_err(|_| AcceptError::Stopping)
    }

    /// For how long nothing has been stored although something was to be; zero if all is well.
    pub fn stalled_for(&self) -> Duration {
        self.progress.stalled_for()
    }
}

impl AcceptorTask {
    /// Works until it is told to stop or all handles are gone; then commits what waits, and returns when all of it is
    /// published or given up.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut put_back = None;
        let mut rest = Rest::new(Arc::clone(&self.gathering));
        loop {
            let first = match put_back.take() {
                Some(waiting) => waiting,
                None => match self.next(&shutdown).await {
                    Some(waiting) => waiting,
                    None => break,
                },
            };
            let place = self.publisher.place().await;
            rest.take().await;
            let batch;
            (batch, put_back) = self.gather(first);
            let Committed { is_stored, is_crowd, took } = self.commit(batch, place).await;
            rest.after(is_crowd, took, Instant::now());
            // A commit may fail alone: then nobody is refused.
            if !is_stored && !answers(&*self.ledger).await {
                tracing::warn!("the ledger does not answer; events are refused until it does");
                put_back.take().into_iter().for_each(|waiting| self.refuse(waiting));
                self.refuse_until_the_ledger_answers(&shutdown).await;
            }
        }
        self.publisher.finish().await;
    }

    /// The next one; `None` when all handles are gone, or when it is told to stop and nothing waits any more.
    async fn next(&mut self, shutdown: &CancellationToken) -> Option<Waiting> {
        tokio::select! {
            biased;
            // What is in the channel by now is still answered; nothing further gets in.
            () = shutdown.cancelled(), if !self.receiver.is_closed() => {
                self.receiver.close();
                self.receiver.recv().await
            }
            waiting = self.receiver.recv() => waiting,
        }
    }

    /// Refuses what comes, at once: nobody waits for what others have found out already.
    async fn refuse_until_the_ledger_answers(&mut self, shutdown: &CancellationToken) {
        let ledger = Arc::clone(&self.ledger);
        let answering = async {
            while !answers(&*ledger).await {
                sleep(ACCEPT_LEDGER_LOOK_PAUSE).await;
            }
        };
        let mut answering = std::pin::pin!(answering);
        loop {
            tokio::select! {
                biased;
                () = &mut answering => break,
                waiting = self.next(shutdown) => match waiting {
                    Some(waiting) => self.refuse(waiting),
                    None => return,
                },
            }
        }
        tracing::info!("the ledger answers again; events are accepted");
    }

    fn refuse(&self, waiting: Waiting) {
        self.gathering.take(waiting.requests.len());
        self.progress.begin();
        self.progress.end(false);
        // The client may have gone.
        let _ = waiting.reply.send(vec![Err(AcceptError::Unavailable); waiting.requests.len()]);
    }

    /// What has arrived by now, within the limits of a transaction; what did not fit comes first next time.
    fn gather(&mut self, first: Waiting) -> (Vec<Waiting>, Option<Waiting>) {
        let mut size = Size::of(&first.requests);
        let mut batch = vec![first];
        let mut put_back = None;
        while let Ok(waiting) = self.receiver.try_recv() {
            let with_it = size.with(Size::of(&waiting.requests));
            if !with_it.fits() {
                put_back = Some(waiting);
                break;
            }
            size = with_it;
            batch.push(waiting);
        }
        self.gathering.take(size.events);
        (batch, put_back)
    }

    /// Commits a batch, answers it and publishes it if there is a place.
    async fn commit(&self, batch: Vec<Waiting>, place: Option<Place>) -> Committed {
        let mut room = Room::new(place.is_some().then_some(&*self.queue));
        let mut replies = Vec::with_capacity(batch.len());
        let mut events = Vec::new();
        for waiting in batch {
            replies.push((waiting.requests.len(), waiting.reply));
            events.extend(waiting.requests.into_iter().map(|request| room.lease(request)));
        }
        // Taken before the commit, so that the lease which the ledger grants never ends earlier.
        let lease_until_unix_ms =
            self.ledger.clock().now_unix_ms() + u64::try_from(LEASE.as_millis()).unwrap_or(u64::MAX);
        self.progress.begin();
        let begun = Instant::now();
        let answers = self.accept_all(&events).await;
        let took = begun.elapsed();
        let is_stored = !answers.contains(&Err(AcceptError::Unavailable));
        self.progress.end(is_stored);
        let is_crowd = is_crowd(events.iter().map(NewEvent::fanout_count));
        let fresh: Vec<NewEvent> = events
            .into_iter()
            .zip(&answers)
            .filter(|(event, answer)| is_new(answer) && !event.lease.is_zero())
            .map(|(event, _)| event)
            .collect();
        self.answer(replies, answers);
        if let Some(place) = place
            && !fresh.is_empty()
        {
            let publishing = self.publisher.publish(place, fresh, lease_until_unix_ms);
            // Meanwhile the next batch gathers: few large ones cost less than many small ones. Where there is little to do
            // nobody waits, and nowhere for long.
            if is_crowd {
                timeout(ACCEPT_PUBLISH_PATIENCE, publishing).await.ok();
            }
        }
        Committed { is_stored, is_crowd, took }
    }

    fn answer(&self, replies: Vec<(usize, oneshot::Sender<Vec<Answer>>)>, answers: Vec<Answer>) {
        let mut answers = answers.into_iter();
        for (count, reply) in replies {
            let answers: Vec<Answer> = answers.by_ref().take(count).collect();
            for receipt in answers.iter().flatten() {
                if receipt.repeated {
                    self.metrics.event_repeated();
                } else {
                    self.metrics.event_accepted(receipt.fanout_count);
                }
            }
            // The client may have gone; the event is stored all the same.
            let _ = reply.send(answers);
        }
    }

    /// Commits all events, but for those that the ledger refuses.
    async fn accept_all(&self, events: &[NewEvent]) -> Vec<Answer> {
        let Halved { answers, interrupted } = commit_halving(events, |slice| self.ledger.accept(slice)).await;
        let committed = answers.iter().filter(|answer| answer.is_ok()).count();
        if committed > 0 {
            self.metrics.accept_committed(committed);
        }
        if let Some(error) = interrupted {
            self.metrics.ledger_failed(Role::Ingest);
            tracing::warn!(%error, events = events.len() - answers.len(), "events could not be stored");
        }
        let mut answers: Vec<Answer> =
            events.iter().zip(answers).map(|(event, answer)| self.settle(event, answer)).collect();
        answers.resize(events.len(), Err(AcceptError::Unavailable));
        answers
    }

    fn settle(&self, event: &NewEvent, answer: Result<Accepted, LedgerError>) -> Answer {
        match answer {
            Ok(accepted) => receipt(event, &accepted),
            Err(error) => {
                self.metrics.ledger_failed(Role::Ingest);
                tracing::error!(%error, event = %event.event.id, "the ledger refuses an event: this is a defect, report it");
                Err(AcceptError::Refused)
            }
        }
    }
}

fn receipt(new: &NewEvent, accepted: &Accepted) -> Answer {
    match accepted {
        Accepted::New => Ok(Receipt { event_id: new.event.id, fanout_count: new.fanout_count(), repeated: false }),
        Accepted::Repeated { event, fanout_count } => {
            Ok(Receipt { event_id: *event, fanout_count: *fanout_count, repeated: true })
        }
        Accepted::Conflict => Err(AcceptError::Conflict),
    }
}

/// Whether the ledger answers within a moment.
async fn answers(ledger: &dyn Ledger) -> bool {
    matches!(timeout(ACCEPT_LEDGER_LOOK_TIMEOUT, ledger.ping()).await, Ok(Ok(())))
}

fn is_new(answer: &Answer) -> bool {
    answer.is_ok_and(|receipt| !receipt.repeated)
}

#[cfg(test)]
mod tests;
