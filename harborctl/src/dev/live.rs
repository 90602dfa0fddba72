//! The live view: one line for each attempt.

use std::collections::{HashMap, VecDeque};

use dispatcher::clock::now_unix_ms;
use dispatcher::deliver::Observed;
use dispatcher_core::delivery::Next;
use dispatcher_core::id::DeliveryId;
use dispatcher_core::limits::RECEIVER_SEEN_MAX;
use serde::Serialize;
use serde_json::Value;

use crate::exit::Failure;
use crate::output::{Format, Output};
use crate::receiver::{Seen, Verdict};
use crate::table::printable;
use crate::times::{short, time_of_day};

/// What the test receiver made of deliveries whose attempts have not been shown yet.
#[derive(Default)]
pub(super) struct Verdicts {
    by_delivery: HashMap<String, Verdict>,
    order: VecDeque<String>,
}

impl Verdicts {
    /// Remembers a request that the test receiver answered.
    pub(super) fn remember(&mut self, seen: Seen) {
        let Some(id) = seen.id else { return };
        if self.order.len() >= RECEIVER_SEEN_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_delivery.remove(&oldest);
        }
        self.order.push_back(id.clone());
        self.by_delivery.insert(id, seen.verdict);
    }

    /// What became of a delivery's signature, and forgets it.
    fn take(&mut self, delivery: DeliveryId) -> Option<Verdict> {
        self.by_delivery.remove(&delivery.to_string())
    }
}

/// An attempt as a line of JSON. Its fields are relied on by scripts.
#[derive(Serialize)]
struct Line<'a> {
    kind: &'static str,
    event: String,
    event_type: &'a str,
    namespace: &'a str,
    endpoint: &'a str,
    delivery: String,
    attempt: u32,
    outcome: Value,
    status_code: Option<u16>,
    duration_ms: f64,
    /// `true` or `false` from the test receiver; `null` if another one got it, or it has no key.
    verified: Option<bool>,
    state: &'static str,
    next_attempt_in_ms: Option<u128>,
}

/// Titles of the lines in the table format.
pub(super) fn titles() -> String {
    row(["TIME", "EVENT TYPE", "EVENT", "ENDPOINT", "ATTEMPT", "STATUS", "TOOK", "THEN"])
}

/// Shows an attempt.
pub(super) fn show(observed: &Observed, verdicts: &mut Verdicts, output: &Output) -> Result<(), Failure> {
    let verdict = verdicts.take(observed.delivery);
    let outcome = serde_json::to_value(observed.outcome).unwrap_or_default();
    if output.format() == Format::Json {
        return output.json_line(&Line {
            kind: "delivery",
            event: observed.event.to_string(),
            event_type: &observed.event_type,
            namespace: &observed.tenant_name,
            endpoint: &observed.endpoint_name,
            delivery: observed.delivery.to_string(),
            attempt: observed.attempt_number,
            outcome,
            status_code: observed.status_code,
            // Whole microseconds, as the API tells them.
            duration_ms: (observed.duration.as_secs_f64() * 1e6).round() / 1e3,
            verified: match verdict {
                Some(Verdict::Verified) => Some(true),
                Some(Verdict::NotVerified(_)) => Some(false),
                Some(Verdict::NoKey) | None => None,
            },
            state: state(&observed.next),
            next_attempt_in_ms: match observed.next {
                Next::Waiting { delay } => Some(delay.as_millis()),
                _ => None,
            },
        });
    }
    let status = match observed.status_code {
        Some(code) => code.to_string(),
        None => outcome.as_str().unwrap_or_default().to_owned(),
    };
    let then = match &observed.next {
        Next::Waiting { delay } => format!("again in {}", short(*delay)),
        next => state(next).to_owned(),
    };
    let verdict = match &verdict {
        Some(Verdict::Verified) => ", verified".to_owned(),
        Some(Verdict::NotVerified(reason)) => format!(", not verified: {reason}"),
        Some(Verdict::NoKey) | None => String::new(),
    };
    output.text(&row([
        &time_of_day(now_unix_ms()),
        &printable(&observed.event_type),
        short_id(&observed.event.to_string()),
        &format!("{}/{}", observed.tenant_name, observed.endpoint_name),
        &observed.attempt_number.to_string(),
        &status,
        &short(observed.duration),
        &format!("{then}{verdict}"),
    ]))
}

fn row(cells: [&str; 8]) -> String {
    let [time, event_type, event, endpoint, attempt, status, took, then] = cells;
    format!("{time:<10} {event_type:<22} {event:<13} {endpoint:<24} {attempt:<7}  {status:<18} {took:<7} {then}")
}

/// The random end of an event's identity: its beginning is the time and tells neighbours not apart.
fn short_id(id: &str) -> &str {
    id.rsplit('-').next().unwrap_or(id)
}

fn state(next: &Next) -> &'static str {
    match next {
        Next::Delivered => "delivered",
        Next::Dead(_) => "dead",
        Next::Cancelled(_) => "cancelled",
        Next::Waiting { .. } | Next::InFlight { .. } => "open",
    }
}
