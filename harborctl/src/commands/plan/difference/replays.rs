//! What is delivered again.

use crds::limits::REPLAY_PER_SECOND_DEFAULT;
use crds::replay::{ReplaySpec, ReplayedState};
use serde::Serialize;

use super::fields::changed_fields;
use super::{Change, ChangeKind, Subject};
use crate::commands::plan::tree::{Place, PlannedReplay};

/// What a replay asks for.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(in crate::commands::plan) struct Asked {
    effect: Effect,
    endpoint: Option<String>,
    subscription: Option<String>,
    event_types: Vec<String>,
    states: Vec<ReplayedState>,
    since: String,
    until: String,
    per_second: i32,
}

/// What comes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Effect {
    Delivers,
    OnlyCounts,
    IsSuspended,
}

impl Asked {
    fn of(spec: &ReplaySpec) -> Self {
        let effect = match (spec.suspend, spec.dry_run) {
            (true, _) => Effect::IsSuspended,
            (false, true) => Effect::OnlyCounts,
            (false, false) => Effect::Delivers,
        };
        Self {
            effect,
            endpoint: spec.endpoint_ref.as_ref().map(|endpoint| endpoint.name.clone()),
            subscription: spec.subscription_ref.as_ref().map(|subscription| subscription.name.clone()),
            event_types: spec.event_types.clone(),
            states: if spec.states.is_empty() { vec![ReplayedState::Dead] } else { spec.states.clone() },
            since: spec.since_time.0.to_string(),
            until: spec.until_time.0.to_string(),
            per_second: spec.per_second.unwrap_or(REPLAY_PER_SECOND_DEFAULT),
        }
    }

    pub(super) fn in_words(&self, how: ChangeKind, fields: &str) -> String {
        match (how, self.effect) {
            (ChangeKind::Removed, _) => "starts nothing more".to_owned(),
            (ChangeKind::Changed, Effect::IsSuspended) => format!("{fields}; starts nothing more"),
            (ChangeKind::Changed, _) => format!("{fields}; goes on, at most {}/s", self.per_second),
            (ChangeKind::Added, Effect::Delivers) => format!("begins: {}, at most {}/s", self.scope(), self.per_second),
            (ChangeKind::Added, Effect::OnlyCounts) => format!("only counts: {}", self.scope()),
            (ChangeKind::Added, Effect::IsSuspended) => format!("is suspended: {}", self.scope()),
        }
    }

    fn scope(&self) -> String {
        let states: Vec<String> = self.states.iter().map(|state| format!("{state:?}")).collect();
        let mut words = states.join(",");
        if !self.event_types.is_empty() {
            words = format!("{words} of {}", self.event_types.join(","));
        }
        for (what, name) in [("to", &self.endpoint), ("by", &self.subscription)] {
            if let Some(name) = name {
                words = format!("{words} {what} {name}");
            }
        }
        format!("{words}, {} to {}", self.since, self.until)
    }
}

/// What a replay asks for is fixed: a change of that is refused, and told there.
pub(super) fn change(place: &Place, old: Option<&PlannedReplay>, new: Option<&PlannedReplay>) -> Option<Change> {
    let (how, shown, fields) = match (old, new) {
        (None, None) => return None,
        // It does not begin, and is told among what is not ready.
        (None, Some(new)) if new.trouble.is_some() => return None,
        (None, Some(new)) => (ChangeKind::Added, new, Vec::new()),
        (Some(old), None) => (ChangeKind::Removed, old, Vec::new()),
        (Some(old), Some(new)) => {
            let json = |replay: &PlannedReplay| serde_json::to_value(&replay.spec).unwrap_or_default();
            let fields = changed_fields(&json(old), &json(new));
            let may_change = |field: &String| matches!(field.as_str(), "spec.perSecond" | "spec.suspend");
            let fields: Vec<String> = fields.into_iter().filter(may_change).collect();
            if fields.is_empty() {
                return None;
            }
            (ChangeKind::Changed, new, fields)
        }
    };
    let subject = Subject::Replay { name: place.name.clone(), asked: Asked::of(&shown.spec) };
    Some(Change { how, subject, namespace: place.namespace.clone(), fields })
}
