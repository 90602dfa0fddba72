//! What a change of conditions is worth telling: the Events of `kubectl describe`.

use std::collections::BTreeSet;

use crds::Kind;
use crds::condition::{ConditionStatus, ConditionType, Reason};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::conditions::find;

/// An Event about one object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PlannedEvent {
    /// Kind of the object.
    pub kind: Kind,
    /// Its namespace, and the Event's.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its identity: what `kubectl describe` finds its Events by.
    pub uid: String,
    /// Whether somebody should look.
    pub type_: EventType,
    /// Reason of the condition.
    pub reason: Reason,
    /// Message of the condition.
    pub note: String,
}

/// Types of Events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventType {
    /// As it should be, or as it was asked for.
    Normal,
    /// Somebody should look.
    Warning,
}

impl EventType {
    /// The word that stands in `type`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// The object that Events are about.
#[derive(Clone, Copy, Debug)]
pub struct Regarding<'a> {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Its identity; without one nothing is told.
    pub uid: Option<&'a str>,
}

/// Conditions whose changes are told. The others follow from these.
const TOLD_TYPES: [ConditionType; 4] =
    [ConditionType::Ready, ConditionType::ResolvedRefs, ConditionType::Delivering, ConditionType::Scaling];

/// The Events of a change from the conditions that an object has to those that it gets.
///
/// Told are changes of status or reason, and what is wrong with another generation. What stays is not told, so a new
/// operator, which finds the conditions that the last one wrote, tells nothing; neither is what nobody knows yet.
pub fn transitions(regarding: Regarding<'_>, old: &[Condition], new: &[Condition]) -> Vec<PlannedEvent> {
    let Some(uid) = regarding.uid else { return Vec::new() };
    let mut told = BTreeSet::new();
    TOLD_TYPES
        .into_iter()
        .filter_map(|type_| {
            let new = find(new, type_)?;
            let old = find(old, type_);
            let event_type = event_type(type_, old, new)?;
            let reason = Reason::ALL.into_iter().find(|reason| reason.as_str() == new.reason)?;
            // What a missing reference does to several conditions is told once.
            (is_news(old, new) && told.insert(reason)).then(|| PlannedEvent {
                kind: regarding.kind,
                namespace: regarding.namespace.to_owned(),
                name: regarding.name.to_owned(),
                uid: uid.to_owned(),
                type_: event_type,
                reason,
                note: new.message.clone(),
            })
        })
        .collect()
}

/// Whether a condition tells something that the one before did not.
fn is_news(old: Option<&Condition>, new: &Condition) -> bool {
    old.is_none_or(|old| {
        (&old.status, &old.reason) != (&new.status, &new.reason)
            || (old.observed_generation != new.observed_generation && old.message != new.message)
    })
}

/// The type of the Event that a changed condition is told by; `None` if it is not told.
fn event_type(type_: ConditionType, old: Option<&Condition>, new: &Condition) -> Option<EventType> {
    let is_false = new.status == ConditionStatus::False.as_str();
    let is_true = new.status == ConditionStatus::True.as_str();
    let was_false = old.is_some_and(|old| old.status == ConditionStatus::False.as_str());
    match type_ {
        // `Ready` says why: it was asked for, or the spec is invalid.
        ConditionType::Delivering if is_false && new.reason == Reason::Suspended.as_str() => None,
        _ if is_false => Some(EventType::Warning),
        ConditionType::Ready if is_true => Some(EventType::Normal),
        // Traffic that comes and goes is no news; what was wrong and is right again is.
        _ if is_true && was_false => Some(EventType::Normal),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use ConditionStatus::{False, True, Unknown};
    use ConditionType::{Delivering, Ready, ResolvedRefs};

    use super::*;
    use crate::conditions::Conditions;

    type Told = (ConditionType, ConditionStatus, Reason, &'static str);

    fn conditions(generation: i64, told: &[Told]) -> Vec<Condition> {
        let mut conditions = Conditions::new(Kind::Endpoint, &[], generation, 0);
        for (type_, status, reason, message) in told {
            conditions.set(*type_, *status, *reason, *message);
        }
        conditions.finish()
    }

    fn events(old: &[Condition], new: &[Condition]) -> Vec<(EventType, Reason, String)> {
        let regarding = Regarding { kind: Kind::Endpoint, namespace: "shop", name: "e", uid: Some("u") };
        transitions(regarding, old, new).into_iter().map(|event| (event.type_, event.reason, event.note)).collect()
    }

    #[test]
    fn changes_are_told_by_the_condition_they_change() {
        use EventType::{Normal, Warning};
        let pending = [(Ready, Unknown, Reason::Pending, "waits")];
        let good = [
            (Ready, True, Reason::Programmed, "In effect"),
            (ResolvedRefs, True, Reason::Resolved, "all there"),
            (Delivering, Unknown, Reason::NoTraffic, "quiet"),
        ];
        let missing = [
            (Ready, False, Reason::SecretNotFound, "spec.url: no Secret"),
            (ResolvedRefs, False, Reason::SecretNotFound, "spec.url: no Secret"),
        ];
        let failing = [good[0], good[1], (Delivering, False, Reason::Failing, "Most fail")];
        let suspended = [
            (Ready, True, Reason::Suspended, "as asked"),
            (ResolvedRefs, True, Reason::Resolved, "all there"),
            (Delivering, False, Reason::Suspended, "Suspended: deliveries wait"),
        ];
        let delivering = [good[0], good[1], (Delivering, True, Reason::Delivering, "Deliveries succeed")];
        let told = |type_, reason, note: &str| (type_, reason, note.to_owned());
        for (old, new, expected) in [
            (&pending[..], &good[..], vec![told(Normal, Reason::Programmed, "In effect")]),
            (&pending, &missing, vec![told(Warning, Reason::SecretNotFound, "spec.url: no Secret")]),
            (
                &missing,
                &good,
                vec![told(Normal, Reason::Programmed, "In effect"), told(Normal, Reason::Resolved, "all there")],
            ),
            (&good, &failing, vec![told(Warning, Reason::Failing, "Most fail")]),
            (&failing, &delivering, vec![told(Normal, Reason::Delivering, "Deliveries succeed")]),
            (&good, &delivering, vec![]),
            (&failing, &good, vec![]),
            (&good, &suspended, vec![told(Normal, Reason::Suspended, "as asked")]),
            (&good, &good, vec![]),
            (&failing, &failing, vec![]),
            (&good, &pending, vec![]),
        ] {
            assert_eq!(events(&conditions(1, old), &conditions(1, new)), expected, "{old:?} to {new:?}");
        }
    }

    #[test]
    fn another_mistake_in_another_generation_is_told_and_another_wording_is_not() {
        let wrong = |generation, message| conditions(generation, &[(Ready, False, Reason::InvalidSpec, message)]);
        assert_eq!(events(&wrong(1, "spec.url: a"), &wrong(2, "spec.auth: b")).len(), 1);
        assert_eq!(events(&wrong(1, "spec.url: a"), &wrong(2, "spec.url: a")), []);
        assert_eq!(events(&wrong(1, "spec.url: a"), &wrong(1, "spec.url: other words")), []);
    }

    #[test]
    fn an_object_without_an_identity_has_no_events() {
        let regarding = Regarding { kind: Kind::Endpoint, namespace: "shop", name: "e", uid: None };
        let new = conditions(1, &[(Ready, False, Reason::InvalidSpec, "wrong")]);
        assert_eq!(transitions(regarding, &[], &new), []);
    }
}
