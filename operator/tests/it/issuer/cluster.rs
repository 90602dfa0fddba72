//! The issuer of a real cluster, and tokens that it issues. Runs where `HARBORHOOK_E2E_KUBECONFIG` names a cluster.

use dispatcher::access::keys::KeySet;
use dispatcher::access::token::Presented;
use dispatcher::access::verify::{Grant, Rules, verify};
use dispatcher::access::{AccessError, Principal, Tenants};
use dispatcher::clock::now_unix_ms;
use dispatcher_core::table::{IssuerRow, TokenKind};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::api::{DeleteParams, ObjectMeta, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use operator::cluster::issuer::{IssuerSettings, read_cluster_issuer};

/// The cluster, if there is one.
async fn cluster() -> Option<Config> {
    let path = std::env::var_os("HARBORHOOK_E2E_KUBECONFIG")?;
    dispatcher::process::install_tls_provider();
    let kubeconfig = Kubeconfig::read_from(path).unwrap();
    Some(Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap())
}

/// A namespace of this test's own, with the ServiceAccount `producer`.
async fn namespace(client: &Client) -> String {
    let name = format!("access-{}", uuid::Uuid::new_v4().simple());
    let metadata = |name: &str| ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
    let namespace = Namespace { metadata: metadata(&name), ..Namespace::default() };
    Api::all(client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
    let account = ServiceAccount { metadata: metadata("producer"), ..ServiceAccount::default() };
    Api::namespaced(client.clone(), &name).create(&PostParams::default(), &account).await.unwrap();
    name
}

/// What `kubectl create token producer --audience AUDIENCE` makes.
async fn token(client: &Client, namespace: &str, audiences: &[&str]) -> String {
    let audiences = audiences.iter().map(|audience| (*audience).to_owned()).collect();
    let spec = TokenRequestSpec { audiences, expiration_seconds: Some(600), bound_object_ref: None };
    let request = TokenRequest { spec, ..TokenRequest::default() };
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let issued = accounts.create_token_request("producer", &PostParams::default(), &request).await.unwrap();
    issued.status.unwrap().token
}

fn judge(token: &str, row: &IssuerRow) -> Result<Principal, AccessError> {
    let TokenKind::Kubernetes(accounts) = row.tokens.clone();
    let (issuer, audiences, grant) = (row.issuer.clone(), row.audiences.clone(), Grant::ServiceAccount(accounts));
    let keys = KeySet::read(row.jwks.as_bytes()).unwrap();
    verify(&Presented::read(token)?, &Rules { issuer, audiences, grant }, &keys, now_unix_ms() / 1000)
}

#[tokio::test]
async fn a_token_of_a_real_cluster_proves_its_namespace_and_no_other_audience_does() {
    let Some(config) = cluster().await else { return };
    let client = Client::try_from(config.clone()).unwrap();
    let namespace = namespace(&client).await;
    let row = read_cluster_issuer(&client, &IssuerSettings::default()).await.unwrap();

    let principal = judge(&token(&client, &namespace, &["harborhook"]).await, &row).unwrap();
    assert_eq!(principal.subject, format!("system:serviceaccount:{namespace}:producer"));
    assert_eq!(principal.tenants, Tenants::Named(vec![namespace.clone()]));
    assert_eq!(principal.scopes, "publish".parse().unwrap());
    let both = judge(&token(&client, &namespace, &["other", "harborhook"]).await, &row);
    assert!(both.is_ok(), "{both:?}");
    let other = judge(&token(&client, &namespace, &["other"]).await, &row);
    assert_eq!(other, Err(AccessError::WrongAudience));
    // What a pod has without asking is for the API server.
    let usual = token(&client, &namespace, &[]).await;
    assert_eq!(judge(&usual, &row), Err(AccessError::WrongAudience));

    // Any ServiceAccount may read the issuer, without a role of ours.
    let mut as_account = config;
    as_account.auth_info = kube::config::AuthInfo { token: Some(usual.into()), ..kube::config::AuthInfo::default() };
    let as_account = Client::try_from(as_account).unwrap();
    assert_eq!(read_cluster_issuer(&as_account, &IssuerSettings::default()).await.unwrap(), row);
    let namespaces: Api<Namespace> = Api::all(as_account);
    assert!(namespaces.list(&kube::api::ListParams::default()).await.is_err(), "it may do nothing else");

    let namespaces: Api<Namespace> = Api::all(client);
    namespaces.delete(&namespace, &DeleteParams::background()).await.unwrap();
}
