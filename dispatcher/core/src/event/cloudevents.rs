//! CloudEvents 1.0 over HTTP: structured, binary and batched content modes (CloudEvents HTTP protocol binding 1.0.2,
//! section 3, and JSON event format 1.0.2).

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::json::{self, check_depth, elements, members, string};
use super::{Attributes, Draft, EventError, EventErrorReason, is_json, native, time};
use crate::limits::{ATTRIBUTE_NAME_BYTES_MAX, ATTRIBUTE_VALUE_BYTES_MAX, ATTRIBUTES_MAX, BATCH_EVENTS_MAX};

/// Media type of one event in structured mode.
pub const STRUCTURED: &str = "application/cloudevents+json";
/// Media type of a batch.
pub const BATCH: &str = "application/cloudevents-batch+json";
/// What begins the name of a header that carries an attribute in binary mode.
pub const HEADER_PREFIX: &str = "ce-";

/// Media type of a binary-mode body that names none.
const OCTETS: &str = "application/octet-stream";

/// Reads a request in whichever content mode its headers say. JSON data keep the very bytes of the request.
///
/// A batch is accepted or refused as a whole; it may be empty. The extension `recipient` becomes the recipient, and
/// the idempotency key follows from `source` and `id`, which together identify an event.
pub fn parse(headers: &HeaderMap, body: &Bytes) -> Result<Vec<Draft>, EventError> {
    let content_type = match headers.get(CONTENT_TYPE) {
        None => None,
        Some(value) => {
            let text =
                value.to_str().map_err(|_| EventError::invalid("content-type", "the content type is not ASCII"))?;
            Some(text.trim())
        }
    };
    let essence = content_type.and_then(|text| text.split(';').next()).unwrap_or_default().trim().to_ascii_lowercase();
    match essence.as_str() {
        STRUCTURED => {
            check_depth(body)?;
            Ok(vec![parse_structured(body, body)?])
        }
        BATCH => parse_batch(body),
        other if !other.starts_with("application/cloudevents") && headers.contains_key("ce-specversion") => {
            Ok(vec![parse_binary(headers, content_type, body)?])
        }
        _ => Err(EventError::new(
            EventErrorReason::UnsupportedContentType,
            format!(
                "send `{STRUCTURED}`, `{BATCH}`, or any content type with `ce-` headers, of which `ce-specversion` is one"
            ),
        )),
    }
}

fn parse_batch(body: &Bytes) -> Result<Vec<Draft>, EventError> {
    check_depth(body)?;
    let Some(events) = elements(body, BATCH_EVENTS_MAX)? else {
        let message = format!("a batch has at most {BATCH_EVENTS_MAX} events");
        return Err(EventError::new(EventErrorReason::TooManyEvents, message));
    };
    let parse_one = |(index, event): (usize, &RawValue)| {
        parse_structured(body, event.get().as_bytes()).map_err(|error| EventError {
            message: format!("event {index} of the batch: {}", error.message),
            field: Some(error.field.map_or_else(|| format!("[{index}]"), |field| format!("[{index}].{field}"))),
            ..error
        })
    };
    events.into_iter().enumerate().map(parse_one).collect()
}

/// Reads one event of the JSON format; `event` is a part of `request`.
fn parse_structured(request: &Bytes, event: &[u8]) -> Result<Draft, EventError> {
    let mut attributes = BTreeMap::new();
    let (mut data, mut data_base64) = (None, None);
    for (name, value) in members(event)? {
        match name.as_ref() {
            "data" => data = Some(value),
            "data_base64" => data_base64 = Some(value),
            name => {
                if let Some(text) = attribute_text(name, value)? {
                    insert(&mut attributes, name, text)?;
                }
            }
        }
    }
    let content_type = attributes.remove("datacontenttype").unwrap_or_else(|| native::CONTENT_TYPE.to_owned());
    let body = match (data, data_base64) {
        (Some(_), Some(_)) => {
            let message = "an event has `data` or `data_base64`, not both";
            return Err(EventError::invalid("data_base64", message));
        }
        (None, Some(value)) => {
            let text = string("data_base64", value)?;
            STANDARD
                .decode(text)
                .map_err(|_| EventError::invalid("data_base64", "`data_base64` must be base64"))?
                .into()
        }
        // For data that are not JSON, a JSON string stands for the text that it holds (JSON event format, 3.1.1).
        (Some(value), None) if !is_json(&content_type) && value.get().starts_with('"') => string("data", value)?.into(),
        (Some(value), None) => json::body(request, value),
        (None, None) => Bytes::new(),
    };
    draft(attributes, content_type, body)
}

/// An attribute's canonical text: strings as they are, booleans and 32-bit integers as they are written; `null` is absent.
fn attribute_text(name: &str, value: &RawValue) -> Result<Option<String>, EventError> {
    let raw = value.get();
    match raw.as_bytes().first() {
        Some(b'n') => Ok(None),
        Some(b'"') => string(name, value).map(Some),
        Some(b't' | b'f') => Ok(Some(raw.to_owned())),
        _ => {
            let message =
                format!("the attribute `{}` must be a string, a boolean or a 32-bit integer", name.escape_debug());
            let number: i32 = raw.parse().map_err(|_| EventError::invalid(name, message))?;
            Ok(Some(number.to_string()))
        }
    }
}

