//! All metrics of the data plane. Their names stand nowhere else in the code.
//!
//! Label values come from closed sets only: methods take the enums, so no name, identity or event type of a tenant
//! can become one.

mod access;
mod work;

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use dispatcher_core::delivery::Outcome;
use dispatcher_core::expression::ExpressionErrorReason;
use dispatcher_core::table::TableVersion;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use self::access::Tokens;
pub(crate) use self::work::Counted;
use self::work::Work;
pub use self::work::WorkCounts;
use crate::problem::ProblemKind;
use crate::queue::QueueCounts;

/// Which part of the process met trouble with the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Accepts events.
    Ingest,
    /// Delivers.
    Deliver,
    /// Claims what is due.
    Due,
    /// Loads the routing table.
    Snapshot,
    /// Answers reading requests.
    Api,
    /// Expires what is over.
    Housekeeping,
    /// Tells the ledger that the process lives.
    Heartbeat,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 7] =
        [Self::Ingest, Self::Deliver, Self::Due, Self::Snapshot, Self::Api, Self::Housekeeping, Self::Heartbeat];

    /// The stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Deliver => "deliver",
            Self::Due => "due",
            Self::Snapshot => "snapshot",
            Self::Api => "api",
            Self::Housekeeping => "housekeeping",
            Self::Heartbeat => "heartbeat",
        }
    }
}

