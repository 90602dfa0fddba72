//! Signing keys for endpoints that name none.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use crds::limits::OBJECT_NAME_LENGTH_MAX;
use dispatcher_core::redacted::Redacted;
use dispatcher_core::sign::{KeyError, parse_key};
use dispatcher_core::table::SigningScheme;
use sha2::{Digest, Sha256};

use crate::world::SecretData;

/// Key of a generated Secret under which the signing key stands.
pub const GENERATED_KEY: &str = "key";

const SUFFIX: &str = "-signing-key";

/// Name of the Secret that is made for an endpoint: `<endpoint>-signing-key`. An endpoint's name that leaves no room for
/// this is cut, and told apart by a digest.
pub fn secret_name(endpoint: &str) -> String {
    if endpoint.len() + SUFFIX.len() <= OBJECT_NAME_LENGTH_MAX {
        return format!("{endpoint}{SUFFIX}");
    }
    let digest = hex::encode(&Sha256::digest(endpoint)[..4]);
    let room = OBJECT_NAME_LENGTH_MAX - SUFFIX.len() - digest.len() - 1;
    format!("{}-{digest}{SUFFIX}", endpoint[..room].trim_end_matches(['.', '-']))
}

/// A Secret's value with a new signing key, made of 32 random bytes: `whsk_` and base64 for Ed25519, else `whsec_` and
/// base64.
pub fn signing_key(scheme: SigningScheme, random: &[u8; 32]) -> Redacted<Vec<u8>> {
    let prefix = if scheme == SigningScheme::StandardWebhooksEd25519 { "whsk_" } else { "whsec_" };
    let mut value = prefix.as_bytes().to_vec();
    // Room for all of it at once: growing would leave copies behind.
    value.reserve_exact(64);
    value.extend_from_slice(zeroize::Zeroizing::new(BASE64.encode(random)).as_bytes());
    Redacted::new(value)
}

/// Whether a Secret's value is a key of the kind that the scheme does not take, as it is after the scheme was changed.
pub(crate) fn is_of_other_kind(value: &[u8], scheme: SigningScheme) -> bool {
    let fit = parse_key(value).and_then(|key| key.for_scheme(scheme));
    matches!(fit, Err(KeyError::PrivateKeyForHmac | KeyError::SharedKeyForEd25519))
}

/// Whether a Secret's generated key is of that kind.
pub(crate) fn holds_other_kind(data: &SecretData, scheme: SigningScheme) -> bool {
    data.get(GENERATED_KEY).is_some_and(|value| is_of_other_kind(value.expose(), scheme))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_endpoint_has_a_secret_name_of_its_own() {
        assert_eq!(secret_name("billing"), "billing-signing-key");
        let long = |end: &str| format!("{}{end}", "a".repeat(OBJECT_NAME_LENGTH_MAX - 1));
        assert_eq!(secret_name(&long("b")).len(), OBJECT_NAME_LENGTH_MAX);
        assert_ne!(secret_name(&long("b")), secret_name(&long("c")));
    }

    #[test]
    fn a_generated_key_is_read_back() {
        for scheme in [SigningScheme::StandardWebhooks, SigningScheme::StandardWebhooksEd25519] {
            let key = parse_key(signing_key(scheme, &[7; 32]).expose()).unwrap();
            assert_eq!(key.for_scheme(scheme).unwrap().expose().0, [7; 32]);
        }
    }
}
