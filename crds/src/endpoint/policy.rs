//! How deliveries behave: retries, rate, circuit, body.
#![expect(unreachable_pub, reason = "the schema derive repeats every struct inside a function")]

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{limits, schema};

/// When a failed delivery is tried again, and when no more.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new("!has(self.type) || self.type != 'Exponential' || (has(self.initialDelaySeconds) && has(self.maxDelaySeconds))")
        .message("type Exponential needs initialDelaySeconds and maxDelaySeconds"),
    validation = Rule::new("!has(self.type) || self.type != 'Linear' || (has(self.initialDelaySeconds) && has(self.stepSeconds) && has(self.maxDelaySeconds))")
        .message("type Linear needs initialDelaySeconds, stepSeconds and maxDelaySeconds"),
    validation = Rule::new("!has(self.type) || self.type != 'Fixed' || has(self.delaySeconds)")
        .message("type Fixed needs delaySeconds"),
    validation = Rule::new("!has(self.initialDelaySeconds) || (has(self.type) && self.type in ['Exponential', 'Linear'])")
        .message("belongs to the types Exponential and Linear").field_path(".initialDelaySeconds"),
    validation = Rule::new("!has(self.maxDelaySeconds) || (has(self.type) && self.type in ['Exponential', 'Linear'])")
        .message("belongs to the types Exponential and Linear").field_path(".maxDelaySeconds"),
    validation = Rule::new("!has(self.stepSeconds) || (has(self.type) && self.type == 'Linear')")
        .message("belongs to type Linear").field_path(".stepSeconds"),
    validation = Rule::new("!has(self.delaySeconds) || (has(self.type) && self.type == 'Fixed')")
        .message("belongs to type Fixed").field_path(".delaySeconds"),
    validation = Rule::new("!has(self.scheduleSeconds) || !has(self.type) || self.type == 'Schedule'")
        .message("belongs to type Schedule").field_path(".scheduleSeconds"),
    validation = Rule::new("!has(self.initialDelaySeconds) || !has(self.maxDelaySeconds) || self.initialDelaySeconds <= self.maxDelaySeconds")
        .message("must not be smaller than initialDelaySeconds").field_path(".maxDelaySeconds")
)]
#[serde(rename_all = "camelCase")]
pub struct Retry {
    /// How the delay grows from attempt to attempt. Default: `Schedule`.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<RetryType>,
    /// Delay after the first attempt; types `Exponential` and `Linear` only, and required there.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = limits::RETRY_DELAY_SECONDS_MAX))]
    pub initial_delay_seconds: Option<i32>,
    /// Added after every further attempt; type `Linear` only, and required there.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = limits::RETRY_DELAY_SECONDS_MAX))]
    pub step_seconds: Option<i32>,
    /// Largest delay; types `Exponential` and `Linear` only, and required there.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = limits::RETRY_DELAY_SECONDS_MAX))]
    pub max_delay_seconds: Option<i32>,
    /// The delay after every attempt; type `Fixed` only, and required there.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = limits::RETRY_DELAY_SECONDS_MAX))]
    pub delay_seconds: Option<i32>,
    /// Delays after attempt 1, 2, 3 and so on, of which the last repeats; type `Schedule` only.
    /// Default: 1, 5, 10, 30, 60, 300, 1800, 7200, 18000, 36000, 86400.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::schedule_seconds")]
    pub schedule_seconds: Option<Vec<i32>>,
    /// How far a delay may be lengthened or shortened at random, in percent of itself. Default: 10.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub jitter_percent: Option<i32>,
    /// Attempts before a delivery is given up, the first included. Default: 12.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = limits::RETRY_ATTEMPTS_MAX))]
    pub max_attempts: Option<i32>,
    /// Seconds after which a failed attempt is the last. Default: 259200.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = limits::RETRY_AGE_SECONDS_MAX))]
    pub max_age_seconds: Option<i32>,
}

/// How the delay grows.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RetryType {
    /// Doubles from the initial delay up to the largest.
    Exponential,
    /// Grows by a step from the initial delay up to the largest.
    Linear,
    /// Always the same.
    Fixed,
    /// Explicit delays.
    #[default]
    Schedule,
}

/// A token bucket.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RateLimit {
    /// Attempts a second, in the long run. Required.
    #[schemars(range(min = 1, max = limits::RATE_MAX))]
    pub per_second: i32,
    /// Most attempts at once after a pause. Default: the same as `perSecond`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = limits::RATE_MAX))]
    pub burst: Option<i32>,
}

/// When an endpoint's circuit opens, and how it closes again.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("(has(self.initialPauseSeconds) ? self.initialPauseSeconds : 10) <= (has(self.maxPauseSeconds) ? self.maxPauseSeconds : 300)")
    .message("must not be smaller than initialPauseSeconds (when absent they are 300 and 10)").field_path(".maxPauseSeconds"))]
#[serde(rename_all = "camelCase")]
pub struct CircuitBreaker {
    /// Failures in percent of a window's attempts that open the circuit. Default: 50.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub failure_percent: Option<i32>,
    /// Fewest attempts in a window before the circuit can open. Default: 10.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = limits::BREAKER_MIN_ATTEMPTS_MAX))]
    pub min_attempts: Option<i32>,
    /// Length of the window. Default: 30.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = limits::BREAKER_WINDOW_SECONDS_MAX))]
    pub window_seconds: Option<i32>,
    /// First pause of an open circuit; it doubles with every failed probe. Default: 10.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = limits::BREAKER_PAUSE_SECONDS_MAX))]
    pub initial_pause_seconds: Option<i32>,
    /// Largest pause. Default: 300.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = limits::BREAKER_PAUSE_SECONDS_MAX))]
    pub max_pause_seconds: Option<i32>,
    /// Probes that must succeed before the circuit closes. Default: 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = limits::BREAKER_PROBES_MAX))]
    pub probes: Option<i32>,
}

/// What the request body is.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum BodyFormat {
    /// The payload alone, byte for byte.
    #[default]
    Payload,
    /// A CloudEvents JSON envelope around the payload.
    CloudEventsStructured,
    /// The payload, with CloudEvents attributes as `ce-` headers.
    CloudEventsBinary,
}
