//! Why an event goes where it goes, for people.

use std::collections::HashMap;
use std::ops::ControlFlow;

use super::{Compiled, RoutingIndex, Rule};
use crate::delivery::Target;
use crate::event::Event;
use crate::expression::{EvaluationBudget, ExpressionError};
use crate::id::EndpointId;
use crate::table::{EndpointRow, SubscriptionRow};

/// What becomes of an event at one endpoint of one subscription, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The subscription and the endpoint.
    pub target: Target,
    /// Name of the subscription.
    pub subscription_name: String,
    /// Name of the endpoint, if it exists.
    pub endpoint_name: Option<String>,
    /// Whether it is sent, or why not.
    pub verdict: Verdict,
    /// More about a filter that did not answer.
    pub filter_error: Option<ExpressionError>,
}

/// What becomes of an event at all endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Explained {
    /// One for each subscription and endpoint, by name of the subscription, then of the endpoint.
    pub explanations: Vec<Explanation>,
    /// Whether there are more than were asked for.
    pub is_truncated: bool,
}

/// Whether an event is sent to a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It is.
    Matched,
    /// It is not.
    NotMatched(NotMatchedReason),
}

/// Why an event is not sent to a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NotMatchedReason {
    /// The subscription is suspended.
    SubscriptionSuspended,
    /// A pattern, the filter or the transform of the subscription does not compile.
    SubscriptionInvalid,
    /// The subscription's endpoint is not in the table.
    EndpointMissing,
    /// No pattern selects the event's type.
    OtherType,
    /// The endpoint belongs to another recipient.
    OtherRecipient,
    /// The filter is false.
    FilterFalse,
    /// The filter does not answer for this event.
    FilterFailed,
}

impl NotMatchedReason {
    /// The stable label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SubscriptionSuspended => "subscription_suspended",
            Self::SubscriptionInvalid => "subscription_invalid",
            Self::EndpointMissing => "endpoint_missing",
            Self::OtherType => "other_type",
            Self::OtherRecipient => "other_recipient",
            Self::FilterFalse => "filter_false",
            Self::FilterFailed => "filter_failed",
        }
    }
}

impl RoutingIndex {
    /// What becomes of an event at the endpoints of its tenant's subscriptions, by name of the subscription, at most
    /// `explanations_max` of them.
    pub fn explain(&self, event: &Event, explanations_max: usize, budget: &mut EvaluationBudget) -> Explained {
        let mut explained = Explained::default();
        let Some(tenant) = self.tenants.get(&event.tenant) else { return explained };
        // Asked as `route` asks, so that the budget ends at the same filter.
        let mut answers = HashMap::new();
        tenant.ask(event, budget, |row, _, answer| {
            answers.insert(row.id, answer);
            ControlFlow::Continue(())
        });
        let mut subscriptions: Vec<&Compiled> = tenant.subscriptions.iter().collect();
        subscriptions.sort_unstable_by_key(|compiled| (&compiled.row.name, compiled.row.id));
        for Compiled { row, rule, .. } in subscriptions {
            let mut endpoints: Vec<(Option<&EndpointRow>, EndpointId)> =
                row.endpoints.iter().map(|id| (self.endpoint_of(row, *id), *id)).collect();
            endpoints.sort_unstable_by_key(|(endpoint, id)| (endpoint.map(|endpoint| &endpoint.name), *id));
            for (endpoint, id) in endpoints {
                if explained.explanations.len() == explanations_max {
                    explained.is_truncated = true;
                    return explained;
                }
                let (verdict, filter_error) = verdict(event, row, rule.as_ref(), endpoint, answers.get(&row.id));
                explained.explanations.push(Explanation {
                    target: Target { subscription: row.id, endpoint: id },
                    subscription_name: row.name.clone(),
                    endpoint_name: endpoint.map(|endpoint| endpoint.name.clone()),
                    verdict,
                    filter_error,
                });
            }
        }
        explained
    }
}

/// Whether an event is sent to one endpoint of one subscription; `answer` is its filter's, if that was asked.
fn verdict(
    event: &Event,
    row: &SubscriptionRow,
    rule: Option<&Rule>,
    endpoint: Option<&EndpointRow>,
    answer: Option<&Result<bool, ExpressionError>>,
) -> (Verdict, Option<ExpressionError>) {
    let not_matched = |reason| (Verdict::NotMatched(reason), None);
    if row.suspended {
        return not_matched(NotMatchedReason::SubscriptionSuspended);
    }
    let Some(rule) = rule else { return not_matched(NotMatchedReason::SubscriptionInvalid) };
    let Some(endpoint) = endpoint else { return not_matched(NotMatchedReason::EndpointMissing) };
    if !rule.patterns.iter().any(|pattern| pattern.matches(&event.event_type)) {
        return not_matched(NotMatchedReason::OtherType);
    }
    if !endpoint.recipient.admits(event.recipient.as_deref()) {
        return not_matched(NotMatchedReason::OtherRecipient);
    }
    match answer {
        Some(Ok(true)) => (Verdict::Matched, None),
        Some(Ok(false)) | None => not_matched(NotMatchedReason::FilterFalse),
        Some(Err(error)) => (Verdict::NotMatched(NotMatchedReason::FilterFailed), Some(error.clone())),
    }
}
