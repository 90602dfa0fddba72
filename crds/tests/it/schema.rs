use crds::definition::{default_status, definition, openapi_schema};
use crds::{Kind, VERSION, limits};
use kube_cel::{compile_schema, estimate_rule_cost};
use serde_json::{Value, json};

use crate::support::walk;

/// Calls back for every node of every kind's schema.
fn every_node(mut visit: impl FnMut(&str, &Value)) {
    for kind in Kind::ALL {
        walk(&openapi_schema(kind), "", &mut |path, node| visit(&format!("{} {path}", kind.as_str()), node));
    }
}

#[test]
fn every_text_list_and_map_has_a_limit() {
    let mut seen = 0;
    every_node(|path, node| {
        let bounded = match node["type"].as_str() {
            Some("string") => node["enum"].is_array() || node["maxLength"].is_u64() || node["format"] == "date-time",
            Some("array") => node["maxItems"].is_u64(),
            Some("object") if node["additionalProperties"].is_object() => node["maxProperties"].is_u64(),
            _ => return,
        };
        seen += 1;
        assert!(bounded, "{path} has no limit");
    });
    assert!(seen > 30, "the walk found only {seen}");
}

#[test]
fn every_number_of_a_spec_has_a_range() {
    every_node(|path, node| {
        if path.contains(" spec.") && node["type"] == "integer" {
            assert!(node["minimum"].is_number() && node["maximum"].is_number(), "{path} has no range");
        }
    });
}

#[test]
fn every_list_says_how_it_is_merged() {
    every_node(|path, node| {
        if node["type"] == "array" {
            assert!(node["x-kubernetes-list-type"].is_string(), "{path} has no list type");
        }
    });
}

#[test]
fn only_status_has_a_default() {
    every_node(|path, node| {
        let expected = if path.ends_with(" status") { default_status() } else { Value::Null };
        assert_eq!(node["default"], expected, "{path}");
    });
}

#[test]
fn the_schema_uses_nothing_that_admission_does_not_check() {
    let known = [
        "additionalProperties",
        "default",
        "description",
        "enum",
        "format",
        "items",
        "maxItems",
        "maxLength",
        "maxProperties",
        "maximum",
        "minItems",
        "minLength",
        "minProperties",
        "minimum",
        "properties",
        "required",
        "title",
        "type",
        "x-kubernetes-list-map-keys",
        "x-kubernetes-list-type",
        "x-kubernetes-validations",
    ];
    every_node(|path, node| {
        for keyword in node.as_object().unwrap().keys() {
            assert!(known.contains(&keyword.as_str()), "{path} uses {keyword}");
        }
        let types = ["object", "array", "string", "integer", "boolean"];
        assert!(types.contains(&node["type"].as_str().unwrap_or_default()), "{path} has another type");
        let formats = [Value::Null, json!("int32"), json!("int64"), json!("date-time")];
        assert!(formats.contains(&node["format"]), "{path} has format {}", node["format"]);
    });
}

#[test]
fn every_field_is_described() {
    every_node(|path, node| {
        let inside = path.contains(" spec.") || path.contains(" status.");
        if inside && !path.contains("conditions[]") && !path.ends_with(['}', ']']) {
            assert!(node["description"].is_string(), "{path} has no description");
        }
    });
}

#[test]
fn every_rule_compiles_and_stays_within_its_cost_budget() {
    let mut rules = 0;
    every_node(|path, node| {
        for rule in node["x-kubernetes-validations"].as_array().into_iter().flatten() {
            rules += 1;
            let schema = compile_schema(node);
            assert!(!schema.has_errors(), "{path}: {:?}", schema.compilation_errors());
            let warnings = estimate_rule_cost(rule["rule"].as_str().unwrap(), &schema);
            assert!(warnings.is_empty(), "{path}: {warnings:?}");
        }
    });
    assert!(rules > 30, "the walk found only {rules}");
}

