//! What a consumer has of the broker: received and not yet handed out, handed out and not yet acknowledged.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use tokio::sync::Notify;

use super::lock;
use super::tags::{Settled, Tags};
use crate::queue::{Acknowledge, Track};

/// Shared by the consumer, its task and its receipts.
#[derive(Default)]
pub(super) struct Held {
    state: Mutex<State>,
    /// Something may be there for the consumer.
    pub(super) arrived: Notify,
    /// Something may be there to tell the broker.
    pub(super) settled: Notify,
}

#[derive(Default)]
struct State {
    /// Counts the channels. A delivery tag means nothing on another channel than its own.
    channel: u64,
    /// Whether deliveries of this channel can still be acknowledged.
    is_open: bool,
    has_ended: bool,
    fresh: VecDeque<Arrived>,
    due: VecDeque<Arrived>,
    tags: Tags,
    /// Deliveries that are handed out, whatever became of their channel.
    deliveries: usize,
    message_deliveries: Average,
    message_bytes: Average,
}

/// A message as the broker sent it.
pub(super) struct Arrived {
    pub(super) tag: u64,
    pub(super) delivery_count: u32,
    pub(super) envelope: Bytes,
}

/// What is there for a consumer.
pub(super) enum Step {
    /// A message, and the channel it came by.
    Received(Arrived, u64),
    Wait,
    Ended,
}

impl Held {
    /// A channel was opened: tags begin anew.
    pub(super) fn open(&self) {
        let mut state = lock(&self.state);
        state.channel += 1;
        state.is_open = !state.has_ended;
        state.tags = Tags::default();
    }

    /// The channel is lost: what was received by it comes again, and nothing of it can be acknowledged.
    pub(super) fn lose(&self) {
        let mut state = lock(&self.state);
        state.is_open = false;
        state.fresh.clear();
        state.due.clear();
    }

    /// The end: nothing more is handed out or acknowledged. What is acknowledged already can still be told.
    pub(super) fn end(&self) {
        let mut state = lock(&self.state);
        state.has_ended = true;
        state.is_open = false;
        state.fresh.clear();
        state.due.clear();
        drop(state);
        self.arrived.notify_waiters();
    }

    pub(super) fn arrive(&self, track: Track, arrived: Arrived) {
        let mut state = lock(&self.state);
        state.tags.receive(arrived.tag);
        if state.is_open {
            state.message_bytes.add(arrived.envelope.len());
            state.line(track).push_back(arrived);
            drop(state);
            self.arrived.notify_waiters();
        }
    }

    /// Hands out a message without waiting, unless `deliveries_max` are handed out. One message is always allowed: it
    /// may be larger than the bound.
    pub(super) fn try_receive(&self, deliveries_max: usize) -> Step {
        let mut state = lock(&self.state);
        if state.has_ended {
            return Step::Ended;
        }
        if state.deliveries >= deliveries_max && state.deliveries > 0 {
            return Step::Wait;
        }
        let channel = state.channel;
        match [Track::Fresh, Track::Due].into_iter().find_map(|track| state.line(track).pop_front()) {
            Some(arrived) => Step::Received(arrived, channel),
            None => Step::Wait,
        }
    }

    /// A message was understood: its deliveries count until its receipt is gone.
    pub(super) fn receipt(self: &Arc<Self>, tag: u64, channel: u64, deliveries: usize) -> Box<dyn Acknowledge> {
        let mut state = lock(&self.state);
        state.deliveries += deliveries;
        state.message_deliveries.add(deliveries);
        Box::new(Receipt { held: Arc::clone(self), tag, channel, deliveries, is_settled: false })
    }

    /// A message was not understood: the broker may forget it.
    pub(super) fn discard(&self, tag: u64, channel: u64) {
        drop(self.settle(channel, |tags| tags.acknowledge(tag)));
    }

    /// What to tell the broker, see [`Tags::take`].
    pub(super) fn take_settled(&self, waiting_max: usize) -> Settled {
        lock(&self.state).tags.take(waiting_max)
    }

    /// Deliveries and bytes in one message, on average, as soon as there was one.
    pub(super) fn message_size(&self) -> Option<(usize, usize)> {
        let state = lock(&self.state);
        Some((state.message_deliveries.get()?, state.message_bytes.get()?))
    }

