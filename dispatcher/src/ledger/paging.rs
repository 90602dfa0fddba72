//! What the listings of every ledger have in common: where a page begins and ends, and deliveries that have no row of
//! their own yet.
//!
//! The statements differ in more than their dialect (which index is used, what is locked, how identities and times are
//! kept), so each ledger has its own.

use dispatcher_core::delivery::{DeliveryKey, DeliveryState, Target};
use dispatcher_core::id::{EventId, TenantId};
use uuid::Uuid;

use super::{Cursor, DeliveryQuery, DeliveryRecord, Page};

/// Bytes of an event's identity that its deliveries share: the time.
const TIME_BYTES: usize = 6;

/// The identity that a page's rows come before.
pub(super) fn before(after: Option<Cursor>) -> Uuid {
    after.map_or(Uuid::max(), |Cursor(id)| id)
}

/// Cuts a page from rows that are one more than it, if there are more.
pub(super) fn page<T>(mut rows: Vec<T>, rows_max: u32, id: impl Fn(&T) -> Uuid) -> Page<T> {
    let rows_max = rows_max as usize;
    let more = rows.len() > rows_max;
    rows.truncate(rows_max);
    let next = rows.last().filter(|_| more).map(|row| Cursor(id(row)));
    Page { rows, next }
}

/// The lowest identity that carries the same time.
pub(super) fn first_of_its_time(id: Uuid) -> Uuid {
    with_its_time(id, 0)
}

/// The highest identity that carries the same time.
pub(super) fn last_of_its_time(id: Uuid) -> Uuid {
    with_its_time(id, 0xff)
}

fn with_its_time(id: Uuid, rest: u8) -> Uuid {
    let mut bytes = [rest; 16];
    bytes[..TIME_BYTES].copy_from_slice(&id.as_bytes()[..TIME_BYTES]);
    Uuid::from_bytes(bytes)
}

/// Whether a delivery of a part in the outbox belongs to a page.
pub(super) fn is_wanted(record: &DeliveryRecord, query: &DeliveryQuery) -> bool {
    record.key.delivery.0 < before(query.after)
        && query.endpoint.is_none_or(|endpoint| endpoint == record.key.target.endpoint)
}

/// The deliveries of a part that is still in the outbox: their identities are computed from its targets.
pub(super) fn of_part(
    tenant: TenantId,
    event: EventId,
    event_type: String,
    targets: impl IntoIterator<Item = Target>,
) -> impl Iterator<Item = DeliveryRecord> {
    targets.into_iter().map(move |target| DeliveryRecord {
        key: DeliveryKey::new(tenant, event, target),
        event_type: event_type.clone(),
        state: DeliveryState::Open,
        reason: None,
        run: 1,
        attempts: 0,
        due_at_unix_ms: None,
        last_outcome: None,
        last_status_code: None,
    })
}
