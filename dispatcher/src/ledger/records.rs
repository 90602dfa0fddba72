//! What is read from a ledger: listings, counts and facts.

use std::time::Duration;

use dispatcher_core::delivery::{Attempt, DeliveryKey, DeliveryState, EndReason, Outcome};
use dispatcher_core::event::Event;
use dispatcher_core::id::{EndpointId, EventId, TenantId};
use uuid::Uuid;

/// A position in a listing, opaque to callers: the identity of the last row seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor(pub Uuid);

/// A page of a listing.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// Rows, newest first.
    pub rows: Vec<T>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<Cursor>,
}

/// Which events to list.
#[derive(Clone, Debug, Default)]
pub struct EventQuery {
    /// Only of this type.
    pub event_type: Option<String>,
    /// Rows after this position.
    pub after: Option<Cursor>,
    /// Most rows.
    pub rows_max: u32,
}

/// Which deliveries to list.
#[derive(Clone, Debug, Default)]
pub struct DeliveryQuery {
    /// Only of this event.
    pub event: Option<EventId>,
    /// Only to this endpoint.
    pub endpoint: Option<EndpointId>,
    /// Only in this state.
    pub state: Option<DeliveryState>,
    /// Rows after this position.
    pub after: Option<Cursor>,
    /// Most rows.
    pub rows_max: u32,
}

/// An event as it is read.
#[derive(Clone, Debug)]
pub struct EventRecord {
    /// The event; its body is empty in listings.
    pub event: Event,
    /// Number of targets.
    pub fanout_count: u32,
    /// Size of the body in bytes.
    pub body_bytes: u64,
}

/// A delivery as it is read.
#[derive(Clone, Debug)]
pub struct DeliveryRecord {
    /// Its identity.
    pub key: DeliveryKey,
    /// Type of its event.
    pub event_type: String,
    /// Its state.
    pub state: DeliveryState,
    /// Why it ended, if it ended badly.
    pub reason: Option<EndReason>,
    /// Its run.
    pub run: u32,
    /// Attempts in this run.
    pub attempts: u32,
    /// When it is due again, in milliseconds since the Unix epoch, while it is open and has been looked at.
    pub due_at_unix_ms: Option<u64>,
    /// Result of the last attempt.
    pub last_outcome: Option<Outcome>,
    /// Status code of the last attempt.
    pub last_status_code: Option<u16>,
}

/// An attempt as it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptRecord {
    /// Run that it belongs to.
    pub run: u32,
    /// The attempt.
    pub attempt: Attempt,
    /// Whether its holder was stale when it was recorded.
    pub superseded: bool,
}

/// Open deliveries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Of all tenants, without those behind a closed gate.
    pub ungated: u64,
    /// Of each tenant that has any, gated ones included.
    pub by_tenant: Vec<(TenantId, u64)>,
}

/// A tenant's balance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Balance {
    /// The tenant.
    pub tenant: TenantId,
    /// Targets of accepted events.
    pub accepted: u64,
    /// Finished well.
    pub delivered: u64,
    /// Given up.
    pub dead: u64,
    /// Cancelled.
    pub cancelled: u64,
    /// Not finished, in the outbox or with a row.
    pub open: u64,
}

/// What an endpoint's deliveries did.
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointFacts {
    /// The endpoint.
    pub endpoint: EndpointId,
    /// Attempts in the window.
    pub attempts: u64,
    /// Of these, 2xx.
    pub succeeded: u64,
    /// 95th percentile of the attempts' durations in the window.
    pub p95: Option<Duration>,
    /// Open deliveries that have a row.
    pub pending: u64,
    /// Acceptance time of the oldest open delivery, in milliseconds since the Unix epoch.
    pub oldest_unix_ms: Option<u64>,
    /// Status code of the last attempt.
    pub last_status_code: Option<u16>,
    /// Result of the last attempt.
    pub last_outcome: Option<Outcome>,
    /// How long the gate stays closed; `None` if it is open, or if only a new row in the table opens it.
    pub gate_closed_for: Option<Duration>,
}
