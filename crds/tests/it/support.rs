//! Objects to start from, and a walk over the schema.

use crds::{API_VERSION, Kind};
use serde_json::{Value, json};

/// The smallest valid object of a kind, with this merged into its spec (RFC 7386: `null` removes).
pub(crate) fn object(kind: Kind, spec_patch: &Value) -> Value {
    let mut spec = match kind {
        Kind::Endpoint => json!({"url": "https://hooks.example.com/in"}),
        Kind::Replay => json!({
            "endpointRef": {"name": "orders"},
            "sinceTime": "2026-01-31T09:00:00Z",
            "untilTime": "2026-01-31T10:00:00Z",
        }),
        Kind::Subscription => json!({"endpointRef": {"name": "orders"}, "eventTypes": ["order.created"]}),
        Kind::DispatcherPool => json!({}),
    };
    merge(&mut spec, spec_patch);
    json!({"apiVersion": API_VERSION, "kind": kind.as_str(), "metadata": {"name": "orders"}, "spec": spec})
}

pub(crate) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (name, value) in fields {
        if value.is_null() {
            target.as_object_mut().expect("made one above").remove(name);
        } else {
            merge(&mut target[name], value);
        }
    }
}

/// What `admit` says, as `field: message` lines.
pub(crate) fn problems(object: &Value) -> Vec<String> {
    match crds::admission::admit(object) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    }
}

/// Calls back with the path and the schema of every node, from the root down; items of a list are `path[]`, values of a
/// map `path{}`.
pub(crate) fn walk(schema: &Value, path: &str, visit: &mut dyn FnMut(&str, &Value)) {
    visit(path, schema);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let child = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        walk(property, &child, visit);
    }
    if schema["items"].is_object() {
        walk(&schema["items"], &format!("{path}[]"), visit);
    }
    if schema["additionalProperties"].is_object() {
        walk(&schema["additionalProperties"], &format!("{path}{{}}"), visit);
    }
}
