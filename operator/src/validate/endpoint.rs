//! Endpoints.

use crds::condition::Reason;
use crds::endpoint::Endpoint;
use crds::limits::URL_LENGTH_MAX;
use dispatcher_core::address::AddressPolicy;
use dispatcher_core::redacted::Redacted;
use dispatcher_core::sign::{KeyError, parse_key};
use dispatcher_core::table::{DeliveryPolicy, EndpointSecrets, SigningKey, SigningScheme};
use url::Url;

use super::request::{headers, secret_value, unmade};
use super::tls::{check_scheme, tls_identity};
use super::token::token_source;
use super::{Problem, admission, in_order};
use crate::world::{SecretState, World};
use crate::{effective, generate};

/// An endpoint that can be delivered to.
#[derive(Clone, Debug)]
pub struct ValidatedEndpoint {
    /// Host and port of its URL.
    pub host: String,
    /// How deliveries behave.
    pub policy: DeliveryPolicy,
    /// URL, current key, headers and certificates.
    pub secrets: EndpointSecrets,
}

/// Checks an endpoint against its world, or answers all that is wrong.
pub fn validate_endpoint(
    endpoint: &Endpoint,
    world: &World,
    addresses: &AddressPolicy,
) -> Result<ValidatedEndpoint, Vec<Problem>> {
    let mut problems = admission(endpoint);
    if !problems.is_empty() {
        // What follows would only say the same in other words.
        return Err(in_order(problems));
    }
    let namespace = endpoint.metadata.namespace.as_deref().unwrap_or_default();
    let spec = &endpoint.spec;
    let policy = effective::delivery_policy(spec);
    if let Err(error) = policy.retry.validate() {
        problems.push(Problem::new(Reason::InvalidSpec, format!("spec.retry.{}", error.field()), error.to_string()));
    }
    let pool = effective::pool(spec);
    if !world.pools.contains_key(pool) {
        let message = format!("there is no pool {pool}: name one that exists, or none for the default pool");
        problems.push(Problem::new(Reason::PoolNotFound, "spec.poolRef.name", message));
    }
    let url = url_of(endpoint, namespace, world, addresses).map_err(|problem| problems.push(problem)).ok();
    let key =
        signing_key(endpoint, namespace, world, policy.signing_scheme).map_err(|problem| problems.push(problem)).ok();
    let headers = headers(spec, namespace, &world.secrets, &mut problems);
    let tls = spec.tls.as_ref().and_then(|tls| tls_identity(tls, namespace, &world.secrets, &mut problems));
    if let (Some(url), Some(_)) = (&url, &spec.tls) {
        problems.extend(check_scheme(url).err());
    }
    let token = token_source(spec, namespace, &world.secrets, addresses, &mut problems);
    match (url, key) {
        (Some(url), Some(key)) if problems.is_empty() => Ok(ValidatedEndpoint {
            host: host_of(&url),
            policy,
            secrets: EndpointSecrets { url: Redacted::new(url.to_string()), keys: vec![key], headers, tls, token },
        }),
        _ => Err(in_order(problems)),
    }
}

fn url_of(endpoint: &Endpoint, namespace: &str, world: &World, addresses: &AddressPolicy) -> Result<Url, Problem> {
    let spec = &endpoint.spec;
    let (field, reason, text) = match (&spec.url, &spec.url_from) {
        (Some(url), _) => ("spec.url", Reason::InvalidSpec, url.as_str()),
        (None, Some(from)) => {
            let field = "spec.urlFrom.secretKeyRef";
            let value = secret_value(&world.secrets, namespace, &from.secret_key_ref, field)?;
            let text = std::str::from_utf8(value.expose()).unwrap_or_default().trim();
            (field, Reason::SecretKeyMissing, text)
        }
        (None, None) => return Err(Problem::new(Reason::InvalidSpec, "spec", "set exactly one of url and urlFrom")),
    };
    checked_url(text, field, reason, addresses)
}

/// A URL that requests may be sent to. `reason` is for a text that is no such URL.
pub(super) fn checked_url(text: &str, field: &str, reason: Reason, addresses: &AddressPolicy) -> Result<Url, Problem> {
    let wrong = |message: &str| Problem::new(reason, field, message);
    if text.len() > URL_LENGTH_MAX {
        return Err(wrong(&format!("the URL must have at most {URL_LENGTH_MAX} characters")));
    }
    let url = Url::parse(text).map_err(|_| wrong("must be an absolute URL that begins with https:// or http://"))?;
    if url.fragment().is_some() {
        return Err(wrong("the URL must not contain a fragment"));
    }
    addresses.check_url(&url).map_err(|error| Problem::new(Reason::AddressBlocked, field, error.to_string()))?;
    Ok(url)
}

fn signing_key(
    endpoint: &Endpoint,
    namespace: &str,
    world: &World,
    scheme: SigningScheme,
) -> Result<SigningKey, Problem> {
    let named = endpoint.spec.signing.as_ref().and_then(|signing| signing.secret_key_ref.as_ref());
    let generated;
    let (reference, field) = if let Some(reference) = named {
        (reference, "spec.signing.secretKeyRef")
    } else {
        let name = generate::secret_name(endpoint.metadata.name.as_deref().unwrap_or_default());
        match world.secrets.get(namespace, &name) {
            None => {
                let message = format!("the Secret {name} with a signing key is being made");
                return Err(Problem::new(Reason::Pending, "spec.signing", message));
            }
            Some(SecretState::Unmade { why, .. }) => return Err(unmade(*why, namespace, &name, "spec.signing")),
            Some(_) => {}
        }
        generated = crds::endpoint::SecretKeyRef { name, key: generate::GENERATED_KEY.to_owned() };
        (&generated, "spec.signing")
    };
    let value = secret_value(&world.secrets, namespace, reference, field)?;
    if named.is_none() && generate::is_of_other_kind(value.expose(), scheme) {
        let message = format!(
            "the signing key in Secret {} is of another kind: one of the scheme's is being made",
            reference.name
        );
        return Err(Problem::new(Reason::Pending, field, message));
    }
    let unusable = |error: KeyError| {
        let message = format!("the value of {} in Secret {} cannot sign here: {error}", reference.key, reference.name);
        Problem::new(Reason::SecretKeyMissing, field, message)
    };
    let bytes = parse_key(value.expose()).and_then(|key| key.for_scheme(scheme)).map_err(unusable)?;
    Ok(SigningKey { bytes, retires_at_unix_ms: None })
}

/// Host, and the port if it is not the scheme's own.
fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}
