//! Counts of the work that goes through a delivering process: what it holds, and whether anything gets done.

use std::sync::atomic::AtomicI64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Work as numbers. Those that count what has happened only rise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkCounts {
    /// Deliveries that were received from the queue and not acknowledged or given back.
    pub held: u64,
    /// Deliveries in flight on the slow track.
    pub slow: u64,
    /// Messages received from the queue.
    pub received: u64,
    /// Changes recorded.
    pub recorded: u64,
    /// Looks for due work that came to an end.
    pub claims: u64,
    /// Due deliveries claimed.
    pub claimed: u64,
    /// Messages of due work that the queue took on.
    pub published: u64,
}

/// The metrics behind it.
#[derive(Debug, Default)]
pub(crate) struct Work {
    held: Gauge,
    slow: Gauge,
    received: Counter,
    recorded: Counter,
    claims: Counter,
    claimed: Counter,
    published: Counter,
}

/// Counts deliveries for as long as it lives.
pub(crate) struct Counted {
    gauge: Gauge,
    deliveries: i64,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.gauge.dec_by(self.deliveries);
    }
}

impl Work {
    /// A message with this many deliveries was received; they are held as long as the answer lives.
    pub(crate) fn received(&self, deliveries: usize) -> Counted {
        self.received.inc();
        count(&self.held, deliveries)
    }

    /// A delivery moved to the slow track; it is there as long as the answer lives.
    pub(crate) fn slow(&self) -> Counted {
        count(&self.slow, 1)
    }

    /// A look for due work came to an end, whether it found some or failed.
    pub(crate) fn claim_ended(&self) {
        self.claims.inc();
    }

    /// A message of due work was taken on by the queue.
    pub(crate) fn published(&self) {
        self.published.inc();
    }

    pub(super) fn recorded(&self, changes: usize) {
        self.recorded.inc_by(changes as u64);
    }

    pub(super) fn claimed(&self, deliveries: usize) {
        self.claimed.inc_by(deliveries as u64);
    }

    pub(super) fn counts(&self) -> WorkCounts {
        let level = |gauge: &Gauge<i64, AtomicI64>| u64::try_from(gauge.get()).unwrap_or_default();
        WorkCounts {
            held: level(&self.held),
            slow: level(&self.slow),
            received: self.received.get(),
            recorded: self.recorded.get(),
            claims: self.claims.get(),
            claimed: self.claimed.get(),
            published: self.published.get(),
        }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("held_deliveries", "Deliveries received and not acknowledged", self.held.clone());
        registry.register("slow_deliveries", "Deliveries in flight on the slow track", self.slow.clone());
        registry.register("received_messages", "Messages received from the queue", self.received.clone());
        registry.register("recorded_changes", "Changes recorded", self.recorded.clone());
        registry.register("claims", "Looks for due work", self.claims.clone());
        registry.register("due_claimed_deliveries", "Due deliveries claimed", self.claimed.clone());
        registry.register("due_published_messages", "Messages of due work published", self.published.clone());
    }
}

fn count(gauge: &Gauge, deliveries: usize) -> Counted {
    let deliveries = i64::try_from(deliveries).unwrap_or(i64::MAX);
    gauge.inc_by(deliveries);
    Counted { gauge: gauge.clone(), deliveries }
}
