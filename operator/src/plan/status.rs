//! Statuses: what the owner of a resource reads.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crds::Kind;
use crds::condition::{ConditionStatus, ConditionType, Reason};
use crds::endpoint::{DeliveryStatus, Endpoint, EndpointStatus};
use crds::subscription::{Subscription, SubscriptionStatus};
use dispatcher::ledger::{DisableReason, Disabled, EndpointFacts};
use dispatcher_core::delivery::Outcome;
use dispatcher_core::id::EndpointId;
use dispatcher_core::limits::PROGRAMMED_LOOK_INTERVAL;
use dispatcher_core::table::{EndpointRow, EndpointState, SubscriptionRow};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::events::{PlannedEvent, transitions};
use super::{ObjectStatus, Planned, StatusBody, StatusChange};
use crate::conditions::{Conditions, Verdict, facts_stay_for, find, generation, time};
use crate::facts;
use crate::validate::{Problem, in_words};
use crate::world::{Pool, World};

/// Gathers the statuses that change.
pub(super) struct Statuses<'a> {
    pub(super) changed: Vec<ObjectStatus>,
    pub(super) next_look_in: Option<Duration>,
    pools: &'a BTreeMap<String, Pool>,
    ingest: &'a Pool,
    facts: HashMap<EndpointId, &'a EndpointFacts>,
    disabled: HashMap<EndpointId, &'a Disabled>,
    now_unix_ms: u64,
}

impl<'a> Statuses<'a> {
    pub(super) fn new(world: &'a World, now_unix_ms: u64) -> Self {
        Self {
            changed: Vec::new(),
            next_look_in: None,
            pools: &world.pools,
            ingest: &world.ingest,
            facts: world.facts.iter().map(|facts| (facts.endpoint, facts)).collect(),
            disabled: world.disabled.iter().map(|disabled| (disabled.endpoint, disabled)).collect(),
            now_unix_ms,
        }
    }

    pub(super) fn endpoint(&mut self, planned: &Planned<'_, Endpoint, EndpointRow>, id: EndpointId, routed: bool) {
        let present = planned.resource.status.as_ref();
        let previous = present.map_or(&[][..], |status| &status.conditions);
        let generation = generation(&planned.resource.metadata);
        let mut conditions = Conditions::new(Kind::Endpoint, previous, generation, self.now_unix_ms);
        let none = Pool::default();
        let pool = planned.row.as_ref().and_then(|row| self.pools.get(&row.pool)).unwrap_or(&none);
        let programmed = self.programmed(planned, pool, previous, generation);
        let is_beginning = is_beginning(planned, present.and_then(|status| status.observed_generation), &programmed);
        set_common(&mut conditions, planned, programmed, planned.resource.spec.suspend);
        let delivering = self.delivering(planned, id, routed);
        let state = delivering.1;
        conditions.set(ConditionType::Delivering, delivering.0, delivering.1, delivering.2);
        let status = EndpointStatus {
            observed_generation: Some(generation),
            conditions: conditions.finish(),
            delivery: Some(self.delivery(id, state, present.and_then(|status| status.delivery.as_ref()))),
            host: planned.row.as_ref().map(|row| row.host.clone()),
        };
        if present != Some(&status) {
            let change =
                if is_beginning { StatusChange::Beginning } else { StatusChange::of_endpoint(present, &status) };
            let events = transitions(planned.regarding(Kind::Endpoint), previous, &status.conditions);
            self.push(planned, StatusBody::Endpoint(status), change, events);
        }
    }

    pub(super) fn subscription(
        &mut self,
        planned: &Planned<'_, Subscription, SubscriptionRow>,
        endpoints_count: usize,
    ) {
        let present = planned.resource.status.as_ref();
        let previous = present.map_or(&[][..], |status| &status.conditions);
        let generation = generation(&planned.resource.metadata);
        let mut conditions = Conditions::new(Kind::Subscription, previous, generation, self.now_unix_ms);
        // Whoever takes an event in decides its targets.
        let programmed = self.programmed(planned, self.ingest, previous, generation);
        let is_beginning = is_beginning(planned, present.and_then(|status| status.observed_generation), &programmed);
        set_common(&mut conditions, planned, programmed, planned.resource.spec.suspend);
        let status = SubscriptionStatus {
            observed_generation: Some(generation),
            conditions: conditions.finish(),
            endpoints: Some(i32::try_from(endpoints_count).unwrap_or(i32::MAX)),
        };
        if present != Some(&status) {
            let change = if is_beginning { StatusChange::Beginning } else { StatusChange::Conditions };
            let events = transitions(planned.regarding(Kind::Subscription), previous, &status.conditions);
            self.push(planned, StatusBody::Subscription(status), change, events);
        }
    }

