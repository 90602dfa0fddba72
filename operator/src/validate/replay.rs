//! Replays.

use std::collections::HashSet;
use std::hash::BuildHasher;

use crds::Replay;
use crds::condition::Reason;
use dispatcher_core::filter::Filter;
use dispatcher_core::id::{EndpointId, SubscriptionId, TenantId};
use dispatcher_core::pattern::TypePattern;
use dispatcher_core::table::RowKey;

use super::{Problem, admission, in_order};

/// All that is wrong with a replay, the gravest first. `in_effect` are the rows of the published table: what a replay
/// names must be among them, for only then can what it finds be delivered.
pub fn validate_replay(
    replay: &Replay,
    tenant: TenantId,
    in_effect: &HashSet<RowKey, impl BuildHasher>,
) -> Vec<Problem> {
    let mut problems = admission(replay);
    let spec = &replay.spec;
    if problems.is_empty() {
        for (index, pattern) in spec.event_types.iter().enumerate() {
            if let Err(error) = TypePattern::parse(pattern) {
                let field = format!("spec.eventTypes[{index}]");
                problems.push(Problem::new(Reason::InvalidSpec, field, error.to_string()));
            }
        }
        if let Some(Err(error)) = spec.filter.as_deref().map(Filter::compile) {
            problems.push(Problem::new(Reason::InvalidFilter, "spec.filter", error.to_string()));
        }
    }
    let mut find = |key: RowKey, reason, field: &str, what: &str, name: &str| {
        if !in_effect.contains(&key) {
            let message = format!("the {what} {name:?} does not exist in this namespace, or is not in effect yet");
            problems.push(Problem::new(reason, field, message));
        }
    };
    if let Some(endpoint) = &spec.endpoint_ref {
        let key = RowKey::Endpoint(EndpointId::derive(tenant, &endpoint.name));
        find(key, Reason::EndpointNotFound, "spec.endpointRef.name", "endpoint", &endpoint.name);
    }
    if let Some(subscription) = &spec.subscription_ref {
        let key = RowKey::Subscription(SubscriptionId::derive(tenant, &subscription.name));
        find(key, Reason::SubscriptionNotFound, "spec.subscriptionRef.name", "subscription", &subscription.name);
    }
    in_order(problems)
}
