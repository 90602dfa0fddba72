//! The ledger's clock, as far as a process knows it.
//!
//! Identities carry the time at which they were made, and leases end at times of the ledger's: a process whose own
//! clock is wrong must not make either by it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use dispatcher_core::limits::CLOCK_OFFSET_MAX;

use crate::clock::now_unix_ms;

/// What a process knows of the ledger's clock; cheap to clone, and all clones know the same.
///
/// Once it has been compared, time goes on from what the ledger said by the machine's steady clock: a wall clock that
/// is set changes nothing but the offset.
#[derive(Clone, Debug)]
pub struct LedgerClock {
    wall: fn() -> u64,
    began: Instant,
    /// What the ledger's clock showed when this one began; zero before they were compared.
    began_unix_ms: Arc<AtomicU64>,
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
        Self { wall, began: Instant::now(), began_unix_ms: Arc::default() }
    }

    /// The ledger's time now, in milliseconds since the Unix epoch.
    pub fn now_unix_ms(&self) -> u64 {
        self.unix_ms_at(Instant::now())
    }

    /// Milliseconds that the ledger's clock is ahead of the process's wall clock now; negative if it is behind.
    pub fn offset_ms(&self) -> i64 {
        match self.began_unix_ms.load(Ordering::Relaxed) {
            0 => 0,
            _ => self.now_unix_ms().checked_signed_diff((self.wall)()).unwrap_or_default(),
        }
    }

    /// Compares: the ledger's clock showed `ledger_unix_ms` between `asked` and `told`. What the ledger said is taken to
    /// be of the middle; of an answer that took long nothing is learned.
    pub(super) fn compare(&self, asked: Instant, told: Instant, ledger_unix_ms: u64) {
        let took = told.saturating_duration_since(asked);
        if took <= CLOCK_OFFSET_MAX {
            let since_began_ms = self.since_began_ms(asked + took / 2);
            self.began_unix_ms.store(ledger_unix_ms.saturating_sub(since_began_ms), Ordering::Relaxed);
        }
    }

    fn unix_ms_at(&self, now: Instant) -> u64 {
        match self.began_unix_ms.load(Ordering::Relaxed) {
            0 => (self.wall)(),
            began_unix_ms => began_unix_ms + self.since_began_ms(now),
        }
    }

    fn since_began_ms(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.began).as_millis()).unwrap_or(u64::MAX / 2)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const HOUR_MS: u64 = 3_600_000;

    #[test]
    fn a_wrong_clock_shows_the_ledgers_time_once_it_is_compared() {
        let after = |ms| Duration::from_millis(ms);
        for ledger_ms in [HOUR_MS, 5 * HOUR_MS, 9 * HOUR_MS] {
            let clock = LedgerClock::new(|| 5 * HOUR_MS);
            assert_eq!((clock.now_unix_ms(), clock.offset_ms()), (5 * HOUR_MS, 0));
            let (told_too, asked) = (clock.clone(), clock.began + after(1_000));
            clock.compare(asked, asked + after(20), ledger_ms);
            assert_eq!(told_too.unix_ms_at(asked + after(20)), ledger_ms + 10);
            clock.compare(asked, asked + CLOCK_OFFSET_MAX + after(1), 1);
            assert_eq!(told_too.unix_ms_at(asked + after(20)), ledger_ms + 10, "the answer took long");
        }
    }

    #[test]
    fn a_wall_clock_that_is_set_after_it_was_compared_changes_the_offset_alone() {
        static WALL_UNIX_MS: AtomicU64 = AtomicU64::new(5 * HOUR_MS);
        let clock = LedgerClock::new(|| WALL_UNIX_MS.load(Ordering::Relaxed));
        clock.compare(clock.began, clock.began, 5 * HOUR_MS);
        for wall_ms in [5 * HOUR_MS, HOUR_MS, 9 * HOUR_MS] {
            WALL_UNIX_MS.store(wall_ms, Ordering::Relaxed);
            assert_eq!(clock.unix_ms_at(clock.began + Duration::from_secs(7)), 5 * HOUR_MS + 7_000);
            let expected_ms = (5 * HOUR_MS).checked_signed_diff(wall_ms).unwrap();
            assert!(clock.offset_ms().abs_diff(expected_ms) < HOUR_MS / 2, "{} {expected_ms}", clock.offset_ms());
        }
    }
}
