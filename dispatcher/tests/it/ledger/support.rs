//! Short ways to make events, holds and results.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use dispatcher::ledger::{
    Accepted, Change, Claim, Claimed, DeliveryQuery, DeliveryRecord, DeliveryResult, GateChange, Hold, Idempotency,
    Ledger, NewEvent, Recorded,
};
use dispatcher::queue::{DueDelivery, Work};
use dispatcher_core::delivery::{Attempt, DeliveryKey, DeliveryState, Next, Outcome, Part, Target, split_into_parts};
use dispatcher_core::event::{Attributes, Event};
use dispatcher_core::id::{DeliveryId, EndpointId, EventId, SubscriptionId, TenantId};
use dispatcher_core::recipient::RecipientRule;
use dispatcher_core::retry::RetryPolicy;
use dispatcher_core::table::{
    BodyFormat, BreakerPolicy, DeliveryPolicy, EndpointRow, EndpointState, Row, Sealed, SigningScheme, TableVersion,
};
use uuid::Uuid;

pub(crate) const POOL: &str = "default";
pub(crate) const HOUR: Duration = Duration::from_hours(1);
pub(crate) const NOW: Duration = Duration::ZERO;

pub(crate) fn tenant(name: &str) -> TenantId {
    TenantId::of_namespace_name(name)
}

pub(crate) fn shop() -> TenantId {
    tenant("shop")
}

pub(crate) fn endpoint(name: &str) -> EndpointId {
    EndpointId::derive(shop(), name)
}

pub(crate) fn target(name: &str) -> Target {
    Target { subscription: SubscriptionId::derive(shop(), "orders"), endpoint: endpoint(name) }
}

/// An event of `shop` with one target for each name; identities rise with each call.
pub(crate) fn new_event(targets: &[&str], lease: Duration) -> NewEvent {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let number = LAST.fetch_add(1, Ordering::Relaxed);
    let id = EventId::from_parts(1_700_000_000_000 + number, [7; 10]);
    let targets = targets.iter().map(|name| (POOL.to_owned(), target(name))).collect();
    event_of(shop(), id, split_into_parts(targets), lease)
}

pub(crate) fn event_of(tenant: TenantId, id: EventId, parts: Vec<Part>, lease: Duration) -> NewEvent {
    let event = Event {
        id,
        tenant,
        event_type: "order.created".into(),
        recipient: Some("acme".into()),
        content_type: "application/json".into(),
        body: Bytes::from(format!("{{\"id\":\"{id}\"}}\0\u{e9}")),
        attributes: Attributes([("source".to_owned(), "/shop \"1\"".to_owned())].into()),
    };
    NewEvent { event: Arc::new(event), parts, table_version: TableVersion(3), idempotency: None, lease }
}

pub(crate) fn keyed(mut new: NewEvent, key: &str, digest: u8, lifetime: Duration) -> NewEvent {
    new.idempotency = Some(Idempotency { key: key.into(), digest: [digest; 32], lifetime });
    new
}

pub(crate) async fn accept(ledger: &Arc<dyn Ledger>, new: &NewEvent) -> Accepted {
    ledger.accept(vec![new.clone()]).await.unwrap().remove(0)
}

pub(crate) fn attempt(number: u32, outcome: Outcome) -> Attempt {
    Attempt {
        number,
        started_at_unix_ms: 1_700_000_000_000 + u64::from(number),
        duration: Duration::from_micros(1_234),
        outcome,
        status_code: (outcome == Outcome::Delivered).then_some(204),
        excerpt: Bytes::from_static(b"\0\xffno"),
    }
}

pub(crate) fn key(new: &NewEvent, target: Target) -> DeliveryKey {
    DeliveryKey::new(new.event.tenant, new.event.id, target)
}

pub(crate) fn delivery(new: &NewEvent, name: &str) -> DeliveryId {
    target(name).delivery(new.event.id)
}

pub(crate) fn delivered(number: u32) -> (Option<Attempt>, Next) {
    (Some(attempt(number, Outcome::Delivered)), Next::Delivered)
}

pub(crate) fn failed(number: u32, delay: Duration) -> (Option<Attempt>, Next) {
    (Some(attempt(number, Outcome::Http5xx)), Next::Waiting { delay })
}

pub(crate) fn waits(delay: Duration) -> (Option<Attempt>, Next) {
    (None, Next::Waiting { delay })
}

