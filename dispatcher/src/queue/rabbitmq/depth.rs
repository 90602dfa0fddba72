//! How deep a queue of the broker is, and how deep it should be.

use std::time::Duration;

use dispatcher_core::limits::{MESSAGE_DELIVERIES_MAX, QUEUE_DELIVERIES_MAX, QUEUE_DELIVERIES_MIN, QUEUE_HORIZON};

/// A running average in which a new sample has a weight of three tenths.
fn mix(average: u64, sample: u64) -> u64 {
    (average * 7 + sample * 3) / 10
}

/// What one publisher knows about one queue.
///
/// The broker counts messages, and only when asked. In between, what this process published is added. How fast the
/// queue is emptied shows from two looks: what left it is what was there, and what we added, less what is there. Other
/// publishers add more than we know of, so this is a lower bound and several publishers together stay on the safe side.
#[derive(Debug, Default)]
pub(super) struct Depth {
    /// Messages that waited when the queue was looked at.
    seen_messages: u64,
    /// Confirmed messages of ours when that look began.
    confirmed_at_look: u64,
    /// When the look ended, on any clock that only goes forward.
    looked_at: Option<Duration>,
    /// Messages of ours that the broker has, or is about to have.
    sent_messages: u64,
    confirmed_messages: u64,
    /// Thousandths of a delivery in one message, on average.
    message_millis: Option<u64>,
    /// Deliveries that leave the queue in a second.
    drained_per_second: u64,
}

/// A look at the queue that is under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    confirmed_messages: u64,
}

impl Depth {
    /// A message is about to be published.
    pub(super) fn sending(&mut self, deliveries: usize) {
        self.sent_messages += 1;
        let sample = deliveries as u64 * 1000;
        self.message_millis = Some(self.message_millis.map_or(sample, |average| mix(average, sample)));
    }

    /// The broker has it.
    pub(super) fn confirmed(&mut self) {
        self.confirmed_messages += 1;
    }

    /// The broker has not taken it on, or nobody knows.
    pub(super) fn failed(&mut self) {
        self.sent_messages -= 1;
    }

    /// Begins a look at the queue.
    pub(super) fn look(&self) -> Look {
        Look { confirmed_messages: self.confirmed_messages }
    }

    /// Ends a look that has found `messages` waiting.
    pub(super) fn looked(&mut self, look: Look, messages: u32, now: Duration) {
        let messages = u64::from(messages);
        if let Some(before) = self.looked_at {
            let arrived = look.confirmed_messages - self.confirmed_at_look;
            let drained = (self.seen_messages + arrived).saturating_sub(messages);
            let elapsed_ms = u64::try_from(now.saturating_sub(before).as_millis()).unwrap_or(u64::MAX);
            // Thousandths of a delivery in a thousandth of a second are deliveries in a second.
            if let Some(per_second) = drained.saturating_mul(self.message_millis()).checked_div(elapsed_ms) {
                self.drained(per_second, messages > 0);
            }
        }
        self.seen_messages = messages;
        self.confirmed_at_look = look.confirmed_messages;
        self.looked_at = Some(now);
    }

    /// Messages that waited when the queue was looked at last.
    pub(super) fn seen(&self) -> u64 {
        self.seen_messages
    }

    /// Whether anything is in the queue, as far as is known.
    pub(super) fn is_busy(&self) -> bool {
        self.messages() > 0
    }

    /// When the last look ended.
    pub(super) fn looked_at(&self) -> Option<Duration> {
        self.looked_at
    }

    /// Room for this many further deliveries in a queue of at most `messages_max` messages.
    pub(super) fn room(&self, messages_max: u32) -> usize {
        let horizon_ms = u64::try_from(QUEUE_HORIZON.as_millis()).unwrap_or(u64::MAX);
        let horizon = to_usize(self.drained_per_second.saturating_mul(horizon_ms) / 1000);
        let wanted = horizon.clamp(QUEUE_DELIVERIES_MIN, QUEUE_DELIVERIES_MAX);
        let waiting = to_usize(self.messages().saturating_mul(self.message_millis()) / 1000);
        let free_messages = to_usize(u64::from(messages_max).saturating_sub(self.messages()));
        wanted.saturating_sub(waiting).min(free_messages.saturating_mul(MESSAGE_DELIVERIES_MAX))
    }

