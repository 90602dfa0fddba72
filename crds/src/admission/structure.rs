//! What the structural schema alone says: types, enumerations, bounds, required fields, duplicates.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value};

use super::FieldProblem;

/// Problems of an object's structure.
#[derive(Default)]
pub(super) struct Structural {
    /// All of them, in the order of the walk.
    pub(super) problems: Vec<FieldProblem>,
    /// Whether a list, map or text is longer than its limit.
    pub(super) oversize: bool,
}

impl Structural {
    fn add(&mut self, field: &str, message: impl Into<String>) {
        self.problems.push(FieldProblem::new(field, message));
    }

    fn add_oversize(&mut self, field: &str, message: String) {
        self.oversize = true;
        self.add(field, message);
    }
}

/// Removes fields that are `null`: no field of ours is nullable, and there an API server takes `null` for absent.
pub(super) fn drop_nulls(schema: &Value, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return };
            fields.retain(|name, field| !(field.is_null() && properties.contains_key(name)));
            for (name, field) in fields {
                if let Some(property) = properties.get(name) {
                    drop_nulls(property, field);
                }
            }
        }
        Value::Array(items) => {
            if let Some(item_schema) = schema.get("items") {
                for item in items {
                    drop_nulls(item_schema, item);
                }
            }
        }
        _ => {}
    }
}

/// Fields that the schema does not know, in the whole object, its status included.
pub(super) fn unknown_fields(schema: &Value, object: &Value, problems: &mut Vec<FieldProblem>) {
    find_unknown(schema, object, "", problems);
}

fn find_unknown(schema: &Value, value: &Value, path: &str, problems: &mut Vec<FieldProblem>) {
    match value {
        Value::Object(fields) => {
            let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return };
            for (name, field) in fields {
                let field_path = member(path, name);
                match properties.get(name) {
                    Some(property) => find_unknown(property, field, &field_path, problems),
                    None if path.is_empty() && ["apiVersion", "kind", "metadata"].contains(&name.as_str()) => {}
                    None => problems.push(FieldProblem::new(field_path, unknown_field(properties, name))),
                }
            }
        }
        Value::Array(items) => {
            let Some(item_schema) = schema.get("items") else { return };
            for (index, item) in items.iter().enumerate() {
                find_unknown(item_schema, item, &format!("{path}[{index}]"), problems);
            }
        }
        _ => {}
    }
}

fn unknown_field(properties: &Map<String, Value>, name: &str) -> String {
    let plain = |text: &str| text.replace(['_', '-'], "").to_ascii_lowercase();
    match properties.keys().find(|known| plain(known) == plain(name)) {
        Some(known) => format!("unknown field; did you mean {known}?"),
        None => "unknown field".to_owned(),
    }
}

/// Checks a value against its schema.
pub(super) fn check(schema: &Value, value: &Value) -> Structural {
    let mut structural = Structural::default();
    check_value(schema, value, "", &mut structural);
    structural
}

fn check_value(schema: &Value, value: &Value, path: &str, structural: &mut Structural) {
    match (text(schema, "type"), value) {
        ("object", Value::Object(fields)) => check_object(schema, fields, path, structural),
        ("array", Value::Array(items)) => check_list(schema, items, path, structural),
        ("string", Value::String(string)) => check_string(schema, string, path, structural),
        ("integer", Value::Number(number)) if number.is_i64() || number.is_u64() => {
            check_integer(schema, number, path, structural);
        }
        ("boolean", Value::Bool(_)) => {}
        ("object", _) => structural.add(path, "must be an object"),
        ("array", _) => structural.add(path, "must be a list"),
        ("string", Value::Number(_) | Value::Bool(_)) => structural.add(path, "must be a string; put it in quotes"),
        ("string", _) => structural.add(path, "must be a string"),
        ("integer", _) => structural.add(path, "must be a whole number"),
        ("boolean", _) => structural.add(path, "must be true or false"),
        _ => structural.add(path, "has a type that is not supported"),
    }
}

