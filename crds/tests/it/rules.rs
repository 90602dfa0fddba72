//! Every CEL rule of the schemas: an object that keeps it and one that breaks it and nothing else.

mod auth;
mod pool;
mod retry;

use std::collections::BTreeSet;

use crds::Kind;
use crds::definition::openapi_schema;
use serde_json::{Value, json};

use self::auth::oauth2;
use crate::replay::{self, FIXED_MESSAGE};
use crate::support::{merge, object, problems, walk};

/// A rule, named by its kind, the field that it reports and its message, with patches of the smallest spec.
pub(crate) struct Row {
    pub(crate) kind: Kind,
    pub(crate) field: String,
    pub(crate) message: &'static str,
    pub(crate) accepted: Value,
    pub(crate) refused: Value,
}

fn endpoint(field: &str, message: &'static str, accepted: Value, refused: Value) -> Row {
    Row { kind: Kind::Endpoint, field: field.to_owned(), message, accepted, refused }
}

fn subscription(field: &str, message: &'static str, accepted: Value, refused: Value) -> Row {
    Row { kind: Kind::Subscription, ..endpoint(field, message, accepted, refused) }
}

pub(crate) const NAME_MESSAGE: &str = "must be the name of an object: lower case letters, digits, - and .";

/// The object that a row's patch makes. Rules of the object as a whole are about its metadata.
fn patched(row: &Row, patch: &Value) -> Value {
    if !row.field.is_empty() {
        return object(row.kind, patch);
    }
    let mut object = object(row.kind, &json!({}));
    merge(&mut object["metadata"], patch);
    object
}

/// `field: message` as problems are printed.
fn printed(field: &str, message: &str) -> String {
    if field.is_empty() { message.to_owned() } else { format!("{field}: {message}") }
}

fn rows() -> Vec<Row> {
    let mut rows = url_rows();
    rows.extend(header_rows());
    rows.extend(auth::rows());
    rows.extend(retry::rows());
    rows.extend(secret_rows());
    rows.extend(tls_rows());
    rows.extend(replay::rows());
    rows.extend(pool::rows());
    rows.extend([
        endpoint(
            "spec.recipient",
            "must be printable ASCII without spaces",
            json!({"recipient": "*"}),
            json!({"recipient": "acme inc"}),
        ),
        endpoint(
            "spec.circuitBreaker.maxPauseSeconds",
            "must not be smaller than initialPauseSeconds (when absent they are 300 and 10)",
            json!({"circuitBreaker": {"initialPauseSeconds": 300}}),
            json!({"circuitBreaker": {"maxPauseSeconds": 9}}),
        ),
        endpoint(
            "spec.poolRef.name",
            NAME_MESSAGE,
            json!({"poolRef": {"name": "large.pool-2"}}),
            json!({"poolRef": {"name": "Large"}}),
        ),
        subscription(
            "spec",
            "set exactly one of endpointRef and endpointSelector",
            json!({"endpointRef": null, "endpointSelector": {"matchLabels": {"team": "billing"}}}),
            json!({"endpointSelector": {"matchLabels": {"team": "billing"}}}),
        ),
        subscription(
            "spec.endpointRef.name",
            NAME_MESSAGE,
            json!({"endpointRef": {"name": "a"}}),
            json!({"endpointRef": {"name": "-a"}}),
        ),
        subscription(
            "spec.eventTypes[0]",
            "must be an event type such as order.created, or a pattern: order.* (exactly one more segment), order.** \
             (one or more) or ** (all); at most 16 segments of letters, digits, _, -, / and :",
            json!({"eventTypes": ["order.created", "a.b_c.*", "acme:order/v2.**", "**"]}),
            json!({"eventTypes": ["*.created"]}),
        ),
    ]);
    rows
}

