//! Every limit of the data plane, with the reason for its size. Nothing else in the code invents one.

mod access;
mod broker;
mod control;
mod exchange;
mod pools;
mod replays;
mod tools;

use std::time::Duration;

pub use self::access::*;
pub use self::broker::*;
pub use self::control::*;
pub use self::exchange::*;
pub use self::pools::*;
pub use self::replays::*;
pub use self::tools::*;

// --- What a producer may send -------------------------------------------------------------------

/// Largest request body that ingest reads, in bytes.
pub const REQUEST_BODY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Largest body of one event, in bytes. Receivers commonly refuse more than a megabyte.
pub const EVENT_BODY_BYTES_MAX: usize = 1024 * 1024;
/// Deepest nesting of JSON in a request: beyond it parsers recurse.
pub const JSON_DEPTH_MAX: usize = 64;
/// Most events in one CloudEvents batch.
pub const BATCH_EVENTS_MAX: usize = 256;
/// Longest event type, in bytes.
pub const EVENT_TYPE_BYTES_MAX: usize = 128;
/// Most segments in an event type or a pattern.
pub const EVENT_TYPE_SEGMENTS_MAX: usize = 16;
/// Longest recipient, in bytes.
pub const RECIPIENT_BYTES_MAX: usize = 128;
/// Longest idempotency key, in bytes.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;
/// How long an idempotency key is remembered.
pub const IDEMPOTENCY_KEY_LIFETIME: Duration = Duration::from_hours(24);
/// Most CloudEvents attributes of one event, extensions included.
pub const ATTRIBUTES_MAX: usize = 32;
/// Longest name of a CloudEvents attribute, in bytes (CloudEvents 1.0 recommends 20).
pub const ATTRIBUTE_NAME_BYTES_MAX: usize = 32;
/// Longest value of a CloudEvents attribute, in bytes.
pub const ATTRIBUTE_VALUE_BYTES_MAX: usize = 1024;
/// Most deliveries of one event.
pub const FANOUT_MAX: usize = 4096;
/// Most deliveries of the events of one request: four of the largest events, so that one commit can take them.
pub const REQUEST_TARGETS_MAX: usize = 16_384;

// --- Filters and transforms ---------------------------------------------------------------------

/// Longest CEL filter, in bytes.
pub const FILTER_BYTES_MAX: usize = 1024;
/// Most nodes in a compiled CEL filter.
pub const FILTER_NODES_MAX: usize = 256;
/// Most evaluation steps of a filter on one event; like the per-call limit of an API server, about 0.1 s.
pub const FILTER_COST_MAX: u64 = 1_000_000;
/// Most evaluation steps of all filters on one event, about 0.4 s; filters beyond it fail.
pub const EVENT_FILTERS_COST_MAX: u64 = 4_000_000;
/// Most evaluation steps of all filters on all events of one request, about 0.8 s.
pub const REQUEST_FILTERS_COST_MAX: u64 = 8_000_000;
/// Longest CEL transform, in bytes: it spells out a document.
pub const TRANSFORM_BYTES_MAX: usize = 4096;
/// Most nodes in a compiled CEL transform.
pub const TRANSFORM_NODES_MAX: usize = 512;
/// Most evaluation steps of a transform on one event, about 0.1 s.
pub const TRANSFORM_COST_MAX: u64 = 1_000_000;
/// Largest result of a transform, in bytes: as large as a payload may be.
pub const TRANSFORM_RESULT_BYTES_MAX: usize = EVENT_BODY_BYTES_MAX;
/// Most transforms at once that run on threads for blocking work.
pub const TRANSFORM_THREADS_MAX: usize = 2;
/// Most bytes of results that wait to be sent, of cheap transforms and once more of costly ones; a costly one counts as
/// the largest until it is known.
pub const TRANSFORM_RESULTS_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Most bytes of transforms' results that one dry run of routing shows.
pub const TRANSFORM_RESULTS_SHOWN_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Deepest nesting of brackets, unary operators and conditionals in an expression: the parser recurses.
pub const EXPRESSION_DEPTH_MAX: usize = 16;
/// Deepest tree of a compiled expression, chains of operators and fields included: its evaluation recurses.
pub const EXPRESSION_TREE_DEPTH_MAX: usize = 128;
/// Largest compiled regular expression in an expression, in bytes; `\w` alone takes some 35 KiB.
pub const EXPRESSION_REGEX_BYTES_MAX: usize = 1024 * 1024;
/// Most evaluation steps on a thread that serves others too, about 1 ms.
pub const EXPRESSIONS_INLINE_COST_MAX: u64 = 10_000;
/// Bytes of a body that are read for expressions in the time of one evaluation step.
pub const EXPRESSION_INPUT_BYTES_PER_STEP: usize = 16;
/// Most requests at once that are routed on threads for blocking work.
pub const ROUTING_THREADS_MAX: usize = 4;

