//! Limits of tokens and of those who issue them.

use std::time::Duration;

/// Longest bearer token, in bytes. Those of a cluster have about 1 KiB; some issuers put long lists of groups in.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// Longest claim that names somebody (`iss`, `sub`), in bytes.
pub const TOKEN_NAME_BYTES_MAX: usize = 1024;
/// Most audiences of a token.
pub const TOKEN_AUDIENCES_MAX: usize = 32;
/// Most tenants that a token can name.
pub const TOKEN_TENANTS_MAX: usize = 64;
/// How far an issuer's clock may differ from ours. Longer would lengthen the life of every token.
pub const TOKEN_LEEWAY_SECONDS: u64 = 30;
/// Most tokens whose verification is remembered; at about 400 bytes each, 8 MB.
pub const VERIFIED_TOKENS_MAX: usize = 20_000;

/// Most issuers in the file of issuers.
pub const ISSUERS_MAX: usize = 64;
/// Largest file of issuers, in bytes.
pub const ISSUERS_FILE_BYTES_MAX: u64 = 1024 * 1024;
/// How often the file of issuers is looked at for changes.
pub const ISSUERS_FILE_POLL_INTERVAL: Duration = Duration::from_secs(5);
/// Longest URL of an issuer, in bytes.
pub const ISSUER_URL_BYTES_MAX: usize = 2048;
/// Most audiences that an issuer's tokens may be for.
pub const ISSUER_AUDIENCES_MAX: usize = 32;
/// Most entries of a map from an issuer's scopes to ours.
pub const ISSUER_SCOPES_MAX: usize = 128;
/// Most accounts that are granted more than the others.
pub const SERVICE_ACCOUNT_GRANTS_MAX: usize = 1024;

/// Largest set of an issuer's keys, in bytes.
pub const JWKS_BYTES_MAX: usize = 256 * 1024;
/// Most keys in a set.
pub const JWKS_KEYS_MAX: usize = 128;
/// How often an issuer's keys are fetched again.
pub const JWKS_REFRESH_INTERVAL: Duration = Duration::from_mins(5);
/// Shortest time between two fetches for the sake of a key that is not known, whoever names one.
pub const JWKS_UNKNOWN_KEY_PAUSE: Duration = Duration::from_secs(10);
/// Bound on one fetch, and on how long a request waits for it.
pub const JWKS_FETCH_DEADLINE: Duration = Duration::from_secs(5);
/// Shortest pause after a fetch that failed; it doubles.
pub const JWKS_RETRY_PAUSE_MIN: Duration = Duration::from_secs(1);
/// Longest pause after a fetch that failed.
pub const JWKS_RETRY_PAUSE_MAX: Duration = Duration::from_mins(1);
/// How long the last keys stay in use while their issuer cannot be asked: it could not withdraw one either.
pub const JWKS_STALE_MAX: Duration = Duration::from_hours(24);

/// How often the API server is asked who issues the cluster's tokens.
pub const CLUSTER_ISSUER_INTERVAL: Duration = Duration::from_mins(1);
/// Shortest pause before it is asked again when it did not answer; it doubles.
pub const CLUSTER_ISSUER_RETRY_PAUSE_MIN: Duration = Duration::from_secs(1);
/// Bound on one answer of it.
pub const CLUSTER_ISSUER_DEADLINE: Duration = Duration::from_secs(10);

/// Most keys that sealed secrets are opened with.
pub const SEALING_KEYS_MAX: usize = 16;
