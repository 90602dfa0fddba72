//! What changes between two trees: pure.

mod fields;
mod pools;
mod replays;
mod routes;

use std::collections::{BTreeMap, BTreeSet};

use crds::Kind;
use serde::Serialize;
use serde_json::{Value, json};

use self::pools::Bounds;
use self::replays::Asked;
use super::tree::{Place, Tree, Trouble};

/// What changes, in the order of kinds, namespaces and names.
#[derive(Default)]
pub(super) struct Difference {
    pub(super) changes: Vec<Change>,
    pub(super) not_ready: Vec<NotReady>,
}

/// One thing that changes.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Change {
    #[serde(rename = "change")]
    pub(super) how: ChangeKind,
    #[serde(flatten)]
    pub(super) subject: Subject,
    pub(super) namespace: String,
    /// Fields of the spec that differ; `secrets` for a value of a Secret that does. Empty if all of it comes or goes.
    pub(super) fields: Vec<String>,
}

/// How it changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ChangeKind {
    Added,
    Changed,
    Removed,
}

impl ChangeKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Changed => "changed",
            Self::Removed => "removed",
        }
    }
}

/// What it is.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind")]
pub(super) enum Subject {
    /// Where to deliver.
    Endpoint { name: String, host: Option<String> },
    /// One subscription's way to one endpoint.
    Route { subscription: String, endpoint: String, event_types: Vec<String> },
    /// What is delivered again.
    Replay {
        name: String,
        #[serde(flatten)]
        asked: Asked,
    },
    /// By how many dispatchers.
    DispatcherPool {
        name: String,
        #[serde(flatten)]
        bounds: Bounds,
        /// What they were, of one that changes.
        before: Option<Bounds>,
    },
}

/// A resource that would not be ready.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct NotReady {
    pub(super) kind: &'static str,
    pub(super) namespace: String,
    pub(super) name: String,
    #[serde(flatten)]
    pub(super) trouble: Trouble,
    /// Whether it was ready before, or not there, or not ready for another reason.
    pub(super) is_new: bool,
    /// What holds meanwhile.
    pub(super) meanwhile: &'static str,
}

impl Difference {
    /// Whether something would not be ready that was.
    pub(super) fn gets_worse(&self) -> bool {
        self.not_ready.iter().any(|resource| resource.is_new)
    }

    /// Rows for people.
    pub(super) fn rows(&self) -> impl Iterator<Item = Value> {
        self.changes.iter().map(Change::row).chain(self.not_ready.iter().map(NotReady::row))
    }
}

impl Change {
    fn row(&self) -> Value {
        let fields = self.fields.join(",");
        let is_change = self.how == ChangeKind::Changed;
        let (kind, name, what) = match &self.subject {
            Subject::Endpoint { name, host } => {
                ("Endpoint", name.clone(), if is_change { fields } else { host.clone().unwrap_or_default() })
            }
            Subject::Route { subscription, endpoint, event_types } => {
                let what = if is_change { fields } else { event_types.join(",") };
                ("Route", format!("{subscription} -> {endpoint}"), what)
            }
            Subject::Replay { name, asked } => ("Replay", name.clone(), asked.in_words(self.how, &fields)),
            Subject::DispatcherPool { name, bounds, before } => {
                ("DispatcherPool", name.clone(), bounds.in_words(before.as_ref(), &fields))
            }
        };
        json!({
            "change": self.how.as_str(), "kind": kind, "namespace": self.namespace, "name": name, "what": what,
        })
    }
}

impl NotReady {
    fn row(&self) -> Value {
        let Trouble { reason, message } = &self.trouble;
        let what = format!("{reason}: {message}; {}", self.meanwhile);
        json!({
            "change": "not ready", "kind": self.kind, "namespace": self.namespace, "name": self.name, "what": what,
        })
    }
}

/// Compares two trees.
pub(super) fn difference(from: &Tree, to: &Tree) -> Difference {
    let mut found = Difference::default();
    for place in places(&from.endpoints, &to.endpoints) {
        let (old, new) = (from.endpoints.get(place), to.endpoints.get(place));
        found.changes.extend(routes::endpoint_change(place, old, new));
        if let Some(trouble) = new.and_then(|new| new.trouble.as_ref()) {
            let meanwhile = if old.is_some() { "what waits is held" } else { "nothing is delivered to it" };
            let old = old.and_then(|old| old.trouble.as_ref());
            found.not_ready.push(not_ready(Kind::Endpoint, place, trouble, old, meanwhile));
        }
    }
    for place in places(&from.subscriptions, &to.subscriptions) {
        let (old, new) = (from.subscriptions.get(place), to.subscriptions.get(place));
        found.changes.extend(routes::route_changes(place, old, new));
        if let Some(trouble) = new.and_then(|new| new.trouble.as_ref()) {
            let was_routed = old.is_some_and(|old| old.endpoints.is_some());
            let meanwhile = if was_routed { "its last good route stays" } else { "it routes nothing" };
            let old = old.and_then(|old| old.trouble.as_ref());
            found.not_ready.push(not_ready(Kind::Subscription, place, trouble, old, meanwhile));
        }
    }
    for place in places(&from.replays, &to.replays) {
        let (old, new) = (from.replays.get(place), to.replays.get(place));
        found.changes.extend(replays::change(place, old, new));
        if let Some(trouble) = new.and_then(|new| new.trouble.as_ref()) {
            let meanwhile =
                if old.is_some() { "it starts nothing more, unless it is complete" } else { "it does not begin" };
            let old = old.and_then(|old| old.trouble.as_ref());
            found.not_ready.push(not_ready(Kind::Replay, place, trouble, old, meanwhile));
        }
    }
    for place in places(&from.pools, &to.pools) {
        found.changes.extend(pools::change(place, from.pools.get(place), to.pools.get(place)));
    }
    found
}

fn places<'a, T>(from: &'a BTreeMap<Place, T>, to: &'a BTreeMap<Place, T>) -> BTreeSet<&'a Place> {
    from.keys().chain(to.keys()).collect()
}

fn not_ready(kind: Kind, place: &Place, trouble: &Trouble, old: Option<&Trouble>, meanwhile: &'static str) -> NotReady {
    let is_new = old.is_none_or(|old| old.reason != trouble.reason);
    let (namespace, name) = (place.namespace.clone(), place.name.clone());
    NotReady { kind: kind.as_str(), namespace, name, trouble: trouble.clone(), is_new, meanwhile }
}