// --- Queue messages and batches -----------------------------------------------------------------

/// Most deliveries in an outbox part, and in a queue message.
pub const MESSAGE_DELIVERIES_MAX: usize = 128;
/// Most bytes of event bodies in a queue message; one event alone may exceed it.
pub const MESSAGE_BODY_BYTES_MAX: usize = 1024 * 1024;
/// How often a message may come back until its work is done one by one: it may hold what takes its consumer down.
pub const MESSAGE_RETURNS_MAX: u32 = 3;
/// Most messages that wait in the in-process queue.
pub const MEMORY_QUEUE_MESSAGES_MAX: usize = 256;
/// Deliveries in one track of the in-process queue beyond which publishers of backlog hold back: what a process
/// finishes in about two seconds, so that no lease ends while its message waits.
pub const MEMORY_QUEUE_DELIVERIES_MAX: usize = 16_384;
/// Most fresh messages that leave the in-process queue in a row while due ones wait: retries get a fourth at least.
pub const FRESH_MESSAGES_IN_A_ROW_MAX: u32 = 3;
/// Most events in one accept transaction.
pub const ACCEPT_BATCH_EVENTS_MAX: usize = 512;
/// Most bytes of event bodies in one accept transaction.
pub const ACCEPT_BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Most outcomes in one record transaction.
pub const RECORD_BATCH_OUTCOMES_MAX: usize = 1024;
/// Outcomes that are committed without waiting for more.
pub const RECORD_BATCH_WANTED: usize = 384;
/// How many times as long as a commit of outcomes took it is waited for more. Two connections that commit wait for each
/// other's writes to the server's log, and producers wait for one of them: it should find the log free most of the time.
pub const RECORD_PAUSE_COMMITS: u32 = 3;
/// Longest wait for more outcomes after a commit: short against a lease, and what is in flight meanwhile fits into what
/// one process may hold.
pub const RECORD_PAUSE_MAX: Duration = Duration::from_millis(20);
/// Most targets of events in one accept transaction; the writer is held for as long as writing them takes.
pub const ACCEPT_BATCH_TARGETS_MAX: usize = 32_768;
/// Most requests that wait for an accept transaction; beyond it ingest answers 503.
pub const ACCEPT_WAITING_MAX: usize = 4096;
/// Most targets of events that wait for an accept transaction, some 20 MB; beyond it ingest answers 503.
pub const ACCEPT_WAITING_TARGETS_MAX: usize = 262_144;
/// Most batches of accepted events that are being published; what is accepted beyond them is due at once, and published
/// when there is room. More than are under way with a queue that answers, and bounded in memory.
pub const ACCEPT_PUBLISHING_MAX: usize = 4;
/// Events of a batch, or targets of several, from which on the next one gathers while it is published: fewer say that there
/// is little to do, and then nobody should wait for others.
pub const ACCEPT_CROWD_MIN: usize = 16;
/// Events that are committed without a rest for more.
pub const ACCEPT_BATCH_WANTED: usize = 64;
/// Longest rest after a batch with much to do has been published; it is no longer than its commit took either.
pub const ACCEPT_REST_MAX: Duration = Duration::from_millis(10);
/// Rests that are left out after one during which nothing came.
pub const ACCEPT_RESTS_LEFT_OUT: u32 = 15;
/// How long the writer gathers the next batch while the last one is published, and waits for a place to publish one:
/// usually until it is there.
pub const ACCEPT_PUBLISH_PATIENCE: Duration = Duration::from_millis(25);
/// How long the ledger may take to answer after a commit has failed, until events are refused without asking it.
pub const ACCEPT_LEDGER_LOOK_TIMEOUT: Duration = Duration::from_millis(500);
/// How long the ledger is left alone then, until it is asked again.
pub const ACCEPT_LEDGER_LOOK_PAUSE: Duration = Duration::from_millis(100);
/// Most outcomes that wait for a record transaction; beyond it no new attempt is made.
pub const RECORD_WAITING_MAX: usize = 4096;
/// Most deliveries that one process holds unacknowledged: what it finishes well within a lease.
pub const PREFETCH_DELIVERIES_MAX: usize = 1024;
/// Most deliveries that one claim takes.
pub const CLAIM_DELIVERIES_MAX: usize = 2048;
/// The part of a claim, as a divisor, that due deliveries may always take: a flood of new events leaves retries this
/// much.
pub const CLAIM_DUE_SHARE: usize = 4;
/// Most lanes that one claim visits.
pub const CLAIM_LANES_MAX: usize = 64;
/// Most deliveries that one claim takes from one lane.
pub const CLAIM_LANE_DELIVERIES_MAX: usize = 32;
/// Most lanes with ready work of one tenant that one claim visits, so that no tenant crowds out the others.
pub const CLAIM_TENANT_LANES_MAX: usize = 32;
/// Most ready lanes that one claim looks at to find those that it visits.
pub const CLAIM_LANES_LOOKED_AT_MAX: usize = 512;
/// Most rows of the routing table in one statement.
pub const TABLE_ROWS_PER_STATEMENT_MAX: usize = 1_000;
/// Minutes of endpoint statistics that are kept.
pub const STATISTICS_MINUTES_MAX: u64 = 60;
/// Connections of the embedded ledger that only read.
pub const LEDGER_READERS_MAX: u32 = 4;
/// How long the embedded ledger waits for another process to finish its write.
pub const LEDGER_BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections of one process to the distributed ledger.
pub const LEDGER_POOL_CONNECTIONS_MAX: u32 = 16;
/// How long one statement of the distributed ledger may take.
pub const LEDGER_STATEMENT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a transaction of the distributed ledger may stand idle; it holds locks and keeps dead rows alive.
pub const LEDGER_IDLE_IN_TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait for a connection to the distributed ledger.
pub const LEDGER_ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one call of the distributed ledger may go unanswered, whatever the reason; it is then unclear what became
/// of it. A call that reads whole tables has the time of a statement beside it.
pub const LEDGER_ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one maintenance of the distributed ledger may take; the next one goes on where it ended.
pub const LEDGER_MAINTENANCE_TIMEOUT: Duration = Duration::from_mins(10);
/// How long a change of partitions waits for a lock; whoever comes after it waits too. Three such waits are less than the
/// second after which PostgreSQL looks for deadlocks, so that it is the change that gives way and not a delivery.
pub const LEDGER_PARTITION_LOCK_TIMEOUT: Duration = Duration::from_millis(300);
/// Days for which partitions are made ahead.
pub const LEDGER_PARTITION_DAYS_AHEAD: i32 = 7;
/// How far behind the clock a claim remembers that the outbox is empty: longer than a commit usually takes.
pub const OUTBOX_BOUND_LAG: Duration = Duration::from_secs(5);
/// How long a claim trusts what it remembers of the outbox.
pub const OUTBOX_BOUND_LIFETIME: Duration = Duration::from_mins(1);
/// How long counted attempts wait before they are written.
pub const STATISTICS_FLUSH_INTERVAL: Duration = Duration::from_secs(1);

