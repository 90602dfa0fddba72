//! A whole service that demands tokens, over HTTP.

use std::path::Path;
use std::sync::Arc;

use dispatcher::access::{Access, ROUTES, TokenConfig};
use dispatcher::ledger::Ledger;
use dispatcher::ledger::sqlite::SqliteLedger;
use dispatcher::queue::memory::MemoryQueue;
use dispatcher::service::{RunningService, Service, ServiceConfig};
use dispatcher_core::address::AddressPolicy;
use dispatcher_core::limits::MEMORY_QUEUE_MESSAGES_MAX;
use dispatcher_core::recipient::RecipientRule;
use dispatcher_core::scope::Scope;
use dispatcher_core::table::{EndpointState, TableChange};
use http::{Method, header};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::issuers::{claims, file_of};
use super::signer::{Signer, changed, jwks};
use crate::api::harness::{endpoint_row, sealing_key, subscription_row, tenant_row};

/// A service whose API and admin routes others could reach, and whoever issues tokens for it.
struct Secured {
    service: RunningService,
    signer: Signer,
    http: reqwest::Client,
    shutdown: CancellationToken,
    _folder: tempfile::TempDir,
}

impl Drop for Secured {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// An answer: status, `WWW-Authenticate`, the label of the problem if it is one, and the body.
struct Answer {
    status: u16,
    challenge: Option<String>,
    label: Option<String>,
    body: String,
}

impl Secured {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let signer = Signer::ed25519("a");
        let file = folder.path().join("issuers.json");
        std::fs::write(&file, file_of(&json!({"jwks": jwks(&[&signer]), "internal": false}))).unwrap();
        let service = start(folder.path(), TokenConfig::read(Some(file)).unwrap()).await;
        let http = reqwest::Client::builder().build().unwrap();
        Self { service: service.0, signer, http, shutdown: service.1, _folder: folder }
    }

    fn token(&self, changes: &Value) -> String {
        self.signer.token(&changed(&claims(), changes))
    }

    async fn send(&self, method: Method, path: &str, authorization: Option<&str>) -> Answer {
        let url = format!("http://127.0.0.1:{}{path}", self.service.address.port());
        let mut request = self.http.request(method.clone(), url).header("host", "hooks.example.com");
        if method == Method::POST {
            let body = r#"{"event_type":"order.created","payload":1}"#;
            request = request.header(header::CONTENT_TYPE, "application/json").body(body);
        }
        if let Some(authorization) = authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let response = request.send().await.unwrap();
        let challenge = response.headers().get(header::WWW_AUTHENTICATE);
        let challenge = challenge.map(|value| value.to_str().unwrap().to_owned());
        let (status, body) = (response.status().as_u16(), response.text().await.unwrap());
        let json: Value = serde_json::from_str(&body).unwrap_or_default();
        let label = json["type"].as_str().and_then(|name| name.rsplit('/').next()).map(str::to_owned);
        Answer { status, challenge, label, body }
    }

    async fn with(&self, method: Method, path: &str, changes: &Value) -> Answer {
        self.send(method, path, Some(&format!("Bearer {}", self.token(changes)))).await
    }
}

async fn start(folder: &Path, tokens: TokenConfig) -> (RunningService, CancellationToken) {
    let ledger: Arc<dyn Ledger> = Arc::new(SqliteLedger::open_in(folder).await.unwrap());
    let put = vec![
        tenant_row("shop"),
        tenant_row("bank"),
        endpoint_row("billing", EndpointState::Suspended, RecipientRule::Unaddressed),
        subscription_row("all", &["billing"], &["**"], None),
    ];
    ledger.publish_table(TableChange { put, drop: Vec::new() }, None).await.unwrap();
    let queue = Arc::new(MemoryQueue::new(MEMORY_QUEUE_MESSAGES_MAX));
    let mut config = ServiceConfig::new(ledger, queue, Arc::new(sealing_key()), AddressPolicy::development());
    config.access = Access::Tokens(Arc::new(tokens));
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let admin = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let shutdown = CancellationToken::new();
    (Service::start(config, listener, Some(admin), shutdown.clone()).await.unwrap(), shutdown)
}

/// A path of a route that answers a request of this method.
fn path_of(method: &Method, pattern: &str, tenant: &str) -> String {
    let id = "019ab0c4-7d5e-7c21-9d0a-3f1b5a0c9e77";
    let delivery = if method == Method::POST { format!("{id}:replay") } else { id.to_owned() };
    let filled = pattern.replace("{tenant}", tenant).replace("{event}", id).replace("{endpoint}", "billing");
    filled.replace("{delivery}", &delivery)
}

