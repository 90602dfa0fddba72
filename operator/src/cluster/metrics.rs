//! All metrics of the operator. Their names stand nowhere else in the code.
//!
//! Label values come from closed sets only: methods take the enums, so no name or identity of a tenant can become one.

mod labels;

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use crds::Kind;
use dispatcher_core::limits::POOLS_MAX;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

pub use self::labels::{EventResult, Publication, SecretResult, TroubledPart, Watched};
use super::failure::FailureClass;
use super::lease::Leadership;
use super::watch::WatchFailure;
use crate::plan::StatusChange;

/// What is measured of a pool.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolGauges {
    /// The pool.
    pub pool: String,
    /// Deliveries that are late and wait behind no gate.
    pub late: u64,
    /// Deliveries accepted a second.
    pub accepted_per_second: f64,
    /// Deliveries that succeeded a second.
    pub delivered_per_second: f64,
    /// Dispatchers that deliver.
    pub running: u32,
    /// Dispatchers that the load asks for.
    pub wanted: u32,
}

/// The metrics, and the registry that renders them. Every method is cheap and never blocks for long.
#[derive(Debug)]
pub struct OperatorMetrics {
    registry: Registry,
    leader: Gauge,
    epoch: Gauge,
    troubles: Family<PartLabels, Gauge>,
    objects: Family<KindLabels, Gauge>,
    plan_duration: Histogram,
    publications: Family<ResultLabels, Counter>,
    table_version: Gauge,
    pending_removal: Gauge,
    status_writes: Family<ChangeLabels, Counter>,
    status_failures: Family<ClassLabels, Counter>,
    statuses_waiting: Family<ChangeLabels, Gauge>,
    events: Family<ResultLabels, Counter>,
    secrets: Family<ResultLabels, Counter>,
    watch_restarts: Family<WatchLabels, Counter>,
    pool_late: Family<PoolLabels, Gauge>,
    pool_accepted: Family<PoolLabels, Gauge<f64, AtomicU64>>,
    pool_delivered: Family<PoolLabels, Gauge<f64, AtomicU64>>,
    pool_running: Family<PoolLabels, Gauge>,
    pool_wanted: Family<PoolLabels, Gauge>,
}

