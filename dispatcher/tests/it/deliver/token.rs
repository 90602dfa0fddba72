//! Receivers that want an access token, and token endpoints that give one or do not.

mod server;

use std::time::Duration;

use bytes::Bytes;
use dispatcher::http::{Client, ClientConfig, Exchange, NotMade, Request, ResolverConfig, TokenSlot, Tokens};
use dispatcher_core::address::AddressPolicy;
use dispatcher_core::delivery::{DeliveryState, EndReason, Outcome};
use dispatcher_core::limits::{LEASE, TOKEN_REQUEST_TIMEOUT};
use dispatcher_core::table::{BreakerPolicy, DeliveryPolicy, EndpointRow, Row, TableChange, TokenSource};
use futures::future::join_all;
use http::HeaderMap;
use url::Url;

use self::server::{Behaviour, SECRET, TokenServer};
use super::harness::{Process, Receiver, config, endpoint, eventually, policy, sealing_key, tenant};

const GRANT: Behaviour = Behaviour::Grant { expires_in: 3_600 };

/// An endpoint that wants a token of this source.
fn with_token(name: &str, url: &str, policy: DeliveryPolicy, source: TokenSource) -> EndpointRow {
    let mut row = endpoint(name, url, policy);
    let mut secrets = sealing_key().open(row.id, &row.sealed).unwrap();
    secrets.token = Some(source);
    row.sealed = sealing_key().seal(row.id, &secrets);
    row
}

fn authorizations(receiver: &Receiver) -> Vec<String> {
    receiver.seen().iter().map(|seen| seen.headers["authorization"].to_str().unwrap().to_owned()).collect()
}

/// A client and its tokens.
struct Sender {
    client: Client,
    tokens: Tokens,
}

impl Sender {
    fn new(request_timeout: Duration) -> Self {
        let resolver = ResolverConfig::default();
        let client = Client::new(ClientConfig { address_policy: AddressPolicy::development(), resolver }).unwrap();
        Self { tokens: Tokens::new(client.clone(), request_timeout), client }
    }

    async fn post(&self, url: &str, slot: &TokenSlot, deadline: Duration) -> Exchange {
        self.try_to_post(url, slot, deadline).await.unwrap()
    }

    async fn try_to_post(&self, url: &str, slot: &TokenSlot, deadline: Duration) -> Result<Exchange, NotMade> {
        let url = Url::parse(url).unwrap();
        let request =
            Request { url: &url, identity: None, headers: HeaderMap::new(), body: Bytes::from_static(b"{}"), deadline };
        let exchange = self.tokens.exchange(&self.client, Some(slot), request);
        tokio::time::timeout(Duration::from_mins(1), exchange).await.expect("an exchange ends")
    }
}

