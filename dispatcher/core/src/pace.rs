//! Rate limits: the generic cell rate algorithm (ITU-T I.371), a token bucket whose whole state is one time.

use std::time::Duration;

use crate::table::RateLimit;

const NANOSECONDS_PER_MS: u128 = 1_000_000;
const NANOSECONDS_PER_SECOND: u128 = 1_000_000_000;

/// A token bucket: `burst` at once, `per_second` in the long run.
///
/// Over any interval of `t` seconds at most `burst + per_second * t` requests go.
#[derive(Clone, Debug)]
#[expect(clippy::struct_field_names, reason = "the unit belongs in the name")]
pub struct Pace {
    /// Between two requests at the steady rate.
    interval_ns: u128,
    /// How far ahead of the steady rate a burst may run.
    tolerance_ns: u128,
    /// When the next request is due at the steady rate: the theoretical arrival time.
    arrival_ns: u128,
}

impl Pace {
    /// A full bucket. A rate or burst of zero, which validation refuses, counts as one.
    pub fn new(limit: RateLimit) -> Self {
        // Rounded up: the promise is an upper bound.
        Self::of(NANOSECONDS_PER_SECOND.div_ceil(limit.per_second.max(1).into()), limit.burst)
    }

    /// A full bucket of `burst` into which a token falls each `interval`, for rates below one a second.
    pub fn every(interval: Duration, burst: u32) -> Self {
        Self::of(interval.as_nanos().max(1), burst)
    }

    fn of(interval_ns: u128, burst: u32) -> Self {
        Self { interval_ns, tolerance_ns: interval_ns * u128::from(burst.max(1) - 1), arrival_ns: 0 }
    }

    /// Takes a token, or says how long until there is one (rounded up to whole milliseconds).
    ///
    /// `now_ms` is in milliseconds of any clock. When it jumps back, the wait is no longer than filling the
    /// whole bucket takes.
    pub fn take(&mut self, now_ms: u64) -> Result<(), Duration> {
        let present_ns = u128::from(now_ms) * NANOSECONDS_PER_MS;
        let fullest_ns = present_ns + self.tolerance_ns + self.interval_ns;
        let arrival_ns = self.arrival_ns.clamp(present_ns, fullest_ns);
        let early_ns = arrival_ns - present_ns;
        if early_ns > self.tolerance_ns {
            self.arrival_ns = arrival_ns;
            let wait_ms = (early_ns - self.tolerance_ns).div_ceil(NANOSECONDS_PER_MS);
            return Err(Duration::from_millis(u64::try_from(wait_ms).unwrap_or(u64::MAX)));
        }
        self.arrival_ns = arrival_ns + self.interval_ns;
        Ok(())
    }

    /// Gives back a token that was taken and not used.
    pub fn give_back(&mut self) {
        self.arrival_ns = self.arrival_ns.saturating_sub(self.interval_ns);
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn pace(per_second: u32, burst: u32) -> Pace {
        Pace::new(RateLimit { per_second, burst })
    }

    #[test]
    fn a_burst_goes_at_once_and_then_the_rate_holds() {
        let mut pace = pace(10, 3);
        let taken = [0, 0, 0, 0, 99, 100, 100, 400, 400, 400, 400].map(|offset_ms| pace.take(1_000 + offset_ms));
        let wait = |ms| Err(Duration::from_millis(ms));
        let (go, now) = (Ok(()), [wait(100), wait(1), wait(100), wait(100)]);
        assert_eq!(taken, [go, go, go, now[0], now[1], go, now[2], go, go, go, now[3]]);
    }

    #[test]
    fn a_rate_below_one_a_second_is_an_interval() {
        let mut pace = Pace::every(Duration::from_mins(1), 2);
        let wait = |seconds| Err(Duration::from_secs(seconds));
        let taken = [0, 0, 0, 30, 60, 60].map(|seconds| pace.take(seconds * 1_000));
        assert_eq!(taken, [Ok(()), Ok(()), wait(60), wait(30), Ok(()), wait(60)]);
    }

    #[test]
    fn a_token_that_was_given_back_can_be_taken_again() {
        let mut pace = pace(10, 2);
        assert_eq!(pace.take(1_000), Ok(()));
        for _ in 0..5 {
            assert_eq!(pace.take(1_000), Ok(()));
            pace.give_back();
        }
        assert_eq!(pace.take(1_000), Ok(()));
        assert_eq!(pace.take(1_000), Err(Duration::from_millis(100)));
    }

    #[test]
    fn a_clock_that_jumps_back_stops_nothing_for_longer_than_the_bucket() {
        let mut pace = pace(10, 2);
        assert_eq!(pace.take(1_000_000_000), Ok(()));
        assert_eq!(pace.take(5), Err(Duration::from_millis(100)));
        assert_eq!(pace.take(105), Ok(()));
    }

    proptest! {
        #[test]
        fn over_any_interval_at_most_burst_and_rate_go(
            per_second in 1_u32..2_000,
            burst in 1_u32..50,
            steps_ms in vec(0_u64..40, 1..300),
        ) {
            let mut pace = pace(per_second, burst);
            let mut now_ms = 1_700_000_000_000;
            let mut gone = Vec::new();
            for step_ms in steps_ms {
                now_ms += step_ms;
                if pace.take(now_ms).is_ok() {
                    gone.push(now_ms);
                }
            }
            for (first, start_ms) in gone.iter().enumerate() {
                for (count, end_ms) in (1_u64..).zip(&gone[first..]) {
                    let thousandths = u64::from(burst) * 1_000 + u64::from(per_second) * (end_ms - start_ms);
                    prop_assert!(count * 1_000 <= thousandths, "{} in {} ms", count, end_ms - start_ms);
                }
            }
        }

        #[test]
        fn after_the_wait_it_told_a_request_goes(
            per_second in 1_u32..2_000,
            burst in 1_u32..50,
            steps_ms in vec(0_u64..40, 1..300),
        ) {
            let mut pace = pace(per_second, burst);
            let mut now_ms = 1_700_000_000_000;
            for step_ms in steps_ms {
                now_ms += step_ms;
                if let Err(wait) = pace.take(now_ms) {
                    prop_assert!(wait > Duration::ZERO && wait <= Duration::from_secs(1));
                    now_ms += u64::try_from(wait.as_millis()).unwrap();
                    prop_assert_eq!(pace.take(now_ms), Ok(()));
                }
            }
        }
    }
}
