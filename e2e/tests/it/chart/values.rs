//! Values, their schema and the table that tells them are one list.

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};

use super::support::{Helm, chart, matrix};

/// What the three of them say of a value: its default, and what it means.
type Table = BTreeMap<String, (Value, String)>;

fn walk(schema: &Value, path: &str, default: &Value, found: &mut Table) {
    let Some(properties) = schema["properties"].as_object() else {
        let meaning = schema["description"].as_str().unwrap_or_else(|| panic!("{path} has no description"));
        found.insert(path.to_owned(), (default.clone(), meaning.to_owned()));
        return;
    };
    assert_eq!(schema["additionalProperties"], false, "{path}: unknown values have to be refused");
    for (name, node) in properties {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        walk(node, &path, &default[name.as_str()], found);
    }
}

fn schema() -> Value {
    serde_json::from_str(&fs::read_to_string(chart().join("values.schema.json")).unwrap()).unwrap()
}

fn defaults() -> Value {
    serde_saphyr::from_str(&fs::read_to_string(chart().join("values.yaml")).unwrap()).unwrap()
}

/// The rows of the page's first table.
fn documented() -> Table {
    let page = fs::read_to_string(chart().join("README.md")).unwrap();
    let table = page.split_once("| value | default | meaning |").unwrap().1;
    let rows = table.split("\n\n").next().unwrap().lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        let default = serde_json::from_str(cells[2]).unwrap_or_else(|_| json!(cells[2]));
        (cells[1].to_owned(), (default, cells[3].to_owned()))
    })
    .collect()
}

/// A default that is nothing, in one form.
fn plain(default: &Value) -> Value {
    match default {
        Value::Null => json!(""),
        Value::Array(items) if items.is_empty() => json!(""),
        Value::Object(fields) if fields.is_empty() => json!(""),
        other => other.clone(),
    }
}

#[test]
fn every_value_stands_in_the_schema_and_on_the_page_with_its_default() {
    let mut found = Table::new();
    walk(&schema(), "", &defaults(), &mut found);
    // Helm's own, for charts that are part of others.
    assert!(found.remove("global").is_some());
    for (default, _) in found.values_mut() {
        *default = plain(default);
    }
    let documented = documented();
    assert_eq!(found.keys().collect::<Vec<_>>(), documented.keys().collect::<Vec<_>>());
    for (path, expected) in &found {
        assert_eq!(&documented[path], expected, "{path}");
    }
}

#[test]
fn no_default_is_outside_of_the_schema() {
    fn check(values: &Value, schema: &Value, path: &str) {
        let Some(properties) = schema["properties"].as_object() else { return };
        for (name, value) in values.as_object().unwrap() {
            let node = properties.get(name).unwrap_or_else(|| panic!("{path}.{name} has no schema"));
            check(value, node, &format!("{path}.{name}"));
        }
    }
    check(&defaults(), &schema(), "");
}

#[test]
fn helm_lints_every_installation() {
    let Some(helm) = Helm::find() else { return };
    for values in matrix() {
        let found = helm.lint(&values);
        assert!(found.contains("0 chart(s) failed"), "{found}");
    }
}

#[test]
fn what_is_misspelt_or_out_of_range_is_refused() {
    let Some(helm) = Helm::find() else { return };
    for (values, place) in [
        (json!({"foo": 1}), "'foo' not allowed"),
        (json!({"ingest": {"replica": 2}}), "'replica' not allowed"),
        (json!({"addressPolicy": {"allowAdresses": []}}), "'allowAdresses' not allowed"),
        (json!({"addressPolicy": {"denyAddresses": ["10.0.0.1"]}}), "/addressPolicy/denyAddresses/0"),
        (json!({"retentionDays": 0}), "/retentionDays"),
        (json!({"retentionDays": "30"}), "/retentionDays"),
        (json!({"dispatcher": {"scaling": {"mode": "Magic"}}}), "/dispatcher/scaling/mode"),
        (json!({"image": {"digest": "latest"}}), "/image/digest"),
        (json!({"embedded": {"persistence": {"size": "much"}}}), "/embedded/persistence/size"),
        (json!({"watchNamespaces": ["Shop"]}), "/watchNamespaces/0"),
        (json!({"addressPolicy": {"denyAddresses": ["10.0.0.0/33"]}}), "/addressPolicy/denyAddresses/0"),
        (json!({"addressPolicy": {"denyAddresses": ["10.0.0.256/32"]}}), "/addressPolicy/denyAddresses/0"),
        (json!({"addressPolicy": {"denyAddresses": ["fd00::/129"]}}), "/addressPolicy/denyAddresses/0"),
        (json!({"fullnameOverride": "Hooks"}), "/fullnameOverride"),
        (json!({"ingest": {"podLabels": {"app.kubernetes.io/component": "mine"}}}), "invalid propertyName"),
        (json!({"dispatcher": {"podLabels": {"harborhook.dev/pool": "mine"}}}), "invalid propertyName"),
    ] {
        let refusal = helm.refuse(&values);
        assert!(refusal.contains(place), "{values}: {refusal}");
    }
}
