//! What changes between two trees: pure.

use std::collections::{BTreeMap, BTreeSet};

use crds::Kind;
use serde::Serialize;
use serde_json::{Value, json};

use super::tree::{Place, PlannedEndpoint, PlannedSubscription, Tree, Trouble};

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
        let (kind, name, mut what) = match &self.subject {
            Subject::Endpoint { name, host } => {
                ("Endpoint", name.clone(), host.clone().into_iter().collect::<Vec<_>>())
            }
            Subject::Route { subscription, endpoint, event_types } => {
                ("Route", format!("{subscription} -> {endpoint}"), event_types.clone())
            }
        };
        if self.how == ChangeKind::Changed {
            what.clone_from(&self.fields);
        }
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
        found.changes.extend(endpoint_change(place, old, new));
        if let Some(trouble) = new.and_then(|new| new.trouble.as_ref()) {
            let meanwhile = if old.is_some() { "what waits is held" } else { "nothing is delivered to it" };
            let old = old.and_then(|old| old.trouble.as_ref());
            found.not_ready.push(not_ready(Kind::Endpoint, place, trouble, old, meanwhile));
        }
    }
    for place in places(&from.subscriptions, &to.subscriptions) {
        let (old, new) = (from.subscriptions.get(place), to.subscriptions.get(place));
        found.changes.extend(route_changes(place, old, new));
        if let Some(trouble) = new.and_then(|new| new.trouble.as_ref()) {
            let was_routed = old.is_some_and(|old| old.endpoints.is_some());
            let meanwhile = if was_routed { "its last good route stays" } else { "it routes nothing" };
            let old = old.and_then(|old| old.trouble.as_ref());
            found.not_ready.push(not_ready(Kind::Subscription, place, trouble, old, meanwhile));
        }
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

fn endpoint_change(place: &Place, old: Option<&PlannedEndpoint>, new: Option<&PlannedEndpoint>) -> Option<Change> {
    let (how, shown, fields) = match (old, new) {
        (None, Some(new)) => (ChangeKind::Added, new, Vec::new()),
        (Some(old), None) => (ChangeKind::Removed, old, Vec::new()),
        (Some(old), Some(new)) => {
            let mut fields = changed_fields(&old.spec, &new.spec);
            // A value of a Secret that is in both trees.
            if fields.is_empty() && old.sealed.is_some() && new.sealed.is_some() && old.sealed != new.sealed {
                fields.push("secrets".to_owned());
            }
            if fields.is_empty() {
                return None;
            }
            (ChangeKind::Changed, new, fields)
        }
        (None, None) => return None,
    };
    let subject = Subject::Endpoint { name: place.name.clone(), host: shown.host.clone() };
    Some(Change { how, subject, namespace: place.namespace.clone(), fields })
}

/// The routes of one subscription. Of one that is not ready, the last good route stays.
fn route_changes(place: &Place, old: Option<&PlannedSubscription>, new: Option<&PlannedSubscription>) -> Vec<Change> {
    let none = BTreeSet::new();
    let before = old.and_then(|old| old.endpoints.as_ref()).unwrap_or(&none);
    let after = match new {
        None => &none,
        Some(new) => match &new.endpoints {
            Some(endpoints) => endpoints,
            None => return Vec::new(),
        },
    };
    let fields = match (old, new) {
        (Some(old), Some(new)) => changed_fields(&old.spec, &new.spec),
        _ => Vec::new(),
    };
    // Which endpoints it names shows in the routes themselves.
    let fields: Vec<String> = fields.into_iter().filter(|field| !field.starts_with("spec.endpoint")).collect();
    let of = |how, endpoint: &String, subscription: Option<&PlannedSubscription>, fields: &[String]| {
        let subject = Subject::Route {
            subscription: place.name.clone(),
            endpoint: endpoint.clone(),
            event_types: subscription.map(event_types).unwrap_or_default(),
        };
        Change { how, subject, namespace: place.namespace.clone(), fields: fields.to_vec() }
    };
    let mut changes = Vec::new();
    for endpoint in before.union(after) {
        match (before.contains(endpoint), after.contains(endpoint)) {
            (false, _) => changes.push(of(ChangeKind::Added, endpoint, new, &[])),
            (_, false) => changes.push(of(ChangeKind::Removed, endpoint, old, &[])),
            _ if !fields.is_empty() => changes.push(of(ChangeKind::Changed, endpoint, new, &fields)),
            _ => {}
        }
    }
    changes
}

fn event_types(subscription: &PlannedSubscription) -> Vec<String> {
    let types = subscription.spec["eventTypes"].as_array().map(Vec::as_slice).unwrap_or_default();
    types.iter().filter_map(|text| text.as_str().map(ToOwned::to_owned)).collect()
}

/// The paths of what differs, each as near to the root as one of the two has nothing there.
fn changed_fields(old: &Value, new: &Value) -> Vec<String> {
    let mut found = Vec::new();
    compare("spec", old, new, &mut found);
    found
}

fn compare(path: &str, old: &Value, new: &Value, found: &mut Vec<String>) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            for name in names {
                let (old, new) = (old.get(name).unwrap_or(&Value::Null), new.get(name).unwrap_or(&Value::Null));
                compare(&format!("{path}.{name}"), old, new, found);
            }
        }
        _ if old != new => found.push(path.to_owned()),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_named_as_near_to_the_root_as_one_side_has_nothing() {
        let old = json!({"url": "https://a.example", "retry": {"type": "Fixed", "delaySeconds": 1}, "headers": [1]});
        for (new, expected) in [
            (old.clone(), vec![]),
            (
                json!({"url": "https://b.example", "retry": {"type": "Fixed", "delaySeconds": 2}, "headers": [1, 2]}),
                vec!["spec.headers", "spec.retry.delaySeconds", "spec.url"],
            ),
            (json!({"url": "https://a.example", "headers": [1], "suspend": true}), vec!["spec.retry", "spec.suspend"]),
        ] {
            assert_eq!(changed_fields(&old, &new), expected, "{new}");
        }
    }
}
