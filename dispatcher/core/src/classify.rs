//! What an answer means: for the delivery, and for its endpoint.

use std::time::Duration;

use crate::delivery::{EndReason, Next, Outcome};
use crate::limits::RETRY_AFTER_MAX;
use crate::retry::RetryPolicy;

/// What an attempt's result means for everything else that waits for the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointEffect {
    /// Nothing.
    None,
    /// Send it nothing for this long.
    SlowDown(Duration),
    /// Send it nothing until somebody enables it again.
    Disable,
}

/// The class of an HTTP status code.
///
/// Codes that end no exchange (1xx) and codes outside of HTTP (below 100, from 600) are [`Outcome::Network`]:
/// whatever answered did not speak HTTP as it should.
pub fn classify_status(status: u16) -> Outcome {
    match status {
        200..=299 => Outcome::Delivered,
        300..=399 => Outcome::Http3xx,
        410 => Outcome::Http410,
        429 => Outcome::Http429,
        400..=499 => Outcome::Http4xx,
        500..=599 => Outcome::Http5xx,
        _ => Outcome::Network,
    }
}

/// What becomes of the delivery after an attempt.
///
/// `attempt_number` counts from 1 within the run, `run_age` is the run's age when the attempt ended, and
/// `random_unit` in `[0, 1)` places the delay within its jitter. Attempts and age are looked at only here, after
/// a failure: a delivery that has waited long for other reasons still gets its attempt. `retry_after` lengthens
/// the policy's delay, never shortens it, and counts up to [`RETRY_AFTER_MAX`].
pub fn next(
    outcome: Outcome,
    policy: &RetryPolicy,
    attempt_number: u32,
    run_age: Duration,
    retry_after: Option<Duration>,
    random_unit: f64,
) -> Next {
    match outcome {
        Outcome::Delivered => return Next::Delivered,
        Outcome::Http410 => return Next::Dead(EndReason::Gone),
        _ => {}
    }
    if attempt_number >= policy.max_attempts {
        return Next::Dead(EndReason::AttemptsExhausted);
    }
    if run_age >= Duration::from_secs(policy.max_age_seconds.into()) {
        return Next::Dead(EndReason::TooOld);
    }
    let asked = match outcome {
        Outcome::Http429 | Outcome::Http5xx => retry_after.unwrap_or_default().min(RETRY_AFTER_MAX),
        _ => Duration::ZERO,
    };
    Next::Waiting { delay: policy.delay(attempt_number, random_unit).max(asked) }
}

