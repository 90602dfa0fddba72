use std::collections::BTreeSet;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::event::Attributes;
use crate::expression::ExpressionErrorReason;
use crate::id::EventId;
use crate::recipient::RecipientRule;
use crate::retry::RetryPolicy;
use crate::table::{BodyFormat, BreakerPolicy, DeliveryPolicy, EndpointState, Sealed, SigningScheme, TenantRow};

fn tenant() -> TenantId {
    TenantId::of_namespace_name("shop")
}

fn tenant_row(name: &str) -> Row {
    Row::Tenant(TenantRow { id: TenantId::of_namespace_name(name), name: name.to_owned() })
}

fn endpoint_of(tenant: TenantId, name: &str, recipient: Option<&str>) -> Row {
    Row::Endpoint(Box::new(EndpointRow {
        id: EndpointId::derive(tenant, name),
        tenant,
        name: name.to_owned(),
        revision: "1".to_owned(),
        recipient: RecipientRule::from_spec(recipient),
        state: EndpointState::Active,
        host: "receiver.example".to_owned(),
        policy: DeliveryPolicy {
            timeout_seconds: 15,
            retry: RetryPolicy::default(),
            rate_limit: None,
            max_in_flight: 32,
            circuit_breaker: BreakerPolicy::default(),
            disable_after_failing_for_seconds: None,
            format: BodyFormat::Payload,
            signing_scheme: SigningScheme::StandardWebhooks,
        },
        pool: "default".to_owned(),
        sealed: Sealed::default(),
    }))
}

fn endpoint(name: &str, recipient: Option<&str>) -> Row {
    endpoint_of(tenant(), name, recipient)
}

fn subscription(name: &str, endpoints: &[&str], event_types: &[&str]) -> SubscriptionRow {
    SubscriptionRow {
        id: SubscriptionId::derive(tenant(), name),
        tenant: tenant(),
        name: name.to_owned(),
        endpoints: endpoints.iter().map(|name| EndpointId::derive(tenant(), name)).collect(),
        event_types: event_types.iter().map(ToString::to_string).collect(),
        filter: None,
        transform: None,
        suspended: false,
    }
}

fn event(event_type: &str, recipient: Option<&str>, data: &'static str) -> Event {
    Event {
        id: EventId::from_parts(1_700_000_000_123, [7; 10]),
        tenant: tenant(),
        event_type: event_type.to_owned(),
        recipient: recipient.map(str::to_owned),
        content_type: "application/json".to_owned(),
        body: Bytes::from_static(data.as_bytes()),
        attributes: Attributes::default(),
    }
}

fn target(subscription: &str, endpoint: &str) -> Target {
    Target {
        subscription: SubscriptionId::derive(tenant(), subscription),
        endpoint: EndpointId::derive(tenant(), endpoint),
    }
}

fn routed(index: &RoutingIndex, event: &Event) -> BTreeSet<Target> {
    let routed = index.route(event, &mut EvaluationBudget::of_request());
    let targets: BTreeSet<Target> = routed.targets.iter().map(|(_, target)| *target).collect();
    assert_eq!(targets.len(), routed.targets.len(), "a target comes twice");
    targets
}

fn explain(index: &RoutingIndex, event: &Event, explanations_max: usize) -> Explained {
    index.explain(event, explanations_max, &mut EvaluationBudget::of_request())
}

#[test]
fn a_table_routes_by_type_recipient_and_filter() {
    let mut filtered = subscription("filtered", &["audit"], &["**"]);
    filtered.filter = Some("event.data.total > 10".to_owned());
    let mut suspended = subscription("suspended", &["billing"], &["**"]);
    suspended.suspended = true;
    let (index, problems) = RoutingIndex::build([
        tenant_row("shop"),
        endpoint("billing", None),
        endpoint("acme", Some("acme")),
        endpoint("audit", Some("*")),
        Row::Subscription(subscription("orders", &["billing", "acme", "gone"], &["order.*", "order.created"])),
        Row::Subscription(filtered),
        Row::Subscription(suspended),
    ]);
    assert_eq!(problems, []);
    let large = r#"{"total": 11}"#;
    for (event, expected) in [
        (event("order.created", None, large), vec![target("orders", "billing"), target("filtered", "audit")]),
        (event("order.created", Some("acme"), "{\"total\": 1}"), vec![target("orders", "acme")]),
        (event("order.created", Some("other"), large), vec![target("filtered", "audit")]),
        (event("invoice.sent", None, "{\"total\": 1}"), vec![]),
    ] {
        assert_eq!(routed(&index, &event), expected.into_iter().collect(), "{event:?}");
    }
    assert_eq!(index.tenant("shop"), Some(tenant()));
    assert_eq!(index.tenant("other"), None);
    assert_eq!(index.endpoints_of(tenant()).count(), 3);
    assert_eq!(index.subscriptions_of(tenant()).count(), 3);
    let orders = SubscriptionId::derive(tenant(), "orders");
    assert_eq!(index.subscription(orders).map(|row| row.name.as_str()), Some("orders"));
}

