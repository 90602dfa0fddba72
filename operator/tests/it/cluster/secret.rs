//! Secrets with generated keys.

use dispatcher_core::table::SigningScheme;
use http::Method;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, Patch, PatchParams};
use operator::cluster::failure::FailureClass;
use operator::cluster::secret::{Made, make_secret};
use operator::generate::{GENERATED_KEY, secret_name};
use operator::plan::GenerateSecret;
use serde_json::json;

use super::server::{Answer, Objects, client, refusal};
use super::support::Cluster;

fn wanted(namespace: &str, scheme: SigningScheme) -> GenerateSecret {
    GenerateSecret { namespace: namespace.to_owned(), name: secret_name("e"), endpoint: "e".to_owned(), scheme }
}

#[tokio::test]
async fn a_missing_permission_is_told_and_a_secret_that_may_not_be_read_is_kept() {
    let refused = client(|_| refusal(403, "Forbidden"));
    let failure = make_secret(&refused, &wanted("shop", SigningScheme::StandardWebhooks), "u").await.unwrap_err();
    assert_eq!((failure.class, failure.to_string().as_str()), (FailureClass::Forbidden, "refused as Forbidden"));
    let unread = client(|asked| match asked.method {
        Method::POST => refusal(409, "AlreadyExists"),
        _ => refusal(403, "Forbidden"),
    });
    let failure = make_secret(&unread, &wanted("shop", SigningScheme::StandardWebhooks), "u").await.unwrap_err();
    assert_eq!(failure.class, FailureClass::Forbidden);
}

#[tokio::test]
async fn a_secret_that_somebody_writes_meanwhile_is_not_overwritten() {
    let objects = Objects::default();
    let inner = objects.client();
    assert_eq!(
        make_secret(&inner, &wanted("shop", SigningScheme::StandardWebhooks), "u").await.unwrap(),
        Made::Created
    );
    let present = objects.get("/api/v1/namespaces/shop/secrets/e-signing-key").unwrap();
    let racing = client(move |asked| match asked.method {
        Method::POST => refusal(409, "AlreadyExists"),
        Method::GET => Answer::Reply(200, present.clone()),
        _ => refusal(409, "Conflict"),
    });
    let ed25519 = wanted("shop", SigningScheme::StandardWebhooksEd25519);
    assert_eq!(make_secret(&racing, &ed25519, "u").await.unwrap_err().class, FailureClass::Conflict);
}

#[tokio::test]
async fn a_real_api_server_keeps_a_secret_until_the_scheme_takes_another_kind_of_key() {
    use SigningScheme::{StandardWebhooks, StandardWebhooksEd25519};
    let Some(cluster) = Cluster::with_kinds("secret").await else { return };
    let endpoint = cluster.endpoint("e").await;
    let uid = endpoint["metadata"]["uid"].as_str().unwrap();
    let secrets: Api<Secret> = Api::namespaced(cluster.client.clone(), cluster.namespace());
    let make = |scheme, uid: &str| {
        let (client, wanted, uid) = (cluster.client.clone(), wanted(cluster.namespace(), scheme), uid.to_owned());
        async move { make_secret(&client, &wanted, &uid).await.unwrap() }
    };
    let key = || async {
        let secret = secrets.get(&secret_name("e")).await.unwrap();
        String::from_utf8(secret.data.unwrap()[GENERATED_KEY].0.clone()).unwrap()
    };
    let stranger = cluster.client_of("stranger");
    let refused = make_secret(&stranger, &wanted(cluster.namespace(), StandardWebhooks), uid).await.unwrap_err();
    let expected = format!(
        "secrets is forbidden: User \"stranger\" cannot create resource \"secrets\" in API group \"\" in the namespace \"{}\"",
        cluster.namespace(),
    );
    assert_eq!((refused.class, refused.message), (FailureClass::Forbidden, expected));
    assert_eq!(make(StandardWebhooks, uid).await, Made::Created);
    let first = key().await;
    assert!(first.starts_with("whsec_"));
    assert_eq!(make(StandardWebhooks, uid).await, Made::Kept);
    assert_eq!(make(StandardWebhooksEd25519, "another-endpoint").await, Made::Kept);
    assert_eq!(key().await, first);
    assert_eq!(make(StandardWebhooksEd25519, uid).await, Made::Renewed);
    let second = key().await;
    assert!(second.starts_with("whsk_"));
    let owner = secrets.get(&secret_name("e")).await.unwrap().metadata.owner_references.unwrap().remove(0);
    assert_eq!((owner.kind.as_str(), owner.name.as_str(), owner.uid.as_str()), ("Endpoint", "e", uid));
    assert_eq!((owner.controller, owner.block_owner_deletion), (Some(true), Some(false)));

    // One that a person wrote is a person's.
    let mine = json!({"metadata": {"ownerReferences": null}, "stringData": {GENERATED_KEY: first}});
    secrets.patch(&secret_name("e"), &PatchParams::default(), &Patch::Merge(mine)).await.unwrap();
    assert_eq!(make(StandardWebhooksEd25519, uid).await, Made::Kept);
    assert_eq!(key().await, first);
}
