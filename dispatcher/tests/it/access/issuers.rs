//! Issuers whose keys are fetched: rotation, silence, lies, floods; and the file that names them.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Redirect, Response};
use dispatcher::access::{AccessError, FetchTimes, IssuersTask, TokenConfig, TokenGate};
use dispatcher::http::ResolverConfig;
use dispatcher::ingest::BodyReader;
use dispatcher::metrics::Metrics;
use dispatcher::snapshot::Snapshot;
use dispatcher_core::id::IssuerId;
use dispatcher_core::limits::JWKS_BYTES_MAX;
use dispatcher_core::table::{IssuerRow, ServiceAccountRules, TokenKind};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::signer::{Signer, changed, jwks, now};
use crate::api::harness::eventually;

/// What a server of keys does.
#[derive(Clone)]
enum Behaviour {
    Answer(Value),
    Hang,
    Status(u16),
    Huge,
    Garbage,
    Redirect,
}

/// A server of keys, on this machine.
pub(crate) struct KeyServer {
    pub(crate) address: SocketAddr,
    behaviour: Arc<Mutex<Behaviour>>,
    requests: Arc<AtomicUsize>,
}

impl KeyServer {
    pub(crate) async fn start(signers: &[&Signer]) -> Self {
        let behaviour = Arc::new(Mutex::new(Behaviour::Answer(jwks(signers))));
        let requests = Arc::new(AtomicUsize::new(0));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (told, counted) = (Arc::clone(&behaviour), Arc::clone(&requests));
        let handler = move || {
            counted.fetch_add(1, Ordering::SeqCst);
            let behaviour = told.lock().unwrap().clone();
            async move { answer(behaviour).await }
        };
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(handler)).await });
        Self { address, behaviour, requests }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/keys", self.address)
    }

    fn set(&self, behaviour: Behaviour) {
        *self.behaviour.lock().unwrap() = behaviour;
    }

    fn publish(&self, signers: &[&Signer]) {
        self.set(Behaviour::Answer(jwks(signers)));
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

async fn answer(behaviour: Behaviour) -> Response {
    match behaviour {
        Behaviour::Answer(keys) => keys.to_string().into_response(),
        Behaviour::Hang => std::future::pending().await,
        Behaviour::Status(status) => StatusCode::from_u16(status).unwrap().into_response(),
        Behaviour::Huge => Body::from(vec![b' '; JWKS_BYTES_MAX + 1]).into_response(),
        Behaviour::Garbage => "<html>maintenance</html>".into_response(),
        Behaviour::Redirect => Redirect::temporary("/elsewhere").into_response(),
    }
}

pub(crate) const ISSUER: &str = "https://login.example.com";

/// Claims of a token that is good for a while.
pub(crate) fn claims() -> Value {
    json!({
        "iss": ISSUER, "aud": "harborhook", "sub": "producer", "exp": now() + 600, "tenant": "shop",
        "scope": "publish read",
    })
}

/// The text of a file with one issuer.
pub(crate) fn file_of(changes: &Value) -> String {
    let entry = json!({
        "issuer": ISSUER, "audiences": ["harborhook"], "tenantClaim": "tenant", "scopeClaim": "scope", "internal": true,
    });
    json!({"issuers": [changed(&entry, changes)]}).to_string()
}

/// Times that let a test see in moments what takes minutes.
fn soon() -> FetchTimes {
    FetchTimes {
        file_interval: Duration::from_millis(20),
        interval: Duration::from_millis(20),
        unknown_key_pause: Duration::ZERO,
        retry_pause_min: Duration::from_millis(10),
        retry_pause_max: Duration::from_millis(20),
        ..FetchTimes::default()
    }
}

/// Times in which nothing is fetched but at the start and when a token asks for it.
fn only_when_asked() -> FetchTimes {
    let long = Duration::from_hours(1);
    FetchTimes { interval: long, retry_pause_min: long, retry_pause_max: long, ..soon() }
}

/// A gate with what it depends on.
struct Gate {
    tokens: TokenGate,
    metrics: Arc<Metrics>,
    table: watch::Sender<Arc<Snapshot>>,
    stop: CancellationToken,
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Gate {
    fn start(file: Option<&Path>, times: FetchTimes) -> Self {
        let config = TokenConfig { times, ..TokenConfig::read(file.map(Path::to_owned)).unwrap() };
        let (table, snapshot) = watch::channel(Arc::new(Snapshot::empty()));
        let metrics = Arc::new(Metrics::new());
        let (tokens, task): (TokenGate, IssuersTask) =
            TokenGate::new(&config, snapshot, ResolverConfig::default(), BodyReader::default(), Arc::clone(&metrics))
                .unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(task.run(stop.clone()));
        Self { tokens, metrics, table, stop }
    }

    /// A gate with one issuer, whose keys a server publishes.
    fn of_server(server: &KeyServer, times: FetchTimes) -> (Self, tempfile::NamedTempFile) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), file_of(&json!({"jwksUrl": server.url()}))).unwrap();
        (Self::start(Some(file.path()), times), file)
    }

    async fn check(&self, token: &str) -> Result<(), AccessError> {
        self.tokens.principal(token).await.map(drop)
    }

    async fn becomes(&self, token: &str, expected: Result<(), AccessError>) {
        eventually(&format!("{expected:?}"), || async { self.check(token).await == expected }).await;
    }
}

