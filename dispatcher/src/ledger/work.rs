//! What is accepted, claimed and recorded, and what becomes of it.

use std::sync::Arc;
use std::time::Duration;

use dispatcher_core::delivery::{Attempt, DeliveryKey, Next, Part};
use dispatcher_core::event::Event;
use dispatcher_core::id::{DeliveryId, EndpointId, EventId, TenantId};
use dispatcher_core::table::TableVersion;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::queue::Item;

/// An event to accept.
#[derive(Clone, Debug)]
pub struct NewEvent {
    /// The event.
    pub event: Arc<Event>,
    /// Its targets, cut into parts by [`dispatcher_core::delivery::split_into_parts`]; may be empty.
    pub parts: Vec<Part>,
    /// Version of the table that decided the targets.
    pub table_version: TableVersion,
    /// The producer's key, if there is one.
    pub idempotency: Option<Idempotency>,
    /// Lease of the parts: as long as the caller needs to publish and deliver them, or zero if it will not publish.
    pub lease: Duration,
}

impl NewEvent {
    /// Number of its targets.
    pub fn fanout_count(&self) -> u32 {
        let targets: usize = self.parts.iter().map(|part| part.targets.len()).sum();
        u32::try_from(targets).unwrap_or(u32::MAX)
    }
}

/// A producer's idempotency key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idempotency {
    /// The key, unique per tenant.
    pub key: String,
    /// SHA-256 of what was asked, to tell a repetition from a reuse.
    pub digest: [u8; 32],
    /// How long to remember it.
    pub lifetime: Duration,
}

/// What became of an event to accept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// It is committed; its parts are leased to the caller with `gen` 1.
    New,
    /// The same request was accepted before, as this event.
    Repeated {
        /// The event of the first request.
        event: EventId,
        /// Its number of targets.
        fanout_count: u32,
    },
    /// The key was used for another request.
    Conflict,
}

/// A hold on work, as a message carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hold {
    /// A part of an event that has not been recorded yet.
    Part {
        /// The event.
        event: EventId,
        /// The part's number.
        part: u16,
        /// Generation of the hold.
        r#gen: u32,
    },
    /// A delivery that has a row.
    Delivery {
        /// The delivery.
        delivery: DeliveryId,
        /// Its run.
        run: u32,
        /// Generation of the hold.
        r#gen: u32,
    },
}

/// A change to record.
#[derive(Clone, Debug)]
pub enum Change {
    /// First outcomes of a part: every target of the part gets its row, and the part goes.
    /// Applied only while the part still has this `gen`.
    Part {
        /// The event.
        event: EventId,
        /// Its tenant.
        tenant: TenantId,
        /// The part's number.
        part: u16,
        /// Generation of the hold.
        r#gen: u32,
        /// One result for each target of the part. Each delivery's row begins with run 1 and this `gen`: what is in
        /// flight goes on under the part's hold, and whoever held the part before holds nothing of it.
        results: Vec<DeliveryResult>,
    },
    /// The next result of a delivery that has a row. Applied only while it still has this run and gen.
    Delivery {
        /// Run that the holder worked in.
        run: u32,
        /// Generation of the hold.
        r#gen: u32,
        /// The result.
        result: DeliveryResult,
    },
}

/// What became of one delivery.
#[derive(Clone, Debug)]
pub struct DeliveryResult {
    /// Which one.
    pub key: DeliveryKey,
    /// The attempt, if there was one.
    pub attempt: Option<Attempt>,
    /// What follows.
    pub next: Next,
}

/// Whether a recorded change took effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// It did.
    Applied,
    /// The holder was stale. Its attempts are kept as superseded, and a 2xx still finishes an open delivery.
    Superseded,
}

/// A request for due work.
#[derive(Clone, Debug)]
pub struct Claim {
    /// Pool to claim for.
    pub pool: String,
    /// Who claims.
    pub instance: Uuid,
    /// Lease of what is claimed.
    pub lease: Duration,
    /// Most deliveries to claim.
    pub deliveries_max: usize,
}

/// Claimed work.
#[derive(Clone, Debug, Default)]
pub struct Claimed {
    /// The work, with the events' bodies.
    pub items: Vec<Item>,
    /// Time until more becomes due, as far as the ledger knows now; zero if more is due already.
    pub next_due_in: Option<Duration>,
}

/// A change of an endpoint's gate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GateChange {
    /// The endpoint.
    pub endpoint: EndpointId,
    /// Revision that it is about: what is known of an old one closes no gate of a new one.
    pub revision: String,
    /// From now on nothing is claimed for this long. Zero opens the gate. Never shortens a gate that
    /// `publish_table` or `disable` closed.
    pub closed_for: Duration,
    /// Most deliveries that one claim takes once it opens (probes of a half-open circuit). The claim that takes them
    /// closes the gate again until their lease is over or the next change. `None`: no special bound.
    pub quota: Option<u32>,
}

/// Why an endpoint was disabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DisableReason {
    /// The receiver answered 410.
    Gone,
    /// Nothing but failures for as long as the endpoint's policy allows.
    DisabledAfterFailures,
}

/// A disabled endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disabled {
    /// The endpoint.
    pub endpoint: EndpointId,
    /// Revision that it was disabled at.
    pub revision: String,
    /// Why.
    pub reason: DisableReason,
}
