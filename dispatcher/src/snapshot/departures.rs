//! Since when a subscription has been out of the routing table, as far as this process knows.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use dispatcher_core::id::SubscriptionId;
use dispatcher_core::limits::DELETION_GRACE;
use dispatcher_core::table::RowKey;

/// Subscriptions that have left the table. Whatever is absent and not remembered was absent when the table was loaded
/// as a whole: a process that has just started counts from its start, which only makes the absence seem shorter.
#[derive(Clone, Debug)]
pub struct Departures {
    loaded_at: Instant,
    /// Those of the last [`DELETION_GRACE`]; longer ago is as good as since the load.
    left_at: HashMap<SubscriptionId, Instant>,
}

impl Departures {
    /// Nothing is known but the table that was loaded now.
    pub(super) fn of_load(now: Instant) -> Self {
        Self { loaded_at: now, left_at: HashMap::new() }
    }

    /// Notes what was dropped between the last load and this one.
    pub(super) fn note(&mut self, dropped: &[RowKey], now: Instant) {
        self.left_at.retain(|_, left_at| now.saturating_duration_since(*left_at) < DELETION_GRACE);
        for key in dropped {
            if let RowKey::Subscription(id) = key {
                self.left_at.insert(*id, now);
            }
        }
    }

    /// How long a subscription that is not in the table has certainly been out of it.
    pub fn absent_for(&self, subscription: SubscriptionId, now: Instant) -> Duration {
        now.saturating_duration_since(*self.left_at.get(&subscription).unwrap_or(&self.loaded_at))
    }
}

#[cfg(test)]
mod tests {
    use dispatcher_core::id::TenantId;

    use super::*;

    #[test]
    fn an_absence_counts_from_the_drop_and_at_the_earliest_from_the_load() {
        let id = |name| SubscriptionId::derive(TenantId::of_namespace_name("shop"), name);
        let (start, minute) = (Instant::now(), Duration::from_mins(1));
        let mut departures = Departures::of_load(start);
        assert_eq!(departures.absent_for(id("long gone"), start + minute), minute);
        departures.note(&[RowKey::Subscription(id("gone"))], start + 5 * minute);
        assert_eq!(departures.absent_for(id("gone"), start + 7 * minute), 2 * minute);
        assert_eq!(departures.absent_for(id("long gone"), start + 7 * minute), 7 * minute);

        // Dropped again after it had come back.
        departures.note(&[RowKey::Subscription(id("gone"))], start + 9 * minute);
        assert_eq!(departures.absent_for(id("gone"), start + 10 * minute), minute);
        departures.note(&[], start + 9 * minute + DELETION_GRACE);
        assert_eq!(departures.left_at.len(), 0, "what is over is forgotten");
        assert!(departures.absent_for(id("gone"), start + 9 * minute + DELETION_GRACE) >= DELETION_GRACE);
    }
}