#[test]
fn explanations_name_the_reason_for_every_target() {
    let mut filtered = subscription("filtered", &["audit"], &["**"]);
    filtered.filter = Some("event.data.total > 10".to_owned());
    let mut failing = subscription("failing", &["audit"], &["**"]);
    failing.filter = Some("event.data.missing".to_owned());
    let mut invalid = subscription("invalid", &["audit"], &["**"]);
    invalid.filter = Some("event.data >".to_owned());
    let mut suspended = subscription("suspended", &["billing"], &["**"]);
    suspended.suspended = true;
    let (index, problems) = RoutingIndex::build([
        endpoint("billing", None),
        endpoint("acme", Some("acme")),
        endpoint("audit", Some("*")),
        Row::Subscription(subscription("orders", &["billing", "acme", "gone"], &["order.*"])),
        Row::Subscription(subscription("invoices", &["billing"], &["invoice.*"])),
        Row::Subscription(filtered),
        Row::Subscription(failing),
        Row::Subscription(invalid),
        Row::Subscription(suspended),
    ]);
    assert_eq!(problems.iter().map(|problem| problem.name.as_str()).collect::<Vec<_>>(), ["invalid"]);
    let event = event("order.created", None, "{\"total\": 1}");
    let Explained { explanations, is_truncated } = explain(&index, &event, 8);
    assert!(!is_truncated);
    let verdicts: Vec<(&str, Option<&str>, Verdict)> = explanations
        .iter()
        .map(|one| (one.subscription_name.as_str(), one.endpoint_name.as_deref(), one.verdict))
        .collect();
    assert_eq!(
        verdicts,
        [
            ("failing", Some("audit"), Verdict::NotMatched(NotMatchedReason::FilterFailed)),
            ("filtered", Some("audit"), Verdict::NotMatched(NotMatchedReason::FilterFalse)),
            ("invalid", Some("audit"), Verdict::NotMatched(NotMatchedReason::SubscriptionInvalid)),
            ("invoices", Some("billing"), Verdict::NotMatched(NotMatchedReason::OtherType)),
            ("orders", None, Verdict::NotMatched(NotMatchedReason::EndpointMissing)),
            ("orders", Some("acme"), Verdict::NotMatched(NotMatchedReason::OtherRecipient)),
            ("orders", Some("billing"), Verdict::Matched),
            ("suspended", Some("billing"), Verdict::NotMatched(NotMatchedReason::SubscriptionSuspended)),
        ]
    );
    let first = explain(&index, &event, 7);
    assert_eq!((&first.explanations[..], first.is_truncated), (&explanations[..7], true));
    let routed = index.route(&event, &mut EvaluationBudget::of_request());
    assert_eq!(routed.filter_errors.len(), 1);
    assert_eq!(routed.filter_errors[0].error.reason, ExpressionErrorReason::Evaluation);
}

#[test]
fn what_a_subscription_sends_is_known_while_it_is_in_the_table() {
    let row = |name: &str, transform: Option<&str>, suspended: bool| {
        let transform = transform.map(str::to_owned);
        Row::Subscription(SubscriptionRow { transform, suspended, ..subscription(name, &["billing"], &["**"]) })
    };
    let (index, problems) = RoutingIndex::build([
        endpoint("billing", None),
        row("plain", None, false),
        row("shaped", Some("event.data.a"), false),
        row("suspended", Some("event.data.a"), true),
        row("broken", Some("event.data."), false),
    ]);
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].name, "broken");
    assert!(problems[0].message.starts_with("transform: "), "{}", problems[0].message);
    let content = |name: &str| index.content(SubscriptionId::derive(tenant(), name));
    assert!(matches!(content("plain"), Some(Content::Payload)));
    assert!(matches!(content("shaped"), Some(Content::Transformed(_))));
    assert!(matches!(content("suspended"), Some(Content::Transformed(_))), "what it matched before still goes");
    assert!(matches!(content("broken"), Some(Content::Invalid(_))));
    assert!(content("gone").is_none());
    // A subscription of which nothing could be sent matches nothing.
    let targets = [target("plain", "billing"), target("shaped", "billing")];
    assert_eq!(routed(&index, &event("x", None, "{}")), targets.into());
}

