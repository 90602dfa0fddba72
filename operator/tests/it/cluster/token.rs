//! Tokens of the cluster's own ServiceAccounts: what they prove, and what they give access to.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use dispatcher::access::keys::KeySet;
use dispatcher::access::token::Presented;
use dispatcher::access::verify::{Grant, Rules, verify};
use dispatcher::access::{Access, AccessError, Principal, Tenants, TokenConfig};
use dispatcher::clock::now_unix_ms;
use dispatcher::ledger::Ledger;
use dispatcher::ledger::sqlite::SqliteLedger;
use dispatcher::queue::memory::MemoryQueue;
use dispatcher::service::{RunningService, Service, ServiceConfig};
use dispatcher_core::address::AddressPolicy;
use dispatcher_core::id::TenantId;
use dispatcher_core::seal::SealingKey;
use dispatcher_core::table::{IssuerRow, Row, TableChange, TenantRow, TokenKind};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::api::{ListParams, ObjectMeta, PostParams};
use kube::{Api, Client};
use operator::cluster::issuer::{IssuerSettings, read_cluster_issuer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::support::Cluster;

const ACCOUNT: &str = "producer";

async fn make_account(cluster: &Cluster) {
    let metadata = ObjectMeta { name: Some(ACCOUNT.to_owned()), ..ObjectMeta::default() };
    let accounts: Api<ServiceAccount> = Api::namespaced(cluster.client.clone(), cluster.namespace());
    accounts.create(&PostParams::default(), &ServiceAccount { metadata, ..ServiceAccount::default() }).await.unwrap();
}

/// What `kubectl create token producer --audience AUDIENCE` makes.
async fn token(cluster: &Cluster, audiences: &[&str]) -> String {
    let audiences = audiences.iter().map(|audience| (*audience).to_owned()).collect();
    let spec = TokenRequestSpec { audiences, expiration_seconds: Some(600), bound_object_ref: None };
    let request = TokenRequest { spec, ..TokenRequest::default() };
    let accounts: Api<ServiceAccount> = Api::namespaced(cluster.client.clone(), cluster.namespace());
    let issued = accounts.create_token_request(ACCOUNT, &PostParams::default(), &request).await.unwrap();
    issued.status.unwrap().token
}

fn judge(token: &str, row: &IssuerRow) -> Result<Principal, AccessError> {
    let TokenKind::Kubernetes(accounts) = row.tokens.clone();
    let (issuer, audiences, grant) = (row.issuer.clone(), row.audiences.clone(), Grant::ServiceAccount(accounts));
    let keys = KeySet::read(row.jwks.as_bytes()).unwrap();
    verify(&Presented::read(token)?, &Rules { issuer, audiences, grant }, &keys, now_unix_ms() / 1000)
}

#[tokio::test]
async fn a_token_proves_its_namespace_and_none_for_another_audience_does() {
    let Some(cluster) = Cluster::connect("proof").await else { return };
    make_account(&cluster).await;
    let row = read_cluster_issuer(&cluster.client, &IssuerSettings::default()).await.unwrap();

    let principal = judge(&token(&cluster, &["harborhook"]).await, &row).unwrap();
    assert_eq!(principal.subject, format!("system:serviceaccount:{}:{ACCOUNT}", cluster.namespace()));
    assert_eq!(principal.tenants, Tenants::Named(vec![cluster.namespace().to_owned()]));
    assert_eq!(principal.scopes, "publish".parse().unwrap());
    let both = judge(&token(&cluster, &["other", "harborhook"]).await, &row);
    assert!(both.is_ok(), "{both:?}");
    // Without an audience, as what a pod has without asking for one, it is for the API server.
    for audiences in [&["other"][..], &[]] {
        let refused = judge(&token(&cluster, audiences).await, &row);
        assert_eq!(refused, Err(AccessError::WrongAudience), "{audiences:?}");
    }
}

#[tokio::test]
async fn every_account_may_read_the_issuer_without_a_role_of_ours() {
    let Some(cluster) = Cluster::connect("discovery").await else { return };
    make_account(&cluster).await;
    let mut as_account = cluster.config.clone();
    let token = Some(token(&cluster, &[]).await.into());
    as_account.auth_info = kube::config::AuthInfo { token, ..kube::config::AuthInfo::default() };
    let as_account = Client::try_from(as_account).unwrap();
    let settings = IssuerSettings::default();
    let row = read_cluster_issuer(&cluster.client, &settings).await.unwrap();
    assert_eq!(read_cluster_issuer(&as_account, &settings).await.unwrap(), row);
    let namespaces: Api<Namespace> = Api::all(as_account);
    assert!(namespaces.list(&ListParams::default()).await.is_err(), "it may do nothing else");
}

/// A service that demands tokens, with these rows in its table.
async fn serve(folder: &Path, put: Vec<Row>) -> (RunningService, CancellationToken) {
    let ledger: Arc<dyn Ledger> = Arc::new(SqliteLedger::open_in(folder).await.unwrap());
    ledger.publish_table(TableChange { put, drop: Vec::new() }, None).await.unwrap();
    let (queue, key) = (Arc::new(MemoryQueue::new(8)), Arc::new(SealingKey::from_bytes(&[7; 32])));
    let mut config = ServiceConfig::new(ledger, queue, key, AddressPolicy::public_https());
    config.access = Access::Tokens(Arc::new(TokenConfig::default()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let shutdown = CancellationToken::new();
    (Service::start(config, listener, None, shutdown.clone()).await.unwrap(), shutdown)
}

/// Publishes to a tenant; answers the status.
async fn publish(address: SocketAddr, tenant: &str, token: &str) -> String {
    let body = r#"{"event_type":"order.created","payload":1}"#;
    let request = format!(
        "POST /v1/tenants/{tenant}/events:publish HTTP/1.1\r\nhost: ingest\r\nconnection: close\r\n\
         authorization: Bearer {token}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.split(' ').nth(1).unwrap().to_owned()
}

#[tokio::test]
async fn a_workload_publishes_to_its_own_namespace_with_its_own_token() {
    let Some(cluster) = Cluster::connect("publish").await else { return };
    make_account(&cluster).await;
    let row = read_cluster_issuer(&cluster.client, &IssuerSettings::default()).await.unwrap();
    let tenant = |name: &str| Row::Tenant(TenantRow { id: TenantId::of_namespace_name(name), name: name.to_owned() });
    let folder = tempfile::tempdir().unwrap();
    let rows = vec![tenant(cluster.namespace()), tenant("other"), Row::Issuer(row)];
    let (service, shutdown) = serve(folder.path(), rows).await;
    let (ours, others) = (token(&cluster, &["harborhook"]).await, token(&cluster, &["other"]).await);
    for (tenant, token, status) in [
        (cluster.namespace(), &*ours, "202"),
        ("other", &*ours, "404"),
        ("nobody", &*ours, "404"),
        (cluster.namespace(), &*others, "401"),
        (cluster.namespace(), "nonsense", "401"),
    ] {
        assert_eq!(publish(service.address, tenant, token).await, status, "{tenant}");
    }
    shutdown.cancel();
    service.join.await.unwrap().unwrap();
}