/// What the result means for the endpoint as a whole.
///
/// `Retry-After` counts for 429, 502, 503 and 504, the codes that speak of load rather than of the one request.
pub fn endpoint_effect(outcome: Outcome, status_code: Option<u16>, retry_after: Option<Duration>) -> EndpointEffect {
    if outcome == Outcome::Http410 {
        return EndpointEffect::Disable;
    }
    match (status_code, retry_after) {
        (Some(429 | 502 | 503 | 504), Some(pause)) if !pause.is_zero() => {
            EndpointEffect::SlowDown(pause.min(RETRY_AFTER_MAX))
        }
        _ => EndpointEffect::None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::retry::Backoff;

    fn policy() -> RetryPolicy {
        RetryPolicy {
            backoff: Backoff::Fixed { delay_seconds: 10 },
            jitter_percent: 0,
            max_attempts: 3,
            max_age_seconds: 100,
        }
    }

    fn after(outcome: Outcome, attempt_number: u32, age_seconds: u64, retry_after: Option<u64>) -> Next {
        let (run_age, retry_after) = (Duration::from_secs(age_seconds), retry_after.map(Duration::from_secs));
        next(outcome, &policy(), attempt_number, run_age, retry_after, 0.5)
    }

    fn waiting(seconds: u64) -> Next {
        Next::Waiting { delay: Duration::from_secs(seconds) }
    }

    const FAILURES: [Outcome; 12] = [
        Outcome::Timeout,
        Outcome::ConnectionRefused,
        Outcome::DnsError,
        Outcome::TlsError,
        Outcome::Network,
        Outcome::AddressBlocked,
        Outcome::Http3xx,
        Outcome::Http4xx,
        Outcome::Http429,
        Outcome::Http5xx,
        Outcome::TransformFailed,
        Outcome::TokenFailed,
    ];

    #[test]
    fn status_codes_have_their_class() {
        for (codes, outcome) in [
            (vec![200, 201, 202, 204, 299], Outcome::Delivered),
            (vec![300, 301, 304, 308, 399], Outcome::Http3xx),
            (vec![400, 401, 404, 409, 411, 428, 430, 499], Outcome::Http4xx),
            (vec![410], Outcome::Http410),
            (vec![429], Outcome::Http429),
            (vec![500, 502, 503, 504, 599], Outcome::Http5xx),
            (vec![0, 99, 100, 101, 199, 600, 999], Outcome::Network),
        ] {
            for code in codes {
                assert_eq!(classify_status(code), outcome, "{code}");
            }
        }
    }

    #[test]
    fn success_and_gone_end_the_delivery_whatever_the_policy_says() {
        for attempt_number in [1, 3, 50] {
            assert_eq!(after(Outcome::Delivered, attempt_number, 1_000, Some(5)), Next::Delivered);
            assert_eq!(after(Outcome::Http410, attempt_number, 0, Some(5)), Next::Dead(EndReason::Gone));
        }
    }

    #[test]
    fn every_other_failure_waits_until_attempts_or_age_are_used_up() {
        for outcome in FAILURES {
            assert_eq!(after(outcome, 1, 0, None), waiting(10), "{outcome:?}");
            assert_eq!(after(outcome, 2, 99, None), waiting(10), "{outcome:?}");
            assert_eq!(after(outcome, 2, 100, None), Next::Dead(EndReason::TooOld), "{outcome:?}");
            assert_eq!(after(outcome, 3, 0, None), Next::Dead(EndReason::AttemptsExhausted), "{outcome:?}");
        }
    }

    #[test]
    fn retry_after_lengthens_the_delay_and_never_shortens_it() {
        for (outcome, retry_after, seconds) in [
            (Outcome::Http429, 60, 60),
            (Outcome::Http5xx, 60, 60),
            (Outcome::Http429, 3, 10),
            (Outcome::Http429, 1_000_000, RETRY_AFTER_MAX.as_secs()),
            (Outcome::Http4xx, 60, 10),
        ] {
            assert_eq!(after(outcome, 1, 0, Some(retry_after)), waiting(seconds), "{outcome:?} {retry_after}");
        }
    }

    #[test]
    fn only_gone_and_retry_after_concern_the_endpoint() {
        let slow = |seconds| EndpointEffect::SlowDown(Duration::from_secs(seconds));
        for (status, retry_after, effect) in [
            (Some(410), None, EndpointEffect::Disable),
            (Some(410), Some(9), EndpointEffect::Disable),
            (Some(429), Some(9), slow(9)),
            (Some(502), Some(9), slow(9)),
            (Some(503), Some(9), slow(9)),
            (Some(504), Some(1_000_000), slow(RETRY_AFTER_MAX.as_secs())),
            (Some(503), Some(0), EndpointEffect::None),
            (Some(503), None, EndpointEffect::None),
            (Some(500), Some(9), EndpointEffect::None),
            (Some(200), Some(9), EndpointEffect::None),
            (Some(301), Some(9), EndpointEffect::None),
            (None, Some(9), EndpointEffect::None),
        ] {
            let outcome = status.map_or(Outcome::Timeout, classify_status);
            let retry_after = retry_after.map(Duration::from_secs);
            assert_eq!(endpoint_effect(outcome, status, retry_after), effect, "{status:?} {retry_after:?}");
        }
    }

    proptest! {
        #[test]
        fn a_run_never_has_more_attempts_than_its_policy_allows(
            outcomes in proptest::collection::vec(proptest::sample::select(FAILURES.to_vec()), 200),
            max_attempts in 1_u32..50,
            random_unit in 0.0..1.0,
        ) {
            let policy = RetryPolicy { max_attempts, max_age_seconds: u32::MAX, ..policy() };
            let waits = |(outcome, attempt_number): &(Outcome, u32)| {
                matches!(next(*outcome, &policy, *attempt_number, Duration::ZERO, None, random_unit), Next::Waiting { .. })
            };
            let waited = outcomes.into_iter().zip(1..).take_while(waits).count();
            prop_assert_eq!(u32::try_from(waited).unwrap() + 1, max_attempts);
        }
    }
}
