//! Which Secrets an endpoint names.

use crds::Endpoint;
use crds::endpoint::SecretKeyRef;

use crate::generate;
use crate::validate::{CERTIFICATE_KEY, PRIVATE_KEY_KEY};

/// Names and keys of every Secret that is needed to judge an endpoint, that of its generated signing key included.
/// A name may come several times.
pub fn named_secrets(endpoint: &Endpoint) -> Vec<(String, String)> {
    let mut named = referenced_secrets(endpoint);
    named.extend(generated_secret(endpoint).map(|name| (name, generate::GENERATED_KEY.to_owned())));
    named
}

/// Name of the Secret with the signing key that is made for an endpoint; `None`: it names one itself.
pub fn generated_secret(endpoint: &Endpoint) -> Option<String> {
    let signing = endpoint.spec.signing.as_ref().and_then(|signing| signing.secret_key_ref.as_ref());
    signing.is_none().then(|| generate::secret_name(endpoint.metadata.name.as_deref().unwrap_or_default()))
}

/// Names and keys of the Secrets that an endpoint's spec names, which somebody else makes.
pub fn referenced_secrets(endpoint: &Endpoint) -> Vec<(String, String)> {
    let spec = &endpoint.spec;
    let mut named: Vec<(String, String)> = Vec::new();
    let mut add = |reference: Option<&SecretKeyRef>| {
        named.extend(reference.map(|reference| (reference.name.clone(), reference.key.clone())));
    };
    add(spec.url_from.as_ref().map(|from| &from.secret_key_ref));
    for header in &spec.headers {
        add(header.value_from.as_ref().map(|from| &from.secret_key_ref));
    }
    if let Some(auth) = &spec.auth {
        add(auth.password_secret_key_ref.as_ref());
        add(auth.token_secret_key_ref.as_ref());
        if let Some(grant) = &auth.oauth2 {
            add(grant.client_id_secret_key_ref.as_ref());
            add(Some(&grant.client_secret_secret_key_ref));
        }
    }
    add(spec.tls.as_ref().and_then(|tls| tls.ca_secret_key_ref.as_ref()));
    add(spec.signing.as_ref().and_then(|signing| signing.secret_key_ref.as_ref()));
    if let Some(client) = spec.tls.as_ref().and_then(|tls| tls.client_certificate_secret_ref.as_ref()) {
        named.extend([CERTIFICATE_KEY, PRIVATE_KEY_KEY].map(|key| (client.name.clone(), key.to_owned())));
    }
    named
}
