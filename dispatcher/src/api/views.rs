//! What the API answers: JSON with fields in snake case and times in RFC 3339, UTC.
//!
//! Views are built from rows and records field by field, so that nothing is shown by accident: of an endpoint its host
//! and its policy, never its URL, its headers or a key that signs.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use dispatcher_core::delivery::{EndReason, Outcome};
use dispatcher_core::event::time::rfc3339;
use dispatcher_core::event::{Attributes, is_json};
use dispatcher_core::recipient::RecipientRule;
use dispatcher_core::retry::Backoff;
use dispatcher_core::sign;
use dispatcher_core::table::{
    BodyFormat, BreakerPolicy, DeliveryPolicy, EndpointRow, EndpointState, SigningScheme, SubscriptionRow,
};
use serde::Serialize;
use serde_json::value::RawValue;

use super::parameters::encode_cursor;
use crate::clock::now_unix_ms;
use crate::ledger::{AttemptRecord, DeliveryRecord, DisableReason, EventRecord, Page};
use crate::snapshot::Snapshot;

/// A page of a listing.
#[derive(Debug, Serialize)]
pub struct ListView<T> {
    /// The rows.
    pub items: Vec<T>,
    /// `cursor` of the next page; `null` at the end.
    pub next_cursor: Option<String>,
}

impl<T> ListView<T> {
    /// The view of a ledger's page.
    pub fn of_page<R>(page: Page<R>, view: impl FnMut(R) -> T) -> Self {
        let next_cursor = page.next.map(|cursor| encode_cursor(cursor.0.as_bytes()));
        Self { items: page.rows.into_iter().map(view).collect(), next_cursor }
    }

    /// The same page with other rows.
    pub fn map<U>(self, view: impl FnMut(T) -> U) -> ListView<U> {
        ListView { items: self.items.into_iter().map(view).collect(), next_cursor: self.next_cursor }
    }
}

/// An event.
#[derive(Debug, Serialize)]
pub struct EventView {
    event_id: String,
    event_type: String,
    recipient: Option<String>,
    content_type: String,
    accepted_time: String,
    fanout_count: u32,
    body_bytes: u64,
    #[serde(skip_serializing_if = "no_attributes")]
    attributes: Attributes,
    /// The body where it is JSON: its very bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<Box<RawValue>>,
    /// The body where it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
}

impl EventView {
    /// Without its body.
    pub fn listed(record: EventRecord) -> Self {
        let event = record.event;
        Self {
            event_id: event.id.to_string(),
            accepted_time: rfc3339(event.accepted_at_unix_ms()),
            event_type: event.event_type,
            recipient: event.recipient,
            content_type: event.content_type,
            fanout_count: record.fanout_count,
            body_bytes: record.body_bytes,
            attributes: event.attributes,
            payload: None,
            payload_base64: None,
        }
    }

    /// With its body.
    pub fn whole(record: EventRecord) -> Self {
        let body = record.event.body.clone();
        let mut view = Self::listed(record);
        view.payload = Some(&view.content_type).filter(|content_type| is_json(content_type)).and_then(|_| {
            // White space around a value is not part of it, so only a body without any survives byte for byte.
            let text = std::str::from_utf8(&body).ok().filter(|text| text.trim() == *text)?;
            RawValue::from_string(text.to_owned()).ok()
        });
        view.payload_base64 = view.payload.is_none().then(|| STANDARD.encode(&body));
        view
    }
}

fn no_attributes(attributes: &Attributes) -> bool {
    attributes.0.is_empty()
}

/// A delivery.
#[derive(Debug, Serialize)]
pub struct DeliveryView {
    delivery_id: String,
    event_id: String,
    event_type: String,
    /// Name of the endpoint; `null` once it is no longer in the routing table.
    endpoint: Option<String>,
    endpoint_id: String,
    /// Name of the subscription; `null` once it is no longer in the routing table.
    subscription: Option<String>,
    subscription_id: String,
    state: &'static str,
    reason: Option<&'static str>,
    run: u32,
    attempts_count: u32,
    due_time: Option<String>,
    last_outcome: Option<&'static str>,
    last_status_code: Option<u16>,
}

