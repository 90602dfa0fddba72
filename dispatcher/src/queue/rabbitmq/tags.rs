//! What of a channel's deliveries is acknowledged, and how to say it to the broker in few words.

use std::collections::VecDeque;

/// The delivery tags of one channel, which count up from 1 (AMQP 0-9-1, 1.8.3.12 `basic.deliver`).
///
/// Deliveries are acknowledged in any order. Everything up to the lowest open tag is told in one word (`multiple`).
/// What is acknowledged beyond it waits for it, unless that becomes too much: then it is told one by one, so that a
/// slow message does not use up the prefetch window.
#[derive(Debug, Default)]
pub(super) struct Tags {
    /// Tags up to here are told.
    told: u64,
    /// The tags that follow `told`.
    following: VecDeque<Tag>,
    /// How many of them are [`Tag::Acknowledged`].
    acknowledged: usize,
    rejected: Vec<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tag {
    Open,
    Acknowledged,
    Told,
}

/// What is to be told to the broker, in this order: a rejection after `up_to` would come too late.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Settled {
    /// Tags to give back.
    pub(super) rejected: Vec<u64>,
    /// All tags up to this one are acknowledged.
    pub(super) up_to: Option<u64>,
    /// Tags to acknowledge one by one.
    pub(super) single: Vec<u64>,
}

impl Tags {
    /// The next delivery of the channel has arrived; answers its tag.
    pub(super) fn receive(&mut self, tag: u64) {
        // Tags arrive in order and without gaps; were there one, its tags would never be acknowledged by anybody else.
        while self.told + (self.following.len() as u64) < tag {
            self.following.push_back(Tag::Open);
        }
    }

    /// What was received under the tag is done.
    pub(super) fn acknowledge(&mut self, tag: u64) {
        if let Some(state @ Tag::Open) = self.state(tag) {
            *state = Tag::Acknowledged;
            self.acknowledged += 1;
        }
    }

    /// What was received under the tag is given back.
    pub(super) fn reject(&mut self, tag: u64) {
        if let Some(state @ Tag::Open) = self.state(tag) {
            *state = Tag::Told;
            self.rejected.push(tag);
        }
    }

    /// What to tell now. At most `waiting_max` acknowledged tags stay behind, to be told together with those below.
    pub(super) fn take(&mut self, waiting_max: usize) -> Settled {
        let mut settled = Settled { rejected: std::mem::take(&mut self.rejected), ..Settled::default() };
        while let Some(state @ (Tag::Acknowledged | Tag::Told)) = self.following.front() {
            if *state == Tag::Acknowledged {
                settled.up_to = Some(self.told + 1);
                self.acknowledged -= 1;
            }
            self.told += 1;
            self.following.pop_front();
        }
        if self.acknowledged > waiting_max {
            self.acknowledged = 0;
            for (tag, state) in (self.told + 1..).zip(&mut self.following) {
                if *state == Tag::Acknowledged {
                    *state = Tag::Told;
                    settled.single.push(tag);
                }
            }
        }
        settled
    }

    fn state(&mut self, tag: u64) -> Option<&mut Tag> {
        let index = usize::try_from(tag.checked_sub(self.told + 1)?).ok()?;
        self.following.get_mut(index)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn received(count: u64) -> Tags {
        let mut tags = Tags::default();
        (1..=count).for_each(|tag| tags.receive(tag));
        tags
    }

    #[test]
    fn one_acknowledgement_at_a_time_is_told_at_once() {
        let mut tags = received(2);
        for tag in 1..=2 {
            tags.acknowledge(tag);
            assert_eq!(tags.take(10), Settled { up_to: Some(tag), ..Settled::default() });
        }
    }

    #[test]
    fn what_is_done_in_order_is_told_in_one_word() {
        let mut tags = received(100);
        (1..=64).rev().for_each(|tag| tags.acknowledge(tag));
        assert_eq!(tags.take(0), Settled { up_to: Some(64), ..Settled::default() });
    }

    #[test]
    fn what_is_done_beyond_a_slow_message_waits_until_it_is_too_much() {
        let mut tags = received(10);
        for tag in [2, 4] {
            tags.acknowledge(tag);
        }
        assert_eq!(tags.take(2), Settled::default());
        tags.acknowledge(5);
        assert_eq!(tags.take(2), Settled { single: vec![2, 4, 5], ..Settled::default() });
        tags.acknowledge(1);
        tags.acknowledge(3);
        assert_eq!(tags.take(2), Settled { up_to: Some(3), ..Settled::default() });
    }

    #[test]
    fn a_rejected_tag_is_never_the_one_that_acknowledges_those_below() {
        let mut tags = received(3);
        tags.acknowledge(1);
        tags.reject(2);
        assert_eq!(tags.take(0), Settled { rejected: vec![2], up_to: Some(1), single: vec![] });
    }

    /// The broker's side: which tags are still open after what it was told.
    fn tell(open: &mut BTreeSet<u64>, rejected: &mut BTreeSet<u64>, settled: Settled) {
        for tag in settled.rejected {
            assert!(open.remove(&tag));
            rejected.insert(tag);
        }
        if let Some(up_to) = settled.up_to {
            assert!(open.contains(&up_to), "RabbitMQ closes the channel over a tag that is not open");
            open.retain(|tag| *tag > up_to);
        }
        for tag in settled.single {
            assert!(open.remove(&tag));
        }
    }

    proptest! {
        #[test]
        fn the_broker_learns_exactly_what_was_settled(
            steps in prop::collection::vec((0..4_u8, any::<prop::sample::Index>()), 0..200),
            waiting_max in 0..8_usize,
        ) {
            let mut tags = Tags::default();
            let (mut count, mut unsettled) = (0, BTreeSet::new());
            let (mut given_back, mut open, mut rejected) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
            for (step, index) in steps {
                let chosen = unsettled.iter().copied().nth(if unsettled.is_empty() { 0 } else { index.index(unsettled.len()) });
                match (step, chosen) {
                    (0, _) | (1 | 2, None) => {
                        count += 1;
                        tags.receive(count);
                        unsettled.insert(count);
                        open.insert(count);
                    }
                    (1, Some(tag)) => {
                        tags.acknowledge(tag);
                        tags.acknowledge(tag);
                        unsettled.remove(&tag);
                    }
                    (2, Some(tag)) => {
                        tags.reject(tag);
                        unsettled.remove(&tag);
                        given_back.insert(tag);
                    }
                    _ => {
                        tell(&mut open, &mut rejected, tags.take(waiting_max));
                        prop_assert!(open.len() <= unsettled.len() + waiting_max);
                        prop_assert!(unsettled.is_subset(&open));
                    }
                }
            }
            tell(&mut open, &mut rejected, tags.take(0));
            prop_assert_eq!(open, unsettled);
            prop_assert_eq!(rejected, given_back);
        }
    }
}
