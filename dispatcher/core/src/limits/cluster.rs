//! Limits of what the operator asks of an API server, and of its metrics' times.

use std::time::Duration;

// --- Calls --------------------------------------------------------------------------------------

/// Deadline of one call to an API server that writes or reads one object.
pub const API_CALL_DEADLINE: Duration = Duration::from_secs(10);
/// Longest message of an API server that is kept, in bytes.
pub const API_MESSAGE_BYTES_MAX: usize = 512;

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
