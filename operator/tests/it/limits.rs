//! The schema's limits and the data plane's are the same.

use crds::limits as schema;
use dispatcher_core::limits as data_plane;
use dispatcher_core::retry::{DEFAULT_SCHEDULE_SECONDS, RetryPolicy};
use dispatcher_core::table::BreakerPolicy;

#[test]
fn the_schema_admits_exactly_what_the_data_plane_takes() {
    for (name, schema, data_plane) in [
        ("recipient", schema::RECIPIENT_LENGTH_MAX, data_plane::RECIPIENT_BYTES_MAX),
        ("event type", schema::EVENT_TYPE_LENGTH_MAX, data_plane::EVENT_TYPE_BYTES_MAX),
        ("event type segments", schema::EVENT_TYPE_SEGMENTS_MAX, data_plane::EVENT_TYPE_SEGMENTS_MAX),
        ("filter", schema::FILTER_LENGTH_MAX, data_plane::FILTER_BYTES_MAX),
        ("transform", schema::TRANSFORM_LENGTH_MAX, data_plane::TRANSFORM_BYTES_MAX),
        ("schedule", schema::RETRY_SCHEDULE_ENTRIES_MAX, data_plane::RETRY_SCHEDULE_ENTRIES_MAX),
    ] {
        assert_eq!(schema, data_plane, "{name}");
    }
    for (name, schema, data_plane) in [
        ("timeout", schema::TIMEOUT_SECONDS_MAX, data_plane::TIMEOUT_SECONDS_MAX),
        ("timeout default", schema::TIMEOUT_SECONDS_DEFAULT, data_plane::TIMEOUT_SECONDS_DEFAULT),
        ("in flight", schema::MAX_IN_FLIGHT_MAX, data_plane::MAX_IN_FLIGHT_MAX),
        ("in flight default", schema::MAX_IN_FLIGHT_DEFAULT, data_plane::MAX_IN_FLIGHT_DEFAULT),
        ("delay", schema::RETRY_DELAY_SECONDS_MAX, data_plane::RETRY_DELAY_SECONDS_MAX),
        ("attempts", schema::RETRY_ATTEMPTS_MAX, data_plane::RETRY_ATTEMPTS_MAX),
        ("age", schema::RETRY_AGE_SECONDS_MAX, data_plane::RETRY_AGE_SECONDS_MAX),
    ] {
        assert_eq!(u32::try_from(schema), Ok(data_plane), "{name}");
    }
}

#[test]
fn the_documented_defaults_are_the_effective_ones() {
    let (retry, breaker) = (RetryPolicy::default(), BreakerPolicy::default());
    assert_eq!(schema::RETRY_SCHEDULE_SECONDS_DEFAULT.map(i32::unsigned_abs), DEFAULT_SCHEDULE_SECONDS);
    for (name, schema, data_plane) in [
        ("jitter", schema::RETRY_JITTER_PERCENT_DEFAULT, u32::from(retry.jitter_percent)),
        ("attempts", schema::RETRY_ATTEMPTS_DEFAULT, retry.max_attempts),
        ("age", schema::RETRY_AGE_SECONDS_DEFAULT, retry.max_age_seconds),
        ("failures", schema::BREAKER_FAILURE_PERCENT_DEFAULT, u32::from(breaker.failure_percent)),
        ("fewest attempts", schema::BREAKER_MIN_ATTEMPTS_DEFAULT, breaker.min_attempts),
        ("window", schema::BREAKER_WINDOW_SECONDS_DEFAULT, breaker.window_seconds),
        ("first pause", schema::BREAKER_INITIAL_PAUSE_SECONDS_DEFAULT, breaker.initial_pause_seconds),
        ("largest pause", schema::BREAKER_MAX_PAUSE_SECONDS_DEFAULT, breaker.max_pause_seconds),
        ("probes", schema::BREAKER_PROBES_DEFAULT, breaker.probes),
    ] {
        assert_eq!(u32::try_from(schema), Ok(data_plane), "{name}");
    }
}
