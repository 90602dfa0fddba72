//! The cluster's issuer, read from an API server that a test makes up.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use dispatcher_core::table::{IssuerRow, Row, RowKey, ServiceAccountRules, TokenKind};
use http::{Request, Response};
use kube::Client;
use kube::client::Body;
use operator::cluster::issuer::{IssuerSettings, IssuerWatch, read_cluster_issuer};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::fixtures::{Harness, good};

const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// What the API server answers, by its two paths.
#[derive(Clone)]
struct Answers {
    discovery: (u16, Value),
    keys: (u16, Value),
}

fn jwk(kid: &str) -> Value {
    json!({"kty": "RSA", "alg": "RS256", "use": "sig", "kid": kid, "n": BASE64URL.encode([0xc1; 256]), "e": "AQAB"})
}

fn status(code: u16) -> (u16, Value) {
    let reason = if code == 403 { "Forbidden" } else { "InternalError" };
    (code, json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason}))
}

fn good_answers(kids: &[&str]) -> Answers {
    let keys: Vec<Value> = kids.iter().map(|kid| jwk(kid)).collect();
    let discovery = json!({"issuer": ISSUER, "jwks_uri": "https://10.0.0.1:6443/openid/v1/jwks"});
    Answers { discovery: (200, discovery), keys: (200, json!({ "keys": keys })) }
}

/// A client of an API server that answers what stands there at the time.
fn client(answers: &Arc<Mutex<Answers>>) -> Client {
    let answers = Arc::clone(answers);
    let service = tower::service_fn(move |request: Request<Body>| {
        let answers = answers.lock().unwrap().clone();
        let (code, body) = match request.uri().path() {
            "/.well-known/openid-configuration" => answers.discovery,
            "/openid/v1/jwks" => answers.keys,
            other => panic!("nobody asks for {other}"),
        };
        let response = Response::builder().status(code).body(Body::from(body.to_string().into_bytes()));
        async move { Ok::<_, std::convert::Infallible>(response.unwrap()) }
    });
    Client::new(service, "default")
}

async fn read(answers: Answers) -> Result<IssuerRow, (&'static str, String)> {
    let client = client(&Arc::new(Mutex::new(answers)));
    let read = read_cluster_issuer(&client, &IssuerSettings::default()).await;
    read.map_err(|error| (error.as_str(), error.to_string()))
}

#[tokio::test]
async fn the_issuer_and_its_keys_become_a_row_in_whatever_order_they_are_told() {
    let row = read(good_answers(&["b", "a"])).await.unwrap();
    assert_eq!((row.issuer.as_str(), row.audiences.as_slice()), (ISSUER, &["harborhook".to_owned()][..]));
    assert_eq!(row.tokens, TokenKind::Kubernetes(ServiceAccountRules::default()));
    assert_eq!(read(good_answers(&["a", "b"])).await.unwrap(), row);
    assert_ne!(read(good_answers(&["a"])).await.unwrap().jwks, row.jwks);
    assert_eq!(serde_json::from_str::<Value>(&row.jwks).unwrap()["keys"][1]["kid"], "b");
}

#[tokio::test]
async fn an_answer_that_cannot_be_used_is_an_error_that_says_what_to_do() {
    let good = good_answers(&["a"]);
    let with = |discovery, keys: (u16, Value)| Answers { discovery, keys };
    let html = || (200, json!("<html>"));
    for (answers, reason, words) in [
        (with(status(403), good.keys.clone()), "forbidden", "system:service-account-issuer-discovery"),
        (with(good.discovery.clone(), status(403)), "forbidden", "/openid/v1/jwks"),
        (with(status(500), good.keys.clone()), "unavailable", "does not tell"),
        (with(html(), good.keys.clone()), "malformed", "openid-configuration"),
        (with((200, json!({"issuer": ""})), good.keys.clone()), "malformed", "`issuer`"),
        (with(good.discovery.clone(), html()), "keys", "JSON Web Key Set"),
        (with(good.discovery.clone(), (200, json!({"keys": []}))), "keys", "no key that can be used"),
    ] {
        let error = read(answers).await.expect_err(words);
        assert!(error.0 == reason && error.1.contains(words), "{error:?}");
    }
}

#[tokio::test]
async fn the_last_row_stays_while_the_api_server_does_not_tell() {
    let answers = Arc::new(Mutex::new(status_everywhere()));
    let (watch, mut known) = IssuerWatch::new(client(&answers), IssuerSettings::default());
    let stop = CancellationToken::new();
    let running = tokio::spawn(watch.every(Duration::from_millis(5)).run(stop.clone()));
    assert_eq!(*known.borrow(), None);
    *answers.lock().unwrap() = good_answers(&["a"]);
    let first = known.wait_for(Option::is_some).await.unwrap().clone();
    *answers.lock().unwrap() = status_everywhere();
    *answers.lock().unwrap() = good_answers(&["b"]);
    let second = known.wait_for(|rows| *rows != first).await.unwrap().clone();
    assert!(second.is_some(), "it is never forgotten");
    stop.cancel();
    running.await.unwrap();
    assert_eq!(*known.borrow(), second);
}

fn status_everywhere() -> Answers {
    Answers { discovery: status(500), keys: status(500) }
}

#[tokio::test]
async fn a_plan_publishes_issuers_that_are_known_and_keeps_those_of_whom_nothing_is_known() {
    let row = read(good_answers(&["a"])).await.unwrap();
    let other = IssuerRow { jwks: "{}".to_owned(), ..row.clone() };
    let mut harness = Harness::of(&good(""));
    let settle = |harness: &mut Harness, issuers: Option<Vec<IssuerRow>>| {
        harness.world.issuers = issuers;
        harness.settle().table
    };
    let published = settle(&mut harness, Some(vec![row.clone()]));
    assert!(published.put.contains(&Row::Issuer(row.clone())), "{published:?}");
    assert!(settle(&mut harness, None).is_empty(), "what cannot be read locks nobody out");
    let changed = settle(&mut harness, Some(vec![other.clone()]));
    assert_eq!((changed.put, changed.drop), (vec![Row::Issuer(other)], vec![]));
    let second_issuer = format!("{ISSUER}/second");
    let id = dispatcher_core::id::IssuerId::of_issuer(&second_issuer);
    let second = IssuerRow { id, issuer: second_issuer, ..row.clone() };
    let both = settle(&mut harness, Some(vec![row.clone(), second.clone()]));
    assert_eq!((both.put.len(), both.drop.len()), (2, 0));
    let one = settle(&mut harness, Some(vec![second]));
    assert_eq!((one.put, one.drop), (vec![], vec![RowKey::Issuer(row.id)]));
}
