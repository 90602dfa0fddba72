//! Verifying a request, as a receiver does.

use http::{HeaderMap, HeaderName};

use super::compatible::{
    GITHUB_SIGNATURE, HARBORHOOK_SIGNATURE, HARBORHOOK_TIMESTAMP, SHA256_PREFIX, STRIPE_SIGNATURE, hex_matches,
    stripe_parts,
};
use super::standard::{WEBHOOK_SIGNATURE, WEBHOOK_TIMESTAMP, ed25519_matches, hmac_matches, signed_parts};
use super::{VerifyingKey, WEBHOOK_ID};
use crate::limits::SIGNATURES_MAX;
use crate::table::SigningScheme;

/// Why a request did not verify.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum VerifyError {
    /// A header that the scheme needs is not there.
    #[error("the header {0} is missing: is it this scheme that the request was signed with?")]
    MissingHeader(HeaderName),
    /// A header is there several times, and which one counts would be a guess.
    #[error("the header {0} is there more than once")]
    RepeatedHeader(HeaderName),
    /// A header's value has another form than the scheme's.
    #[error("the header {0} does not have this scheme's form")]
    MalformedHeader(HeaderName),
    /// Signed too long ago: perhaps somebody recorded it and sends it again.
    #[error("the request was signed {age_seconds} seconds ago, which is more than the tolerance")]
    TooOld {
        /// Its age, in seconds.
        age_seconds: i64,
    },
    /// Signed in the future: one of the two clocks is wrong.
    #[error("the request was signed {ahead_seconds} seconds in the future, which is more than the tolerance")]
    TooNew {
        /// How far ahead, in seconds.
        ahead_seconds: i64,
    },
    /// No key fits the scheme.
    #[error("there is no key of the kind that this scheme verifies with")]
    NoKey,
    /// No signature was made with any of the keys over this body.
    #[error("no signature fits: the key is another, or the body or a signed header was changed on the way")]
    NoMatch,
}

impl VerifyError {
    /// A stable name for logs and metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::MissingHeader(_) => "missing_header",
            Self::RepeatedHeader(_) => "repeated_header",
            Self::MalformedHeader(_) => "malformed_header",
            Self::TooOld { .. } => "too_old",
            Self::TooNew { .. } => "too_new",
            Self::NoKey => "no_key",
            Self::NoMatch => "no_match",
        }
    }
}

/// Verifies a request: one of its signatures must be one of the keys'.
///
/// The time it was signed at may differ from `now_unix_seconds` (seconds since the Unix epoch) by
/// `tolerance_seconds` either way; the GitHub scheme signs no time. Keys of the other kind than the scheme's are
/// ignored. Comparisons take constant time; of a list of signatures the first [`SIGNATURES_MAX`] are looked at.
pub fn verify(
    scheme: SigningScheme,
    keys: &[VerifyingKey],
    headers: &HeaderMap,
    body: &[u8],
    now_unix_seconds: i64,
    tolerance_seconds: u32,
) -> Result<(), VerifyError> {
    let clock = Clock { now_unix_seconds, tolerance_seconds: tolerance_seconds.into() };
    let matches = match scheme {
        SigningScheme::StandardWebhooks => {
            let (keys, signed) = (hmac_keys(keys)?, Standard::read(headers, body, clock)?);
            signed.signatures().any(|signature| keys.iter().any(|key| hmac_matches(key, &signed.parts, signature)))
        }
        SigningScheme::StandardWebhooksEd25519 => {
            let (keys, signed) = (ed25519_keys(keys)?, Standard::read(headers, body, clock)?);
            let text = signed.parts.concat();
            signed.signatures().any(|signature| keys.iter().any(|key| ed25519_matches(key, &text, signature)))
        }
        SigningScheme::HarborHook => {
            let (keys, timestamp) = (hmac_keys(keys)?, header(headers, HARBORHOOK_TIMESTAMP)?);
            clock.check(timestamp, HARBORHOOK_TIMESTAMP)?;
            let signature = prefixed_hex(headers, HARBORHOOK_SIGNATURE)?;
            keys.iter().any(|key| hex_matches(key, &[body, timestamp], signature))
        }
        SigningScheme::GitHub => {
            let (keys, signature) = (hmac_keys(keys)?, prefixed_hex(headers, GITHUB_SIGNATURE)?);
            keys.iter().any(|key| hex_matches(key, &[body], signature))
        }
        SigningScheme::Stripe => {
            let (keys, value) = (hmac_keys(keys)?, header(headers, STRIPE_SIGNATURE)?);
            let timestamp = stripe_fields(value, b"t=").next().ok_or(VerifyError::MalformedHeader(STRIPE_SIGNATURE))?;
            clock.check(timestamp, STRIPE_SIGNATURE)?;
            let parts = stripe_parts(timestamp, body);
            let mut signatures = stripe_fields(value, b"v1=").take(SIGNATURES_MAX);
            signatures.any(|signature| keys.iter().any(|key| hex_matches(key, &parts, signature)))
        }
    };
    if matches { Ok(()) } else { Err(VerifyError::NoMatch) }
}

