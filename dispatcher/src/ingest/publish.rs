//! Packs accepted events into queue messages.

use std::collections::BTreeMap;

use crate::ledger::NewEvent;
use crate::queue::{self, Item, Message, Queue, Track, Work};

/// Publishes freshly accepted events, whose parts are leased with `gen` 1. Answers how many messages the queue did not
/// take on: their work stays in the ledger and is due when the lease ends.
pub(super) async fn publish(queue: &dyn Queue, events: Vec<NewEvent>, lease_until_unix_ms: u64) -> usize {
    let mut failed = 0;
    for (pool, messages) in pack(events, lease_until_unix_ms) {
        let results = queue.publish(&pool, Track::Fresh, messages).await;
        failed += results.iter().filter(|result| result.is_err()).count();
    }
    failed
}

/// Messages by pool.
fn pack(events: Vec<NewEvent>, lease_until_unix_ms: u64) -> BTreeMap<String, Vec<Message>> {
    let mut items: BTreeMap<String, Vec<Item>> = BTreeMap::new();
    for new in events {
        for part in new.parts {
            let item = Item {
                event: std::sync::Arc::clone(&new.event),
                table_version: new.table_version,
                lease_until_unix_ms,
                work: Work::Part { part: part.number, r#gen: 1, targets: part.targets },
            };
            items.entry(part.pool).or_default().push(item);
        }
    }
    items.into_iter().map(|(pool, items)| (pool, queue::pack(items))).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use bytes::Bytes;
    use dispatcher_core::delivery::{Target, split_into_parts};
    use dispatcher_core::event::{Attributes, Event};
    use dispatcher_core::id::{EndpointId, EventId, SubscriptionId, TenantId};
    use dispatcher_core::limits::{MESSAGE_BODY_BYTES_MAX, MESSAGE_DELIVERIES_MAX};
    use dispatcher_core::table::TableVersion;
    use proptest::prelude::*;

    use super::*;

    /// An event with targets in two pools.
    fn new_event(number: u64, fanout: [usize; 2], body_bytes: usize) -> NewEvent {
        let tenant = TenantId::of_namespace_name("shop");
        let subscription = SubscriptionId::derive(tenant, "all");
        let targets = fanout.iter().enumerate().flat_map(|(pool, count)| {
            (0..*count).map(move |target| {
                let endpoint = EndpointId::derive(tenant, &format!("{pool}-{target}"));
                (format!("pool-{pool}"), Target { subscription, endpoint })
            })
        });
        NewEvent {
            event: Arc::new(Event {
                id: EventId::from_parts(number, [0; 10]),
                tenant,
                event_type: "order.created".into(),
                recipient: None,
                content_type: "application/json".into(),
                body: Bytes::from(vec![b'1'; body_bytes]),
                attributes: Attributes::default(),
            }),
            parts: split_into_parts(targets.collect()),
            table_version: TableVersion(1),
            idempotency: None,
            lease: Duration::from_secs(5),
        }
    }

    proptest! {
        #[test]
        fn every_target_is_packed_once_and_no_message_is_too_large(
            events in prop::collection::vec(([0_usize..300, 0_usize..40], 0_usize..600_000), 0..12)
        ) {
            let events: Vec<NewEvent> = events
                .into_iter()
                .enumerate()
                .map(|(number, (fanout, bytes))| new_event(number as u64, fanout, bytes))
                .collect();
            let mut expected: Vec<_> = events
                .iter()
                .flat_map(|new| new.parts.iter().map(|part| (part.pool.clone(), new.event.id, part.number)))
                .collect();
            let mut packed = Vec::new();
            for (pool, messages) in pack(events, 7) {
                for message in messages {
                    prop_assert!(message.deliveries() <= MESSAGE_DELIVERIES_MAX);
                    let bytes: usize = message.items.iter().map(|item| item.event.body.len()).sum();
                    prop_assert!(bytes <= MESSAGE_BODY_BYTES_MAX || message.items.len() == 1);
                    for item in &message.items {
                        let Work::Part { part, r#gen: 1, .. } = item.work else { panic!("not a fresh part") };
                        packed.push((pool.clone(), item.event.id, part));
                    }
                }
            }
            expected.sort();
            packed.sort();
            prop_assert_eq!(packed, expected);
        }
    }
}
