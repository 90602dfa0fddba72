//! Limits of the control plane: its plans, what it asks of an API server, and what it tells people.

use std::time::Duration;

// --- Plans --------------------------------------------------------------------------------------

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

// --- Calls --------------------------------------------------------------------------------------

/// Deadline of one call to an API server that writes or reads one object, and of a connection to it. Watches have their
/// own.
pub const API_CALL_DEADLINE: Duration = Duration::from_secs(10);
/// Longest message of an API server that is kept, in bytes.
pub const API_MESSAGE_BYTES_MAX: usize = 512;

// --- Watches ------------------------------------------------------------------------------------

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

// --- Secrets ------------------------------------------------------------------------------------

/// How often a Secret that is there is read again, and one that is to be made here.
pub const SECRET_LOOK_INTERVAL: Duration = Duration::from_mins(5);
/// Pauses before a Secret that is missing, lacks a key that is named or may not be read is looked for again, and before one
/// is made again; the last one stays.
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

// --- Leader election ----------------------------------------------------------------------------

/// How long a Lease holds without being renewed, if nothing else is said.
pub const LEASE_DURATION_DEFAULT: Duration = Duration::from_secs(15);
/// How often a Lease is renewed, if nothing else is said.
pub const LEASE_RENEW_EVERY_DEFAULT: Duration = Duration::from_secs(3);
/// Shortest Lease: it is written in whole seconds, and a renewal must fit into a third of it.
pub const LEASE_DURATION_MIN: Duration = Duration::from_secs(3);
/// Longest Lease that is waited for, whatever the holder wrote.
pub const LEASE_DURATION_MAX: Duration = Duration::from_mins(2);
/// Longest time between two looks of one who waits for the Lease: a Lease that was given up is taken within a second.
pub const LEASE_POLL_MAX: Duration = Duration::from_millis(750);
/// Calls about the Lease that may fail in a row before the process calls itself not ready.
pub const LEASE_FAILURES_TOLERATED: u32 = 1;
/// Deadline of giving the Lease up at a stop.
pub const LEASE_RELEASE_DEADLINE: Duration = Duration::from_secs(3);

// --- Statuses -----------------------------------------------------------------------------------

/// Status writes a second for nothing but facts, of all objects together. A write costs an API server about 4 ms and
/// etcd about 4 kB.
pub const STATUS_FACTS_PER_SECOND: u32 = 20;
/// Status writes at once for nothing but facts, after a quiet time.
pub const STATUS_FACTS_BURST: u32 = 5;
/// Status writes in flight: what keeps an API server from being flooded when many conditions change at once.
pub const STATUS_WRITES_IN_FLIGHT_MAX: usize = 8;
/// Most statuses that wait, of all kinds: one for each object that may exist. Beyond it a status is written when its
/// object is planned again.
pub const STATUSES_WAITING_MAX: usize = 500_000;
/// Within this time the watch has told of a status that was written; the same one is not written again before.
pub const STATUS_SETTLE_TIME: Duration = Duration::from_secs(5);
/// For how long the first status of an object waits that is about to be in effect: dispatchers load it in a second or two,
/// and then one status says all.
pub const STATUS_BEGINNING_PAUSE: Duration = Duration::from_secs(3);
/// First pause after an API server could not be reached; it doubles.
pub const STATUS_RETRY_PAUSE_MIN: Duration = Duration::from_millis(250);
/// Longest pause after an API server could not be reached.
pub const STATUS_RETRY_PAUSE_MAX: Duration = Duration::from_secs(30);
/// Pause after a refusal that only a person can end: a permission, or a definition of another version.
pub const STATUS_REFUSED_PAUSE: Duration = Duration::from_secs(30);
/// How much earlier each step of a change brings its facts: what is small waits longer, but not for ever.
pub const STATUS_FACTS_STEP_BONUS: Duration = Duration::from_secs(10);
/// Most steps that count.
pub const STATUS_FACTS_STEPS_MAX: u16 = 60;
/// How often one class of failures is written to the log.
pub const FAILURE_LOG_INTERVAL: Duration = Duration::from_mins(1);

// --- Kubernetes Events --------------------------------------------------------------------------

/// Events a second, of all objects together.
pub const EVENTS_PER_SECOND: u32 = 10;
/// Events at once, of all objects together.
pub const EVENTS_BURST: u32 = 50;
/// Events at once of one object.
pub const OBJECT_EVENTS_BURST: u32 = 10;
/// After its burst, an object has one Event in this time.
pub const OBJECT_EVENT_INTERVAL: Duration = Duration::from_secs(30);
/// Most Events that wait. Beyond it they are dropped and counted.
pub const EVENTS_WAITING_MAX: usize = 2_000;
/// Most series that are remembered; beyond it the oldest is forgotten and begins anew.
pub const EVENT_SERIES_MAX: usize = 2_000;
/// Most objects whose Events are paced; beyond it the one that was quiet for longest is forgotten.
pub const EVENT_OBJECTS_MAX: usize = 2_000;
/// An Event that comes again within this time belongs to the series.
pub const EVENT_SERIES_TIME: Duration = Duration::from_mins(6);
/// Longest note of an Event, in bytes: what an API server takes.
pub const EVENT_NOTE_BYTES_MAX: usize = 1024;
/// Longest name of the instance that reports an Event, in bytes: what an API server takes.
pub const EVENT_INSTANCE_BYTES_MAX: usize = 128;
/// How often it is looked whether people are to be told what keeps the operator from its work.
pub const NOTICE_INTERVAL: Duration = Duration::from_secs(5);
/// Shortest time between two Events about one part of the operator: what changes its words all the time is told seldom.
pub const NOTICE_REPEAT_MIN: Duration = Duration::from_mins(1);

// --- The process --------------------------------------------------------------------------------

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
