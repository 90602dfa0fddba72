use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::event::render::render;
use crate::expression::fixtures::event;
use crate::limits::{EXPRESSION_DEPTH_MAX, JSON_DEPTH_MAX, TRANSFORM_RESULT_BYTES_MAX};
use crate::table::BodyFormat;

fn apply(transform: &str, data: &str) -> Result<String, ExpressionErrorReason> {
    let transform = Transform::compile(transform).map_err(|error| error.reason)?;
    let result = transform.apply(&event(data.to_owned()), &mut EvaluationBudget::of_transform());
    result.map(|bytes| String::from_utf8(bytes.to_vec()).unwrap()).map_err(|error| error.reason)
}

const ORDER: &str = r#"{"total": 120.50, "count": 3, "big": 18446744073709551615, "least": -9223372036854775808,
    "long": 9007199254740993, "third": 0.30000000000000004, "tiny": 5e-324, "whole": 1e2, "none": null, "yes": true,
    "text": "\u00fc \"\n\u0000", "lines": [{"sku": "b-1", "price": 40}, {"sku": "a-2", "price": 5}],
    "sizes": {"m": 1, "s": 2, "l": 3}}"#;

#[test]
fn a_transform_yields_the_json_of_its_value() {
    for (transform, json) in [
        ("event.data.count", "3"),
        ("{'type': event.type, 'order': event.subject}", r#"{"order":"order/7","type":"order.created"}"#),
        ("{'b': 1, 'a': {'d': null, 'c': true}}", r#"{"a":{"c":true,"d":null},"b":1}"#),
        ("event.data.lines.map(line, line.sku)", r#"["b-1","a-2"]"#),
        ("event.data.lines.filter(line, line.price > 30)", r#"[{"price":40,"sku":"b-1"}]"#),
        (
            "event.data.lines.map(line, {'item': line.sku, 'cents': line.price * 100})",
            r#"[{"cents":4000,"item":"b-1"},{"cents":500,"item":"a-2"}]"#,
        ),
        ("event.data.total > 100.0 ? 'large' : 'small'", r#""large""#),
        ("has(event.data.coupon) ? event.data.coupon : null", "null"),
        ("[]", "[]"),
        ("{}", "{}"),
        ("''", "\"\""),
    ] {
        assert_eq!(apply(transform, ORDER).as_deref(), Ok(json), "{transform}");
    }
}

#[test]
fn numbers_keep_their_kind_and_every_digit() {
    for (transform, json) in [
        ("event.data.big", "18446744073709551615"),
        ("event.data.least", "-9223372036854775808"),
        ("event.data.long", "9007199254740993"),
        ("event.data.long + 1", "9007199254740994"),
        ("event.data.total", "120.5"),
        ("event.data.third", "0.30000000000000004"),
        ("event.data.tiny", "5e-324"),
        ("event.data.whole", "100.0"),
        ("double(event.data.count)", "3.0"),
        ("event.data.count / 2", "1"),
        ("double(event.data.count) / 2.0", "1.5"),
        ("7u", "7"),
    ] {
        assert_eq!(apply(transform, ORDER).as_deref(), Ok(json), "{transform}");
    }
    // A whole number beyond 64 bits would be sent rounded, whether or not the transform looks at it.
    for data in ["{\"n\": 18446744073709551616}", "{\"n\": -9223372036854775809}"] {
        assert_eq!(apply("event.type", data), Err(ExpressionErrorReason::DataUnreadable), "{data}");
    }
}

#[test]
fn what_has_no_form_in_json_is_an_error() {
    let deep = format!("{}1{}", "[".repeat(JSON_DEPTH_MAX), "]".repeat(JSON_DEPTH_MAX));
    for (transform, data, reason) in [
        ("1.0 / 0.0", "{}", ExpressionErrorReason::NotJson),
        ("[0.0 / 0.0]", "{}", ExpressionErrorReason::NotJson),
        ("{1: 'a'}", "{}", ExpressionErrorReason::NotJson),
        ("{true: 'a'}", "{}", ExpressionErrorReason::NotJson),
        ("[event.data]", deep.as_str(), ExpressionErrorReason::ResultTooLarge),
        ("event.data.missing", "{}", ExpressionErrorReason::Evaluation),
        ("event.data.a.b", "{\"a\": 1}", ExpressionErrorReason::Evaluation),
        ("1 / 0", "{}", ExpressionErrorReason::Evaluation),
        ("event.data.a", "{\"a\":", ExpressionErrorReason::DataUnreadable),
    ] {
        assert_eq!(apply(transform, data), Err(reason), "{transform}");
    }
    assert_eq!(apply("event.data", &deep).as_deref(), Ok(deep.as_str()));
}

#[test]
fn what_is_no_transform_is_refused_when_it_is_compiled() {
    let long = format!("'{}'", "x".repeat(TRANSFORM_BYTES_MAX));
    let many = format!("[{}]", vec!["1"; TRANSFORM_NODES_MAX].join(","));
    let deep = format!("{}1{}", "[".repeat(EXPRESSION_DEPTH_MAX + 1), "]".repeat(EXPRESSION_DEPTH_MAX + 1));
    for (transform, reason) in [
        ("", ExpressionErrorReason::Syntax),
        ("{'a': }", ExpressionErrorReason::Syntax),
        ("b'x'", ExpressionErrorReason::Unsupported),
        ("duration('1s')", ExpressionErrorReason::Unsupported),
        ("timestamp(event.time)", ExpressionErrorReason::Unsupported),
        ("type(event)", ExpressionErrorReason::Unsupported),
        ("payload", ExpressionErrorReason::Unsupported),
        ("Message{a: 1}", ExpressionErrorReason::Unsupported),
        (&long, ExpressionErrorReason::TooLarge),
        (&many, ExpressionErrorReason::TooLarge),
        (&deep, ExpressionErrorReason::TooLarge),
    ] {
        let error = Transform::compile(transform).map(|_| ()).unwrap_err();
        assert_eq!(error.reason, reason, "{transform}: {error}");
        assert!(!error.message.contains("filter"), "{error}");
    }
}

#[test]
fn cost_and_size_are_bounded() {
    let text = format!("{{\"s\": \"{}\"}}", "x".repeat(TRANSFORM_RESULT_BYTES_MAX / 2));
    assert_eq!(apply("event.data.s", &text).map(|json| json.len()), Ok(TRANSFORM_RESULT_BYTES_MAX / 2 + 2));
    assert_eq!(apply("[event.data.s, event.data.s]", &text), Err(ExpressionErrorReason::ResultTooLarge));
    let wide = format!("[{}]", vec!["7"; 20_000].join(","));
    for transform in [
        "event.data.map(x, event.data.map(y, x + y))",
        "event.data.map(x, [x, x])",
        "[event.data].map(x, [x, x, x, x]).map(x, [x, x, x, x]).map(x, [x, x, x, x])",
    ] {
        assert_eq!(apply(transform, &wide), Err(ExpressionErrorReason::CostExceeded), "{transform}");
    }
    // A thread that has others to serve gives up early, and says so.
    let mut budget = EvaluationBudget::inline();
    let transform = Transform::compile("event.data").unwrap();
    let reason = transform.apply(&event(wide.clone()), &mut budget).map_err(|error| error.reason);
    assert_eq!((reason, budget.is_exceeded()), (Err(ExpressionErrorReason::CostExceeded), true));
    assert_eq!(apply("event.data", &wide).map(|json| json.len()), Ok(wide.len()));
}

#[test]
fn the_same_event_yields_the_same_bytes() {
    let transform = Transform::compile(
        "{'keys': event.data.map(key, key), 'values': event.data.map(key, event.data[key]), 'all': event.data, \
          'few': event.data.filter(key, event.data[key] > 20)}",
    );
    let transform = transform.unwrap();
    let members: Vec<String> = (0..50).map(|number| format!("\"k{number}\": {number}")).collect();
    let mut reversed = members.clone();
    reversed.reverse();
    let mut results = Vec::new();
    for members in [members, reversed] {
        let event = event(format!("{{{}}}", members.join(",")));
        for _ in 0..10 {
            results.push(transform.apply(&event, &mut EvaluationBudget::of_transform()).unwrap());
        }
    }
    results.dedup();
    assert_eq!(results.len(), 1, "{results:?}");
    assert!(results[0].starts_with(b"{\"all\":{\"k0\":0,\"k1\":1,\"k10\":10,"), "{:?}", results[0]);
}

#[test]
fn the_largest_transforms_fit_the_stack_of_a_thread() {
    for (transform, ok) in [
        (format!("{}1", "1 + ".repeat(120)), true),
        (format!("{}1", "1+".repeat(TRANSFORM_BYTES_MAX / 2 - 1)), false),
        (format!("event{}", ".a".repeat(TRANSFORM_BYTES_MAX / 2 - 3)), false),
        ("a&&".repeat(TRANSFORM_BYTES_MAX / 3 - 1) + "a", false),
        ("a[".repeat(EXPRESSION_DEPTH_MAX) + "a", false),
        (format!("[{}]", vec!["event.type"; 200].join(",")), true),
        (
            format!("{{{}}}", (0..150).map(|number| format!("'k{number}': event.data")).collect::<Vec<_>>().join(",")),
            true,
        ),
    ] {
        assert_eq!(apply(&transform, "{}").is_ok(), ok, "{transform}");
    }
}

#[test]
fn the_result_takes_the_place_of_the_payload_in_every_format() {
    let mut event = event(r#"{"a":1}"#);
    event.content_type = "application/vnd.shop+json".to_owned();
    event.attributes.0.insert("dataschema".to_owned(), "https://shop.example/order.json".to_owned());
    let substituted = substitute(&event, Bytes::from_static(b"{\"b\":2}"));
    let payload = render(BodyFormat::Payload, &substituted);
    assert_eq!((&*payload.content_type, &*payload.body), ("application/json", &b"{\"b\":2}"[..]));
    let binary = render(BodyFormat::CloudEventsBinary, &substituted);
    assert_eq!((&*binary.content_type, &*binary.body), ("application/json", &b"{\"b\":2}"[..]));
    assert!(binary.headers.iter().any(|(name, _)| name == "ce-subject"));
    assert!(binary.headers.iter().all(|(name, _)| name != "ce-dataschema"), "it names the schema of the payload");
    let structured = render(BodyFormat::CloudEventsStructured, &substituted);
    let structured: serde_json::Value = serde_json::from_slice(&structured.body).unwrap();
    assert_eq!(structured["data"], json!({"b": 2}));
    assert_eq!(structured["datacontenttype"], "application/json");
    assert_eq!(structured["id"], event.id.to_string());
    assert_eq!(structured.get("dataschema"), None);
}

fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(serde_json::Value::from),
        any::<i64>().prop_map(serde_json::Value::from),
        any::<u64>().prop_map(serde_json::Value::from),
        any::<f64>().prop_filter("JSON has no other", |number| number.is_finite()).prop_map(serde_json::Value::from),
        ".{0,8}".prop_map(serde_json::Value::from),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(serde_json::Value::from),
            prop::collection::btree_map(".{0,4}", inner, 0..5)
                .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    /// `serde_json` writes objects sorted, and numbers as we do: what comes in goes out.
    #[test]
    fn data_that_is_passed_on_is_not_changed(data in any_json()) {
        let written = data.to_string();
        prop_assert_eq!(apply("event.data", &written), Ok(written.clone()));
        let nested = apply("{'b': [event.data], 'a': event.data}", &written);
        prop_assert_eq!(nested, Ok(format!("{{\"a\":{written},\"b\":[{written}]}}")));
    }
}
