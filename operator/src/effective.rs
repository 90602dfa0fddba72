//! The effective policy: what a spec says, and what holds where it says nothing. The one place of defaults.

use crds::EndpointSpec;
use crds::endpoint::{BodyFormat, CircuitBreaker, Retry, RetryType, SigningScheme};
use crds::limits::ROTATION_OVERLAP_SECONDS_DEFAULT;
use dispatcher_core::limits::{MAX_IN_FLIGHT_DEFAULT, RETRY_DELAY_SECONDS_MAX, TIMEOUT_SECONDS_DEFAULT};
use dispatcher_core::retry::{Backoff, DEFAULT_SCHEDULE_SECONDS, RetryPolicy};
use dispatcher_core::table::{self, BreakerPolicy, DEFAULT_POOL, DeliveryPolicy, RateLimit};

/// How deliveries to an endpoint with this spec behave.
///
/// Total: a number that the schema would refuse comes out as zero, which [`RetryPolicy::validate`] refuses.
pub fn delivery_policy(spec: &EndpointSpec) -> DeliveryPolicy {
    DeliveryPolicy {
        timeout_seconds: number(spec.timeout_seconds, TIMEOUT_SECONDS_DEFAULT),
        retry: retry_policy(spec.retry.as_ref().unwrap_or(&Retry::default())),
        rate_limit: spec.rate_limit.as_ref().map(|limit| {
            let per_second = number(Some(limit.per_second), 0);
            RateLimit { per_second, burst: number(limit.burst, per_second) }
        }),
        max_in_flight: number(spec.max_in_flight, MAX_IN_FLIGHT_DEFAULT),
        circuit_breaker: breaker_policy(spec.circuit_breaker.as_ref().unwrap_or(&CircuitBreaker::default())),
        disable_after_failing_for_seconds: spec
            .disable_after_failing_for_seconds
            .map(|seconds| number(Some(seconds), 0)),
        format: match spec.format.unwrap_or_default() {
            BodyFormat::Payload => table::BodyFormat::Payload,
            BodyFormat::CloudEventsStructured => table::BodyFormat::CloudEventsStructured,
            BodyFormat::CloudEventsBinary => table::BodyFormat::CloudEventsBinary,
        },
        signing_scheme: signing_scheme(spec),
    }
}

/// How requests to an endpoint with this spec are signed.
pub fn signing_scheme(spec: &EndpointSpec) -> table::SigningScheme {
    match spec.signing.as_ref().and_then(|signing| signing.scheme).unwrap_or_default() {
        SigningScheme::StandardWebhooks => table::SigningScheme::StandardWebhooks,
        SigningScheme::StandardWebhooksEd25519 => table::SigningScheme::StandardWebhooksEd25519,
        SigningScheme::HarborHook => table::SigningScheme::HarborHook,
        SigningScheme::GitHub => table::SigningScheme::GitHub,
        SigningScheme::Stripe => table::SigningScheme::Stripe,
    }
}

/// For how many milliseconds the previous signing key goes on signing.
pub fn rotation_overlap_ms(spec: &EndpointSpec) -> u64 {
    let seconds = spec.signing.as_ref().and_then(|signing| signing.rotation_overlap_seconds);
    u64::try_from(seconds.unwrap_or(ROTATION_OVERLAP_SECONDS_DEFAULT)).unwrap_or_default() * 1000
}

/// The pool whose dispatchers deliver to an endpoint with this spec.
pub fn pool(spec: &EndpointSpec) -> &str {
    spec.pool_ref.as_ref().map_or(DEFAULT_POOL, |pool| pool.name.as_str())
}

fn retry_policy(retry: &Retry) -> RetryPolicy {
    let defaults = RetryPolicy::default();
    // Where a type needs a field, the schema sees to it that it is there.
    let initial_delay_seconds = number(retry.initial_delay_seconds, 1);
    let max_delay_seconds = number(retry.max_delay_seconds, RETRY_DELAY_SECONDS_MAX);
    let backoff = match retry.type_.unwrap_or_default() {
        RetryType::Exponential => Backoff::Exponential { initial_delay_seconds, max_delay_seconds },
        RetryType::Linear => {
            Backoff::Linear { initial_delay_seconds, step_seconds: number(retry.step_seconds, 1), max_delay_seconds }
        }
        RetryType::Fixed => Backoff::Fixed { delay_seconds: number(retry.delay_seconds, 1) },
        RetryType::Schedule => Backoff::Schedule {
            schedule_seconds: match &retry.schedule_seconds {
                Some(seconds) => seconds.iter().map(|seconds| number(Some(*seconds), 0)).collect(),
                None => DEFAULT_SCHEDULE_SECONDS.to_vec(),
            },
        },
    };
    RetryPolicy {
        backoff,
        jitter_percent: percent(retry.jitter_percent, defaults.jitter_percent),
        max_attempts: number(retry.max_attempts, defaults.max_attempts),
        max_age_seconds: number(retry.max_age_seconds, defaults.max_age_seconds),
    }
}

fn breaker_policy(breaker: &CircuitBreaker) -> BreakerPolicy {
    let defaults = BreakerPolicy::default();
    BreakerPolicy {
        failure_percent: percent(breaker.failure_percent, defaults.failure_percent),
        min_attempts: number(breaker.min_attempts, defaults.min_attempts),
        window_seconds: number(breaker.window_seconds, defaults.window_seconds),
        initial_pause_seconds: number(breaker.initial_pause_seconds, defaults.initial_pause_seconds),
        max_pause_seconds: number(breaker.max_pause_seconds, defaults.max_pause_seconds),
        probes: number(breaker.probes, defaults.probes),
    }
}

fn number(value: Option<i32>, default: u32) -> u32 {
    value.map_or(default, |value| u32::try_from(value).unwrap_or_default())
}

fn percent(value: Option<i32>, default: u8) -> u8 {
    value.map_or(default, |value| u8::try_from(value).unwrap_or(u8::MAX))
}