#[test]
fn a_subscription_reaches_no_endpoint_of_another_tenant() {
    let other = TenantId::of_namespace_name("other");
    let mut stolen = subscription("stolen", &[], &["**"]);
    stolen.endpoints = vec![EndpointId::derive(other, "sink")];
    let (index, _) = RoutingIndex::build([endpoint_of(other, "sink", None), Row::Subscription(stolen)]);
    let event = event("order.created", None, "{}");
    assert_eq!(index.route(&event, &mut EvaluationBudget::of_request()), Routed::default());
    assert_eq!(
        explain(&index, &event, 10).explanations[0].verdict,
        Verdict::NotMatched(NotMatchedReason::EndpointMissing)
    );
}

#[test]
fn the_fan_out_is_bounded_and_says_so() {
    let names: Vec<String> = (0..=FANOUT_MAX).map(|number| format!("e{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let rows = |count: usize| {
        let endpoints = names[..count].iter().map(|name| endpoint(name, None));
        endpoints.chain([Row::Subscription(subscription("all", &names[..count], &["**"]))]).collect::<Vec<_>>()
    };
    for (count, is_truncated) in [(FANOUT_MAX, false), (FANOUT_MAX + 1, true)] {
        let routed =
            RoutingIndex::build(rows(count)).0.route(&event("x", None, "{}"), &mut EvaluationBudget::of_request());
        assert_eq!((routed.targets.len(), routed.is_truncated), (FANOUT_MAX, is_truncated));
    }
}

#[test]
fn filters_beyond_the_budget_fail_and_the_others_answer() {
    let rows = (0..20).map(|number| {
        let mut row = subscription(&format!("s{number:02}"), &["audit"], &["**"]);
        row.filter = Some("event.data.exists(x, x == 7)".to_owned());
        Row::Subscription(row)
    });
    let (index, _) = RoutingIndex::build(rows.chain([endpoint("audit", None)]));
    let event = event("x", None, "[1, 2, 3, 4, 5, 6, 7]");
    let mut budget = EvaluationBudget::new(1_000, 1_500);
    for (least, most) in [(1, 19), (1, 10), (0, 0)] {
        let routed = index.route(&event, &mut budget);
        assert_eq!(routed.targets.len() + routed.filter_errors.len(), 20);
        assert!((least..=most).contains(&routed.targets.len()), "{} targets", routed.targets.len());
        for failure in routed.filter_errors {
            assert_eq!(failure.error.reason, ExpressionErrorReason::CostExceeded);
        }
    }
    assert!(budget.is_exceeded());
    let explained = index.explain(&event, 20, &mut EvaluationBudget::new(1_000, 1_000)).explanations;
    let failed = |one: &&Explanation| one.verdict == Verdict::NotMatched(NotMatchedReason::FilterFailed);
    assert!((1..20).contains(&explained.iter().filter(failed).count()));
    let plenty = index.route(&event, &mut EvaluationBudget::of_request());
    assert_eq!((plenty.targets.len(), plenty.filter_errors.len()), (20, 0));
}

fn event_type() -> impl Strategy<Value = String> {
    "[ab](\\.[ab]){0,3}"
}

fn recipient() -> impl Strategy<Value = Option<&'static str>> {
    prop::sample::select(vec![None, Some("acme"), Some("globex")])
}

