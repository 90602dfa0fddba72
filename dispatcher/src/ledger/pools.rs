//! What is known of pools: what they have to do, what they get done, and what is told of it to autoscalers.

use std::collections::BTreeMap;
use std::time::Duration;

use dispatcher_core::limits::POOL_RATES_PERIOD;

use super::{Accepted, NewEvent};

/// What a pool has to do, and gets done. Counts look at
/// [`POOL_LOAD_ROWS_MAX`](dispatcher_core::limits::POOL_LOAD_ROWS_MAX) rows of each kind at most: beyond that it is only
/// known that there is more.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PoolLoad {
    /// The pool.
    pub pool: String,
    /// Deliveries that are late and wait behind no gate: parts of events whose lease is over, and what is due to endpoints
    /// whose gate is open, no more than their quota lets through; and what was late until it was claimed, and is on the
    /// queue by now: of a backlog that is longer than a lease, all may be there for a moment.
    pub due: u64,
    /// Deliveries of parts that a message or a dispatcher holds.
    pub held: u64,
    /// All deliveries that are not finished, those behind a gate too.
    pub open: u64,
    /// Whether there are more than were counted.
    pub is_more: bool,
    /// Deliveries accepted a second, over
    /// [`POOL_RATES_WINDOW`](dispatcher_core::limits::POOL_RATES_WINDOW).
    pub accepted_per_second: f64,
    /// Attempts a second that say something of the endpoint, over the same time.
    pub attempts_per_second: f64,
    /// Of these, 2xx.
    pub delivered_per_second: f64,
}

/// What autoscalers are told of a pool.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolMetric {
    /// The pool.
    pub pool: String,
    /// Deliveries that are late and wait behind no gate.
    pub backlog: u64,
    /// Deliveries accepted a second.
    pub arrival_per_second: f64,
    /// Deliveries that succeeded a second.
    pub delivery_per_second: f64,
    /// Dispatchers that the load asks for, within the pool's bounds.
    pub wanted_replicas: u32,
}

/// Counts of a pool's periods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PoolCounts {
    pub(super) accepted: u64,
    pub(super) attempts: u64,
    pub(super) delivered: u64,
}

impl PoolLoad {
    /// Sets the rates from counts of `seconds`.
    pub(super) fn set_rates(&mut self, counts: PoolCounts, seconds: f64) {
        #[expect(clippy::cast_precision_loss, reason = "a rate")]
        let rate = |count: u64| count as f64 / seconds.max(1.0);
        self.accepted_per_second = rate(counts.accepted);
        self.attempts_per_second = rate(counts.attempts);
        self.delivered_per_second = rate(counts.delivered);
    }
}

/// Deliveries of new events, by pool.
pub(super) fn count_accepted(events: &[NewEvent], answers: &[Accepted]) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    let accepted = events.iter().zip(answers).filter(|(_, answer)| **answer == Accepted::New);
    for part in accepted.flat_map(|(new, _)| &new.parts) {
        let targets = part.targets.len() as u64;
        match counts.get_mut(&part.pool) {
            Some(count) => *count += targets,
            None => drop(counts.insert(part.pool.clone(), targets)),
        }
    }
    counts
}

/// The first period of a window that ends now, and the seconds from its beginning until now; the window is rounded up to
/// whole periods. Both times are in milliseconds since the Unix epoch.
pub(super) fn first_period(now_ms: u64, window: Duration) -> (u64, f64) {
    let (period_ms, window_ms) = (POOL_RATES_PERIOD.as_millis(), window.as_millis());
    let first = u128::from(now_ms).saturating_sub(window_ms) / period_ms;
    let elapsed = u128::from(now_ms).saturating_sub(first * period_ms);
    let elapsed = Duration::from_millis(u64::try_from(elapsed).unwrap_or(u64::MAX));
    (u64::try_from(first).unwrap_or(u64::MAX), elapsed.as_secs_f64())
}

/// The period that a time in milliseconds since the Unix epoch lies in.
pub(super) fn period_of(now_ms: u64) -> u64 {
    first_period(now_ms, Duration::ZERO).0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_rounded_up_to_whole_periods() {
        let seconds = |seconds| Duration::from_secs(seconds);
        for (now_ms, window, expected) in [
            (100_000, seconds(30), (14, 30.0)),
            (104_999, seconds(30), (14, 34.999)),
            (105_000, seconds(30), (15, 30.0)),
            (4_000, seconds(30), (0, 4.0)),
        ] {
            assert_eq!(first_period(now_ms, window), expected, "{now_ms}");
        }
        assert_eq!(period_of(104_999), 20);
    }
}
