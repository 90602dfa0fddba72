//! The rows of subscriptions.

use std::sync::Arc;

use crds::condition::Reason;
use crds::{Kind, Subscription};
use dispatcher_core::id::{SubscriptionId, TenantId};
use dispatcher_core::table::{RowKey, SubscriptionRow};

use super::{Memory, Planned, Situation};
use crate::validate::{Neighbours, check_subscription, resolved};

/// What holds while a subscription is invalid.
const LAST_GOOD: &str = "the last good route stays";

/// What holds while there is no endpoint to deliver to.
const NOT_DELIVERED: &str = "events that come now are not delivered";

/// A planned subscription.
pub(super) struct PlannedSubscription<'a> {
    pub(super) planned: Planned<'a, Subscription, SubscriptionRow>,
    pub(super) id: SubscriptionId,
    /// Endpoints on its route that exist.
    pub(super) endpoints_count: usize,
}

/// Plans one subscription: the row that it deserves, or, while it is invalid, the last one. `suspend` always counts.
pub(super) fn plan_subscription<'a>(
    resource: &'a Arc<Subscription>,
    (tenant, namespace, name): (TenantId, &'a str, &'a str),
    neighbours: &Neighbours<'_>,
    situation: &Situation<'a>,
    memory: &mut Memory,
) -> PlannedSubscription<'a> {
    let id = SubscriptionId::derive(tenant, name);
    let previous = situation.published.subscriptions.get(&id).copied();
    let spec = &resource.spec;
    let valid = match situation.malformed(Kind::Subscription, namespace, name) {
        Some(problem) => Err(vec![problem]),
        None => resolved(resource, memory.subscription(id, resource, check_subscription), neighbours),
    };
    let is_current = valid.is_ok();
    let (row, problems) = match valid {
        Ok(valid) => {
            let row = SubscriptionRow {
                id,
                tenant,
                name: name.to_owned(),
                endpoints: valid.resolution.endpoints,
                event_types: spec.event_types.clone(),
                filter: spec.filter.clone(),
                transform: spec.transform.clone(),
                suspended: spec.suspend,
            };
            // A selector that matches nothing takes effect, and is reported all the same.
            (Some(row), valid.resolution.missing.into_iter().collect())
        }
        Err(problems) => {
            (previous.map(|previous| SubscriptionRow { suspended: spec.suspend, ..previous.clone() }), problems)
        }
    };
    // The last good route may name an endpoint that was deleted.
    let route = row.as_ref().map_or(&[][..], |row| &row.endpoints);
    let endpoints_count = route.iter().filter(|id| neighbours.contains(**id)).count();
    let is_missing = problems.iter().any(|problem| problem.reason == Reason::EndpointNotFound);
    let meanwhile = if is_missing && endpoints_count == 0 {
        Some(NOT_DELIVERED)
    } else {
        (!is_current && row.is_some()).then_some(LAST_GOOD)
    };
    let (row, row_version) = situation.published.compare(RowKey::Subscription(id), row, previous);
    let planned = Planned { resource: &**resource, namespace, name, row, row_version, problems, meanwhile, is_current };
    PlannedSubscription { planned, id, endpoints_count }
}
