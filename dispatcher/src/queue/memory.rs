//! The in-process queue: bounded, lost with the process, which the ledger's leases make good.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use dispatcher_core::limits::{FRESH_MESSAGES_IN_A_ROW_MAX, MEMORY_QUEUE_DELIVERIES_MAX, MESSAGE_DELIVERIES_MAX};
use tokio::sync::Notify;

use super::{Acknowledge, Consumer, Message, PublishError, Queue, QueueError, Received, Track};

/// A queue between the tasks of one process.
///
/// Each pool has two tracks of at most `messages_max` messages. A message that was received and not acknowledged
/// goes back to the front of its track, marked as redelivered, whatever the bound: it was within it before.
///
/// Fresh messages come first, but not without end: after [`FRESH_MESSAGES_IN_A_ROW_MAX`] of them a due one has its turn.
pub struct MemoryQueue {
    messages_max: usize,
    pools: Mutex<HashMap<String, Arc<Pool>>>,
    closed: Arc<Mutex<bool>>,
}

impl MemoryQueue {
    /// An empty queue with at most `messages_max` waiting messages in each track of each pool.
    pub fn new(messages_max: usize) -> Self {
        Self { messages_max, pools: Mutex::default(), closed: Arc::default() }
    }

    /// Takes no further messages. Consumers receive what waits and then see the end.
    pub fn close(&self) {
        *lock(&self.closed) = true;
        for pool in lock(&self.pools).values() {
            pool.changed.notify_waiters();
        }
    }

    fn pool(&self, name: &str) -> Arc<Pool> {
        let mut pools = lock(&self.pools);
        if let Some(pool) = pools.get(name) {
            return Arc::clone(pool);
        }
        let pool =
            Arc::new(Pool { closed: Arc::clone(&self.closed), waiting: Mutex::default(), changed: Notify::new() });
        pools.insert(name.to_owned(), Arc::clone(&pool));
        pool
    }
}

#[async_trait]
impl Queue for MemoryQueue {
    async fn publish(&self, pool: &str, track: Track, messages: Vec<Message>) -> Vec<Result<(), PublishError>> {
        let pool = self.pool(pool);
        let mut waiting = lock(&pool.waiting);
        if *lock(&self.closed) {
            return vec![Err(PublishError::Unavailable); messages.len()];
        }
        let line = waiting.line(track);
        let results = messages
            .into_iter()
            .map(|message| {
                if line.len() >= self.messages_max {
                    return Err(PublishError::Full);
                }
                line.push_back(Waiting { message, delivery_count: 0 });
                Ok(())
            })
            .collect();
        drop(waiting);
        pool.changed.notify_waiters();
        results
    }

    fn room(&self, pool: &str, track: Track) -> usize {
        let pool = self.pool(pool);
        let mut waiting = lock(&pool.waiting);
        let line = waiting.line(track);
        let free_messages = self.messages_max.saturating_sub(line.len());
        let deliveries: usize = line.iter().map(|waiting| waiting.message.deliveries()).sum();
        (free_messages * MESSAGE_DELIVERIES_MAX).min(MEMORY_QUEUE_DELIVERIES_MAX.saturating_sub(deliveries))
    }

    fn is_connected(&self) -> bool {
        true
    }

    fn waiting(&self, pool: &str) -> u64 {
        let pool = self.pool(pool);
        let waiting = lock(&pool.waiting);
        (waiting.fresh.len() + waiting.due.len()) as u64
    }

    async fn consume(&self, pool: &str, deliveries_max: usize) -> Result<Box<dyn Consumer>, QueueError> {
        let held = Arc::new(Held { pool: self.pool(pool), unacknowledged: Mutex::default() });
        Ok(Box::new(MemoryConsumer { held, deliveries_max }))
    }
}

/// The two tracks of a pool.
struct Pool {
    closed: Arc<Mutex<bool>>,
    waiting: Mutex<Tracks>,
    /// Notified after every change that a waiting consumer could be waiting for.
    changed: Notify,
}

#[derive(Default)]
struct Tracks {
    fresh: VecDeque<Waiting>,
    due: VecDeque<Waiting>,
    /// Fresh messages that were taken since a due one was, while due ones waited.
    fresh_in_a_row: u32,
}

#[derive(Clone)]
struct Waiting {
    message: Message,
    /// How often it was received and given back.
    delivery_count: u32,
}

