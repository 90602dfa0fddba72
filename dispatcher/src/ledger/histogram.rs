//! Durations of attempts, counted in a fixed row of buckets.

use std::collections::BTreeMap;
use std::time::Duration;

/// Attempts by the bucket of their duration: number, and of these 2xx.
pub(super) type Histogram = BTreeMap<u32, (u64, u64)>;

/// The bucket of a duration. Two buckets an octave of microseconds: 2^(b/2) <= us < 2^((b+1)/2).
pub(super) fn bucket_of(duration: Duration) -> u32 {
    let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX).clamp(1, 1 << 40);
    let octave = us.ilog2();
    let upper_half = u128::from(us) * u128::from(us) >= 1 << (2 * octave + 1);
    2 * octave + u32::from(upper_half)
}

/// The 95th percentile: the upper bound of the bucket that holds it; `None` without attempts.
pub(super) fn percentile_95(histogram: &Histogram) -> Option<Duration> {
    let all: u64 = histogram.values().map(|(attempts, _)| attempts).sum();
    let rank = (all * 95).div_ceil(100);
    let mut seen = 0;
    histogram.iter().find_map(|(bucket, (attempts, _))| {
        seen += attempts;
        (seen >= rank).then(|| bound_of(*bucket))
    })
}

/// Upper bound of a bucket, at most 42 % above any duration in it.
fn bound_of(bucket: u32) -> Duration {
    let square = 1_u128 << (bucket + 1).min(90);
    Duration::from_micros(u64::try_from(square.isqrt()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_its_durations_and_its_bound_is_close() {
        for us in [1_u64, 2, 3, 5, 999, 1_000, 1_448, 1_449, 60_000_000, 90_509_668] {
            let bound_us = bound_of(bucket_of(Duration::from_micros(us))).as_micros();
            assert!(bound_us * 100 >= u128::from(us) * 99, "{us} {bound_us}");
            assert!(bound_us * 100 <= u128::from(us) * 142 + 100, "{us} {bound_us}");
        }
    }

    #[test]
    fn the_percentile_is_the_bucket_that_holds_the_rank() {
        let histogram = Histogram::from([(20, (94, 94)), (30, (1, 0)), (40, (5, 5))]);
        assert_eq!(percentile_95(&histogram), Some(bound_of(30)));
        assert_eq!(percentile_95(&Histogram::new()), None);
    }
}
