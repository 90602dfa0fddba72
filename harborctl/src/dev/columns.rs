//! Resources as `kubectl get` prints them: with the columns of their definition.

use crds::Kind;
use serde_json::Value;

use crate::table::{align, printable};
use crate::times;

/// The table of a kind's objects, or `None` if there are none. Objects are whole, with their status.
pub(super) fn resources_table(kind: Kind, objects: &[Value], now_unix_ms: u64) -> Option<String> {
    if objects.is_empty() {
        return None;
    }
    let definition = crds::definition::definition(kind);
    let singular = definition.spec.names.singular.unwrap_or_else(|| kind.as_str().to_lowercase());
    let versions = definition.spec.versions.into_iter();
    let columns: Vec<_> = versions
        .filter_map(|version| version.additional_printer_columns)
        .flatten()
        .filter(|column| column.priority.unwrap_or_default() == 0)
        .collect();

    let several = objects.iter().any(|object| object["metadata"]["namespace"] != objects[0]["metadata"]["namespace"]);
    let mut titles: Vec<String> = several.then(|| "NAMESPACE".to_owned()).into_iter().collect();
    titles.push("NAME".to_owned());
    titles.extend(columns.iter().map(|column| column.name.to_uppercase()));

    let row = |object: &Value| {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let mut cells: Vec<String> =
            several.then(|| cell(&object["metadata"]["namespace"], "string", now_unix_ms)).into_iter().collect();
        cells.push(format!("{singular}.{}/{name}", crds::GROUP));
        cells.extend(columns.iter().map(|column| {
            find(object, &column.json_path).map_or_else(String::new, |value| cell(value, &column.type_, now_unix_ms))
        }));
        cells
    };
    Some(align(titles, objects.iter().map(row).collect()))
}

fn cell(value: &Value, column_type: &str, now_unix_ms: u64) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(time) if column_type == "date" => {
            times::age(time, now_unix_ms).unwrap_or_else(|| "<invalid>".to_owned())
        }
        Value::String(text) => printable(text),
        other => other.to_string(),
    }
}

/// Finds what a JSONPath of a printer column names. Of JSONPath only the forms that such columns have: `.field` and
/// `[?(@.field=="value")]`.
fn find<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    let mut value = object;
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(filter) = rest.strip_prefix("[?(@.") {
            let (condition, after) = filter.split_once(")]")?;
            let (field, wanted) = condition.split_once("==")?;
            let wanted = wanted.trim().trim_matches(['"', '\'']);
            value = value.as_array()?.iter().find(|item| item[field.trim()].as_str() == Some(wanted))?;
            rest = after;
        } else {
            let name = rest.strip_prefix('.')?;
            let end = name.find(['.', '[']).unwrap_or(name.len());
            value = value.get(&name[..end])?;
            rest = &name[end..];
        }
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_column_of_every_definition_has_a_path_that_is_understood() {
        let conditions = json!([{"type": "Ready", "status": "True", "reason": "Programmed"}]);
        let object = json!({
            "metadata": {"name": "a", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"eventTypes": ["order.*"]},
            "status": {
                "conditions": conditions, "endpoints": 1, "host": "example.com",
                "matched": 1, "queued": 1, "delivered": 1, "failed": 0,
                "delivery": {
                    "state": "Delivering", "success": "100%", "p95": "10ms", "pending": "0",
                    "oldestTime": "2026-01-01T00:00:00Z", "lastCode": 200,
                },
                "replicas": "2/2", "wantedReplicas": 2, "minReplicas": 2, "maxReplicas": 10, "mode": "Backlog",
                "load": {"backlog": "0", "arriving": "0/s", "delivering": "0/s"},
                "lastScaleTime": "2026-01-01T00:00:00Z",
            },
        });
        for kind in Kind::ALL {
            for version in crds::definition::definition(kind).spec.versions {
                for column in version.additional_printer_columns.unwrap_or_default() {
                    assert!(find(&object, &column.json_path).is_some(), "{kind:?} {}", column.json_path);
                }
            }
        }
    }

    #[test]
    fn subscriptions_look_as_kubectl_prints_them() {
        let object = json!({
            "metadata": {"name": "orders", "namespace": "default", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"eventTypes": ["order.*", "refund.*"]},
            "status": {"conditions": [{"type": "Ready", "status": "True", "reason": "Programmed"}], "endpoints": 1},
        });
        let three_minutes_later = 1_767_225_780_000;
        let expected = "\
NAME                                     READY   REASON       ENDPOINTS   TYPES                    AGE
hooksubscription.harborhook.dev/orders   True    Programmed   1           [\"order.*\",\"refund.*\"]   3m
";
        assert_eq!(resources_table(Kind::Subscription, &[object], three_minutes_later).unwrap(), expected);
        assert_eq!(resources_table(Kind::Subscription, &[], three_minutes_later), None);
    }
}
