//! What subscriptions make of events before they are sent, and what holds when they cannot.

use std::time::Duration;

use dispatcher::deliver::DeliverConfig;
use dispatcher::ledger::EndpointFacts;
use dispatcher_core::delivery::{DeliveryState, EndReason, Outcome};
use dispatcher_core::id::EventId;
use dispatcher_core::limits::{ATTEMPTS_READ_MAX, LEASE};
use dispatcher_core::table::{BodyFormat, BreakerPolicy, DeliveryPolicy, RateLimit, Row, RowKey, TableChange};
use serde_json::{Value, json};

use super::harness::{
    KEY, Process, Receiver, config, endpoint, endpoint_id, eventually, policy, subscription, target_by, tenant,
};

const TRANSFORM: &str = "{'type': event.type, 'number': event.data.number, 'doubled': event.data.number * 2}";

/// A policy that goes on trying for as long as a test may take.
fn patient() -> DeliveryPolicy {
    let mut patient = policy();
    patient.retry.max_attempts = 100;
    patient
}

async fn facts(process: &Process, name: &str) -> EndpointFacts {
    let facts = process.ledger.endpoint_facts(tenant(), Duration::from_mins(1)).await.unwrap();
    facts.into_iter().find(|facts| facts.endpoint == endpoint_id(name)).unwrap()
}

