//! Packs work into messages.

use std::sync::Arc;

use dispatcher_core::limits::{MESSAGE_BODY_BYTES_MAX, MESSAGE_DELIVERIES_MAX};

use super::{Item, Message, Work};

/// Packs items into messages within both limits, in their order. An event with more due deliveries than a message may
/// carry is cut; one whose body alone is over the limit of the bodies has a message to itself.
pub fn pack(items: impl IntoIterator<Item = Item>) -> Vec<Message> {
    let mut messages: Vec<Message> = Vec::new();
    let (mut deliveries, mut body_bytes) = (0, 0);
    for item in items.into_iter().flat_map(split) {
        let (more_deliveries, more_bytes) = (item.work.deliveries(), item.event.body.len());
        let fits =
            deliveries + more_deliveries <= MESSAGE_DELIVERIES_MAX && body_bytes + more_bytes <= MESSAGE_BODY_BYTES_MAX;
        match messages.last_mut() {
            Some(message) if fits => {
                message.items.push(item);
                deliveries += more_deliveries;
                body_bytes += more_bytes;
            }
            _ => {
                messages.push(Message { items: vec![item] });
                (deliveries, body_bytes) = (more_deliveries, more_bytes);
            }
        }
    }
    messages
}

/// Cuts an event with more due deliveries than a message may carry. A part never has more.
fn split(item: Item) -> Vec<Item> {
    match item.work {
        Work::Due(deliveries) if deliveries.len() > MESSAGE_DELIVERIES_MAX => deliveries
            .chunks(MESSAGE_DELIVERIES_MAX)
            .map(|chunk| Item { event: Arc::clone(&item.event), work: Work::Due(chunk.to_vec()), ..item })
            .collect(),
        work => vec![Item { work, ..item }],
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use dispatcher_core::delivery::Target;
    use dispatcher_core::event::{Attributes, Event};
    use dispatcher_core::id::{EndpointId, EventId, SubscriptionId, TenantId};
    use dispatcher_core::table::TableVersion;
    use proptest::prelude::*;

    use super::*;
    use crate::queue::DueDelivery;

    fn item(number: u64, is_part: bool, deliveries: usize, body_bytes: usize) -> Item {
        let tenant = TenantId::of_namespace_name("shop");
        let subscription = SubscriptionId::derive(tenant, "all");
        let event = EventId::from_parts(number, [0; 10]);
        let targets = (0..deliveries)
            .map(|place| Target { subscription, endpoint: EndpointId::derive(tenant, &place.to_string()) });
        let due = |target: Target| DueDelivery {
            delivery: target.delivery(event),
            target,
            run: 1,
            r#gen: 2,
            attempts: 1,
            run_age: Duration::ZERO,
        };
        let work = if is_part {
            Work::Part { part: 0, r#gen: 1, targets: targets.take(MESSAGE_DELIVERIES_MAX).collect() }
        } else {
            Work::Due(targets.map(due).collect())
        };
        let event = Event {
            id: event,
            tenant,
            event_type: "order.created".into(),
            recipient: None,
            content_type: "application/json".into(),
            body: Bytes::from(vec![b'1'; body_bytes]),
            attributes: Attributes::default(),
        };
        Item { event: Arc::new(event), table_version: TableVersion(1), lease_until_unix_ms: 7, work }
    }

    /// Every delivery of the items, in their order.
    fn deliveries<'a>(items: impl Iterator<Item = &'a Item>) -> Vec<(EventId, Target)> {
        items
            .flat_map(|item| {
                let targets: Vec<Target> = match &item.work {
                    Work::Part { targets, .. } => targets.clone(),
                    Work::Due(deliveries) => deliveries.iter().map(|due| due.target).collect(),
                };
                targets.into_iter().map(|target| (item.event.id, target))
            })
            .collect()
    }

    proptest! {
        #[test]
        fn every_delivery_is_packed_once_and_no_message_is_too_large(
            items in prop::collection::vec((any::<bool>(), 1_usize..300, 0_usize..600_000), 0..12)
        ) {
            let items: Vec<Item> = items
                .into_iter()
                .zip(0..)
                .map(|((is_part, deliveries, bytes), number)| item(number, is_part, deliveries, bytes))
                .collect();
            let expected = deliveries(items.iter());
            let messages = pack(items);
            for message in &messages {
                prop_assert!((1..=MESSAGE_DELIVERIES_MAX).contains(&message.deliveries()));
                let bytes: usize = message.items.iter().map(|item| item.event.body.len()).sum();
                prop_assert!(bytes <= MESSAGE_BODY_BYTES_MAX || message.items.len() == 1);
            }
            prop_assert_eq!(deliveries(messages.iter().flat_map(|message| &message.items)), expected);
        }
    }

    #[test]
    fn small_work_travels_together() {
        let messages = pack((0..3).map(|number| item(number, number == 1, 2, 10)));
        assert_eq!(messages.iter().map(Message::deliveries).collect::<Vec<_>>(), [6]);
    }
}
