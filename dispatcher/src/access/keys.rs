//! The public keys of an issuer: a JSON Web Key Set (RFC 7517), of which only what verifies is kept.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use dispatcher_core::limits::{JWKS_BYTES_MAX, JWKS_KEYS_MAX};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::error::AccessError;

/// Sizes of an RSA modulus that verification takes, in bytes: 2048 to 8192 bits.
const RSA_MODULUS_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;
/// Bytes of a coordinate on P-256, and of an Ed25519 key.
const CURVE_BYTES: usize = 32;

/// The keys of an issuer that verify signatures.
#[derive(Clone)]
pub struct KeySet {
    keys: Vec<Key>,
    /// Over all keys: two sets are the same if it is.
    digest: [u8; 32],
}

#[derive(Clone)]
struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    verifier: DecodingKey,
}

/// Why a set of keys cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// It is larger than one may be.
    #[error("it has more than {JWKS_BYTES_MAX} bytes")]
    TooLarge,
    /// It is no JSON Web Key Set.
    #[error("it is not a JSON Web Key Set, an object with an array `keys`: {0}")]
    Malformed(String),
    /// It holds more keys than one may.
    #[error("it holds more than {JWKS_KEYS_MAX} keys")]
    TooManyKeys,
    /// A key in it is private.
    #[error("it holds a private key: publish the public one alone, and replace the pair")]
    Private,
    /// No key in it can verify.
    #[error(
        "it holds no key that can be used: they are RSA keys of 2048 to 8192 bits, EC keys on P-256 and OKP keys on \
         Ed25519, for signatures"
    )]
    NoUsableKey,
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Value>,
}

/// A key (RFC 7517, 4; RFC 7518, 6; RFC 8037, 2). Members that say nothing about verification are not looked at.
#[derive(Deserialize)]
struct Member {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    /// Only a private key has it.
    d: Option<IgnoredAny>,
}

impl KeySet {
    /// Reads a set. Keys of other kinds and for other purposes are passed over, as the standard demands (RFC 7517, 5); of
    /// two keys with one name and algorithm, the first counts.
    ///
    /// # Errors
    /// [`KeySetError`].
    pub fn read(jwks: &[u8]) -> Result<Self, KeySetError> {
        if jwks.len() > JWKS_BYTES_MAX {
            return Err(KeySetError::TooLarge);
        }
        let set: Set = serde_json::from_slice(jwks).map_err(|error| KeySetError::Malformed(error.to_string()))?;
        if set.keys.len() > JWKS_KEYS_MAX {
            return Err(KeySetError::TooManyKeys);
        }
        let mut keys: Vec<Key> = Vec::new();
        let mut digest = Sha256::new();
        for member in set.keys.into_iter().filter_map(|key| serde_json::from_value::<Member>(key).ok()) {
            if member.d.is_some() {
                return Err(KeySetError::Private);
            }
            let Some((algorithm, verifier, material)) = member.verifying_key() else { continue };
            if keys.iter().any(|known| known.algorithm == algorithm && known.id == member.kid) {
                continue;
            }
            for part in [member.kid.as_deref().unwrap_or_default(), material.as_str()] {
                digest.update((part.len() as u64).to_be_bytes());
                digest.update(part);
            }
            keys.push(Key { id: member.kid, algorithm, verifier });
        }
        if keys.is_empty() {
            Err(KeySetError::NoUsableKey)
        } else {
            Ok(Self { keys, digest: digest.finalize().into() })
        }
    }

    /// The key that a token is to be verified by. One that names none can only mean the only one.
    pub(super) fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Result<&DecodingKey, AccessError> {
        let found = match (id, &self.keys[..]) {
            (Some(id), keys) => keys.iter().find(|key| key.algorithm == algorithm && key.id.as_deref() == Some(id)),
            (None, [only]) => Some(only).filter(|key| key.algorithm == algorithm),
            (None, _) => return Err(AccessError::AmbiguousKey),
        };
        found.map(|key| &key.verifier).ok_or(AccessError::UnknownKey)
    }
}

impl Member {
    /// The algorithm that the key is for, the key, and what it was made of. An algorithm belongs to a kind of key, so
    /// that no token can choose another one for it.
    fn verifying_key(&self) -> Option<(Algorithm, DecodingKey, String)> {
        let verifies = self.usage.as_deref().is_none_or(|usage| usage == "sig")
            && self.key_ops.as_ref().is_none_or(|operations| operations.iter().any(|name| name == "verify"));
        let (algorithm, name) = match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => (Algorithm::RS256, "RS256"),
            ("EC", Some("P-256")) => (Algorithm::ES256, "ES256"),
            ("OKP", Some("Ed25519")) => (Algorithm::EdDSA, "EdDSA"),
            _ => return None,
        };
        let is_for = |alg: &str| alg == name || (alg == "Ed25519" && algorithm == Algorithm::EdDSA);
        if !verifies || !self.alg.as_deref().is_none_or(is_for) {
            return None;
        }
        let decoded = |value: &Option<String>| BASE64URL.decode(value.as_deref()?).ok();
        let (key, material) = match algorithm {
            Algorithm::RS256 => {
                let (n, e) = (decoded(&self.n)?, decoded(&self.e)?);
                let modulus_bytes = n.iter().skip_while(|byte| **byte == 0).count();
                if !RSA_MODULUS_BYTES.contains(&modulus_bytes) {
                    return None;
                }
                (DecodingKey::from_rsa_raw_components(&n, &e), [self.n.as_deref()?, self.e.as_deref()?])
            }
            Algorithm::ES256 => {
                let (x, y) = (self.x.as_deref()?, self.y.as_deref()?);
                if decoded(&self.x)?.len() != CURVE_BYTES || decoded(&self.y)?.len() != CURVE_BYTES {
                    return None;
                }
                (DecodingKey::from_ec_components(x, y).ok()?, [x, y])
            }
            _ => {
                let x = self.x.as_deref()?;
                if decoded(&self.x)?.len() != CURVE_BYTES {
                    return None;
                }
                (DecodingKey::from_ed_components(x).ok()?, [x, ""])
            }
        };
        Some((algorithm, key, format!("{name} {}", material.join(" "))))
    }
}

impl PartialEq for KeySet {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for KeySet {}

/// Public keys are no secret, and of no interest either.
impl fmt::Debug for KeySet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("KeySet").field("count", &self.keys.len()).finish_non_exhaustive()
    }
}
