//! Tells work that gets done from work that only waits.

use std::time::Duration;

/// Watches one kind of work by samples.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stall {
    /// When the work began of which nothing has got done since.
    since: Option<Duration>,
    done: u64,
}

impl Stall {
    /// Takes a sample, and answers for how long there has been work in every sample while `done`, a count that only
    /// rises, stood still. `now` is on any clock that only goes forward.
    pub fn sample(&mut self, now: Duration, has_work: bool, done: u64) -> Duration {
        if !has_work {
            *self = Self { since: None, done };
            return Duration::ZERO;
        }
        if done != self.done {
            *self = Self { since: Some(now), done };
        }
        now.saturating_sub(*self.since.get_or_insert(now))
    }
}
