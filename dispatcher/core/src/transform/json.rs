//! From the interpreter's value to JSON, the same bytes each time.

use bytes::Bytes;
use cel::Value;
use cel::objects::Key;

use crate::expression::{ExpressionError, ExpressionErrorReason};
use crate::limits::{JSON_DEPTH_MAX, TRANSFORM_RESULT_BYTES_MAX};

/// Writes a value. Its length and depth are looked at while it grows.
pub(super) fn write(value: &Value) -> Result<Bytes, ExpressionError> {
    let mut json = Vec::new();
    push(&mut json, value, 0)?;
    Ok(json.into())
}

fn push(json: &mut Vec<u8>, value: &Value, depth: usize) -> Result<(), ExpressionError> {
    match value {
        Value::Null => json.extend_from_slice(b"null"),
        Value::Bool(truth) => push_scalar(json, truth)?,
        Value::Int(number) => push_scalar(json, number)?,
        Value::UInt(number) => push_scalar(json, number)?,
        Value::Float(number) if number.is_finite() => push_scalar(json, number)?,
        Value::Float(_) => return Err(not_json("a number that is infinite or none: guard what divides or overflows")),
        Value::String(text) => push_scalar(json, text.as_str())?,
        Value::List(elements) => {
            let depth = deeper(depth)?;
            json.push(b'[');
            for (position, element) in elements.iter().enumerate() {
                if position > 0 {
                    json.push(b',');
                }
                push(json, element, depth)?;
            }
            json.push(b']');
        }
        Value::Map(map) => push_object(json, map.map.iter(), deeper(depth)?)?,
        _ => return Err(not_json("a value of a type that JSON does not have: make a string of it")),
    }
    if json.len() > TRANSFORM_RESULT_BYTES_MAX {
        let message = format!("the result has more than {TRANSFORM_RESULT_BYTES_MAX} bytes: leave something out");
        return Err(ExpressionError::new(ExpressionErrorReason::ResultTooLarge, message));
    }
    Ok(())
}

fn push_object<'a>(
    json: &mut Vec<u8>,
    members: impl Iterator<Item = (&'a Key, &'a Value)>,
    depth: usize,
) -> Result<(), ExpressionError> {
    let named = members.map(|(key, value)| match key {
        Key::String(name) => Ok((name.as_str(), value)),
        _ => Err(not_json("a map with keys that are no strings: write them as strings")),
    });
    let mut members = named.collect::<Result<Vec<(&str, &Value)>, ExpressionError>>()?;
    members.sort_unstable_by_key(|(name, _)| *name);
    json.push(b'{');
    for (position, (name, value)) in members.into_iter().enumerate() {
        if position > 0 {
            json.push(b',');
        }
        push_scalar(json, name)?;
        json.push(b':');
        push(json, value, depth)?;
    }
    json.push(b'}');
    Ok(())
}

fn push_scalar<T: serde::Serialize + ?Sized>(json: &mut Vec<u8>, scalar: &T) -> Result<(), ExpressionError> {
    serde_json::to_writer(json, scalar).map_err(|_| not_json("a value that cannot be written"))
}

/// One level further down, if receivers may be expected to read it.
fn deeper(depth: usize) -> Result<usize, ExpressionError> {
    if depth == JSON_DEPTH_MAX {
        let message = format!("the result is nested deeper than {JSON_DEPTH_MAX} levels");
        return Err(ExpressionError::new(ExpressionErrorReason::ResultTooLarge, message));
    }
    Ok(depth + 1)
}

fn not_json(what: &str) -> ExpressionError {
    ExpressionError::new(ExpressionErrorReason::NotJson, format!("the result holds {what}"))
}
