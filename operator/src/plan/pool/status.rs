//! What the owner of a pool reads.

use std::time::Duration;

use crds::condition::{ConditionStatus, ConditionType, Reason};
use crds::pool::{DispatcherPoolStatus, PoolLoadStatus, ScalingMode};
use crds::{DispatcherPool, Kind};
use dispatcher::ledger::PoolLoad;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus};

use super::{Decision, ObjectStatus, PodTrouble, PoolSettings, replicas_of};
use crate::conditions::{Conditions, Verdict, facts_stay_for, generation, time};
use crate::facts;
use crate::plan::events::{Regarding, transitions};
use crate::plan::scale::ScaleVerdict;
use crate::plan::{StatusBody, StatusChange};

/// All that a status is made from.
pub(super) struct Standing<'a> {
    pub(super) pool: &'a DispatcherPool,
    pub(super) settings: PoolSettings,
    /// What only a change of the resource mends.
    pub(super) problem: Option<String>,
    pub(super) has_template: bool,
    /// Whether nothing is to be applied.
    pub(super) is_applied: bool,
    pub(super) failure: Option<&'a str>,
    pub(super) deployment: Option<&'a Deployment>,
    pub(super) deployment_name: Option<String>,
    pub(super) trouble: Option<&'a PodTrouble>,
    pub(super) load: Option<&'a PoolLoad>,
    pub(super) rate_per_second: Option<f64>,
    pub(super) decision: Option<Decision>,
    pub(super) scaled_unix_ms: Option<u64>,
}

/// Dispatchers of a pool, as its Deployment counts them.
#[derive(Clone, Copy)]
struct Counts {
    asked: u32,
    there: u32,
    ready: u32,
}

