//! The rows of endpoints.

use std::time::Duration;

use crds::Endpoint;
use dispatcher_core::id::{EndpointId, TenantId};
use dispatcher_core::limits::SIGNING_KEYS_MAX;
use dispatcher_core::recipient::RecipientRule;
use dispatcher_core::table::{EndpointRow, EndpointState, SigningKey, SigningScheme};

use super::revision::{Before, revision};
use super::{GenerateSecret, PlanContext, Planned, Published};
use crate::validate::{ValidatedEndpoint, validate_endpoint};
use crate::world::{SecretState, World};
use crate::{effective, generate};

/// What holds while an endpoint is invalid.
const HELD: &str = "deliveries wait until it is valid again";

/// A planned endpoint.
pub(super) struct PlannedEndpoint<'a> {
    pub(super) planned: Planned<'a, Endpoint, EndpointRow>,
    /// When the next old key retires.
    pub(super) retires_in: Option<Duration>,
    /// The Secret that it waits for.
    pub(super) generate: Option<GenerateSecret>,
}

/// Plans one endpoint: the row that it deserves, or, while it is invalid, the last one with nothing leaving.
pub(super) fn plan_endpoint<'a>(
    resource: &'a Endpoint,
    (tenant, namespace, name): (TenantId, &'a str, &'a str),
    world: &World,
    context: &PlanContext<'_>,
    published: &Published<'_>,
    now_unix_ms: u64,
) -> PlannedEndpoint<'a> {
    let id = EndpointId::derive(tenant, name);
    let previous = published.endpoints.get(&id).copied();
    let valid = validate_endpoint(resource, world, context.address_policy);
    let is_current = valid.is_ok();
    let (row, problems) = match valid {
        Ok(valid) => (Some(row_of(resource, (tenant, name), valid, previous, context, now_unix_ms)), Vec::new()),
        Err(problems) => {
            let state = match problems.first() {
                Some(problem) if !resource.spec.suspend => {
                    EndpointState::Held { reason: problem.reason.as_str().to_owned() }
                }
                _ => EndpointState::Suspended,
            };
            (previous.map(|previous| (held_row(previous, state, context), None)), problems)
        }
    };
    let (row, retires_in) = row.unzip();
    let has_row = row.is_some();
    PlannedEndpoint {
        retires_in: retires_in.flatten(),
        generate: secret_to_make(resource, namespace, name, world),
        planned: Planned {
            resource,
            namespace,
            name,
            is_published: row.as_ref() == previous,
            row,
            problems,
            meanwhile: (!is_current && has_row).then_some(HELD),
            is_current,
        },
    }
}

/// The Secret of an endpoint that names none, if it is not there, or if it was made for a scheme of the other kind.
fn secret_to_make(resource: &Endpoint, namespace: &str, name: &str, world: &World) -> Option<GenerateSecret> {
    if resource.spec.signing.as_ref().is_some_and(|signing| signing.secret_key_ref.is_some()) {
        return None;
    }
    let secret_name = generate::secret_name(name);
    let scheme = effective::signing_scheme(&resource.spec);
    let is_wanted = match world.secrets.get(namespace, &secret_name) {
        None => true,
        Some(SecretState::Forbidden) => false,
        Some(SecretState::Present(data)) => {
            data.get(generate::GENERATED_KEY).is_some_and(|value| generate::is_of_other_kind(value.expose(), scheme))
        }
    };
    is_wanted.then(|| GenerateSecret {
        namespace: namespace.to_owned(),
        name: secret_name,
        endpoint: name.to_owned(),
        scheme,
    })
}

fn row_of(
    resource: &Endpoint,
    (tenant, name): (TenantId, &str),
    valid: ValidatedEndpoint,
    previous: Option<&EndpointRow>,
    context: &PlanContext<'_>,
    now_unix_ms: u64,
) -> (EndpointRow, Option<Duration>) {
    let id = EndpointId::derive(tenant, name);
    let ValidatedEndpoint { host, policy, mut secrets } = valid;
    // A row that does not open was sealed with a key that is gone, and its signing keys with it.
    let old = previous.and_then(|row| Some((row, context.sealing_key.open(id, &row.sealed).ok()?)));
    let before = old.as_ref().map(|(row, old)| Before { revision: &row.revision, secrets: old });
    let revision = revision(resource, id, &secrets, before, context);
    if let Some((row, old)) = old
        && is_ed25519(row.policy.signing_scheme) == is_ed25519(policy.signing_scheme)
    {
        let overlap_ms = effective::rotation_overlap_ms(&resource.spec);
        let retiring = retiring_keys(&secrets.keys, old.keys, now_unix_ms, now_unix_ms.saturating_add(overlap_ms));
        secrets.keys.extend(retiring);
        secrets.keys.truncate(SIGNING_KEYS_MAX);
    }
    let retires_at = secrets.keys.iter().filter_map(|key| key.retires_at_unix_ms).min();
    let row = EndpointRow {
        id,
        tenant,
        name: name.to_owned(),
        revision,
        recipient: RecipientRule::from_spec(resource.spec.recipient.as_deref()),
        state: if resource.spec.suspend { EndpointState::Suspended } else { EndpointState::Active },
        host,
        policy,
        pool: effective::pool(&resource.spec).to_owned(),
        sealed: context.sealing_key.seal(id, &secrets),
    };
    (row, retires_at.map(|at| Duration::from_millis(at.saturating_sub(now_unix_ms))))
}

/// The last good row with nothing leaving, sealed with the key that seals now.
fn held_row(previous: &EndpointRow, state: EndpointState, context: &PlanContext<'_>) -> EndpointRow {
    let mut row = EndpointRow { state, ..previous.clone() };
    if let Some(sealed) = context.sealing_key.renew(row.id, &row.sealed) {
        row.sealed = sealed;
    }
    row
}

/// Old keys that go on signing, newest first: each until it retires, and never longer than the overlap from now on.
fn retiring_keys(
    current: &[SigningKey],
    old: Vec<SigningKey>,
    now_unix_ms: u64,
    latest_unix_ms: u64,
) -> Vec<SigningKey> {
    old.into_iter()
        .filter(|key| current.iter().all(|current| current.bytes != key.bytes))
        .map(|key| {
            let retires_at = key.retires_at_unix_ms.map_or(latest_unix_ms, |at| at.min(latest_unix_ms));
            SigningKey { retires_at_unix_ms: Some(retires_at), ..key }
        })
        .filter(|key| key.retires_at_unix_ms > Some(now_unix_ms))
        .collect()
}

fn is_ed25519(scheme: SigningScheme) -> bool {
    scheme == SigningScheme::StandardWebhooksEd25519
}
