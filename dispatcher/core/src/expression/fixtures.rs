//! What tests of expressions look at.

use bytes::Bytes;

use crate::event::{Attributes, Event};
use crate::id::{EventId, TenantId};

/// An event of a customer, with this payload of JSON.
pub(crate) fn event(data: impl Into<Bytes>) -> Event {
    Event {
        id: EventId::from_parts(1_700_000_000_123, [7; 10]),
        tenant: TenantId::of_namespace_name("shop"),
        event_type: "order.created".to_owned(),
        recipient: Some("acme".to_owned()),
        content_type: "application/json".to_owned(),
        body: data.into(),
        attributes: Attributes([("subject".to_owned(), "order/7".to_owned())].into()),
    }
}