impl Standing<'_> {
    /// Whether fewer dispatchers are ready than asked for.
    pub(super) fn is_incomplete(&self) -> bool {
        self.counts().is_some_and(|counts| counts.ready < counts.asked)
    }

    /// The status, if it differs from the present one, and when it changes next although nothing else does.
    pub(super) fn status(&self, now_unix_ms: u64) -> (Option<ObjectStatus>, Option<Duration>) {
        let present = self.pool.status.as_ref();
        let previous = present.map_or(&[][..], |status| &status.conditions);
        let generation = generation(&self.pool.metadata);
        let mut conditions = Conditions::new(Kind::DispatcherPool, previous, generation, now_unix_ms);
        self.set_conditions(&mut conditions);
        let (load, next_look_in) = self.load(present.and_then(|status| status.load.as_ref()), now_unix_ms);
        let whole = |count: u32| i32::try_from(count).unwrap_or(i32::MAX);
        let scaled = self.scaled_unix_ms.map(time);
        let status = DispatcherPoolStatus {
            observed_generation: Some(generation),
            conditions: conditions.finish(),
            replicas: self.counts().map(|Counts { there, ready, .. }| format!("{ready}/{there}")),
            wanted_replicas: self.decision.map(|decision| whole(decision.wanted)),
            min_replicas: Some(whole(self.settings.policy.replicas_min)),
            max_replicas: Some(whole(self.settings.policy.replicas_max)),
            mode: Some(self.settings.mode.as_str().to_owned()),
            last_scale_time: scaled.or_else(|| present.and_then(|status| status.last_scale_time.clone())),
            load,
            deployment: self.deployment.and(self.deployment_name.clone()),
        };
        if present == Some(&status) {
            return (None, next_look_in);
        }
        let metadata = &self.pool.metadata;
        let (namespace, name) = (metadata.namespace.as_deref(), metadata.name.as_deref());
        let (namespace, name) = (namespace.unwrap_or_default(), name.unwrap_or_default());
        let regarding = Regarding { kind: Kind::DispatcherPool, namespace, name, uid: metadata.uid.as_deref() };
        let changed = ObjectStatus {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            change: StatusChange::of_pool(present, &status),
            events: transitions(regarding, previous, &status.conditions),
            body: StatusBody::DispatcherPool(status),
        };
        (Some(changed), next_look_in)
    }

    fn set_conditions(&self, conditions: &mut Conditions<'_>) {
        use ConditionStatus::{False, True};
        let (status, reason, message) = self.ready();
        match (status, reason) {
            (_, Reason::InvalidSpec) => conditions.set(ConditionType::Stalled, True, reason, message.clone()),
            (False, _) => {
                conditions.set(ConditionType::Reconciling, True, Reason::ProgressingWithRetry, message.clone());
            }
            (ConditionStatus::Unknown, _) => {
                conditions.set(ConditionType::Reconciling, True, Reason::Progressing, message.clone());
            }
            (True, _) if self.is_incomplete() || !self.is_rolled_out() => {
                conditions.set(ConditionType::Reconciling, True, Reason::Progressing, message.clone());
            }
            (True, _) => {}
        }
        conditions.set(ConditionType::Ready, status, reason, message);
        if self.has_template {
            conditions.set(
                ConditionType::ResolvedRefs,
                True,
                Reason::Resolved,
                "The default pool's Deployment is there",
            );
        } else {
            conditions.set(ConditionType::ResolvedRefs, False, Reason::TemplateNotFound, NO_TEMPLATE);
        }
        if self.is_applied && self.is_rolled_out() && self.problem.is_none() && self.has_template {
            let message = "The objects of this generation are applied";
            conditions.set(ConditionType::Programmed, True, Reason::Programmed, message);
        } else {
            let message = "The objects of this generation are not all applied, or pods of an earlier one still run";
            conditions.set(ConditionType::Programmed, False, Reason::Waiting, message);
        }
        let (status, reason, message) = self.scaling();
        conditions.set(ConditionType::Scaling, status, reason, message);
    }

    fn ready(&self) -> Verdict {
        use ConditionStatus::{False, True, Unknown};
        if let Some(problem) = &self.problem {
            return (False, Reason::InvalidSpec, problem.clone());
        }
        if !self.has_template {
            return (False, Reason::TemplateNotFound, NO_TEMPLATE.to_owned());
        }
        if let Some(failure) = self.failure.filter(|_| !self.is_applied) {
            return (False, Reason::ApplyFailed, failure.to_owned());
        }
        let Some(counts) = self.counts() else {
            return (Unknown, Reason::Pending, "The Deployment is about to be made".to_owned());
        };
        let Counts { asked, ready, .. } = counts;
        if let Some(refusal) = self.condition("ReplicaFailure").filter(|condition| condition.status == "True") {
            let why = refusal.message.clone().unwrap_or_default();
            return (False, Reason::PodsRefused, format!("The API server refuses pods: {why}"));
        }
        if asked == 0 {
            return (True, Reason::PoolAtZero, "Nothing is due, and no dispatcher runs".to_owned());
        }
        let of = format!("{ready} of {asked} dispatchers are ready");
        match self.trouble.filter(|_| ready < asked) {
            Some(PodTrouble::Unschedulable(why)) => {
                let message = format!("{of}; no node takes the others, so add nodes or change template: {why}");
                return (False, Reason::Unschedulable, message);
            }
            Some(PodTrouble::Failing(why)) => return (False, Reason::NotAvailable, format!("{of}; {why}")),
            None => {}
        }
        let is_stuck = self.condition("Progressing").is_some_and(|condition| condition.status == "False");
        if is_stuck && (ready < asked || !self.is_rolled_out()) {
            return (False, Reason::NotAvailable, format!("{of}, and no other has become ready for long"));
        }
        match ready {
            0 => (Unknown, Reason::Pending, format!("{of}; they are starting")),
            _ if ready < asked => (True, Reason::Available, format!("{of}; the others are starting")),
            _ => (True, Reason::Available, of),
        }
    }

    fn scaling(&self) -> Verdict {
        use ConditionStatus::{False, True, Unknown};
        if self.settings.mode == ScalingMode::External {
            let message = "Somebody else sets the number of dispatchers".to_owned();
            return (True, Reason::External, message);
        }
        let not_measured = || {
            let message = "The load is not known, so the number of dispatchers stays as it is".to_owned();
            (Unknown, Reason::NotMeasured, message)
        };
        let Some(decision) = self.decision else { return not_measured() };
        match decision.verdict {
            ScaleVerdict::NotMeasured => not_measured(),
            ScaleVerdict::AsMeasured => {
                (True, Reason::AsMeasured, "The number of dispatchers follows the load".to_owned())
            }
            ScaleVerdict::AtMaximum => {
                let max = self.settings.policy.replicas_max;
                let message = format!("The load asks for more dispatchers than maxReplicas ({max}) allows");
                (False, Reason::AtMaximum, message)
            }
            ScaleVerdict::NothingSucceeds => {
                let message = "Most attempts fail; more dispatchers would not change that, so none is added".to_owned();
                (False, Reason::NothingSucceeds, message)
            }
        }
    }

    /// The facts, rounded.
    fn load(&self, present: Option<&PoolLoadStatus>, now_unix_ms: u64) -> (Option<PoolLoadStatus>, Option<Duration>) {
        let Some(load) = self.load else { return (present.cloned(), None) };
        let new = PoolLoadStatus {
            backlog: Some(facts::count(load.due)),
            open: Some(facts::count(load.open)),
            arriving: Some(facts::per_second(load.accepted_per_second)),
            delivering: Some(facts::per_second(load.delivered_per_second)),
            per_dispatcher: self.rate_per_second.map(facts::per_second),
            measured_time: Some(time(now_unix_ms)),
        };
        let Some(present) = present else { return (Some(new), None) };
        if (PoolLoadStatus { measured_time: present.measured_time.clone(), ..new.clone() }) == *present {
            return (Some(present.clone()), None);
        }
        match facts_stay_for(present.measured_time.as_ref(), now_unix_ms) {
            Some(left) => (Some(present.clone()), Some(left)),
            None => (Some(new), None),
        }
    }

    fn deployment_status(&self) -> Option<&DeploymentStatus> {
        self.deployment?.status.as_ref()
    }

    fn condition(&self, type_: &str) -> Option<&DeploymentCondition> {
        self.deployment_status()?.conditions.iter().flatten().find(|condition| condition.type_ == type_)
    }

    fn counts(&self) -> Option<Counts> {
        let deployment = self.deployment?;
        let status = self.deployment_status();
        let count = |count: Option<i32>| u32::try_from(count.unwrap_or_default()).unwrap_or_default();
        Some(Counts {
            asked: replicas_of(deployment),
            there: count(status.and_then(|status| status.replicas)),
            ready: count(status.and_then(|status| status.ready_replicas)),
        })
    }

    /// Whether all pods are those that the Deployment asks for.
    fn is_rolled_out(&self) -> bool {
        let (Some(deployment), Some(status)) = (self.deployment, self.deployment_status()) else { return false };
        let is_seen = status.observed_generation >= deployment.metadata.generation;
        is_seen && status.updated_replicas.unwrap_or_default() == status.replicas.unwrap_or_default()
    }
}

const NO_TEMPLATE: &str = "There is no Deployment of a default pool to make the pool's of; an embedded installation has none: \
                           install with a database and a broker of their own";
