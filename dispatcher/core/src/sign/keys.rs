//! Keys: how they are written, and which the schemes take.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use zeroize::Zeroizing;

use crate::limits::{SIGNING_KEY_BYTES_MAX, SIGNING_KEY_BYTES_MIN};
use crate::redacted::Redacted;
use crate::table::{KeyBytes, SigningKey, SigningScheme};

const HMAC_KEY_PREFIX: &[u8] = b"whsec_";
const PRIVATE_KEY_PREFIX: &[u8] = b"whsk_";
const PUBLIC_KEY_PREFIX: &str = "whpk_";
const SEED_BYTES: usize = 32;
const PUBLIC_KEY_BYTES: usize = 32;

/// What is wrong with a key. Says nothing about its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum KeyError {
    /// After the prefix there is no base64.
    #[error("what follows {prefix} must be standard base64 with padding")]
    NotBase64 {
        /// The prefix of the value.
        prefix: &'static str,
    },
    /// Easily guessed.
    #[error("the key has {0} bytes, but needs at least {SIGNING_KEY_BYTES_MIN}")]
    TooShort(usize),
    /// Longer than makes sense.
    #[error("the key has {0} bytes, but may have at most {SIGNING_KEY_BYTES_MAX}")]
    TooLong(usize),
    /// Not an Ed25519 key.
    #[error(
        "an Ed25519 key must be a seed of 32 bytes (or 64: the seed and its public key), written as whsk_ and base64"
    )]
    NotEd25519,
    /// A private key where receivers must hold the same key.
    #[error(
        "this scheme signs with a key that receivers hold too, and whsk_ is an Ed25519 private key, which must stay \
         with the sender: give a key written as whsec_ and base64, or as plain text"
    )]
    PrivateKeyForHmac,
    /// A key that receivers may hold where only the sender may have it.
    #[error(
        "this scheme signs with an Ed25519 private key, written as whsk_ and base64; any other value may be known to \
         receivers already, so it must not become one"
    )]
    SharedKeyForEd25519,
    /// Not an Ed25519 public key.
    #[error("an Ed25519 public key must have 32 bytes, written as whpk_ and base64")]
    NotPublicKey,
}

impl KeyError {
    /// A stable name for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotBase64 { .. } => "key_not_base64",
            Self::TooShort(_) => "key_too_short",
            Self::TooLong(_) => "key_too_long",
            Self::NotEd25519 => "key_not_ed25519",
            Self::PrivateKeyForHmac => "key_private_for_hmac",
            Self::SharedKeyForEd25519 => "key_shared_for_ed25519",
            Self::NotPublicKey => "key_not_public",
        }
    }
}

/// What a key is for, as far as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// `whsec_`: shared with receivers.
    Hmac,
    /// `whsk_`: a private key, of which receivers get the public half.
    Ed25519,
    /// Without a prefix: shared with receivers, since nothing says that it is private.
    Raw,
}

/// A key that was read, with what it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParsedKey {
    /// How it was written.
    pub kind: KeyKind,
    /// The key, or the seed of a private key.
    pub bytes: Redacted<KeyBytes>,
}

impl ParsedKey {
    /// The key for signing in a scheme. One of the other kind is refused: a private key would come into the hands of
    /// receivers, or receivers would hold a private key.
    pub fn for_scheme(self, scheme: SigningScheme) -> Result<Redacted<KeyBytes>, KeyError> {
        match (self.kind == KeyKind::Ed25519, scheme == SigningScheme::StandardWebhooksEd25519) {
            (true, false) => Err(KeyError::PrivateKeyForHmac),
            (false, true) => Err(KeyError::SharedKeyForEd25519),
            (true, true) | (false, false) => Ok(self.bytes),
        }
    }
}

/// Reads a key from a Secret's value.
///
/// `whsec_` and base64 is an HMAC key, `whsk_` and base64 an Ed25519 seed (alone, or followed by its public key);
/// white space at the end of these two forms is ignored. Any other value is the key's bytes as they are.
pub fn parse_key(secret_value: &[u8]) -> Result<ParsedKey, KeyError> {
    if let Some(encoded) = secret_value.strip_prefix(PRIVATE_KEY_PREFIX) {
        let bytes = decode(encoded, "whsk_")?;
        let seed = ed25519_seed(&bytes)?;
        return Ok(ParsedKey { kind: KeyKind::Ed25519, bytes: Redacted::new(KeyBytes(seed.to_vec())) });
    }
    let (kind, bytes) = match secret_value.strip_prefix(HMAC_KEY_PREFIX) {
        Some(encoded) => (KeyKind::Hmac, decode(encoded, "whsec_")?),
        None => (KeyKind::Raw, Zeroizing::new(secret_value.to_vec())),
    };
    match bytes.len() {
        length if length < SIGNING_KEY_BYTES_MIN => Err(KeyError::TooShort(length)),
        length if length > SIGNING_KEY_BYTES_MAX => Err(KeyError::TooLong(length)),
        _ => Ok(ParsedKey { kind, bytes: Redacted::new(KeyBytes(bytes.to_vec())) }),
    }
}

/// The public key of an Ed25519 signing key, written as `whpk_` and base64: what receivers verify `v1a` with.
pub fn public_key(key: &SigningKey) -> Result<String, KeyError> {
    let pair = ed25519_key_pair(&key.bytes.expose().0)?;
    Ok(format!("{PUBLIC_KEY_PREFIX}{}", BASE64.encode(pair.public_key())))
}

/// A key that verifies signatures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VerifyingKey {
    /// The shared key of every HMAC scheme.
    Hmac(Redacted<KeyBytes>),
    /// An Ed25519 public key.
    Ed25519([u8; PUBLIC_KEY_BYTES]),
}

impl VerifyingKey {
    /// Reads `whpk_` and base64 as an Ed25519 public key, `whsk_` as the private key that it belongs to, and
    /// anything else as [`parse_key`] does.
    pub fn parse(value: &[u8]) -> Result<Self, KeyError> {
        if let Some(encoded) = value.strip_prefix(PUBLIC_KEY_PREFIX.as_bytes()) {
            let bytes = decode(encoded, PUBLIC_KEY_PREFIX)?;
            return bytes.as_slice().try_into().map(Self::Ed25519).map_err(|_| KeyError::NotPublicKey);
        }
        let key = parse_key(value)?;
        if key.kind != KeyKind::Ed25519 {
            return Ok(Self::Hmac(key.bytes));
        }
        let pair = ed25519_key_pair(&key.bytes.expose().0)?;
        pair.public_key().as_ref().try_into().map(Self::Ed25519).map_err(|_| KeyError::NotPublicKey)
    }
}

/// The key pair of a seed.
pub(super) fn ed25519_key_pair(seed: &[u8]) -> Result<Ed25519KeyPair, KeyError> {
    // Without a public key at hand there is nothing to check the seed against.
    Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| KeyError::NotEd25519)
}

/// The seed of a written private key, whose public half, if it is there, must be the right one.
fn ed25519_seed(bytes: &[u8]) -> Result<&[u8], KeyError> {
    let (seed, public_key) = bytes.split_at_checked(SEED_BYTES).ok_or(KeyError::NotEd25519)?;
    if !public_key.is_empty() {
        Ed25519KeyPair::from_seed_and_public_key(seed, public_key).map_err(|_| KeyError::NotEd25519)?;
    }
    Ok(seed)
}

fn decode(encoded: &[u8], prefix: &'static str) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    BASE64.decode(encoded.trim_ascii_end()).map(Zeroizing::new).map_err(|_| KeyError::NotBase64 { prefix })
}
