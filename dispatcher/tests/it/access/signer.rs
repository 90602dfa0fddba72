//! Keys of tests, and tokens signed with them, correct and otherwise.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use dispatcher::clock::now_unix_ms;
use jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER;
use jsonwebtoken::{Algorithm, EncodingKey};
use rcgen::{KeyPair, PublicKeyData, RsaKeySize, SigningKey};
use serde_json::{Value, json};

/// A key pair with its name.
pub(crate) struct Signer {
    key: KeyPair,
    algorithm: Algorithm,
    pub(crate) kid: String,
}

/// The present time in whole seconds.
pub(crate) fn now() -> u64 {
    now_unix_ms() / 1000
}

/// A part of a token.
pub(crate) fn encoded(part: &Value) -> String {
    BASE64URL.encode(part.to_string())
}

impl Signer {
    pub(crate) fn ed25519(kid: &str) -> Self {
        let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        Self { key, algorithm: Algorithm::EdDSA, kid: kid.to_owned() }
    }

    pub(crate) fn ecdsa(kid: &str) -> Self {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        Self { key, algorithm: Algorithm::ES256, kid: kid.to_owned() }
    }

    pub(crate) fn rsa(kid: &str) -> Self {
        let key = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
        Self { key, algorithm: Algorithm::RS256, kid: kid.to_owned() }
    }

    /// The name of its algorithm.
    pub(crate) fn alg(&self) -> &'static str {
        match self.algorithm {
            Algorithm::RS256 => "RS256",
            Algorithm::ES256 => "ES256",
            _ => "EdDSA",
        }
    }

    /// Its public key.
    pub(crate) fn jwk(&self) -> Value {
        let public = self.key.der_bytes();
        let text = |bytes: &[u8]| BASE64URL.encode(bytes);
        let mut jwk = match self.algorithm {
            Algorithm::RS256 => {
                let parts = (DEFAULT_PROVIDER.key_utils.rsa_pub_components_from_public_key)(public);
                let (n, e) = parts.unwrap();
                json!({"kty": "RSA", "n": text(&n), "e": text(&e)})
            }
            Algorithm::ES256 => {
                json!({"kty": "EC", "crv": "P-256", "x": text(&public[1..33]), "y": text(&public[33..])})
            }
            _ => json!({"kty": "OKP", "crv": "Ed25519", "x": text(public)}),
        };
        jwk["kid"] = self.kid.as_str().into();
        jwk["alg"] = self.alg().into();
        jwk["use"] = "sig".into();
        jwk
    }

    /// A token with these parts, signed as they stand.
    pub(crate) fn sign(&self, header: &Value, claims: &Value) -> String {
        let message = format!("{}.{}", encoded(header), encoded(claims));
        format!("{message}.{}", self.signature(&message))
    }

    /// A token with the header that it should have.
    pub(crate) fn token(&self, claims: &Value) -> String {
        self.sign(&json!({"alg": self.alg(), "kid": self.kid, "typ": "JWT"}), claims)
    }

    fn signature(&self, message: &str) -> String {
        let der = self.key.serialized_der();
        let key = match self.algorithm {
            Algorithm::ES256 => EncodingKey::from_ec_der(der),
            Algorithm::EdDSA => EncodingKey::from_ed_der(der),
            _ => return BASE64URL.encode(self.key.sign(message.as_bytes()).unwrap()),
        };
        jsonwebtoken::crypto::sign(message.as_bytes(), &key, self.algorithm).unwrap()
    }
}

/// A set of the public keys of some.
pub(crate) fn jwks(signers: &[&Signer]) -> Value {
    json!({"keys": signers.iter().map(|signer| signer.jwk()).collect::<Vec<_>>()})
}

/// Claims with some changed; `null` takes one out.
pub(crate) fn changed(claims: &Value, changes: &Value) -> Value {
    let mut claims = claims.clone();
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    claims
}
