use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;

use super::cloudevents::{BATCH, STRUCTURED};
use super::*;
use crate::limits::{ATTRIBUTES_MAX, BATCH_EVENTS_MAX, JSON_DEPTH_MAX};
use crate::table::BodyFormat;

fn publish(text: impl Into<Bytes>) -> Result<Draft, EventError> {
    native::parse_publish(&text.into())
}

fn headers(entries: &[(&str, &str)]) -> HeaderMap {
    entries
        .iter()
        .map(|(name, value)| (HeaderName::try_from(*name).unwrap(), HeaderValue::try_from(*value).unwrap()))
        .collect()
}

fn structured(text: &str) -> Result<Draft, EventError> {
    let body = Bytes::from(text.to_owned());
    cloudevents::parse(&headers(&[("content-type", STRUCTURED)]), &body).map(|mut drafts| drafts.remove(0))
}

fn accepted(draft: Draft) -> Event {
    draft.into_event(EventId::from_parts(1_700_000_000_123, [7; 10]), TenantId::of_namespace_name("shop"))
}

#[test]
fn the_payload_of_a_publish_request_is_its_very_bytes() {
    for payload in [
        "{}",
        "null",
        "7",
        "\"text\"",
        "[1, 2 , 3]",
        "{ \"b\":1,\n\t\"a\" : 2, \"b\": 3 }",
        "1e999",
        "-0.0",
        "1E+2",
        "123456789012345678901234567890.000",
        "\"\\ud800\"",
        "\"\\u00e9 é \\/\"",
        "{\"event_type\": \"inner\"}",
    ] {
        let request = Bytes::from(format!("{{\"payload\":  {payload}  ,\"event_type\":\"order.created\"}}"));
        let draft = native::parse_publish(&request).unwrap();
        assert_eq!(draft.body, payload.as_bytes());
    }
}

#[test]
fn a_body_is_a_slice_of_its_request_only_where_it_is_most_of_it() {
    let native = |payload: &str, space: usize| {
        let request = Bytes::from(format!("{{\"event_type\":\"a\",\"payload\":{}{payload}}}", " ".repeat(space)));
        (request.clone(), native::parse_publish(&request).unwrap().body)
    };
    let structured = |payload: &str, space: usize| {
        let request = format!(
            r#"{{"specversion":"1.0","id":"1","source":"/s","type":"a","data":{}{payload}}}"#,
            " ".repeat(space)
        );
        let (request, headers) = (Bytes::from(request), headers(&[("content-type", cloudevents::STRUCTURED)]));
        (request.clone(), cloudevents::parse(&headers, &request).unwrap().remove(0).body)
    };
    let large = format!("[{}0]", "7,".repeat(1_000));
    for ((request, body), payload, is_slice) in [
        (native(&large, 0), large.as_str(), true),
        (structured(&large, 0), &large, true),
        (native("12345678", 4_000_000), "12345678", false),
        (structured("12345678", 4_000_000), "12345678", false),
    ] {
        assert_eq!(body, payload.as_bytes());
        let lies_within = request.as_ptr_range().contains(&body.as_ptr());
        assert_eq!(lies_within, is_slice, "{} bytes of {}", body.len(), request.len());
    }
}

