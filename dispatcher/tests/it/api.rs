//! The reading API over real HTTP and a real ledger.

pub(crate) mod harness;
mod service;

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use dispatcher::ledger::{Change, DeliveryResult};
use dispatcher::problem::ProblemKind;
use dispatcher_core::delivery::{Attempt, DeliveryKey, EndReason, Next, Outcome, Target};
use dispatcher_core::id::{EndpointId, EventId, SubscriptionId, TenantId};
use dispatcher_core::recipient::RecipientRule;
use dispatcher_core::sign::{VerifyingKey, public_key};
use dispatcher_core::table::{EndpointState, KeyBytes, Row, SigningKey, SigningScheme, TableChange};
use harness::{SECRET_PATH, World, endpoint_row, eventually, sealing_key};
use serde_json::json;

#[test]
fn every_problem_is_documented_with_its_status() {
    let documentation = include_str!("../../../docs/api.md");
    for kind in ProblemKind::ALL {
        let row = format!("| `{}` | {} |", kind.as_str(), kind.status().as_u16());
        assert!(documentation.contains(&row), "docs/api.md has no row {row}");
    }
}

#[test]
fn every_list_of_outcomes_has_all_of_them() {
    let api = include_str!("../../../docs/api.md");
    let harborctl = include_str!("../../../docs/harborctl.md");
    for (page, list) in [
        ("api.md", api.lines().find(|line| line.starts_with("| `outcome` |")).unwrap()),
        ("harborctl.md", harborctl.split("`outcome` is one of").nth(1).unwrap().split("`state`").next().unwrap()),
    ] {
        // What stands in parentheses explains.
        let outside = list.split('(').map(|part| part.rsplit(')').next().unwrap_or_default()).collect::<String>();
        let named: BTreeSet<&str> = outside.split('`').skip(1).step_by(2).filter(|name| *name != "outcome").collect();
        let all: BTreeSet<&str> = Outcome::ALL.iter().map(|outcome| outcome.as_str()).collect();
        assert_eq!(named, all, "docs/{page}");
    }
}

#[tokio::test]
async fn bad_reading_requests_are_problems_that_name_what_is_wrong() {
    let world = World::start().await;
    let nobody = "019ab0c4-7d5e-7c21-9d0a-3f1b5a0c9e77";
    let shop = "/v1/tenants/shop";
    for (path, status, label, field) in [
        ("/", 404, "unknown-route", None),
        ("/v1/tenants/shop", 404, "unknown-route", None),
        ("/v1/tenants/%ff/events", 404, "unknown-route", None),
        ("/v1/tenants/nobody/events", 404, "unknown-tenant", Some("tenant")),
        ("/v1/tenants/nobody/deliveries?limit=0", 404, "unknown-tenant", Some("tenant")),
        (&format!("{shop}/events?limit=0"), 400, "invalid-query", Some("limit")),
        (&format!("{shop}/events?limit=many"), 400, "invalid-query", Some("limit")),
        (&format!("{shop}/events?cursor=%20"), 400, "invalid-query", Some("cursor")),
        (&format!("{shop}/events?page=2"), 400, "invalid-query", Some("page")),
        (&format!("{shop}/events?{}", "a".repeat(5000)), 400, "invalid-query", None),
        (&format!("{shop}/events/{nobody}?x=1"), 400, "invalid-query", Some("x")),
        (&format!("{shop}/events/{nobody}"), 404, "not-found", None),
        (&format!("{shop}/events/{nobody}/body"), 404, "not-found", None),
        (&format!("{shop}/events/not-an-id"), 404, "not-found", None),
        (&format!("{shop}/deliveries?state=lost"), 400, "invalid-query", Some("state")),
        (&format!("{shop}/deliveries?event=1"), 400, "invalid-query", Some("event")),
        (&format!("{shop}/deliveries?event=1&event=2"), 400, "invalid-query", Some("event")),
        (&format!("{shop}/deliveries/{nobody}"), 404, "not-found", None),
        (&format!("{shop}/deliveries/{nobody}/attempts"), 404, "not-found", None),
        (&format!("{shop}/endpoints/nobody"), 404, "not-found", None),
        (&format!("{shop}/endpoints?cursor=%ff"), 400, "invalid-query", Some("cursor")),
        (&format!("{shop}/subscriptions?filter=x"), 400, "invalid-query", Some("filter")),
    ] {
        let expected = (status, label.to_owned(), field.map(str::to_owned));
        assert_eq!(world.get(path).await.problem(), expected, "GET {path}");
    }
    let rejected = "harborhook_rejected_requests_total{reason=\"not-found\"} 6";
    assert!(world.metrics.render().unwrap().contains(rejected));
}

