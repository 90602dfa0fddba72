//! Days, by UTC, in which a ledger counts what it keeps.

use std::time::Duration;

use uuid::Uuid;

/// Milliseconds of a day, and of nothing else: days begin at midnight UTC.
pub(super) const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// Whole days of a retention, at least one.
pub(super) fn whole_days(retention: Duration) -> u64 {
    (retention.as_secs() * 1000 / DAY_MS).max(1)
}

/// The lowest identity of a day, counted from 1970-01-01.
pub(super) fn first_of_day(day: u64) -> Uuid {
    Uuid::from_u128(u128::from(day * DAY_MS) << 80)
}

#[cfg(test)]
mod tests {
    use dispatcher_core::id::EventId;

    use super::*;

    #[test]
    fn a_day_holds_the_identities_of_its_milliseconds() {
        let midnight_ms = 20_781 * DAY_MS;
        let id = |ms: u64, random: u8| EventId::from_parts(ms, [random; 10]).0;
        assert!(id(midnight_ms - 1, 0xff) < first_of_day(20_781));
        assert!(id(midnight_ms, 0) >= first_of_day(20_781));
        assert!(id(midnight_ms + DAY_MS - 1, 0xff) < first_of_day(20_782));
    }

    #[test]
    fn a_retention_counts_in_whole_days_and_is_at_least_one() {
        for (hours, days) in [(0, 1), (47, 1), (48, 2), (30 * 24 + 1, 30)] {
            assert_eq!(whole_days(Duration::from_hours(hours)), days, "{hours} hours");
        }
    }
}