#[test]
fn publish_requests_are_refused_with_reason_and_field() {
    let deep =
        format!("{{\"event_type\":\"a\",\"payload\":{}{}}}", "[".repeat(JSON_DEPTH_MAX), "]".repeat(JSON_DEPTH_MAX));
    let endless = "[".repeat(1_000_000);
    let large = format!("{{\"event_type\":\"a\",\"payload\":\"{}\"}}", "x".repeat(EVENT_BODY_BYTES_MAX));
    let key = format!(
        "{{\"event_type\":\"a\",\"payload\":1,\"idempotency_key\":\"{}\"}}",
        "k".repeat(IDEMPOTENCY_KEY_BYTES_MAX + 1)
    );
    for (text, reason, field) in [
        ("", EventErrorReason::MalformedJson, None),
        ("[]", EventErrorReason::MalformedJson, None),
        ("{\"event_type\":\"a\",\"payload\":1", EventErrorReason::MalformedJson, None),
        ("{\"event_type\":\"a\",\"payload\":1}}", EventErrorReason::MalformedJson, None),
        ("{\"event_type\":\"a\",\"payload\":01}", EventErrorReason::MalformedJson, None),
        ("{\"event_type\":\"a\",\"payload\":NaN}", EventErrorReason::MalformedJson, None),
        (&deep, EventErrorReason::TooDeep, None),
        (&endless, EventErrorReason::TooDeep, None),
        (&large, EventErrorReason::TooLarge, None),
        ("{\"payload\":1}", EventErrorReason::MissingField, Some("event_type")),
        ("{\"event_type\":\"a\"}", EventErrorReason::MissingField, Some("payload")),
        ("{\"event_type\":\"a\",\"payload\":1,\"recipeint\":\"x\"}", EventErrorReason::UnknownField, Some("recipeint")),
        ("{\"event_type\":\"a\",\"payload\":1,\"payload\":2}", EventErrorReason::DuplicateField, Some("payload")),
        ("{\"event_type\":\"a\",\"payload\":1,\"pa\\u0079load\":2}", EventErrorReason::DuplicateField, Some("payload")),
        ("{\"event_type\":7,\"payload\":1}", EventErrorReason::InvalidField, Some("event_type")),
        ("{\"event_type\":\"\\ud800\",\"payload\":1}", EventErrorReason::InvalidField, Some("event_type")),
        ("{\"event_type\":\"a.*\",\"payload\":1}", EventErrorReason::InvalidField, Some("event_type")),
        ("{\"event_type\":\"a\",\"payload\":1,\"recipient\":\"*\"}", EventErrorReason::InvalidField, Some("recipient")),
        ("{\"event_type\":\"a\",\"payload\":1,\"recipient\":\"\"}", EventErrorReason::InvalidField, Some("recipient")),
        (
            "{\"event_type\":\"a\",\"payload\":1,\"idempotency_key\":\"a\\n\"}",
            EventErrorReason::InvalidField,
            Some("idempotency_key"),
        ),
        (&key, EventErrorReason::InvalidField, Some("idempotency_key")),
    ] {
        let error = publish(text.to_owned()).unwrap_err();
        assert_eq!((error.reason, error.field.as_deref()), (reason, field), "{}", &text[..text.len().min(80)]);
    }
    let invalid_utf8 = b"{\"event_type\":\"a\",\"payload\":\"\xff\"}".to_vec();
    assert_eq!(publish(invalid_utf8).unwrap_err().reason, EventErrorReason::MalformedJson);
}

#[test]
fn brackets_in_strings_are_no_nesting() {
    let payload = format!("\"{}\\\"{}\"", "[".repeat(200), "{".repeat(200));
    let draft = publish(format!("{{\"event_type\":\"a\",\"payload\":{payload}}}")).unwrap();
    assert_eq!(draft.body, payload.as_bytes());
}

#[test]
fn a_digest_covers_all_but_the_key() {
    let draft = publish("{\"event_type\":\"a\",\"payload\":1}").unwrap();
    let same = Draft { idempotency_key: Some("k".to_owned()), ..draft.clone() };
    assert_eq!(draft.digest(), same.digest());
    for other in [
        Draft { event_type: "b".to_owned(), ..draft.clone() },
        Draft { recipient: Some(String::new()), ..draft.clone() },
        Draft { content_type: "text/json".to_owned(), ..draft.clone() },
        Draft { body: Bytes::from_static(b"2"), ..draft.clone() },
        Draft { attributes: Attributes([("a".to_owned(), "b".to_owned())].into()), ..draft.clone() },
    ] {
        assert_ne!(draft.digest(), other.digest());
    }
}