fn check_object(schema: &Value, fields: &Map<String, Value>, path: &str, structural: &mut Structural) {
    let required = schema.get("required").and_then(Value::as_array);
    for name in required.into_iter().flatten().filter_map(Value::as_str) {
        if !fields.contains_key(name) {
            structural.add(&member(path, name), "is required");
        }
    }
    check_count(schema, ("minProperties", "maxProperties"), fields.len(), path, structural);
    let properties = schema.get("properties").and_then(Value::as_object);
    let others = schema.get("additionalProperties").filter(|others| others.is_object());
    for (name, field) in fields {
        if let Some(property) = properties.and_then(|properties| properties.get(name)) {
            check_value(property, field, &member(path, name), structural);
        } else if let Some(others) = others {
            check_value(others, field, &format!("{path}[{name}]"), structural);
        }
    }
}

fn check_list(schema: &Value, items: &[Value], path: &str, structural: &mut Structural) {
    check_count(schema, ("minItems", "maxItems"), items.len(), path, structural);
    if let Some(item_schema) = schema.get("items") {
        for (index, item) in items.iter().enumerate() {
            check_value(item_schema, item, &format!("{path}[{index}]"), structural);
        }
    }
    let keys: Vec<&str> = match text(schema, "x-kubernetes-list-type") {
        "map" => {
            let keys = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
            keys.into_iter().flatten().filter_map(Value::as_str).collect()
        }
        "set" => Vec::new(),
        _ => return,
    };
    // A set is told apart by whole items, a map by its keys; an item without its key has its own problem.
    let identities: Vec<Option<Vec<&Value>>> = items
        .iter()
        .map(|item| if keys.is_empty() { Some(vec![item]) } else { keys.iter().map(|key| item.get(key)).collect() })
        .collect();
    let mut seen = std::collections::HashSet::new();
    for (index, identity) in identities.iter().enumerate() {
        if let Some(identity) = identity
            && !seen.insert(identity)
        {
            structural.add(&format!("{path}[{index}]"), "is a duplicate of an earlier item");
        }
    }
}

fn check_string(schema: &Value, string: &str, path: &str, structural: &mut Structural) {
    if let Some(allowed) = schema.get("enum").and_then(Value::as_array) {
        if !allowed.iter().any(|value| value.as_str() == Some(string)) {
            let names: Vec<&str> = allowed.iter().filter_map(Value::as_str).collect();
            structural.add(path, format!("must be one of {}", names.join(", ")));
        }
        return;
    }
    if text(schema, "format") == "date-time" && string.parse::<Timestamp>().is_err() {
        structural.add(path, "must be a time in RFC 3339, such as 2026-01-31T09:00:00Z");
    }
    let length = string.chars().count();
    if let Some(max) = bound(schema, "maxLength").filter(|max| length > *max) {
        structural.add_oversize(path, format!("must have at most {max} characters"));
    }
    if let Some(min) = bound(schema, "minLength").filter(|min| length < *min) {
        structural.add(path, format!("must have at least {min} characters"));
    }
}

fn check_integer(schema: &Value, number: &serde_json::Number, path: &str, structural: &mut Structural) {
    let value = number.as_i64().map_or_else(|| number.as_u64().map_or(0, i128::from), i128::from);
    let min = number_bound(schema, "minimum");
    let max = number_bound(schema, "maximum");
    if min.is_some_and(|min| value < min) || max.is_some_and(|max| value > max) {
        let message = match (min, max) {
            (Some(min), Some(max)) => format!("must be from {min} to {max}"),
            (Some(min), None) => format!("must be at least {min}"),
            (None, Some(max)) => format!("must be at most {max}"),
            (None, None) => return,
        };
        structural.add(path, message);
    }
}

fn check_count(schema: &Value, names: (&str, &str), count: usize, path: &str, structural: &mut Structural) {
    if let Some(max) = bound(schema, names.1).filter(|max| count > *max) {
        structural.add_oversize(path, format!("must have at most {max} entries"));
    }
    if let Some(min) = bound(schema, names.0).filter(|min| count < *min) {
        structural.add(path, format!("must have at least {min} {}", if min == 1 { "entry" } else { "entries" }));
    }
}

fn member(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn text<'a>(schema: &'a Value, name: &str) -> &'a str {
    schema.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn bound(schema: &Value, name: &str) -> Option<usize> {
    usize::try_from(number_bound(schema, name)?).ok()
}

/// Bounds stand in the schema as `1` or `1.0`; all of ours are whole and small.
fn number_bound(schema: &Value, name: &str) -> Option<i128> {
    let number = schema.get(name)?;
    number.as_i64().map(i128::from).or_else(|| number.to_string().strip_suffix(".0")?.parse().ok())
}
