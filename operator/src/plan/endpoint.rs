//! The rows of endpoints.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use crds::condition::Reason;
use crds::{Endpoint, Kind};
use dispatcher_core::id::{EndpointId, TenantId};
use dispatcher_core::limits::SIGNING_KEYS_MAX;
use dispatcher_core::recipient::RecipientRule;
use dispatcher_core::table::{EndpointRow, EndpointState, RowKey, SigningKey, SigningScheme};

use super::revision::{Before, revision};
use super::status::is_told;
use super::{GenerateSecret, Memory, PlanContext, Planned, Situation};
use crate::validate::{Problem, ValidatedEndpoint, validate_endpoint};
use crate::world::{SecretState, World, generated_secret, named_secrets};
use crate::{effective, generate};

/// What holds while an endpoint is invalid.
const HELD: &str = "deliveries wait until it is valid again";

/// A planned endpoint.
pub(super) struct PlannedEndpoint<'a> {
    pub(super) planned: Planned<'a, Endpoint, EndpointRow>,
    /// Whether nothing is to be said of it: a Secret that it names has not been read yet, or it is new and its key is being
    /// made.
    pub(super) is_untold: bool,
    /// When the next old key retires.
    pub(super) retires_in: Option<Duration>,
    /// The Secret that it waits for.
    pub(super) generate: Option<GenerateSecret>,
}

/// What was found out about an endpoint.
struct Judged {
    /// The row that it deserves, unless that is the published one.
    row: Option<EndpointRow>,
    problems: Vec<Problem>,
    /// When a signing key in the row retires.
    retires_at_unix_ms: Option<u64>,
}

/// Plans one endpoint: the row that it deserves, or, while it is invalid, the last one with nothing leaving.
pub(super) fn plan_endpoint<'a>(
    resource: &'a Arc<Endpoint>,
    (tenant, namespace, name, id): (TenantId, &'a str, &'a str, EndpointId),
    situation: &Situation<'a>,
    memory: &mut Memory,
) -> PlannedEndpoint<'a> {
    let Situation { world, published, now_unix_ms, .. } = situation;
    let previous = published.endpoints.get(&id).copied();
    let malformed = situation.malformed(Kind::Endpoint, namespace, name);
    let named = if malformed.is_some() { Vec::new() } else { names_of_secrets(resource) };
    let is_unread = |name: &String| matches!(world.secrets.get(namespace, name), Some(SecretState::Unread));
    let is_undecided = named.iter().any(is_unread);
    let judged = match malformed {
        Some(problem) => Judged { row: None, problems: vec![problem], retires_at_unix_ms: None },
        None if is_undecided => {
            let problems = vec![Problem::new(Reason::Pending, "", "a Secret is being read")];
            Judged { row: None, problems, retires_at_unix_ms: None }
        }
        None => judge(resource, (tenant, namespace, name, id), named, situation, memory),
    };
    let is_current = judged.problems.is_empty();
    let key = RowKey::Endpoint(id);
    let (row, row_version) = match (judged.row, previous) {
        (None, Some(previous)) if is_current => (Some(Cow::Borrowed(previous)), Some(published.version(key))),
        (row, previous) => {
            let last = previous.filter(|_| !is_current);
            let last =
                last.map(|last| last_row(resource, last, judged.problems.first(), is_undecided, situation.context));
            published.compare(key, row.or(last), previous)
        }
    };
    let has_row = row.is_some();
    PlannedEndpoint {
        is_untold: is_undecided || waits_for_its_key(resource, namespace, world, &judged.problems),
        retires_in: judged.retires_at_unix_ms.map(|at| Duration::from_millis(at.saturating_sub(*now_unix_ms))),
        generate: secret_to_make(resource, namespace, name, world),
        planned: Planned {
            resource,
            namespace,
            name,
            row,
            row_version,
            problems: judged.problems,
            meanwhile: (!is_current && has_row).then_some(HELD),
            is_current,
        },
    }
}

/// Whether an endpoint of which nothing was said yet lacks nothing but a key that is being made. It says by its definition
/// that it is pending, and a status that says why would be the first of two.
fn waits_for_its_key(resource: &Endpoint, namespace: &str, world: &World, problems: &[Problem]) -> bool {
    let observed_generation = resource.status.as_ref().and_then(|status| status.observed_generation);
    let is_being_made = generated_secret(resource).is_some_and(|name| world.secrets.get(namespace, &name).is_none());
    is_being_made && !is_told(observed_generation) && problems.iter().all(|problem| problem.reason == Reason::Pending)
}

/// The last row of an endpoint that is not valid now.
fn last_row(
    resource: &Endpoint,
    previous: &EndpointRow,
    problem: Option<&Problem>,
    is_undecided: bool,
    context: &PlanContext<'_>,
) -> EndpointRow {
    let state = match problem {
        _ if resource.spec.suspend => EndpointState::Suspended,
        _ if is_undecided => previous.state.clone(),
        Some(problem) => EndpointState::Held { reason: problem.reason.as_str().to_owned() },
        None => EndpointState::Suspended,
    };
    held_row(previous, state, context)
}

/// Finds out what is wrong with an endpoint, and which row it deserves; or remembers it.
fn judge(
    resource: &Arc<Endpoint>,
    (tenant, namespace, name, id): (TenantId, &str, &str, EndpointId),
    named: Vec<String>,
    situation: &Situation<'_>,
    memory: &mut Memory,
) -> Judged {
    let Situation { world, context, published, now_unix_ms, .. } = situation;
    let previous = published.endpoints.get(&id).copied();
    let version = published.version(RowKey::Endpoint(id));
    let pool_exists = world.pools.contains_key(effective::pool(&resource.spec));
    if let Some(known) = memory.endpoint(id, resource, (namespace, &world.secrets), pool_exists) {
        if !known.problems.is_empty() {
            return Judged { row: None, problems: known.problems.clone(), retires_at_unix_ms: None };
        }
        if let Some(settled) = known.settled(previous, version, *now_unix_ms) {
            return Judged { row: None, problems: Vec::new(), retires_at_unix_ms: settled.retires_at_unix_ms };
        }
    }
    let verdict = validate_endpoint(resource, world, context.address_policy)
        .map(|valid| row_of(resource, (tenant, name), valid, previous, context, *now_unix_ms));
    memory.judge_endpoint(id, resource, (namespace, &world.secrets, named), pool_exists, verdict.clone());
    match verdict {
        Ok((row, retires_at_unix_ms)) => Judged { row: Some(row), problems: Vec::new(), retires_at_unix_ms },
        Err(problems) => Judged { row: None, problems, retires_at_unix_ms: None },
    }
}

/// Names of the Secrets that an endpoint needs, each once.
fn names_of_secrets(resource: &Endpoint) -> Vec<String> {
    let mut names: Vec<String> = named_secrets(resource).into_iter().map(|(name, _)| name).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// The Secret of an endpoint that names none, if it is not there, or if it was made for a scheme of the other kind.
fn secret_to_make(resource: &Endpoint, namespace: &str, name: &str, world: &World) -> Option<GenerateSecret> {
    let secret_name = generated_secret(resource)?;
    let scheme = effective::signing_scheme(&resource.spec);
    let is_wanted = match world.secrets.get(namespace, &secret_name) {
        None | Some(SecretState::Unmade { .. }) => true,
        Some(SecretState::Forbidden | SecretState::Unread) => false,
        Some(SecretState::Present(data)) => generate::holds_other_kind(data, scheme),
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
) -> (EndpointRow, Option<u64>) {
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
    (row, retires_at)
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