impl Tracks {
    fn line(&mut self, track: Track) -> &mut VecDeque<Waiting> {
        match track {
            Track::Fresh => &mut self.fresh,
            Track::Due => &mut self.due,
        }
    }

    fn pop(&mut self) -> Option<(Track, Waiting)> {
        let due_first = self.fresh_in_a_row >= FRESH_MESSAGES_IN_A_ROW_MAX;
        let order = if due_first { [Track::Due, Track::Fresh] } else { [Track::Fresh, Track::Due] };
        let taken = order.into_iter().find_map(|track| Some((track, self.line(track).pop_front()?)))?;
        let passed_over = taken.0 == Track::Fresh && !self.due.is_empty();
        self.fresh_in_a_row = if passed_over { self.fresh_in_a_row + 1 } else { 0 };
        Some(taken)
    }
}

/// What one consumer has received and not acknowledged.
struct Held {
    pool: Arc<Pool>,
    unacknowledged: Mutex<Unacknowledged>,
}

#[derive(Default)]
struct Unacknowledged {
    next_tag: u64,
    deliveries: usize,
    by_tag: HashMap<u64, (Track, Waiting)>,
}

enum Step {
    Received(Received),
    Wait,
    Closed,
}

impl Held {
    /// Receives without waiting. The locks are taken in the order: tracks, then what is held.
    fn try_receive(self: &Arc<Self>, deliveries_max: usize) -> Step {
        let mut waiting = lock(&self.pool.waiting);
        let mut unacknowledged = lock(&self.unacknowledged);
        if unacknowledged.deliveries >= deliveries_max && unacknowledged.deliveries > 0 {
            return Step::Wait;
        }
        let Some((track, received)) = waiting.pop() else {
            return if *lock(&self.pool.closed) { Step::Closed } else { Step::Wait };
        };
        let tag = unacknowledged.next_tag;
        unacknowledged.next_tag += 1;
        let Waiting { message, delivery_count } = received.clone();
        unacknowledged.deliveries += message.deliveries();
        unacknowledged.by_tag.insert(tag, (track, received));
        let ack = Box::new(Tag { tag, held: Arc::clone(self) });
        Step::Received(Received { message, redelivered: delivery_count > 0, delivery_count, ack })
    }

    fn forget(&self, tag: u64) -> Option<(Track, Waiting)> {
        let mut unacknowledged = lock(&self.unacknowledged);
        let (track, received) = unacknowledged.by_tag.remove(&tag)?;
        unacknowledged.deliveries -= received.message.deliveries();
        drop(unacknowledged);
        self.pool.changed.notify_waiters();
        Some((track, received))
    }

    fn give_back(&self, track: Track, received: Waiting) {
        let again = Waiting { delivery_count: received.delivery_count + 1, ..received };
        lock(&self.pool.waiting).line(track).push_front(again);
        self.pool.changed.notify_waiters();
    }
}

struct MemoryConsumer {
    held: Arc<Held>,
    deliveries_max: usize,
}

#[async_trait]
impl Consumer for MemoryConsumer {
    async fn next(&mut self) -> Result<Option<Received>, QueueError> {
        loop {
            // Registered before the look, so that a change between the look and the wait is not missed.
            let mut changed = std::pin::pin!(self.held.pool.changed.notified());
            changed.as_mut().enable();
            match self.held.try_receive(self.deliveries_max) {
                Step::Received(received) => return Ok(Some(received)),
                Step::Closed => return Ok(None),
                Step::Wait => changed.await,
            }
        }
    }
}

impl Drop for MemoryConsumer {
    fn drop(&mut self) {
        let mut tags: Vec<u64> = lock(&self.held.unacknowledged).by_tag.keys().copied().collect();
        tags.sort_unstable_by(|a, b| b.cmp(a));
        for tag in tags {
            if let Some((track, received)) = self.held.forget(tag) {
                self.held.give_back(track, received);
            }
        }
    }
}

/// A receipt. Dropped without being acknowledged, it gives the message back.
struct Tag {
    tag: u64,
    held: Arc<Held>,
}

impl Acknowledge for Tag {
    fn acknowledge(self: Box<Self>) {
        self.held.forget(self.tag);
    }
}

impl Drop for Tag {
    fn drop(&mut self) {
        // After an acknowledgement, or after the consumer has gone, there is nothing left to give back.
        if let Some((track, received)) = self.held.forget(self.tag) {
            self.held.give_back(track, received);
        }
    }
}

/// No code panics while it holds one of these locks, so a poisoned one is still consistent.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
