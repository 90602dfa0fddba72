//! The dry run of routing: which endpoints would get an event, what of it, and why the others would not.

use std::collections::HashMap;
use std::sync::Arc;

use dispatcher_core::event::Event;
use dispatcher_core::expression::EvaluationBudget;
use dispatcher_core::id::SubscriptionId;
use dispatcher_core::limits::{EXPLANATIONS_MAX, TRANSFORM_RESULTS_SHOWN_BYTES_MAX};
use dispatcher_core::route::{Content, Explanation, NotMatchedReason, Verdict};
use serde::Serialize;
use serde_json::value::RawValue;

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
    /// Only where the subscription has a transform.
    #[serde(flatten)]
    transformed: Option<Transformed>,
}

/// What a subscription's transform makes of the event.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Transformed {
    /// The JSON that is sent instead of the payload.
    Transformed(Arc<RawValue>),
    /// Why there is none, or why it is not shown.
    TransformError(String),
}

/// Transforms an event once for each subscription, until there is too much to show.
struct Transforms<'a> {
    snapshot: &'a Snapshot,
    event: &'a Event,
    budget: &'a mut EvaluationBudget,
    bytes_left: usize,
    known: HashMap<SubscriptionId, Option<Transformed>>,
}

#[derive(Debug, Serialize)]
struct NotMatchedView {
    subscription: String,
    endpoint: Option<String>,
    reason: &'static str,
    message: String,
}

/// Explains routing by the present table, as if the event were accepted now.
pub(super) fn explain(snapshot: &Snapshot, event: &Event, budget: &mut EvaluationBudget) -> RouteView {
    let explained = snapshot.index.explain(event, EXPLANATIONS_MAX, budget);
    let mut view = RouteView { matched: Vec::new(), not_matched: Vec::new(), truncated: explained.is_truncated };
    // All filters have answered by now: what transforms cost takes nothing from them.
    let bytes_left = TRANSFORM_RESULTS_SHOWN_BYTES_MAX;
    let mut transforms = Transforms { snapshot, event, budget, bytes_left, known: HashMap::new() };
    for explanation in explained.explanations {
        match explanation.verdict {
            Verdict::Matched => {
                let row = snapshot.index.endpoint(explanation.target.endpoint);
                view.matched.push(MatchedView {
                    transformed: transforms.of(explanation.target.subscription),
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

impl Transforms<'_> {
    fn of(&mut self, subscription: SubscriptionId) -> Option<Transformed> {
        if !self.known.contains_key(&subscription) {
            let made = self.make(subscription);
            self.known.insert(subscription, made);
        }
        let shown = self.known.get(&subscription)?.clone();
        if let Some(Transformed::Transformed(json)) = &shown {
            let Some(bytes_left) = self.bytes_left.checked_sub(json.get().len()) else {
                let message = "There is more than one answer may show; ask with a smaller event.";
                return Some(Transformed::TransformError(message.to_owned()));
            };
            self.bytes_left = bytes_left;
        }
        shown
    }

    fn make(&mut self, subscription: SubscriptionId) -> Option<Transformed> {
        let transform = match self.snapshot.index.content(subscription)? {
            Content::Payload => return None,
            Content::Invalid(error) => return Some(Transformed::TransformError(error.to_string())),
            Content::Transformed(transform) => transform,
        };
        let made = transform.apply(self.event, self.budget).map_err(|error| error.to_string());
        let made = made.and_then(|json| {
            serde_json::from_slice::<Box<RawValue>>(&json).map_err(|_| "The result is not JSON.".to_owned())
        });
        Some(made.map_or_else(Transformed::TransformError, |json| Transformed::Transformed(json.into())))
    }
}

fn message(reason: NotMatchedReason, explanation: &Explanation, event: &Event) -> String {
    match reason {
        NotMatchedReason::SubscriptionSuspended => "The subscription is suspended.".to_owned(),
        NotMatchedReason::SubscriptionInvalid => {
            "A pattern, the filter or the transform of the subscription does not compile.".to_owned()
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
