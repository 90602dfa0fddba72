//! How large anything in a resource may be, and what holds when a field is absent.
//!
//! The data plane has limits of the same meaning; a resource that is admitted here must never be too large there. Text
//! whose limit the data plane counts in bytes is restricted to ASCII by a rule, so that characters and bytes agree.

// --- Names and texts ----------------------------------------------------------------------------

/// Longest name of an object: an RFC 1123 subdomain.
pub const OBJECT_NAME_LENGTH_MAX: usize = 253;
/// Longest namespace: an RFC 1123 label.
pub const NAMESPACE_LENGTH_MAX: usize = 63;
/// Longest key in a Secret.
pub const SECRET_KEY_LENGTH_MAX: usize = 253;
/// Longest value of a label, and longest name part of a label's key.
pub const LABEL_VALUE_LENGTH_MAX: usize = 63;
/// Most labels in a selector.
pub const SELECTOR_LABELS_MAX: usize = 16;
/// Longest URL.
pub const URL_LENGTH_MAX: usize = 2048;
/// Longest description.
pub const DESCRIPTION_LENGTH_MAX: usize = 1024;
/// Longest recipient.
pub const RECIPIENT_LENGTH_MAX: usize = 128;
/// Longest user name of basic authentication.
pub const USERNAME_LENGTH_MAX: usize = 256;
/// Longest client identifier, and longest client secret, of OAuth 2.0.
pub const CLIENT_CREDENTIAL_LENGTH_MAX: usize = 1024;
/// Most scopes of an access token.
pub const SCOPES_MAX: usize = 32;
/// Longest scope.
pub const SCOPE_LENGTH_MAX: usize = 256;
/// Longest audience of an access token: often a URL.
pub const AUDIENCE_LENGTH_MAX: usize = 1024;

// --- Headers ------------------------------------------------------------------------------------

/// Most headers of an endpoint. With [`HEADER_NAME_LENGTH_MAX`] it keeps the rule that compares every pair of names
/// within an API server's cost budget.
pub const HEADERS_MAX: usize = 32;
/// Longest header name.
pub const HEADER_NAME_LENGTH_MAX: usize = 128;
/// Longest header value.
pub const HEADER_VALUE_LENGTH_MAX: usize = 2048;

// --- Signing ------------------------------------------------------------------------------------

/// How long an old key goes on signing when nothing is said.
pub const ROTATION_OVERLAP_SECONDS_DEFAULT: i32 = 24 * 60 * 60;
/// Longest time for which an old key goes on signing.
pub const ROTATION_OVERLAP_SECONDS_MAX: i32 = 7 * 24 * 60 * 60;

// --- One exchange -------------------------------------------------------------------------------

/// Deadline of an exchange when nothing is said.
pub const TIMEOUT_SECONDS_DEFAULT: i32 = 15;
/// Largest deadline of an exchange.
pub const TIMEOUT_SECONDS_MAX: i32 = 60;
/// Bound on exchanges in flight when nothing is said.
pub const MAX_IN_FLIGHT_DEFAULT: i32 = 32;
/// Largest bound on exchanges in flight.
pub const MAX_IN_FLIGHT_MAX: i32 = 256;
/// Largest rate, and largest burst, of a rate limit. One process delivers fewer: beyond it a limit has no effect.
pub const RATE_MAX: i32 = 10_000;

// --- Retries ------------------------------------------------------------------------------------

/// Largest delay between two attempts.
pub const RETRY_DELAY_SECONDS_MAX: i32 = 7 * 24 * 60 * 60;
/// Most entries in a retry schedule.
pub const RETRY_SCHEDULE_ENTRIES_MAX: usize = 32;
/// The schedule when nothing is said.
pub const RETRY_SCHEDULE_SECONDS_DEFAULT: [i32; 11] = [1, 5, 10, 30, 60, 300, 1_800, 7_200, 18_000, 36_000, 86_400];
/// Jitter when nothing is said.
pub const RETRY_JITTER_PERCENT_DEFAULT: i32 = 10;
/// Attempts in one run of a delivery when nothing is said.
pub const RETRY_ATTEMPTS_DEFAULT: i32 = 12;
/// Most attempts in one run of a delivery.
pub const RETRY_ATTEMPTS_MAX: i32 = 100;
/// Age beyond which a failed attempt is the last, when nothing is said.
pub const RETRY_AGE_SECONDS_DEFAULT: i32 = 3 * 24 * 60 * 60;
/// Largest age at which a delivery is still retried.
pub const RETRY_AGE_SECONDS_MAX: i32 = 29 * 24 * 60 * 60;

// --- Protection ---------------------------------------------------------------------------------