fn url_rows() -> Vec<Row> {
    vec![
        endpoint(
            "spec",
            "set exactly one of url and urlFrom",
            json!({"url": null, "urlFrom": {"secretKeyRef": {"name": "hook", "key": "url"}}}),
            json!({"url": null}),
        ),
        endpoint(
            "spec.url",
            "must be an absolute URL in ASCII that begins with https:// or http://",
            json!({"url": "http://localhost:8080/in?a=b@c"}),
            json!({"url": "ftp://example.com/"}),
        ),
        endpoint(
            "spec.url",
            "must not contain a user name or password; use auth",
            json!({"url": "https://example.com/@acme"}),
            json!({"url": "https://user:secret@example.com/"}),
        ),
        endpoint(
            "spec.url",
            "must not contain a fragment",
            json!({"url": "https://example.com/a%23b"}),
            json!({"url": "https://example.com/a#b"}),
        ),
    ]
}

fn header_rows() -> Vec<Row> {
    let header = |name: &str| json!({"headers": [{"name": name, "value": "1"}]});
    vec![
        endpoint(
            "spec",
            "a header named Authorization cannot be combined with auth, which sets it",
            json!({"headers": [{"name": "Authorization", "value": "1"}]}),
            json!({
                "headers": [{"name": "authorization", "value": "1"}],
                "auth": {"type": "Bearer", "tokenSecretKeyRef": {"name": "hook", "key": "token"}},
            }),
        ),
        endpoint(
            "spec.headers",
            "header names must be unique; upper and lower case are the same",
            json!({"headers": [{"name": "X-Team", "value": "1"}, {"name": "X-Teams", "value": "1"}]}),
            json!({"headers": [{"name": "X-Team", "value": "1"}, {"name": "x-team", "value": "1"}]}),
        ),
        endpoint(
            "spec.headers[0]",
            "set exactly one of value and valueFrom",
            json!({"headers": [{"name": "X-Team", "valueFrom": {"secretKeyRef": {"name": "hook", "key": "team"}}}]}),
            json!({"headers": [{"name": "X-Team"}]}),
        ),
        endpoint(
            "spec.headers[0].name",
            "must be a header name: letters, digits and !#$%&*+-.^_`|~",
            header("X-Team.1"),
            header("X Team"),
        ),
        endpoint(
            "spec.headers[0].name",
            "is reserved: it is set by HTTP itself or by the signature",
            header("X-Host"),
            header("HOST"),
        ),
        endpoint(
            "spec.headers[0].name",
            "begins with a reserved prefix: webhook-, ce-, proxy- or x-harborhook-",
            header("X-Webhook-Id"),
            header("Webhook-Id"),
        ),
        endpoint(
            "spec.headers[0].value",
            "must be printable ASCII without line breaks",
            json!({"headers": [{"name": "X-Team", "value": ""}]}),
            json!({"headers": [{"name": "X-Team", "value": "a\r\nHost: b"}]}),
        ),
    ]
}

