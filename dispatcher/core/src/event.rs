//! An event as it was accepted. How requests become events stands in the submodules.

pub mod cloudevents;
mod json;
pub mod native;
pub mod render;
#[cfg(test)]
mod tests;
pub mod time;

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::id::{EventId, TenantId};
use crate::limits::{ATTRIBUTE_VALUE_BYTES_MAX, EVENT_BODY_BYTES_MAX, IDEMPOTENCY_KEY_BYTES_MAX, RECIPIENT_BYTES_MAX};
use crate::pattern::validate_event_type;

/// An accepted event. Immutable, shared by all its deliveries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its identity, which carries the time of acceptance.
    pub id: EventId,
    /// Whose it is.
    pub tenant: TenantId,
    /// What happened, for example `order.created`.
    pub event_type: String,
    /// The customer it is for, if it is for one.
    pub recipient: Option<String>,
    /// Media type of the body.
    pub content_type: String,
    /// The payload: exactly the bytes that were received.
    pub body: Bytes,
    /// CloudEvents context attributes other than `specversion`, `type`, `datacontenttype` and `recipient`; empty for
    /// native events.
    pub attributes: Attributes,
}

/// CloudEvents context attributes by name, in their canonical string form (CloudEvents 1.0, 2.2).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Attributes(pub BTreeMap<String, String>);

impl Event {
    /// Milliseconds since the Unix epoch at which the event was accepted.
    pub fn accepted_at_unix_ms(&self) -> u64 {
        self.id.unix_ms()
    }
}

/// What a producer asked to publish, checked, before it has an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// What happened.
    pub event_type: String,
    /// The customer it is for, if it is for one.
    pub recipient: Option<String>,
    /// Media type of the body.
    pub content_type: String,
    /// The payload: a slice of the request where it is most of it, else bytes of its own.
    pub body: Bytes,
    /// As in [`Event::attributes`].
    pub attributes: Attributes,
    /// Requests of one tenant with the same key are one event.
    pub idempotency_key: Option<String>,
}

impl Draft {
    /// The event that the draft becomes when it is accepted.
    pub fn into_event(self, id: EventId, tenant: TenantId) -> Event {
        Event {
            id,
            tenant,
            event_type: self.event_type,
            recipient: self.recipient,
            content_type: self.content_type,
            body: self.body,
            attributes: self.attributes,
        }
    }

    /// SHA-256 over all that was asked except the key: tells a repeated request from another one with the same key.
    pub fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        // Lengths go first, so that no two different drafts are the same sequence of bytes.
        let mut add = |part: &[u8]| {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        };
        add(self.event_type.as_bytes());
        add(&[u8::from(self.recipient.is_some())]);
        add(self.recipient.as_deref().unwrap_or_default().as_bytes());
        add(self.content_type.as_bytes());
        add(&self.body);
        for (name, value) in &self.attributes.0 {
            add(name.as_bytes());
            add(value.as_bytes());
        }
        hash.finalize().into()
    }

    /// Checks what is the same for all forms of a request.
    fn validate(&self) -> Result<(), EventError> {
        validate_event_type(&self.event_type)
            .map_err(|error| EventError::field(EventErrorReason::InvalidField, "event_type", error.to_string()))?;
        validate_text("recipient", self.recipient.as_deref(), RECIPIENT_BYTES_MAX)?;
        if self.recipient.as_deref() == Some("*") {
            let message = "`*` names no recipient: an event is for one, or for none";
            return Err(EventError::field(EventErrorReason::InvalidField, "recipient", message));
        }
        validate_text("idempotency_key", self.idempotency_key.as_deref(), IDEMPOTENCY_KEY_BYTES_MAX)?;
        validate_content_type(&self.content_type)?;
        if self.body.len() > EVENT_BODY_BYTES_MAX {
            let message =
                format!("the payload has {} bytes; at most {EVENT_BODY_BYTES_MAX} are accepted", self.body.len());
            return Err(EventError::new(EventErrorReason::TooLarge, message));
        }
        Ok(())
    }
}

/// Why a request is no event.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct EventError {
    /// The class, from a closed set.
    pub reason: EventErrorReason,
    /// The field or attribute that is wrong, if it is one.
    pub field: Option<String>,
    /// What is wrong and what to do.
    pub message: String,
}

/// Classes of [`EventError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventErrorReason {
    /// The text is not JSON, or not the JSON that belongs there.
    MalformedJson,
    /// Nested deeper than [`crate::limits::JSON_DEPTH_MAX`].
    TooDeep,
    /// Nothing is known about this content type.
    UnsupportedContentType,
    /// The payload, or a batch, is too large.
    TooLarge,
    /// A field or attribute that must be there is not.
    MissingField,
    /// A field that nobody knows: probably a spelling mistake.
    UnknownField,
    /// A field stands there twice.
    DuplicateField,
    /// A field's value breaks its rule.
    InvalidField,
    /// More events than one request may hold.
    TooManyEvents,
}

impl EventError {
    fn new(reason: EventErrorReason, message: impl Into<String>) -> Self {
        Self { reason, field: None, message: message.into() }
    }

    fn field(reason: EventErrorReason, field: &str, message: impl Into<String>) -> Self {
        Self { reason, field: Some(field.to_owned()), message: message.into() }
    }

    fn invalid(field: &str, message: impl Into<String>) -> Self {
        Self::field(EventErrorReason::InvalidField, field, message)
    }

    fn missing(field: &str) -> Self {
        Self::field(EventErrorReason::MissingField, field, format!("`{field}` is required"))
    }
}

/// Whether bodies of this media type are JSON: `application/json`, `text/json` or a type that ends in `+json`.
pub fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    matches!(essence.as_str(), "application/json" | "text/json") || essence.ends_with("+json")
}

fn validate_text(field: &str, text: Option<&str>, bytes_max: usize) -> Result<(), EventError> {
    let Some(text) = text else { return Ok(()) };
    if text.is_empty() {
        return Err(EventError::invalid(field, format!("`{field}` must not be empty: leave it out instead")));
    }
    if text.len() > bytes_max {
        return Err(EventError::invalid(field, format!("`{field}` has at most {bytes_max} bytes")));
    }
    if text.chars().any(char::is_control) {
        return Err(EventError::invalid(field, format!("`{field}` must not contain control characters")));
    }
    Ok(())
}

/// A content type becomes a header of outgoing requests, so it must be one.
fn validate_content_type(content_type: &str) -> Result<(), EventError> {
    let is_token = |text: &str| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
    };
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    let is_media_type = essence.split_once('/').is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype));
    let is_printable = content_type.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    if !is_media_type || !is_printable || content_type.len() > ATTRIBUTE_VALUE_BYTES_MAX {
        let message = "the content type must be a media type such as `application/json`";
        return Err(EventError::invalid("datacontenttype", message));
    }
    Ok(())
}
