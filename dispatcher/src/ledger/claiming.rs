//! What claims of every ledger have in common: how much each lane gives, and how claimed work becomes items of messages.

use std::collections::HashMap;
use std::sync::Arc;

use dispatcher_core::delivery::Target;
use dispatcher_core::event::Event;
use dispatcher_core::id::{EndpointId, EventId, TenantId};
use dispatcher_core::limits::CLAIM_LANE_DELIVERIES_MAX;
use dispatcher_core::table::TableVersion;

use crate::queue::{DueDelivery, Item, Work};

/// An outbox part: a slice of its event's targets.
pub(super) struct Part {
    pub(super) tenant: TenantId,
    pub(super) event: EventId,
    pub(super) number: u16,
    pub(super) r#gen: u32,
    pub(super) first_target: usize,
    pub(super) target_count: usize,
}

/// A claimed delivery.
pub(super) struct Due {
    pub(super) tenant: TenantId,
    pub(super) event: EventId,
    pub(super) delivery: DueDelivery,
}

/// An endpoint whose turn it is, and the most that it may give if that is bounded.
pub(super) struct Lane {
    pub(super) endpoint: EndpointId,
    pub(super) quota: Option<u32>,
}

/// An event as claimed work needs it.
pub(super) struct Found {
    pub(super) event: Arc<Event>,
    pub(super) targets: Vec<Target>,
    pub(super) table_version: TableVersion,
}

impl Found {
    fn item(&self, work: Work, lease_until_unix_ms: u64) -> Item {
        Item { event: Arc::clone(&self.event), table_version: self.table_version, lease_until_unix_ms, work }
    }
}

/// Most deliveries that the claim takes from a lane: an even part of its bound, the first lanes one more.
pub(super) fn share(deliveries_max: usize, lanes: usize, place: usize, lane: &Lane) -> usize {
    let even = deliveries_max / lanes + usize::from(place < deliveries_max % lanes);
    let quota = lane.quota.map_or(usize::MAX, |quota| quota as usize);
    even.min(CLAIM_LANE_DELIVERIES_MAX).min(quota)
}

/// Keeps the parts that fit. If nothing else is claimed the first is kept even if it alone is too large: else it
/// would never be delivered.
pub(super) fn keep_within(parts: &mut Vec<Part>, deliveries_max: usize, first_always: bool) {
    let mut deliveries = 0;
    let fitting = parts.iter().take_while(|part| {
        deliveries += part.target_count;
        deliveries <= deliveries_max
    });
    let kept = fitting.count();
    parts.truncate(kept.max(usize::from(first_always)));
}

/// Claimed work joined with its events, which are read after the commit.
pub(super) fn items(
    events: &HashMap<EventId, Found>,
    parts: Vec<Part>,
    due: Vec<Due>,
    lease_until_ms: u64,
) -> Vec<Item> {
    let mut items = Vec::new();
    for (event, deliveries) in by_event(due) {
        let Some(found) = events.get(&event) else { continue };
        items.push(found.item(Work::Due(deliveries), lease_until_ms));
    }
    for Part { event, number, r#gen, first_target, target_count, .. } in parts {
        let Some(found) = events.get(&event) else { continue };
        let Some(targets) = found.targets.get(first_target..first_target + target_count) else {
            tracing::error!(%event, part = number, "an outbox part names targets that its event does not have");
            continue;
        };
        items.push(found.item(Work::Part { part: number, r#gen, targets: targets.to_vec() }, lease_until_ms));
    }
    items
}

/// Deliveries of the same event travel together. The order of the lanes is kept as far as that allows.
fn by_event(due: Vec<Due>) -> Vec<(EventId, Vec<DueDelivery>)> {
    let mut places: HashMap<EventId, usize> = HashMap::new();
    let mut groups: Vec<(EventId, Vec<DueDelivery>)> = Vec::new();
    for Due { event, delivery, .. } in due {
        let place = *places.entry(event).or_insert_with(|| {
            groups.push((event, Vec::new()));
            groups.len() - 1
        });
        groups[place].1.push(delivery);
    }
    groups
}
