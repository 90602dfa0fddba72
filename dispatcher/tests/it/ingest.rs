//! Accepting events over real HTTP and into a real ledger.

mod bad_input;
mod bounds;
mod broken_ledger;
mod publishing;

use std::sync::Arc;

use dispatcher::ingest::AdmissionLimits;
use dispatcher::ledger::Claim;
use dispatcher::queue::{Queue, Track, Work};
use dispatcher_core::limits::{LEASE, MEMORY_QUEUE_DELIVERIES_MAX};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::api::harness::{Options, World, eventually};
use broken_ledger::{REFUSED_TYPE, broken_ledger};

const PUBLISH: &str = "/v1/tenants/shop/events:publish";
const CLOUDEVENTS: &str = "/v1/tenants/shop/events";
const JSON: &str = "application/json";

#[tokio::test]
async fn a_published_event_is_stored_with_its_targets_and_queued() {
    let world = World::start().await;
    let answer = world.post(PUBLISH, JSON, r#"{"event_type":"order.created","payload":{"total":500}}"#).await;
    assert_eq!((answer.status, &answer.json()["fanout_count"]), (202, &json!(3)));
    let mut consumer = world.queue.consume("default", 100).await.unwrap();
    let received = consumer.next().await.unwrap().unwrap();
    assert_eq!(received.message.deliveries(), 3);
    let item = &received.message.items[0];
    assert_eq!(item.event.id.to_string(), answer.json()["event_id"].as_str().unwrap());
    assert_eq!(item.event.body, r#"{"total":500}"#);
    assert!(matches!(item.work, Work::Part { part: 0, r#gen: 1, .. }));
    let metrics = world.metrics.render().unwrap();
    for line in ["harborhook_accepted_events_total 1", "harborhook_accepted_deliveries_total 3"] {
        assert!(metrics.contains(line), "{line}");
    }
}

#[tokio::test]
async fn recipients_and_filters_decide_the_targets() {
    let world = World::start().await;
    for (body, fanout_count) in [
        (r#"{"event_type":"order.created","payload":{"total":100}}"#, 2),
        (r#"{"event_type":"order.created","payload":{"total":101}}"#, 3),
        (r#"{"event_type":"order.created","payload":{}}"#, 2),
        (r#"{"event_type":"order.created","payload":1,"recipient":"acme"}"#, 1),
        (r#"{"event_type":"order.created","payload":1,"recipient":"nobody"}"#, 0),
        (r#"{"event_type":"user.created","payload":1}"#, 1),
    ] {
        let answer = world.post(PUBLISH, JSON, body).await;
        assert_eq!((answer.status, &answer.json()["fanout_count"]), (202, &json!(fanout_count)), "{body}");
    }
    let other = world.post("/v1/tenants/other/events:publish", JSON, r#"{"event_type":"a","payload":1}"#).await;
    assert_eq!(other.json()["fanout_count"], 0);
}

#[tokio::test]
async fn a_repeated_request_is_one_event_and_a_reused_key_a_conflict() {
    let world = World::start().await;
    let publish = |key_in_header: Option<&str>, body: &str| {
        let mut request = world.http.post(world.url(PUBLISH)).header("content-type", JSON).body(body.to_owned());
        if let Some(key) = key_in_header {
            request = request.header("idempotency-key", key);
        }
        world.send(request)
    };
    let first = publish(Some("k1"), r#"{"event_type":"order.created","payload":1}"#).await.json();
    for (header, body) in [
        (Some("k1"), r#"{"event_type":"order.created","payload":1}"#),
        (None, r#"{"event_type":"order.created","payload":1,"idempotency_key":"k1"}"#),
        (Some("k1"), r#"{ "idempotency_key":"k1", "payload":1,"event_type":"order.created" }"#),
    ] {
        let repeated = publish(header, body).await;
        assert_eq!((repeated.status, repeated.json()), (202, first.clone()), "{header:?} {body}");
    }
    for body in [
        r#"{"event_type":"order.created","payload":2}"#,
        r#"{"event_type":"order.changed","payload":1}"#,
        r#"{"event_type":"order.created","payload":1,"recipient":"acme"}"#,
    ] {
        let (status, label, _) = publish(Some("k1"), body).await.problem();
        assert_eq!((status, label.as_str()), (409, "idempotency-conflict"), "{body}");
    }
    let elsewhere = world.http.post(world.url("/v1/tenants/other/events:publish")).header("content-type", JSON);
    let elsewhere = elsewhere.header("idempotency-key", "k1").body(r#"{"event_type":"order.created","payload":2}"#);
    assert_eq!(world.send(elsewhere).await.status, 202);
    let listed = world.get(CLOUDEVENTS).await.json();
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn the_same_request_many_times_at_once_is_one_event() {
    let world = Arc::new(World::start().await);
    let mut requests = JoinSet::new();
    for _ in 0..40 {
        let world = Arc::clone(&world);
        requests.spawn(async move {
            let body = r#"{"event_type":"order.created","payload":1,"idempotency_key":"once"}"#;
            let answer = world.post(PUBLISH, JSON, body).await;
            assert_eq!(answer.status, 202);
            answer.json()["event_id"].as_str().unwrap().to_owned()
        });
    }
    let mut events: Vec<String> = requests.join_all().await;
    events.dedup();
    assert_eq!(events.len(), 1);
    assert_eq!(world.get(CLOUDEVENTS).await.json()["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn cloudevents_are_accepted_in_every_mode_and_known_by_source_and_id() {
    let world = World::start().await;
    let structured = r#"{"specversion":"1.0","id":"1","source":"/s","type":"order.created","data":{ "total" : 7 }}"#;
    let first = world.post(CLOUDEVENTS, "application/cloudevents+json; charset=utf-8", structured).await;
    assert_eq!((first.status, &first.json()["events"][0]["fanout_count"]), (202, &json!(2)));
    let event = first.json()["events"][0]["event_id"].as_str().unwrap().to_owned();
    let body = world.get(&format!("/v1/tenants/shop/events/{event}/body")).await;
    assert_eq!(body.body, br#"{ "total" : 7 }"#);
    let shown = world.get(&format!("/v1/tenants/shop/events/{event}")).await.json();
    assert_eq!(shown["attributes"], json!({"id": "1", "source": "/s"}));
    assert_eq!(world.post(CLOUDEVENTS, "application/cloudevents+json", structured).await.json(), first.json());

    let binary = |id: &str| {
        let request = world.http.post(world.url(CLOUDEVENTS)).header("content-type", "image/png");
        let request = request.header("ce-specversion", "1.0").header("ce-id", id).header("ce-source", "/s");
        request.header("ce-type", "picture.taken").header("ce-recipient", "acme")
    };
    let bytes: Vec<u8> = (0..=255).collect();
    let taken = world.send(binary("2").body(bytes.clone())).await;
    assert_eq!(taken.status, 202);
    let event = taken.json()["events"][0]["event_id"].as_str().unwrap().to_owned();
    let body = world.get(&format!("/v1/tenants/shop/events/{event}/body")).await;
    assert_eq!((body.body, body.headers["content-type"].to_str().unwrap()), (bytes, "image/png"));
    let shown = world.get(&format!("/v1/tenants/shop/events/{event}")).await.json();
    assert_eq!((&shown["recipient"], shown["payload_base64"].is_string()), (&json!("acme"), true));

    let other = r#"{"specversion":"1.0","id":"9","source":"/s","type":"order.created"}"#;
    let batch = format!("[{structured},{other},{other}]");
    let answer = world.post(CLOUDEVENTS, "application/cloudevents-batch+json", batch).await;
    let events = answer.json()["events"].clone();
    assert_eq!((answer.status, &events[0]), (202, &first.json()["events"][0]));
    assert_eq!(events[1], events[2]);
    for tenant in ["shop", "other"] {
        let without_data = r#"{"specversion":"1.0","id":"5","source":"/s","type":"a"}"#;
        let path = format!("/v1/tenants/{tenant}/events");
        let answer = world.post(&path, "application/cloudevents+json", without_data).await;
        assert_eq!(answer.status, 202, "without data, tenant {tenant}: {answer:?}");
    }
    let changed = format!("[{}]", structured.replace('7', "8"));
    let problem = world.post(CLOUDEVENTS, "application/cloudevents-batch+json", changed).await.problem();
    assert_eq!((problem.0, problem.1.as_str()), (409, "idempotency-conflict"));
    let empty = world.post(CLOUDEVENTS, "application/cloudevents-batch+json", "[]").await;
    assert_eq!((empty.status, empty.json()), (202, json!({"events": []})));
    assert_eq!(world.get(CLOUDEVENTS).await.json()["items"].as_array().unwrap().len(), 4);
}

#[tokio::test]
async fn a_dry_run_says_who_would_get_an_event_and_why_not_the_others() {
    let world = World::start().await;
    let explain = async |body: &str| world.post("/v1/tenants/shop/events:route", JSON, body.to_owned()).await.json();
    let reasons = |json: &Value| -> Value {
        let all = json["not_matched"].as_array().unwrap().iter();
        all.map(|item| json!([item["subscription"], item["endpoint"], item["reason"]])).collect()
    };
    let small = explain(r#"{"event_type":"order.created","payload":{"total":5}}"#).await;
    assert_eq!(
        small["matched"],
        json!([
            {"subscription": "everything", "endpoint": "paused", "endpoint_state": "suspended"},
            {"subscription": "orders", "endpoint": "billing", "endpoint_state": "active"},
        ])
    );
    assert_eq!(
        reasons(&small),
        json!([
            ["large", "billing", "filter_false"],
            ["lost", null, "endpoint_missing"],
            ["orders", "acme", "other_recipient"],
        ])
    );
    let failing = explain(r#"{"event_type":"order.created","payload":{"total":"much"}}"#).await;
    assert_eq!(reasons(&failing)[0], json!(["large", "billing", "filter_failed"]));
    let other = explain(r#"{"event_type":"user.created","payload":1,"recipient":"acme"}"#).await;
    assert_eq!(other["matched"], json!([]));
    assert_eq!(reasons(&other)[0], json!(["everything", "paused", "other_recipient"]));
    assert_eq!(reasons(&other)[3], json!(["orders", "acme", "other_type"]));
    world.assert_nothing_stored("a dry run").await;
}

#[tokio::test]
async fn without_room_in_the_queue_events_are_accepted_and_due_at_once() {
    let world = World::start_with(Options { queue_messages_max: 0, ..Options::default() }, |ledger| ledger).await;
    assert_eq!(world.queue.room("default", Track::Fresh), 0);
    let event = world.publish("order.created", "1").await;
    let claim = Claim { pool: "default".into(), instance: uuid::Uuid::nil(), lease: LEASE, deliveries_max: 100 };
    let claimed = world.ledger.claim(claim).await.unwrap();
    let events: Vec<String> = claimed.items.iter().map(|item| item.event.id.to_string()).collect();
    assert_eq!(events, [event]);
}

#[tokio::test]
async fn a_backlog_refuses_with_a_time_to_come_back() {
    for (admission, status, label, retry_after) in [
        (AdmissionLimits { tenant_deliveries_max: 2, ..AdmissionLimits::default() }, 429, "tenant-backlog", "10"),
        (AdmissionLimits { deliveries_max: 1, ..AdmissionLimits::default() }, 503, "overloaded", "1"),
    ] {
        let world = World::start_with(Options { admission, ..Options::default() }, |ledger| ledger).await;
        world.publish("order.created", "1").await;
        let body = r#"{"event_type":"order.created","payload":1}"#;
        eventually("the backlog is counted", || async { world.post(PUBLISH, JSON, body).await.status != 202 }).await;
        let refused = world.post(PUBLISH, JSON, body).await;
        assert_eq!(refused.headers["retry-after"], retry_after);
        let (found, found_label, _) = refused.problem();
        assert_eq!((found, found_label.as_str()), (status, label));
        let dry_run = world.post("/v1/tenants/shop/events:route", JSON, body).await;
        assert_eq!(dry_run.status, 200);
    }
}

#[tokio::test]
async fn an_answer_of_202_follows_the_commit_and_only_the_commit() {
    let (gate, wrap) = broken_ledger();
    let world = World::start_with(Options::default(), wrap).await;
    let body = r#"{"event_type":"order.created","payload":1}"#;
    for (path, content_type, body) in [
        (PUBLISH, JSON, body.to_owned()),
        (
            CLOUDEVENTS,
            "application/cloudevents+json",
            r#"{"specversion":"1.0","id":"1","source":"/s","type":"a"}"#.to_owned(),
        ),
    ] {
        let refused = world.post(path, content_type, body).await;
        assert_eq!(refused.headers["retry-after"], "1");
        assert_eq!(refused.problem().1, "ledger-unavailable");
        assert!(!String::from_utf8_lossy(&refused.body).contains("disk"), "the database's words leaked: {refused:?}");
    }
    for path in ["events", "deliveries", "events/019ab0c4-7d5e-7c21-9d0a-3f1b5a0c9e77"] {
        assert_eq!(world.get(&format!("/v1/tenants/shop/{path}")).await.problem().0, 503, "{path}");
    }
    world.assert_nothing_stored("the ledger is down").await;
    assert_eq!(world.queue.room("default", Track::Fresh), MEMORY_QUEUE_DELIVERIES_MAX);
    gate.repair();
    eventually("it is accepted", || async { world.post(PUBLISH, JSON, body).await.status == 202 }).await;
}

#[tokio::test]
async fn a_ledger_that_is_known_to_be_down_is_not_asked_to_store_anything_until_it_answers() {
    let (gate, wrap) = broken_ledger();
    let world = World::start_with(Options::default(), wrap).await;
    let body = r#"{"event_type":"order.created","payload":1}"#;
    for _ in 0..20 {
        let refused = world.post(PUBLISH, JSON, body).await;
        assert_eq!(refused.problem().1, "ledger-unavailable");
        assert_eq!(gate.accepts(), 1, "only the first one had to find out");
    }
    gate.repair();
    eventually("it is accepted", || async { world.post(PUBLISH, JSON, body).await.status == 202 }).await;
    assert_eq!(gate.accepts(), 2);
}

#[tokio::test]
async fn one_refused_event_does_not_fail_the_others_of_its_batch() {
    let (gate, wrap) = broken_ledger();
    gate.repair();
    let world = Arc::new(World::start_with(Options::default(), wrap).await);
    let mut requests = JoinSet::new();
    for number in 0..20 {
        let world = Arc::clone(&world);
        requests.spawn(async move {
            let event_type = if number == 7 { REFUSED_TYPE } else { "order.created" };
            let body = format!(r#"{{"event_type":"{event_type}","payload":{number}}}"#);
            (number, world.post(PUBLISH, JSON, body).await.status)
        });
    }
    for (number, status) in requests.join_all().await {
        assert_eq!(status, if number == 7 { 500 } else { 202 }, "request {number}");
    }
}