#[tokio::test]
async fn a_rotated_key_is_known_at_once_and_a_withdrawn_one_no_longer() {
    let (old, new) = (Signer::ed25519("old"), Signer::ecdsa("new"));
    let server = KeyServer::start(&[&old]).await;
    let (gate, _file) = Gate::of_server(&server, only_when_asked());
    assert_eq!(gate.check(&old.token(&claims())).await, Ok(()));
    // Nobody has fetched the keys since: the token makes it known that there is one.
    server.publish(&[&old, &new]);
    assert_eq!(gate.check(&new.token(&claims())).await, Ok(()));
    assert_eq!(gate.check(&old.token(&claims())).await, Ok(()));
    server.publish(&[&new]);
    let third = Signer::ed25519("third");
    assert_eq!(gate.check(&third.token(&claims())).await, Err(AccessError::UnknownKey));
    assert_eq!(
        gate.check(&old.token(&claims())).await,
        Err(AccessError::UnknownKey),
        "what was remembered is forgotten"
    );
}

#[tokio::test]
async fn keys_are_fetched_again_in_the_background() {
    let (old, new) = (Signer::ed25519("a"), Signer::ed25519("a"));
    let server = KeyServer::start(&[&old]).await;
    let (gate, _file) = Gate::of_server(&server, soon());
    assert_eq!(gate.check(&old.token(&claims())).await, Ok(()));
    server.publish(&[&new]);
    // The name is the old one, so no token can tell that the key is another.
    gate.becomes(&new.token(&claims()), Ok(())).await;
    assert_eq!(gate.check(&old.token(&claims())).await, Err(AccessError::WrongSignature));
}

#[tokio::test]
async fn a_flood_of_unknown_keys_costs_the_issuer_one_fetch() {
    let known = Signer::ed25519("known");
    let server = KeyServer::start(&[&known]).await;
    let times = FetchTimes { unknown_key_pause: Duration::from_hours(1), ..only_when_asked() };
    let (gate, _file) = Gate::of_server(&server, times);
    assert_eq!(gate.check(&known.token(&claims())).await, Ok(()));
    assert_eq!(server.requests(), 1);
    let stranger = Signer::ed25519("stranger");
    for number in 0..500 {
        let header = json!({"alg": "EdDSA", "kid": format!("made-up-{number}")});
        assert_eq!(gate.check(&stranger.sign(&header, &claims())).await, Err(AccessError::UnknownKey));
    }
    assert_eq!(server.requests(), 1);
    assert_eq!(gate.check(&known.token(&claims())).await, Ok(()));
}