// --- Time of our own ----------------------------------------------------------------------------

/// Lease of published work: how long before somebody else may take it over.
pub const LEASE: Duration = Duration::from_secs(5);
/// Shortest pause before the ledger is asked again after it did not answer; it doubles.
pub const LEDGER_RETRY_PAUSE_MIN: Duration = Duration::from_millis(50);
/// Shortest pause before the queue is consumed anew after it was lost; it doubles.
pub const CONSUME_RETRY_PAUSE_MIN: Duration = Duration::from_millis(100);
/// Shortest pause between two claims of which the first found nothing.
pub const DUE_IDLE_PAUSE_MIN: Duration = Duration::from_millis(5);
/// How long a claim waits for a queue that is as deep as it should be.
pub const DUE_FULL_PAUSE: Duration = Duration::from_millis(25);
/// How often it is told that this machine lacks something for its exchanges.
pub const SHORTAGE_LOG_INTERVAL: Duration = Duration::from_secs(10);
/// How long an exchange may hold a fast permit before it moves to the slow track.
pub const SOFT_BUDGET: Duration = Duration::from_secs(1);
/// Part of a lease that is kept free for recording.
pub const LEASE_MARGIN: Duration = Duration::from_secs(1);
/// Longest pause between two looks for due work.
pub const DUE_POLL_INTERVAL: Duration = Duration::from_millis(250);
/// Longest pause before a ledger that did not answer is asked again.
pub const LEDGER_RETRY_PAUSE_MAX: Duration = Duration::from_secs(2);
/// How long what waits for an endpoint that cannot be used (its secrets do not open, no key is in force) is left alone.
pub const UNUSABLE_ENDPOINT_PAUSE: Duration = Duration::from_secs(10);
/// How often a process tells the ledger that it is alive.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);
/// How soon after a heartbeat another one may tell of a table that was loaded since: the operator waits to hear of it.
pub const HEARTBEAT_NEWS_INTERVAL: Duration = Duration::from_millis(100);
/// Longest pause between two heartbeats that does not break their row: one may come late, or be lost.
pub const HEARTBEAT_GAP_MAX: Duration = Duration::from_secs(2);
/// Silence after which a process counts as dead: what it holds in flight is taken back. More than the gap, so that no
/// process is called dead by those who could not reach the ledger either.
pub const HEARTBEAT_DEAD_AFTER: Duration = Duration::from_secs(3);
/// Silence after which a process is forgotten: longer than any lease.
pub const HEARTBEAT_FORGOTTEN_AFTER: Duration = Duration::from_mins(10);
/// Most processes that are listed.
pub const DISPATCHERS_READ_MAX: u32 = 1000;
/// Largest difference between a process's clock and the ledger's with which it counts as ready.
pub const CLOCK_OFFSET_MAX: Duration = Duration::from_secs(1);
/// How long a drain waits for exchanges in flight.
pub const DRAIN_DEADLINE: Duration = Duration::from_secs(30);
/// How long what waits for a deleted endpoint, or because of a deleted subscription, is held before it is cancelled.
pub const DELETION_GRACE: Duration = Duration::from_mins(10);
/// How long a delivery whose subscription is deleted is left alone at least before it is looked at again: created anew,
/// the subscription adopts it by then. The wait grows with the absence: some five looks within [`DELETION_GRACE`], each
/// of which costs the ledger a claim and a rewrite. For a million deliveries that is 8,000 a second on average.
pub const DELETED_SUBSCRIPTION_PAUSE: Duration = Duration::from_mins(1);

