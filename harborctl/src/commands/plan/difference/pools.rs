//! How many dispatchers there may be.

use crds::pool::{DispatcherPoolSpec, ScalingMode};
use operator::plan::pool::PoolSettings;
use serde::Serialize;

use super::fields::changed_fields;
use super::{Change, ChangeKind, Subject};
use crate::commands::plan::tree::Place;

/// Bounds of a pool, defaults included, and who sets the number within them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(in crate::commands::plan) struct Bounds {
    min_replicas: u32,
    max_replicas: u32,
    mode: ScalingMode,
}

impl Bounds {
    fn of(spec: &DispatcherPoolSpec) -> Self {
        let PoolSettings { mode, policy } = PoolSettings::of(spec);
        Self { min_replicas: policy.replicas_min, max_replicas: policy.replicas_max, mode }
    }

    pub(super) fn in_words(&self, before: Option<&Self>, fields: &str) -> String {
        match before {
            Some(before) if before != self => {
                let Self { min_replicas, max_replicas, .. } = before;
                format!("{fields}; {} instead of {min_replicas} to {max_replicas}", self.range())
            }
            Some(_) => fields.to_owned(),
            None => self.range(),
        }
    }

    fn range(&self) -> String {
        let Self { min_replicas, max_replicas, mode } = self;
        match mode {
            ScalingMode::Backlog => format!("{min_replicas} to {max_replicas} dispatchers"),
            ScalingMode::External => format!("{min_replicas} to {max_replicas} dispatchers (set by somebody else)"),
        }
    }
}

pub(super) fn change(
    place: &Place,
    old: Option<&DispatcherPoolSpec>,
    new: Option<&DispatcherPoolSpec>,
) -> Option<Change> {
    let (how, shown, before, fields) = match (old, new) {
        (None, None) => return None,
        (None, Some(new)) => (ChangeKind::Added, new, None, Vec::new()),
        (Some(old), None) => (ChangeKind::Removed, old, None, Vec::new()),
        (Some(old), Some(new)) => {
            let json = |spec: &DispatcherPoolSpec| serde_json::to_value(spec).unwrap_or_default();
            let fields = changed_fields(&json(old), &json(new));
            if fields.is_empty() {
                return None;
            }
            (ChangeKind::Changed, new, Some(Bounds::of(old)), fields)
        }
    };
    let subject = Subject::DispatcherPool { name: place.name.clone(), bounds: Bounds::of(shown), before };
    Some(Change { how, subject, namespace: place.namespace.clone(), fields })
}
