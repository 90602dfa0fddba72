//! Whether an object in the cluster is as it was applied: only what is applied counts, whatever others have added.

use serde::Serialize;
use serde_json::Value;

/// Whether applying `wanted` would change `present`: some field of it is missing or has another value.
pub fn differs<Object: Serialize>(wanted: &Object, present: &Object) -> bool {
    match (serde_json::to_value(wanted), serde_json::to_value(present)) {
        (Ok(wanted), Ok(present)) => !is_part_of(&wanted, &present, false),
        _ => true,
    }
}

/// Whether every field of `wanted` stands in `present`. Items of lists are compared in their order; of lists whose items
/// have names, each with the one of its name.
fn is_part_of(wanted: &Value, present: &Value, are_quantities: bool) -> bool {
    match (wanted, present) {
        (Value::Object(wanted), Value::Object(present)) => wanted.iter().all(|(name, field)| {
            let are_quantities = are_quantities && field.is_string() || matches!(name.as_str(), "requests" | "limits");
            match present.get(name) {
                Some(present) => is_part_of(field, present, are_quantities),
                // An API server drops what says nothing.
                None => says_nothing(field),
            }
        }),
        (Value::Array(wanted), Value::Array(present)) => {
            let named = |items: &[Value]| items.iter().all(|item| item["name"].is_string());
            if named(wanted) && named(present) {
                return wanted.iter().all(|item| {
                    present.iter().any(|other| other["name"] == item["name"] && is_part_of(item, other, false))
                });
            }
            wanted.len() == present.len()
                && wanted.iter().zip(present).all(|(wanted, present)| is_part_of(wanted, present, false))
        }
        (Value::String(wanted), Value::String(present)) if are_quantities => {
            wanted == present || quantity(wanted).is_some_and(|wanted| Some(wanted) == quantity(present))
        }
        _ => wanted == present,
    }
}

fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// A quantity in billionths: the same amount may be written in several ways, and an API server chooses one
/// (<https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>). `None` if it is none, or too large.
fn quantity(text: &str) -> Option<i128> {
    let end = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if number.is_empty() || number == "." || fraction.len() > 9 {
        return None;
    }
    let digits: i128 = format!("{whole}{fraction:0<9}").parse().ok()?;
    let (factor, parts): (i128, i128) = match suffix {
        "" => (1, 1),
        "n" => (1, 1_000_000_000),
        "u" => (1, 1_000_000),
        "m" => (1, 1_000),
        "k" => (1_000, 1),
        "M" => (1_000_000, 1),
        "G" => (1_000_000_000, 1),
        "T" => (1_000_000_000_000, 1),
        "P" => (1_000_000_000_000_000, 1),
        "E" => (1_000_000_000_000_000_000, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        "Ei" => (1 << 60, 1),
        exponent => {
            let exponent: i32 = exponent.strip_prefix(['e', 'E'])?.parse().ok()?;
            let power = 10_i128.checked_pow(exponent.unsigned_abs())?;
            if exponent < 0 { (1, power) } else { (power, 1) }
        }
    };
    // What is smaller than a billionth is rounded up, as an API server does.
    let scaled = digits.checked_mul(factor)?;
    Some(scaled / parts + i128::from(scaled % parts != 0))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn amounts_are_the_same_however_they_are_written() {
        for (one, other) in
            [("1", "1000m"), ("0.5", "500m"), ("1Gi", "1024Mi"), ("1e3", "1k"), ("100E-2", "1"), (".5", "0.50")]
        {
            assert_eq!(quantity(one), quantity(other), "{one} {other}");
            assert!(quantity(one).is_some(), "{one}");
        }
        assert_ne!(quantity("1M"), quantity("1Mi"));
        for text in ["", ".", "x", "1x", "1Kii", "1e", "99999999999999999999999999999999999999E"] {
            assert_eq!(quantity(text), None, "{text}");
        }
    }

    #[test]
    fn what_others_added_does_not_count_and_what_is_missing_does() {
        let wanted = json!({"a": 1, "list": [{"name": "x", "value": "1"}], "empty": {}, "requests": {"cpu": "1"}});
        for (present, expected) in [
            (
                json!({"a": 1, "b": 2, "list": [{"name": "y"}, {"name": "x", "value": "1", "more": 1}], "requests": {"cpu": "1000m", "memory": "1"}}),
                false,
            ),
            (json!({"list": [{"name": "x", "value": "1"}], "requests": {"cpu": "1"}}), true),
            (json!({"a": 1, "list": [{"name": "x", "value": "2"}], "requests": {"cpu": "1"}}), true),
            (json!({"a": 1, "list": [{"name": "x", "value": "1"}], "requests": {"cpu": "2"}}), true),
        ] {
            assert_eq!(differs(&wanted, &present), expected, "{present}");
        }
    }
}