fn parse_binary(headers: &HeaderMap, content_type: Option<&str>, body: &Bytes) -> Result<Draft, EventError> {
    let mut attributes = BTreeMap::new();
    for (header, value) in headers {
        let Some(name) = header.as_str().strip_prefix(HEADER_PREFIX) else { continue };
        if name == "datacontenttype" {
            let message = "in binary mode the header `content-type` says what the data are, not `ce-datacontenttype`";
            return Err(EventError::invalid(name, message));
        }
        let text = header_text(value.as_bytes())
            .ok_or_else(|| EventError::invalid(name, format!("the header `{header}` is not percent-encoded UTF-8")))?;
        insert(&mut attributes, name, text)?;
    }
    draft(attributes, content_type.unwrap_or(OCTETS).to_owned(), body.clone())
}

/// Undoes double quotes, then one round of percent-encoding (HTTP protocol binding, 3.1.3.2).
fn header_text(value: &[u8]) -> Option<String> {
    let unquoted: Cow<'_, [u8]> = match value {
        [b'"', inner @ .., b'"'] => {
            let mut bytes = Vec::with_capacity(inner.len());
            let mut rest = inner.iter();
            while let Some(byte) = rest.next() {
                bytes.push(if *byte == b'\\' { *rest.next()? } else { *byte });
            }
            Cow::Owned(bytes)
        }
        _ => Cow::Borrowed(value),
    };
    let mut decoded = Vec::with_capacity(unquoted.len());
    let mut rest = unquoted.as_ref();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte == b'%' {
            let (digits, after) = rest.split_at_checked(2)?;
            decoded.push(hex_digit(digits[0])? << 4 | hex_digit(digits[1])?);
            rest = after;
        } else {
            decoded.push(*byte);
        }
    }
    String::from_utf8(decoded).ok()
}

fn hex_digit(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// Adds an attribute, checked against the rules for names and the limits (CloudEvents 1.0, 3.1 and 2.2).
fn insert(attributes: &mut BTreeMap<String, String>, name: &str, text: String) -> Result<(), EventError> {
    let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    if name.is_empty() || name.len() > ATTRIBUTE_NAME_BYTES_MAX || !name.bytes().all(is_name) {
        let message = format!(
            "{:?} is no attribute name: those are 1 to {ATTRIBUTE_NAME_BYTES_MAX} lower-case letters and digits",
            name.chars().take(2 * ATTRIBUTE_NAME_BYTES_MAX).collect::<String>()
        );
        return Err(EventError::invalid(name, message));
    }
    if text.len() > ATTRIBUTE_VALUE_BYTES_MAX {
        let message = format!("the attribute `{name}` has at most {ATTRIBUTE_VALUE_BYTES_MAX} bytes");
        return Err(EventError::invalid(name, message));
    }
    if text.chars().any(char::is_control) {
        return Err(EventError::invalid(name, format!("the attribute `{name}` must not contain control characters")));
    }
    if attributes.insert(name.to_owned(), text).is_some() {
        return Err(EventError::field(EventErrorReason::DuplicateField, name, format!("`{name}` stands there twice")));
    }
    if attributes.len() > ATTRIBUTES_MAX {
        let message = format!("an event has at most {ATTRIBUTES_MAX} attributes");
        return Err(EventError::new(EventErrorReason::TooLarge, message));
    }
    Ok(())
}

/// Checks the attributes that the specification defines and makes the draft of them.
fn draft(mut attributes: BTreeMap<String, String>, content_type: String, body: Bytes) -> Result<Draft, EventError> {
    let version = attributes.remove("specversion").ok_or_else(|| EventError::missing("specversion"))?;
    if version != "1.0" {
        return Err(EventError::invalid(
            "specversion",
            "only CloudEvents 1.0 is understood: `specversion` must be `1.0`",
        ));
    }
    let event_type = attributes.remove("type").ok_or_else(|| EventError::missing("type"))?;
    let recipient = attributes.remove("recipient");
    for name in ["id", "source"] {
        let text = attributes.get(name).ok_or_else(|| EventError::missing(name))?;
        if text.is_empty() {
            return Err(EventError::invalid(name, format!("`{name}` must not be empty")));
        }
    }
    for name in ["source", "dataschema"] {
        if attributes.get(name).is_some_and(|text| text.is_empty() || text.contains(char::is_whitespace)) {
            return Err(EventError::invalid(name, format!("`{name}` must be a URI without white space")));
        }
    }
    if attributes.get("subject").is_some_and(String::is_empty) {
        return Err(EventError::invalid("subject", "`subject` must not be empty: leave it out instead"));
    }
    if attributes.get("time").is_some_and(|text| !time::is_rfc3339(text)) {
        return Err(EventError::invalid("time", "`time` must be an RFC 3339 timestamp such as `2026-01-31T12:00:00Z`"));
    }
    let idempotency_key = Some(idempotency_key(&attributes["source"], &attributes["id"]));
    let draft =
        Draft { event_type, recipient, content_type, body, attributes: Attributes(attributes), idempotency_key };
    draft.validate().map_err(|error| EventError {
        // The producer knows the attribute, not our name for it.
        field: error.field.map(|field| if field == "event_type" { "type".to_owned() } else { field }),
        ..error
    })?;
    Ok(draft)
}

fn idempotency_key(source: &str, id: &str) -> String {
    let digest = Sha256::new()
        .chain_update((source.len() as u64).to_be_bytes())
        .chain_update(source)
        .chain_update(id)
        .finalize();
    format!("ce:{}", hex::encode(digest))
}
