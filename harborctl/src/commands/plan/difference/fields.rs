//! Fields that differ.

use std::collections::BTreeSet;

use serde_json::Value;

/// The paths of what differs, each as near to the root as one of the two has nothing there.
pub(super) fn changed_fields(old: &Value, new: &Value) -> Vec<String> {
    let mut found = Vec::new();
    compare("spec", old, new, &mut found);
    found
}

fn compare(path: &str, old: &Value, new: &Value, found: &mut Vec<String>) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            for name in names {
                let (old, new) = (old.get(name).unwrap_or(&Value::Null), new.get(name).unwrap_or(&Value::Null));
                compare(&format!("{path}.{name}"), old, new, found);
            }
        }
        _ if old != new => found.push(path.to_owned()),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_differs_is_named_as_near_to_the_root_as_one_side_has_nothing() {
        let old = json!({"url": "https://a.example", "retry": {"type": "Fixed", "delaySeconds": 1}, "headers": [1]});
        for (new, expected) in [
            (old.clone(), vec![]),
            (
                json!({"url": "https://b.example", "retry": {"type": "Fixed", "delaySeconds": 2}, "headers": [1, 2]}),
                vec!["spec.headers", "spec.retry.delaySeconds", "spec.url"],
            ),
            (json!({"url": "https://a.example", "headers": [1], "suspend": true}), vec!["spec.retry", "spec.suspend"]),
        ] {
            assert_eq!(changed_fields(&old, &new), expected, "{new}");
        }
    }
}
