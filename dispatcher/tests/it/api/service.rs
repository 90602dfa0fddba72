//! The whole service in one process: an event in, a request out, a clean stop.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::routing::post;
use dispatcher::ledger::Ledger;
use dispatcher::ledger::sqlite::SqliteLedger;
use dispatcher::queue::memory::MemoryQueue;
use dispatcher::service::{RunningService, Service, ServiceConfig, ServiceError};
use dispatcher_core::address::AddressPolicy;
use dispatcher_core::id::EndpointId;
use dispatcher_core::limits::MEMORY_QUEUE_MESSAGES_MAX;
use dispatcher_core::recipient::RecipientRule;
use dispatcher_core::table::{EndpointSecrets, EndpointState, KeyBytes, Row, SigningKey, TableChange};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::harness::{endpoint_row, eventually, sealing_key, subscription_row, tenant_row};

/// A receiver that answers 200 and tells every body with its `webhook-id`.
async fn receiver() -> (SocketAddr, mpsc::UnboundedReceiver<(String, Vec<u8>)>) {
    let (sender, received) = mpsc::unbounded_channel();
    let handler = move |request: Request| {
        let sender = sender.clone();
        async move {
            let id = request.headers()["webhook-id"].to_str().unwrap().to_owned();
            let body = axum::body::to_bytes(request.into_body(), usize::MAX).await.unwrap();
            sender.send((id, body.to_vec())).unwrap();
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(post(handler))).await });
    (address, received)
}

/// A table with one endpoint at an address, for all events.
fn table(address: SocketAddr, state: EndpointState) -> TableChange {
    let mut row = endpoint_row("sink", state, RecipientRule::Any);
    let Row::Endpoint(endpoint) = &mut row else { unreachable!() };
    let secrets = EndpointSecrets {
        url: format!("http://{address}/hook").into(),
        keys: vec![SigningKey { bytes: KeyBytes(vec![9; 32]).into(), retires_at_unix_ms: None }],
        headers: Vec::new(),
        tls: None,
        token: None,
    };
    let id: EndpointId = endpoint.id;
    endpoint.sealed = sealing_key().seal(id, &secrets);
    TableChange { put: vec![tenant_row("shop"), row, subscription_row("all", &["sink"], &["**"], None)], drop: vec![] }
}

async fn start(ledger: &Arc<dyn Ledger>, listen: &str) -> Result<(RunningService, CancellationToken), ServiceError> {
    let queue = Arc::new(MemoryQueue::new(MEMORY_QUEUE_MESSAGES_MAX));
    let config = ServiceConfig::new(Arc::clone(ledger), queue, Arc::new(sealing_key()), AddressPolicy::development());
    let listener = TcpListener::bind(listen).await.unwrap();
    let admin = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let shutdown = CancellationToken::new();
    let service = Service::start(config, listener, Some(admin), shutdown.clone()).await?;
    Ok((service, shutdown))
}

async fn ledger(folder: &Path) -> Arc<dyn Ledger> {
    Arc::new(SqliteLedger::open_in(folder).await.unwrap())
}

