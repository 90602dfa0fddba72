//! The resource types, the data plane and the pages say the same.

use dispatcher_core::event::{Attributes, Event};
use dispatcher_core::expression::{EvaluationBudget, EventInput};
use dispatcher_core::filter::Filter;
use dispatcher_core::id::{EventId, TenantId};
use dispatcher_core::limits::TRANSFORM_RESULT_BYTES_MAX;
use dispatcher_core::pattern::{TypePattern, validate_event_type};
use dispatcher_core::sign::{Message, sign};
use dispatcher_core::table::{KeyBytes, SigningKey, SigningScheme};
use dispatcher_core::transform::Transform;
use serde_json::{Value, json};

const SUBSCRIPTION_PAGE: &str = include_str!("../../../docs/subscription.md");

fn admits(kind: &str, spec: &Value) -> bool {
    let object = json!({
        "apiVersion": "harborhook.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": "a", "namespace": "shop"},
        "spec": spec,
    });
    crds::admission::admit(&object).is_ok()
}

fn admits_type(text: &str) -> bool {
    admits("Subscription", &json!({"endpointRef": {"name": "e"}, "eventTypes": [text]}))
}

fn admits_header(name: &str) -> bool {
    admits("Endpoint", &json!({"url": "https://example.com/", "headers": [{"name": name, "value": "1"}]}))
}

#[test]
fn event_types_and_patterns_are_the_same_in_the_schema_and_in_the_data_plane() {
    let sixteen = ["a"; 16].join(".");
    let longest = "a".repeat(128);
    // Text, whether it is a type, whether it is a pattern; a type is always a pattern that selects itself.
    for (text, is_type, is_pattern) in [
        ("order", true, true),
        ("order.created", true, true),
        ("Order_2.line-item", true, true),
        ("com.example/order:created.v1", true, true),
        ("/", true, true),
        (":", true, true),
        ("urn:shop:order", true, true),
        (&sixteen, true, true),
        (&longest, true, true),
        ("order.*", false, true),
        ("order.**", false, true),
        ("a/b:c.*", false, true),
        ("**", false, true),
        ("*", false, false),
        ("*.created", false, false),
        ("order.*.created", false, false),
        ("order.***", false, false),
        ("order*", false, false),
        ("", false, false),
        (".", false, false),
        ("order.", false, false),
        (".order", false, false),
        ("order..created", false, false),
        ("order created", false, false),
        ("order+created", false, false),
        ("order@2", false, false),
        ("bestellung.größe", false, false),
        ("order\n", false, false),
        (&format!("{sixteen}.a"), false, false),
        (&format!("{sixteen}.*"), false, false),
        (&format!("{longest}a"), false, false),
    ] {
        assert_eq!(validate_event_type(text).is_ok(), is_type, "type {text:?}");
        assert_eq!(TypePattern::parse(text).is_ok(), is_pattern, "pattern {text:?}");
        assert_eq!(admits_type(text), is_pattern, "schema {text:?}");
    }
}

#[test]
fn every_header_that_a_scheme_sets_is_reserved() {
    assert!(admits_header("x-team"));
    let keys = [SigningKey { bytes: KeyBytes(vec![7; 32]).into(), retires_at_unix_ms: None }];
    let message = Message { id: "msg_1", unix_seconds: 1_700_000_000, body: b"{}" };
    for scheme in [
        SigningScheme::StandardWebhooks,
        SigningScheme::StandardWebhooksEd25519,
        SigningScheme::HarborHook,
        SigningScheme::GitHub,
        SigningScheme::Stripe,
    ] {
        for (name, _) in sign(scheme, &keys, 1_700_000_000_000, &message).unwrap() {
            assert!(!admits_header(name.as_str()), "{scheme:?} sets {name}");
        }
    }
}

/// An event with the payload that the page names after these words, and the first two columns of the table that
/// follows.
fn table_after(words: &str) -> (Event, Vec<[&'static str; 2]>) {
    let (_, after) = SUBSCRIPTION_PAGE.split_once(words).unwrap();
    let (payload, after) = after.split_once('`').unwrap();
    let rows = after.lines().skip_while(|line| !line.starts_with("| `")).take_while(|line| line.starts_with("| `"));
    let cells = rows.map(|row| {
        let mut cells = row.split(" | ").map(|cell| cell.trim_matches(['|', ' ', '`']));
        [cells.next().unwrap(), cells.next().unwrap()]
    });
    let event = Event {
        id: EventId::from_parts(1_700_000_000_000, [7; 10]),
        tenant: TenantId::of_namespace_name("shop"),
        event_type: "order.created".to_owned(),
        recipient: None,
        content_type: "application/json".to_owned(),
        body: payload.to_owned().into(),
        attributes: Attributes::default(),
    };
    (event, cells.collect())
}

#[test]
fn filters_answer_as_their_page_says() {
    let (event, rows) = table_after("answer on the payload `");
    let input = EventInput::read(&event, &mut EvaluationBudget::of_request()).unwrap();
    assert!(rows.len() >= 10, "{rows:?}");
    for [filter, expected] in rows {
        let mut budget = EvaluationBudget::of_request();
        let answer = Filter::compile(filter).and_then(|filter| filter.matches(&input, &mut budget));
        assert_eq!(answer.map_or("error".to_owned(), |answer| answer.to_string()), expected, "{filter}");
    }
}

#[test]
fn transforms_yield_what_their_page_says() {
    let (event, rows) = table_after("yield on the payload `");
    assert!(rows.len() >= 10, "{rows:?}");
    for [transform, expected] in rows {
        let mut budget = EvaluationBudget::of_transform();
        let result = Transform::compile(transform).and_then(|transform| transform.apply(&event, &mut budget));
        let result = result.map_or("error".to_owned(), |json| String::from_utf8(json.to_vec()).unwrap());
        assert_eq!(result, expected, "{transform}");
    }
}

#[test]
fn the_page_names_the_limits_of_filters_and_transforms() {
    for limit in [
        format!("{} bytes", dispatcher_core::limits::TRANSFORM_BYTES_MAX),
        format!("{} parts", dispatcher_core::limits::TRANSFORM_NODES_MAX),
        format!(
            "{} MiB and {} levels",
            TRANSFORM_RESULT_BYTES_MAX / 1024 / 1024,
            dispatcher_core::limits::JSON_DEPTH_MAX
        ),
        format!("{} bytes", dispatcher_core::limits::FILTER_BYTES_MAX),
        format!("{} parts", dispatcher_core::limits::FILTER_NODES_MAX),
        format!("{} levels", dispatcher_core::limits::EXPRESSION_DEPTH_MAX),
        "1,000,000 steps".to_owned(),
    ] {
        assert!(SUBSCRIPTION_PAGE.contains(&limit), "{limit}");
    }
    assert_eq!(dispatcher_core::limits::FILTER_COST_MAX, 1_000_000);
    assert_eq!(dispatcher_core::limits::TRANSFORM_COST_MAX, dispatcher_core::limits::FILTER_COST_MAX);
}