// --- Retries ------------------------------------------------------------------------------------

/// Largest delay between two attempts, in seconds.
pub const RETRY_DELAY_SECONDS_MAX: u32 = 7 * 24 * 60 * 60;
/// Most attempts in one run of a delivery.
pub const RETRY_ATTEMPTS_MAX: u32 = 100;
/// Most entries in a retry schedule.
pub const RETRY_SCHEDULE_ENTRIES_MAX: usize = 32;
/// Largest age at which a delivery is still retried, in seconds.
pub const RETRY_AGE_SECONDS_MAX: u32 = 29 * 24 * 60 * 60;

// --- Signing ------------------------------------------------------------------------------------

/// Shortest signing key, in bytes: 128 bits are beyond guessing.
pub const SIGNING_KEY_BYTES_MIN: usize = 16;
/// Longest signing key, in bytes. HMAC-SHA256 hashes what is longer than 64 anyway.
pub const SIGNING_KEY_BYTES_MAX: usize = 512;
/// Most keys that sign one request: the newest, and those that a rotation has not retired yet.
pub const SIGNING_KEYS_MAX: usize = 4;
/// Most signatures in one header that a verification looks at.
pub const SIGNATURES_MAX: usize = 16;

// --- Circuit breaker ----------------------------------------------------------------------------

