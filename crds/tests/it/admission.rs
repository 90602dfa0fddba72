use crds::admission::{Admitted, admit};
use crds::endpoint::{BodyFormat, RetryType};
use crds::{Kind, limits};
use serde_json::{Value, json};

use crate::support::{object, problems};

#[test]
fn a_whole_endpoint_becomes_its_type() {
    let spec = json!({
        "recipient": "acme",
        "signing": {"scheme": "GitHub", "secretKeyRef": {"name": "hook", "key": "key"}},
        "headers": [{"name": "X-Team", "value": "billing"}],
        "timeoutSeconds": 5,
        "retry": {"type": "Linear", "initialDelaySeconds": 1, "stepSeconds": 2, "maxDelaySeconds": 9, "maxAttempts": 3},
        "rateLimit": {"perSecond": 10},
        "format": "CloudEventsBinary",
        "suspend": true,
    });
    let Ok(Admitted::Endpoint(endpoint)) = admit(&object(Kind::Endpoint, &spec)) else {
        panic!("it is valid");
    };
    assert_eq!(endpoint.metadata.name.as_deref(), Some("orders"));
    assert_eq!(endpoint.spec.recipient.as_deref(), Some("acme"));
    assert_eq!(endpoint.spec.format, Some(BodyFormat::CloudEventsBinary));
    assert!(endpoint.spec.suspend);
    let retry = endpoint.spec.retry.unwrap();
    assert_eq!((retry.type_, retry.step_seconds, retry.max_attempts), (Some(RetryType::Linear), Some(2), Some(3)));
}

#[test]
fn a_null_field_is_the_same_as_an_absent_one() {
    let mut with_null = object(Kind::Endpoint, &json!({}));
    with_null["spec"]["urlFrom"] = Value::Null;
    with_null["spec"]["timeoutSeconds"] = Value::Null;
    assert_eq!(admit(&with_null), admit(&object(Kind::Endpoint, &json!({}))));
    let mut without_url = object(Kind::Endpoint, &json!({}));
    without_url["spec"]["url"] = Value::Null;
    assert_eq!(problems(&without_url), ["spec: set exactly one of url and urlFrom"]);
}

#[test]
fn a_status_in_the_object_is_replaced_by_the_default() {
    let mut object = object(Kind::Subscription, &json!({}));
    object["status"] = json!({"observedGeneration": 7, "endpoints": 3});
    let Ok(Admitted::Subscription(subscription)) = admit(&object) else { panic!("it is valid") };
    let status = subscription.status.unwrap();
    assert_eq!((status.observed_generation, status.endpoints), (Some(-1), None));
    assert_eq!((status.conditions[0].type_.as_str(), status.conditions[0].reason.as_str()), ("Ready", "Pending"));
}

#[test]
fn an_object_of_another_version_or_kind_is_refused() {
    let mut other = object(Kind::Endpoint, &json!({}));
    other["apiVersion"] = json!("harborhook.dev/v1");
    assert_eq!(problems(&other), ["apiVersion: must be harborhook.dev/v1alpha1"]);
    other["kind"] = json!("Endpoints");
    let both = [
        "apiVersion: must be harborhook.dev/v1alpha1",
        "kind: must be Endpoint, Subscription, Replay or DispatcherPool",
    ];
    assert_eq!(problems(&other), both);
    assert_eq!(problems(&json!({})), both);
    for no_object in [json!(null), json!([]), json!("Endpoint")] {
        assert_eq!(problems(&no_object), ["must be an object with apiVersion, kind, metadata and spec"]);
    }
}

