//! How much waits for a writer that rests between two batches: few large batches cost less than many small ones.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// How much waits. A resting writer is woken once, when it is enough, and not for each piece of it.
pub(crate) struct Gathering {
    wanted: usize,
    waiting: AtomicUsize,
    enough: Notify,
}

impl Gathering {
    /// `wanted` is enough to go on without a rest.
    pub(crate) fn new(wanted: usize) -> Self {
        Self { wanted, waiting: AtomicUsize::new(0), enough: Notify::new() }
    }

    /// Something is about to wait; said before the writer can take it.
    pub(crate) fn add(&self, count: usize) {
        let before = self.waiting.fetch_add(count, Ordering::Relaxed);
        if before < self.wanted && before + count >= self.wanted {
            self.enough.notify_one();
        }
    }

    /// The writer has taken something.
    pub(crate) fn take(&self, count: usize) {
        self.waiting.fetch_sub(count, Ordering::Relaxed);
    }

    /// How much waits now.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Returns when enough waits, or at that time.
    pub(crate) async fn rest_until(&self, until: Instant) {
        // A timer, even one that is over, takes until the next millisecond.
        if until <= Instant::now() {
            return;
        }
        let enough = async {
            // A notice may be left of an earlier batch.
            while self.waiting() < self.wanted {
                self.enough.notified().await;
            }
        };
        timeout_at(until, enough).await.ok();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_rest_ends_with_enough_or_with_its_time_and_not_by_what_an_earlier_one_left() {
        let gathering = Gathering::new(3);
        let hour = || Instant::now() + Duration::from_hours(1);
        let mut rest = Box::pin(gathering.rest_until(hour()));
        gathering.add(2);
        assert!((&mut rest).now_or_never().is_none());
        gathering.add(1);
        assert!((&mut rest).now_or_never().is_some());
        drop(rest);

        gathering.add(1);
        assert!(gathering.rest_until(hour()).now_or_never().is_some(), "there is more than enough");
        gathering.take(2);
        gathering.add(1);
        gathering.take(3);
        assert!(gathering.rest_until(hour()).now_or_never().is_none(), "nothing is left, but for a notice");

        let begun = Instant::now();
        gathering.rest_until(begun + Duration::from_millis(5)).await;
        assert!(begun.elapsed() >= Duration::from_millis(5));
    }
}