    fn settle(&self, channel: u64, settle: impl FnOnce(&mut Tags)) -> MutexGuard<'_, State> {
        let mut state = lock(&self.state);
        if state.is_open && state.channel == channel {
            settle(&mut state.tags);
            self.settled.notify_one();
        }
        state
    }
}

impl State {
    fn line(&mut self, track: Track) -> &mut VecDeque<Arrived> {
        match track {
            Track::Fresh => &mut self.fresh,
            Track::Due => &mut self.due,
        }
    }
}

/// A running average of whole numbers, in hundredths.
#[derive(Default)]
struct Average(Option<usize>);

impl Average {
    fn add(&mut self, value: usize) {
        self.0 = Some(self.0.map_or(value * 100, |average| (average * 9 + value * 100) / 10));
    }

    fn get(&self) -> Option<usize> {
        self.0.map(|average| average.div_ceil(100).max(1))
    }
}

/// The receipt of one message. Dropped without being acknowledged, it gives the message back.
struct Receipt {
    held: Arc<Held>,
    tag: u64,
    channel: u64,
    deliveries: usize,
    is_settled: bool,
}

impl Receipt {
    fn settle(&mut self, settle: impl FnOnce(&mut Tags)) {
        if !std::mem::replace(&mut self.is_settled, true) {
            self.held.settle(self.channel, settle).deliveries -= self.deliveries;
            self.held.arrived.notify_waiters();
        }
    }
}

impl Acknowledge for Receipt {
    fn acknowledge(mut self: Box<Self>) {
        let tag = self.tag;
        self.settle(|tags| tags.acknowledge(tag));
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        let tag = self.tag;
        self.settle(|tags| tags.reject(tag));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrived(tag: u64) -> Arrived {
        Arrived { tag, delivery_count: 0, envelope: Bytes::new() }
    }

    fn held(fresh: &[u64], due: &[u64]) -> Arc<Held> {
        let held = Arc::new(Held::default());
        held.open();
        for (track, tags) in [(Track::Due, due), (Track::Fresh, fresh)] {
            for tag in tags {
                held.arrive(track, arrived(*tag));
            }
        }
        held
    }

    fn receive(held: &Held, deliveries_max: usize) -> Option<u64> {
        match held.try_receive(deliveries_max) {
            Step::Received(arrived, _) => Some(arrived.tag),
            Step::Wait | Step::Ended => None,
        }
    }

    #[test]
    fn fresh_messages_come_before_due_ones_that_were_there_first() {
        let held = held(&[3, 4], &[1, 2]);
        assert_eq!([(); 5].map(|()| receive(&held, 1)), [Some(3), Some(4), Some(1), Some(2), None]);
    }

    #[test]
    fn the_bound_counts_deliveries_and_lets_one_large_message_pass() {
        let held = held(&[1, 2, 3], &[]);
        assert_eq!(receive(&held, 4), Some(1));
        let large = held.receipt(1, 1, 50);
        assert_eq!(receive(&held, 4), None);
        large.acknowledge();
        assert_eq!(receive(&held, 4), Some(2));
        let _small = held.receipt(2, 1, 3);
        assert_eq!(receive(&held, 4), Some(3));
    }

    #[test]
    fn a_receipt_of_a_lost_channel_settles_nothing_on_the_next() {
        let held = held(&[1], &[]);
        let receipts = [held.receipt(1, 1, 1), held.receipt(1, 1, 1)];
        held.lose();
        held.open();
        held.arrive(Track::Fresh, arrived(1));
        for receipt in receipts {
            receipt.acknowledge();
        }
        assert_eq!(held.take_settled(0), Settled::default());
        assert_eq!(receive(&held, 1), Some(1), "their deliveries count no more");
    }

    #[test]
    fn what_is_acknowledged_before_the_end_is_still_told_and_what_comes_later_is_not() {
        let held = held(&[1, 2], &[]);
        let (first, second) = (held.receipt(1, 1, 1), held.receipt(2, 1, 1));
        first.acknowledge();
        held.end();
        second.acknowledge();
        assert_eq!(held.take_settled(0), Settled { up_to: Some(1), ..Settled::default() });
        assert!(matches!(held.try_receive(1), Step::Ended));
    }
}
