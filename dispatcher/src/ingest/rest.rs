//! Rests of the writer between two batches: few large commits cost less than many small ones, for everybody.
//!
//! It rests where there is much to do, for as long as the last commit took. Where the producers are few and each waits for
//! its answer, nobody else can come: then a rest costs time and brings nothing, and the next ones are left out.

use std::sync::Arc;
use std::time::Duration;

use dispatcher_core::limits::{ACCEPT_CROWD_MIN, ACCEPT_REST_MAX, ACCEPT_RESTS_LEFT_OUT};
use tokio::time::Instant;

use crate::gathering::Gathering;

/// Whether a batch says that there is much to do. One event alone does not, to however many it goes.
pub(super) fn is_crowd(fanout_counts: impl Iterator<Item = u32>) -> bool {
    let (mut events, mut targets) = (0, 0);
    for fanout_count in fanout_counts {
        events += 1;
        targets += fanout_count as usize;
    }
    events >= ACCEPT_CROWD_MIN || (events > 1 && targets >= ACCEPT_CROWD_MIN)
}

/// When the writer may go on.
pub(super) struct Rest {
    gathering: Arc<Gathering>,
    until: Instant,
    /// Rests that are left out because one was in vain.
    left_out: u32,
}

impl Rest {
    pub(super) fn new(gathering: Arc<Gathering>) -> Self {
        Self { gathering, until: Instant::now(), left_out: 0 }
    }

    /// After a batch whose commit took so long. Only a crowd is followed by a rest.
    pub(super) fn after(&mut self, is_crowd: bool, took: Duration, now: Instant) {
        if is_crowd && self.left_out == 0 {
            self.until = now + took.min(ACCEPT_REST_MAX);
        } else if is_crowd {
            self.left_out -= 1;
        }
    }

    /// Rests, if it is time for that.
    pub(super) async fn take(&mut self) {
        if Instant::now() >= self.until {
            return;
        }
        let before = self.gathering.waiting();
        self.gathering.rest_until(self.until).await;
        let is_in_vain = Instant::now() >= self.until && self.gathering.waiting() <= before;
        if is_in_vain {
            self.left_out = ACCEPT_RESTS_LEFT_OUT;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    const COMMIT: Duration = Duration::from_millis(4);

    fn rests(rest: &mut Rest) -> bool {
        rest.take().now_or_never().is_none()
    }

    #[tokio::test]
    async fn a_crowd_is_followed_by_a_rest_and_one_in_vain_by_none_for_a_while() {
        let gathering = Arc::new(Gathering::new(8));
        let mut rest = Rest::new(Arc::clone(&gathering));
        // As if the commit had ended then: nothing here ends by itself.
        let far = Instant::now() + Duration::from_hours(1);
        assert!(!rests(&mut rest), "nothing was committed");
        rest.after(false, COMMIT, far);
        assert!(!rests(&mut rest), "there is little to do");
        rest.after(true, COMMIT, far);
        assert!(rests(&mut rest));
        assert_eq!(rest.until, far + COMMIT);
        gathering.add(8);
        assert!(!rests(&mut rest), "that is enough");
        gathering.take(8);
        rest.after(true, Duration::from_secs(9), far);
        assert_eq!(rest.until, far + ACCEPT_REST_MAX);

        rest.after(true, COMMIT, Instant::now() + Duration::from_secs(1));
        rest.take().await;
        for _ in 0..ACCEPT_RESTS_LEFT_OUT {
            rest.after(true, COMMIT, far);
            assert!(!rests(&mut rest), "one was in vain");
        }
        rest.after(true, COMMIT, far);
        assert!(rests(&mut rest), "things may have changed");
    }

    #[tokio::test]
    async fn a_rest_that_brought_something_is_followed_by_others() {
        let gathering = Arc::new(Gathering::new(8));
        let mut rest = Rest::new(Arc::clone(&gathering));
        rest.after(true, COMMIT, Instant::now() + Duration::from_millis(100));
        let mut resting = Box::pin(rest.take());
        assert!((&mut resting).now_or_never().is_none());
        gathering.add(1);
        resting.await;
        rest.after(true, COMMIT, Instant::now() + Duration::from_hours(1));
        assert!(rests(&mut rest));
    }

    #[test]
    fn several_events_with_many_targets_are_a_crowd_and_one_alone_is_none() {
        for (fanout_counts, expected) in [
            (vec![0; 15], false),
            (vec![0; 16], true),
            (vec![8, 8], true),
            (vec![8, 7], false),
            (vec![4096], false),
            (vec![], false),
        ] {
            assert_eq!(is_crowd(fanout_counts.iter().copied()), expected, "{fanout_counts:?}");
        }
    }
}