#[test]
fn metadata_is_checked_as_an_api_server_does() {
    let long = "a".repeat(254);
    for (metadata, expected) in [
        (json!({"name": "a.b-c.0"}), vec![]),
        (json!({"name": "a", "namespace": "shop", "labels": {"app.io/x": "A_1", "empty": ""}, "uid": "u"}), vec![]),
        (json!({"name": "a", "annotations": {"harborhook.dev/requestedAt": "any text, ✓"}}), vec![]),
        (json!({}), vec!["metadata.name"]),
        (json!({"name": ""}), vec!["metadata.name"]),
        (json!({"name": "Orders"}), vec!["metadata.name"]),
        (json!({"name": "a..b"}), vec!["metadata.name"]),
        (json!({"name": "-a"}), vec!["metadata.name"]),
        (json!({"name": long}), vec!["metadata.name"]),
        (json!({"name": 7}), vec!["metadata.name"]),
        (json!({"name": "a", "namespace": "a.b"}), vec!["metadata.namespace"]),
        (json!({"name": "a", "label": {}}), vec!["metadata.label"]),
        (json!({"name": "a", "labels": []}), vec!["metadata.labels"]),
        (json!({"name": "a", "labels": {"x": 1}}), vec!["metadata.labels[x]"]),
        (json!({"name": "a", "labels": {"-x": "1", "y": "a b"}}), vec!["metadata.labels[-x]", "metadata.labels[y]"]),
        (json!({"name": "a", "annotations": {"a b": ""}}), vec!["metadata.annotations[a b]"]),
        (json!({"name": "a", "generation": "x"}), vec!["metadata"]),
        (json!("a"), vec!["metadata"]),
    ] {
        let mut object = object(Kind::Endpoint, &json!({}));
        object["metadata"] = metadata.clone();
        let fields: Vec<String> = admit(&object).err().unwrap_or_default().into_iter().map(|it| it.field).collect();
        assert_eq!(fields, expected, "{metadata}");
    }
}

#[test]
fn an_unknown_field_is_named_with_its_path() {
    let mut object = object(
        Kind::Endpoint,
        &json!({"timeout_seconds": 5, "headers": [{"name": "X-Team", "value": "1", "values": []}], "proxy": {}}),
    );
    object["extra"] = json!(1);
    object["status"] = json!({"deliveries": 1});
    assert_eq!(
        problems(&object),
        [
            "extra: unknown field",
            "spec.headers[0].values: unknown field",
            "spec.proxy: unknown field",
            "spec.timeout_seconds: unknown field; did you mean timeoutSeconds?",
            "status.deliveries: unknown field",
        ]
    );
}

#[test]
fn types_bounds_and_required_fields_are_checked() {
    let labels: Value = (0..17).map(|n| (format!("label-{n}"), json!("x"))).collect::<serde_json::Map<_, _>>().into();
    for (kind, spec, expected) in [
        (Kind::Endpoint, json!({"timeoutSeconds": "5"}), "spec.timeoutSeconds: must be a whole number"),
        (Kind::Endpoint, json!({"timeoutSeconds": 1.5}), "spec.timeoutSeconds: must be a whole number"),
        (Kind::Endpoint, json!({"timeoutSeconds": 0}), "spec.timeoutSeconds: must be from 1 to 60"),
        (Kind::Endpoint, json!({"timeoutSeconds": 61}), "spec.timeoutSeconds: must be from 1 to 60"),
        (Kind::Endpoint, json!({"timeoutSeconds": u64::MAX}), "spec.timeoutSeconds: must be from 1 to 60"),
        (Kind::Endpoint, json!({"suspend": "yes"}), "spec.suspend: must be true or false"),
        (Kind::Endpoint, json!({"description": 5}), "spec.description: must be a string; put it in quotes"),
        (Kind::Endpoint, json!({"url": ["a"]}), "spec.url: must be a string"),
        (Kind::Endpoint, json!({"recipient": ""}), "spec.recipient: must have at least 1 characters"),
        (Kind::Endpoint, json!({"headers": {}}), "spec.headers: must be a list"),
        (Kind::Endpoint, json!({"headers": [7]}), "spec.headers[0]: must be an object"),
        (Kind::Endpoint, json!({"headers": [{"value": "1"}]}), "spec.headers[0].name: is required"),
        (Kind::Endpoint, json!({"rateLimit": {}}), "spec.rateLimit.perSecond: is required"),
        (Kind::Endpoint, json!({"auth": {"type": "basic"}}), "spec.auth.type: must be one of Basic, Bearer, OAuth2"),
        (Kind::Endpoint, json!({"auth": {}}), "spec.auth.type: is required"),
        (
            Kind::Endpoint,
            json!({"retry": {"scheduleSeconds": []}}),
            "spec.retry.scheduleSeconds: must have at least 1 entry",
        ),
        (
            Kind::Subscription,
            json!({"eventTypes": ["a", "b", "a"]}),
            "spec.eventTypes[2]: is a duplicate of an earlier item",
        ),
        (Kind::Subscription, json!({"eventTypes": null}), "spec.eventTypes: is required"),
        (
            Kind::Subscription,
            json!({"endpointRef": null, "endpointSelector": {"matchLabels": labels}}),
            "spec.endpointSelector.matchLabels: must have at most 16 entries",
        ),
        (
            Kind::Subscription,
            json!({"endpointRef": null, "endpointSelector": {"matchLabels": {"a": 1}}}),
            "spec.endpointSelector.matchLabels[a]: must be a string; put it in quotes",
        ),
        (Kind::Subscription, json!({"filter": "x".repeat(1025)}), "spec.filter: must have at most 1024 characters"),
        (
            Kind::Subscription,
            json!({"transform": "x".repeat(4097)}),
            "spec.transform: must have at most 4096 characters",
        ),
    ] {
        assert_eq!(problems(&object(kind, &spec)), [expected], "{spec}");
    }
    let mut without_spec = object(Kind::Endpoint, &json!({}));
    without_spec.as_object_mut().unwrap().remove("spec");
    assert_eq!(problems(&without_spec), ["spec: is required"]);
}

