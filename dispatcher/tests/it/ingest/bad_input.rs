//! Every malformed input is a 4xx problem, and nothing of it is stored.

use std::time::Duration;

use dispatcher::ingest::BodyReader;
use dispatcher_core::limits::{
    BATCH_EVENTS_MAX, EVENT_BODY_BYTES_MAX, JSON_DEPTH_MAX, REQUEST_BODIES_BYTES_MAX, REQUEST_BODY_BYTES_MAX,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{CLOUDEVENTS, JSON, PUBLISH};
use crate::api::harness::{Options, World};

const STRUCTURED: &str = "application/cloudevents+json";
const BATCH: &str = "application/cloudevents-batch+json";

/// A bad request: path, content type, body, and the status, problem and field that it must meet.
type Case = (&'static str, &'static str, String, u16, &'static str, Option<&'static str>);

#[expect(clippy::too_many_lines, reason = "a table has as many lines as it has rows")]
fn native() -> Vec<Case> {
    let publish = |body: &str, status, label, field| (PUBLISH, JSON, body.to_owned(), status, label, field);
    let with = |field: &str, value: &str| format!(r#"{{"event_type":"a","payload":1,"{field}":{value}}}"#);
    vec![
        publish("", 400, "malformed-json", None),
        publish("{", 400, "malformed-json", None),
        publish("[]", 400, "malformed-json", None),
        publish("null", 400, "malformed-json", None),
        publish(r#"{"event_type":"a","payload":1} x"#, 400, "malformed-json", None),
        publish(r#"{"event_type":"a","payload":01}"#, 400, "malformed-json", None),
        publish("{}", 400, "missing-field", Some("event_type")),
        publish(r#"{"event_type":"a"}"#, 400, "missing-field", Some("payload")),
        publish(&with("evnt", "1"), 400, "unknown-field", Some("evnt")),
        publish(&with("payload", "2"), 400, "duplicate-field", Some("payload")),
        publish(&with("recipient", "7"), 422, "invalid-field", Some("recipient")),
        publish(&with("recipient", r#""*""#), 422, "invalid-field", Some("recipient")),
        publish(&with("recipient", &format!("{:?}", "r".repeat(129))), 422, "invalid-field", Some("recipient")),
        publish(&with("idempotency_key", r#""""#), 422, "invalid-field", Some("idempotency_key")),
        publish(&with("idempotency_key", r#""a\u0000b""#), 422, "invalid-field", Some("idempotency_key")),
        publish(
            &with("idempotency_key", &format!("{:?}", "k".repeat(256))),
            422,
            "invalid-field",
            Some("idempotency_key"),
        ),
        publish(r#"{"event_type":"","payload":1}"#, 422, "invalid-field", Some("event_type")),
        publish(r#"{"event_type":"a..b","payload":1}"#, 422, "invalid-field", Some("event_type")),
        publish(r#"{"event_type":"a.*","payload":1}"#, 422, "invalid-field", Some("event_type")),
        publish(r#"{"event_type":"ö","payload":1}"#, 422, "invalid-field", Some("event_type")),
        publish(
            &format!(r#"{{"event_type":"a","payload":{}1{}}}"#, "[".repeat(JSON_DEPTH_MAX), "]".repeat(JSON_DEPTH_MAX)),
            400,
            "too-deep",
            None,
        ),
        publish(&"[".repeat(1_000_000), 400, "too-deep", None),
        publish(
            &format!(r#"{{"event_type":"a","payload":"{}"}}"#, "x".repeat(EVENT_BODY_BYTES_MAX)),
            413,
            "too-large",
            None,
        ),
        publish(&" ".repeat(REQUEST_BODY_BYTES_MAX + 1), 413, "too-large", None),
        (
            PUBLISH,
            "text/plain",
            r#"{"event_type":"a","payload":1}"#.into(),
            415,
            "unsupported-content-type",
            Some("content-type"),
        ),
        (
            PUBLISH,
            "application/jsonp",
            r#"{"event_type":"a","payload":1}"#.into(),
            415,
            "unsupported-content-type",
            Some("content-type"),
        ),
        (
            "/v1/tenants/nobody/events:publish",
            JSON,
            r#"{"event_type":"a","payload":1}"#.into(),
            404,
            "unknown-tenant",
            Some("tenant"),
        ),
        (
            "/v1/tenants/shop/events:publish?dry_run=1",
            JSON,
            r#"{"event_type":"a","payload":1}"#.into(),
            400,
            "invalid-query",
            Some("dry_run"),
        ),
        (
            "/v1/tenants/shop/events:publsh",
            JSON,
            r#"{"event_type":"a","payload":1}"#.into(),
            404,
            "unknown-route",
            None,
        ),
    ]
}

fn cloudevents() -> Vec<Case> {
    let structured =
        |body: &str, status, label, field| (CLOUDEVENTS, STRUCTURED, body.to_owned(), status, label, field);
    let batch = |body: String, status, label, field| (CLOUDEVENTS, BATCH, body, status, label, field);
    let good = r#"{"specversion":"1.0","id":"1","source":"/s","type":"a"}"#;
    vec![
        structured("{", 400, "malformed-json", None),
        structured("{}", 400, "missing-field", Some("specversion")),
        structured(
            r#"{"specversion":"0.3","id":"1","source":"/s","type":"a"}"#,
            422,
            "invalid-field",
            Some("specversion"),
        ),
        structured(r#"{"specversion":"1.0","source":"/s","type":"a"}"#, 400, "missing-field", Some("id")),
        structured(r#"{"specversion":"1.0","id":"1","source":"/s","type":"a b"}"#, 422, "invalid-field", Some("type")),
        structured(
            r#"{"specversion":"1.0","id":"1","source":"/s","type":"a","data_base64":"!"}"#,
            422,
            "invalid-field",
            Some("data_base64"),
        ),
        batch("{}".into(), 400, "malformed-json", None),
        batch(format!("[{good},{{}}]"), 400, "missing-field", Some("[1].specversion")),
        batch(format!("[{good}{}]", format!(",{good}").repeat(BATCH_EVENTS_MAX)), 422, "too-many-events", None),
        (CLOUDEVENTS, JSON, good.into(), 415, "unsupported-content-type", None),
        (CLOUDEVENTS, "application/cloudevents+xml", good.into(), 415, "unsupported-content-type", None),
        ("/v1/tenants/nobody/events", STRUCTURED, good.into(), 404, "unknown-tenant", Some("tenant")),
    ]
}

#[tokio::test]
async fn every_malformed_body_is_refused_and_nothing_is_stored() {
    let world = World::start().await;
    for (path, content_type, body, status, label, field) in native().into_iter().chain(cloudevents()) {
        let context = format!("{path} {content_type} {}", body.chars().take(120).collect::<String>());
        let expected = (status, label.to_owned(), field.map(str::to_owned));
        assert_eq!(world.post(path, content_type, body).await.problem(), expected, "{context}");
        world.assert_nothing_stored(&context).await;
    }
}

#[tokio::test]
async fn every_bad_header_is_refused_and_nothing_is_stored() {
    let world = World::start().await;
    let body = r#"{"event_type":"a","payload":1,"idempotency_key":"k"}"#;
    let event = r#"{"specversion":"1.0","id":"1","source":"/s","type":"a"}"#;
    let long = "k".repeat(256);
    for (path, content_type, body, header, values, status, label) in [
        (PUBLISH, JSON, body, "idempotency-key", vec![&b"other"[..]], 400, "idempotency-key-mismatch"),
        (PUBLISH, JSON, body, "idempotency-key", vec![b"k", b"k"], 400, "invalid-header"),
        (PUBLISH, JSON, body, "idempotency-key", vec![b"\xff"], 400, "invalid-header"),
        (PUBLISH, JSON, body, "idempotency-key", vec![b""], 422, "invalid-field"),
        (PUBLISH, JSON, body, "idempotency-key", vec![long.as_bytes()], 422, "invalid-field"),
        (PUBLISH, JSON, body, "content-encoding", vec![b"gzip"], 415, "unsupported-content-type"),
        (CLOUDEVENTS, STRUCTURED, event, "idempotency-key", vec![b"k"], 400, "invalid-header"),
    ] {
        let mut request = world.http.post(world.url(path)).header("content-type", content_type).body(body);
        for value in values {
            request = request.header(header, http::HeaderValue::from_bytes(value).unwrap());
        }
        let (found, found_label, field) = world.send(request).await.problem();
        assert_eq!((found, found_label.as_str()), (status, label), "{header}");
        assert!(field.is_some(), "{header}");
        world.assert_nothing_stored(header).await;
    }
    let untyped = world.send(world.http.post(world.url(PUBLISH)).body(body)).await;
    assert_eq!(untyped.problem().1, "unsupported-content-type");
    world.assert_nothing_stored("no content type").await;
}

/// Writes bytes, closes that side if asked, and reads whatever is answered until the end.
async fn exchange(world: &World, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    let reading = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
    reading.unwrap_or_else(|_| panic!("the connection stays open after {}", String::from_utf8_lossy(&answer))).unwrap();
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn a_body_that_does_not_arrive_in_time_is_refused() {
    let bodies = BodyReader::new(REQUEST_BODIES_BYTES_MAX, Duration::from_millis(100));
    let world = World::start_with(Options { bodies, ..Options::default() }, |ledger| ledger).await;
    let head = format!("POST {PUBLISH} HTTP/1.1\r\nhost: x\r\ncontent-type: {JSON}\r\ncontent-length: 100\r\n\r\n{{");
    let answer = exchange(&world, head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("request-timeout"), "{answer}");
    world.assert_nothing_stored("a slow body").await;
}

#[tokio::test]
async fn a_head_that_cannot_be_read_ends_the_connection() {
    let world = World::start().await;
    let many = (0..200).fold(String::new(), |many, number| many + &format!("x-{number}: 1\r\n"));
    let large = format!("x: {}\r\n", "1".repeat(100_000));
    for (request, status) in [
        ("nonsense\r\n\r\n".to_owned(), "HTTP/1.1 400 "),
        (format!("GET / HTTP/1.1\r\n{many}\r\n"), "HTTP/1.1 431 "),
        (format!("GET / HTTP/1.1\r\n{large}\r\n"), "HTTP/1.1 431 "),
        (
            format!(
                "POST {PUBLISH} HTTP/1.1\r\nhost: x\r\ncontent-type: {JSON}\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"
            ),
            "HTTP/1.1 400 ",
        ),
    ] {
        let answer = exchange(&world, request.as_bytes()).await;
        assert!(answer.starts_with(status), "{answer}");
    }
    world.assert_nothing_stored("a bad head").await;
}
