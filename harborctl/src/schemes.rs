//! Signing schemes as a person names them, and as a request's headers show them.

use clap::ValueEnum;
use dispatcher_core::sign::{VerifyingKey, WEBHOOK_ID};
use dispatcher_core::table::SigningScheme;
use hyper::HeaderMap;

/// A signing scheme by its name on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scheme {
    /// Standard Webhooks 1.0, v1: HMAC-SHA256
    StandardWebhooks,
    /// Standard Webhooks 1.0, v1a: Ed25519
    StandardWebhooksEd25519,
    /// X-HarborHook-Signature and X-HarborHook-Timestamp
    #[value(name = "harborhook")]
    HarborHook,
    /// X-Hub-Signature-256
    #[value(name = "github")]
    GitHub,
    /// Stripe-Signature
    Stripe,
}

impl From<Scheme> for SigningScheme {
    fn from(scheme: Scheme) -> Self {
        match scheme {
            Scheme::StandardWebhooks => Self::StandardWebhooks,
            Scheme::StandardWebhooksEd25519 => Self::StandardWebhooksEd25519,
            Scheme::HarborHook => Self::HarborHook,
            Scheme::GitHub => Self::GitHub,
            Scheme::Stripe => Self::Stripe,
        }
    }
}

/// The scheme that a request's headers show, to be verified with a key of this kind.
pub(crate) fn detect(headers: &HeaderMap, key: Option<&VerifyingKey>) -> Option<SigningScheme> {
    if headers.contains_key("webhook-signature") {
        return Some(match key {
            Some(VerifyingKey::Ed25519(_)) => SigningScheme::StandardWebhooksEd25519,
            _ => SigningScheme::StandardWebhooks,
        });
    }
    [
        ("x-harborhook-signature", SigningScheme::HarborHook),
        ("x-hub-signature-256", SigningScheme::GitHub),
        ("stripe-signature", SigningScheme::Stripe),
    ]
    .into_iter()
    .find_map(|(name, scheme)| headers.contains_key(name).then_some(scheme))
}

/// The identity that the sender gave the message.
pub(crate) fn message_id(headers: &HeaderMap) -> Option<String> {
    headers.get(WEBHOOK_ID).and_then(|value| value.to_str().ok()).map(str::to_owned)
}
