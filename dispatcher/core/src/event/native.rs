//! The native publish request: `{"event_type": …, "payload": …, "idempotency_key"?: …, "recipient"?: …}`.

use bytes::Bytes;

use super::json::{self, check_depth, members, string};
use super::{Attributes, Draft, EventError, EventErrorReason};

/// Media type of every native event's body.
pub const CONTENT_TYPE: &str = "application/json";

/// Reads a publish request. The draft's body is the `payload` member's bytes as they stand in `body`, with
/// white space, key order, duplicate keys and numbers untouched.
pub fn parse_publish(body: &Bytes) -> Result<Draft, EventError> {
    check_depth(body)?;
    let (mut event_type, mut payload, mut idempotency_key, mut recipient) = (None, None, None, None);
    for (name, value) in members(body)? {
        match name.as_ref() {
            "event_type" => event_type = Some(string("event_type", value)?),
            "payload" => payload = Some(json::body(body, value)),
            "idempotency_key" => idempotency_key = Some(string("idempotency_key", value)?),
            "recipient" => recipient = Some(string("recipient", value)?),
            unknown => {
                let message = format!(
                    "`{}` is not a field of a publish request; those are `event_type`, `payload`, `idempotency_key` and `recipient`",
                    unknown.escape_debug()
                );
                return Err(EventError::field(EventErrorReason::UnknownField, unknown, message));
            }
        }
    }
    let draft = Draft {
        event_type: event_type.ok_or_else(|| EventError::missing("event_type"))?,
        recipient,
        content_type: CONTENT_TYPE.to_owned(),
        body: payload.ok_or_else(|| EventError::missing("payload"))?,
        attributes: Attributes::default(),
        idempotency_key,
    };
    draft.validate()?;
    Ok(draft)
}
