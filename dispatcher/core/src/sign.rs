//! Signing requests, and verifying what was signed.
//!
//! One file for each family: `standard` for Standard Webhooks 1.0, `compatible` for the header styles of others.
//! Whatever the scheme, a request carries `webhook-id`, the same over all retries and replays, so that receivers
//! can drop duplicates.

mod compatible;
mod keys;
mod standard;
#[cfg(test)]
mod tests;
mod verify;

use ::hmac::{Hmac, KeyInit, Mac};
use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use sha2::Sha256;

use crate::limits::SIGNING_KEYS_MAX;
use crate::table::{SigningKey, SigningScheme};

pub use keys::{KeyError, KeyKind, ParsedKey, VerifyingKey, parse_key, public_key};
pub use verify::{VerifyError, verify};

/// Carries the message's identity in every scheme.
pub const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");

/// What is signed.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// Identity of the message: of the delivery, the same for every attempt. Printable ASCII without `.`.
    pub id: &'a str,
    /// When the attempt is made, in seconds since the Unix epoch.
    pub unix_seconds: i64,
    /// The request's body, exactly as it is sent.
    pub body: &'a [u8],
}

/// Why a request could not be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum SignError {
    /// There is no key, or all have retired.
    #[error("no signing key is in force: give the endpoint a key that has not retired")]
    NoKey,
    /// The identity cannot stand in a header or would make the signed text ambiguous.
    #[error("the message's id must be printable ASCII without a dot")]
    InvalidId,
    /// A key does not fit the scheme.
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl SignError {
    /// A stable name for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoKey => "no_key",
            Self::InvalidId => "invalid_id",
            Self::Key(error) => error.as_str(),
        }
    }
}

/// Signs a message: the headers to send with it.
///
/// Keys that have retired by `now_unix_ms` (milliseconds since the Unix epoch) are skipped. `keys` stand newest
/// first; where the scheme has a place for several signatures all of the rest sign, at most
/// [`SIGNING_KEYS_MAX`], else the newest.
pub fn sign(
    scheme: SigningScheme,
    keys: &[SigningKey],
    now_unix_ms: u64,
    message: &Message<'_>,
) -> Result<Vec<(HeaderName, HeaderValue)>, SignError> {
    let in_force = |key: &&SigningKey| key.retires_at_unix_ms.is_none_or(|retires_at| now_unix_ms < retires_at);
    let mut keys = keys.iter().filter(in_force).map(|key| key.bytes.expose().0.as_slice()).take(SIGNING_KEYS_MAX);
    let newest = keys.next().ok_or(SignError::NoKey)?;
    if !is_header_id(message.id) {
        return Err(SignError::InvalidId);
    }
    match scheme {
        SigningScheme::StandardWebhooks => Ok(standard::sign_hmac(message, newest, keys)),
        SigningScheme::StandardWebhooksEd25519 => standard::sign_ed25519(Request::of(message), newest, keys),
        SigningScheme::HarborHook => Ok(compatible::sign_harborhook(Request::of(message), newest)),
        SigningScheme::GitHub => Ok(compatible::sign_github(Request::of(message), newest)),
        SigningScheme::Stripe => Ok(compatible::sign_stripe(Request::of(message), newest, keys)),
    }
}

/// A message whose identity and time are headers already: their bytes are what is signed.
struct Request<'a> {
    id: HeaderValue,
    timestamp: HeaderValue,
    body: &'a [u8],
}

impl<'a> Request<'a> {
    fn of(message: &Message<'a>) -> Self {
        let id = header_value(Bytes::copy_from_slice(message.id.as_bytes()));
        Self { id, timestamp: HeaderValue::from(message.unix_seconds), body: message.body }
    }
}

/// Whether an identity can stand in a header, and before a dot.
fn is_header_id(id: &str) -> bool {
    !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'.')
}

/// HMAC-SHA256 (RFC 2104) over the parts, one after another.
fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(part);
    }
    mac
}

/// A header value from text that is ASCII by construction, without a copy.
fn header_value(ascii: impl Into<Bytes>) -> HeaderValue {
    HeaderValue::from_maybe_shared(ascii.into())
        .expect("base64, hex, digits, separators and checked identities are valid in a header")
}