#[tokio::test]
async fn a_wrong_method_is_told_the_right_ones() {
    let world = World::start().await;
    for (method, path, allow) in [
        ("DELETE", "/v1/tenants/shop/events", vec!["GET", "HEAD", "POST"]),
        ("GET", "/v1/tenants/shop/events:publish", vec!["POST"]),
        ("PUT", "/v1/tenants/shop/endpoints/billing", vec!["GET", "HEAD"]),
    ] {
        let answer = world.send(world.http.request(method.parse().unwrap(), world.url(path))).await;
        assert_eq!(answer.problem().1, "method-not-allowed", "{method} {path}");
        let mut allowed: Vec<&str> = answer.headers["allow"].to_str().unwrap().split(',').collect();
        allowed.sort_unstable();
        assert_eq!(allowed, allow, "{method} {path}");
    }
}

#[tokio::test]
async fn events_are_read_back_byte_for_byte_and_only_by_their_tenant() {
    let world = World::start().await;
    for payload in [
        r#"{ "b" : 1,	"a":[1.0,1e400,"\u0000é"],"a":null }"#,
        "null",
        r#""text""#,
        "123456789012345678901234567890.10",
        "[]",
    ] {
        let event = world.publish("order.created", payload).await;
        let raw = world.get(&format!("/v1/tenants/shop/events/{event}/body")).await;
        assert_eq!(raw.body, payload.as_bytes());
        assert_eq!(raw.headers["content-type"], "application/json");
        let shown = world.get(&format!("/v1/tenants/shop/events/{event}")).await;
        let text = String::from_utf8(shown.body.clone()).unwrap();
        assert!(text.contains(&format!(r#""payload":{payload}"#)), "{text}");
        assert_eq!(world.get(&format!("/v1/tenants/other/events/{event}")).await.problem().1, "not-found");
    }
}

#[tokio::test]
async fn pages_hold_every_row_once_newest_first() {
    let world = World::start().await;
    let mut published = Vec::new();
    for number in 0..7 {
        published.push(world.publish(if number % 2 == 0 { "order.created" } else { "other" }, "1").await);
    }
    for (filter, expected) in [("", 7), ("&event_type=order.created", 4), ("&event_type=none", 0)] {
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = world.get(&format!("/v1/tenants/shop/events?limit=3{filter}{cursor}")).await.json();
            let items = page["items"].as_array().unwrap();
            assert!(items.len() <= 3);
            seen.extend(items.iter().map(|item| item["event_id"].as_str().unwrap().to_owned()));
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!(seen.len(), expected, "{filter}");
        let mut newest_first = seen.clone();
        newest_first.sort_unstable_by(|a, b| b.cmp(a));
        newest_first.dedup();
        assert_eq!(seen, newest_first, "{filter}");
        assert!(seen.iter().all(|event| published.contains(event)));
    }
    assert_eq!(world.get("/v1/tenants/other/events").await.json()["items"], json!([]));
}

#[tokio::test]
async fn deliveries_are_listed_by_event_endpoint_and_state() {
    let world = World::start().await;
    let event = world.publish("order.created", r#"{"total":5}"#).await;
    world.publish("user.created", "1").await;
    for (query, endpoints) in [
        ("", vec!["billing", "paused", "paused"]),
        ("?endpoint=billing", vec!["billing"]),
        ("?endpoint=removed", vec![]),
        (&format!("?event={event}"), vec!["billing", "paused"]),
        (&format!("?event={event}&endpoint=paused&state=open"), vec!["paused"]),
        ("?state=dead", vec![]),
    ] {
        let list = world.get(&format!("/v1/tenants/shop/deliveries{query}")).await.json();
        let mut found: Vec<&str> =
            list["items"].as_array().unwrap().iter().map(|item| item["endpoint"].as_str().unwrap()).collect();
        found.sort_unstable();
        assert_eq!(found, endpoints, "{query}");
    }
    let list = world.get(&format!("/v1/tenants/shop/deliveries?event={event}&endpoint=billing")).await.json();
    let delivery = list["items"][0].clone();
    assert_eq!(delivery["delivery_id"], billing_delivery(&event).delivery.to_string());
    assert_eq!((&delivery["subscription"], &delivery["state"]), (&json!("orders"), &json!("open")));
    assert_eq!(delivery["due_time"], json!(null), "nobody has looked at it yet");
    let path = format!("deliveries/{}", delivery["delivery_id"].as_str().unwrap());
    assert_eq!(world.get(&format!("/v1/tenants/shop/{path}")).await.json(), delivery);
    assert_eq!(world.get(&format!("/v1/tenants/shop/{path}/attempts")).await.json()["items"], json!([]));
    assert_eq!(world.get(&format!("/v1/tenants/other/{path}")).await.problem().1, "not-found");
}

#[tokio::test]
async fn a_finished_delivery_is_replayed_in_a_new_run() {
    let world = World::start().await;
    let event = world.publish("order.created", r#"{"total":5}"#).await;
    let key = billing_delivery(&event);
    let path = format!("/v1/tenants/shop/deliveries/{}", key.delivery);
    let replay = |tenant: &str| world.url(&format!("/v1/tenants/{tenant}/deliveries/{}:replay", key.delivery));
    let open = world.send(world.http.post(replay("shop"))).await.problem();
    assert_eq!((open.0, open.1.as_str()), (409, "delivery-open"));

    record_dead(&world, key).await;
    let dead = world.get(&path).await.json();
    assert_eq!((&dead["state"], &dead["reason"]), (&json!("dead"), &json!("attempts_exhausted")));
    assert_eq!((&dead["last_outcome"], &dead["last_status_code"]), (&json!("http_5xx"), &json!(503)));
    let attempts = world.get(&format!("{path}/attempts")).await.json();
    let attempt = &attempts["items"][0];
    assert_eq!((&attempt["outcome"], &attempt["duration_ms"]), (&json!("http_5xx"), &json!(12.5)));
    assert_eq!(attempt["started_time"], "2023-11-14T22:13:20.123Z");
    assert_eq!(attempt["excerpt"], "no\u{fffd}");

    let foreign = world.send(world.http.post(replay("other"))).await.problem();
    assert_eq!((foreign.0, foreign.1.as_str()), (404, "not-found"));
    let started = world.send(world.http.post(replay("shop"))).await;
    assert_eq!((started.status, started.json()["run"].clone()), (202, json!(2)));
    let again = world.get(&path).await.json();
    assert_eq!((&again["state"], &again["run"], &again["attempts_count"]), (&json!("open"), &json!(2), &json!(0)));
    let unknown = world.send(world.http.post(world.url(&path))).await.problem();
    assert_eq!((unknown.0, unknown.1.as_str()), (404, "unknown-route"));
}

#[tokio::test]
async fn endpoints_show_their_effective_policy_and_no_secret() {
    let world = World::start().await;
    let list = world.get("/v1/tenants/shop/endpoints").await;
    let text = String::from_utf8(list.body.clone()).unwrap();
    for secret in [SECRET_PATH, "swordfish", "whsec_", "sealed"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    let items = list.json()["items"].clone();
    let states: Vec<_> = items.as_array().unwrap().iter().map(|item| (&item["name"], &item["state"])).collect();
    let expected = [("acme", "active"), ("billing", "active"), ("broken", "held"), ("paused", "suspended")];
    assert_eq!(json!(states), json!(expected));
    assert_eq!((&items[0]["recipient"], &items[2]["reason"]), (&json!("acme"), &json!("SecretNotFound")));

    let billing = world.get("/v1/tenants/shop/endpoints/billing").await.json();
    assert_eq!(billing, items[1]);
    assert_eq!(billing["host"], "billing.example");
    assert_eq!(billing["policy"]["retry"]["type"], "Schedule");
    assert_eq!(billing["policy"]["retry"]["max_attempts"], 12);
    assert_eq!(billing["policy"]["circuit_breaker"]["failure_percent"], 50);

    let (mut names, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = world.get(&format!("/v1/tenants/shop/subscriptions?limit=3{cursor}")).await.json();
        names.extend(page["items"].as_array().unwrap().iter().map(|item| item["name"].clone()));
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(json!(names), json!(["everything", "large", "lost", "orders"]));
}

#[tokio::test]
async fn an_endpoint_that_signs_with_ed25519_shows_the_public_keys_in_force() {
    let world = World::start().await;
    let key = |byte, retires_at_unix_ms| SigningKey { bytes: KeyBytes(vec![byte; 32]).into(), retires_at_unix_ms };
    let keys = vec![key(1, None), key(2, Some(u64::MAX)), key(3, Some(1))];
    let expected: Vec<_> = keys[..2].iter().map(|key| public_key(key).unwrap()).collect();
    let Row::Endpoint(mut row) = endpoint_row("signed", EndpointState::Active, RecipientRule::Any) else {
        panic!("an endpoint's row")
    };
    let mut secrets = sealing_key().open(row.id, &row.sealed).unwrap();
    secrets.keys = keys;
    row.sealed = sealing_key().seal(row.id, &secrets);
    row.policy.signing_scheme = SigningScheme::StandardWebhooksEd25519;
    world.ledger.publish_table(TableChange { put: vec![Row::Endpoint(row)], drop: Vec::new() }, None).await.unwrap();
    world.table_changed.notify_one();
    eventually("the endpoint is routed", || async {
        world.get("/v1/tenants/shop/endpoints/signed").await.status == 200
    })
    .await;
    let shown = world.get("/v1/tenants/shop/endpoints/signed").await.json();
    assert_eq!(shown["public_keys"], json!(expected));
    assert!(matches!(VerifyingKey::parse(expected[0].as_bytes()), Ok(VerifyingKey::Ed25519(_))));
    let shared = world.get("/v1/tenants/shop/endpoints/billing").await.json();
    assert_eq!(shared.get("public_keys"), None, "a shared key has no public half");
}

#[tokio::test]
async fn a_changed_table_is_used_at_once_and_a_disabled_endpoint_is_shown() {
    let world = World::start().await;
    let put = vec![endpoint_row("new", EndpointState::Active, RecipientRule::Any)];
    world.ledger.publish_table(TableChange { put, drop: Vec::new() }, None).await.unwrap();
    world.table_changed.notify_one();
    eventually("the new endpoint is routed", || async {
        world.get("/v1/tenants/shop/endpoints/new").await.status == 200
    })
    .await;
    let endpoint = EndpointId::derive(TenantId::of_namespace_name("shop"), "new");
    assert!(world.snapshot.borrow().may_deliver(endpoint).is_ok());
    world.ledger.disable(endpoint, "1", dispatcher::ledger::DisableReason::Gone).await.unwrap();
    world.table_changed.notify_one();
    eventually("the endpoint is disabled", || async {
        world.get("/v1/tenants/shop/endpoints/new").await.json()["reason"] == "gone"
    })
    .await;
    let refused = world.snapshot.borrow().may_deliver(endpoint).map(|_| ()).unwrap_err();
    assert_eq!(refused, dispatcher::snapshot::NotDeliverable::Disabled);
}

#[tokio::test]
async fn only_an_endpoint_that_is_active_and_opened_may_be_delivered_to() {
    let world = World::start().await;
    let snapshot = world.snapshot.borrow().clone();
    for (name, expected) in
        [("billing", None), ("paused", Some("suspended")), ("broken", Some("held")), ("nowhere", Some("absent"))]
    {
        let endpoint = EndpointId::derive(TenantId::of_namespace_name("shop"), name);
        let refused = snapshot.may_deliver(endpoint).err().map(dispatcher::snapshot::NotDeliverable::as_str);
        assert_eq!(refused, expected, "{name}");
    }
    let endpoint = EndpointId::derive(TenantId::of_namespace_name("shop"), "billing");
    let route = snapshot.may_deliver(endpoint).unwrap();
    assert_eq!(route.url.path(), format!("/{SECRET_PATH}"));
    assert_eq!(route.headers["x-token"], "swordfish");
    let printed = format!("{route:?} {:?} {snapshot:?}", route.headers);
    assert!(!printed.contains(SECRET_PATH) && !printed.contains("swordfish"), "{printed}");
}

/// The delivery of an event to `billing` because of `orders`.
fn billing_delivery(event: &str) -> DeliveryKey {
    let tenant = TenantId::of_namespace_name("shop");
    let target = Target {
        subscription: SubscriptionId::derive(tenant, "orders"),
        endpoint: EndpointId::derive(tenant, "billing"),
    };
    DeliveryKey::new(tenant, event.parse::<EventId>().unwrap(), target)
}

/// Records the first part of the event: one delivery is dead, the others wait.
async fn record_dead(world: &World, dead: DeliveryKey) {
    let paused = Target {
        subscription: SubscriptionId::derive(dead.tenant, "everything"),
        endpoint: EndpointId::derive(dead.tenant, "paused"),
    };
    let attempt = Attempt {
        number: 1,
        started_at_unix_ms: 1_700_000_000_123,
        duration: Duration::from_micros(12_500),
        outcome: Outcome::Http5xx,
        status_code: Some(503),
        excerpt: Bytes::from_static(b"no\xff"),
    };
    let results = vec![
        DeliveryResult { key: dead, attempt: Some(attempt), next: Next::Dead(EndReason::AttemptsExhausted) },
        DeliveryResult {
            key: DeliveryKey::new(dead.tenant, dead.event, paused),
            attempt: None,
            next: Next::Waiting { delay: Duration::from_mins(1) },
        },
    ];
    let change = Change::Part { event: dead.event, tenant: dead.tenant, part: 0, r#gen: 1, results };
    let recorded = world.ledger.record(vec![change]).await.unwrap();
    assert_eq!(recorded, [dispatcher::ledger::Recorded::Applied]);
}
