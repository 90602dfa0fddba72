//! Makes the Secrets with signing keys of endpoints that name none.
//!
//! A Secret is made once, and goes with its endpoint. One that is there already is left alone, whoever made it; only a key
//! of this operator's for this very endpoint is made anew, when the endpoint's scheme takes another kind of key. Needs
//! `create` on Secrets, and for the latter `get` and `update`.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use crds::{API_VERSION, Kind};
use dispatcher_core::limits::API_CALL_DEADLINE;
use dispatcher_core::redacted::Redacted;
use http::header::{ACCEPT, CONTENT_TYPE};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde_json::json;
use zeroize::Zeroizing;

use super::FIELD_MANAGER;
use super::failure::{ApiFailure, FailureClass, within};
use crate::generate::{GENERATED_KEY, is_of_other_kind, signing_key};
use crate::plan::GenerateSecret;

/// Asks for the object without its data: the answer to a write is not read.
const METADATA_ONLY: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

/// How the making of a Secret ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// It is new.
    Created,
    /// Its key is of another kind now.
    Renewed,
    /// It was there already and is as it was.
    Kept,
}

/// Makes a Secret for the endpoint with this UID.
///
/// # Errors
/// [`FailureClass::Forbidden`]: a permission is missing, and the endpoint should say so. [`FailureClass::Conflict`]:
/// somebody else changed the Secret meanwhile; the next plan sees what it is now. Others as they come; whatever it is,
/// asking again is right.
pub async fn make_secret(client: &kube::Client, wanted: &GenerateSecret, owner_uid: &str) -> Result<Made, ApiFailure> {
    let value = signing_key(wanted.scheme, Redacted::new(rand::random::<[u8; 32]>()).expose());
    let collection = format!("/api/v1/namespaces/{}/secrets", wanted.namespace);
    let object = format!("{collection}/{}", wanted.name);
    let create = write_request(
        http::Request::post(format!("{collection}?fieldManager={FIELD_MANAGER}")),
        &secret(wanted, owner_uid, &value, None),
    );
    match send(client, create).await {
        Ok(_) => return Ok(Made::Created),
        Err(failure) if failure.class == FailureClass::Exists => {}
        Err(failure) => return Err(failure),
    }
    let present = send(client, http::Request::get(&object).body(Vec::new()).map_err(kube::Error::HttpError)).await?;
    let Some(version) = version_to_renew(&present, wanted, owner_uid) else { return Ok(Made::Kept) };
    let replace = write_request(
        http::Request::put(format!("{object}?fieldManager={FIELD_MANAGER}")),
        &secret(wanted, owner_uid, &value, Some(version)),
    );
    send(client, replace).await.map(|_| Made::Renewed)
}

/// The version of a Secret that is to be written anew; `None`: it is not ours, or its key is of the right kind.
fn version_to_renew(text: &str, wanted: &GenerateSecret, owner_uid: &str) -> Option<String> {
    // An error would quote the text.
    let secret: Secret = serde_json::from_str(text).ok()?;
    let is_ours = secret.metadata.owner_references.iter().flatten().any(|owner| owner.uid == owner_uid);
    let data: BTreeMap<String, Redacted<Vec<u8>>> =
        secret.data.into_iter().flatten().map(|(key, value)| (key, Redacted::new(value.0))).collect();
    let is_other = data.get(GENERATED_KEY).is_some_and(|value| is_of_other_kind(value.expose(), wanted.scheme));
    secret.metadata.resource_version.filter(|_| is_ours && is_other)
}

