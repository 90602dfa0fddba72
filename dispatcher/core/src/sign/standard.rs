//! Standard Webhooks 1.0 (<https://www.standardwebhooks.com>): `v1` is HMAC-SHA256, `v1a` is Ed25519, both over
//! `id.timestamp.body`.

use std::io::Write as _;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use hmac::Mac;
use http::{HeaderName, HeaderValue};

use super::keys::ed25519_key_pair;
use super::{Message, Request, SignError, WEBHOOK_ID, header_value, hmac_sha256};

pub(super) const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
pub(super) const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

const HMAC_PREFIX: &str = "v1,";
const ED25519_PREFIX: &str = "v1a,";
const HMAC_SIGNATURE_BYTES: usize = 32;
const ED25519_SIGNATURE_BYTES: usize = 64;
/// Most digits of an `i64` and its sign.
const TIMESTAMP_BYTES_MAX: usize = 20;

/// The three values share one piece of memory: every delivery is signed, and most by this.
pub(super) fn sign_hmac<'a>(
    message: &Message<'_>,
    newest: &'a [u8],
    older: impl Iterator<Item = &'a [u8]>,
) -> Vec<(HeaderName, HeaderValue)> {
    let signature_bytes = HMAC_PREFIX.len() + base64_bytes(HMAC_SIGNATURE_BYTES);
    let mut text = Vec::with_capacity(message.id.len() + TIMESTAMP_BYTES_MAX + signature_bytes);
    text.extend_from_slice(message.id.as_bytes());
    write!(text, "{}", message.unix_seconds).expect("memory takes what is written");
    let (id, timestamp) = (0..message.id.len(), message.id.len()..text.len());
    let start = text.len();
    for key in std::iter::once(newest).chain(older) {
        let parts = signed_parts(&text[id.clone()], &text[timestamp.clone()], message.body);
        let signature = hmac_sha256(key, &parts).finalize().into_bytes();
        if text.len() > start {
            text.push(b' ');
        }
        push_signature(&mut text, HMAC_PREFIX, &signature);
    }
    let text = Bytes::from(text);
    vec![
        (WEBHOOK_ID, header_value(text.slice(id))),
        (WEBHOOK_TIMESTAMP, header_value(text.slice(timestamp))),
        (WEBHOOK_SIGNATURE, header_value(text.slice(start..))),
    ]
}

pub(super) fn sign_ed25519<'a>(
    request: Request<'_>,
    newest: &'a [u8],
    older: impl Iterator<Item = &'a [u8]>,
) -> Result<Vec<(HeaderName, HeaderValue)>, SignError> {
    let text = signed_parts(request.id.as_bytes(), request.timestamp.as_bytes(), request.body).concat();
    let mut signatures = Vec::with_capacity(ED25519_PREFIX.len() + base64_bytes(ED25519_SIGNATURE_BYTES));
    for key in std::iter::once(newest).chain(older) {
        let pair: Ed25519KeyPair = ed25519_key_pair(key)?;
        if !signatures.is_empty() {
            signatures.push(b' ');
        }
        push_signature(&mut signatures, ED25519_PREFIX, pair.sign(&text).as_ref());
    }
    Ok(vec![
        (WEBHOOK_ID, request.id),
        (WEBHOOK_TIMESTAMP, request.timestamp),
        (WEBHOOK_SIGNATURE, header_value(signatures)),
    ])
}

/// Whether the signature (`v1,…`) is the key's. The comparison takes the same time wherever they differ.
pub(super) fn hmac_matches(key: &[u8], parts: &[&[u8]], signature: &[u8]) -> bool {
    decode::<HMAC_SIGNATURE_BYTES>(HMAC_PREFIX, signature)
        .is_some_and(|signature| hmac_sha256(key, parts).verify_slice(&signature).is_ok())
}

/// Whether the signature (`v1a,…`) over the text was made by the holder of the public key.
pub(super) fn ed25519_matches(public_key: &[u8; 32], text: &[u8], signature: &[u8]) -> bool {
    decode::<ED25519_SIGNATURE_BYTES>(ED25519_PREFIX, signature)
        .is_some_and(|signature| UnparsedPublicKey::new(&ED25519, public_key).verify(text, &signature).is_ok())
}

/// The pieces of `id.timestamp.body`.
pub(super) fn signed_parts<'a>(id: &'a [u8], timestamp: &'a [u8], body: &'a [u8]) -> [&'a [u8]; 5] {
    [id, b".", timestamp, b".", body]
}

fn decode<const LENGTH: usize>(prefix: &str, signature: &[u8]) -> Option<[u8; LENGTH]> {
    let encoded = signature.strip_prefix(prefix.as_bytes())?;
    BASE64.decode(encoded).ok()?.try_into().ok()
}

fn push_signature(signatures: &mut Vec<u8>, prefix: &str, signature: &[u8]) {
    signatures.extend_from_slice(prefix.as_bytes());
    let start = signatures.len();
    signatures.resize(start + base64_bytes(signature.len()), 0);
    BASE64.encode_slice(signature, &mut signatures[start..]).expect("the space was made for it");
}

const fn base64_bytes(length: usize) -> usize {
    length.div_ceil(3) * 4
}
