//! The dry run of routing: which endpoints would get an event, and why the others would not.

use dispatcher_core::event::Event;
use dispatcher_core::filter::FilterBudget;
use dispatcher_core::limits::EXPLANATIONS_MAX;
use dispatcher_core::route::{Explanation, NotMatchedReason, Verdict};
use serde::Serialize;

use crate::api::views::endpoint_state;
use crate::snapshot::Snapshot;

/// What would become of an event.
#[derive(Debug, Serialize)]
pub(super) struct RouteView {
    matched: Vec<MatchedView>,
    not_matched: Vec<NotMatchedView>,
    /// Whether there is more than one answer may hold.
    truncated: bool,
}

#[derive(Debug, Serialize)]
struct MatchedView {
    subscription: String,
    endpoint: Option<String>,
    /// Only an `active` endpoint receives at once; deliveries to others wait.
    endpoint_state: &'static str,
}

#[derive(Debug, Serialize)]
struct NotMatchedView {
    subscription: String,
    endpoint: Option<String>,
    reason: &'static str,
    message: String,
}

/// Explains routing by the present table, as if the event were accepted now.
pub(super) fn explain(snapshot: &Snapshot, event: &Event, budget: &mut FilterBudget) -> RouteView {
    let explained = snapshot.index.explain(event, EXPLANATIONS_MAX, budget);
    let mut view = RouteView { matched: Vec::new(), not_matched: Vec::new(), truncated: explained.is_truncated };
    for explanation in explained.explanations {
        match explanation.verdict {
            Verdict::Matched => {
                let row = snapshot.index.endpoint(explanation.target.endpoint);
                view.matched.push(MatchedView {
                    subscription: explanation.subscription_name,
                    endpoint: explanation.endpoint_name,
                    endpoint_state: row.map_or("absent", |row| endpoint_state(row, snapshot).0),
                });
            }
            Verdict::NotMatched(reason) => view.not_matched.push(NotMatchedView {
                reason: reason.as_str(),
                message: message(reason, &explanation, event),
                subscription: explanation.subscription_name,
                endpoint: explanation.endpoint_name,
            }),
        }
    }
    view
}

fn message(reason: NotMatchedReason, explanation: &Explanation, event: &Event) -> String {
    match reason {
        NotMatchedReason::SubscriptionSuspended => "The subscription is suspended.".to_owned(),
        NotMatchedReason::SubscriptionInvalid => {
            "A pattern or the filter of the subscription does not compile.".to_owned()
        }
        NotMatchedReason::EndpointMissing => "The endpoint that the subscription names does not exist.".to_owned(),
        NotMatchedReason::OtherType => {
            format!("None of the subscription's event types selects `{}`.", event.event_type)
        }
        NotMatchedReason::OtherRecipient => match &event.recipient {
            None => "The endpoint receives only events of its recipient, and the event names none.".to_owned(),
            Some(recipient) => format!("The endpoint does not receive events of the recipient `{recipient}`."),
        },
        NotMatchedReason::FilterFalse => "The subscription's filter is false for this event.".to_owned(),
        NotMatchedReason::FilterFailed => match &explanation.filter_error {
            None => "The subscription's filter gives no answer for this event.".to_owned(),
            Some(error) => format!("The subscription's filter gives no answer for this event: {error}"),
        },
    }
}