fn text(exchange: &Exchange) -> String {
    String::from_utf8(exchange.excerpt.to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_deliveries_ask_once_and_all_carry_the_token() {
    let (server, receiver) = (TokenServer::start(GRANT).await, Receiver::start(200).await);
    let row = with_token("one", &receiver.url, policy(), server.source(SECRET));
    let process = Process::start(vec![row], config()).await;
    for _ in 0..100 {
        process.publish(&["one"], LEASE).await;
    }
    process.finished().await;
    assert_eq!(receiver.count(), 100);
    assert!(authorizations(&receiver).iter().all(|value| value == "Bearer token-1"));
    let seen = server.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].0["content-type"], "application/x-www-form-urlencoded");
    assert_eq!(seen[0].0["accept"], "application/json");
    assert_eq!(seen[0].1, "grant_type=client_credentials&scope=hooks.write");
    process.assert_balanced().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_the_receiver_refuses_is_replaced_for_the_next_attempt() {
    let (server, receiver) = (TokenServer::start(GRANT).await, Receiver::start(401).await);
    let row = with_token("one", &receiver.url, policy(), server.source(SECRET));
    let process = Process::start(vec![row], config()).await;
    let event = process.publish(&["one"], LEASE).await;
    eventually("it is refused", || async { receiver.count() == 1 }).await;
    receiver.answer(200);
    process.finished().await;
    let outcomes: Vec<_> = process.attempts(event, "one").await.iter().map(|attempt| attempt.attempt.outcome).collect();
    assert_eq!(outcomes, [Outcome::Http4xx, Outcome::Delivered]);
    assert_eq!(authorizations(&receiver), ["Bearer token-1", "Bearer token-2"]);
    assert_eq!(server.count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_nothing_is_sent_and_the_right_secret_heals_it() {
    let (server, receiver) = (TokenServer::start(GRANT).await, Receiver::start(200).await);
    let mut twice = policy();
    twice.retry.max_attempts = 2;
    let row = with_token("one", &receiver.url, twice.clone(), server.source("wrong-battery"));
    let process = Process::start(vec![row], config()).await;
    let event = process.publish(&["one"], LEASE).await;
    process.finished().await;
    let delivery = process.delivery(event, "one").await;
    assert_eq!((delivery.state, delivery.reason), (DeliveryState::Dead, Some(EndReason::AttemptsExhausted)));
    let attempts = process.attempts(event, "one").await;
    assert_eq!(attempts.len(), 2);
    for attempt in attempts {
        assert_eq!((attempt.attempt.outcome, attempt.attempt.status_code), (Outcome::TokenFailed, None));
        let excerpt = String::from_utf8(attempt.attempt.excerpt.to_vec()).unwrap();
        let said = "no access token: the token endpoint answered 401 with the error invalid_client";
        assert!(excerpt.starts_with(said) && !excerpt.contains("battery"), "{excerpt}");
    }
    assert_eq!(receiver.count(), 0);

    let mut healed = with_token("one", &receiver.url, twice, server.source(SECRET));
    healed.revision = "2".into();
    process.put(vec![healed]).await;
    // The change is in use when a delivery succeeds; one that comes before it fails as before.
    eventually("it is delivered", || async {
        process.publish(&["one"], LEASE).await;
        process.finished().await;
        receiver.count() > 0
    })
    .await;
    let token = format!("Bearer token-{}", server.count());
    assert_eq!(authorizations(&receiver), [token]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_outlives_a_change_of_its_endpoint_and_not_one_of_its_source() {
    let (server, receiver) = (TokenServer::start(GRANT).await, Receiver::start(200).await);
    let rotated = TokenSource { scopes: vec!["hooks.read".to_owned()], ..server.source(SECRET) };
    let row = |revision: &str, max_in_flight, source: &TokenSource| {
        let policy = DeliveryPolicy { max_in_flight, ..policy() };
        EndpointRow { revision: revision.into(), ..with_token("one", &receiver.url, policy, source.clone()) }
    };
    let process = Process::start(vec![row("1", 1, &server.source(SECRET))], config()).await;
    for (changed, token) in [
        (row("1", 1, &server.source(SECRET)), "Bearer token-1"),
        (row("2", 2, &server.source(SECRET)), "Bearer token-1"),
        (row("3", 2, &rotated), "Bearer token-2"),
        (row("4", 3, &rotated), "Bearer token-2"),
    ] {
        process.change_table(TableChange { put: vec![Row::Endpoint(Box::new(changed))], drop: Vec::new() }).await;
        process.publish(&["one"], LEASE).await;
        process.finished().await;
        assert_eq!(authorizations(&receiver).last().map(String::as_str), Some(token));
    }
    assert_eq!((server.count(), receiver.count()), (2, 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_to_get_a_token_open_the_circuit() {
    let (server, receiver) = (TokenServer::start(GRANT).await, Receiver::start(200).await);
    let mut careful = policy();
    careful.circuit_breaker = BreakerPolicy { min_attempts: 3, initial_pause_seconds: 60, ..BreakerPolicy::default() };
    let row = with_token("one", &receiver.url, careful, server.source("wrong-battery"));
    let process = Process::start(vec![row], config()).await;
    for _ in 0..3 {
        process.publish(&["one"], LEASE).await;
    }
    eventually("the gate is closed", || async {
        let facts = process.ledger.endpoint_facts(tenant(), Duration::from_mins(1)).await.unwrap();
        // The pauses of the token endpoint are shorter than that of the circuit.
        facts.iter().any(|facts| facts.gate_closed_for.is_some_and(|closed_for| closed_for > Duration::from_secs(30)))
    })
    .await;
    assert_eq!(receiver.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_token_endpoint_is_left_alone_what_waits_costs_no_attempt() {
    let head = Some(("retry-after", "60".to_owned()));
    let server = TokenServer::start(Behaviour::Answer { status: 503, head, body: String::new() }).await;
    let receiver = Receiver::start(200).await;
    let mut once = policy();
    once.retry.max_attempts = 2;
    once.circuit_breaker = BreakerPolicy { min_attempts: 2, initial_pause_seconds: 300, ..BreakerPolicy::default() };
    let process =
        Process::start(vec![with_token("one", &receiver.url, once.clone(), server.source(SECRET))], config()).await;
    let first = process.publish(&["one"], LEASE).await;
    eventually("it has failed", || async { process.attempts(first, "one").await.len() == 1 }).await;
    let second = process.publish(&["one"], LEASE).await;
    eventually("both wait behind the gate", || async {
        let facts = process.ledger.endpoint_facts(tenant(), Duration::from_mins(1)).await.unwrap();
        let is_closed = |pause: Duration| (31..=60).contains(&pause.as_secs());
        process.pending("one").await == 2 && facts.iter().any(|facts| facts.gate_closed_for.is_some_and(is_closed))
    })
    .await;
    let third = process.publish(&["one"], LEASE).await;
    eventually("it waits too", || async { process.pending("one").await == 3 }).await;
    for (event, attempts) in [(first, 1), (second, 0), (third, 0)] {
        assert_eq!(process.delivery(event, "one").await.attempts, attempts);
    }
    assert_eq!((server.count(), receiver.count()), (1, 0));

    // Another source need not wait for the old one.
    server.behave(GRANT);
    let source = TokenSource { scopes: Vec::new(), ..server.source(SECRET) };
    let healed = EndpointRow { revision: "2".into(), ..with_token("one", &receiver.url, once, source) };
    process.put(vec![healed]).await;
    process.finished().await;
    for (event, attempts) in [(first, 2), (second, 1), (third, 1)] {
        let delivery = process.delivery(event, "one").await;
        assert_eq!((delivery.state, delivery.attempts), (DeliveryState::Delivered, attempts));
    }
    process.assert_balanced().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_does_not_answer_is_told_of_with_the_whole_deadline() {
    let (server, receiver) = (TokenServer::start(GRANT).await, Receiver::start(0).await);
    let (sender, slot) = (Sender::new(TOKEN_REQUEST_TIMEOUT), TokenSlot::new(server.source(SECRET)));
    let exchange = sender.post(&receiver.url, &slot, Duration::from_millis(2_500)).await;
    assert_eq!(exchange.outcome, Outcome::Timeout);
    assert_eq!(text(&exchange), "the exchange did not end within 2.5 s");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_expires_is_replaced() {
    let (server, receiver) = (TokenServer::start(Behaviour::Grant { expires_in: 1 }).await, Receiver::start(200).await);
    let (sender, slot) = (Sender::new(TOKEN_REQUEST_TIMEOUT), TokenSlot::new(server.source(SECRET)));
    eventually("another token is used", || async {
        assert_eq!(sender.post(&receiver.url, &slot, LEASE).await.outcome, Outcome::Delivered);
        authorizations(&receiver).iter().any(|value| value == "Bearer token-2")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_wait_for_one_request_which_goes_on_when_a_deadline_passes() {
    let (server, receiver) = (TokenServer::start(Behaviour::Hang).await, Receiver::start(200).await);
    let (sender, slot) = (Sender::new(Duration::from_mins(1)), TokenSlot::new(server.source(SECRET)));
    let impatient = sender.post(&receiver.url, &slot, Duration::from_millis(50)).await;
    assert_eq!(impatient.outcome, Outcome::TokenFailed);
    let said = "no access token: the token endpoint did not answer soon enough to send anything within 0.05 s";
    assert_eq!(text(&impatient), said);
    let waiting = join_all((0..20).map(|_| sender.post(&receiver.url, &slot, Duration::from_secs(30))));
    let answering = async {
        eventually("it is asked", || async { server.count() > 0 }).await;
        server.behave(GRANT);
    };
    let (exchanges, ()) = tokio::join!(waiting, answering);
    assert!(exchanges.iter().all(|exchange| exchange.outcome == Outcome::Delivered));
    assert_eq!((server.count(), receiver.count()), (1, 20));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_failure_the_token_endpoint_is_left_alone_for_a_while() {
    let answer = |head| Behaviour::Answer { status: 503, head, body: String::new() };
    let server = TokenServer::start(answer(Some(("retry-after", "60".to_owned())))).await;
    let receiver = Receiver::start(200).await;
    let (sender, slot) = (Sender::new(TOKEN_REQUEST_TIMEOUT), TokenSlot::new(server.source(SECRET)));
    let first = sender.post(&receiver.url, &slot, LEASE).await;
    assert_eq!(text(&first), "no access token: the token endpoint answered 503");
    assert_eq!((first.status_code, first.retry_after), (None, None), "the receiver said nothing");
    let second = sender.try_to_post(&receiver.url, &slot, LEASE).await;
    assert!(matches!(second, Err(NotMade::TokenPause(again_in)) if again_in.as_secs() <= 60), "{second:?}");
    assert_eq!((server.count(), receiver.count()), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_token_endpoint_ends_as_a_failure_that_repeats_nothing() {
    let receiver = Receiver::start(200).await;
    let answer = |status, head, body: &str| Behaviour::Answer { status, head, body: body.to_owned() };
    let location = Some(("location", receiver.url.clone()));
    for (behaviour, said) in [
        (Behaviour::Hang, "the token endpoint could not be asked (timeout): the exchange did not end within 0.5 s"),
        (Behaviour::Drip, "the token endpoint answered 200, and its answer broke off (timeout)"),
        (Behaviour::Endless, "the token endpoint answered 200, but with more than 16383 bytes"),
        (answer(307, location, "hunter2"), "the token endpoint answered 307"),
        (
            answer(400, None, r#"{"error":"invalid_scope","error_description":"hunter2 correct-horse"}"#),
            "the token endpoint answered 400 with the error invalid_scope",
        ),
        (answer(400, None, r#"{"error":"correct-horse"}"#), "the token endpoint answered 400"),
        (
            answer(200, None, "<h1>hunter2</h1>"),
            "the token endpoint answered 200, but not with one JSON object that names each field once",
        ),
        (
            answer(200, None, r#"{"access_token":"hunter2\r\nx: y","token_type":"Bearer"}"#),
            "the token endpoint answered 200, but its access_token is empty, longer than 8192 bytes, or not printable \
             ASCII without spaces",
        ),
    ] {
        let server = TokenServer::start(behaviour.clone()).await;
        let sender = Sender::new(Duration::from_millis(500));
        let exchange =
            sender.post(&receiver.url, &TokenSlot::new(server.source(SECRET)), Duration::from_secs(30)).await;
        assert_eq!(exchange.outcome, Outcome::TokenFailed, "{behaviour:?}");
        assert_eq!(text(&exchange), format!("no access token: {said}"), "{behaviour:?}");
    }
    assert_eq!(receiver.count(), 0, "neither sent to nor redirected to");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_endpoint_is_held_to_the_address_policy() {
    let (server, receiver) = (TokenServer::start(GRANT).await, Receiver::start(200).await);
    for (url, said) in [
        ("http://10.0.0.1/token", "(address_blocked)"),
        ("http://[::ffff:a9fe:a9fe]/token", "(address_blocked)"),
        ("http://hooks:hunter2@127.0.0.1/token", "(address_blocked)"),
        ("no URL", "cannot be asked with this URL"),
    ] {
        let source = TokenSource { url: url.to_owned().into(), ..server.source(SECRET) };
        let sender = Sender::new(TOKEN_REQUEST_TIMEOUT);
        let exchange = sender.post(&receiver.url, &TokenSlot::new(source), LEASE).await;
        assert_eq!(exchange.outcome, Outcome::TokenFailed, "{url}");
        let excerpt = text(&exchange);
        assert!(excerpt.contains(said) && !excerpt.contains("hunter2") && !excerpt.contains("10.0.0.1"), "{excerpt}");
    }
    assert_eq!(receiver.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_repeats_its_token_does_not_bring_it_into_the_record() {
    let server = TokenServer::start(GRANT).await;
    let process =
        Process::start(vec![with_token("one", &server.echo_url, policy(), server.source(SECRET))], config()).await;
    let event = process.publish(&["one"], LEASE).await;
    process.finished().await;
    let attempts = process.attempts(event, "one").await;
    assert_eq!(attempts[0].attempt.outcome, Outcome::Delivered);
    assert_eq!(attempts[0].attempt.excerpt, "Bearer *******");
}