async fn drop_subscription(process: &Process) {
    let drop = vec![RowKey::Subscription(subscription("all", None).id)];
    process.change_table(TableChange { put: Vec::new(), drop }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transform_takes_the_place_of_the_payload_in_every_format() {
    let formats = [
        ("payload", BodyFormat::Payload),
        ("structured", BodyFormat::CloudEventsStructured),
        ("binary", BodyFormat::CloudEventsBinary),
    ];
    let (mut receivers, mut rows) = (Vec::new(), Vec::new());
    for (name, format) in formats {
        let receiver = Receiver::start(200).await;
        rows.push(endpoint(name, &receiver.url, DeliveryPolicy { format, ..policy() }));
        receivers.push(receiver);
    }
    let process = Process::start(rows, config()).await;
    process.subscribe("shaped", Some(TRANSFORM)).await;
    let names = formats.map(|(name, _)| name);
    let event = process.publish_by("shaped", &names, "{\"number\":  21}").await;
    process.finished().await;

    let expected = json!({"doubled": 42, "number": 21, "type": "order.created"});
    let verifier = standardwebhooks::Webhook::from_bytes(KEY.to_vec()).unwrap();
    for (name, receiver) in names.into_iter().zip(&receivers) {
        let seen = receiver.seen().remove(0);
        verifier.verify(&seen.body, &seen.headers).unwrap();
        let body: Value = serde_json::from_slice(&seen.body).unwrap();
        if name == "structured" {
            assert_eq!(seen.headers["content-type"], "application/cloudevents+json");
            assert_eq!((&body["data"], &body["datacontenttype"]), (&expected, &"application/json".into()));
            assert_eq!(body["id"], event.to_string());
        } else {
            assert_eq!(seen.headers["content-type"], "application/json");
            assert_eq!(body, expected, "{name}");
        }
        assert_eq!(seen.headers.contains_key("ce-id"), name == "binary");
    }
    assert_eq!(receivers[0].seen()[0].body, b"{\"doubled\":42,\"number\":21,\"type\":\"order.created\"}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_sends_the_very_bytes_of_the_first_attempt() {
    let receiver = Receiver::start(500).await;
    let process = Process::start(vec![endpoint("flaky", &receiver.url, patient())], config()).await;
    process.subscribe("shaped", Some("{'all': event.data, 'keys': event.data.map(key, key)}")).await;
    let members: Vec<String> = (0..40).map(|number| format!("\"k{number}\":{number}")).collect();
    process.publish_by("shaped", &["flaky"], format!("{{{}}}", members.join(","))).await;
    eventually("three attempts", || async { receiver.count() >= 3 }).await;
    receiver.answer(200);
    process.finished().await;
    let seen = receiver.seen();
    assert!(seen.iter().all(|one| one.body == seen[0].body), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transform_that_fails_is_an_attempt_that_sends_nothing_and_a_mended_one_heals_what_waits() {
    let receiver = Receiver::start(200).await;
    let process = Process::start(vec![endpoint("one", &receiver.url, patient())], config()).await;
    let mut watcher = process.observers.subscribe();
    for (broken, message) in [
        ("event.data.missing", "a field is missing in this event"),
        ("event.data ===", "does not compile"),
        ("1.0 / 0.0", "infinite"),
    ] {
        process.subscribe("shaped", Some(broken)).await;
        let event = process.publish_by("shaped", &["one"], "{\"number\": 4111111111111111}").await;
        let delivery = target_by("shaped", "one").delivery(event);
        let attempts = || process.ledger.attempts(tenant(), delivery, ATTEMPTS_READ_MAX);
        eventually("it is tried again", || async { attempts().await.unwrap().len() >= 2 }).await;
        for record in attempts().await.unwrap() {
            let attempt = record.attempt;
            assert_eq!((attempt.outcome, attempt.status_code), (Outcome::TransformFailed, None));
            assert_eq!(attempt.duration, Duration::ZERO);
            let excerpt = String::from_utf8(attempt.excerpt.to_vec()).unwrap();
            assert!(excerpt.contains(message), "{excerpt}");
            assert!(!excerpt.contains("4111") && !excerpt.contains("swordfish"), "{excerpt}");
        }
        assert_eq!(receiver.count(), 0, "{broken}");
        let told = loop {
            let one = watcher.recv().await.unwrap();
            if one.event == event {
                break one;
            }
        };
        assert_eq!((told.outcome, told.attempt_number), (Outcome::TransformFailed, 1));

        process.subscribe("shaped", Some("{'ok': true}")).await;
        process.finished().await;
        let record = process.ledger.delivery(tenant(), delivery).await.unwrap().unwrap();
        assert_eq!(record.state, DeliveryState::Delivered);
        let seen = receiver.take();
        assert_eq!((seen.len(), &*seen[0].body), (1, &b"{\"ok\":true}"[..]));
    }
    process.assert_balanced().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transform_that_always_fails_ends_as_the_retry_policy_says() {
    let receiver = Receiver::start(200).await;
    let mut twice = policy();
    twice.retry.max_attempts = 2;
    let process = Process::start(vec![endpoint("one", &receiver.url, twice)], config()).await;
    process.subscribe("shaped", Some("event.data.missing")).await;
    let event = process.publish_by("shaped", &["one"], "{}").await;
    process.finished().await;
    let record = process.ledger.delivery(tenant(), target_by("shaped", "one").delivery(event)).await.unwrap().unwrap();
    assert_eq!((record.state, record.reason), (DeliveryState::Dead, Some(EndReason::AttemptsExhausted)));
    assert_eq!((record.attempts, record.last_outcome), (2, Some(Outcome::TransformFailed)));
    assert_eq!(receiver.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_subscriptions_mistake_does_nothing_to_the_endpoint_that_others_use() {
    let receiver = Receiver::start(200).await;
    let mut touchy = patient();
    touchy.circuit_breaker = BreakerPolicy { min_attempts: 2, failure_percent: 1, ..BreakerPolicy::default() };
    touchy.disable_after_failing_for_seconds = Some(1);
    touchy.rate_limit = Some(RateLimit { per_second: 1, burst: 1 });
    touchy.max_in_flight = 1;
    let process = Process::start(vec![endpoint("shared", &receiver.url, touchy)], config()).await;
    process.subscribe("broken", Some("event.data.missing")).await;
    let mut broken: Vec<EventId> = Vec::new();
    for _ in 0..10 {
        broken.push(process.publish_by("broken", &["shared"], "{}").await);
    }
    // Longer than what would disable it, and far more than its rate or its circuit would let through.
    eventually("each has failed three times", || async {
        let mut least = u32::MAX;
        for event in &broken {
            let delivery = target_by("broken", "shared").delivery(*event);
            let record = process.ledger.delivery(tenant(), delivery).await.unwrap();
            least = least.min(record.map_or(0, |record| record.attempts));
        }
        least >= 3
    })
    .await;
    assert_eq!(process.ledger.disabled().await.unwrap(), []);
    let before = facts(&process, "shared").await;
    assert_eq!((before.attempts, before.last_outcome, before.last_status_code), (0, None, None));

    let event = process.publish_by("all", &["shared"], "{\"fine\": 1}").await;
    eventually("the other one's event arrives", || async {
        let record = process.delivery(event, "shared").await;
        record.state == DeliveryState::Delivered
    })
    .await;
    let seen = receiver.seen();
    assert_eq!((seen.len(), &*seen[0].body), (1, &b"{\"fine\": 1}"[..]));
    let after = facts(&process, "shared").await;
    assert_eq!((after.attempts, after.last_outcome), (1, Some(Outcome::Delivered)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_costly_transform_and_a_suspended_subscription_still_deliver() {
    let receiver = Receiver::start(200).await;
    let process = Process::start(vec![endpoint("one", &receiver.url, policy())], config()).await;
    let mut row = subscription("suspended", Some("{'all': event.data}"));
    row.suspended = true;
    process.change_table(TableChange { put: vec![Row::Subscription(row)], drop: Vec::new() }).await;
    let numbers = format!("[{}]", vec!["7"; 50_000].join(","));
    process.publish_by("suspended", &["one"], numbers.clone()).await;
    process.finished().await;
    assert_eq!(receiver.seen()[0].body, format!("{{\"all\":{numbers}}}").into_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_subscription_a_delivery_is_held_and_the_same_name_adopts_it() {
    let receiver = Receiver::start(200).await;
    let hasty = DeliverConfig { deletion_pause: Duration::from_millis(200), ..config() };
    let process = Process::start(vec![endpoint("one", &receiver.url, policy())], hasty).await;
    drop_subscription(&process).await;
    let event = process.publish(&["one"], LEASE).await;
    eventually("it waits", || async { process.pending("one").await == 1 }).await;
    let record = process.delivery(event, "one").await;
    assert_eq!((record.state, record.attempts, receiver.count()), (DeliveryState::Open, 0, 0));

    process.subscribe("all", Some("'adopted'")).await;
    process.finished().await;
    let record = process.delivery(event, "one").await;
    assert_eq!((record.state, record.attempts), (DeliveryState::Delivered, 1));
    assert_eq!(receiver.seen()[0].body, b"\"adopted\"");
    process.assert_balanced().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_grace_of_a_deleted_subscription_is_over_its_deliveries_are_cancelled() {
    let receiver = Receiver::start(500).await;
    let short = DeliverConfig { deletion_grace: Duration::from_millis(500), ..config() };
    let process = Process::start(vec![endpoint("one", &receiver.url, patient())], short).await;
    let failing = process.publish(&["one"], LEASE).await;
    eventually("it was sent", || async { receiver.count() >= 1 }).await;
    drop_subscription(&process).await;
    let fresh = process.publish(&["one"], LEASE).await;
    process.finished().await;
    for event in [failing, fresh] {
        let record = process.delivery(event, "one").await;
        assert_eq!((record.state, record.reason), (DeliveryState::Cancelled, Some(EndReason::SubscriptionDeleted)));
    }
    assert_eq!(process.delivery(fresh, "one").await.attempts, 0);
    process.assert_balanced().await;
}
