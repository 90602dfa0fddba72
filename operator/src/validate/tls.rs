//! Certificate authorities and client certificates of endpoints.

use crds::condition::Reason;
use crds::endpoint::{ObjectRef, SecretKeyRef, Tls};
use dispatcher::http::identity::{self, IdentityError, IdentityPart};
use dispatcher_core::redacted::Redacted;
use dispatcher_core::table::{ClientCertificate, TlsIdentity};
use url::Url;

use super::Problem;
use super::request::secret_value;
use crate::world::Secrets;

const AUTHORITIES_FIELD: &str = "spec.tls.caSecretKeyRef";
const CLIENT_FIELD: &str = "spec.tls.clientCertificateSecretRef";
/// Where a Secret of type `kubernetes.io/tls` has its certificate, and the chain after it.
pub(crate) const CERTIFICATE_KEY: &str = "tls.crt";
/// Where it has the private key.
pub(crate) const PRIVATE_KEY_KEY: &str = "tls.key";

/// The identity that connections to an endpoint have; `None` also if it cannot be used, with what is wrong among the
/// problems.
pub(super) fn tls_identity(
    tls: &Tls,
    namespace: &str,
    secrets: &Secrets,
    problems: &mut Vec<Problem>,
) -> Option<TlsIdentity> {
    let mut keep = |problem| problems.push(problem);
    let authorities = tls.ca_secret_key_ref.as_ref();
    let authorities = authorities.map(|from| authorities_of(from, namespace, secrets).map_err(&mut keep));
    let client = tls.client_certificate_secret_ref.as_ref();
    let client = client.map(|from| client_of(from, namespace, secrets).map_err(&mut keep));
    Some(TlsIdentity { authorities: authorities.transpose().ok()?, client: client.transpose().ok()? })
}

/// What the schema cannot see: a URL from a Secret that does not begin with `https://`.
pub(super) fn check_scheme(url: &Url) -> Result<(), Problem> {
    if url.scheme() == "https" {
        return Ok(());
    }
    let message = "has no effect on a URL that does not begin with https://: change the URL, or leave tls out";
    Err(Problem::new(Reason::InvalidSpec, "spec.tls", message))
}

fn authorities_of(from: &SecretKeyRef, namespace: &str, secrets: &Secrets) -> Result<Redacted<String>, Problem> {
    let pem = text(from, namespace, secrets, AUTHORITIES_FIELD)?;
    identity::check_authorities(pem.expose()).map_err(|error| unusable(from, AUTHORITIES_FIELD, error))?;
    Ok(pem)
}

fn client_of(from: &ObjectRef, namespace: &str, secrets: &Secrets) -> Result<ClientCertificate, Problem> {
    let key_of = |key: &str| SecretKeyRef { name: from.name.clone(), key: key.to_owned() };
    let (certificate, private_key) = (key_of(CERTIFICATE_KEY), key_of(PRIVATE_KEY_KEY));
    // The reference has no field for a key: whatever is wrong with the Secret is said of its name.
    let of_name = |problem: Problem| Problem { field: format!("{CLIENT_FIELD}.name"), ..problem };
    let text = |reference: &SecretKeyRef| text(reference, namespace, secrets, CLIENT_FIELD).map_err(of_name);
    let client = ClientCertificate { chain: text(&certificate)?, key: text(&private_key)? };
    identity::check_client_certificate(&client).map_err(|error| {
        let reference = if error.part == IdentityPart::Key { &private_key } else { &certificate };
        of_name(unusable(reference, CLIENT_FIELD, error))
    })?;
    Ok(client)
}

/// A value that has to be text. What is not text becomes something that is no PEM either.
fn text(
    reference: &SecretKeyRef,
    namespace: &str,
    secrets: &Secrets,
    field: &str,
) -> Result<Redacted<String>, Problem> {
    let value = secret_value(secrets, namespace, reference, field)?;
    Ok(Redacted::new(std::str::from_utf8(value.expose()).unwrap_or_default().to_owned()))
}

fn unusable(reference: &SecretKeyRef, field: &str, error: IdentityError) -> Problem {
    let message = format!("the value of {} in Secret {} cannot be used: {error}", reference.key, reference.name);
    Problem::new(Reason::SecretKeyMissing, field, message)
}