#[test]
fn the_same_header_twice_is_a_duplicate() {
    let header = json!({"name": "X-Team", "value": "1"});
    assert_eq!(
        problems(&object(Kind::Endpoint, &json!({"headers": [header, header]}))),
        [
            "spec.headers: header names must be unique; upper and lower case are the same",
            "spec.headers[1]: is a duplicate of an earlier item",
        ]
    );
}

#[test]
fn all_problems_are_reported_at_once_and_sorted() {
    let mut object = object(
        Kind::Endpoint,
        &json!({
            "url": null,
            "timeoutSeconds": "5",
            "headers": [{"name": "Host", "value": "1"}],
            "retry": {"type": "Fixed", "maxAttempts": 0},
            "sign": true,
        }),
    );
    object["metadata"]["name"] = json!("Orders");
    let fields: Vec<String> = admit(&object).unwrap_err().into_iter().map(|problem| problem.field).collect();
    assert_eq!(
        fields,
        [
            "metadata.name",
            "spec",
            "spec.headers[0].name",
            "spec.retry",
            "spec.retry.maxAttempts",
            "spec.sign",
            "spec.timeoutSeconds",
        ]
    );
}

#[test]
fn an_oversize_list_is_refused_without_running_rules_over_it() {
    let headers: Vec<Value> = (0..100_000).map(|n| json!({"name": format!("X-{n}"), "value": "1"})).collect();
    assert_eq!(
        problems(&object(Kind::Endpoint, &json!({"headers": headers}))),
        [format!("spec.headers: must have at most {} entries", limits::HEADERS_MAX)]
    );
}

#[test]
fn a_url_is_refused_in_every_form_that_readers_could_disagree_on() {
    for url in [
        "example.com",
        "/hooks",
        "//example.com/",
        "https:example.com",
        "https:///hooks",
        "https://?a",
        "HTTPS://example.com",
        "https://exa mple.com/",
        "https://example.com/\n",
        " https://example.com/",
        "https://user@example.com/",
        "https://bücher.example/",
        "file:///etc/passwd",
        "https://[::1/",
    ] {
        let found = problems(&object(Kind::Endpoint, &json!({"url": url})));
        assert!(!found.is_empty() && found.iter().all(|line| line.starts_with("spec.url: ")), "{url:?}: {found:?}");
    }
}

#[test]
fn event_types_have_at_most_16_segments_wildcards_included() {
    let segments = |count: usize| vec!["a"; count].join(".");
    for (text, valid) in [
        (segments(16), true),
        (segments(17), false),
        (format!("{}.*", segments(15)), true),
        (format!("{}.**", segments(16)), false),
        ("*".to_owned(), false),
        ("order.*.created".to_owned(), false),
        ("order.***".to_owned(), false),
        ("order..created".to_owned(), false),
        (".order".to_owned(), false),
        ("order.".to_owned(), false),
        ("order created".to_owned(), false),
        ("größe".to_owned(), false),
    ] {
        let found = problems(&object(Kind::Subscription, &json!({"eventTypes": [text]})));
        assert_eq!(found.is_empty(), valid, "{text}: {found:?}");
    }
}

#[test]
fn no_problem_repeats_a_value() {
    let secret = "hunter2 hunter2";
    let spec = json!({
        "url": format!("https://user:{secret}@example.com/"),
        "recipient": secret,
        "headers": [{"name": "X-Team", "value": format!("{secret}\n")}, {"name": secret, "value": "1"}],
        "auth": {"type": secret, "username": format!("{secret}:"), "tokenSecretKeyRef": secret},
        "format": secret,
        "timeoutSeconds": secret,
    });
    let found = problems(&object(Kind::Endpoint, &spec));
    assert!(found.len() >= 8, "{found:?}");
    assert!(!found.join("\n").contains("hunter2"), "{found:?}");
}
