//! What an endpoint receives: the payload alone, or a CloudEvent around it.

use std::borrow::Cow;
use std::fmt::Write as _;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use serde_json::value::RawValue;

use super::cloudevents::{HEADER_PREFIX, STRUCTURED};
use super::json::check_depth;
use super::{Event, is_json, time};
use crate::table::BodyFormat;

/// A request's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered<'a> {
    /// Value of the header `content-type`.
    pub content_type: Cow<'a, str>,
    /// Further headers: CloudEvents attributes in binary mode.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body.
    pub body: Bytes,
}

/// Renders an event. `Payload` and `CloudEventsBinary` share the event's body; the structured form holds its very
/// bytes where they are JSON, and their base64 where they are not.
pub fn render(format: BodyFormat, event: &Event) -> Rendered<'_> {
    let content_type = Cow::Borrowed(&*event.content_type);
    match format {
        BodyFormat::Payload => Rendered { content_type, headers: Vec::new(), body: event.body.clone() },
        BodyFormat::CloudEventsStructured => {
            Rendered { content_type: Cow::Borrowed(STRUCTURED), headers: Vec::new(), body: structured(event) }
        }
        BodyFormat::CloudEventsBinary => Rendered {
            content_type,
            headers: context_attributes(event).into_iter().filter_map(|(name, text)| header(name, &text)).collect(),
            body: event.body.clone(),
        },
    }
}

/// All context attributes but `datacontenttype`: the required ones, with defaults from our own knowledge for native
/// events, then what the producer sent besides.
pub(crate) fn context_attributes(event: &Event) -> Vec<(&str, String)> {
    let sent = |name: &str| event.attributes.0.get(name).cloned();
    let mut attributes = vec![
        ("specversion", "1.0".to_owned()),
        ("id", sent("id").unwrap_or_else(|| event.id.to_string())),
        ("source", sent("source").unwrap_or_else(|| format!("/tenants/{}", event.tenant))),
        ("type", event.event_type.clone()),
        ("time", sent("time").unwrap_or_else(|| time::rfc3339(event.accepted_at_unix_ms()))),
    ];
    if let Some(recipient) = &event.recipient {
        attributes.push(("recipient", recipient.clone()));
    }
    for (name, text) in &event.attributes.0 {
        if !matches!(name.as_str(), "id" | "source" | "time") {
            attributes.push((name, text.clone()));
        }
    }
    attributes
}

fn structured(event: &Event) -> Bytes {
    let mut json = Vec::with_capacity(event.body.len() + 512);
    let mut separator = b'{';
    let mut attributes = context_attributes(event);
    attributes.push(("datacontenttype", event.content_type.clone()));
    for (name, text) in attributes {
        json.push(separator);
        push_string(&mut json, name);
        json.push(b':');
        push_string(&mut json, &text);
        separator = b',';
    }
    if !event.body.is_empty() {
        if is_json(&event.content_type) && is_embeddable(&event.body) {
            json.extend_from_slice(b",\"data\":");
            json.extend_from_slice(&event.body);
        } else {
            json.extend_from_slice(b",\"data_base64\":\"");
            json.extend_from_slice(STANDARD.encode(&event.body).as_bytes());
            json.push(b'"');
        }
    }
    json.push(b'}');
    json.into()
}

/// Whether bytes can stand as a JSON value and be read back unchanged: JSON, without white space around it, and not so
/// deep that readers refuse it.
fn is_embeddable(body: &[u8]) -> bool {
    let is_padded = |byte: Option<&u8>| byte.is_none_or(u8::is_ascii_whitespace);
    !is_padded(body.first())
        && !is_padded(body.last())
        && check_depth(body).is_ok()
        && serde_json::from_slice::<&RawValue>(body).is_ok()
}

fn push_string(json: &mut Vec<u8>, text: &str) {
    json.extend_from_slice(serde_json::Value::from(text).to_string().as_bytes());
}

/// An attribute as a header (HTTP protocol binding, 3.1.3.2): space, `"`, `%` and all but printable ASCII are
/// percent-encoded as UTF-8. `None` for a name that is none, which no accepted event has.
fn header(name: &str, text: &str) -> Option<(HeaderName, HeaderValue)> {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if matches!(byte, 0x21..=0x7e) && !matches!(byte, b'"' | b'%') {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").ok()?;
        }
    }
    let name = HeaderName::try_from(format!("{HEADER_PREFIX}{name}")).ok()?;
    Some((name, HeaderValue::try_from(encoded).ok()?))
}
