//! Sealing what must never stand in the ledger in plain text: AES-256-GCM with a derived nonce.
//!
//! The envelope is `version (1 byte) || nonce (12) || ciphertext || tag (16)`, base64. The nonce is derived from
//! the endpoint and the plain text, as in SIV constructions (RFC 5297, 1): the same secrets seal to the same
//! text, so a plan can tell that nothing changed, and a nonce repeats only together with its message.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, MAX_TAG_LEN, NONCE_LEN, Nonce, UnboundKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Sha256;
use zeroize::{Zeroize, Zeroizing};

use crate::id::EndpointId;
use crate::redacted::Redacted;
use crate::table::{
    ClientAuthentication, ClientCertificate, EndpointSecrets, KeyBytes, Sealed, SigningKey, TlsIdentity, TokenSource,
};

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

/// The key that seals endpoint secrets. Both planes hold it; the ledger never does.
pub struct SealingKey {
    encryption: LessSafeKey,
    nonce: Hmac<Sha256>,
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SealingKey([redacted])")
    }
}

impl SealingKey {
    /// Derives the keys for encryption and for nonces from 32 random bytes.
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        let encryption = Zeroizing::new(derive(bytes, ENCRYPTION_PURPOSE));
        let nonce = Zeroizing::new(derive(bytes, NONCE_PURPOSE));
        let unbound = UnboundKey::new(&AES_256_GCM, encryption.as_slice()).expect("AES-256 takes any key of 32 bytes");
        Self { encryption: LessSafeKey::new(unbound), nonce: hmac(nonce.as_slice()) }
    }

    /// Seals an endpoint's secrets for this endpoint alone. The same secrets give the same text.
    pub fn seal(&self, endpoint: EndpointId, secrets: &EndpointSecrets) -> Sealed {
        let plain = Zeroizing::new(
            serde_json::to_vec(&PlainOut::from(secrets)).expect("strings, numbers and lists always serialise"),
        );
        let mut nonce_mac = self.nonce.clone();
        nonce_mac.update(endpoint.0.as_bytes());
        nonce_mac.update(&plain);
        let mut nonce = [0; NONCE_LEN];
        nonce.copy_from_slice(&nonce_mac.finalize().into_bytes()[..NONCE_LEN]);

        let mut envelope = Vec::with_capacity(HEADER_BYTES + plain.len() + MAX_TAG_LEN);
        envelope.push(VERSION);
        envelope.extend_from_slice(&nonce);
        envelope.extend_from_slice(&plain);
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

    /// Opens what was sealed for this endpoint.
    pub fn open(&self, endpoint: EndpointId, sealed: &Sealed) -> Result<EndpointSecrets, SealError> {
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

/// What is sealed, borrowed. The names are short because they are never read by people, and stable.
#[derive(Serialize)]
struct PlainOut<'a> {
    url: &'a str,
    keys: Vec<KeyOut<'a>>,
    headers: Vec<(&'a str, &'a str)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<TlsOut<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<TokenOut<'a>>,
}

#[derive(Serialize)]
struct TlsOut<'a> {
    authorities: Option<&'a str>,
    client: Option<ClientOut<'a>>,
}

#[derive(Serialize)]
struct ClientOut<'a> {
    chain: &'a str,
    key: &'a str,
}

#[derive(Serialize)]
struct TokenOut<'a> {
    url: &'a str,
    client_id: &'a str,
    client_secret: &'a str,
    authentication: ClientAuthentication,
    scopes: &'a [String],
    audience: Option<&'a str>,
}

#[derive(Serialize)]
struct KeyOut<'a> {
    #[serde(serialize_with = "serialize_bytes")]
    bytes: &'a [u8],
    retires_at_unix_ms: Option<u64>,
}

impl<'a> From<&'a EndpointSecrets> for PlainOut<'a> {
    fn from(secrets: &'a EndpointSecrets) -> Self {
        let keys = secrets
            .keys
            .iter()
            .map(|key| KeyOut { bytes: &key.bytes.expose().0, retires_at_unix_ms: key.retires_at_unix_ms });
        let headers = secrets.headers.iter().map(|(name, value)| (name.as_str(), value.expose().as_str()));
        Self {
            url: secrets.url.expose(),
            keys: keys.collect(),
            headers: headers.collect(),
            tls: secrets.tls.as_ref().map(TlsOut::from),
            token: secrets.token.as_ref().map(TokenOut::from),
        }
    }
}