/// The two rules of a reference to a Secret, at each of its places.
fn secret_rows() -> Vec<Row> {
    type Place = (&'static str, fn(Value) -> Value);
    let places: [Place; 8] = [
        ("spec.urlFrom.secretKeyRef", |key| json!({"url": null, "urlFrom": {"secretKeyRef": key}})),
        ("spec.signing.secretKeyRef", |key| json!({"signing": {"secretKeyRef": key}})),
        (
            "spec.headers[0].valueFrom.secretKeyRef",
            |key| json!({"headers": [{"name": "X-Team", "valueFrom": {"secretKeyRef": key}}]}),
        ),
        (
            "spec.auth.passwordSecretKeyRef",
            |key| json!({"auth": {"type": "Basic", "username": "hooks", "passwordSecretKeyRef": key}}),
        ),
        ("spec.auth.tokenSecretKeyRef", |key| json!({"auth": {"type": "Bearer", "tokenSecretKeyRef": key}})),
        ("spec.tls.caSecretKeyRef", |key| json!({"tls": {"caSecretKeyRef": key}})),
        ("spec.auth.oauth2.clientIdSecretKeyRef", |key| {
            oauth2(&json!({"clientId": null, "clientIdSecretKeyRef": key}))
        }),
        ("spec.auth.oauth2.clientSecretSecretKeyRef", |key| oauth2(&json!({"clientSecretSecretKeyRef": key}))),
    ];
    let good = json!({"name": "orders-signing.v2", "key": "tls.key_1"});
    let mut rows = Vec::new();
    for (place, patch) in places {
        rows.push(endpoint(
            &format!("{place}.name"),
            "must be the name of a Secret: lower case letters, digits, - and .",
            patch(good.clone()),
            patch(json!({"name": "Orders", "key": "key"})),
        ));
        rows.push(endpoint(
            &format!("{place}.key"),
            "must be a key of a Secret: letters, digits, -, _ and .",
            patch(good.clone()),
            patch(json!({"name": "orders", "key": "a/b"})),
        ));
    }
    rows
}

fn tls_rows() -> Vec<Row> {
    let tls = json!({"tls": {"clientCertificateSecretRef": {"name": "orders-client.v2"}}});
    vec![
        endpoint("spec.tls", "set caSecretKeyRef, clientCertificateSecretRef or both", tls.clone(), json!({"tls": {}})),
        endpoint(
            "spec.tls.clientCertificateSecretRef.name",
            NAME_MESSAGE,
            tls.clone(),
            json!({"tls": {"clientCertificateSecretRef": {"name": "Orders"}}}),
        ),
        endpoint(
            "spec.url",
            "must begin with https:// for tls to have an effect",
            json!({"url": null, "urlFrom": {"secretKeyRef": {"name": "hook", "key": "url"}}, "tls": tls["tls"]}),
            json!({"url": "http://hooks.example.com/in", "tls": tls["tls"]}),
        ),
    ]
}

/// `Kind field: message` of every rule in the schemas that speaks of one object; the others compare it with what it was.
fn rules_of_the_schemas() -> BTreeSet<String> {
    let mut rules = BTreeSet::new();
    for kind in Kind::ALL {
        walk(&openapi_schema(kind), "", &mut |path, node| {
            let of_node = node["x-kubernetes-validations"].as_array().into_iter().flatten();
            for rule in of_node.filter(|rule| rule["message"] != FIXED_MESSAGE) {
                let field = format!("{path}{}", rule["fieldPath"].as_str().unwrap_or_default()).replace("[]", "[0]");
                let message = rule["message"].as_str().unwrap_or("no message");
                let name = format!("{} {}", kind.as_str(), printed(&field, message));
                assert!(rules.insert(name.clone()), "two rules say the same: {name}");
            }
        });
    }
    rules
}

#[test]
fn every_rule_has_a_row_and_every_row_a_rule() {
    let named: BTreeSet<String> =
        rows().iter().map(|row| format!("{} {}", row.kind.as_str(), printed(&row.field, row.message))).collect();
    assert_eq!(named, rules_of_the_schemas());
}

#[test]
fn every_rule_admits_an_object_that_keeps_it() {
    for row in rows() {
        let found = problems(&patched(&row, &row.accepted));
        assert!(found.is_empty(), "{}: {}: {found:?}", row.field, row.message);
    }
}

#[test]
fn every_rule_refuses_an_object_that_breaks_it_and_names_the_field() {
    for row in rows() {
        let found = problems(&patched(&row, &row.refused));
        assert_eq!(found, [printed(&row.field.replace("{}", ".cpu"), row.message)]);
    }
}

#[test]
fn every_reserved_header_is_refused_in_any_case() {
    for name in [
        "Host",
        "Content-Length",
        "Content-Type",
        "Content-Encoding",
        "Transfer-Encoding",
        "Connection",
        "Keep-Alive",
        "TE",
        "Trailer",
        "Upgrade",
        "Expect",
        "Date",
        "Webhook-Id",
        "webhook-timestamp",
        "WEBHOOK-SIGNATURE",
        "ce-id",
        "Proxy-Authorization",
        "X-HarborHook-Signature",
        "X-Trace-Id",
        "X-Hub-Signature-256",
        "X-GitHub-Delivery",
        "Stripe-Signature",
    ] {
        let found = problems(&object(Kind::Endpoint, &json!({"headers": [{"name": name, "value": "1"}]})));
        assert_eq!(found.len(), 1, "{name}: {found:?}");
        assert!(found[0].starts_with("spec.headers[0].name: "), "{name}: {found:?}");
    }
}
