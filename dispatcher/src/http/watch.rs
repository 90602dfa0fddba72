//! Deadlines of exchanges, and how one does without a timer while somebody else watches over it.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Watches over an exchange for a while: until it ends, the exchange sets no timer for its deadline.
///
/// Whoever made it has a timer of their own. When that is over they end the watch and go on with the exchange, or drop it:
/// from then on it keeps its deadline by itself.
#[derive(Clone, Debug, Default)]
pub struct Watch(Arc<AtomicBool>);

impl Watch {
    /// Ends it. The exchange has to be polled once more after this, as whoever awaits it does.
    pub fn end(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn has_ended(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Waits for `work`, at most until the time is over. While it is watched over, somebody else sees to that.
pub(super) async fn within<T>(time: Duration, watch: Option<&Watch>, work: impl Future<Output = T>) -> Option<T> {
    let deadline = Instant::now() + time;
    let mut work = pin!(work);
    let mut timer = None;
    std::future::poll_fn(|context| {
        if let Poll::Ready(done) = work.as_mut().poll(context) {
            return Poll::Ready(Some(done));
        }
        if timer.is_none() && watch.is_some_and(|watch| !watch.has_ended()) {
            return Poll::Pending;
        }
        let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        timer.as_mut().poll(context).map(|()| None)
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use futures::FutureExt;

    use super::*;

    const DEADLINE: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn nobody_waits_beyond_the_deadline_and_whoever_is_watched_over_not_beyond_it_either_once_that_has_ended() {
        assert_eq!(within(DEADLINE, None, async { 7 }).await, Some(7));
        assert_eq!(within(DEADLINE, None, pending::<()>()).await, None);

        let watch = Watch::default();
        let mut watched = Box::pin(within(DEADLINE, Some(&watch), pending::<()>()));
        // As long as the watch lasts nothing ends it, and nothing wakes it.
        let longer = tokio::time::timeout(DEADLINE * 5, &mut watched).await;
        assert!(longer.is_err());
        watch.end();
        // Its deadline has passed meanwhile.
        assert_eq!((&mut watched).now_or_never(), Some(None));

        let watch = Watch::default();
        let mut watched = Box::pin(within(DEADLINE, Some(&watch), pending::<()>()));
        assert!((&mut watched).now_or_never().is_none());
        watch.end();
        assert_eq!(watched.await, None, "it wakes by itself");
    }
}