/// The one label that is not from a closed set: pools are set up by whoever runs the installation, and few.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PoolLabels {
    pool: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PartLabels {
    part: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ChangeLabels {
    change: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClassLabels {
    class: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WatchLabels {
    resource: &'static str,
    reason: &'static str,
}

impl Default for OperatorMetrics {
    fn default() -> Self {
        Self::new()
    }
}

impl OperatorMetrics {
    /// All metrics, at zero.
    pub fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("harborhook_operator"),
            leader: Gauge::default(),
            epoch: Gauge::default(),
            troubles: Family::default(),
            objects: Family::default(),
            // 1 ms to 33 s.
            plan_duration: Histogram::new(exponential_buckets(0.001, 2.0, 16)),
            publications: Family::default(),
            table_version: Gauge::default(),
            pending_removal: Gauge::default(),
            status_writes: Family::default(),
            status_failures: Family::default(),
            statuses_waiting: Family::default(),
            events: Family::default(),
            secrets: Family::default(),
            watch_restarts: Family::default(),
            pool_late: Family::default(),
            pool_accepted: Family::default(),
            pool_delivered: Family::default(),
            pool_running: Family::default(),
            pool_wanted: Family::default(),
        };
        metrics.register_plan();
        metrics.register_cluster();
        metrics.register_pools();
        metrics
    }

    /// Whether this process leads, and with which epoch.
    pub fn set_leadership(&self, leadership: Leadership) {
        if let Leadership::Leader { epoch } = leadership {
            self.epoch.set(i64::try_from(epoch).unwrap_or(i64::MAX));
        }
        self.leader.set(i64::from(leadership != Leadership::Follower));
    }

    /// How many objects of a kind there are.
    pub fn set_objects(&self, kind: Kind, count: usize) {
        self.objects.get_or_create(&KindLabels { kind: kind.as_str() }).set(as_i64(count));
    }

    /// A plan was made.
    pub fn planned(&self, duration: Duration) {
        self.plan_duration.observe(duration.as_secs_f64());
    }

    /// The publication of a routing table ended.
    pub fn publication_ended(&self, end: Publication) {
        self.publications.get_or_create(&ResultLabels { result: end.as_str() }).inc();
    }

    /// The published routing table has this version.
    pub fn set_table_version(&self, version: u64) {
        self.table_version.set(i64::try_from(version).unwrap_or(i64::MAX));
    }

    /// So many routes wait for somebody to confirm that they shall be removed.
    pub fn set_pending_removal(&self, routes: usize) {
        self.pending_removal.set(as_i64(routes));
    }

    /// So many things keep a part of the process from its work.
    pub fn set_troubles(&self, part: TroubledPart, count: usize) {
        self.troubles.get_or_create(&PartLabels { part: part.as_str() }).set(as_i64(count));
    }

    /// A status was written.
    pub fn status_written(&self, change: StatusChange) {
        self.status_writes.get_or_create(&ChangeLabels { change: change.as_str() }).inc();
    }

    /// A status was not written.
    pub fn status_failed(&self, class: FailureClass) {
        self.status_failures.get_or_create(&ClassLabels { class: class.as_str() }).inc();
    }

    /// So many statuses wait to be written, with changed conditions and with nothing but facts.
    pub(super) fn set_statuses_waiting(&self, conditions: usize, facts: usize) {
        for (change, count) in [(StatusChange::Conditions, conditions), (StatusChange::Facts { steps: 0 }, facts)] {
            self.statuses_waiting.get_or_create(&ChangeLabels { change: change.as_str() }).set(as_i64(count));
        }
    }

    /// Something became of so many Events.
    pub fn events_ended(&self, result: EventResult, count: usize) {
        self.events.get_or_create(&ResultLabels { result: result.as_str() }).inc_by(count as u64);
    }

    /// A Secret was read, or made.
    pub fn secret_asked(&self, result: SecretResult) {
        self.secrets.get_or_create(&ResultLabels { result: result.as_str() }).inc();
    }

    /// A watch ended and begins anew.
    pub fn watch_restarted(&self, watched: Watched, reason: WatchFailure) {
        let labels = WatchLabels { resource: watched.as_str(), reason: reason.as_str() };
        self.watch_restarts.get_or_create(&labels).inc();
    }

    /// All pools that there are, the first [`POOLS_MAX`] of them; others are forgotten.
    pub fn set_pools(&self, pools: &[PoolGauges]) {
        self.pool_late.clear();
        self.pool_accepted.clear();
        self.pool_delivered.clear();
        self.pool_running.clear();
        self.pool_wanted.clear();
        for gauges in pools.iter().take(POOLS_MAX) {
            let labels = PoolLabels { pool: gauges.pool.clone() };
            self.pool_late.get_or_create(&labels).set(i64::try_from(gauges.late).unwrap_or(i64::MAX));
            self.pool_accepted.get_or_create(&labels).set(gauges.accepted_per_second);
            self.pool_delivered.get_or_create(&labels).set(gauges.delivered_per_second);
            self.pool_running.get_or_create(&labels).set(i64::from(gauges.running));
            self.pool_wanted.get_or_create(&labels).set(i64::from(gauges.wanted));
        }
    }

    /// The metrics in the OpenMetrics 1.0 text format.
    pub fn render(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        text::encode(&mut text, &self.registry)?;
        Ok(text)
    }

    fn register_plan(&mut self) {
        let registry = &mut self.registry;
        registry.register("objects", "Resources that are known", self.objects.clone());
        registry.register_with_unit(
            "plan_duration",
            "Duration of making a plan",
            Unit::Seconds,
            self.plan_duration.clone(),
        );
        registry.register("table_publications", "Publications of the routing table", self.publications.clone());
        registry.register("table_version", "Version of the published routing table", self.table_version.clone());
        registry.register(
            "pending_removal_routes",
            "Routes whose removal waits for a confirmation",
            self.pending_removal.clone(),
        );
    }

    fn register_pools(&mut self) {
        let registry = &mut self.registry;
        let late = "Deliveries of a pool that are late and wait behind no gate";
        registry.register("pool_late_deliveries", late, self.pool_late.clone());
        let accepted = "Deliveries accepted for a pool, a second";
        registry.register("pool_accepted_per_second", accepted, self.pool_accepted.clone());
        let delivered = "Deliveries of a pool that succeeded, a second";
        registry.register("pool_delivered_per_second", delivered, self.pool_delivered.clone());
        registry.register("pool_dispatchers", "Dispatchers that deliver for a pool", self.pool_running.clone());
        let wanted = "Dispatchers that the load of a pool asks for";
        registry.register("pool_wanted_dispatchers", wanted, self.pool_wanted.clone());
    }

    fn register_cluster(&mut self) {
        let registry = &mut self.registry;
        registry.register("leader", "1 in the process that leads", self.leader.clone());
        registry.register("epoch", "Epoch with which this process leads or led", self.epoch.clone());
        registry.register("troubles", "What keeps the operator from its work", self.troubles.clone());
        registry.register("status_writes", "Statuses written", self.status_writes.clone());
        registry.register("status_failures", "Status writes that failed", self.status_failures.clone());
        registry.register("statuses_waiting", "Statuses that wait to be written", self.statuses_waiting.clone());
        registry.register("events", "Kubernetes Events", self.events.clone());
        registry.register("secret_requests", "Secrets read and made", self.secrets.clone());
        registry.register("watch_restarts", "Watches that began anew", self.watch_restarts.clone());
    }
}

fn as_i64(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
