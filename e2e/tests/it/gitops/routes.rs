//! Endpoints and Subscriptions.

use crds::Kind;
use crds::definition::default_status;
use dispatcher::ledger::EndpointFacts;
use dispatcher_core::delivery::Outcome;
use dispatcher_core::id::{EndpointId, TenantId};
use operator::world::{Malformed, SecretState, World};
use serde_json::Value;

use super::Health::{Degraded, Healthy, Progressing, Suspended};
use super::{Case, after, numbered, object, world};

pub(super) fn endpoint(more: &str) -> String {
    let spec = format!("url: \"https://example.com\", signing: {{secretKeyRef: {{name: keys, key: key}}}}{more}");
    object(Kind::Endpoint, "e", &spec)
}

pub(super) fn subscription(more: &str) -> String {
    object(Kind::Subscription, "s", &format!("eventTypes: [a.b], endpointRef: {{name: e}}{more}"))
}

fn settled(text: &str) -> World {
    after(world(text), 2)
}

/// An endpoint that nothing changes any more.
fn settled_endpoint(text: &str) -> Value {
    numbered(&settled(text).endpoints[0], 1)
}

/// A subscription beside an endpoint that is in effect.
fn settled_subscription(more: &str) -> Value {
    numbered(&settled(&format!("{}{}", endpoint(""), subscription(more))).subscriptions[0], 1)
}

/// Every attempt of the endpoint fails.
fn failing(mut world: World) -> World {
    world.facts.push(EndpointFacts {
        endpoint: EndpointId::derive(TenantId::of_namespace_name("shop"), "e"),
        attempts: 100,
        succeeded: 0,
        p95: None,
        pending: 100,
        oldest_unix_ms: None,
        last_status_code: Some(500),
        last_outcome: Some(Outcome::Http5xx),
        gate_closed_for: None,
    });
    world
}

/// What was written before a rule was.
fn malformed(kind: Kind, name: &str, mut world: World) -> World {
    let (namespace, name) = ("shop".to_owned(), name.to_owned());
    world.malformed.push(Malformed { kind, namespace, name, message: "spec.url: is no URL".to_owned() });
    after(world, 2)
}

fn forbidden_secret() -> Value {
    let mut world = world(&endpoint(""));
    world.secrets.insert("shop", "keys", SecretState::Forbidden);
    numbered(&after(world, 2).endpoints[0], 1)
}

pub(super) fn cases() -> Vec<Case> {
    endpoints().into_iter().chain(subscriptions()).collect()
}

fn endpoints() -> Vec<Case> {
    let both = format!("{}{}", endpoint(""), subscription(""));
    let mut unseen = numbered(&world(&endpoint("")).endpoints[0], 1);
    unseen["status"] = default_status();
    let edited = numbered(&settled(&endpoint("")).endpoints[0], 2);
    let loading = numbered(&after(world(&endpoint("")), 1).endpoints[0], 1);
    let failing = numbered(&after(failing(settled(&both)), 1).endpoints[0], 1);
    let invalid = numbered(&malformed(Kind::Endpoint, "e", world(&endpoint(""))).endpoints[0], 1);
    let without = |good: &str, bad: &str| settled_endpoint(&endpoint("").replace(good, bad));
    let case = |what, object, health, says| Case { what, object, health, says };
    vec![
        case("nobody has seen it", unseen, Progressing, "Waiting for the controller"),
        case("it was edited a moment ago", edited, Progressing, "Waiting for the controller"),
        case("dispatchers load it", loading, Progressing, "The change is about to be published"),
        case("in effect", settled_endpoint(&both), Healthy, "In effect"),
        case("suspended", settled_endpoint(&endpoint(", suspend: true")), Suspended, "Suspended, as the spec asks"),
        case("deliveries fail", failing, Healthy, "Failing: "),
        case("no Secret", without("name: keys", "name: other"), Progressing, "spec.signing.secretKeyRef"),
        case("no key in it", without("key: key", "key: other"), Progressing, "spec.signing.secretKeyRef"),
        case("the Secret may not be read", forbidden_secret(), Progressing, "spec.signing.secretKeyRef"),
        case("no pool", settled_endpoint(&endpoint(", poolRef: {name: slow}")), Progressing, "spec.poolRef"),
        case("a forbidden address", without("example.com", "10.1.2.3"), Degraded, "spec.url: "),
        case("not understood", invalid, Degraded, "spec.url: is no URL"),
    ]
}

fn subscriptions() -> Vec<Case> {
    let loading = format!("{}{}", endpoint(""), subscription(""));
    let loading = numbered(&after(world(&loading), 1).subscriptions[0], 1);
    let lonely = numbered(&settled(&subscription("")).subscriptions[0], 1);
    let invalid = world(&format!("{}{}", endpoint(""), subscription("")));
    let invalid = numbered(&malformed(Kind::Subscription, "s", invalid).subscriptions[0], 1);
    let case = |what, object, health, says| Case { what, object, health, says };
    vec![
        case("a subscription that is loaded", loading, Progressing, "The change is about to be published"),
        case("a subscription in effect", settled_subscription(""), Healthy, "In effect"),
        case("a suspended subscription", settled_subscription(", suspend: true"), Suspended, "Suspended, as"),
        case("no endpoint", lonely, Progressing, "spec.endpointRef"),
        case("a broken filter", settled_subscription(", filter: \"event.data.a >\""), Degraded, "spec.filter: "),
        case("a broken transform", settled_subscription(", transform: \"{event.\""), Degraded, "spec.transform: "),
        case("a subscription that is not understood", invalid, Degraded, "spec.url: is no URL"),
    ]
}
