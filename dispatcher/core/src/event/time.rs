//! Points in time as RFC 3339 text.

/// The last millisecond that RFC 3339, which has four digits for the year, can tell.
const LAST_UNIX_MS: u64 = 253_402_300_799_999;

/// Milliseconds since the Unix epoch as RFC 3339 in UTC, for example `2023-11-14T22:13:20.123Z`. A time beyond the year
/// 9999 becomes the last that can be told.
///
/// The calendar is computed by Howard Hinnant's `civil_from_days`, which counts years from March so that the leap day
/// comes last.
pub fn rfc3339(unix_ms: u64) -> String {
    let unix_ms = unix_ms.min(LAST_UNIX_MS);
    let (days, ms_of_day) = (unix_ms / 86_400_000, unix_ms % 86_400_000);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (seconds, ms) = (ms_of_day / 1000, ms_of_day % 1000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

/// Whether a text has the form of an RFC 3339 timestamp, with every number in its range.
pub fn is_rfc3339(text: &str) -> bool {
    let bytes = text.as_bytes();
    let number = |range: std::ops::Range<usize>| -> Option<u32> {
        let digits = bytes.get(range)?;
        digits
            .iter()
            .all(u8::is_ascii_digit)
            .then(|| digits.iter().fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0')))
    };
    let within =
        |range: std::ops::Range<usize>, low: u32, high: u32| number(range).is_some_and(|n| (low..=high).contains(&n));
    let separators = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')];
    let has_shape = separators.iter().all(|(position, byte)| bytes.get(*position) == Some(byte))
        && matches!(bytes.get(10), Some(b'T' | b't' | b' '))
        && number(0..4).is_some()
        && within(5..7, 1, 12)
        && within(8..10, 1, 31)
        && within(11..13, 0, 23)
        && within(14..16, 0, 59)
        && within(17..19, 0, 60);
    if !has_shape {
        return false;
    }
    let mut rest = &bytes[19..];
    if let Some(fraction) = rest.strip_prefix(b".") {
        let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits == 0 {
            return false;
        }
        rest = &fraction[digits..];
    }
    let start = bytes.len() - rest.len();
    match rest {
        b"Z" | b"z" => true,
        [b'+' | b'-', _, _, b':', _, _] => within(start + 1..start + 3, 0, 23) && within(start + 4..start + 6, 0, 59),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_instants_are_written_as_calendars_have_them() {
        for (unix_ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_700_000_000_123, "2023-11-14T22:13:20.123Z"),
            (4_107_542_399_999, "2100-02-28T23:59:59.999Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (LAST_UNIX_MS, "9999-12-31T23:59:59.999Z"),
            (u64::MAX, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(rfc3339(unix_ms), text);
            assert!(is_rfc3339(text));
        }
    }

    #[test]
    fn only_timestamps_pass_for_timestamps() {
        for text in ["2018-04-05T17:31:00Z", "2018-04-05t17:31:00.5z", "2018-12-31T23:59:60+05:30"] {
            assert!(is_rfc3339(text), "{text}");
        }
        for text in [
            "",
            "now",
            "2018-04-05",
            "2018-04-05T17:31Z",
            "2018-04-05T17:31:00",
            "2018-13-05T17:31:00Z",
            "2018-04-05T24:31:00Z",
            "2018-04-05T17:31:00.Z",
            "2018-04-05T17:31:00+0530",
            "2018-04-05T17:31:00Zé",
            "2018-04-05T17:31:00+99:00",
        ] {
            assert!(!is_rfc3339(text), "{text}");
        }
    }
}
