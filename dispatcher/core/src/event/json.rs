//! Reading JSON objects without touching their values: each member's value stays the bytes that were sent.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{EventError, EventErrorReason};
use crate::limits::JSON_DEPTH_MAX;

/// Members of an object in the order in which they stand, each with its raw value; duplicates included.
pub(super) type Members<'a> = Vec<(Cow<'a, str>, &'a RawValue)>;

/// Counts nesting without recursion, so that whoever parses afterwards cannot be made to recurse too deep.
pub(super) fn check_depth(text: &[u8]) -> Result<(), EventError> {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in text {
        match (in_string, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => in_string = !in_string,
            (false, b'{' | b'[') => depth += 1,
            (false, b'}' | b']') => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > JSON_DEPTH_MAX {
            let message = format!("the JSON is nested deeper than {JSON_DEPTH_MAX} levels");
            return Err(EventError::new(EventErrorReason::TooDeep, message));
        }
    }
    Ok(())
}

/// The members of the one object that `text` must be, names unescaped. A name that stands there twice is an error.
pub(super) fn members(text: &[u8]) -> Result<Members<'_>, EventError> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let members = deserializer.deserialize_map(MembersVisitor).map_err(|error| malformed(&error))?;
    deserializer.end().map_err(|error| malformed(&error))?;
    let mut names: Vec<&str> = members.iter().map(|(name, _)| name.as_ref()).collect();
    names.sort_unstable();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        let message = format!("`{}` stands there twice: which one is meant?", pair[0]);
        return Err(EventError::field(EventErrorReason::DuplicateField, pair[0], message));
    }
    Ok(members)
}

/// The elements of the one array that `text` must be; `None` as soon as there are more than `elements_max`.
pub(super) fn elements(text: &[u8], elements_max: usize) -> Result<Option<Vec<&RawValue>>, EventError> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let elements = deserializer.deserialize_seq(ElementsVisitor { elements_max }).map_err(|error| malformed(&error))?;
    deserializer.end().map_err(|error| malformed(&error))?;
    Ok((elements.len() <= elements_max).then_some(elements))
}

/// The string that a raw value is, or an error that names the field.
pub(super) fn string(field: &str, value: &RawValue) -> Result<String, EventError> {
    serde_json::from_str(value.get()).map_err(|_| EventError::invalid(field, format!("`{field}` must be a string")))
}

/// The bytes of a raw value: a slice of the request where they are most of it, else a copy. A slice keeps the whole
/// request in memory for as long as the event lives, however small it is.
pub(super) fn body(request: &Bytes, value: &RawValue) -> Bytes {
    let bytes = value.get().as_bytes();
    if bytes.len() < request.len() / 2 { Bytes::copy_from_slice(bytes) } else { request.slice_ref(bytes) }
}

fn malformed(error: &serde_json::Error) -> EventError {
    EventError::new(EventErrorReason::MalformedJson, format!("not the expected JSON: {error}"))
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(Name(name)) = map.next_key()? {
            members.push((name, map.next_value()?));
        }
        Ok(members)
    }
}

/// A member's name: borrowed unless it holds escapes.
#[derive(serde::Deserialize)]
#[serde(transparent)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

struct ElementsVisitor {
    elements_max: usize,
}

impl<'de> Visitor<'de> for ElementsVisitor {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Self::Value, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = sequence.next_element()? {
            // One more than allowed is enough to know.
            if elements.len() <= self.elements_max {
                elements.push(element);
            }
        }
        Ok(elements)
    }
}
