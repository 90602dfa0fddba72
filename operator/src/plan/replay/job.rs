//! What a replay asks of whoever works on it.

use crds::Replay;
use crds::limits::REPLAY_PER_SECOND_DEFAULT;
use crds::replay::{ReplaySpec, ReplayedState};
use dispatcher::ledger::ReplayScope;
use dispatcher_core::id::{EndpointId, ReplayId, SubscriptionId, TenantId};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use sha2::{Digest, Sha256};

/// A replay that works, or of which something is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayJob {
    /// Which one.
    pub replay: ReplayId,
    /// Its namespace, for people.
    pub namespace: String,
    /// Its name, for people.
    pub name: String,
    /// Which deliveries, as far as the ledger decides it. Its end is the one that was asked for.
    pub scope: ReplayScope,
    /// Types of the events, of which one must match; none: all do.
    pub event_types: Vec<String>,
    /// Filter that must be true too.
    pub filter: Option<String>,
    /// Most deliveries a second that are started.
    pub per_second: u32,
    /// Whether nothing is started.
    pub dry_run: bool,
    /// Whether it looks for deliveries; else only what is open is looked after.
    pub is_looking: bool,
}

impl ReplayJob {
    pub(super) fn of(
        replay: &Replay,
        (tenant, namespace, name): (TenantId, &str, &str),
        id: ReplayId,
        is_looking: bool,
    ) -> Self {
        let spec = &replay.spec;
        let states = states(spec);
        let per_second = spec.per_second.unwrap_or(REPLAY_PER_SECOND_DEFAULT);
        Self {
            replay: id,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            scope: ReplayScope {
                tenant,
                endpoint: spec.endpoint_ref.as_ref().map(|endpoint| EndpointId::derive(tenant, &endpoint.name)),
                subscription: spec.subscription_ref.as_ref().map(|it| SubscriptionId::derive(tenant, &it.name)),
                since_unix_ms: unix_ms(&spec.since_time),
                until_unix_ms: unix_ms(&spec.until_time),
                dead: states.contains(&ReplayedState::Dead),
                delivered: states.contains(&ReplayedState::Delivered),
                missing: states.contains(&ReplayedState::Missing),
                with_events: spec.filter.is_some(),
            },
            event_types: spec.event_types.clone(),
            filter: spec.filter.clone(),
            per_second: u32::try_from(per_second).unwrap_or_default().max(1),
            dry_run: spec.dry_run,
            is_looking,
        }
    }
}

/// The identity of a replay: its namespace, its name and what it asks for. How fast it goes and whether it is suspended is
/// no part of that, nor is the order of what is a set.
pub fn replay_id(tenant: TenantId, name: &str, spec: &ReplaySpec) -> ReplayId {
    let mut event_types = spec.event_types.clone();
    event_types.sort_unstable();
    let asked = ReplaySpec { event_types, states: states(spec), per_second: None, suspend: false, ..spec.clone() };
    let text = serde_json::to_vec(&asked).unwrap_or_default();
    let mut digest = Sha256::new();
    // Times are written in whole seconds only.
    for time in [&spec.since_time, &spec.until_time] {
        digest.update(unix_ms(time).to_be_bytes());
    }
    digest.update(&text);
    ReplayId::derive(tenant, name, &digest.finalize().into())
}

/// What is replayed, in order, each once.
fn states(spec: &ReplaySpec) -> Vec<ReplayedState> {
    let mut states = if spec.states.is_empty() { vec![ReplayedState::Dead] } else { spec.states.clone() };
    states.sort_unstable();
    states.dedup();
    states
}

/// Milliseconds since the Unix epoch; nothing was accepted before it.
fn unix_ms(time: &Time) -> u64 {
    u64::try_from(time.0.as_millisecond()).unwrap_or_default()
}
