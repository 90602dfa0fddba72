//! Which endpoints an event goes to: the routing table, compiled for look-up.

mod compile;
mod explain;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

pub use self::explain::{Explained, Explanation, NotMatchedReason, Verdict};
use crate::delivery::Target;
use crate::event::Event;
use crate::expression::{EvaluationBudget, EventInput, ExpressionError};
use crate::filter::Filter;
use crate::id::{EndpointId, SubscriptionId, TenantId};
use crate::limits::FANOUT_MAX;
use crate::pattern::{self, TypePattern};
use crate::table::{EndpointRow, Row, RowKey, SubscriptionRow};
use crate::transform::Transform;

/// A routing table, compiled.
#[derive(Default)]
pub struct RoutingIndex {
    tenant_names: HashMap<String, TenantId>,
    tenants: HashMap<TenantId, Tenant>,
    endpoints: HashMap<EndpointId, EndpointRow>,
    /// Where each subscription stands in its tenant's list.
    subscriptions: HashMap<SubscriptionId, (TenantId, usize)>,
}

/// One tenant's part of the table.
#[derive(Default)]
struct Tenant {
    /// Sorted by identity.
    endpoints: Vec<EndpointId>,
    /// Sorted by identity, which is the order of targets.
    subscriptions: Vec<Compiled>,
    /// Routes to endpoints that take only what names no recipient.
    unaddressed: TypeIndex,
    /// Routes to endpoints that take everything.
    any: TypeIndex,
    /// Routes to endpoints of one recipient.
    exactly: HashMap<String, TypeIndex>,
}

struct Compiled {
    row: SubscriptionRow,
    /// `None` if the row does not compile; then it is in no [`TypeIndex`].
    rule: Option<Rule>,
    content: Content,
}

/// What a subscription sends of an event.
#[derive(Clone, Debug)]
pub enum Content {
    /// The payload.
    Payload,
    /// What the transform makes of it.
    Transformed(Arc<Transform>),
    /// Nothing: the transform does not compile.
    Invalid(ExpressionError),
}

struct Rule {
    patterns: Vec<TypePattern>,
    filter: Option<Filter>,
}

/// Routes by the patterns of their subscriptions. A look-up costs as many hash look-ups as the type has segments.
#[derive(Default)]
struct TypeIndex {
    exact: HashMap<String, Vec<usize>>,
    one_more: HashMap<String, Vec<usize>>,
    one_or_more: HashMap<String, Vec<usize>>,
    all: Vec<usize>,
    routes: Vec<Route>,
}

/// The endpoints of one subscription in one class of recipients.
struct Route {
    subscription: usize,
    endpoints: Vec<EndpointId>,
}

/// A row that does not compile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteProblem {
    /// Which one.
    pub row: RowKey,
    /// Whose it is.
    pub tenant: TenantId,
    /// Name of the resource.
    pub name: String,
    /// What is wrong and what to do.
    pub message: String,
}

/// Where an event goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routed {
    /// Each target with the pool that delivers it, ordered by subscription, then endpoint; at most [`FANOUT_MAX`].
    pub targets: Vec<(String, Target)>,
    /// Subscriptions whose filter did not answer. They count as not matching.
    pub filter_errors: Vec<FilterFailure>,
    /// Whether there were more targets than [`FANOUT_MAX`].
    pub is_truncated: bool,
}

/// A filter that did not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterFailure {
    /// Whose filter.
    pub subscription: SubscriptionId,
    /// Why.
    pub error: ExpressionError,
}

impl RoutingIndex {
    /// Compiles a table. A row that does not compile routes nothing and becomes a problem; of two rows with one
    /// identity the later counts.
    pub fn build(rows: impl IntoIterator<Item = Row>) -> (Self, Vec<RouteProblem>) {
        compile::build(rows)
    }