/// The same result for every target of a part.
pub(crate) fn part_change(new: &NewEvent, part: u16, r#gen: u32, what: &(Option<Attempt>, Next)) -> Change {
    let result =
        |target: &Target| DeliveryResult { key: key(new, *target), attempt: what.0.clone(), next: what.1.clone() };
    let results = new.parts[usize::from(part)].targets.iter().map(result).collect();
    Change::Part { event: new.event.id, tenant: new.event.tenant, part, r#gen, results }
}

pub(crate) fn delivery_change(key: DeliveryKey, run: u32, r#gen: u32, what: (Option<Attempt>, Next)) -> Change {
    Change::Delivery { run, r#gen, result: DeliveryResult { key, attempt: what.0, next: what.1 } }
}

pub(crate) async fn record(ledger: &Arc<dyn Ledger>, change: Change) -> Recorded {
    ledger.record(vec![change]).await.unwrap().remove(0)
}

pub(crate) async fn claim(ledger: &Arc<dyn Ledger>, deliveries_max: usize, lease: Duration) -> Claimed {
    let claim = Claim { pool: POOL.into(), instance: Uuid::nil(), lease, deliveries_max };
    ledger.claim(claim).await.unwrap()
}

/// The due deliveries of a claim, whatever event they travel with.
pub(crate) fn due(claimed: &Claimed) -> Vec<DueDelivery> {
    let of_item = |work: &Work| match work {
        Work::Due(deliveries) => deliveries.clone(),
        Work::Part { .. } => Vec::new(),
    };
    claimed.items.iter().flat_map(|item| of_item(&item.work)).collect()
}

/// The parts of a claim, as holds.
pub(crate) fn parts(claimed: &Claimed) -> Vec<Hold> {
    let of_item = |item: &dispatcher::queue::Item| match &item.work {
        Work::Part { part, r#gen, .. } => Some(Hold::Part { event: item.event.id, part: *part, r#gen: *r#gen }),
        Work::Due(_) => None,
    };
    claimed.items.iter().filter_map(of_item).collect()
}

pub(crate) async fn state(ledger: &Arc<dyn Ledger>, delivery: DeliveryId) -> Option<DeliveryState> {
    ledger.delivery(shop(), delivery).await.unwrap().map(|record| record.state)
}

pub(crate) async fn show(ledger: &Arc<dyn Ledger>, delivery: DeliveryId) -> DeliveryRecord {
    ledger.delivery(shop(), delivery).await.unwrap().expect("the delivery exists")
}

/// Accepts an event to one endpoint and records that its first attempt failed.
pub(crate) async fn waiting(ledger: &Arc<dyn Ledger>, name: &str, delay: Duration) -> NewEvent {
    let new = new_event(&[name], HOUR);
    accept(ledger, &new).await;
    assert_eq!(record(ledger, part_change(&new, 0, 1, &failed(1, delay))).await, Recorded::Applied);
    new
}

/// A change of an endpoint's gate at its revision 1.
pub(crate) fn gate(name: &str, closed_for: Duration, quota: Option<u32>) -> GateChange {
    GateChange { endpoint: endpoint(name), revision: "1".into(), closed_for, quota }
}

pub(crate) fn endpoint_row(name: &str, revision: &str, state: EndpointState) -> Row {
    Row::Endpoint(Box::new(EndpointRow {
        id: endpoint(name),
        tenant: shop(),
        name: name.into(),
        revision: revision.into(),
        recipient: RecipientRule::Any,
        state,
        host: "example.com".into(),
        policy: DeliveryPolicy {
            timeout_seconds: 15,
            retry: RetryPolicy::default(),
            rate_limit: None,
            max_in_flight: 8,
            circuit_breaker: BreakerPolicy::default(),
            disable_after_failing_for_seconds: None,
            format: BodyFormat::Payload,
            signing_scheme: SigningScheme::StandardWebhooks,
        },
        pool: POOL.into(),
        sealed: Sealed("sealed".into()),
    }))
}

pub(crate) async fn assert_balanced(ledger: &Arc<dyn Ledger>) {
    for balance in ledger.balance().await.unwrap() {
        let sum = balance.delivered + balance.dead + balance.cancelled + balance.open;
        assert_eq!(balance.accepted, sum, "{balance:?}");
    }
}

/// Follows a listing to its end.
pub(crate) async fn all_deliveries(ledger: &Arc<dyn Ledger>, query: DeliveryQuery) -> Vec<DeliveryRecord> {
    let (mut all, mut query) = (Vec::new(), query);
    loop {
        let page = ledger.deliveries(shop(), query.clone()).await.unwrap();
        assert!(page.rows.len() <= query.rows_max as usize);
        all.extend(page.rows);
        match page.next {
            Some(next) => query.after = Some(next),
            None => return all,
        }
    }
}
