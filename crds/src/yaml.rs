//! The definitions as YAML, as they stand in the `yaml` folder of this crate and go to `kubectl apply`.

use serde::ser::Error as _;
use serde_json::{Number, Value};

use crate::{Kind, definition};

/// Name of the file that holds a kind's definition, by the convention `<group>_<plural>.yaml`.
pub fn file_name(kind: Kind) -> String {
    format!("{}_{}.yaml", crate::GROUP, kind.plural())
}

/// A kind's `CustomResourceDefinition` as one YAML document.
///
/// # Errors
/// If the definition has no YAML form, which a test excludes.
pub fn definition_yaml(kind: Kind) -> Result<String, serde_saphyr::SerializeError> {
    let mut value = serde_json::to_value(definition::definition(kind)).map_err(serde_saphyr::SerializeError::custom)?;
    whole_numbers(&mut value);
    let body = serde_saphyr::to_string(&value)?;
    Ok(format!("# Generated from the types in crds/src by `cargo run -p crds --example generate`.\n{body}"))
}

/// Schema bounds are floating point in the Kubernetes types; `1.0` becomes `1` again.
fn whole_numbers(value: &mut Value) {
    match value {
        Value::Number(number) => {
            if let Some(whole) = whole(number) {
                *value = Value::from(whole);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Object(fields) => fields.values_mut().for_each(whole_numbers),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

fn whole(number: &Number) -> Option<i64> {
    let text = number.to_string();
    text.strip_suffix(".0")?.parse().ok()
}
