//! Building the index from rows.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::{Compiled, Content, Route, RouteProblem, RoutingIndex, Rule, Tenant, TypeIndex};
use crate::filter::Filter;
use crate::id::{EndpointId, SubscriptionId};
use crate::pattern::TypePattern;
use crate::recipient::RecipientRule;
use crate::table::{Row, RowKey, SubscriptionRow};
use crate::transform::Transform;

pub(super) fn build(rows: impl IntoIterator<Item = Row>) -> (RoutingIndex, Vec<RouteProblem>) {
    let mut index = RoutingIndex::default();
    let mut subscriptions: BTreeMap<SubscriptionId, SubscriptionRow> = BTreeMap::new();
    for row in rows {
        match row {
            Row::Tenant(row) => {
                index.tenants.entry(row.id).or_default();
                index.tenant_names.insert(row.name, row.id);
            }
            Row::Endpoint(row) => _ = index.endpoints.insert(row.id, *row),
            Row::Subscription(row) => _ = subscriptions.insert(row.id, row),
            // Whose tokens are accepted routes nothing.
            Row::Issuer(_) => {}
        }
    }
    for row in index.endpoints.values() {
        index.tenants.entry(row.tenant).or_default().endpoints.push(row.id);
    }
    for tenant in index.tenants.values_mut() {
        tenant.endpoints.sort_unstable();
    }
    let mut problems = Vec::new();
    for row in subscriptions.into_values() {
        let content = content(&row);
        let rule = match rule(&row, &content) {
            Ok(rule) => Some(rule),
            Err(message) => {
                let (row, tenant, name) = (RowKey::Subscription(row.id), row.tenant, row.name.clone());
                problems.push(RouteProblem { row, tenant, name, message });
                None
            }
        };
        add(&mut index, Compiled { row, rule, content });
    }
    (index, problems)
}

fn content(row: &SubscriptionRow) -> Content {
    match row.transform.as_deref().map(Transform::compile) {
        None => Content::Payload,
        Some(Ok(transform)) => Content::Transformed(Arc::new(transform)),
        Some(Err(error)) => Content::Invalid(error),
    }
}

fn rule(row: &SubscriptionRow, content: &Content) -> Result<Rule, String> {
    let patterns: Result<Vec<TypePattern>, String> = row
        .event_types
        .iter()
        .map(|text| TypePattern::parse(text).map_err(|error| format!("event type {text:?}: {error}")))
        .collect();
    let filter = row.filter.as_deref().map(Filter::compile).transpose().map_err(|error| format!("filter: {error}"))?;
    if let Content::Invalid(error) = content {
        return Err(format!("transform: {error}"));
    }
    Ok(Rule { patterns: patterns?, filter })
}

fn add(index: &mut RoutingIndex, compiled: Compiled) {
    let row = &compiled.row;
    let tenant = index.tenants.entry(row.tenant).or_default();
    let subscription = tenant.subscriptions.len();
    index.subscriptions.insert(row.id, (row.tenant, subscription));
    if let (false, Some(rule)) = (row.suspended, &compiled.rule) {
        let mut classes: HashMap<&RecipientRule, Vec<EndpointId>> = HashMap::new();
        // An endpoint of another tenant is as good as missing.
        for endpoint in row.endpoints.iter().filter_map(|id| index.endpoints.get(id)) {
            if endpoint.tenant == row.tenant {
                classes.entry(&endpoint.recipient).or_default().push(endpoint.id);
            }
        }
        for (recipient, endpoints) in classes {
            tenant.type_index(recipient).add(&rule.patterns, Route { subscription, endpoints });
        }
    }
    tenant.subscriptions.push(compiled);
}

impl Tenant {
    fn type_index(&mut self, recipient: &RecipientRule) -> &mut TypeIndex {
        match recipient {
            RecipientRule::Unaddressed => &mut self.unaddressed,
            RecipientRule::Any => &mut self.any,
            RecipientRule::Exactly(name) => self.exactly.entry(name.clone()).or_default(),
        }
    }
}

impl TypeIndex {
    fn add(&mut self, patterns: &[TypePattern], route: Route) {
        let position = self.routes.len();
        self.routes.push(route);
        for pattern in patterns {
            match pattern {
                TypePattern::Exact(text) => self.exact.entry(text.clone()).or_default().push(position),
                TypePattern::OneMore(prefix) => self.one_more.entry(prefix.clone()).or_default().push(position),
                TypePattern::OneOrMore(prefix) => self.one_or_more.entry(prefix.clone()).or_default().push(position),
                TypePattern::All => self.all.push(position),
            }
        }
    }
}
