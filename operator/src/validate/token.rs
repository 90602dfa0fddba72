//! Where access tokens come from.

use crds::EndpointSpec;
use crds::condition::Reason;
use crds::endpoint::{AuthType, ClientAuthentication as Authentication, OAuth2, SecretKeyRef};
use crds::limits::CLIENT_CREDENTIAL_LENGTH_MAX;
use dispatcher_core::address::AddressPolicy;
use dispatcher_core::redacted::Redacted;
use dispatcher_core::table::{ClientAuthentication, TokenSource};

use super::Problem;
use super::endpoint::checked_url;
use super::request::secret_value;
use crate::world::Secrets;

const FIELD: &str = "spec.auth.oauth2";

/// The source of access tokens that the spec asks for, if it does.
pub(super) fn token_source(
    spec: &EndpointSpec,
    namespace: &str,
    secrets: &Secrets,
    addresses: &AddressPolicy,
    problems: &mut Vec<Problem>,
) -> Option<TokenSource> {
    let auth = spec.auth.as_ref().filter(|auth| auth.type_ == AuthType::OAuth2)?;
    let Some(grant) = &auth.oauth2 else {
        problems.push(Problem::new(Reason::InvalidSpec, FIELD, "is required"));
        return None;
    };
    let url = checked_url(&grant.token_url, &format!("{FIELD}.tokenUrl"), Reason::InvalidSpec, addresses);
    let client_id = client_id(grant, namespace, secrets);
    let secret_field = format!("{FIELD}.clientSecretSecretKeyRef");
    let client_secret = credential(secrets, namespace, &grant.client_secret_secret_key_ref, &secret_field);
    let url = url.map_err(|problem| problems.push(problem)).ok();
    let client_id = client_id.map_err(|problem| problems.push(problem)).ok();
    let client_secret = client_secret.map_err(|problem| problems.push(problem)).ok();
    Some(TokenSource {
        url: Redacted::new(url?.to_string()),
        client_id: client_id?,
        client_secret: client_secret?,
        authentication: match grant.client_authentication.unwrap_or_default() {
            Authentication::Basic => ClientAuthentication::Basic,
            Authentication::Post => ClientAuthentication::Post,
        },
        scopes: grant.scopes.clone(),
        audience: grant.audience.clone(),
    })
}

fn client_id(grant: &OAuth2, namespace: &str, secrets: &Secrets) -> Result<Redacted<String>, Problem> {
    match (&grant.client_id, &grant.client_id_secret_key_ref) {
        (Some(id), _) => Ok(Redacted::new(id.clone())),
        (None, Some(reference)) => credential(secrets, namespace, reference, &format!("{FIELD}.clientIdSecretKeyRef")),
        (None, None) => {
            let message = "set exactly one of clientId and clientIdSecretKeyRef";
            Err(Problem::new(Reason::InvalidSpec, FIELD, message))
        }
    }
}

/// A client identifier or secret: printable ASCII (RFC 6749, appendix A). A line break at its end is refused, since it
/// would be sent as a part of it.
fn credential(
    secrets: &Secrets,
    namespace: &str,
    reference: &SecretKeyRef,
    field: &str,
) -> Result<Redacted<String>, Problem> {
    let value = secret_value(secrets, namespace, reference, field)?.expose();
    let is_printable = value.iter().all(|byte| (b' '..=b'~').contains(byte));
    match std::str::from_utf8(value) {
        Ok(text) if is_printable && (1..=CLIENT_CREDENTIAL_LENGTH_MAX).contains(&text.len()) => {
            Ok(Redacted::new(text.to_owned()))
        }
        _ => {
            let message = format!(
                "the value must be 1 to {CLIENT_CREDENTIAL_LENGTH_MAX} bytes of printable ASCII without line breaks, \
                 at its end neither"
            );
            Err(Problem::new(Reason::SecretKeyMissing, field, message))
        }
    }
}