    fn push<Resource, Row: Clone>(
        &mut self,
        planned: &Planned<'_, Resource, Row>,
        body: StatusBody,
        change: StatusChange,
        events: Vec<PlannedEvent>,
    ) {
        let (namespace, name) = (planned.namespace.to_owned(), planned.name.to_owned());
        self.changed.push(ObjectStatus { namespace, name, body, change, events });
    }

    fn delivering(&self, planned: &Planned<'_, Endpoint, EndpointRow>, id: EndpointId, routed: bool) -> Verdict {
        use ConditionStatus::{False, Unknown};
        let Some(row) = &planned.row else {
            return (Unknown, Reason::NotRouted, "No event is routed here until the endpoint is valid".to_owned());
        };
        match &row.state {
            EndpointState::Suspended => return (False, Reason::Suspended, "Suspended: deliveries wait".to_owned()),
            EndpointState::Held { .. } => {
                return (False, Reason::Suspended, "Deliveries wait until the endpoint is valid again".to_owned());
            }
            EndpointState::Active => {}
        }
        if let Some(disabled) = self.disabled.get(&id).filter(|disabled| disabled.revision == row.revision) {
            let (reason, why) = match disabled.reason {
                DisableReason::Gone => (Reason::Gone, "The receiver answered 410 Gone"),
                DisableReason::DisabledAfterFailures => {
                    (Reason::DisabledAfterFailures, "Nothing but failures for too long")
                }
            };
            let message =
                format!("{why}; change the spec or the annotation {} to try again", crds::REQUESTED_AT_ANNOTATION);
            return (False, reason, message);
        }
        let facts = self.facts.get(&id);
        match facts {
            Some(facts) if facts.attempts > 0 || facts.gate_closed_for.is_some() => {
                judge(facts, row.policy.rate_limit.is_some())
            }
            _ if !routed => (Unknown, Reason::NotRouted, "No subscription names this endpoint".to_owned()),
            _ => (Unknown, Reason::NoTraffic, "Nothing was sent lately".to_owned()),
        }
    }

    /// Whether the processes that must know this generation have loaded it. Once they have, that stays so: one that
    /// starts loads the present table before it works. Changes of other rows since do not count.
    fn programmed<Resource, Row: Clone>(
        &mut self,
        planned: &Planned<'_, Resource, Row>,
        processes: &Pool,
        previous: &[Condition],
        generation: i64,
    ) -> Verdict {
        use ConditionStatus::{False, True};
        if let Some(problem) = planned.problems.first().filter(|_| !planned.is_current) {
            return (False, Reason::Waiting, format!("This generation is not in effect: {problem}"));
        }
        let Some(version) = planned.row_version else {
            return (False, Reason::Waiting, "The change is about to be published".to_owned());
        };
        let before = find(previous, ConditionType::Programmed)
            .filter(|condition| condition.status == True.as_str() && condition.observed_generation == Some(generation));
        let programmed = (True, Reason::Programmed, "Every dispatcher has loaded this generation".to_owned());
        // Nor does it tell of processes that come and go: with each of their pauses, every resource would.
        if before.is_some_and(|condition| condition.reason == Reason::Programmed.as_str()) {
            return programmed;
        }
        let (running, up_to_date) = (processes.running(), processes.up_to_date(version));
        if running == 0 {
            let message = "No dispatcher runs; one that starts loads this generation first";
            return (True, Reason::PoolAtZero, message.to_owned());
        }
        if before.is_some() || up_to_date >= running {
            return programmed;
        }
        self.look_in(PROGRAMMED_LOOK_INTERVAL);
        (False, Reason::Waiting, format!("{up_to_date}/{running} dispatchers have loaded this generation"))
    }

    fn look_in(&mut self, duration: Duration) {
        self.next_look_in = [self.next_look_in, Some(duration)].into_iter().flatten().min();
    }

    /// The facts, rounded. They change together with the state, or else seldom.
    fn delivery(&mut self, id: EndpointId, state: Reason, present: Option<&DeliveryStatus>) -> DeliveryStatus {
        let facts = self.facts.get(&id);
        let new = DeliveryStatus {
            state: Some(state.as_str().to_owned()),
            success: facts.and_then(|facts| facts::success(facts.attempts, facts.succeeded)).map(ToOwned::to_owned),
            p95: facts.and_then(|facts| facts.p95).map(facts::duration),
            // The ledger says nothing of an endpoint that it has just heard of: nothing waits.
            pending: Some(facts::count(facts.map_or(0, |facts| facts.pending))),
            oldest_time: facts.and_then(|facts| facts.oldest_unix_ms).map(|unix_ms| time(facts::minute(unix_ms))),
            last_code: facts.and_then(|facts| facts.last_status_code).map(i32::from),
            measured_time: facts.map(|_| time(self.now_unix_ms)),
        };
        let Some(present) = present.filter(|present| present.state == new.state) else { return new };
        if (DeliveryStatus { measured_time: present.measured_time.clone(), ..new.clone() }) == *present {
            return present.clone();
        }
        match facts_stay_for(present.measured_time.as_ref(), self.now_unix_ms) {
            Some(left) => {
                self.look_in(left);
                present.clone()
            }
            None => new,
        }
    }
}

