//! Limits of the control plane.

use std::time::Duration;

/// How soon a plan is made again while dispatchers have not loaded a change yet.
pub const PROGRAMMED_LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// Shortest time between two plans: what changes meanwhile is planned together. A plan that takes long is followed by a
/// pause as long as it.
pub const PLAN_INTERVAL_MIN: Duration = Duration::from_millis(100);
/// Most routes that may go at once without a confirmation, however large their share.
pub const REMOVAL_ROUTES_MAX: usize = 50;
/// Largest share of the routes, in percent, that may go at once without a confirmation, however many they are.
pub const REMOVAL_PERCENT_MAX: usize = 20;
/// Removals within this time count as one.
pub const REMOVAL_WINDOW: Duration = Duration::from_secs(10);
/// How often the Lease is read for a confirmation while a removal waits for one.
pub const CONFIRMATION_LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// How often the ledger is asked for its table, its dispatchers and the disabled endpoints.
pub const LEDGER_LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// How often the ledger is asked what endpoints did.
pub const FACTS_LOOK_INTERVAL: Duration = Duration::from_secs(10);
/// Deadline of one request to the API server; watches have their own.
pub const KUBERNETES_REQUEST_DEADLINE: Duration = Duration::from_secs(10);
/// Seconds after which the API server ends a watch, which then goes on where it was.
pub const WATCH_SECONDS_MAX: u32 = 60;
/// For how long a connection to the API server may stay silent.
pub const KUBERNETES_SILENCE_MAX: Duration = Duration::from_secs(75);
/// Objects in one page of a list.
pub const WATCH_PAGE_OBJECTS_MAX: u32 = 500;
/// Shortest and longest pause before a watch that failed is tried again.
pub const WATCH_RETRY_PAUSE_MIN: Duration = Duration::from_millis(500);
/// See [`WATCH_RETRY_PAUSE_MIN`].
pub const WATCH_RETRY_PAUSE_MAX: Duration = Duration::from_secs(15);
/// How often the identity of a namespace is asked for where namespaces are not watched.
pub const NAMESPACE_LOOK_INTERVAL: Duration = Duration::from_mins(1);
/// How often a Secret that is there is read again.
pub const SECRET_LOOK_INTERVAL: Duration = Duration::from_mins(5);
/// Pauses before a Secret that is missing, or may not be read, is looked for again; the last one stays.
pub const SECRET_RETRY_PAUSES: [Duration; 6] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(20),
    Duration::from_secs(30),
];
/// Secrets that are read at once.
pub const SECRET_READS_MAX: usize = 16;
/// Secrets with signing keys that are made at once.
pub const SECRET_MAKES_MAX: usize = 8;
/// Deadline of one read of a Secret.
pub const SECRET_READ_DEADLINE: Duration = Duration::from_secs(5);
/// Connections of the operator to the database, unless it is told otherwise.
pub const OPERATOR_LEDGER_CONNECTIONS_MAX: u32 = 6;
/// Seconds after which everything is listed anew, unless it is told otherwise.
pub const RESYNC_SECONDS_DEFAULT: u32 = 600;
/// Fewest such seconds.
pub const RESYNC_SECONDS_MIN: u32 = 10;
/// Most such seconds.
pub const RESYNC_SECONDS_MAX: u32 = 24 * 60 * 60;
/// Most namespaces that are watched one by one.
pub const WATCHED_NAMESPACES_MAX: usize = 100;
/// How long a stop of the operator may take.
pub const OPERATOR_STOP_DEADLINE: Duration = Duration::from_secs(15);