/// What both Standard Webhooks schemes read from a request.
struct Standard<'a> {
    parts: [&'a [u8]; 5],
    signature_list: &'a [u8],
}

impl<'a> Standard<'a> {
    fn read(headers: &'a HeaderMap, body: &'a [u8], clock: Clock) -> Result<Self, VerifyError> {
        let (id, timestamp) = (header(headers, WEBHOOK_ID)?, header(headers, WEBHOOK_TIMESTAMP)?);
        clock.check(timestamp, WEBHOOK_TIMESTAMP)?;
        let signature_list = header(headers, WEBHOOK_SIGNATURE)?;
        Ok(Self { parts: signed_parts(id, timestamp, body), signature_list })
    }

    fn signatures(&self) -> impl Iterator<Item = &'a [u8]> {
        self.signature_list.split(|byte| *byte == b' ').take(SIGNATURES_MAX)
    }
}

fn prefixed_hex(headers: &HeaderMap, name: HeaderName) -> Result<&[u8], VerifyError> {
    let value = header(headers, name.clone())?;
    value.strip_prefix(SHA256_PREFIX.as_bytes()).ok_or(VerifyError::MalformedHeader(name))
}

fn stripe_fields<'a>(value: &'a [u8], prefix: &'static [u8]) -> impl Iterator<Item = &'a [u8]> {
    value.split(|byte| *byte == b',').filter_map(move |field| field.strip_prefix(prefix))
}

fn hmac_keys(keys: &[VerifyingKey]) -> Result<Vec<&[u8]>, VerifyError> {
    let keys = keys.iter().filter_map(|key| match key {
        VerifyingKey::Hmac(key) => Some(key.expose().0.as_slice()),
        VerifyingKey::Ed25519(_) => None,
    });
    some_key(keys.collect())
}

fn ed25519_keys(keys: &[VerifyingKey]) -> Result<Vec<&[u8; 32]>, VerifyError> {
    let keys = keys.iter().filter_map(|key| match key {
        VerifyingKey::Hmac(_) => None,
        VerifyingKey::Ed25519(key) => Some(key),
    });
    some_key(keys.collect())
}

fn some_key<T>(keys: Vec<T>) -> Result<Vec<T>, VerifyError> {
    if keys.is_empty() { Err(VerifyError::NoKey) } else { Ok(keys) }
}

fn header(headers: &HeaderMap, name: HeaderName) -> Result<&[u8], VerifyError> {
    let mut values = headers.get_all(&name).iter();
    let value = values.next().ok_or_else(|| VerifyError::MissingHeader(name.clone()))?;
    if values.next().is_some() {
        return Err(VerifyError::RepeatedHeader(name));
    }
    Ok(value.as_bytes())
}

#[derive(Clone, Copy)]
struct Clock {
    now_unix_seconds: i64,
    tolerance_seconds: i64,
}

impl Clock {
    fn check(self, timestamp: &[u8], name: HeaderName) -> Result<(), VerifyError> {
        let signed_at: i64 = std::str::from_utf8(timestamp)
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or(VerifyError::MalformedHeader(name))?;
        let age_seconds = self.now_unix_seconds.saturating_sub(signed_at);
        if age_seconds > self.tolerance_seconds {
            return Err(VerifyError::TooOld { age_seconds });
        }
        if age_seconds < -self.tolerance_seconds {
            return Err(VerifyError::TooNew { ahead_seconds: age_seconds.saturating_neg() });
        }
        Ok(())
    }
}