/// Buckets that a breaker's window consists of; results leave it in steps of a tenth of its length.
pub const BREAKER_BUCKETS: usize = 10;
/// Pause before asking again while all probes of a half-open circuit are out.
pub const BREAKER_PROBE_WAIT: Duration = Duration::from_secs(1);

// --- Admission and reading ----------------------------------------------------------------------

/// Most open deliveries of one tenant before ingest answers 429.
pub const TENANT_BACKLOG_DELIVERIES_MAX: u64 = 1_000_000;
/// Most open, ungated deliveries in all before ingest answers 503.
pub const BACKLOG_DELIVERIES_MAX: u64 = 5_000_000;
/// Rows of a page when the request does not say.
pub const PAGE_ROWS_DEFAULT: u32 = 50;
/// Most rows of a page.
pub const PAGE_ROWS_MAX: u32 = 500;
/// Most bytes of one query string.
pub const QUERY_BYTES_MAX: usize = 4096;
/// Most targets that one dry run of routing explains.
pub const EXPLANATIONS_MAX: usize = 1000;
/// Most attempts that one request reads.
pub const ATTEMPTS_READ_MAX: u32 = 1000;
/// How often the backlog is counted for admission.
pub const BACKLOG_POLL_INTERVAL: Duration = Duration::from_secs(1);
/// How often what is over is removed: idempotency keys, deliveries of deleted endpoints.
pub const HOUSEKEEPING_INTERVAL: Duration = Duration::from_secs(5);
/// Most rows that one step of housekeeping removes.
pub const HOUSEKEEPING_ROWS_MAX: u32 = 1000;

/// How often the days of a ledger with partitions are looked after.
pub const MAINTENANCE_INTERVAL: Duration = Duration::from_mins(5);
/// How soon that is tried again after it failed.
pub const MAINTENANCE_RETRY_PAUSE: Duration = Duration::from_secs(30);
/// Days that a ledger with partitions keeps what is finished, if nothing else is said: the oldest delivery that is
/// still retried, and a day.
pub const RETENTION_DAYS_DEFAULT: u32 = RETRY_AGE_SECONDS_MAX / (24 * 60 * 60) + 1;
/// Most days that can be asked for.
pub const RETENTION_DAYS_MAX: u32 = 3650;

// --- Serving HTTP -------------------------------------------------------------------------------

