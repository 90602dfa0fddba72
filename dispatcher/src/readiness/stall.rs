//! Tells work that gets done from work that only waits.

use std::time::Duration;

use dispatcher_core::limits::UNPUBLISHED_MEMORY;

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

/// Tells whether claimed work waits to be published, from counts that only rise.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unpublished {
    claimed: u64,
    /// When something was claimed last.
    claimed_at: Duration,
    published: u64,
    /// What had been claimed when something was published last.
    claimed_at_publish: u64,
}

impl Unpublished {
    /// Takes a sample; `now` as in [`Stall::sample`]. What was claimed long ago and not published is not waited for:
    /// its lease is over, and whoever claims it again publishes it, which may be another process.
    pub fn sample(&mut self, now: Duration, claimed: u64, published: u64) -> bool {
        if claimed != self.claimed {
            (self.claimed, self.claimed_at) = (claimed, now);
        }
        if published != self.published {
            (self.published, self.claimed_at_publish) = (published, claimed);
        }
        claimed > self.claimed_at_publish && now.saturating_sub(self.claimed_at) < UNPUBLISHED_MEMORY
    }
}
