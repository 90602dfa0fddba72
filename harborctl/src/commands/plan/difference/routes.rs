//! Endpoints, and the ways of subscriptions to them.

use std::collections::BTreeSet;

use super::fields::changed_fields;
use super::{Change, ChangeKind, Subject};
use crate::commands::plan::tree::{Place, PlannedEndpoint, PlannedSubscription};

pub(super) fn endpoint_change(
    place: &Place,
    old: Option<&PlannedEndpoint>,
    new: Option<&PlannedEndpoint>,
) -> Option<Change> {
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
pub(super) fn route_changes(
    place: &Place,
    old: Option<&PlannedSubscription>,
    new: Option<&PlannedSubscription>,
) -> Vec<Change> {
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