/// The Secret as JSON, wiped when dropped.
fn secret(
    wanted: &GenerateSecret,
    owner_uid: &str,
    value: &Redacted<Vec<u8>>,
    resource_version: Option<String>,
) -> Zeroizing<Vec<u8>> {
    let metadata = ObjectMeta {
        name: Some(wanted.name.clone()),
        namespace: Some(wanted.namespace.clone()),
        labels: Some([("app.kubernetes.io/managed-by".to_owned(), FIELD_MANAGER.to_owned())].into()),
        owner_references: Some(vec![OwnerReference {
            api_version: API_VERSION.to_owned(),
            kind: Kind::Endpoint.as_str().to_owned(),
            name: wanted.endpoint.clone(),
            uid: owner_uid.to_owned(),
            controller: Some(true),
            // Deleting an endpoint never waits for its Secret.
            block_owner_deletion: Some(false),
        }]),
        resource_version,
        ..ObjectMeta::default()
    };
    let value = Zeroizing::new(BASE64.encode(value.expose()));
    let head = json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": metadata}).to_string();
    // The value is put in by hand: a JSON tree would leave a copy behind.
    let tail = Zeroizing::new(format!(",\"data\":{{\"{GENERATED_KEY}\":\"{}\"}}}}", *value));
    let mut body = Zeroizing::new(Vec::with_capacity(head.len() + tail.len()));
    body.extend_from_slice(&head.as_bytes()[..head.len() - 1]);
    body.extend_from_slice(tail.as_bytes());
    body
}

fn write_request(builder: http::request::Builder, body: &[u8]) -> Result<http::Request<Vec<u8>>, kube::Error> {
    builder
        .header(ACCEPT, METADATA_ONLY)
        .header(CONTENT_TYPE, "application/json")
        .body(body.to_vec())
        .map_err(kube::Error::HttpError)
}

/// Sends a request and answers the text: the client would log what it cannot read.
async fn send(
    client: &kube::Client,
    request: Result<http::Request<Vec<u8>>, kube::Error>,
) -> Result<Zeroizing<String>, ApiFailure> {
    let request = request.map_err(|error| ApiFailure::of(&error))?;
    within(API_CALL_DEADLINE, client.request_text(request)).await.map(Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use dispatcher_core::table::SigningScheme;
    use serde_json::Value;

    use super::*;

    fn wanted(scheme: SigningScheme) -> GenerateSecret {
        GenerateSecret {
            namespace: "shop".into(),
            name: "billing-signing-key".into(),
            endpoint: "billing".into(),
            scheme,
        }
    }

    fn made(scheme: SigningScheme, owner_uid: &str) -> Zeroizing<Vec<u8>> {
        let wanted = wanted(scheme);
        secret(&wanted, owner_uid, &signing_key(scheme, &[7; 32]), Some("5".to_owned()))
    }

    #[test]
    fn a_generated_secret_goes_with_its_endpoint() {
        let body = made(SigningScheme::StandardWebhooks, "u-1");
        let mut value: Value = serde_json::from_slice(&body).unwrap();
        let data = value["data"].take();
        let expected = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "Opaque", "data": null,
            "metadata": {
                "name": "billing-signing-key", "namespace": "shop", "resourceVersion": "5",
                "labels": {"app.kubernetes.io/managed-by": "harborhook"},
                "ownerReferences": [{
                    "apiVersion": "harborhook.dev/v1alpha1", "kind": "Endpoint", "name": "billing", "uid": "u-1",
                    "controller": true, "blockOwnerDeletion": false,
                }],
            },
        });
        assert_eq!(value, expected);
        let key = BASE64.decode(data["key"].as_str().unwrap()).unwrap();
        assert!(key.starts_with(b"whsec_"));
    }

    #[test]
    fn only_a_key_of_ours_of_the_other_kind_is_written_anew() {
        use SigningScheme::{StandardWebhooks, StandardWebhooksEd25519};
        let text = |scheme, uid| String::from_utf8(made(scheme, uid).to_vec()).unwrap();
        let version = |text: &str| version_to_renew(text, &wanted(StandardWebhooksEd25519), "u-1");
        assert_eq!(version(&text(StandardWebhooks, "u-1")), Some("5".to_owned()));
        assert_eq!(version(&text(StandardWebhooksEd25519, "u-1")), None);
        assert_eq!(version(&text(StandardWebhooks, "another")), None);
        // A Secret of that name that a person wrote.
        let Value::Object(mut by_hand) = serde_json::from_str(&text(StandardWebhooks, "u-1")).unwrap() else {
            panic!()
        };
        by_hand["metadata"]["ownerReferences"] = json!([]);
        assert_eq!(version(&Value::Object(by_hand).to_string()), None);
        assert_eq!(version("{}"), None);
    }
}
