//! `metadata`, which the schema of a custom resource leaves to the API server.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Map, Value};

use super::FieldProblem;
use crate::limits;

/// Fields of `ObjectMeta`.
const FIELDS: [&str; 15] = [
    "annotations",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "name",
    "namespace",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];

pub(super) fn check(metadata: Option<&Value>) -> Vec<FieldProblem> {
    let mut problems = Vec::new();
    let fields = match metadata {
        None => return vec![FieldProblem::new("metadata.name", "is required")],
        Some(Value::Object(fields)) => fields,
        Some(_) => return vec![FieldProblem::new("metadata", "must be an object")],
    };
    for field in fields.keys().filter(|field| !FIELDS.contains(&field.as_str())) {
        problems.push(FieldProblem::new(format!("metadata.{field}"), "unknown field"));
    }
    check_name(fields, &mut problems);
    check_namespace(fields, &mut problems);
    check_labels(fields, &mut problems);
    check_annotations(fields, &mut problems);
    if problems.is_empty() && serde_json::from_value::<ObjectMeta>(Value::Object(fields.clone())).is_err() {
        problems.push(FieldProblem::new("metadata", "has a field of the wrong type"));
    }
    problems
}

fn check_name(fields: &Map<String, Value>, problems: &mut Vec<FieldProblem>) {
    match fields.get("name") {
        None | Some(Value::Null) => problems.push(FieldProblem::new("metadata.name", "is required")),
        Some(Value::String(name)) if is_subdomain(name) => {}
        Some(_) => problems.push(FieldProblem::new(
            "metadata.name",
            "must be an RFC 1123 subdomain: at most 253 lower case letters, digits, - and ., each part beginning and \
             ending with a letter or digit",
        )),
    }
}

fn check_namespace(fields: &Map<String, Value>, problems: &mut Vec<FieldProblem>) {
    match fields.get("namespace") {
        None | Some(Value::Null) => {}
        Some(Value::String(namespace)) if namespace.len() <= limits::NAMESPACE_LENGTH_MAX && is_label(namespace) => {}
        Some(_) => problems.push(FieldProblem::new(
            "metadata.namespace",
            "must be an RFC 1123 label: at most 63 lower case letters, digits and -",
        )),
    }
}

fn check_labels(fields: &Map<String, Value>, problems: &mut Vec<FieldProblem>) {
    for (key, value) in strings(fields, "labels", problems) {
        let field = format!("metadata.labels[{key}]");
        if !is_qualified_name(key) {
            problems.push(FieldProblem::new(&field, "the key must be a name, or a DNS prefix, / and a name"));
        }
        if !value.is_empty() && !is_label_value(value) {
            problems.push(FieldProblem::new(
                field,
                "must be at most 63 letters, digits, -, _ and ., beginning and ending with a letter or digit",
            ));
        }
    }
}

fn check_annotations(fields: &Map<String, Value>, problems: &mut Vec<FieldProblem>) {
    for (key, _) in strings(fields, "annotations", problems) {
        if !is_qualified_name(&key.to_ascii_lowercase()) {
            let field = format!("metadata.annotations[{key}]");
            problems.push(FieldProblem::new(field, "the key must be a name, or a DNS prefix, / and a name"));
        }
    }
}

/// The entries of a map of strings; whatever is not one is a problem.
fn strings<'a>(
    fields: &'a Map<String, Value>,
    map: &str,
    problems: &mut Vec<FieldProblem>,
) -> Vec<(&'a String, &'a str)> {
    let entries = match fields.get(map) {
        None | Some(Value::Null) => return Vec::new(),
        Some(Value::Object(entries)) => entries,
        Some(_) => {
            problems.push(FieldProblem::new(format!("metadata.{map}"), "must be a map of strings"));
            return Vec::new();
        }
    };
    let mut found = Vec::with_capacity(entries.len());
    for (key, value) in entries {
        if let Value::String(value) = value {
            found.push((key, value.as_str()));
        } else {
            let field = format!("metadata.{map}[{key}]");
            problems.push(FieldProblem::new(field, "must be a string; put it in quotes"));
        }
    }
    found
}

/// RFC 1123 subdomain, as Kubernetes reads it.
fn is_subdomain(name: &str) -> bool {
    name.len() <= limits::OBJECT_NAME_LENGTH_MAX && name.split('.').all(is_label)
}

fn is_label(part: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    part.bytes().all(|byte| inner(byte) || byte == b'-')
        && part.bytes().next().is_some_and(inner)
        && part.bytes().last().is_some_and(inner)
}

fn is_qualified_name(key: &str) -> bool {
    match key.split_once('/') {
        Some((prefix, name)) => is_subdomain(prefix) && is_label_value(name),
        None => is_label_value(key),
    }
}

/// At most 63 letters, digits, `-`, `_` and `.`, with a letter or digit at both ends. Not empty.
fn is_label_value(value: &str) -> bool {
    let ends = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    value.len() <= limits::LABEL_VALUE_LENGTH_MAX
        && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        && ends(value.bytes().next())
        && ends(value.bytes().last())
}
