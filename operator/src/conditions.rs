//! Conditions as `meta/v1` knows them, the same for every kind.

use std::time::Duration;

use crds::Kind;
use crds::condition::{ConditionStatus, ConditionType, Reason};
use dispatcher_core::limits::FACTS_INTERVAL;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;

/// What a condition says.
pub(crate) type Verdict = (ConditionStatus, Reason, String);

/// Gathers the conditions of one object.
#[derive(Debug)]
pub struct Conditions<'a> {
    kind: Kind,
    previous: &'a [Condition],
    generation: i64,
    now_unix_ms: u64,
    gathered: Vec<(ConditionType, Condition)>,
}

impl<'a> Conditions<'a> {
    /// Begins with none. `previous` are those of the object's present status, `generation` is the one they will describe.
    pub fn new(kind: Kind, previous: &'a [Condition], generation: i64, now_unix_ms: u64) -> Self {
        Self { kind, previous, generation, now_unix_ms, gathered: Vec::new() }
    }

    /// Sets a condition. The time of its last transition stays while its status stays.
    ///
    /// # Panics
    /// In debug builds, if the kind has no such reason for this type.
    pub fn set(&mut self, type_: ConditionType, status: ConditionStatus, reason: Reason, message: impl Into<String>) {
        debug_assert!(type_.reasons(self.kind).contains(&reason), "{type_:?} of {:?} has no {reason:?}", self.kind);
        let same = find(self.previous, type_).filter(|previous| previous.status == status.as_str());
        let condition = Condition {
            type_: type_.as_str().to_owned(),
            status: status.as_str().to_owned(),
            reason: reason.as_str().to_owned(),
            message: message.into(),
            observed_generation: Some(self.generation),
            last_transition_time: same.map_or_else(|| time(self.now_unix_ms), |same| same.last_transition_time.clone()),
        };
        self.gathered.retain(|(known, _)| *known != type_);
        self.gathered.push((type_, condition));
    }

    /// The conditions, in the order of their types.
    pub fn finish(mut self) -> Vec<Condition> {
        self.gathered.sort_by_key(|(type_, _)| *type_);
        self.gathered.into_iter().map(|(_, condition)| condition).collect()
    }
}

/// The generation that a status describes: the object's, or the first one for objects that no API server has numbered.
pub fn generation(metadata: &ObjectMeta) -> i64 {
    metadata.generation.unwrap_or(1)
}

/// For how long measured facts have to stay as they were written, if they do: a status is written for facts alone at most
/// once in [`FACTS_INTERVAL`].
pub fn facts_stay_for(measured: Option<&Time>, now_unix_ms: u64) -> Option<Duration> {
    let measured_ms = measured.map_or(0, |time| time.0.as_millisecond());
    let age_ms = now_unix_ms.saturating_sub(u64::try_from(measured_ms).unwrap_or_default());
    FACTS_INTERVAL.checked_sub(Duration::from_millis(age_ms)).filter(|left| !left.is_zero())
}

/// The condition of a type.
pub fn find(conditions: &[Condition], type_: ConditionType) -> Option<&Condition> {
    conditions.iter().find(|condition| condition.type_ == type_.as_str())
}

/// A time in whole seconds: that is how the API server keeps it.
pub fn time(unix_ms: u64) -> Time {
    let seconds = i64::try_from(unix_ms / 1000).unwrap_or(i64::MAX);
    Time(Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transition_is_a_change_of_status_not_of_reason() {
        let ready = |previous: &[Condition], status, reason, now_unix_ms| {
            let mut conditions = Conditions::new(Kind::Endpoint, previous, 1, now_unix_ms);
            conditions.set(ConditionType::Ready, status, reason, "");
            conditions.finish()
        };
        let first = ready(&[], ConditionStatus::True, Reason::Programmed, 5_000);
        let same = ready(&first, ConditionStatus::True, Reason::Suspended, 9_000);
        assert_eq!(same[0].last_transition_time, time(5_000));
        let changed = ready(&same, ConditionStatus::False, Reason::InvalidSpec, 9_999);
        assert_eq!(changed[0].last_transition_time, time(9_000));
    }
}