/// Failures in percent that open the circuit when nothing is said.
pub const BREAKER_FAILURE_PERCENT_DEFAULT: i32 = 50;
/// Fewest attempts in a window before the circuit can open, when nothing is said.
pub const BREAKER_MIN_ATTEMPTS_DEFAULT: i32 = 10;
/// Largest value of the same.
pub const BREAKER_MIN_ATTEMPTS_MAX: i32 = 10_000;
/// Length of the window when nothing is said.
pub const BREAKER_WINDOW_SECONDS_DEFAULT: i32 = 30;
/// Longest window.
pub const BREAKER_WINDOW_SECONDS_MAX: i32 = 60 * 60;
/// First pause of an open circuit when nothing is said.
pub const BREAKER_INITIAL_PAUSE_SECONDS_DEFAULT: i32 = 10;
/// Largest pause of an open circuit when nothing is said.
pub const BREAKER_MAX_PAUSE_SECONDS_DEFAULT: i32 = 300;
/// Largest pause that may be asked for.
pub const BREAKER_PAUSE_SECONDS_MAX: i32 = 24 * 60 * 60;
/// Probes that must succeed before a circuit closes, when nothing is said.
pub const BREAKER_PROBES_DEFAULT: i32 = 1;
/// Most probes.
pub const BREAKER_PROBES_MAX: i32 = 100;
/// Shortest time of nothing but failures that may disable an endpoint.
pub const DISABLE_AFTER_SECONDS_MIN: i32 = 60;
/// Longest time of nothing but failures that may disable an endpoint.
pub const DISABLE_AFTER_SECONDS_MAX: i32 = 29 * 24 * 60 * 60;

// --- Subscriptions ------------------------------------------------------------------------------

/// Most event types of a subscription.
pub const EVENT_TYPES_MAX: usize = 64;
/// Longest event type or pattern.
pub const EVENT_TYPE_LENGTH_MAX: usize = 128;
/// Most segments in an event type or pattern.
pub const EVENT_TYPE_SEGMENTS_MAX: usize = 16;
/// Longest filter.
pub const FILTER_LENGTH_MAX: usize = 1024;
/// Longest transform.
pub const TRANSFORM_LENGTH_MAX: usize = 4096;

// --- Replays ------------------------------------------------------------------------------------

/// Most states that a replay names: all of them.
pub const REPLAY_STATES_MAX: usize = 3;
/// Deliveries a second that a replay starts when nothing is said: what an endpoint that was not made for a flood bears.
pub const REPLAY_PER_SECOND_DEFAULT: i32 = 100;
// --- Pools --------------------------------------------------------------------------------------

/// Longest name of a pool: names of objects are made of it, beside that of the installation.
pub const POOL_NAME_LENGTH_MAX: usize = 40;
/// Fewest dispatchers when nothing is said.
pub const POOL_MIN_REPLICAS_DEFAULT: i32 = 2;
/// Most dispatchers when nothing is said.
pub const POOL_MAX_REPLICAS_DEFAULT: i32 = 10;
/// Most dispatchers of a pool.
pub const POOL_REPLICAS_MAX: i32 = 100;
/// Seconds within which a backlog is to be worked off, when nothing is said.
pub const POOL_DRAIN_TARGET_SECONDS_DEFAULT: i32 = 60;
/// Shortest time within which a backlog is to be worked off.
pub const POOL_DRAIN_TARGET_SECONDS_MIN: i32 = 5;
/// Longest time within which a backlog is to be worked off.
pub const POOL_DRAIN_TARGET_SECONDS_MAX: i32 = 60 * 60;
/// Seconds for which fewer dispatchers must have been enough, when nothing is said.
pub const POOL_STABILIZATION_SECONDS_DEFAULT: i32 = 300;
/// Shortest such time: what is shorter than a start of a dispatcher and two measurements flaps.
pub const POOL_STABILIZATION_SECONDS_MIN: i32 = 60;
/// Longest such time.
pub const POOL_STABILIZATION_SECONDS_MAX: i32 = 60 * 60;
/// Requests that one dispatcher has in flight at once, when nothing is said.
pub const POOL_MAX_IN_FLIGHT_DEFAULT: i32 = 128;
/// Most requests that one dispatcher may have in flight at once.
pub const POOL_MAX_IN_FLIGHT_MAX: i32 = 1024;
/// Longest key of a label or taint: a prefix and a name.
pub const LABEL_KEY_LENGTH_MAX: usize = 317;
/// Most labels of a node that are asked for.
pub const NODE_SELECTOR_LABELS_MAX: usize = 16;
/// Most tolerations.
pub const TOLERATIONS_MAX: usize = 16;
/// Longest time that a taint is tolerated.
pub const TOLERATION_SECONDS_MAX: i32 = 7 * 24 * 60 * 60;
/// Most resources that are requested or limited.
pub const QUANTITIES_MAX: usize = 8;
/// Longest quantity.
pub const QUANTITY_LENGTH_MAX: usize = 32;

// --- Status -------------------------------------------------------------------------------------

/// Most conditions of an object.
pub const CONDITIONS_MAX: usize = 8;
/// Longest text in a column: a rounded number with its unit.
pub const COLUMN_LENGTH_MAX: usize = 32;
/// Longest cursor of a replay.
pub const CURSOR_LENGTH_MAX: usize = 64;
/// Longest host with its port.
pub const HOST_LENGTH_MAX: usize = 260;
