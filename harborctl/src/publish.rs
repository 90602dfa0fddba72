//! The body of a publish request.

use serde::Serialize;
use serde_json::value::RawValue;

/// What `events:publish` and `events:route` take. The payload's bytes stand in it as they are.
#[derive(Serialize)]
pub(crate) struct PublishRequest<'a> {
    /// Type of the event.
    pub(crate) event_type: &'a str,
    /// Its payload: any JSON.
    pub(crate) payload: &'a RawValue,
    /// Publishing again with the same key and content publishes nothing new.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) idempotency_key: Option<&'a str>,
    /// Customer whose endpoints get it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) recipient: Option<&'a str>,
}

impl PublishRequest<'_> {
    /// The bytes to post.
    pub(crate) fn to_body(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(self)
    }
}