impl DeliveryView {
    /// The view, with the names that the table knows.
    pub fn new(record: DeliveryRecord, snapshot: &Snapshot) -> Self {
        let target = record.key.target;
        Self {
            delivery_id: record.key.delivery.to_string(),
            event_id: record.key.event.to_string(),
            event_type: record.event_type,
            endpoint: snapshot.index.endpoint(target.endpoint).map(|row| row.name.clone()),
            endpoint_id: target.endpoint.to_string(),
            subscription: snapshot.index.subscription(target.subscription).map(|row| row.name.clone()),
            subscription_id: target.subscription.to_string(),
            state: record.state.as_str(),
            reason: record.reason.map(EndReason::as_str),
            run: record.run,
            attempts_count: record.attempts,
            due_time: record.due_at_unix_ms.map(rfc3339),
            last_outcome: record.last_outcome.map(Outcome::as_str),
            last_status_code: record.last_status_code,
        }
    }
}

/// An attempt.
#[derive(Debug, Serialize)]
pub struct AttemptView {
    run: u32,
    attempt_number: u32,
    started_time: String,
    duration_ms: f64,
    outcome: &'static str,
    status_code: Option<u16>,
    superseded: bool,
    /// The beginning of the receiver's answer, or of the error's description; foreign bytes, made printable.
    excerpt: String,
}

impl From<AttemptRecord> for AttemptView {
    fn from(record: AttemptRecord) -> Self {
        let attempt = record.attempt;
        Self {
            run: record.run,
            attempt_number: attempt.number,
            started_time: rfc3339(attempt.started_at_unix_ms),
            duration_ms: (attempt.duration.as_secs_f64() * 1e6).round() / 1e3,
            outcome: attempt.outcome.as_str(),
            status_code: attempt.status_code,
            superseded: record.superseded,
            excerpt: String::from_utf8_lossy(&attempt.excerpt).into_owned(),
        }
    }
}

/// A started replay.
#[derive(Debug, Serialize)]
pub struct ReplayView {
    /// The delivery, the same as before.
    pub delivery_id: String,
    /// Its new run.
    pub run: u32,
}

/// An endpoint as it is routed.
#[derive(Debug, Serialize)]
pub struct EndpointView {
    endpoint_id: String,
    name: String,
    host: String,
    /// `null`: only events without a recipient; `*`: all events.
    recipient: Option<String>,
    state: &'static str,
    reason: Option<String>,
    pool: String,
    /// Present only where receivers verify with a public key: the keys in force, newest first.
    #[serde(skip_serializing_if = "Option::is_none")]
    public_keys: Option<Vec<String>>,
    policy: PolicyView,
}

impl EndpointView {
    /// The view, with whether it is disabled.
    pub fn new(row: &EndpointRow, snapshot: &Snapshot) -> Self {
        let (state, reason) = endpoint_state(row, snapshot);
        Self {
            endpoint_id: row.id.to_string(),
            name: row.name.clone(),
            host: row.host.clone(),
            recipient: recipient(&row.recipient),
            state,
            reason: reason.map(str::to_owned),
            pool: row.pool.clone(),
            public_keys: public_keys(row, snapshot, now_unix_ms()),
            policy: PolicyView::from(&row.policy),
        }
    }
}

/// What receivers verify with; none of an endpoint whose secrets cannot be opened.
fn public_keys(row: &EndpointRow, snapshot: &Snapshot, now_unix_ms: u64) -> Option<Vec<String>> {
    if row.policy.signing_scheme != SigningScheme::StandardWebhooksEd25519 {
        return None;
    }
    let keys = snapshot.routes.get(&row.id).map_or(&[][..], |route| &route.secrets.keys);
    let in_force = keys.iter().filter(|key| key.retires_at_unix_ms.is_none_or(|retires_at| now_unix_ms < retires_at));
    Some(in_force.filter_map(|key| sign::public_key(key).ok()).collect())
}

/// How deliveries to an endpoint behave, every default filled in.
#[derive(Debug, Serialize)]
pub struct PolicyView {
    timeout_seconds: u32,
    retry: RetryView,
    rate_limit: Option<RateLimitView>,
    max_in_flight: u32,
    circuit_breaker: BreakerView,
    disable_after_failing_for_seconds: Option<u32>,
    format: BodyFormat,
    signing_scheme: SigningScheme,
}

#[derive(Debug, Serialize)]
struct RetryView {
    #[serde(flatten)]
    backoff: BackoffView,
    jitter_percent: u8,
    max_attempts: u32,
    max_age_seconds: u32,
}

#[derive(Debug, Serialize)]
#[serde(tag = "type")]
enum BackoffView {
    Exponential { initial_delay_seconds: u32, max_delay_seconds: u32 },
    Linear { initial_delay_seconds: u32, step_seconds: u32, max_delay_seconds: u32 },
    Fixed { delay_seconds: u32 },
    Schedule { schedule_seconds: Vec<u32> },
}