/// The metrics, and the registry that renders them. Every method is cheap and never blocks for long.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    accepted_events: Counter,
    accepted_deliveries: Counter,
    repeated_events: Counter,
    rejected_requests: Family<ReasonLabels, Counter>,
    attempts: Family<OutcomeLabels, Counter>,
    attempt_duration: Histogram,
    accept_batch_events: Histogram,
    record_batch_changes: Histogram,
    superseded_changes: Counter,
    publish_failures: Family<RoleLabels, Counter>,
    ledger_errors: Family<RoleLabels, Counter>,
    backlog_deliveries: Gauge,
    table_version: Gauge,
    route_problems: Gauge,
    clock_offset: Gauge<f64, AtomicU64>,
    filter_errors: Family<ReasonLabels, Counter>,
    queue_failures: Family<ReasonLabels, Counter>,
    work: Work,
    tokens: Tokens,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RoleLabels {
    role: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All metrics, at zero.
    pub fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("harborhook"),
            accepted_events: Counter::default(),
            accepted_deliveries: Counter::default(),
            repeated_events: Counter::default(),
            rejected_requests: Family::default(),
            attempts: Family::default(),
            // 1 ms to 65 s, which is beyond the longest deadline.
            attempt_duration: Histogram::new(exponential_buckets(0.001, 2.0, 17)),
            accept_batch_events: Histogram::new(exponential_buckets(1.0, 2.0, 10)),
            record_batch_changes: Histogram::new(exponential_buckets(1.0, 2.0, 11)),
            superseded_changes: Counter::default(),
            publish_failures: Family::default(),
            ledger_errors: Family::default(),
            backlog_deliveries: Gauge::default(),
            table_version: Gauge::default(),
            route_problems: Gauge::default(),
            clock_offset: Gauge::default(),
            filter_errors: Family::default(),
            queue_failures: Family::default(),
            work: Work::default(),
            tokens: Tokens::default(),
        };
        metrics.register_ingest();
        metrics.register_deliver();
        metrics.register_state();
        metrics.work.register(&mut metrics.registry);
        metrics.tokens.register(&mut metrics.registry);
        metrics
    }

    /// An event was committed, with this many targets.
    pub fn event_accepted(&self, fanout_count: u32) {
        self.accepted_events.inc();
        self.accepted_deliveries.inc_by(fanout_count.into());
    }

    /// An event had been accepted before, under the same idempotency key.
    pub fn event_repeated(&self) {
        self.repeated_events.inc();
    }

    /// A request was answered with a problem.
    pub fn request_rejected(&self, reason: ProblemKind) {
        self.rejected_requests.get_or_create(&ReasonLabels { reason: reason.as_str() }).inc();
    }

    /// An attempt ended. One that had nothing to send took no time of an exchange.
    pub fn attempt_ended(&self, outcome: Outcome, duration: Duration) {
        self.attempts.get_or_create(&OutcomeLabels { outcome: outcome.as_str() }).inc();
        if outcome.is_about_endpoint() {
            self.attempt_duration.observe(duration.as_secs_f64());
        }
    }

    /// An accept transaction of this many events was committed.
    pub fn accept_committed(&self, events: usize) {
        self.accept_batch_events.observe(as_f64(events));
    }

    /// A record transaction of this many changes was committed; of these, so many were superseded.
    pub fn record_committed(&self, changes: usize, superseded: usize) {
        self.record_batch_changes.observe(as_f64(changes));
        self.superseded_changes.inc_by(superseded as u64);
        self.work.recorded(changes);
    }

    /// The scheduler claimed this many deliveries.
    pub fn due_claimed(&self, deliveries: usize) {
        self.work.claimed(deliveries);
    }

    /// The queue did not take a message on; its work stays in the ledger.
    pub fn publish_failed(&self, role: Role) {
        self.publish_failures.get_or_create(&RoleLabels { role: role.as_str() }).inc();
    }

    /// The ledger did not do what it was asked.
    pub fn ledger_failed(&self, role: Role) {
        self.ledger_errors.get_or_create(&RoleLabels { role: role.as_str() }).inc();
    }

    /// Where the work that goes through this process is counted.
    pub(crate) fn work(&self) -> &Work {
        &self.work
    }

    /// What is counted of the work that goes through this process.
    pub fn work_counts(&self) -> WorkCounts {
        self.work.counts()
    }

    /// Open deliveries, as last counted.
    pub fn set_backlog(&self, deliveries: u64) {
        self.backlog_deliveries.set(i64::try_from(deliveries).unwrap_or(i64::MAX));
    }

    /// The routing table that is in use, and how many of its rows could not be compiled.
    pub fn set_table(&self, version: TableVersion, problems: usize) {
        self.table_version.set(i64::try_from(version.0).unwrap_or(i64::MAX));
        self.route_problems.set(i64::try_from(problems).unwrap_or(i64::MAX));
    }

    /// What went wrong with messages since the start.
    pub fn set_queue_counts(&self, counts: QueueCounts) {
        for (reason, count) in counts.by_name() {
            let counter = self.queue_failures.get_or_create(&ReasonLabels { reason });
            counter.inc_by(count.saturating_sub(counter.get()));
        }
    }

    /// Milliseconds that the ledger's clock is ahead of the process's.
    #[expect(clippy::cast_precision_loss, reason = "clocks differ by far less than 2^52 ms")]
    pub fn set_clock_offset(&self, milliseconds: i64) {
        self.clock_offset.set(milliseconds as f64 / 1000.0);
    }

    /// A filter failed on an event; its subscription did not match.
    pub fn filter_failed(&self, reason: ExpressionErrorReason) {
        self.filter_errors.get_or_create(&ReasonLabels { reason: reason.as_str() }).inc();
    }

    /// The metrics in the OpenMetrics 1.0 text format.
    pub fn render(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        text::encode(&mut text, &self.registry)?;
        Ok(text)
    }

    fn register_ingest(&mut self) {
        let registry = &mut self.registry;
        registry.register("accepted_events", "Events committed", self.accepted_events.clone());
        registry.register("accepted_deliveries", "Targets of committed events", self.accepted_deliveries.clone());
        registry.register("repeated_events", "Events accepted before, by key", self.repeated_events.clone());
        registry.register("rejected_requests", "Requests answered with a problem", self.rejected_requests.clone());
        registry.register("accept_batch_events", "Events in a commit of ingest", self.accept_batch_events.clone());
        registry.register("filter_errors", "Filters that failed on an event", self.filter_errors.clone());
    }

    fn register_deliver(&mut self) {
        let registry = &mut self.registry;
        registry.register("attempts", "Attempts by result", self.attempts.clone());
        registry.register_with_unit(
            "attempt_duration",
            "Duration of attempts, answer included",
            Unit::Seconds,
            self.attempt_duration.clone(),
        );
        registry.register("record_batch_changes", "Changes in a commit of outcomes", self.record_batch_changes.clone());
        registry.register("superseded_changes", "Changes of stale holders", self.superseded_changes.clone());
        registry.register("queue_failures", "Messages that went wrong in the queue", self.queue_failures.clone());
        registry.register("publish_failures", "Messages the queue did not take on", self.publish_failures.clone());
    }

    fn register_state(&mut self) {
        let registry = &mut self.registry;
        registry.register("ledger_errors", "Requests that the ledger did not carry out", self.ledger_errors.clone());
        registry.register("backlog_deliveries", "Open deliveries not gated", self.backlog_deliveries.clone());
        registry.register("table_version", "Version of the routing table in use", self.table_version.clone());
        registry.register("route_problems", "Rows of the table that do not compile", self.route_problems.clone());
        registry.register_with_unit(
            "clock_offset",
            "How far the ledger's clock is ahead of the process's",
            Unit::Seconds,
            self.clock_offset.clone(),
        );
    }
}

#[expect(clippy::cast_precision_loss, reason = "sizes of batches are far below 2^52")]
fn as_f64(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests;
