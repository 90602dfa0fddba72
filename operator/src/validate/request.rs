//! Values from Secrets, headers and credentials.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use crds::EndpointSpec;
use crds::condition::Reason;
use crds::endpoint::{Auth, AuthType, SecretKeyRef};
use crds::limits::HEADER_VALUE_LENGTH_MAX;
use dispatcher_core::redacted::Redacted;
use http::{HeaderName, HeaderValue};
use zeroize::Zeroizing;

use super::Problem;
use crate::world::{SecretState, Secrets, Unmade};

/// The value that a reference names.
pub(super) fn secret_value<'a>(
    secrets: &'a Secrets,
    namespace: &str,
    reference: &SecretKeyRef,
    field: &str,
) -> Result<&'a Redacted<Vec<u8>>, Problem> {
    let SecretKeyRef { name, key } = reference;
    match secrets.get(namespace, name).and_then(SecretState::present) {
        None | Some(SecretState::Unmade { .. }) => {
            let message = format!("there is no Secret {name} in namespace {namespace}: create it");
            Err(Problem::new(Reason::SecretNotFound, format!("{field}.name"), message))
        }
        Some(SecretState::Forbidden) => {
            let message = format!("the controller may not read Secret {name}: allow it to get this Secret");
            Err(Problem::new(Reason::SecretForbidden, format!("{field}.name"), message))
        }
        Some(SecretState::Unread) => {
            Err(Problem::new(Reason::Pending, format!("{field}.name"), format!("Secret {name} is being read")))
        }
        Some(SecretState::Present(data)) => data.get(key).ok_or_else(|| {
            let message = format!("Secret {name} has no key {key}: add it, or name one that is there");
            Problem::new(Reason::SecretKeyMissing, format!("{field}.key"), message)
        }),
    }
}

/// What is wrong where a signing key should have been made.
pub(super) fn unmade(why: Unmade, namespace: &str, name: &str, field: &str) -> Problem {
    let (reason, message) = match why {
        Unmade::Failed => (
            Reason::Pending,
            format!("the Secret {name} with a signing key could not be made yet: the controller tries again"),
        ),
        Unmade::Removed => (
            Reason::Pending,
            format!(
                "the Secret {name} with a signing key was made and is gone again: see who removes it; the controller \
                 tries again"
            ),
        ),
        Unmade::Former => (
            Reason::Pending,
            format!(
                "the Secret {name} belongs to an endpoint of this name that was deleted: a new one is made when it is gone"
            ),
        ),
        Unmade::Forbidden => (
            Reason::SecretForbidden,
            format!(
                "the controller may not make Secret {name}: allow it to create, get and update Secrets in namespace \
                 {namespace}, or make one and name it in spec.signing.secretKeyRef"
            ),
        ),
        Unmade::Foreign => (
            Reason::SecretKeyMissing,
            format!(
                "the signing key in Secret {name} is of another kind than the scheme takes, and the controller has not \
                 made it: remove the Secret, or name one in spec.signing.secretKeyRef"
            ),
        ),
    };
    Problem::new(reason, field, message)
}

/// The headers of every request: those of the spec, then the credentials.
pub(super) fn headers(
    spec: &EndpointSpec,
    namespace: &str,
    secrets: &Secrets,
    problems: &mut Vec<Problem>,
) -> Vec<(String, Redacted<String>)> {
    let mut headers = Vec::with_capacity(spec.headers.len() + 1);
    for (index, header) in spec.headers.iter().enumerate() {
        let field = format!("spec.headers[{index}]");
        if HeaderName::from_bytes(header.name.as_bytes()).is_err() {
            problems.push(Problem::new(Reason::InvalidSpec, format!("{field}.name"), "must be a header name"));
        }
        let value = match (&header.value, &header.value_from) {
            (Some(value), _) => header_value(value.as_bytes(), Reason::InvalidSpec, &format!("{field}.value")),
            (None, Some(from)) => {
                let field = format!("{field}.valueFrom.secretKeyRef");
                secret_value(secrets, namespace, &from.secret_key_ref, &field)
                    .and_then(|value| header_value(value.expose(), Reason::SecretKeyMissing, &field))
            }
            (None, None) => Err(Problem::new(Reason::InvalidSpec, field, "set exactly one of value and valueFrom")),
        };
        match value {
            Ok(value) => headers.push((header.name.clone(), value)),
            Err(problem) => problems.push(problem),
        }
    }
    match spec.auth.as_ref().map(|auth| authorization(auth, namespace, secrets)) {
        Some(Ok(Some(value))) => headers.push(("Authorization".to_owned(), value)),
        Some(Err(problem)) => problems.push(problem),
        Some(Ok(None)) | None => {}
    }
    headers
}

/// `Basic` (RFC 7617) or `Bearer` (RFC 6750) credentials; none here if they have to be asked for.
fn authorization(auth: &Auth, namespace: &str, secrets: &Secrets) -> Result<Option<Redacted<String>>, Problem> {
    let (reference, field) = match auth.type_ {
        AuthType::Basic => (&auth.password_secret_key_ref, "spec.auth.passwordSecretKeyRef"),
        AuthType::Bearer => (&auth.token_secret_key_ref, "spec.auth.tokenSecretKeyRef"),
        AuthType::OAuth2 => return Ok(None),
    };
    let reference = reference.as_ref().ok_or_else(|| Problem::new(Reason::InvalidSpec, field, "is required"))?;
    let secret = secret_value(secrets, namespace, reference, field)?;
    if secret.expose().iter().any(u8::is_ascii_control) {
        let message = "the value must not contain line breaks or other control characters, at its end neither";
        return Err(Problem::new(Reason::SecretKeyMissing, field, message));
    }
    let value = if auth.type_ == AuthType::Basic {
        let mut plain = Zeroizing::new(Vec::with_capacity(secret.expose().len() + 512));
        plain.extend_from_slice(auth.username.as_deref().unwrap_or_default().as_bytes());
        plain.push(b':');
        plain.extend_from_slice(secret.expose());
        Zeroizing::new(format!("Basic {}", *Zeroizing::new(BASE64.encode(&*plain))).into_bytes())
    } else {
        Zeroizing::new([b"Bearer ", secret.expose().as_slice()].concat())
    };
    header_value(&value, Reason::SecretKeyMissing, field).map(Some)
}

/// A header's value, which must be printable ASCII.
fn header_value(value: &[u8], reason: Reason, field: &str) -> Result<Redacted<String>, Problem> {
    if value.len() > HEADER_VALUE_LENGTH_MAX {
        return Err(Problem::new(
            reason,
            field,
            format!("a header's value has at most {HEADER_VALUE_LENGTH_MAX} bytes"),
        ));
    }
    let header = HeaderValue::from_bytes(value).ok();
    let text = header.as_ref().and_then(|header| header.to_str().ok());
    let message = "a header's value must be printable ASCII without line breaks, at its end neither";
    text.map(|text| Redacted::new(text.to_owned())).ok_or_else(|| Problem::new(reason, field, message))
}
