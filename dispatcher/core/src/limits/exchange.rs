//! Limits of requests to receivers, and of the access tokens that they carry.

use std::time::Duration;

// --- Outbound exchanges -------------------------------------------------------------------------

/// Most exchanges in flight on the fast track of one process. Receivers that take their time need as many; more measured
/// worse on two cores, where what is in flight has to fit into the caches.
pub const FAST_TRACK_EXCHANGES_MAX: usize = 128;
/// Most exchanges in flight on the slow track of one process; bounds their memory.
pub const SLOW_TRACK_EXCHANGES_MAX: usize = 2048;
/// Most bytes of a response body that are read and kept.
pub const RESPONSE_EXCERPT_BYTES_MAX: usize = 16 * 1024;
/// Default deadline of one exchange.
pub const TIMEOUT_SECONDS_DEFAULT: u32 = 15;
/// Largest deadline of one exchange.
pub const TIMEOUT_SECONDS_MAX: u32 = 60;
/// Most headers in a response; one that has more is not HTTP for us.
pub const RESPONSE_HEADERS_MAX: usize = 100;
/// How long one connection may take to open, look-up and TLS included, within the deadline of the exchange.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Most addresses of one host that are looked at; a name with more is refused.
pub const HOST_ADDRESSES_MAX: usize = 64;
/// Most idle connections kept to one host: as many as the fast track can use, so that none is closed to be opened again a
/// moment later.
pub const IDLE_CONNECTIONS_PER_HOST_MAX: usize = FAST_TRACK_EXCHANGES_MAX;
/// How long an idle connection is kept.
pub const IDLE_CONNECTION_LIFETIME: Duration = Duration::from_mins(1);
/// Pause after which a connection on which nothing happens is probed, and between probes: one that a firewall has forgotten
/// is found before a request is lost on it.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// Probes without an answer after which a connection is given up.
pub const KEEPALIVE_PROBES_MAX: u32 = 3;
/// How long what was sent may stay without an acknowledgement, or the receiver's window closed, until a connection is given
/// up. No probes are sent then, and a receiver that answers and never reads would hold the connection for ever.
pub const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(30);
/// Most bytes of the certificate authorities that one endpoint trusts: those of a whole system fit.
pub const TLS_AUTHORITIES_BYTES_MAX: usize = 256 * 1024;
/// Most certificate authorities that one endpoint trusts.
pub const TLS_AUTHORITIES_MAX: usize = 512;
/// Most bytes of a client certificate with its chain; a receiver need not read more than 64 KiB of them.
pub const TLS_CHAIN_BYTES_MAX: usize = 64 * 1024;
/// Most certificates in the chain of a client certificate.
pub const TLS_CHAIN_CERTIFICATES_MAX: usize = 10;
/// Most bytes of the key of a client certificate; RSA with 16384 bits takes 13 KB.
pub const TLS_KEY_BYTES_MAX: usize = 16 * 1024;
/// Most TLS identities whose clients are kept; each holds its authorities, those of the system some 150 KB.
pub const IDENTITY_CLIENTS_MAX: usize = 512;
/// How long a client of a TLS identity is kept that is not used; at the latest after twice as long it is gone.
pub const IDENTITY_CLIENT_LIFETIME: Duration = Duration::from_mins(5);
/// Most clients of TLS identities that are built at once, on threads for blocking work.
pub const IDENTITY_CLIENT_BUILDS_MAX: usize = 4;
/// Largest pause that a `Retry-After` may ask for.
pub const RETRY_AFTER_MAX: Duration = Duration::from_hours(1);
/// Default bound on exchanges in flight to one endpoint.
pub const MAX_IN_FLIGHT_DEFAULT: u32 = 32;
/// Largest bound on exchanges in flight to one endpoint.
pub const MAX_IN_FLIGHT_MAX: u32 = 256;

// --- Access tokens ------------------------------------------------------------------------------

/// How long a token endpoint may take to answer. Asking goes on when the exchange that wanted the token has given up.
pub const TOKEN_REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// What is kept of an exchange's deadline for the request itself when it waits for a token, as a divisor.
pub const TOKEN_REQUEST_SHARE: u32 = 10;
/// Fewest bytes at the end of an excerpt that are taken for the beginning of an access token that was cut.
pub const TOKEN_PREFIX_BYTES_MIN: usize = 4;
/// Longest access token, in bytes: a common bound of servers on the size of all headers.
pub const ACCESS_TOKEN_BYTES_MAX: usize = 8 * 1024;
/// Longest error code of a token endpoint that is told, in bytes. Those of RFC 6749 have at most 22.
pub const TOKEN_ERROR_CODE_BYTES_MAX: usize = 64;
/// How long an access token is used that does not say when it expires.
pub const TOKEN_LIFETIME_DEFAULT: Duration = Duration::from_mins(5);
/// Shortest lifetime of an access token that is believed: one that claims less must not be asked for at every use.
pub const TOKEN_LIFETIME_MIN: Duration = Duration::from_secs(1);
/// Longest lifetime of an access token that is believed.
pub const TOKEN_LIFETIME_MAX: Duration = Duration::from_hours(24);
/// How long before it expires an access token is used no more: clocks differ, and requests travel.
pub const TOKEN_EXPIRY_MARGIN: Duration = Duration::from_secs(10);
/// How long before an access token is used no more the next one is asked for.
pub const TOKEN_REFRESH_AHEAD: Duration = Duration::from_mins(1);
/// The same two times are no more than this part of a token's lifetime, as a divisor: some live for a minute.
pub const TOKEN_LIFETIME_SHARE: u32 = 5;
/// Pause before a token endpoint is asked again that gave no token; it doubles.
pub const TOKEN_RETRY_PAUSE_MIN: Duration = Duration::from_secs(1);
/// Longest pause before a token endpoint is asked again.
pub const TOKEN_RETRY_PAUSE_MAX: Duration = Duration::from_mins(1);
