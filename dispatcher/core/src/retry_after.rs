//! The `Retry-After` header (RFC 9110, 10.2.3).

use std::time::{Duration, UNIX_EPOCH};

use crate::limits::RETRY_AFTER_MAX;

/// Reads a `Retry-After` value: whole seconds, or an HTTP date in any of its three forms.
///
/// Returns how long to wait from `now_unix_ms` (milliseconds since the Unix epoch), at most
/// [`RETRY_AFTER_MAX`]; zero for a date that has passed; `None` for anything that is neither form.
pub fn parse(value: &[u8], now_unix_ms: u64) -> Option<Duration> {
    let text = std::str::from_utf8(value).ok()?.trim_matches([' ', '\t']);
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // A number too large for the type is still a number, and beyond the cap anyway.
        let seconds = text.parse().unwrap_or(u64::MAX);
        return Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX));
    }
    let date = httpdate::parse_http_date(text).ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(date.saturating_sub(Duration::from_millis(now_unix_ms)).min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Sun, 06 Nov 1994 08:49:37 GMT, the date of RFC 9110's examples.
    const EXAMPLE_UNIX_MS: u64 = 784_111_777_000;

    #[test]
    fn seconds_and_all_three_date_forms_are_read() {
        for (value, now_unix_ms, expected) in [
            ("120", 0, Some(120)),
            (" 120\t", 0, Some(120)),
            ("0", 0, Some(0)),
            ("3600", 0, Some(3_600)),
            ("3601", 0, Some(3_600)),
            ("99999999999999999999999999", 0, Some(3_600)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", EXAMPLE_UNIX_MS - 90_000, Some(90)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", EXAMPLE_UNIX_MS - 90_000, Some(90)),
            ("Sun Nov  6 08:49:37 1994", EXAMPLE_UNIX_MS - 90_000, Some(90)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", EXAMPLE_UNIX_MS + 1, Some(0)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", 0, Some(3_600)),
            ("", 0, None),
            ("-1", 0, None),
            ("+5", 0, None),
            ("1.5", 0, None),
            ("soon", 0, None),
            ("120, 240", 0, None),
        ] {
            let expected = expected.map(Duration::from_secs);
            assert_eq!(parse(value.as_bytes(), now_unix_ms), expected, "{value:?} at {now_unix_ms}");
        }
    }

    proptest! {
        #[test]
        fn no_value_asks_for_more_than_the_cap(value in proptest::collection::vec(any::<u8>(), 0..40), now_unix_ms: u64) {
            prop_assert!(parse(&value, now_unix_ms).is_none_or(|delay| delay <= RETRY_AFTER_MAX));
        }
    }
}