#[derive(Debug, Serialize)]
struct RateLimitView {
    per_second: u32,
    burst: u32,
}

#[derive(Debug, Serialize)]
struct BreakerView {
    failure_percent: u8,
    min_attempts: u32,
    window_seconds: u32,
    initial_pause_seconds: u32,
    max_pause_seconds: u32,
    probes: u32,
}

impl From<&DeliveryPolicy> for PolicyView {
    fn from(policy: &DeliveryPolicy) -> Self {
        Self {
            timeout_seconds: policy.timeout_seconds,
            retry: RetryView {
                backoff: BackoffView::from(&policy.retry.backoff),
                jitter_percent: policy.retry.jitter_percent,
                max_attempts: policy.retry.max_attempts,
                max_age_seconds: policy.retry.max_age_seconds,
            },
            rate_limit: policy
                .rate_limit
                .map(|limit| RateLimitView { per_second: limit.per_second, burst: limit.burst }),
            max_in_flight: policy.max_in_flight,
            circuit_breaker: BreakerView::from(policy.circuit_breaker),
            disable_after_failing_for_seconds: policy.disable_after_failing_for_seconds,
            format: policy.format,
            signing_scheme: policy.signing_scheme,
        }
    }
}

impl From<&Backoff> for BackoffView {
    fn from(backoff: &Backoff) -> Self {
        match *backoff {
            Backoff::Exponential { initial_delay_seconds, max_delay_seconds } => {
                Self::Exponential { initial_delay_seconds, max_delay_seconds }
            }
            Backoff::Linear { initial_delay_seconds, step_seconds, max_delay_seconds } => {
                Self::Linear { initial_delay_seconds, step_seconds, max_delay_seconds }
            }
            Backoff::Fixed { delay_seconds } => Self::Fixed { delay_seconds },
            Backoff::Schedule { ref schedule_seconds } => Self::Schedule { schedule_seconds: schedule_seconds.clone() },
        }
    }
}

impl From<BreakerPolicy> for BreakerView {
    fn from(policy: BreakerPolicy) -> Self {
        Self {
            failure_percent: policy.failure_percent,
            min_attempts: policy.min_attempts,
            window_seconds: policy.window_seconds,
            initial_pause_seconds: policy.initial_pause_seconds,
            max_pause_seconds: policy.max_pause_seconds,
            probes: policy.probes,
        }
    }
}

/// A subscription as it is routed.
#[derive(Debug, Serialize)]
pub struct SubscriptionView {
    subscription_id: String,
    name: String,
    event_types: Vec<String>,
    filter: Option<String>,
    transform: Option<String>,
    /// Names of the endpoints that it resolves to.
    endpoints: Vec<String>,
    suspended: bool,
}

impl SubscriptionView {
    /// The view, with the names that the table knows.
    pub fn new(row: &SubscriptionRow, snapshot: &Snapshot) -> Self {
        let name = |id: &_| snapshot.index.endpoint(*id).map(|row| row.name.clone());
        Self {
            subscription_id: row.id.to_string(),
            name: row.name.clone(),
            event_types: row.event_types.clone(),
            filter: row.filter.clone(),
            transform: row.transform.clone(),
            endpoints: row.endpoints.iter().filter_map(name).collect(),
            suspended: row.suspended,
        }
    }
}

/// An endpoint's state by name, and the reason for one that is not its owner's wish.
pub(crate) fn endpoint_state<'a>(row: &'a EndpointRow, snapshot: &Snapshot) -> (&'static str, Option<&'a str>) {
    match &row.state {
        EndpointState::Suspended => ("suspended", None),
        EndpointState::Held { reason } => ("held", Some(reason)),
        EndpointState::Active => match snapshot.disabled_at_present(row) {
            Some(disabled) => ("disabled", Some(disable_reason(disabled.reason))),
            None => ("active", None),
        },
    }
}

fn recipient(rule: &RecipientRule) -> Option<String> {
    match rule {
        RecipientRule::Unaddressed => None,
        RecipientRule::Any => Some("*".to_owned()),
        RecipientRule::Exactly(name) => Some(name.clone()),
    }
}

fn disable_reason(reason: DisableReason) -> &'static str {
    match reason {
        DisableReason::Gone => "gone",
        DisableReason::DisabledAfterFailures => "disabled_after_failures",
    }
}
