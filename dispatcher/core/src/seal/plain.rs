//! What is sealed: the JSON form of an endpoint's secrets.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroize;

use crate::redacted::Redacted;
use crate::table::{
    ClientAuthentication, ClientCertificate, EndpointSecrets, KeyBytes, SigningKey, TlsIdentity, TokenSource,
};

/// What is sealed, borrowed. The names are short because they are never read by people, and stable.
#[derive(Serialize)]
pub(super) struct PlainOut<'a> {
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
pub(super) struct PlainIn {
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