/// How deliveries go, from what the attempts of the window did.
///
/// The gate of a rate-limited endpoint closes for its rate too, and does not say for what: that it is closed tells nothing.
fn judge(facts: &EndpointFacts, is_rate_limited: bool) -> Verdict {
    use ConditionStatus::{False, True};
    let last = facts.last_outcome.map_or("nothing", Outcome::as_str);
    let last_failed = facts.last_outcome.is_some_and(|outcome| outcome != Outcome::Delivered);
    if last_failed && facts.gate_closed_for.is_some() && !is_rate_limited {
        return (False, Reason::CircuitOpen, format!("Attempts pause after failures; the last one ended with {last}"));
    }
    let most_failed = facts.succeeded.saturating_mul(2) < facts.attempts;
    if last_failed && most_failed {
        return (False, Reason::Failing, format!("Most attempts fail; the last one ended with {last}"));
    }
    (True, Reason::Delivering, "Deliveries succeed".to_owned())
}

/// Whether a resource of which nothing was said yet lacks nothing but that its processes load it.
fn is_beginning<Resource, Row: Clone>(
    planned: &Planned<'_, Resource, Row>,
    observed_generation: Option<i64>,
    programmed: &Verdict,
) -> bool {
    !is_told(observed_generation) && planned.problems.is_empty() && programmed.0 == ConditionStatus::False
}

/// Whether something was said of a resource: the status that its definition gives it is of no generation.
pub(super) fn is_told(observed_generation: Option<i64>) -> bool {
    observed_generation.is_some_and(|generation| generation >= 0)
}

/// Sets the conditions that every kind has.
fn set_common<Resource, Row: Clone>(
    conditions: &mut Conditions<'_>,
    planned: &Planned<'_, Resource, Row>,
    programmed: Verdict,
    suspended: bool,
) {
    use ConditionStatus::{False, True, Unknown};
    let (programmed_status, programmed_reason, programmed_message) = programmed;
    let is_programmed = programmed_status == True;
    let unresolved = planned.problems.iter().find(|problem| is_missing_reference(problem));
    match unresolved {
        Some(problem) => conditions.set(ConditionType::ResolvedRefs, False, problem.reason, problem.to_string()),
        None => {
            conditions.set(ConditionType::ResolvedRefs, True, Reason::Resolved, "Everything that is named is there");
        }
    }
    match planned.problems.first() {
        Some(problem) if problem.reason == Reason::Pending => {
            conditions.set(ConditionType::Ready, Unknown, Reason::Pending, problem.to_string());
            conditions.set(ConditionType::Reconciling, True, Reason::Progressing, problem.to_string());
        }
        Some(first) => {
            let mut message = in_words(&planned.problems);
            if let Some(meanwhile) = planned.meanwhile {
                message = format!("{message}; {meanwhile}");
            }
            conditions.set(ConditionType::Ready, False, first.reason, message.clone());
            if is_terminal(first) {
                conditions.set(ConditionType::Stalled, True, first.reason, message);
            } else {
                conditions.set(ConditionType::Reconciling, True, Reason::ProgressingWithRetry, message);
            }
        }
        None if !is_programmed => {
            conditions.set(ConditionType::Ready, Unknown, Reason::Pending, programmed_message.clone());
            conditions.set(ConditionType::Reconciling, True, Reason::Progressing, programmed_message.clone());
        }
        None if suspended => {
            conditions.set(ConditionType::Ready, True, Reason::Suspended, "Suspended, as the spec asks");
        }
        None => conditions.set(ConditionType::Ready, True, Reason::Programmed, "In effect"),
    }
    conditions.set(ConditionType::Programmed, programmed_status, programmed_reason, programmed_message);
}

/// Whether only a change by the owner helps.
fn is_terminal(problem: &Problem) -> bool {
    matches!(
        problem.reason,
        Reason::InvalidSpec | Reason::InvalidFilter | Reason::InvalidTransform | Reason::AddressBlocked
    )
}

fn is_missing_reference(problem: &Problem) -> bool {
    matches!(
        problem.reason,
        Reason::SecretNotFound
            | Reason::SecretKeyMissing
            | Reason::SecretForbidden
            | Reason::PoolNotFound
            | Reason::EndpointNotFound
    )
}
