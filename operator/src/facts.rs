//! What an endpoint's deliveries did, rounded for people, so that a status changes only when it tells something new.

use std::time::Duration;

/// Lower ends of the bands of success, in per mille, with their texts.
const SUCCESS_BANDS: [(u64, &str); 17] = [
    (1000, "100%"),
    (999, "99.9%"),
    (995, "99.5%"),
    (990, "99%"),
    (980, "98%"),
    (950, "95%"),
    (900, "90%"),
    (800, "80%"),
    (700, "70%"),
    (600, "60%"),
    (500, "50%"),
    (400, "40%"),
    (300, "30%"),
    (200, "20%"),
    (100, "10%"),
    (50, "5%"),
    (10, "1%"),
];

/// The share of attempts that succeeded, as the lower end of its band; `None` without attempts. Only all is `100%`, and
/// only none is `0%`.
pub fn success(attempts: u64, succeeded: u64) -> Option<&'static str> {
    if attempts == 0 {
        return None;
    }
    if succeeded == 0 {
        return Some("0%");
    }
    let share = u128::from(succeeded.min(attempts)) * 1000 / u128::from(attempts);
    let band = SUCCESS_BANDS.iter().find(|(per_mille, _)| share >= u128::from(*per_mille));
    Some(band.map_or("<1%", |(_, text)| text))
}

/// A duration, rounded up to 1, 2 or 5 times a power of ten of milliseconds: `200ms`, `5s`.
pub fn duration(duration: Duration) -> String {
    let mut milliseconds = 1_u128;
    for factor in [2, 5, 10].into_iter().cycle() {
        if milliseconds >= duration.as_millis() {
            break;
        }
        milliseconds = power_of_ten(milliseconds) * factor;
    }
    if milliseconds < 1000 { format!("{milliseconds}ms") } else { format!("{}s", milliseconds / 1000) }
}

/// A count: exact below ten, else rounded down to 1, 2 or 5 times a power of ten: `~20k`.
pub fn count(count: u64) -> String {
    if count < 10 {
        return count.to_string();
    }
    let unit = power_of_ten(u128::from(count));
    let step =
        [5, 2, 1].into_iter().map(|factor| unit * factor).find(|step| *step <= u128::from(count)).unwrap_or(unit);
    match step {
        0..1_000 => format!("~{step}"),
        1_000..1_000_000 => format!("~{}k", step / 1_000),
        1_000_000..1_000_000_000 => format!("~{}M", step / 1_000_000),
        _ => format!("~{}G", step / 1_000_000_000),
    }
}

/// A rate, as [`count`] rounds it: `~200/s`. What is less than one a second and more than nothing is `<1/s`.
pub fn per_second(rate: f64) -> String {
    if rate > 0.0 && rate < 1.0 {
        return "<1/s".to_owned();
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates; a rate is not negative")]
    let whole = rate.round() as u64;
    format!("{}/s", count(whole))
}

/// A time in milliseconds since the Unix epoch, rounded down to the minute.
pub fn minute(unix_ms: u64) -> u64 {
    unix_ms - unix_ms % 60_000
}

/// How far down the bands of success a text of [`success`] stands.
pub(crate) fn success_rank(text: &str) -> Option<u16> {
    let texts = SUCCESS_BANDS.iter().map(|(_, text)| *text).chain(["<1%", "0%"]);
    texts.zip(0..).find_map(|(band, rank)| (band == text).then_some(rank))
}

/// How many steps a text of [`duration`] is from the shortest.
pub(crate) fn duration_rank(text: &str) -> Option<u16> {
    let (digits, unit) = match text.strip_suffix("ms") {
        Some(digits) => (digits, 1),
        None => (text.strip_suffix('s')?, 1000),
    };
    step_rank(digits.parse::<u128>().ok()?.checked_mul(unit)?)
}

/// How many steps a text of [`count`] is from zero.
pub(crate) fn count_rank(text: &str) -> Option<u16> {
    let text = text.strip_prefix('~').unwrap_or(text);
    let (digits, unit) = match text.chars().last()? {
        'k' => (text.strip_suffix('k')?, 1_000),
        'M' => (text.strip_suffix('M')?, 1_000_000),
        'G' => (text.strip_suffix('G')?, 1_000_000_000),
        _ => (text, 1),
    };
    match digits.parse::<u128>().ok()?.checked_mul(unit)? {
        0 => Some(0),
        number => step_rank(number).map(|rank| rank + 1),
    }
}

/// Steps of 1, 2 and 5 times a power of ten from 1 up to a number.
fn step_rank(number: u128) -> Option<u16> {
    let decades = u16::try_from(number.checked_ilog10()?).ok()?;
    let within = match number / power_of_ten(number) {
        1 => 0,
        2..5 => 1,
        _ => 2,
    };
    Some(decades * 3 + within)
}

/// The largest power of ten that is not larger than a number from 1.
fn power_of_ten(number: u128) -> u128 {
    10_u128.pow(number.max(1).ilog10())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn success_stands_in_bands() {
        for (attempts, succeeded, text) in [
            (0, 0, None),
            (1, 1, Some("100%")),
            (1, 0, Some("0%")),
            (1_000_000, 999_999, Some("99.9%")),
            (1000, 998, Some("99.5%")),
            (1000, 1, Some("<1%")),
            (100, 96, Some("95%")),
            (2, 1, Some("50%")),
        ] {
            assert_eq!(success(attempts, succeeded), text, "{succeeded} of {attempts}");
        }
    }

    #[test]
    fn every_text_has_a_rank_that_grows_in_steps_of_one() {
        for (rank, milliseconds) in (0..).zip([1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000]) {
            assert_eq!(duration_rank(&duration(Duration::from_millis(milliseconds))), Some(rank), "{milliseconds}");
        }
        for (rank, number) in (0..).zip([0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000]) {
            assert_eq!(count_rank(&count(number)), Some(rank), "{number}");
        }
        assert_eq!(count_rank(&count(2_000_000_000)), Some(29));
        for (rank, (per_mille, text)) in (0..).zip(SUCCESS_BANDS) {
            assert_eq!(success(1000, per_mille), Some(text));
            assert_eq!(success_rank(text), Some(rank));
        }
        assert_eq!((success_rank("<1%"), success_rank("0%")), (Some(17), Some(18)));
        assert_eq!((success_rank("12%"), duration_rank("fast"), count_rank("")), (None, None, None));
    }

    #[test]
    fn durations_round_up_in_steps() {
        for (milliseconds, text) in [
            (0, "1ms"),
            (1, "1ms"),
            (3, "5ms"),
            (6, "10ms"),
            (130, "200ms"),
            (200, "200ms"),
            (501, "1s"),
            (1001, "2s"),
            (60_000, "100s"),
        ] {
            assert_eq!(duration(Duration::from_millis(milliseconds)), text, "{milliseconds}");
        }
    }

    #[test]
    fn rates_are_counts_of_a_second() {
        for (rate, text) in [(0.0, "0/s"), (0.2, "<1/s"), (1.4, "1/s"), (250.0, "~200/s"), (f64::NAN, "0/s")] {
            assert_eq!(per_second(rate), text, "{rate}");
        }
    }

    #[test]
    fn counts_round_down_in_steps() {
        for (number, text) in [
            (0, "0"),
            (7, "7"),
            (10, "~10"),
            (99, "~50"),
            (12_345, "~10k"),
            (1_999_999, "~1M"),
            (u64::MAX, "~10000000000G"),
        ] {
            assert_eq!(count(number), text, "{number}");
        }
    }
}
