//! The rows of subscriptions.

use std::collections::BTreeMap;

use crds::{Endpoint, Subscription};
use dispatcher_core::id::{SubscriptionId, TenantId};
use dispatcher_core::table::SubscriptionRow;

use super::{Planned, Published};
use crate::validate::validate_subscription;

/// What holds while a subscription is invalid.
const LAST_GOOD: &str = "the last good route stays";

/// Plans one subscription: the row that it deserves, or, while it is invalid, the last one. `suspend` always counts.
pub(super) fn plan_subscription<'a>(
    resource: &'a Subscription,
    (tenant, namespace, name): (TenantId, &'a str, &'a str),
    endpoints: &BTreeMap<&str, &Endpoint>,
    published: &Published<'_>,
) -> Planned<'a, Subscription, SubscriptionRow> {
    let id = SubscriptionId::derive(tenant, name);
    let previous = published.subscriptions.get(&id).copied();
    let spec = &resource.spec;
    let valid = validate_subscription(resource, tenant, endpoints);
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
                suspended: spec.suspend,
            };
            // A selector that matches nothing takes effect, and is reported all the same.
            (Some(row), valid.resolution.missing.into_iter().collect())
        }
        Err(problems) => {
            (previous.map(|previous| SubscriptionRow { suspended: spec.suspend, ..previous.clone() }), problems)
        }
    };
    Planned {
        resource,
        namespace,
        name,
        is_published: row.as_ref() == previous,
        row,
        problems,
        last_good: LAST_GOOD,
        is_current,
    }
}
