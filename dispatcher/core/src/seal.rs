//! Sealing what must never stand in the ledger in plain text: AES-256-GCM with a derived nonce.
//!
//! The envelope is `version (1 byte) || nonce (12) || ciphertext || tag (16)`, base64. The nonce is derived from
//! the endpoint and the plain text, as in SIV constructions (RFC 5297, 1): the same secrets seal to the same
//! text, so a plan can tell that nothing changed, and a nonce repeats only together with its message.

mod plain;
#[cfg(test)]
mod tests;

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, MAX_TAG_LEN, NONCE_LEN, Nonce, UnboundKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use self::plain::{PlainIn, PlainOut};
use crate::id::EndpointId;
use crate::table::{EndpointSecrets, Sealed};

/// First byte of every envelope; another construction gets another number.
const VERSION: u8 = 1;
const HEADER_BYTES: usize = 1 + NONCE_LEN;
const ENCRYPTION_PURPOSE: &[u8] = b"harborhook seal v1: encryption";
const NONCE_PURPOSE: &[u8] = b"harborhook seal v1: nonce";

/// Why something sealed could not be opened. Says nothing about what is inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum SealError {
    /// It is no envelope: not base64, or too short.
    #[error("the sealed secrets are damaged: apply the endpoint again to seal them anew")]
    Malformed,
    /// The envelope's version is not one that this program knows.
    #[error("the sealed secrets have version {0}, which this program does not know: upgrade it")]
    UnknownVersion(u8),
    /// It was sealed with another key or for another endpoint, or somebody changed it.
    #[error(
        "the sealed secrets do not open: use the sealing key that they were sealed with, or apply the endpoint again"
    )]
    NotAuthentic,
}

impl SealError {
    /// A stable name for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::UnknownVersion(_) => "unknown_version",
            Self::NotAuthentic => "not_authentic",
        }
    }
}

/// The keys that seal endpoint secrets: the first seals, and each opens what it sealed. Both planes hold them; the
/// ledger never does.
///
/// To change the key, first let everybody open with the new one, then let it seal, and take the old one away when nothing
/// is sealed with it any more.
#[derive(Debug)]
pub struct SealingKey {
    first: Key,
    others: Vec<Key>,
}

/// Secrets that were opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The secrets.
    pub secrets: EndpointSecrets,
    /// Whether another key than the first had sealed them, so that it is still needed.
    pub is_by_other: bool,
}

/// One key.
struct Key {
    encryption: LessSafeKey,
    nonce: Hmac<Sha256>,
}

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[redacted]")
    }
}

impl SealingKey {
    /// A key made from 32 random bytes, which seals and opens.
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self { first: Key::from_bytes(bytes), others: Vec::new() }
    }

    /// Opens with a further key too, which does not seal.
    #[must_use]
    pub fn opening_with(mut self, bytes: &[u8; 32]) -> Self {
        self.others.push(Key::from_bytes(bytes));
        self
    }

    /// Seals an endpoint's secrets for this endpoint alone. The same secrets give the same text.
    pub fn seal(&self, endpoint: EndpointId, secrets: &EndpointSecrets) -> Sealed {
        let plain = Zeroizing::new(
            serde_json::to_vec(&PlainOut::from(secrets)).expect("strings, numbers and lists always serialise"),
        );
        self.first.seal(endpoint, &plain)
    }

    /// Opens what was sealed for this endpoint.
    ///
    /// # Errors
    /// [`SealError`] if none of the keys opens it.
    pub fn open(&self, endpoint: EndpointId, sealed: &Sealed) -> Result<EndpointSecrets, SealError> {
        self.open_noting(endpoint, sealed).map(|opened| opened.secrets)
    }

    /// The same, with whether another key than the first is needed for it.
    ///
    /// # Errors
    /// [`SealError`] if none of the keys opens it.
    pub fn open_noting(&self, endpoint: EndpointId, sealed: &Sealed) -> Result<Opened, SealError> {
        let by_first = self.first.open(endpoint, sealed);
        let by_other = |error: SealError| {
            let opened = self.others.iter().find_map(|key| key.open(endpoint, sealed).ok());
            opened.map(|secrets| Opened { secrets, is_by_other: true }).ok_or(error)
        };
        by_first.map(|secrets| Opened { secrets, is_by_other: false }).or_else(by_other)
    }

    /// What another key than the first had sealed, sealed with the first; `None` if that is how it is sealed, or if no
    /// key opens it.
    pub fn renew(&self, endpoint: EndpointId, sealed: &Sealed) -> Option<Sealed> {
        let opened = self.open_noting(endpoint, sealed).ok().filter(|opened| opened.is_by_other)?;
        Some(self.seal(endpoint, &opened.secrets))
    }
}

impl Key {
    /// Derives the keys for encryption and for nonces from 32 random bytes.
    fn from_bytes(bytes: &[u8; 32]) -> Self {
        let encryption = Zeroizing::new(derive(bytes, ENCRYPTION_PURPOSE));
        let nonce = Zeroizing::new(derive(bytes, NONCE_PURPOSE));
        let unbound = UnboundKey::new(&AES_256_GCM, encryption.as_slice()).expect("AES-256 takes any key of 32 bytes");
        Self { encryption: LessSafeKey::new(unbound), nonce: hmac(nonce.as_slice()) }
    }

    fn seal(&self, endpoint: EndpointId, plain: &[u8]) -> Sealed {
        let mut nonce_mac = self.nonce.clone();
        nonce_mac.update(endpoint.0.as_bytes());
        nonce_mac.update(plain);
        let mut nonce = [0; NONCE_LEN];
        nonce.copy_from_slice(&nonce_mac.finalize().into_bytes()[..NONCE_LEN]);

        let mut envelope = Vec::with_capacity(HEADER_BYTES + plain.len() + MAX_TAG_LEN);
        envelope.push(VERSION);
        envelope.extend_from_slice(&nonce);
        envelope.extend_from_slice(plain);
        let tag = self
            .encryption
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                associated_data(endpoint),
                &mut envelope[HEADER_BYTES..],
            )
            .expect("a resource is far smaller than what AES-GCM can seal");
        envelope.extend_from_slice(tag.as_ref());
        Sealed(BASE64.encode(envelope))
    }

    fn open(&self, endpoint: EndpointId, sealed: &Sealed) -> Result<EndpointSecrets, SealError> {
        let mut envelope = Zeroizing::new(BASE64.decode(&sealed.0).map_err(|_| SealError::Malformed)?);
        let (version, rest) = envelope.split_first_mut().ok_or(SealError::Malformed)?;
        if *version != VERSION {
            return Err(SealError::UnknownVersion(*version));
        }
        let (nonce, ciphertext) = rest.split_at_mut_checked(NONCE_LEN).ok_or(SealError::Malformed)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError::Malformed)?;
        let plain = self
            .encryption
            .open_in_place(nonce, associated_data(endpoint), ciphertext)
            .map_err(|_| SealError::NotAuthentic)?;
        let plain: PlainIn = serde_json::from_slice(plain).map_err(|_| SealError::Malformed)?;
        Ok(plain.into())
    }
}

fn derive(key: &[u8], purpose: &[u8]) -> [u8; 32] {
    let mut mac = hmac(key);
    mac.update(purpose);
    mac.finalize().into_bytes().into()
}

fn hmac(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
}

/// Binds the envelope to its endpoint: a row copied to another endpoint does not open.
fn associated_data(endpoint: EndpointId) -> Aad<[u8; 17]> {
    let mut data = [VERSION; 17];
    data[1..].copy_from_slice(endpoint.0.as_bytes());
    Aad::from(data)
}