async fn publish(service: &RunningService) -> Value {
    let url = format!("http://{}/v1/tenants/shop/events:publish", service.address);
    let request = reqwest::Client::builder().build().unwrap().post(url).header("content-type", "application/json");
    let response = request.body(r#"{"event_type":"order.created","payload":{ "a" : 1 }}"#).send().await.unwrap();
    assert_eq!(response.status(), 202);
    serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
}

async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let client = reqwest::Client::builder().build().unwrap();
    let response = client.get(format!("http://{address}{path}")).send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

#[tokio::test]
async fn open_access_is_refused_beyond_loopback() {
    let folder = tempfile::tempdir().unwrap();
    let error = start(&ledger(folder.path()).await, "0.0.0.0:0").await.unwrap_err();
    assert!(matches!(error, ServiceError::NotLoopback(_)), "{error}");
    assert!(error.to_string().contains("listen on 127.0.0.1"), "{error}");
}

#[tokio::test]
async fn a_name_that_is_not_this_machines_is_refused_on_both_listeners() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = ledger(folder.path()).await;
    ledger.publish_table(TableChange { put: vec![tenant_row("shop")], drop: vec![] }, None).await.unwrap();
    let (service, shutdown) = start(&ledger, "127.0.0.1:0").await.unwrap();
    let client = reqwest::Client::builder().build().unwrap();
    for (address, path) in [(service.address, "/v1/tenants/shop/events"), (service.admin_address.unwrap(), "/healthz")]
    {
        for (host, status) in [
            ("rebound.example", 403),
            (&format!("rebound.example:{}", address.port()), 403),
            ("localhost", 200),
            (&format!("[::1]:{}", address.port()), 200),
        ] {
            let response = client.get(format!("http://{address}{path}")).header("host", host).send().await.unwrap();
            assert_eq!(response.status(), status, "{host} on {path}");
            let text = response.text().await.unwrap();
            assert_eq!(text.contains("problems/foreign-host"), status == 403, "{text}");
        }
    }
    let rejected = "harborhook_rejected_requests_total{reason=\"foreign-host\"} 4";
    assert!(service.metrics.render().unwrap().contains(rejected));
    shutdown.cancel();
    service.join.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_event_goes_in_and_a_signed_request_comes_out() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = ledger(folder.path()).await;
    let (address, mut received) = receiver().await;
    ledger.publish_table(table(address, EndpointState::Active), None).await.unwrap();
    let (service, shutdown) = start(&ledger, "127.0.0.1:0").await.unwrap();
    let mut observed = service.observers.subscribe();

    let receipt = publish(&service).await;
    assert_eq!(receipt["fanout_count"], 1);
    let (delivery, body) = received.recv().await.unwrap();
    assert_eq!(body, br#"{ "a" : 1 }"#);
    let observed = observed.recv().await.unwrap();
    assert_eq!((observed.delivery.to_string(), observed.status_code), (delivery.clone(), Some(200)));
    let (status, shown) = get(service.address, &format!("/v1/tenants/shop/deliveries/{delivery}")).await;
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((status, &shown["state"], &shown["event_id"]), (200, &json!("delivered"), &receipt["event_id"]));

    let admin = service.admin_address.unwrap();
    assert_eq!(get(admin, "/healthz").await, (200, "ok\n".to_owned()));
    let (status, ready) = get(admin, "/readyz").await;
    assert_eq!(status, 200, "{ready}");
    let (status, metrics) = get(admin, "/metrics").await;
    assert_eq!(status, 200);
    assert!(metrics.contains("harborhook_attempts_total{outcome=\"delivered\"} 1"), "{metrics}");
    assert_eq!(get(admin, "/").await.0, 404);

    let replay = format!("http://{}/v1/tenants/shop/deliveries/{delivery}:replay", service.address);
    let client = reqwest::Client::builder().build().unwrap();
    assert_eq!(client.post(replay).send().await.unwrap().status(), 202);
    assert_eq!(received.recv().await.unwrap().0, delivery);

    shutdown.cancel();
    service.join.await.unwrap().unwrap();
    assert!(TcpListener::bind(service.address).await.is_ok(), "the listener is not closed");
}

#[tokio::test]
async fn what_a_stopped_service_had_not_delivered_the_next_one_delivers() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = ledger(folder.path()).await;
    let (address, mut received) = receiver().await;
    ledger.publish_table(table(address, EndpointState::Suspended), None).await.unwrap();
    let (service, shutdown) = start(&ledger, "127.0.0.1:0").await.unwrap();
    publish(&service).await;
    shutdown.cancel();
    service.join.await.unwrap().unwrap();
    assert!(received.try_recv().is_err());

    let (service, shutdown) = start(&ledger, "127.0.0.1:0").await.unwrap();
    ledger.publish_table(table(address, EndpointState::Active), None).await.unwrap();
    service.table_changed.notify_one();
    assert_eq!(received.recv().await.unwrap().1, br#"{ "a" : 1 }"#);
    eventually("the outcome is recorded", || async {
        ledger.balance().await.unwrap().iter().all(|balance| (balance.delivered, balance.open) == (1, 0))
    })
    .await;
    shutdown.cancel();
    service.join.await.unwrap().unwrap();
}