/// Most connections of one listener; further ones wait in the kernel.
pub const CONNECTIONS_MAX: usize = 4096;
/// Most bytes of a request's head; also the size of a connection's read buffer.
pub const REQUEST_HEAD_BYTES_MAX: usize = 64 * 1024;
/// Most headers of a request.
pub const REQUEST_HEADERS_MAX: usize = 128;
/// How long a connection may take to send a request's head; also how long it may stay idle.
pub const REQUEST_HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Most bytes of request bodies in memory at once; beyond it ingest answers 503.
pub const REQUEST_BODIES_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Most bytes of a refused body that are read and dropped, so that the client sees the answer and not a reset.
pub const REQUEST_DISCARD_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How long a request's body may take to arrive.
pub const REQUEST_BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the ledger may take to answer before the process says that it is not ready.
pub const READINESS_DEADLINE: Duration = Duration::from_secs(2);
/// How long there may be work of which nothing gets done before the process says that it is not ready: twice what
/// the slowest delivery takes to be recorded, or handed to the slow track.
pub const PROGRESS_DEADLINE: Duration = Duration::from_secs(10);
/// How long a failed commit of events counts while no other follows: a process that is not ready gets no events, so only
/// time can make it ready again.
pub const ACCEPT_FAILURE_MEMORY: Duration = Duration::from_secs(3);
/// How long claimed work that was not published counts: longer than a lease, after which it is claimed again, and
/// shorter than [`PROGRESS_DEADLINE`], so that one message that the queue did not confirm is no stall.
pub const UNPUBLISHED_MEMORY: Duration = Duration::from_secs(8);
/// How often it is looked whether there is progress.
pub const PROGRESS_LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// How long a request waits for a process that is starting before it is answered with 503.
pub const START_PATIENCE: Duration = Duration::from_secs(5);
/// Most observed deliveries that a slow observer may lag behind before it misses some.
pub const OBSERVED_WAITING_MAX: usize = 4096;
/// Pause after a connection could not be accepted: out of file descriptors, most likely, and trying at once would spin.
pub const ACCEPT_CONNECTION_PAUSE: Duration = Duration::from_millis(50);
/// Seconds after which a client should try again when the service is short of something.
pub const RETRY_AFTER_SECONDS: u32 = 1;
/// Seconds after which a client should try again when its own tenant has too much open.
pub const BACKLOG_RETRY_AFTER_SECONDS: u32 = 10;
/// How long a shutdown waits for requests in flight.
pub const SERVER_DRAIN_DEADLINE: Duration = Duration::from_secs(10);

// --- Starting and stopping ----------------------------------------------------------------------

/// Shortest pause before a server that could not be reached at the start is tried again; it doubles.
pub const START_RETRY_PAUSE_MIN: Duration = Duration::from_millis(100);
/// Longest pause before a server that could not be reached at the start is tried again.
pub const START_RETRY_PAUSE_MAX: Duration = Duration::from_secs(2);
/// How long a migration waits for a database that cannot be reached.
pub const MIGRATE_PATIENCE: Duration = Duration::from_secs(30);
/// Seconds for everything that a stop waits for, if nothing else is said: within the 30 that Kubernetes grants.
pub const DRAIN_SECONDS_DEFAULT: u32 = 25;
/// Most seconds that a stop can be given.
pub const DRAIN_SECONDS_MAX: u32 = 3600;
/// Most connections to the database that a process can be given.
pub const LEDGER_POOL_CONNECTIONS_LIMIT: u32 = 1024;
/// Fewest: one for heartbeats, one that is told of new routing tables, and two, so that reading pages and maintenance leave
/// one for the work.
pub const LEDGER_POOL_CONNECTIONS_MIN: u32 = 4;
/// Most bytes of a certificate or key file.
pub const CERTIFICATE_FILE_BYTES_MAX: u64 = 1024 * 1024;

// --- Routing table ------------------------------------------------------------------------------

/// How often the routing table is looked at for changes.
pub const SNAPSHOT_POLL_INTERVAL: Duration = Duration::from_secs(1);
/// How often a process that works in a file looks whether the operator has written another routing table into it.
pub const SNAPSHOT_POLL_INTERVAL_EMBEDDED: Duration = Duration::from_millis(200);
/// Most rows that are compiled without moving to a thread for blocking work.
pub const SNAPSHOT_INLINE_ROWS_MAX: usize = 500;
/// Most endpoints in a routing table.
pub const ENDPOINTS_MAX: usize = 200_000;
/// Most subscriptions in a routing table.
pub const SUBSCRIPTIONS_MAX: usize = 200_000;
