//! Every CEL rule of the schemas: an object that keeps it and one that breaks it and nothing else.

use std::collections::BTreeSet;

use crds::Kind;
use crds::definition::openapi_schema;
use serde_json::{Value, json};

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
fn pool(field: &str, message: &'static str, accepted: Value, refused: Value) -> Row {
    Row { kind: Kind::DispatcherPool, ..endpoint(field, message, accepted, refused) }
}

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
    rows.extend(auth_rows());
    rows.extend(oauth2_rows());
    rows.extend(retry_rows());
    rows.extend(secret_rows());
    rows.extend(tls_rows());
    rows.extend(replay::rows());
    rows.extend(pool_rows());
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

fn pool_rows() -> Vec<Row> {
    let toleration = |toleration: Value| json!({"template": {"tolerations": [toleration]}});
    let quantity = |list: &str, quantity: &str| json!({"template": {"resources": {list: {"cpu": quantity}}}});
    let quantity_message = "must be a quantity such as 500m, 2 or 256Mi";
    vec![
        pool(
            "",
            "metadata.name must have at most 40 lower case letters, digits and -, and begin with a letter",
            json!({"name": "a-234567890123456789012345678901234567-0"}),
            json!({"name": "a.b"}),
        ),
        pool(
            "",
            "metadata.name must not be default: that pool belongs to the installation and is set up there",
            json!({"name": "default-2"}),
            json!({"name": "default"}),
        ),
        pool(
            "spec.maxReplicas",
            "must not be smaller than minReplicas (when absent they are 10 and 2)",
            json!({"minReplicas": 10}),
            json!({"maxReplicas": 1}),
        ),
        pool(
            "spec.scaling.stabilizationSeconds",
            "belongs to mode Backlog: in mode External whoever sets the replicas has a window of its own",
            json!({"scaling": {"stabilizationSeconds": 60}}),
            json!({"scaling": {"mode": "External", "stabilizationSeconds": 60}}),
        ),
        pool(
            "spec.template.resources.requests{}",
            quantity_message,
            quantity("requests", "1.5"),
            quantity("requests", "1 core"),
        ),
        pool(
            "spec.template.resources.limits{}",
            quantity_message,
            quantity("limits", "100m"),
            quantity("limits", "-1"),
        ),
        pool(
            "spec.template.tolerations[0]",
            "set key, or operator Exists for every taint",
            toleration(json!({"operator": "Exists"})),
            toleration(json!({"operator": "Equal"})),
        ),
        pool(
            "spec.template.tolerations[0].value",
            "belongs to operator Equal",
            toleration(json!({"key": "dedicated", "value": "hooks"})),
            toleration(json!({"key": "dedicated", "operator": "Exists", "value": "hooks"})),
        ),
        pool(
            "spec.template.tolerations[0].tolerationSeconds",
            "belongs to effect NoExecute",
            toleration(json!({"key": "a", "effect": "NoExecute", "tolerationSeconds": 30})),
            toleration(json!({"key": "a", "effect": "NoSchedule", "tolerationSeconds": 30})),
        ),
    ]
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

fn auth_rows() -> Vec<Row> {
    let key = json!({"name": "hook", "key": "credential"});
    let basic = json!({"auth": {"type": "Basic", "username": "hooks", "passwordSecretKeyRef": key}});
    let bearer = json!({"auth": {"type": "Bearer", "tokenSecretKeyRef": key}});
    let with = |base: &Value, field: &str, value: Value| {
        let mut changed = base.clone();
        changed["auth"][field] = value;
        changed
    };
    vec![
        endpoint(
            "spec.auth",
            "type Basic needs username and passwordSecretKeyRef",
            basic.clone(),
            with(&basic, "username", Value::Null),
        ),
        endpoint(
            "spec.auth.username",
            "belongs to type Basic",
            basic.clone(),
            with(&bearer, "username", json!("hooks")),
        ),
        endpoint(
            "spec.auth.passwordSecretKeyRef",
            "belongs to type Basic",
            basic.clone(),
            with(&bearer, "passwordSecretKeyRef", key.clone()),
        ),
        endpoint(
            "spec.auth",
            "type Bearer needs tokenSecretKeyRef",
            bearer.clone(),
            json!({"auth": {"type": "Bearer"}}),
        ),
        endpoint(
            "spec.auth.tokenSecretKeyRef",
            "belongs to type Bearer",
            bearer,
            with(&basic, "tokenSecretKeyRef", key),
        ),
        endpoint(
            "spec.auth.username",
            "must be printable ASCII without a colon",
            basic.clone(),
            with(&basic, "username", json!("a:b")),
        ),
    ]
}

/// An endpoint with the fields of the client credentials grant that are required, and this merged into them.
fn oauth2(patch: &Value) -> Value {
    let mut grant = json!({
        "tokenUrl": "https://login.example.com/oauth2/token",
        "clientId": "hooks",
        "clientSecretSecretKeyRef": {"name": "hook", "key": "secret"},
    });
    for (field, value) in patch.as_object().into_iter().flatten() {
        grant[field] = value.clone();
    }
    // What is null is removed when the patch is merged into a spec.
    json!({"auth": {"type": "OAuth2", "oauth2": grant}})
}

fn oauth2_rows() -> Vec<Row> {
    let with = |field: &str, value: Value| oauth2(&json!({field: value}));
    let bearer = json!({"type": "Bearer", "tokenSecretKeyRef": {"name": "hook", "key": "token"}});
    let mut misplaced = oauth2(&json!({}));
    misplaced["auth"]["type"] = bearer["type"].clone();
    misplaced["auth"]["tokenSecretKeyRef"] = bearer["tokenSecretKeyRef"].clone();
    let printable = "must be printable ASCII without line breaks";
    vec![
        endpoint("spec.auth", "type OAuth2 needs oauth2", oauth2(&json!({})), json!({"auth": {"type": "OAuth2"}})),
        endpoint("spec.auth.oauth2", "belongs to type OAuth2", json!({"auth": bearer}), misplaced),
        endpoint(
            "spec.auth.oauth2",
            "set exactly one of clientId and clientIdSecretKeyRef",
            oauth2(&json!({"clientId": null, "clientIdSecretKeyRef": {"name": "hook", "key": "id"}})),
            with("clientIdSecretKeyRef", json!({"name": "hook", "key": "id"})),
        ),
        endpoint(
            "spec.auth.oauth2.tokenUrl",
            "must be an absolute URL in ASCII that begins with https:// or http://",
            with("tokenUrl", json!("http://localhost:8080/token?tenant=a@b")),
            with("tokenUrl", json!("login.example.com/token")),
        ),
        endpoint(
            "spec.auth.oauth2.tokenUrl",
            "must not contain a user name or password; use clientId and clientSecretSecretKeyRef",
            with("tokenUrl", json!("https://login.example.com/@acme")),
            with("tokenUrl", json!("https://hooks:secret@login.example.com/token")),
        ),
        endpoint(
            "spec.auth.oauth2.tokenUrl",
            "must not contain a fragment",
            with("tokenUrl", json!("https://login.example.com/a%23b")),
            with("tokenUrl", json!("https://login.example.com/a#b")),
        ),
        endpoint(
            "spec.auth.oauth2.clientId",
            printable,
            with("clientId", json!("hooks of Acme: 1")),
            with("clientId", json!("hooks\n")),
        ),
        endpoint(
            "spec.auth.oauth2.audience",
            printable,
            with("audience", json!("https://api.example.com/ hooks")),
            with("audience", json!("h\u{f6}ren")),
        ),
        endpoint(
            "spec.auth.oauth2.scopes[0]",
            "must be one scope: printable ASCII without spaces, quotation marks and backslashes",
            with("scopes", json!(["hooks.write", "https://api.example.com/.default", "!#[]~"])),
            with("scopes", json!(["hooks.read hooks.write"])),
        ),
    ]
}

fn retry_rows() -> Vec<Row> {
    let exponential = json!({"retry": {"type": "Exponential", "initialDelaySeconds": 5, "maxDelaySeconds": 60}});
    let linear =
        json!({"retry": {"type": "Linear", "initialDelaySeconds": 5, "stepSeconds": 5, "maxDelaySeconds": 60}});
    let fixed = json!({"retry": {"type": "Fixed", "delaySeconds": 5}});
    let schedule = json!({"retry": {"scheduleSeconds": [1, 2, 3]}});
    let growing = "belongs to the types Exponential and Linear";
    let retry = |field: &str, message, accepted: &Value, refused| {
        endpoint(&format!("spec.retry{field}"), message, accepted.clone(), json!({"retry": refused}))
    };
    vec![
        retry(
            "",
            "type Exponential needs initialDelaySeconds and maxDelaySeconds",
            &exponential,
            json!({"type": "Exponential", "initialDelaySeconds": 5}),
        ),
        retry(
            "",
            "type Linear needs initialDelaySeconds, stepSeconds and maxDelaySeconds",
            &linear,
            json!({"type": "Linear", "initialDelaySeconds": 5, "maxDelaySeconds": 60}),
        ),
        retry("", "type Fixed needs delaySeconds", &fixed, json!({"type": "Fixed"})),
        retry(".initialDelaySeconds", growing, &linear, json!({"initialDelaySeconds": 5})),
        retry(
            ".maxDelaySeconds",
            growing,
            &exponential,
            json!({"type": "Fixed", "delaySeconds": 5, "maxDelaySeconds": 60}),
        ),
        retry(
            ".stepSeconds",
            "belongs to type Linear",
            &linear,
            json!({"type": "Exponential", "initialDelaySeconds": 5, "stepSeconds": 5, "maxDelaySeconds": 60}),
        ),
        retry(".delaySeconds", "belongs to type Fixed", &fixed, json!({"type": "Schedule", "delaySeconds": 5})),
        retry(
            ".scheduleSeconds",
            "belongs to type Schedule",
            &schedule,
            json!({"type": "Fixed", "delaySeconds": 5, "scheduleSeconds": [1]}),
        ),
        retry(
            ".maxDelaySeconds",
            "must not be smaller than initialDelaySeconds",
            &exponential,
            json!({"type": "Exponential", "initialDelaySeconds": 61, "maxDelaySeconds": 60}),
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