    /// A queue that was empty was emptied at least as fast as this; one that was not, exactly so.
    fn drained(&mut self, per_second: u64, was_backlogged: bool) {
        self.drained_per_second = if was_backlogged {
            mix(self.drained_per_second, per_second)
        } else {
            self.drained_per_second.max(per_second)
        };
    }

    fn messages(&self) -> u64 {
        self.seen_messages + self.sent_messages.saturating_sub(self.confirmed_at_look)
    }

    /// One delivery in each message, as long as nothing is known.
    fn message_millis(&self) -> u64 {
        self.message_millis.unwrap_or(1000)
    }
}

fn to_usize(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGES_MAX: u32 = 8192;

    fn publish(depth: &mut Depth, messages: usize, deliveries: usize) {
        for _ in 0..messages {
            depth.sending(deliveries);
            depth.confirmed();
        }
    }

    /// Publishes `messages` between each two of the looks, 100 ms apart, at which `waiting` are left.
    fn run(depth: &mut Depth, from_ms: u64, looks: u64, messages: usize, waiting: u32) -> u64 {
        for look in 1..=looks {
            publish(depth, messages, 10);
            depth.looked(depth.look(), waiting, Duration::from_millis(from_ms + look * 100));
        }
        from_ms + looks * 100
    }

    #[test]
    fn what_waits_and_what_is_on_its_way_takes_room() {
        let mut depth = Depth::default();
        assert_eq!(depth.room(MESSAGES_MAX), QUEUE_DELIVERIES_MIN);
        depth.sending(100);
        assert_eq!(depth.room(MESSAGES_MAX), QUEUE_DELIVERIES_MIN - 100);
        depth.failed();
        assert_eq!(depth.room(MESSAGES_MAX), QUEUE_DELIVERIES_MIN);
        publish(&mut depth, 2, 100);
        depth.looked(depth.look(), 2, Duration::from_millis(100));
        assert_eq!(depth.room(MESSAGES_MAX), QUEUE_DELIVERIES_MIN - 200);
        assert_eq!(depth.room(2), 0, "no message has room, however small");
    }

    #[test]
    fn what_is_published_during_a_look_still_takes_room_after_it() {
        let mut depth = Depth::default();
        let look = depth.look();
        publish(&mut depth, 3, 100);
        depth.looked(look, 0, Duration::from_millis(100));
        assert_eq!(depth.room(MESSAGES_MAX), QUEUE_DELIVERIES_MIN - 300);
    }

    #[test]
    fn a_queue_that_is_emptied_fast_may_be_deeper() {
        let mut depth = Depth::default();
        run(&mut depth, 0, 20, 100, 0);
        // 100 messages of 10 deliveries in each tenth of a second, and none waits: 10,000 a second, for 1.5 s.
        assert_eq!(depth.room(MESSAGES_MAX), 15_000);
    }

    #[test]
    fn a_queue_that_nobody_empties_any_more_becomes_shallow_again() {
        let mut depth = Depth::default();
        let now = run(&mut depth, 0, 20, 100, 0);
        publish(&mut depth, 50, 10);
        run(&mut depth, now, 40, 0, 50);
        assert_eq!(depth.room(MESSAGES_MAX), QUEUE_DELIVERIES_MIN - 500);
    }

    #[test]
    fn a_quiet_hour_does_not_forget_how_fast_the_queue_is_emptied() {
        let mut depth = Depth::default();
        let now = run(&mut depth, 0, 20, 100, 0);
        run(&mut depth, now, 100, 0, 0);
        assert_eq!(depth.room(MESSAGES_MAX), 15_000);
    }

    #[test]
    fn others_messages_take_room_but_do_not_look_like_a_slow_queue() {
        let mut depth = Depth::default();
        depth.looked(depth.look(), 0, Duration::from_millis(100));
        depth.looked(depth.look(), 600, Duration::from_millis(200));
        assert_eq!(depth.room(MESSAGES_MAX), QUEUE_DELIVERIES_MIN - 600);
        depth.looked(depth.look(), 2000, Duration::from_millis(300));
        assert_eq!(depth.room(MESSAGES_MAX), 0);
    }
}