fn table() -> impl Strategy<Value = Vec<Row>> {
    let rule = prop::sample::select(vec![None, Some("acme"), Some("globex"), Some("*")]);
    let endpoints = prop::collection::vec((0..6_usize, rule), 0..8);
    let pattern = prop_oneof![
        event_type(),
        event_type().prop_map(|text| text + ".*"),
        event_type().prop_map(|text| text + ".**"),
        Just("**".to_owned())
    ];
    let filter = prop::sample::select(vec![
        None,
        None,
        Some("event.data.n > 1"),
        Some("event.type == 'a.b'"),
        Some("event.data.x"),
    ]);
    let one = (
        prop::collection::vec(0..7_usize, 0..5),
        prop::collection::vec(pattern, 1..4),
        filter,
        prop::bool::weighted(0.1),
    );
    (endpoints, prop::collection::vec(one, 0..8)).prop_map(|(endpoints, subscriptions)| {
        let mut rows: Vec<Row> =
            endpoints.into_iter().map(|(number, recipient)| endpoint(&format!("e{number}"), recipient)).collect();
        for (number, (endpoints, patterns, filter, suspended)) in subscriptions.into_iter().enumerate() {
            let mut row = subscription(&format!("s{number}"), &[], &[]);
            row.endpoints =
                endpoints.iter().map(|number| EndpointId::derive(tenant(), &format!("e{number}"))).collect();
            row.event_types = patterns;
            row.filter = filter.map(str::to_owned);
            row.suspended = suspended;
            rows.push(Row::Subscription(row));
        }
        rows
    })
}

/// Every subscription against every endpoint, straight from the rows.
fn naive(rows: &[Row], event: &Event) -> BTreeSet<Target> {
    let mut endpoints: HashMap<EndpointId, &EndpointRow> = HashMap::new();
    for row in rows {
        if let Row::Endpoint(row) = row {
            endpoints.insert(row.id, row);
        }
    }
    let mut targets = BTreeSet::new();
    for row in rows {
        let Row::Subscription(row) = row else { continue };
        let mut budget = EvaluationBudget::of_request();
        let input = EventInput::read(event, &mut budget).unwrap();
        let has_type = row.event_types.iter().any(|text| TypePattern::parse(text).unwrap().matches(&event.event_type));
        let is_true = row
            .filter
            .as_deref()
            .is_none_or(|text| Filter::compile(text).unwrap().matches(&input, &mut budget).unwrap_or(false));
        for endpoint in row.endpoints.iter().filter_map(|id| endpoints.get(id)) {
            if !row.suspended && has_type && is_true && endpoint.recipient.admits(event.recipient.as_deref()) {
                targets.insert(Target { subscription: row.id, endpoint: endpoint.id });
            }
        }
    }
    targets
}

proptest! {
    #[test]
    fn the_index_routes_as_the_naive_match_does(
        rows in table(),
        event_type in event_type(),
        recipient in recipient(),
        data in prop::sample::select(vec!["{\"n\": 1}", "{\"n\": 2}", "[]", "{", "{\"x\": true}"]),
    ) {
        let event = event(&event_type, recipient, data);
        let expected = naive(&rows, &event);
        let (index, problems) = RoutingIndex::build(rows);
        prop_assert_eq!(problems, []);
        prop_assert_eq!(&routed(&index, &event), &expected);
        let explained: BTreeSet<Target> = explain(&index, &event, usize::MAX)
            .explanations
            .into_iter()
            .filter(|one| one.verdict == Verdict::Matched)
            .map(|one| one.target)
            .collect();
        prop_assert_eq!(&explained, &expected);
    }

    #[test]
    fn a_dry_run_says_what_happens_however_small_the_budget(
        rows in table(),
        event_type in event_type(),
        recipient in recipient(),
        data in prop::sample::select(vec!["{\"n\": 1}", "{\"n\": 2}", "{", "{\"x\": true}"]),
        steps in 0_u64..60,
    ) {
        let event = event(&event_type, recipient, data);
        let (index, _) = RoutingIndex::build(rows);
        let routed = index.route(&event, &mut EvaluationBudget::new(steps, steps));
        let explained = index.explain(&event, usize::MAX, &mut EvaluationBudget::new(steps, steps)).explanations;
        let matched: BTreeSet<Target> =
            explained.iter().filter(|one| one.verdict == Verdict::Matched).map(|one| one.target).collect();
        prop_assert_eq!(matched, routed.targets.iter().map(|(_, target)| *target).collect::<BTreeSet<_>>());
        let failed: BTreeSet<SubscriptionId> =
            explained.iter().filter(|one| one.filter_error.is_some()).map(|one| one.target.subscription).collect();
        prop_assert_eq!(failed, routed.filter_errors.iter().map(|failure| failure.subscription).collect::<BTreeSet<_>>());
    }
}
