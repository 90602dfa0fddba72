use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dispatcher_core::delivery::Target;
use dispatcher_core::event::{Attributes, Event};
use dispatcher_core::id::{DeliveryId, EndpointId, EventId, SubscriptionId, TenantId};
use dispatcher_core::limits::MESSAGE_DELIVERIES_MAX;
use dispatcher_core::table::TableVersion;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::queue::{DueDelivery, Item, Message, Work};

fn uuids() -> impl Strategy<Value = Uuid> {
    any::<u128>().prop_map(Uuid::from_u128)
}

fn targets() -> impl Strategy<Value = Target> {
    (uuids(), uuids()).prop_map(|(subscription, endpoint)| Target {
        subscription: SubscriptionId(subscription),
        endpoint: EndpointId(endpoint),
    })
}

prop_compose! {
    fn events()(
        (id, tenant) in (uuids(), uuids()),
        (event_type, content_type) in (".{0,20}", ".{0,20}"),
        recipient in proptest::option::of(".{0,20}"),
        attributes in btree_map(".{0,10}", ".{0,40}", 0..4),
        body in vec(any::<u8>(), 0..300),
    ) -> Arc<Event> {
        Arc::new(Event {
            id: EventId(id),
            tenant: TenantId(tenant),
            event_type,
            recipient,
            content_type,
            body: Bytes::from(body),
            attributes: Attributes(attributes),
        })
    }
}

prop_compose! {
    fn due_deliveries()(
        delivery in uuids(),
        target in targets(),
        (run, r#gen, attempts) in any::<(u32, u32, u32)>(),
        run_age_ms in any::<u64>(),
    ) -> DueDelivery {
        let run_age = Duration::from_millis(run_age_ms);
        DueDelivery { delivery: DeliveryId(delivery), target, run, r#gen, attempts, run_age }
    }
}

fn works() -> impl Strategy<Value = Work> {
    prop_oneof![
        (any::<u16>(), any::<u32>(), vec(targets(), 0..6)).prop_map(|(part, r#gen, targets)| Work::Part {
            part,
            r#gen,
            targets
        }),
        vec(due_deliveries(), 0..6).prop_map(Work::Due),
    ]
}

/// Messages whose items share some of their events.
fn messages() -> impl Strategy<Value = Message> {
    let items = vec((any::<prop::sample::Index>(), any::<u64>(), any::<u64>(), works()), 0..8);
    (vec(events(), 1..4), items).prop_map(|(events, items)| Message {
        items: items
            .into_iter()
            .map(|(event, table_version, lease_until_unix_ms, work)| Item {
                event: Arc::clone(event.get(&events)),
                table_version: TableVersion(table_version),
                lease_until_unix_ms,
                work,
            })
            .collect(),
    })
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded_to_the_same(message in messages()) {
        let decoded = decode(&Bytes::from(encode(&message).unwrap())).unwrap();
        prop_assert_eq!(format!("{message:?}"), format!("{decoded:?}"));
    }

    #[test]
    fn no_bytes_panic(bytes in vec(any::<u8>(), 0..200)) {
        let mut versioned = vec![VERSION];
        versioned.extend_from_slice(&bytes);
        drop(decode(&Bytes::from(versioned)));
        drop(decode(&Bytes::from(bytes)));
    }

    #[test]
    fn a_damaged_envelope_does_not_panic_and_a_cut_one_is_refused(
        message in messages(),
        position in any::<prop::sample::Index>(),
        flipped in 1..=u8::MAX,
    ) {
        let mut bytes = encode(&message).unwrap();
        let position = position.index(bytes.len());
        prop_assert_eq!(decode(&Bytes::copy_from_slice(&bytes[..position])).err(), Some(EnvelopeError::TooShort));
        bytes[position] ^= flipped;
        drop(decode(&Bytes::from(bytes)));
    }
}

fn message(items: usize, targets: usize, body: &[u8]) -> Message {
    let event = Arc::new(Event {
        id: EventId::from_parts(1, [0; 10]),
        tenant: TenantId(Uuid::nil()),
        event_type: "order.created".into(),
        recipient: None,
        content_type: "application/json".into(),
        body: Bytes::copy_from_slice(body),
        attributes: Attributes(BTreeMap::new()),
    });
    let target = Target { subscription: SubscriptionId(Uuid::nil()), endpoint: EndpointId(Uuid::nil()) };
    let item = Item {
        event,
        table_version: TableVersion(1),
        lease_until_unix_ms: 0,
        work: Work::Part { part: 0, r#gen: 1, targets: vec![target; targets] },
    };
    Message { items: vec![item; items] }
}

#[test]
fn an_event_of_several_items_stands_there_once_and_is_shared_again() {
    let body = [7; 10_000];
    let bytes = Bytes::from(encode(&message(10, 1, &body)).unwrap());
    assert!(bytes.len() < 11_000, "{} bytes", bytes.len());
    let decoded = decode(&bytes).unwrap();
    assert!(Arc::ptr_eq(&decoded.items[0].event, &decoded.items[9].event));
}

#[test]
fn a_small_body_does_not_hold_the_memory_of_its_batch() {
    let mut batch = message(1, 1, &[1; 100]);
    let mut large = message(1, 1, &[2; 10_000]).items.remove(0);
    Arc::get_mut(&mut large.event).unwrap().id = EventId::from_parts(2, [0; 10]);
    batch.items.push(large);
    let bytes = Bytes::from(encode(&batch).unwrap());
    let decoded = decode(&bytes).unwrap();
    let lies_within = |body: &Bytes| bytes.as_ptr_range().contains(&body.as_ptr());
    assert!(!lies_within(&decoded.items[0].event.body));
    assert!(lies_within(&decoded.items[1].event.body));
}

#[test]
fn a_version_that_is_not_ours_is_refused_by_name() {
    let mut bytes = encode(&message(1, 1, b"{}")).unwrap();
    bytes[0] = 2;
    assert_eq!(decode(&Bytes::from(bytes)).unwrap_err(), EnvelopeError::UnknownVersion(2));
    assert_eq!(decode(&Bytes::new()).unwrap_err(), EnvelopeError::TooShort);
}

#[test]
fn what_exceeds_a_limit_is_neither_written_nor_read() {
    let most = MESSAGE_DELIVERIES_MAX;
    encode(&message(1, most, b"")).unwrap();
    encode(&message(most, 1, b"")).unwrap();
    assert_eq!(encode(&message(1, most + 1, b"")).unwrap_err(), EnvelopeError::TooLarge);
    assert_eq!(encode(&message(most + 1, 0, b"")).unwrap_err(), EnvelopeError::TooLarge);
    assert_eq!(decode(&Bytes::from_static(&[VERSION, 0x81, 0x01])).unwrap_err(), EnvelopeError::TooLarge);
    assert_eq!(
        decode(&Bytes::from_static(&[VERSION, 0xff, 0xff, 0xff, 0xff, 0x7f])).unwrap_err(),
        EnvelopeError::Malformed
    );
}

#[test]
fn bytes_after_the_last_item_are_refused() {
    let mut bytes = encode(&message(1, 1, b"{}")).unwrap();
    bytes.push(0);
    assert_eq!(decode(&Bytes::from(bytes)).unwrap_err(), EnvelopeError::TooLong);
}