#[tokio::test]
async fn whatever_an_issuer_answers_its_last_keys_stay_and_it_recovers() {
    let (known, new) = (Signer::ed25519("known"), Signer::ed25519("new"));
    let server = KeyServer::start(&[&known]).await;
    let times = FetchTimes { deadline: Duration::from_millis(200), ..soon() };
    let (gate, _file) = Gate::of_server(&server, times);
    let token = known.token(&claims());
    gate.becomes(&token, Ok(())).await;
    for behaviour in [
        Behaviour::Status(500),
        Behaviour::Status(404),
        Behaviour::Garbage,
        Behaviour::Huge,
        Behaviour::Redirect,
        Behaviour::Answer(json!({"keys": []})),
        Behaviour::Hang,
    ] {
        server.set(behaviour);
        let before = server.requests();
        eventually("it is asked again", || async { server.requests() >= before + 2 }).await;
        assert_eq!(gate.check(&token).await, Ok(()));
        assert_eq!(gate.check(&new.token(&claims())).await, Err(AccessError::UnknownKey));
    }
    server.publish(&[&new]);
    gate.becomes(&new.token(&claims()), Ok(())).await;
    let text = gate.metrics.render().unwrap();
    assert!(!text.contains("harborhook_issuer_key_fetch_failures_total 0"), "{text}");
}

#[tokio::test]
async fn keys_of_an_issuer_that_is_silent_for_too_long_are_used_no_more() {
    let known = Signer::ed25519("known");
    let server = KeyServer::start(&[&known]).await;
    let (gate, _file) = Gate::of_server(&server, FetchTimes { stale_max: Duration::from_millis(50), ..soon() });
    let token = known.token(&claims());
    gate.becomes(&token, Ok(())).await;
    server.set(Behaviour::Status(503));
    gate.becomes(&token, Err(AccessError::KeysUnavailable)).await;
    server.publish(&[&known]);
    gate.becomes(&token, Ok(())).await;
}

#[tokio::test]
async fn an_issuer_that_was_never_reached_is_waited_for_and_then_told_apart_from_a_bad_token() {
    let known = Signer::ed25519("known");
    let server = KeyServer::start(&[&known]).await;
    server.set(Behaviour::Hang);
    let times = FetchTimes { deadline: Duration::from_millis(100), ..soon() };
    let (gate, _file) = Gate::of_server(&server, times);
    assert_eq!(gate.check(&known.token(&claims())).await, Err(AccessError::KeysUnavailable));
    let stranger = known.token(&changed(&claims(), &json!({"iss": "https://evil.example"})));
    assert_eq!(gate.check(&stranger).await, Err(AccessError::UnknownIssuer));
    server.publish(&[&known]);
    gate.becomes(&known.token(&claims()), Ok(())).await;
}

#[tokio::test]
async fn keys_are_not_fetched_from_inside_unless_the_configuration_says_so() {
    let known = Signer::ed25519("known");
    let server = KeyServer::start(&[&known]).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let url = format!("https://{}/keys", server.address);
    std::fs::write(file.path(), file_of(&json!({"jwksUrl": url, "internal": false}))).unwrap();
    let gate = Gate::start(Some(file.path()), soon());
    eventually("it was tried", || async {
        gate.metrics.render().unwrap().lines().any(|line| {
            line.strip_prefix("harborhook_issuer_key_fetch_failures_total ").is_some_and(|count| count != "0")
        })
    })
    .await;
    assert_eq!(server.requests(), 0);
    assert_eq!(gate.check(&known.token(&claims())).await, Err(AccessError::KeysUnavailable));
}

