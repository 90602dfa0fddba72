//! From rows to what is looked up.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use dispatcher_core::id::EndpointId;
use dispatcher_core::route::RoutingIndex;
use dispatcher_core::seal::{Opened, SealingKey};
use dispatcher_core::table::{EndpointRow, EndpointState, IssuerRow, Row, RowKey};
use http::{HeaderMap, HeaderName, HeaderValue};
use url::Url;

use super::EndpointRoute;
use crate::http::{Identity, TokenSlot};
use crate::ledger::LedgerError;

/// Refuses a table that is larger than one may be, before any of it is compiled.
pub(super) fn check_size<'a>(
    keys: impl Iterator<Item = &'a RowKey>,
    endpoints_max: usize,
    subscriptions_max: usize,
) -> Result<(), LedgerError> {
    let (mut endpoints, mut subscriptions) = (0, 0);
    for key in keys {
        match key {
            RowKey::Tenant(_) | RowKey::Issuer(_) => {}
            RowKey::Endpoint(_) => endpoints += 1,
            RowKey::Subscription(_) => subscriptions += 1,
        }
    }
    for (what, count, most) in
        [("endpoints", endpoints, endpoints_max), ("subscriptions", subscriptions, subscriptions_max)]
    {
        if count > most {
            let message = format!("the routing table has {count} {what}, and at most {most} are served: remove some");
            return Err(LedgerError::Refused(message));
        }
    }
    Ok(())
}

/// What is computed from the rows.
pub(super) struct Compiled {
    pub(super) index: Arc<RoutingIndex>,
    pub(super) routes: Arc<HashMap<EndpointId, Arc<EndpointRoute>>>,
    pub(super) issuers: Arc<[IssuerRow]>,
    pub(super) problems_count: usize,
    pub(super) sealed_by_others_count: usize,
}

impl Compiled {
    pub(super) fn new(
        rows: &BTreeMap<RowKey, Row>,
        previous: &HashMap<EndpointId, Arc<EndpointRoute>>,
        sealing_key: &SealingKey,
    ) -> Self {
        let (index, problems) = RoutingIndex::build(rows.values().cloned());
        for problem in &problems {
            tracing::warn!(name = %problem.name, message = %problem.message, "a row of the routing table does not compile");
        }
        let mut problems_count = problems.len();
        let mut routes = HashMap::new();
        let mut issuers = Vec::new();
        for row in rows.values() {
            let row = match row {
                Row::Endpoint(row) => row,
                Row::Issuer(row) => {
                    issuers.push(row.clone());
                    continue;
                }
                Row::Tenant(_) | Row::Subscription(_) => continue,
            };
            // What a held endpoint said before must not be used again, so it is not even opened.
            if matches!(row.state, EndpointState::Held { .. }) {
                continue;
            }
            let known = previous.get(&row.id);
            let unchanged = known.filter(|route| route.row == **row);
            match unchanged.map_or_else(|| open(row, known, sealing_key).map(Arc::new), |route| Ok(Arc::clone(route))) {
                Ok(route) => {
                    routes.insert(row.id, route);
                }
                Err(reason) => {
                    problems_count += 1;
                    tracing::warn!(endpoint = %row.id, reason, "an endpoint of the routing table cannot be used");
                }
            }
        }
        let sealed_by_others_count = routes.values().filter(|route| route.is_sealed_by_other_key).count();
        let (index, routes, issuers) = (Arc::new(index), Arc::new(routes), issuers.into());
        Self { index, routes, issuers, problems_count, sealed_by_others_count }
    }
}

/// Opens an endpoint's secrets. The error names what is wrong and never what stands there.
fn open(
    row: &EndpointRow,
    previous: Option<&Arc<EndpointRoute>>,
    sealing_key: &SealingKey,
) -> Result<EndpointRoute, &'static str> {
    let opened = sealing_key.open_noting(row.id, &row.sealed);
    let Opened { mut secrets, is_by_other } = opened.map_err(|_| "its secrets do not open with these keys")?;
    let url = Url::parse(secrets.url.expose()).map_err(|_| "its URL does not parse")?;
    let mut headers = HeaderMap::with_capacity(secrets.headers.len());
    for (name, value) in &secrets.headers {
        let name = HeaderName::try_from(name.as_str()).map_err(|_| "a header's name is not valid")?;
        let mut value = HeaderValue::try_from(value.expose().as_str()).map_err(|_| "a header's value is not valid")?;
        value.set_sensitive(true);
        headers.append(name, value);
    }
    let identity = secrets.tls.take().map(Identity::new);
    let token = secrets.token.take().map(|source| {
        let kept = previous.and_then(|route| route.token.as_ref()).filter(|slot| slot.is_of(&source));
        kept.cloned().unwrap_or_else(|| TokenSlot::new(source))
    });
    let is_sealed_by_other_key = is_by_other;
    Ok(EndpointRoute { row: row.clone(), url, secrets, headers, token, is_sealed_by_other_key, identity })
}

#[cfg(test)]
mod tests {
    use dispatcher_core::id::{SubscriptionId, TenantId};

    use super::*;

    #[test]
    fn a_table_beyond_its_limits_is_refused_with_what_there_is_too_much_of() {
        let tenant = TenantId::of_namespace_name("shop");
        for (endpoints, subscriptions, refused) in
            [(0, 0, None), (3, 2, None), (4, 2, Some("4 endpoints")), (3, 3, Some("3 subscriptions"))]
        {
            let name = |number: i32| number.to_string();
            let mut keys = vec![RowKey::Tenant(tenant)];
            keys.extend((0..endpoints).map(|number| RowKey::Endpoint(EndpointId::derive(tenant, &name(number)))));
            keys.extend(
                (0..subscriptions).map(|number| RowKey::Subscription(SubscriptionId::derive(tenant, &name(number)))),
            );
            let message = check_size(keys.iter(), 3, 2).err().map(|error| error.to_string());
            assert_eq!(message.is_some(), refused.is_some(), "{message:?}");
            assert!(message.is_none_or(|message| refused.is_some_and(|what| message.contains(what))));
        }
    }
}
