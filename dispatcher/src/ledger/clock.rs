//! The ledger's clock, as far as a process knows it.
//!
//! Identities carry the time at which they were made, and leases end at times of the ledger's: a process whose own
//! clock is wrong must not make either by it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use dispatcher_core::limits::CLOCK_OFFSET_MAX;

use crate::clock::now_unix_ms;

/// A process's clock and how far the ledger's is ahead of it; cheap to clone, and all clones know the same.
#[derive(Clone, Debug)]
pub struct LedgerClock {
    wall: fn() -> u64,
    offset_ms: Arc<AtomicI64>,
}

impl Default for LedgerClock {
    /// The clock of this machine, until it is compared with the ledger's.
    fn default() -> Self {
        Self::new(now_unix_ms)
    }
}

impl LedgerClock {
    /// A clock over one that answers milliseconds since the Unix epoch.
    pub fn new(wall: fn() -> u64) -> Self {
        Self { wall, offset_ms: Arc::default() }
    }

    /// The ledger's time now, in milliseconds since the Unix epoch.
    pub fn now_unix_ms(&self) -> u64 {
        self.wall_unix_ms().saturating_add_signed(self.offset_ms())
    }

    /// Milliseconds that the ledger's clock is ahead of the process's; negative if it is behind.
    pub fn offset_ms(&self) -> i64 {
        self.offset_ms.load(Ordering::Relaxed)
    }

    /// The process's own time now, in milliseconds since the Unix epoch.
    pub(super) fn wall_unix_ms(&self) -> u64 {
        (self.wall)()
    }

    /// Compares: the ledger's clock showed `ledger_unix_ms` between the process's times `asked_unix_ms` and now.
    /// What the ledger said is taken to be of the middle; of an answer that took long nothing is learned. Answers the
    /// offset that is in use from now on.
    pub(super) fn compare(&self, asked_unix_ms: u64, ledger_unix_ms: u64) -> i64 {
        let told_unix_ms = self.wall_unix_ms();
        let took_ms = told_unix_ms.checked_sub(asked_unix_ms);
        if took_ms.is_some_and(|ms| Duration::from_millis(ms) <= CLOCK_OFFSET_MAX) {
            let middle_ms = asked_unix_ms.midpoint(told_unix_ms);
            let offset_ms = ledger_unix_ms.checked_signed_diff(middle_ms).unwrap_or_default();
            self.offset_ms.store(offset_ms, Ordering::Relaxed);
        }
        self.offset_ms()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_clock_shows_the_ledgers_time_once_it_is_compared() {
        const HOUR_MS: u64 = 3_600_000;
        for ledger_ms in [HOUR_MS, 5 * HOUR_MS, 9 * HOUR_MS] {
            let clock = LedgerClock::new(|| 5 * HOUR_MS);
            assert_eq!(clock.now_unix_ms(), 5 * HOUR_MS);
            let told = clock.clone();
            let offset_ms = clock.compare(5 * HOUR_MS - 20, ledger_ms);
            assert_eq!((told.offset_ms(), told.now_unix_ms()), (offset_ms, ledger_ms + 10));
            for asked_ms in [4 * HOUR_MS, 6 * HOUR_MS] {
                assert_eq!(clock.compare(asked_ms, 1), offset_ms, "the answer came late, or the clock was set");
            }
        }
    }
}
