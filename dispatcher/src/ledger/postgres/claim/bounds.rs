//! What a claimer remembers of the outbox, so that it does not walk over dead rows again and again while an old
//! snapshot keeps them.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use dispatcher_core::limits::{OUTBOX_BOUND_LAG, OUTBOX_BOUND_LIFETIME};

use crate::ledger::postgres::encode::microseconds;

/// For each pool a time, in microseconds since the Unix epoch by the database's clock, before which no lease of the
/// outbox ends. It lags behind, for commits that are under way, and starts anew now and then, for those that take
/// longer than that.
#[derive(Default)]
pub(in crate::ledger::postgres) struct OutboxBounds(Mutex<HashMap<String, Bound>>);

struct Bound {
    us: i64,
    started: Instant,
}

impl OutboxBounds {
    /// The bound of a pool; zero if nothing is known.
    pub(super) fn of(&self, pool: &str) -> i64 {
        let mut bounds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if bounds.get(pool).is_some_and(|bound| bound.started.elapsed() > OUTBOX_BOUND_LIFETIME) {
            bounds.remove(pool);
        }
        bounds.get(pool).map_or(0, |bound| bound.us)
    }

    /// Takes note of when the first lease ends, if there is any, as seen at a time.
    pub(super) fn remember(&self, pool: &str, first_us: Option<i64>, now_us: i64) {
        let us = first_us.unwrap_or(i64::MAX).min(now_us - microseconds(OUTBOX_BOUND_LAG));
        let mut bounds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match bounds.get_mut(pool) {
            Some(bound) => bound.us = us,
            None => {
                bounds.insert(pool.to_owned(), Bound { us, started: Instant::now() });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_stays_before_the_first_lease_and_behind_the_clock() {
        let bounds = OutboxBounds::default();
        assert_eq!(bounds.of("a"), 0);
        let lag_us = microseconds(OUTBOX_BOUND_LAG);
        for (first_us, now_us, expected) in [
            (None, 100 * lag_us, 99 * lag_us),
            (Some(50 * lag_us), 101 * lag_us, 50 * lag_us),
            (Some(102 * lag_us), 102 * lag_us, 101 * lag_us),
            (None, 10 * lag_us, 9 * lag_us),
        ] {
            bounds.remember("a", first_us, now_us);
            assert_eq!(bounds.of("a"), expected);
        }
        assert_eq!(bounds.of("b"), 0);
    }
}
