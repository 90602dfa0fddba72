//! For how long the writer has been at work without getting anything stored.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dispatcher_core::limits::ACCEPT_FAILURE_MEMORY;
use tokio::time::Instant;

/// Watches the writer's commits.
pub(super) struct Progress {
    origin: Instant,
    commits: Mutex<Commits>,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self { origin: Instant::now(), commits: Mutex::default() }
    }

    /// A commit begins.
    pub(super) fn begin(&self) {
        self.commits().begin(self.origin.elapsed());
    }

    /// It has ended, and something is stored or not.
    pub(super) fn end(&self, is_stored: bool) {
        self.commits().end(self.origin.elapsed(), is_stored);
    }

    /// For how long nothing has been stored although something was to be; zero if all is well.
    pub(super) fn stalled_for(&self) -> Duration {
        self.commits().stalled_for(self.origin.elapsed())
    }

    /// No code panics while it holds the lock, so a poisoned one is still consistent.
    fn commits(&self) -> MutexGuard<'_, Commits> {
        self.commits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is remembered of commits; times are counted from any origin.
#[derive(Debug, Default)]
struct Commits {
    /// When the first commit began since the last one that stored something.
    since: Option<Duration>,
    /// When the last one failed, while none is under way.
    failed_at: Option<Duration>,
}

impl Commits {
    fn begin(&mut self, now: Duration) {
        if self.is_over(now) {
            *self = Self::default();
        }
        self.failed_at = None;
        self.since.get_or_insert(now);
    }

    fn end(&mut self, now: Duration, is_stored: bool) {
        if is_stored {
            *self = Self::default();
        } else {
            self.failed_at = Some(now);
        }
    }

    fn stalled_for(&self, now: Duration) -> Duration {
        match self.since {
            Some(since) if !self.is_over(now) => now.saturating_sub(since),
            _ => Duration::ZERO,
        }
    }

    /// Whether the last failure is too long ago to say anything.
    fn is_over(&self, now: Duration) -> bool {
        self.failed_at.is_some_and(|failed_at| now.saturating_sub(failed_at) >= ACCEPT_FAILURE_MEMORY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_stall_until_one_stores_something_or_the_last_failure_is_long_ago() {
        enum Step {
            Begin,
            Stored,
            Failed,
            Look(u64),
        }
        use Step::{Begin, Failed, Look, Stored};
        let memory = ACCEPT_FAILURE_MEMORY.as_secs();
        let mut commits = Commits::default();
        for (now, step) in [
            (0, Look(0)),
            (1, Begin),
            (4, Look(3)),
            (5, Stored),
            (6, Look(0)),
            (7, Begin),
            (10, Failed),
            (11, Look(4)),
            (12, Begin),
            (13, Look(6)),
            (14, Failed),
            (15, Begin),
            (16, Stored),
            (17, Look(0)),
            (20, Begin),
            (21, Failed),
            (20 + memory, Look(memory)),
            (21 + memory, Look(0)),
            (22 + memory, Begin),
            (24 + memory, Look(2)),
        ] {
            let at = Duration::from_secs(now);
            match step {
                Begin => commits.begin(at),
                Stored => commits.end(at, true),
                Failed => commits.end(at, false),
                Look(expected) => assert_eq!(commits.stalled_for(at).as_secs(), expected, "at {now}"),
            }
        }
    }
}