impl<'a> From<&'a TlsIdentity> for TlsOut<'a> {
    fn from(identity: &'a TlsIdentity) -> Self {
        let client =
            identity.client.as_ref().map(|client| ClientOut { chain: client.chain.expose(), key: client.key.expose() });
        Self { authorities: identity.authorities.as_ref().map(|pem| pem.expose().as_str()), client }
    }
}

impl<'a> From<&'a TokenSource> for TokenOut<'a> {
    fn from(source: &'a TokenSource) -> Self {
        Self {
            url: source.url.expose(),
            client_id: source.client_id.expose(),
            client_secret: source.client_secret.expose(),
            authentication: source.authentication,
            scopes: &source.scopes,
            audience: source.audience.as_deref(),
        }
    }
}

#[derive(Deserialize)]
struct PlainIn {
    url: Redacted<String>,
    keys: Vec<KeyIn>,
    headers: Vec<(String, Redacted<String>)>,
    #[serde(default)]
    tls: Option<TlsIn>,
    #[serde(default)]
    token: Option<TokenIn>,
}

#[derive(Deserialize)]
struct TlsIn {
    authorities: Option<Redacted<String>>,
    client: Option<ClientIn>,
}

#[derive(Deserialize)]
struct ClientIn {
    chain: Redacted<String>,
    key: Redacted<String>,
}

#[derive(Deserialize)]
struct TokenIn {
    url: Redacted<String>,
    client_id: Redacted<String>,
    client_secret: Redacted<String>,
    authentication: ClientAuthentication,
    scopes: Vec<String>,
    audience: Option<String>,
}

#[derive(Deserialize)]
struct KeyIn {
    #[serde(deserialize_with = "deserialize_bytes")]
    bytes: Redacted<KeyBytes>,
    retires_at_unix_ms: Option<u64>,
}

impl From<PlainIn> for EndpointSecrets {
    fn from(plain: PlainIn) -> Self {
        let keys = plain
            .keys
            .into_iter()
            .map(|key| SigningKey { bytes: key.bytes, retires_at_unix_ms: key.retires_at_unix_ms });
        Self {
            url: plain.url,
            keys: keys.collect(),
            headers: plain.headers,
            tls: plain.tls.map(TlsIdentity::from),
            token: plain.token.map(TokenSource::from),
        }
    }
}

impl From<TlsIn> for TlsIdentity {
    fn from(plain: TlsIn) -> Self {
        let client = plain.client.map(|client| ClientCertificate { chain: client.chain, key: client.key });
        Self { authorities: plain.authorities, client }
    }
}

impl From<TokenIn> for TokenSource {
    fn from(plain: TokenIn) -> Self {
        let TokenIn { url, client_id, client_secret, authentication, scopes, audience } = plain;
        Self { url, client_id, client_secret, authentication, scopes, audience }
    }
}

fn serialize_bytes<S: Serializer>(bytes: &&[u8], serializer: S) -> Result<S::Ok, S::Error> {
    let mut text = BASE64.encode(bytes);
    let result = serializer.serialize_str(&text);
    text.zeroize();
    result
}