#[tokio::test]
async fn no_route_answers_without_a_token() {
    let secured = Secured::start().await;
    let other = Signer::ed25519("a");
    let forged = format!("Bearer {}", other.token(&claims()));
    let expired = format!("Bearer {}", secured.token(&json!({"exp": 1})));
    let mut paths: Vec<(Method, String)> =
        ROUTES.iter().map(|rule| (rule.method.clone(), path_of(&rule.method, rule.path, "shop"))).collect();
    // Nor does what is no route tell that it is none.
    paths.extend(
        ["/", "/v1/tenants", "/openapi.json", "/healthz", "/metrics"].map(|path| (Method::GET, path.to_owned())),
    );
    paths.push((Method::DELETE, "/v1/tenants/shop/events".to_owned()));
    for (method, path) in paths {
        for (authorization, error) in [
            (None, ""),
            (Some("Basic dTpw"), ""),
            (Some("Bearer"), ""),
            (Some("Bearer nonsense"), r#", error="invalid_token""#),
            (Some(forged.as_str()), r#", error="invalid_token""#),
            (Some(expired.as_str()), r#", error="invalid_token""#),
        ] {
            let answer = secured.send(method.clone(), &path, authorization).await;
            let label = answer.label.as_deref();
            assert_eq!((answer.status, label), (401, Some("unauthenticated")), "{method} {path} {authorization:?}");
            assert_eq!(answer.challenge, Some(format!("Bearer realm=\"harborhook\"{error}")), "{authorization:?}");
        }
    }
    let balance = secured.service.metrics.render().unwrap();
    assert!(balance.contains("harborhook_accepted_events_total 0"), "{balance}");
    for reason in ["missing", "not_bearer", "malformed", "wrong_signature", "expired"] {
        assert!(balance.contains(&format!("harborhook_refused_tokens_total{{reason=\"{reason}\"}}")), "{reason}");
    }
}

#[tokio::test]
async fn every_route_takes_its_scope_or_admin_and_no_other() {
    let secured = Secured::start().await;
    for rule in &ROUTES {
        for scope in Scope::ALL {
            let path = path_of(&rule.method, rule.path, "shop");
            let answer = secured.with(rule.method.clone(), &path, &json!({"scope": scope.as_str()})).await;
            let permitted = scope == rule.scope || scope == Scope::Admin;
            assert_eq!(answer.status != 403, permitted, "{} {path} {scope:?}: {}", rule.method, answer.body);
            assert_ne!(answer.label.as_deref(), Some("unknown-route"), "{} {path} is not served", rule.method);
            if !permitted {
                let name = rule.scope.as_str();
                let challenge = format!("Bearer realm=\"harborhook\", error=\"insufficient_scope\", scope=\"{name}\"");
                assert_eq!((answer.label.as_deref(), answer.challenge), (Some("missing-scope"), Some(challenge)));
            }
        }
        let path = path_of(&rule.method, rule.path, "shop");
        assert_eq!(secured.with(rule.method.clone(), &path, &json!({"scope": ""})).await.status, 403, "{path}");
    }
    let answer = secured.with(Method::GET, "/v1/tenants/shop", &json!({"scope": "admin"})).await;
    assert_eq!((answer.status, answer.label.as_deref()), (404, Some("unknown-route")));
    let answer = secured.with(Method::DELETE, "/v1/tenants/shop/events", &json!({"scope": "admin"})).await;
    assert_eq!((answer.status, answer.label.as_deref()), (405, Some("method-not-allowed")));
}

#[tokio::test]
async fn another_tenant_is_not_there_whether_or_not_it_exists() {
    let secured = Secured::start().await;
    let all = json!({"scope": "admin"});
    for rule in &ROUTES {
        let mut bodies = Vec::new();
        for tenant in ["bank", "nobody", "%62ank", "shop%2f", "SHOP", "%ff"] {
            let answer = secured.with(rule.method.clone(), &path_of(&rule.method, rule.path, tenant), &all).await;
            assert_eq!(
                (answer.status, answer.label.as_deref()),
                (404, Some("unknown-tenant")),
                "{tenant} {}",
                rule.path
            );
            bodies.push(answer.body);
        }
        bodies.dedup();
        assert_eq!(bodies.len(), 1, "what exists is told from what does not: {bodies:?}");
        // The very words of a service that knows no such tenant.
        let anybody = json!({"scope": "admin", "tenant": ["shop", "nobody"]});
        let unknown = secured.with(rule.method.clone(), &path_of(&rule.method, rule.path, "nobody"), &anybody).await;
        assert_eq!(unknown.body, bodies[0], "{}", rule.path);
    }
    let both = json!({"tenant": ["shop", "bank"]});
    for tenant in ["shop", "bank", "%73hop"] {
        let answer = secured.with(Method::GET, &format!("/v1/tenants/{tenant}/events"), &both).await;
        assert_eq!(answer.status, 200, "{tenant}");
    }
}

#[tokio::test]
async fn a_token_publishes_and_reads_what_it_may() {
    let secured = Secured::start().await;
    let publish = "/v1/tenants/shop/events:publish";
    let answer = secured.with(Method::POST, publish, &json!({"scope": "publish"})).await;
    assert_eq!(answer.status, 202, "{}", answer.body);
    let answer = secured.with(Method::GET, "/v1/tenants/shop/events", &json!({"scope": ["read"]})).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(answer.body.contains("order.created"), "{}", answer.body);
    // A token in the query is none: it would stand in logs.
    let in_query = format!("{publish}?access_token={}", secured.token(&json!({})));
    assert_eq!(secured.send(Method::POST, &in_query, None).await.status, 401);
}

#[tokio::test]
async fn probes_and_scrapers_reach_the_admin_routes_by_any_name() {
    let secured = Secured::start().await;
    let port = secured.service.admin_address.unwrap().port();
    for route in ["healthz", "readyz", "metrics"] {
        let request = secured.http.get(format!("http://127.0.0.1:{port}/{route}")).header("host", "10.1.2.3:8081");
        assert_eq!(request.send().await.unwrap().status(), 200, "{route}");
    }
}
