//! Replays: which of them work now, and what their owners read.

mod job;
pub mod pace;
mod status;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use crds::condition::Reason;
use crds::{Kind, Replay};
use dispatcher::ledger::{ReplayRecord, ReplayStage};
use dispatcher_core::id::{ReplayId, TenantId};
use dispatcher_core::limits::{REPLAYS_RUNNING_MAX, REPLAYS_RUNNING_PER_TENANT_MAX};
use dispatcher_core::table::{Row, RowKey};

pub use self::job::{ReplayJob, replay_id};
use self::status::{Known, Statuses};
use super::{ObjectStatus, place};
use crate::validate::{Problem, validate_replay};
use crate::world::Malformed;

/// What is known of a replay that has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayProgress {
    /// How far it has come.
    pub record: ReplayRecord,
    /// Why it does not go on at present, if something failed.
    pub trouble: Option<String>,
}

/// What replays are planned from.
#[derive(Clone, Copy, Debug)]
pub struct ReplaySituation<'a> {
    /// Namespaces that are known, each with its identity in the ledger.
    pub tenants: &'a [(TenantId, String)],
    /// The replays, with their present statuses.
    pub replays: &'a [Arc<Replay>],
    /// Those of which only the place is known.
    pub malformed: &'a [Malformed],
    /// What is known of those that have begun. One that is missing here may have begun in another process.
    pub progress: &'a HashMap<ReplayId, ReplayProgress>,
    /// The routing table as it stands in the ledger.
    pub published: &'a [Row],
}

/// What is to be done about replays.
#[derive(Clone, Debug, Default)]
pub struct PlannedReplays {
    /// Replays that work, or of which something is open.
    pub jobs: Vec<ReplayJob>,
    /// Statuses that differ from the present ones.
    pub statuses: Vec<ObjectStatus>,
    /// When to plan again although nothing changes.
    pub next_look_in: Option<Duration>,
}

/// A replay on its way through the plan.
struct Candidate<'a> {
    replay: &'a Replay,
    namespace: &'a str,
    name: &'a str,
    tenant: TenantId,
    id: ReplayId,
    problems: Vec<Problem>,
    known: Known<'a>,
    /// Whether it may look for deliveries now.
    has_turn: bool,
}

/// Plans replays. Those that are complete are left alone, whatever has become of what they name.
pub fn plan_replays(situation: &ReplaySituation<'_>, now_unix_ms: u64) -> PlannedReplays {
    let mut planned = PlannedReplays::default();
    if situation.replays.is_empty() {
        return planned;
    }
    let tenants: BTreeMap<&str, TenantId> = situation.tenants.iter().map(|(id, name)| (name.as_str(), *id)).collect();
    let in_effect: HashSet<RowKey> = situation.published.iter().map(Row::key).collect();
    let mut candidates: Vec<Candidate<'_>> =
        situation.replays.iter().filter_map(|replay| candidate(replay, &tenants, situation, &in_effect)).collect();
    give_turns(&mut candidates);
    let mut statuses = Statuses::new(now_unix_ms);
    for candidate in &candidates {
        planned.jobs.extend(job_of(candidate));
        let Candidate { replay, namespace, name, problems, known, has_turn, .. } = candidate;
        planned.statuses.extend(statuses.of(replay, (namespace, name), problems, known, *has_turn));
    }
    planned.next_look_in = statuses.next_look_in;
    planned
}

fn candidate<'a>(
    replay: &'a Replay,
    tenants: &BTreeMap<&str, TenantId>,
    situation: &ReplaySituation<'a>,
    in_effect: &HashSet<RowKey>,
) -> Option<Candidate<'a>> {
    let (namespace, name) = place(&replay.metadata)?;
    let tenant = *tenants.get(namespace)?;
    let id = replay_id(tenant, name, &replay.spec);
    let known = Known::of(replay, situation.progress.get(&id));
    let is_this = |malformed: &&Malformed| {
        (malformed.kind, &*malformed.namespace, &*malformed.name) == (Kind::Replay, namespace, name)
    };
    let problems = match situation.malformed.iter().find(is_this) {
        _ if known.is_complete() => Vec::new(),
        Some(malformed) => vec![Problem::new(Reason::InvalidSpec, "", &*malformed.message)],
        None => validate_replay(replay, tenant, in_effect),
    };
    Some(Candidate { replay, namespace, name, tenant, id, problems, known, has_turn: false })
}

/// Lets the oldest of those that want to look for deliveries do so, within the bounds of a namespace and of all.
fn give_turns(candidates: &mut [Candidate<'_>]) {
    let mut waiting: Vec<&mut Candidate<'_>> = candidates
        .iter_mut()
        .filter(|candidate| {
            let is_looking = candidate.known.record().is_none_or(|record| record.cursor.stage != ReplayStage::Done);
            is_looking
                && candidate.problems.is_empty()
                && !candidate.replay.spec.suspend
                && !candidate.known.is_complete()
        })
        .collect();
    waiting.sort_by_key(|candidate| {
        let created = candidate.replay.metadata.creation_timestamp.clone();
        (created, candidate.namespace, candidate.name)
    });
    let mut of_tenant: HashMap<TenantId, usize> = HashMap::new();
    let mut in_all = 0;
    for candidate in waiting {
        let running = of_tenant.entry(candidate.tenant).or_default();
        if in_all < REPLAYS_RUNNING_MAX && *running < REPLAYS_RUNNING_PER_TENANT_MAX {
            candidate.has_turn = true;
            *running += 1;
            in_all += 1;
        }
    }
}

/// One that may not look goes on counting what became of what it has started.
fn job_of(candidate: &Candidate<'_>) -> Option<ReplayJob> {
    let Candidate { replay, namespace, name, tenant, id, known, has_turn, .. } = candidate;
    let works = *has_turn || known.has_begun();
    (works && !known.is_complete()).then(|| ReplayJob::of(replay, (*tenant, namespace, name), *id, *has_turn))
}
