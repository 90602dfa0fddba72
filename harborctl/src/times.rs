//! Times as people read them. All are UTC.

use std::time::Duration;

use jiff::Timestamp;

/// The time of day, such as `14:03:27Z`.
pub(crate) fn time_of_day(unix_ms: u64) -> String {
    match i64::try_from(unix_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok()) {
        Some(time) => time.strftime("%H:%M:%SZ").to_string(),
        None => "-".to_owned(),
    }
}

/// A duration with one unit, such as `120ms`, `45s`, `5m`, `2h`, `3d`.
pub(crate) fn short(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 if duration.is_zero() => "0s".to_owned(),
        0 => format!("{}ms", duration.as_millis()),
        1..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// How long ago an RFC 3339 time was, in the form of [`short`].
pub(crate) fn age(time: &str, now_unix_ms: u64) -> Option<String> {
    let time: Timestamp = time.parse().ok()?;
    let then = u64::try_from(time.as_millisecond()).ok()?;
    Some(short(Duration::from_secs(now_unix_ms.saturating_sub(then) / 1000)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_keep_one_unit() {
        for (duration, text) in [
            (Duration::ZERO, "0s"),
            (Duration::from_micros(1_500), "1ms"),
            (Duration::from_secs(119), "119s"),
            (Duration::from_mins(2), "2m"),
            (Duration::from_hours(2), "2h"),
            (Duration::from_hours(48), "2d"),
        ] {
            assert_eq!(short(duration), text);
        }
    }

    #[test]
    fn times_are_told_in_utc() {
        assert_eq!(time_of_day(1_700_000_000_123), "22:13:20Z");
        assert_eq!(age("2023-11-14T22:13:20Z", 1_700_000_060_000).as_deref(), Some("60s"));
        assert_eq!(age("yesterday", 1_700_000_060_000), None);
    }
}