#[test]
fn the_documented_defaults_are_the_ones_in_limits() {
    let schema = openapi_schema(Kind::Endpoint);
    let schedule = limits::RETRY_SCHEDULE_SECONDS_DEFAULT.map(|seconds| seconds.to_string()).join(", ");
    for (path, default) in [
        ("timeoutSeconds", limits::TIMEOUT_SECONDS_DEFAULT.to_string()),
        ("maxInFlight", limits::MAX_IN_FLIGHT_DEFAULT.to_string()),
        ("signing/properties/rotationOverlapSeconds", limits::ROTATION_OVERLAP_SECONDS_DEFAULT.to_string()),
        ("retry/properties/scheduleSeconds", schedule),
        ("retry/properties/jitterPercent", limits::RETRY_JITTER_PERCENT_DEFAULT.to_string()),
        ("retry/properties/maxAttempts", limits::RETRY_ATTEMPTS_DEFAULT.to_string()),
        ("retry/properties/maxAgeSeconds", limits::RETRY_AGE_SECONDS_DEFAULT.to_string()),
        ("circuitBreaker/properties/failurePercent", limits::BREAKER_FAILURE_PERCENT_DEFAULT.to_string()),
        ("circuitBreaker/properties/minAttempts", limits::BREAKER_MIN_ATTEMPTS_DEFAULT.to_string()),
        ("circuitBreaker/properties/windowSeconds", limits::BREAKER_WINDOW_SECONDS_DEFAULT.to_string()),
        ("circuitBreaker/properties/initialPauseSeconds", limits::BREAKER_INITIAL_PAUSE_SECONDS_DEFAULT.to_string()),
        ("circuitBreaker/properties/maxPauseSeconds", limits::BREAKER_MAX_PAUSE_SECONDS_DEFAULT.to_string()),
        ("circuitBreaker/properties/probes", limits::BREAKER_PROBES_DEFAULT.to_string()),
    ] {
        let pointer = format!("/properties/spec/properties/{path}/description");
        let description = schema.pointer(&pointer).and_then(Value::as_str).unwrap_or_default();
        assert!(description.contains(&format!("Default: {default}.")), "{path}: {description}");
    }
}

#[test]
fn the_documented_rate_of_a_replay_is_the_one_in_limits() {
    let schema = openapi_schema(Kind::Replay);
    let description = schema.pointer("/properties/spec/properties/perSecond/description").and_then(Value::as_str);
    let default = format!("Default: {}.", limits::REPLAY_PER_SECOND_DEFAULT);
    assert!(description.is_some_and(|description| description.ends_with(&default)), "{description:?}");
}

#[test]
fn the_documented_defaults_of_pools_are_the_ones_in_limits() {
    let schema = openapi_schema(Kind::DispatcherPool);
    for (path, default) in [
        ("minReplicas", limits::POOL_MIN_REPLICAS_DEFAULT),
        ("maxReplicas", limits::POOL_MAX_REPLICAS_DEFAULT),
        ("maxInFlight", limits::POOL_MAX_IN_FLIGHT_DEFAULT),
        ("scaling/properties/drainTargetSeconds", limits::POOL_DRAIN_TARGET_SECONDS_DEFAULT),
        ("scaling/properties/stabilizationSeconds", limits::POOL_STABILIZATION_SECONDS_DEFAULT),
    ] {
        let pointer = format!("/properties/spec/properties/{path}/description");
        let description = schema.pointer(&pointer).and_then(Value::as_str).unwrap_or_default();
        assert!(description.contains(&format!("Default: {default}.")), "{path}: {description}");
    }
}

#[test]
fn the_names_are_the_ones_that_people_type() {
    for (kind, plural, singular, short, columns) in [
        (
            Kind::Endpoint,
            "hookendpoints",
            "hookendpoint",
            "hep",
            "Ready Delivery Success P95 Pending Oldest Last-Code Host Age",
        ),
        (Kind::Replay, "hookreplays", "hookreplay", "hreplay", "State Matched Queued Delivered Failed Age"),
        (Kind::Subscription, "hooksubscriptions", "hooksubscription", "hsub", "Ready Reason Endpoints Types Age"),
        (
            Kind::DispatcherPool,
            "hookpools",
            "hookpool",
            "hpool",
            "Ready Reason Replicas Wanted Backlog Mode Age Min Max Arriving Delivering Scaled",
        ),
    ] {
        let spec = definition(kind).spec;
        assert_eq!(spec.group, crds::GROUP);
        assert_eq!(spec.scope, "Namespaced");
        assert_eq!((spec.names.plural.as_str(), kind.plural()), (plural, plural));
        assert_eq!(spec.names.singular.as_deref(), Some(singular));
        assert_eq!(spec.names.short_names, Some(vec![short.to_owned()]));
        assert_eq!(spec.names.categories, Some(vec!["hooks".to_owned()]));
        assert_eq!(spec.versions.len(), 1);
        assert_eq!(spec.versions[0].name, VERSION);
        assert!(spec.versions[0].subresources.as_ref().is_some_and(|subresources| subresources.status.is_some()));
        let printed = spec.versions[0].additional_printer_columns.as_deref().unwrap_or_default();
        assert_eq!(printed.iter().map(|column| column.name.as_str()).collect::<Vec<_>>().join(" "), columns);
    }
    assert_eq!(crds::API_VERSION, format!("{}/{}", crds::GROUP, VERSION));
}