#[test]
fn a_structured_event_keeps_its_data_and_attributes() {
    let draft = structured(
        r#"{"specversion":"1.0","id":"7","source":"/shop","type":"com.example.order/created","time":"2018-04-05T17:31:00Z",
            "recipient":"acme","count":-5,"flag":true,"nothing":null,"subject":"é","data": { "n" : 1.0 } }"#,
    )
    .unwrap();
    assert_eq!(draft.event_type, "com.example.order/created");
    assert_eq!(draft.recipient.as_deref(), Some("acme"));
    assert_eq!(draft.content_type, "application/json");
    assert_eq!(draft.body, &b"{ \"n\" : 1.0 }"[..]);
    let expected = [
        ("count", "-5"),
        ("flag", "true"),
        ("id", "7"),
        ("source", "/shop"),
        ("subject", "é"),
        ("time", "2018-04-05T17:31:00Z"),
    ];
    assert_eq!(
        draft.attributes.0.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect::<Vec<_>>(),
        expected
    );
    assert!(draft.idempotency_key.unwrap().starts_with("ce:"));
}

#[test]
fn data_that_are_not_json_are_text_or_base64() {
    let with =
        |rest: &str| structured(&format!(r#"{{"specversion":"1.0","id":"7","source":"/shop","type":"a",{rest}}}"#));
    for (rest, body) in [
        (r#""datacontenttype":"text/plain","data":"a\nb""#, &b"a\nb"[..]),
        (r#""datacontenttype":"application/json","data":"a\nb""#, br#""a\nb""#),
        (r#""datacontenttype":"text/xml","data":{"a":1}"#, br#"{"a":1}"#),
        (r#""datacontenttype":"image/png","data_base64":"AP8=""#, &[0, 255]),
        (r#""subject":"x""#, b""),
    ] {
        assert_eq!(with(rest).unwrap().body, body, "{rest}");
    }
    for (rest, field) in [
        (r#""data":1,"data_base64":"AP8=""#, "data_base64"),
        (r#""data_base64":"?""#, "data_base64"),
        (r#""data_base64":7"#, "data_base64"),
        (r#""datacontenttype":"nonsense""#, "datacontenttype"),
        (r#""datacontenttype":"a/b\u0001""#, "datacontenttype"),
    ] {
        assert_eq!(with(rest).unwrap_err().field.as_deref(), Some(field), "{rest}");
    }
}

#[test]
fn cloudevents_that_break_the_rules_are_refused() {
    use EventErrorReason::{DuplicateField, InvalidField, MissingField};
    let with = |rest: &str| structured(&format!("{{\"specversion\":\"1.0\",{rest}}}"));
    for (rest, reason, field) in [
        (r#""source":"s","type":"a""#, MissingField, "id"),
        (r#""id":null,"source":"s","type":"a""#, MissingField, "id"),
        (r#""id":"","source":"s","type":"a""#, InvalidField, "id"),
        (r#""id":"7","type":"a""#, MissingField, "source"),
        (r#""id":"7","source":"a b","type":"a""#, InvalidField, "source"),
        (r#""id":"7","source":"s""#, MissingField, "type"),
        (r#""id":"7","source":"s","type":"a b""#, InvalidField, "type"),
        (r#""id":"7","source":"s","type":"a","time":"now""#, InvalidField, "time"),
        (r#""id":"7","source":"s","type":"a","Camel":"x""#, InvalidField, "Camel"),
        (r#""id":"7","source":"s","type":"a","x":1.5"#, InvalidField, "x"),
        (r#""id":"7","source":"s","type":"a","x":2147483648"#, InvalidField, "x"),
        (r#""id":"7","source":"s","type":"a","x":{}"#, InvalidField, "x"),
        (r#""id":"7","id":"8","source":"s","type":"a""#, DuplicateField, "id"),
        (r#""specversion":"1.0""#, DuplicateField, "specversion"),
    ] {
        let error = with(rest).unwrap_err();
        assert_eq!((error.reason, error.field.as_deref()), (reason, Some(field)), "{rest}");
    }
}

#[test]
fn cloudevents_of_another_version_or_beyond_a_limit_are_refused() {
    let many: Vec<String> = (0..=ATTRIBUTES_MAX).map(|number| format!("\"x{number}\":\"\"")).collect();
    for (text, reason, field) in [
        (r#"{"id":"7","source":"s","type":"a"}"#.to_owned(), EventErrorReason::MissingField, Some("specversion")),
        (r#"{"specversion":"0.3","id":"7"}"#.to_owned(), EventErrorReason::InvalidField, Some("specversion")),
        (format!("{{{}}}", many.join(",")), EventErrorReason::TooLarge, None),
        ("[]".to_owned(), EventErrorReason::MalformedJson, None),
        ("[".repeat(1_000_000), EventErrorReason::TooDeep, None),
    ] {
        let error = structured(&text).unwrap_err();
        assert_eq!((error.reason, error.field.as_deref()), (reason, field), "{}", &text[..text.len().min(80)]);
    }
}

#[test]
fn a_batch_is_taken_or_refused_as_a_whole() {
    let batch = |text: String| cloudevents::parse(&headers(&[("content-type", BATCH)]), &Bytes::from(text));
    let one = r#"{"specversion":"1.0","id":"7","source":"s","type":"a","data": [1] }"#;
    let drafts = batch(format!("[{one} , {one}]")).unwrap();
    assert_eq!(drafts.len(), 2);
    assert_eq!(drafts[1].body, &b"[1]"[..]);
    assert_eq!(batch("[]".to_owned()), Ok(vec![]));
    let error = batch(format!("[{one},{{}}]")).unwrap_err();
    assert_eq!((error.reason, error.field.as_deref()), (EventErrorReason::MissingField, Some("[1].specversion")));
    let full = vec![one; BATCH_EVENTS_MAX].join(",");
    assert_eq!(batch(format!("[{full}]")).unwrap().len(), BATCH_EVENTS_MAX);
    assert_eq!(batch(format!("[{full},{one}]")).unwrap_err().reason, EventErrorReason::TooManyEvents);
    assert_eq!(batch(one.to_owned()).unwrap_err().reason, EventErrorReason::MalformedJson);
}

#[test]
fn a_binary_event_stands_in_headers() {
    let required = [("ce-specversion", "1.0"), ("ce-id", "7"), ("ce-source", "/shop"), ("ce-type", "a")];
    let parse = |more: &[(&str, &str)]| {
        let all = headers(&[&required[..], more].concat());
        cloudevents::parse(&all, &Bytes::from_static(b"\x00\xff")).map(|mut drafts| drafts.remove(0))
    };
    let draft = parse(&[
        ("content-type", "image/png"),
        ("ce-subject", "Euro%20%E2%82%AC"),
        ("ce-recipient", "acme"),
        ("ce-x", "\"a\\\"b c\""),
    ])
    .unwrap();
    assert_eq!(draft.attributes.0["subject"], "Euro €");
    assert_eq!(draft.attributes.0["x"], "a\"b c");
    assert_eq!((draft.content_type.as_str(), draft.recipient.as_deref()), ("image/png", Some("acme")));
    assert_eq!(draft.body, &b"\x00\xff"[..]);
    assert_eq!(parse(&[]).unwrap().content_type, "application/octet-stream");
    for (name, value) in [
        ("ce-subject", "%E2%82"),
        ("ce-subject", "%4"),
        ("ce-subject", "%zz"),
        ("ce-subject", "%0A"),
        ("ce-a-b", "x"),
        ("ce-datacontenttype", "text/plain"),
        ("ce-id", "8"),
        ("content-type", "nonsense"),
        ("ce-", "x"),
    ] {
        assert!(parse(&[(name, value)]).is_err(), "{name}: {value}");
    }
}

#[test]
fn what_is_no_cloudevent_is_an_unsupported_content_type() {
    for entries in [
        &[][..],
        &[("content-type", "application/json")],
        &[("content-type", "application/cloudevents+avro"), ("ce-specversion", "1.0")],
        &[("content-type", "text/plain"), ("ce-id", "7")],
    ] {
        let error = cloudevents::parse(&headers(entries), &Bytes::from_static(b"{}")).unwrap_err();
        assert_eq!(error.reason, EventErrorReason::UnsupportedContentType, "{entries:?}");
    }
    let mixed_case = headers(&[("content-type", "Application/CloudEvents+JSON; charset=utf-8")]);
    let body = Bytes::from_static(br#"{"specversion":"1.0","id":"7","source":"s","type":"a"}"#);
    assert_eq!(cloudevents::parse(&mixed_case, &body).unwrap().len(), 1);
}

#[test]
fn a_native_event_is_rendered_in_every_form() {
    let event = accepted(
        publish("{\"event_type\":\"order.created\",\"payload\": {\"a\" : 1} ,\"recipient\":\"acme\"}").unwrap(),
    );
    let payload = render::render(BodyFormat::Payload, &event);
    assert_eq!((&*payload.content_type, payload.headers.len()), ("application/json", 0));
    assert_eq!(payload.body.as_ptr(), event.body.as_ptr());
    let rendered = render::render(BodyFormat::CloudEventsStructured, &event);
    let tenant = event.tenant;
    let id = event.id;
    assert_eq!(
        std::str::from_utf8(&rendered.body).unwrap(),
        format!(
            r#"{{"specversion":"1.0","id":"{id}","source":"/tenants/{tenant}","type":"order.created","time":"2023-11-14T22:13:20.123Z","recipient":"acme","datacontenttype":"application/json","data":{{"a" : 1}}}}"#
        )
    );
    let binary = render::render(BodyFormat::CloudEventsBinary, &event);
    assert_eq!(binary.body.as_ptr(), event.body.as_ptr());
    assert!(binary.headers.iter().any(|(name, value)| name == "ce-type" && value == "order.created"));
}

fn json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        "-?[1-9][0-9]{0,30}(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?",
        "\"([a-z \\[{é]|\\\\n|\\\\u[0-9a-f]{4}|\\\\\"){0,12}\"",
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|parts| format!("[ {}]", parts.join(" ,"))),
            prop::collection::vec(("[ab]", inner), 0..4).prop_map(|members| {
                let members: Vec<String> = members.iter().map(|(key, value)| format!("\"{key}\" :{value}")).collect();
                format!("{{{}\n}}", members.join(", "))
            }),
        ]
    })
}

proptest! {
    #[test]
    fn any_payload_survives_byte_for_byte(payload in json(), space in "[ \\t\\r\\n]{0,3}") {
        let request = Bytes::from(format!("{{\"event_type\":\"a.b\",{space}\"payload\":{space}{payload}{space}}}"));
        let draft = native::parse_publish(&request).unwrap();
        prop_assert_eq!(&draft.body, payload.as_bytes());
    }

    #[test]
    fn a_rendered_event_reads_back_as_it_was(
        body in prop_oneof![json().prop_map(String::into_bytes), prop::collection::vec(any::<u8>(), 0..40), Just(b" 1 ".to_vec())],
        content_type in prop::sample::select(vec!["application/json", "text/plain; charset=utf-8", "image/png", "application/x+json"]),
        subject in "[^\\p{Cc}]{1,12}",
        recipient in prop::option::of("[^\\p{Cc}*]{1,8}"),
    ) {
        let attributes = [("id", "7"), ("source", "/shop"), ("time", "2018-04-05T17:31:00Z"), ("subject", subject.as_str()), ("x1", "%20\"\\")];
        let event = accepted(Draft {
            event_type: "com.example/a.b".to_owned(),
            recipient,
            content_type: content_type.to_owned(),
            body: body.into(),
            attributes: Attributes(attributes.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()),
            idempotency_key: None,
        });
        for format in [BodyFormat::CloudEventsStructured, BodyFormat::CloudEventsBinary] {
            let rendered = render::render(format, &event);
            let mut headers: HeaderMap = rendered.headers.into_iter().collect();
            headers.insert(CONTENT_TYPE, rendered.content_type.parse().unwrap());
            let draft = cloudevents::parse(&headers, &rendered.body).unwrap().remove(0);
            prop_assert_eq!(accepted(draft), event.clone());
        }
    }

    #[test]
    fn no_request_panics(body in prop::collection::vec(any::<u8>(), 0..60), text in "[{}\\[\\]\",:a-z0-9\\\\ ]{0,60}") {
        for body in [Bytes::from(body), Bytes::from(text)] {
            native::parse_publish(&body).ok();
            for content_type in [STRUCTURED, BATCH, "text/plain"] {
                let headers = headers(&[("content-type", content_type), ("ce-specversion", "1.0")]);
                cloudevents::parse(&headers, &body).ok();
            }
        }
    }
}