#[tokio::test]
async fn a_changed_file_is_in_use_soon_and_a_wrong_one_changes_nothing() {
    let (first, second) = (Signer::ed25519("a"), Signer::ed25519("a"));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("issuers.json");
    // As a mounted ConfigMap changes: all at once.
    let write = |text: &str| {
        let new = folder.path().join("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(&new, &path).unwrap();
    };
    let inline = |signer: &Signer, audience: &str| {
        file_of(&json!({"jwks": jwks(&[signer]), "internal": false, "audiences": [audience]}))
    };
    write(&inline(&first, "harborhook"));
    let gate = Gate::start(Some(&path), soon());
    let token = first.token(&claims());
    assert_eq!(gate.check(&token).await, Ok(()));
    write("{\"issuers\": [{}]}");
    eventually("it is told", || async { gate.metrics.render().unwrap().contains("harborhook_issuers_file_invalid 1") })
        .await;
    assert_eq!(gate.check(&token).await, Ok(()));
    write(&inline(&second, "harborhook"));
    gate.becomes(&token, Err(AccessError::WrongSignature)).await;
    assert_eq!(gate.check(&second.token(&claims())).await, Ok(()));
    write(&inline(&second, "other"));
    gate.becomes(&second.token(&claims()), Err(AccessError::WrongAudience)).await;
    write("{\"issuers\": []}");
    gate.becomes(&second.token(&claims()), Err(AccessError::UnknownIssuer)).await;
}

#[tokio::test]
async fn the_tables_issuers_come_and_go_with_it_and_the_files_go_before_them() {
    let (signer, other) = (Signer::rsa("a"), Signer::ed25519("a"));
    let row = |signer: &Signer| IssuerRow {
        id: IssuerId::of_issuer(ISSUER),
        issuer: ISSUER.to_owned(),
        audiences: vec!["harborhook".to_owned()],
        jwks: jwks(&[signer]).to_string(),
        tokens: TokenKind::Kubernetes(ServiceAccountRules::default()),
    };
    let told = json!({"namespace": "shop", "serviceaccount": {"name": "producer"}});
    let account = json!({"sub": "system:serviceaccount:shop:producer", "kubernetes.io": told});
    let token = signer.token(&changed(&claims(), &account));
    let gate = Gate::start(None, soon());
    let publish = |rows: Vec<IssuerRow>| {
        let table = Snapshot { issuers: rows.into(), ..Snapshot::empty() };
        gate.table.send_replace(Arc::new(table));
    };
    assert_eq!(gate.check(&token).await, Err(AccessError::UnknownIssuer));
    publish(vec![row(&signer)]);
    gate.becomes(&token, Ok(())).await;
    publish(vec![row(&other)]);
    gate.becomes(&token, Err(AccessError::UnknownKey)).await;
    publish(vec![IssuerRow { jwks: "{}".to_owned(), ..row(&signer) }]);
    gate.becomes(&token, Err(AccessError::UnknownIssuer)).await;

    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), file_of(&json!({"jwks": jwks(&[&other]), "internal": false}))).unwrap();
    let gate = Gate::start(Some(file.path()), soon());
    let table = Snapshot { issuers: vec![row(&signer)].into(), ..Snapshot::empty() };
    gate.table.send_replace(Arc::new(table));
    gate.becomes(&other.token(&claims()), Ok(())).await;
    assert_eq!(gate.check(&token).await, Err(AccessError::UnknownKey));
}

#[tokio::test]
async fn a_token_is_verified_once_and_remembered() {
    let signer = Signer::rsa("a");
    let server = KeyServer::start(&[&signer]).await;
    let (gate, _file) = Gate::of_server(&server, only_when_asked());
    let token = signer.token(&claims());
    for _ in 0..100 {
        assert_eq!(gate.check(&token).await, Ok(()));
    }
    let text = gate.metrics.render().unwrap();
    assert!(text.contains("harborhook_verified_tokens_total 1"), "{text}");
}

#[tokio::test]
#[ignore = "a measurement"]
#[expect(clippy::print_stderr, reason = "its result")]
async fn what_a_token_costs() {
    const TOKENS: u32 = 1000;
    for signer in [Signer::rsa("a"), Signer::ecdsa("a"), Signer::ed25519("a")] {
        let file = tempfile::NamedTempFile::new().unwrap();
        let keys = json!({"jwks": jwks(&[&signer]), "internal": false});
        std::fs::write(file.path(), file_of(&keys)).unwrap();
        let gate = Gate::start(Some(file.path()), only_when_asked());
        let tokens: Vec<String> =
            (0..TOKENS).map(|number| signer.token(&changed(&claims(), &json!({ "jti": number })))).collect();
        let mut costs = Vec::new();
        for _ in 0..2 {
            let began = std::time::Instant::now();
            for token in &tokens {
                assert_eq!(gate.check(token).await, Ok(()));
            }
            costs.push(began.elapsed() / TOKENS);
        }
        eprintln!("{}: verified {:?}, remembered {:?}", signer.alg(), costs[0], costs[1]);
        assert!(costs[1] < costs[0]);
    }
}
