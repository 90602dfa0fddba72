//! Signature headers in the style of others, for receivers that exist already. All are HMAC-SHA256, in hex.

use hmac::Mac;
use http::{HeaderName, HeaderValue};

use super::{Request, WEBHOOK_ID, header_value, hmac_sha256};

pub(super) const HARBORHOOK_SIGNATURE: HeaderName = HeaderName::from_static("x-harborhook-signature");
pub(super) const HARBORHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("x-harborhook-timestamp");
const TRACE_ID: HeaderName = HeaderName::from_static("x-trace-id");
pub(super) const GITHUB_SIGNATURE: HeaderName = HeaderName::from_static("x-hub-signature-256");
const GITHUB_DELIVERY: HeaderName = HeaderName::from_static("x-github-delivery");
pub(super) const STRIPE_SIGNATURE: HeaderName = HeaderName::from_static("stripe-signature");

/// Before the hex in the HarborHook and GitHub schemes.
pub(super) const SHA256_PREFIX: &str = "sha256=";
const HEX_BYTES: usize = 64;

/// `X-HarborHook-Signature: sha256=hex(HMAC(body || timestamp))`; `X-Trace-Id` is the message's identity.
pub(super) fn sign_harborhook(request: Request<'_>, key: &[u8]) -> Vec<(HeaderName, HeaderValue)> {
    let signature = prefixed_hex(key, &[request.body, request.timestamp.as_bytes()]);
    vec![
        (WEBHOOK_ID, request.id.clone()),
        (TRACE_ID, request.id),
        (HARBORHOOK_TIMESTAMP, request.timestamp),
        (HARBORHOOK_SIGNATURE, signature),
    ]
}

/// `X-Hub-Signature-256: sha256=hex(HMAC(body))`
/// (<https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries>). No time is signed.
pub(super) fn sign_github(request: Request<'_>, key: &[u8]) -> Vec<(HeaderName, HeaderValue)> {
    let signature = prefixed_hex(key, &[request.body]);
    vec![(WEBHOOK_ID, request.id.clone()), (GITHUB_DELIVERY, request.id), (GITHUB_SIGNATURE, signature)]
}

/// `Stripe-Signature: t=timestamp,v1=hex(HMAC(timestamp.body)),v1=…` (<https://docs.stripe.com/webhooks#verify-manually>).
pub(super) fn sign_stripe<'a>(
    request: Request<'_>,
    newest: &'a [u8],
    older: impl Iterator<Item = &'a [u8]>,
) -> Vec<(HeaderName, HeaderValue)> {
    let timestamp = request.timestamp.as_bytes();
    let mut value = Vec::with_capacity("t=".len() + timestamp.len() + ",v1=".len() + HEX_BYTES);
    value.extend_from_slice(b"t=");
    value.extend_from_slice(timestamp);
    for key in std::iter::once(newest).chain(older) {
        value.extend_from_slice(b",v1=");
        push_hex(&mut value, key, &stripe_parts(timestamp, request.body));
    }
    vec![(WEBHOOK_ID, request.id), (STRIPE_SIGNATURE, header_value(value))]
}

/// The pieces of `timestamp.body`.
pub(super) fn stripe_parts<'a>(timestamp: &'a [u8], body: &'a [u8]) -> [&'a [u8]; 3] {
    [timestamp, b".", body]
}

/// Whether the hex is the key's. The comparison takes the same time wherever they differ.
pub(super) fn hex_matches(key: &[u8], parts: &[&[u8]], hex_signature: &[u8]) -> bool {
    let mut signature = [0; HEX_BYTES / 2];
    hex::decode_to_slice(hex_signature, &mut signature).is_ok()
        && hmac_sha256(key, parts).verify_slice(&signature).is_ok()
}

fn prefixed_hex(key: &[u8], parts: &[&[u8]]) -> HeaderValue {
    let mut value = Vec::with_capacity(SHA256_PREFIX.len() + HEX_BYTES);
    value.extend_from_slice(SHA256_PREFIX.as_bytes());
    push_hex(&mut value, key, parts);
    header_value(value)
}

fn push_hex(value: &mut Vec<u8>, key: &[u8], parts: &[&[u8]]) {
    let start = value.len();
    value.resize(start + HEX_BYTES, 0);
    hex::encode_to_slice(hmac_sha256(key, parts).finalize().into_bytes(), &mut value[start..])
        .expect("the space was made for it");
}