    /// Where an event goes. Endpoints that are suspended or held are targets: their deliveries wait. Filters for which
    /// the budget has no steps left fail.
    pub fn route(&self, event: &Event, budget: &mut EvaluationBudget) -> Routed {
        let mut routed = Routed::default();
        let Some(tenant) = self.tenants.get(&event.tenant) else { return routed };
        tenant.ask(event, budget, |row, routes, answer| {
            match answer {
                Ok(true) => self.push_targets(row.id, routes, &mut routed),
                Ok(false) => {}
                Err(error) => routed.filter_errors.push(FilterFailure { subscription: row.id, error }),
            }
            if routed.is_truncated { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        routed
    }

    /// An endpoint of a subscription, if it is in the table and of the same tenant.
    fn endpoint_of(&self, subscription: &SubscriptionRow, id: EndpointId) -> Option<&EndpointRow> {
        self.endpoints.get(&id).filter(|endpoint| endpoint.tenant == subscription.tenant)
    }

    /// The tenant of a namespace name, if it exists.
    pub fn tenant(&self, name: &str) -> Option<TenantId> {
        self.tenant_names.get(name).copied()
    }

    /// The name of a tenant. Looks through all tenants: for showing to people, not for every event.
    pub fn tenant_name(&self, tenant: TenantId) -> Option<&str> {
        self.tenant_names.iter().find(|(_, id)| **id == tenant).map(|(name, _)| name.as_str())
    }

    /// An endpoint's row.
    pub fn endpoint(&self, id: EndpointId) -> Option<&EndpointRow> {
        self.endpoints.get(&id)
    }

    /// A subscription's row.
    pub fn subscription(&self, id: SubscriptionId) -> Option<&SubscriptionRow> {
        self.compiled(id).map(|compiled| &compiled.row)
    }

    /// What a subscription sends; `None` if it is not in the table. One that is suspended still sends what it matched
    /// before.
    pub fn content(&self, id: SubscriptionId) -> Option<&Content> {
        self.compiled(id).map(|compiled| &compiled.content)
    }

    fn compiled(&self, id: SubscriptionId) -> Option<&Compiled> {
        let (tenant, position) = self.subscriptions.get(&id)?;
        self.tenants.get(tenant)?.subscriptions.get(*position)
    }

    /// The endpoints of a tenant, by identity.
    pub fn endpoints_of(&self, tenant: TenantId) -> impl Iterator<Item = &EndpointRow> {
        self.tenants
            .get(&tenant)
            .into_iter()
            .flat_map(|tenant| &tenant.endpoints)
            .filter_map(|id| self.endpoints.get(id))
    }

    /// The subscriptions of a tenant, by identity.
    pub fn subscriptions_of(&self, tenant: TenantId) -> impl Iterator<Item = &SubscriptionRow> {
        self.tenants.get(&tenant).into_iter().flat_map(|tenant| &tenant.subscriptions).map(|compiled| &compiled.row)
    }

    fn push_targets(&self, subscription: SubscriptionId, selected: &[&Route], routed: &mut Routed) {
        let mut endpoints: Vec<EndpointId> = selected.iter().flat_map(|route| &route.endpoints).copied().collect();
        endpoints.sort_unstable();
        endpoints.dedup();
        for endpoint in endpoints {
            let Some(row) = self.endpoints.get(&endpoint) else { continue };
            if routed.targets.len() == FANOUT_MAX {
                routed.is_truncated = true;
                return;
            }
            routed.targets.push((row.pool.clone(), Target { subscription, endpoint }));
        }
    }
}

impl Tenant {
    /// Asks the filter of every subscription that an event could go to, by identity, until `visit` has enough. It is
    /// told the routes of the subscription, and the answer.
    fn ask<'a>(
        &'a self,
        event: &Event,
        budget: &mut EvaluationBudget,
        mut visit: impl FnMut(&'a SubscriptionRow, &[&'a Route], Result<bool, ExpressionError>) -> ControlFlow<()>,
    ) {
        budget.begin_event();
        let addressed = match &event.recipient {
            None => Some(&self.unaddressed),
            Some(recipient) => self.exactly.get(recipient),
        };
        let mut selected = Vec::new();
        for index in [addressed, Some(&self.any)].into_iter().flatten() {
            index.collect(&event.event_type, &mut selected);
        }
        selected.sort_unstable_by_key(|route| route.subscription);
        let mut input = None;
        for of_subscription in selected.chunk_by(|left, right| left.subscription == right.subscription) {
            let Compiled { row, rule: Some(rule), .. } = &self.subscriptions[of_subscription[0].subscription] else {
                continue;
            };
            if visit(row, of_subscription, rule.answer(event, &mut input, budget)).is_break() {
                return;
            }
        }
    }
}

impl fmt::Debug for RoutingIndex {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("RoutingIndex")
            .field("tenants", &self.tenants.len())
            .field("endpoints", &self.endpoints.len())
            .field("subscriptions", &self.subscriptions.len())
            .finish_non_exhaustive()
    }
}

impl Rule {
    /// Whether the filter, if there is one, is true. The event is parsed when the first filter asks for it.
    fn answer(
        &self,
        event: &Event,
        input: &mut Option<EventInput>,
        budget: &mut EvaluationBudget,
    ) -> Result<bool, ExpressionError> {
        let Some(filter) = &self.filter else { return Ok(true) };
        let input = match input {
            Some(input) => input,
            None => input.insert(EventInput::read(event, budget)?),
        };
        filter.matches(input, budget)
    }
}

impl TypeIndex {
    /// Adds the routes whose patterns select a type; a route may come more than once.
    fn collect<'a>(&'a self, event_type: &str, routes: &mut Vec<&'a Route>) {
        let mut add = |positions: &[usize]| routes.extend(positions.iter().map(|position| &self.routes[*position]));
        let found = |map: &'a HashMap<String, Vec<usize>>, key: &str| map.get(key).map_or(&[][..], Vec::as_slice);
        add(found(&self.exact, event_type));
        for (position, prefix) in pattern::prefixes(event_type).enumerate() {
            if position == 0 {
                add(found(&self.one_more, prefix));
            }
            add(found(&self.one_or_more, prefix));
        }
        add(&self.all);
    }
}
