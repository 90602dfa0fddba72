//! Subscriptions.

use crds::Subscription;
use crds::condition::Reason;
use dispatcher_core::filter::Filter;
use dispatcher_core::id::EndpointId;
use dispatcher_core::pattern::TypePattern;
use dispatcher_core::transform::Transform;

use super::neighbours::Neighbours;
use super::{Problem, admission, in_order};

/// A subscription that can be routed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidatedSubscription {
    /// What it resolves to.
    pub resolution: Resolution,
}

/// The endpoints that a subscription resolves to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolution {
    /// Their identities, sorted.
    pub endpoints: Vec<EndpointId>,
    /// Whether there are none although the subscription asks for some, with what to do.
    pub missing: Option<Problem>,
}

/// Checks a subscription, or answers all that is wrong.
///
/// A name that leads nowhere is an error: the last good route stays. A selector that matches nothing is not: that is its
/// answer, and it takes effect.
pub fn validate_subscription(
    subscription: &Subscription,
    neighbours: &Neighbours<'_>,
) -> Result<ValidatedSubscription, Vec<Problem>> {
    resolved(subscription, check_subscription(subscription), neighbours)
}

/// What is wrong with a subscription by itself, wherever it stands.
pub(crate) fn check_subscription(subscription: &Subscription) -> Vec<Problem> {
    let mut problems = admission(subscription);
    let spec = &subscription.spec;
    if !problems.is_empty() {
        return problems;
    }
    for (index, pattern) in spec.event_types.iter().enumerate() {
        if let Err(error) = TypePattern::parse(pattern) {
            problems.push(Problem::new(Reason::InvalidSpec, format!("spec.eventTypes[{index}]"), error.to_string()));
        }
    }
    if let Some(Err(error)) = spec.filter.as_deref().map(Filter::compile) {
        problems.push(Problem::new(Reason::InvalidFilter, "spec.filter", error.to_string()));
    }
    if let Some(Err(error)) = spec.transform.as_deref().map(Transform::compile) {
        problems.push(Problem::new(Reason::InvalidTransform, "spec.transform", error.to_string()));
    }
    problems
}

/// Finds the endpoints of a subscription of which is known what is wrong with it by itself.
pub(crate) fn resolved(
    subscription: &Subscription,
    mut problems: Vec<Problem>,
    neighbours: &Neighbours<'_>,
) -> Result<ValidatedSubscription, Vec<Problem>> {
    let resolution = resolve(subscription, neighbours);
    if subscription.spec.endpoint_ref.is_some() {
        problems.extend(resolution.missing.clone());
    }
    if problems.is_empty() { Ok(ValidatedSubscription { resolution }) } else { Err(in_order(problems)) }
}

/// Finds the endpoints that a subscription names or selects.
pub fn resolve(subscription: &Subscription, neighbours: &Neighbours<'_>) -> Resolution {
    let spec = &subscription.spec;
    let endpoints: Vec<EndpointId> = match (&spec.endpoint_ref, &spec.endpoint_selector) {
        (Some(reference), _) => neighbours.named(&reference.name).into_iter().collect(),
        (None, Some(selector)) => neighbours.selected(&selector.match_labels),
        (None, None) => Vec::new(),
    };
    let missing = endpoints.is_empty().then(|| {
        let (field, message) = if let Some(reference) = &spec.endpoint_ref {
            let message = format!("there is no Endpoint {} in this namespace: create it", reference.name);
            ("spec.endpointRef.name", message)
        } else {
            let message = "no Endpoint of this namespace has these labels: label one, or change the selector";
            ("spec.endpointSelector", message.to_owned())
        };
        Problem::new(Reason::EndpointNotFound, field, message)
    });
    Resolution { endpoints, missing }
}