fn deserialize_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Redacted<KeyBytes>, D::Error> {
    let text = Redacted::<String>::deserialize(deserializer)?;
    // The decoder's message would quote a piece of the key.
    let bytes = BASE64.decode(text.expose()).map_err(|_| serde::de::Error::custom("a key is not base64"))?;
    Ok(Redacted::new(KeyBytes(bytes)))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::id::TenantId;

    fn endpoint(name: &str) -> EndpointId {
        EndpointId::derive(TenantId::of_namespace_name("team-a"), name)
    }

    fn key() -> SealingKey {
        SealingKey::from_bytes(&[7; 32])
    }

    fn secrets() -> EndpointSecrets {
        let signing_key = |byte, retires_at_unix_ms| SigningKey {
            bytes: Redacted::new(KeyBytes(vec![byte; 32])),
            retires_at_unix_ms,
        };
        EndpointSecrets {
            url: Redacted::new("https://example.com/hook?token=hunter2".to_owned()),
            keys: vec![signing_key(1, None), signing_key(2, Some(1_700_000_000_000))],
            headers: vec![("authorization".to_owned(), Redacted::new("Bearer hunter2".to_owned()))],
            tls: Some(TlsIdentity {
                authorities: Some(Redacted::new("ca-hunter2".to_owned())),
                client: Some(ClientCertificate {
                    chain: Redacted::new("chain-hunter2".to_owned()),
                    key: Redacted::new("key-hunter2".to_owned()),
                }),
            }),
            token: Some(TokenSource {
                url: Redacted::new("https://login.example.com/token".to_owned()),
                client_id: Redacted::new("id-hunter2".to_owned()),
                client_secret: Redacted::new("secret-hunter2".to_owned()),
                authentication: ClientAuthentication::Post,
                scopes: vec!["hooks.write".to_owned()],
                audience: Some("hooks".to_owned()),
            }),
        }
    }

    #[test]
    fn what_was_sealed_opens_for_the_same_key_and_endpoint_only() {
        let sealed = key().seal(endpoint("billing"), &secrets());
        assert_eq!(key().open(endpoint("billing"), &sealed), Ok(secrets()));
        assert_eq!(key().open(endpoint("audit"), &sealed), Err(SealError::NotAuthentic));
        let other_key = SealingKey::from_bytes(&[8; 32]);
        assert_eq!(other_key.open(endpoint("billing"), &sealed), Err(SealError::NotAuthentic));
    }

    #[test]
    fn the_same_secrets_seal_alike_and_others_do_not() {
        let sealed = key().seal(endpoint("billing"), &secrets());
        assert_eq!(key().seal(endpoint("billing"), &secrets()), sealed);
        let nonce = |sealed: &Sealed| BASE64.decode(&sealed.0).unwrap()[1..HEADER_BYTES].to_vec();
        let changed = EndpointSecrets { headers: vec![], ..secrets() };
        for other in [key().seal(endpoint("billing"), &changed), key().seal(endpoint("audit"), &secrets())] {
            assert_ne!(nonce(&other), nonce(&sealed));
        }
    }

    #[test]
    fn any_changed_bit_and_any_cut_is_noticed() {
        let envelope = BASE64.decode(key().seal(endpoint("billing"), &secrets()).0).unwrap();
        let open = |bytes: &[u8]| key().open(endpoint("billing"), &Sealed(BASE64.encode(bytes)));
        for position in 0..envelope.len() {
            let mut changed = envelope.clone();
            changed[position] ^= 1;
            let expected = if position == 0 { SealError::UnknownVersion(0) } else { SealError::NotAuthentic };
            assert_eq!(open(&changed), Err(expected), "{position}");
            assert!(open(&envelope[..position]).is_err(), "{position}");
        }
        assert_eq!(key().open(endpoint("billing"), &Sealed("not base64!".to_owned())), Err(SealError::Malformed));
        assert_eq!(key().open(endpoint("billing"), &Sealed::default()), Err(SealError::Malformed));
    }

    #[test]
    fn nothing_of_the_secrets_or_the_key_is_visible() {
        let sealed = key().seal(endpoint("billing"), &secrets());
        let envelope = BASE64.decode(&sealed.0).unwrap();
        for secret in [&b"hunter2"[..], b"example.com", &[1; 32]] {
            assert!(!envelope.windows(secret.len()).any(|window| window == secret));
        }
        assert_eq!(format!("{:?}", key()), "SealingKey([redacted])");
        assert!(!format!("{:?}", secrets()).contains("hunter2"));
    }

    proptest! {
        #[test]
        fn any_secrets_come_back_as_they_were(
            url in ".*",
            keys in vec((vec(any::<u8>(), 0..80), any::<Option<u64>>()), 0..4),
            headers in vec((".*", ".*"), 0..4),
        ) {
            let signing_key = |(bytes, retires_at_unix_ms)| SigningKey { bytes: Redacted::new(KeyBytes(bytes)), retires_at_unix_ms };
            let secrets = EndpointSecrets {
                url: Redacted::new(url),
                keys: keys.into_iter().map(signing_key).collect(),
                headers: headers.into_iter().map(|(name, value)| (name, Redacted::new(value))).collect(),
                tls: None,
                token: None,
            };
            let sealed = key().seal(endpoint("billing"), &secrets);
            prop_assert_eq!(key().open(endpoint("billing"), &sealed), Ok(secrets));
        }
    }
}
