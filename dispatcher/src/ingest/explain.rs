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
enum Transformed {
    /// The JSON that is sent instead of the payload.
    #[serde(rename = "transformed")]
    Made(Arc<RawValue>),
    /// Why there is none.
    #[serde(rename = "transform_error")]
    Failed(String),
    /// Why it is not said what there is: a dry run has bounds for all transforms together, which delivery has not.
    #[serde(rename = "transform_not_shown")]
    NotShown(&'static str),
}

/// Transforms an event once for each subscription, until that costs too much or there is too much to show.
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
    // All filters have answered by now: what transforms cost takes nothing from them, and each has steps of its own.
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
        if let Some(Transformed::Made(json)) = &shown {
            let Some(bytes_left) = self.bytes_left.checked_sub(json.get().len()) else {
                let message = "There is more than one answer may show; ask with a smaller event.";
                return Some(Transformed::NotShown(message));
            };
            self.bytes_left = bytes_left;
        }
        shown
    }

    fn make(&mut self, subscription: SubscriptionId) -> Option<Transformed> {
        let transform = match self.snapshot.index.content(subscription)? {
            Content::Payload => return None,
            Content::Invalid(error) => return Some(Transformed::Failed(error.to_string())),
            Content::Transformed(transform) => transform,
        };
        let mut budget = self.budget.of_next_transform();
        let made = transform.apply(self.event, &mut budget).map_err(|error| error.to_string());
        self.budget.settle(&budget);
        if budget.is_exceeded() {
            let message = "The transforms cost more than one dry run may; ask with a smaller event.";
            return Some(Transformed::NotShown(message));
        }
        let made = made.and_then(|json| {
            serde_json::from_slice::<Box<RawValue>>(&json).map_err(|_| "The result is not JSON.".to_owned())
        });
        Some(made.map_or_else(Transformed::Failed, |json| Transformed::Made(json.into())))
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

#[cfg(test)]
mod tests {
    use dispatcher_core::event::Attributes;
    use dispatcher_core::id::{EndpointId, EventId, TenantId};
    use dispatcher_core::route::RoutingIndex;
    use dispatcher_core::table::{Row, SubscriptionRow};
    use dispatcher_core::transform::Transform;
    use serde_json::{Value, json};

    use super::*;

    const EVERYTHING: &str = "{'all': event.data}";

    /// What a dry run says, of subscriptions with these filters and transforms, in their order.
    fn explained(rows: &[(Option<&str>, &str)], event: &Event, budget: &mut EvaluationBudget) -> Vec<Value> {
        let rows = rows.iter().enumerate().map(|(number, (filter, transform))| {
            let name = format!("s{number}");
            Row::Subscription(SubscriptionRow {
                id: SubscriptionId::derive(event.tenant, &name),
                tenant: event.tenant,
                name,
                endpoints: vec![EndpointId::derive(event.tenant, "e")],
                event_types: vec!["**".into()],
                filter: filter.map(str::to_owned),
                transform: Some((*transform).to_owned()),
                suspended: false,
            })
        });
        let (index, problems) = RoutingIndex::build(std::iter::once(endpoint(event.tenant)).chain(rows));
        assert!(problems.is_empty(), "{problems:?}");
        let snapshot = Snapshot { index: Arc::new(index), ..Snapshot::empty() };
        let view = serde_json::to_value(explain(&snapshot, event, budget)).unwrap();
        view["matched"].as_array().unwrap().clone()
    }

    fn endpoint(tenant: TenantId) -> Row {
        Row::Endpoint(Box::new(crate::deliver::tests::endpoint_row(tenant, "e")))
    }

    fn event(body: String) -> Event {
        Event {
            id: EventId::from_parts(1, [0; 10]),
            tenant: TenantId::of_namespace_name("shop"),
            event_type: "a".into(),
            recipient: None,
            content_type: "application/json".into(),
            body: body.into(),
            attributes: Attributes::default(),
        }
    }

    /// Steps that one transform takes, found out by giving it ever more.
    fn steps_of(transform: &str, event: &Event) -> u64 {
        let transform = Transform::compile(transform).unwrap();
        let suffice = |steps: u64| transform.apply(event, &mut EvaluationBudget::new(steps, steps)).is_ok();
        (1..10_000).find(|steps| suffice(*steps)).unwrap()
    }

    #[test]
    fn a_transform_has_its_own_steps_whatever_filters_and_other_transforms_took() {
        let event = event("[1,2,3,4,5,6,7,8]".to_owned());
        let steps = steps_of(EVERYTHING, &event);
        // More transforms than the steps of one event would suffice for.
        let (event_steps, count) = (1_000, 1_000 / steps + 1);
        let mut rows = vec![(None, EVERYTHING); usize::try_from(count).unwrap()];
        rows[0].0 = Some("event.data.exists(x, x == 8)");
        let mut budget = EvaluationBudget::new(event_steps, event_steps + count * steps);
        for shown in explained(&rows, &event, &mut budget) {
            assert_eq!(shown["transformed"], json!({"all": [1, 2, 3, 4, 5, 6, 7, 8]}), "{shown}");
        }
        assert!(!budget.is_exceeded());
    }

    #[test]
    fn what_one_answer_may_not_hold_is_not_shown_and_is_no_error() {
        let small = event("[1,2,3,4,5,6,7,8]".to_owned());
        let steps = steps_of(EVERYTHING, &small);
        let mut budget = EvaluationBudget::new(2 * steps - 1, 2 * steps - 1);
        let rows = [(None, EVERYTHING), (None, EVERYTHING), (None, "event.data.missing")];
        let shown = explained(&rows[..2], &small, &mut budget);
        assert!(shown[0].get("transformed").is_some() && shown[1].get("transformed").is_none(), "{shown:?}");
        assert!(shown[1]["transform_not_shown"].as_str().unwrap().contains("cost"), "{shown:?}");
        assert!(shown[1].get("transform_error").is_none() && budget.is_exceeded(), "{shown:?}");

        let large = event(format!("\"{}\"", "x".repeat(900_000)));
        let shown = explained(&[rows[0], rows[0], rows[0], rows[2]], &large, &mut EvaluationBudget::of_request());
        assert!(shown[1].get("transformed").is_some(), "two fit");
        assert!(shown[2]["transform_not_shown"].as_str().unwrap().contains("more than one answer"));
        assert!(shown[2].get("transformed").is_none() && shown[2].get("transform_error").is_none());
        assert!(shown[3].get("transform_error").is_some(), "{}", shown[3]);
    }
}
