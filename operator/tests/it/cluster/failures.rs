//! What a real API server cannot be made to do when a test wants it: to expire, refuse, hang, lack definitions, and hold
//! objects that its schema would refuse.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes};
use dispatcher_core::table::EndpointState;
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use operator::plan::removal::CONFIRM_REMOVAL_ANNOTATION;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::instance::{Operator, Setup};
use super::support::eventually;

const NAMESPACE: &str = "shop";
const ENDPOINTS: &str = "/apis/harborhook.dev/v1alpha1/namespaces/shop/hookendpoints";
const SECRETS: &str = "/api/v1/namespaces/shop/secrets";
const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/shop/leases/harborhook-operator";

/// An API server that keeps objects by their paths. Its watches bring nothing until they expire.
#[derive(Clone)]
struct Fake(Arc<Inner>);

struct Inner {
    objects: Mutex<BTreeMap<String, Value>>,
    /// Collections that are answered with a code instead.
    refused: Mutex<BTreeMap<String, u16>>,
    hanging: Mutex<BTreeSet<String>>,
    /// Objects that are gone as soon as they are made.
    forgotten: Mutex<BTreeSet<String>>,
    /// Statuses as they were written last, by name.
    statuses: Mutex<BTreeMap<String, Value>>,
    epoch: watch::Sender<u64>,
}

impl Fake {
    /// With a namespace, and endpoints that are signed with one key.
    fn with_endpoints(names: impl IntoIterator<Item = String>) -> Self {
        let fake = Self(Arc::new(Inner {
            objects: Mutex::default(),
            refused: Mutex::default(),
            hanging: Mutex::default(),
            forgotten: Mutex::default(),
            statuses: Mutex::default(),
            epoch: watch::Sender::new(1),
        }));
        let uid = "6b1f0e0e-8f5c-4a4e-9b53-3c1f6a4d5e6f";
        fake.put("/api/v1/namespaces/shop", json!({"metadata": {"name": NAMESPACE, "uid": uid}}));
        fake.put(&format!("{SECRETS}/keys"), json!({"data": {"key": "Zmlyc3Qta2V5LWZpcnN0LWtleS1maXJzdC1rZXk="}}));
        for name in names {
            fake.put_endpoint(&name, json!({}));
        }
        fake
    }

    fn put(&self, path: &str, object: Value) {
        self.0.objects.lock().unwrap().insert(path.to_owned(), object);
    }

    /// Puts an endpoint whose spec has these fields too.
    #[expect(clippy::needless_pass_by_value, reason = "it stands where it is made")]
    fn put_endpoint(&self, name: &str, fields: Value) {
        let mut spec =
            json!({"url": "https://example.com/", "signing": {"secretKeyRef": {"name": "keys", "key": "key"}}});
        for (field, value) in fields.as_object().unwrap() {
            spec[field] = value.clone();
        }
        let metadata = json!({"name": name, "namespace": NAMESPACE, "uid": name, "generation": 1});
        self.put(&format!("{ENDPOINTS}/{name}"), json!({"metadata": metadata, "spec": spec}));
    }

    fn remove(&self, path: &str) {
        self.0.objects.lock().unwrap().remove(path);
    }

    fn refuse(&self, collection: &str, code: Option<u16>) {
        let mut refused = self.0.refused.lock().unwrap();
        match code {
            Some(code) => drop(refused.insert(collection.to_owned(), code)),
            None => drop(refused.remove(collection)),
        }
    }

    /// Whether this object is taken away as soon as it is made.
    fn forget(&self, path: &str, is_forgotten: bool) {
        let mut forgotten = self.0.forgotten.lock().unwrap();
        if is_forgotten {
            forgotten.insert(path.to_owned())
        } else {
            forgotten.remove(path)
        };
    }

    fn hang(&self, path: &str) {
        self.0.hanging.lock().unwrap().insert(path.to_owned());
    }

    /// Ends all watches: what they knew is too old. Everything is listed anew.
    fn expire(&self) {
        self.0.epoch.send_modify(|epoch| *epoch += 1);
    }

    fn ready_reason(&self, name: &str) -> String {
        let statuses = self.0.statuses.lock().unwrap();
        let conditions = statuses.get(name).and_then(|status| status["conditions"].as_array().cloned());
        let ready = conditions.into_iter().flatten().find(|condition| condition["type"] == "Ready");
        ready.map(|ready| format!("{} {}", ready["reason"], ready["message"])).unwrap_or_default()
    }

    fn client(&self) -> kube::Client {
        let fake = self.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let fake = fake.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body: Bytes = body.collect().await?.to_bytes();
                let path = parts.uri.path().to_owned();
                if fake.0.hanging.lock().unwrap().contains(&path) {
                    return std::future::pending().await;
                }
                if parts.uri.query().is_some_and(|query| query.contains("watch=true")) {
                    return Ok::<_, kube::Error>(fake.watch());
                }
                let (code, value) = fake.answer(&parts.method, &path, &body);
                Ok(Response::builder().status(code).body(Body::from(value.to_string())).unwrap())
            }
        });
        kube::Client::new(service, "default")
    }

    fn watch(&self) -> Response<Body> {
        let mut epoch = self.0.epoch.subscribe();
        let event = async move {
            let _ = epoch.changed().await;
            let (_, status) = status(410);
            Ok::<_, std::io::Error>(format!("{}\n", json!({"type": "ERROR", "object": status})))
        };
        Response::new(Body::from_stream(futures::stream::once(event)))
    }

    fn answer(&self, method: &Method, path: &str, body: &[u8]) -> (u16, Value) {
        let sent: Value = serde_json::from_slice(body).unwrap_or_default();
        if let Some(code) = self.0.refused.lock().unwrap().get(path) {
            return status(*code);
        }
        if let Some(object) = path.strip_suffix("/status") {
            let name = object.rsplit('/').next().unwrap().to_owned();
            let new = sent.as_array().map_or_else(|| sent["status"].clone(), |patch| patch[0]["value"].clone());
            self.0.statuses.lock().unwrap().insert(name, new);
            return self
                .0
                .objects
                .lock()
                .unwrap()
                .get(object)
                .map_or_else(|| status(404), |found| (200, found.clone()));
        }
        let mut objects = self.0.objects.lock().unwrap();
        if *method == Method::GET {
            let is_collection = path.rsplit('/').next().is_some_and(|last| last.starts_with("hook"));
            if is_collection {
                let items: Vec<Value> =
                    objects.range(format!("{path}/")..format!("{path}0")).map(|(_, object)| object.clone()).collect();
                return (200, json!({"metadata": {"resourceVersion": "1"}, "items": items}));
            }
            return objects.get(path).map_or_else(|| status(404), |found| (200, found.clone()));
        }
        let place = match sent["metadata"]["name"].as_str() {
            Some(name) if *method == Method::POST => format!("{path}/{name}"),
            _ => path.to_owned(),
        };
        if place != path && objects.contains_key(&place) {
            return status(409);
        }
        let mut new = sent;
        // A real one would answer a conflict, and whoever writes would read the annotations of others again.
        if let Some(annotations) = objects.get(&place).map(|before| before["metadata"]["annotations"].clone()) {
            new["metadata"]["annotations"] = annotations;
        }
        new["metadata"]["resourceVersion"] = json!("1");
        if !self.0.forgotten.lock().unwrap().contains(&place) {
            objects.insert(place, new.clone());
        }
        (200, new)
    }
}

fn status(code: u16) -> (u16, Value) {
    let reason = match code {
        403 => "Forbidden",
        404 => "NotFound",
        409 => "AlreadyExists",
        500 => "InternalError",
        _ => "Expired",
    };
    (code, json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason}))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_is_not_understood_is_told_so_and_the_others_go_on() {
    let fake = Fake::with_endpoints(["good".to_owned()]);
    fake.put_endpoint("bad", json!({"timeoutSeconds": "soon"}));
    let mut operator = Operator::start(fake.client(), NAMESPACE).await;
    eventually("the good one is routed", || async { operator.active().await == 1 }).await;
    eventually("the bad one is told", || async { fake.ready_reason("bad").contains("spec.timeoutSeconds") }).await;
    assert!(fake.ready_reason("bad").contains("InvalidSpec"), "{}", fake.ready_reason("bad"));
    // What was good before it became bad is held, not dropped.
    fake.put_endpoint("good", json!({"headers": "none"}));
    fake.expire();
    eventually("it is held", || async { matches!(operator.endpoint_state().await, Some(EndpointState::Held { .. })) })
        .await;
    operator.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn definitions_that_are_missing_are_waited_for() {
    let fake = Fake::with_endpoints(["e".to_owned()]);
    fake.refuse(ENDPOINTS, Some(404));
    let mut operator = Operator::start(fake.client(), NAMESPACE).await;
    eventually("it says which one", || async {
        operator.reasons().await.contains("hookendpoints.harborhook.dev is missing or does not serve v1alpha1")
    })
    .await;
    assert!(!operator.is_ready().await && operator.rows().await.is_empty());
    fake.refuse(ENDPOINTS, None);
    eventually("it heals by itself", || async { operator.active().await == 1 && operator.is_ready().await }).await;
    operator.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn routing_goes_on_while_permissions_are_gone() {
    let fake = Fake::with_endpoints(["a".to_owned()]);
    let mut operator = Operator::start(fake.client(), NAMESPACE).await;
    eventually("it is routed", || async { operator.active().await == 1 }).await;
    fake.refuse(ENDPOINTS, Some(403));
    fake.put_endpoint("b", json!({}));
    fake.expire();
    eventually("it says what is missing", || async {
        operator.reasons().await.contains("a Role in namespace shop grant get, list and watch on hookendpoints")
    })
    .await;
    assert_eq!(operator.active().await, 1, "what was known stays");
    fake.refuse(ENDPOINTS, None);
    eventually("it goes on", || async { operator.active().await == 2 && operator.is_ready().await }).await;
    operator.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_is_not_answered_for_keeps_no_other_endpoint_waiting() {
    let fake = Fake::with_endpoints(["a".to_owned()]);
    fake.put_endpoint("b", json!({"signing": {"secretKeyRef": {"name": "slow", "key": "key"}}}));
    fake.hang(&format!("{SECRETS}/slow"));
    let mut operator = Operator::start(fake.client(), NAMESPACE).await;
    eventually("the other one is routed", || async { operator.active().await == 1 }).await;
    assert_eq!(fake.ready_reason("b"), "", "nobody knows what is wrong with it");
    operator.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signing_key_that_cannot_be_made_is_told_of_and_made_as_soon_as_it_can_be() {
    let fake = Fake::with_endpoints(std::iter::empty());
    fake.put_endpoint("e", json!({"signing": null}));
    fake.refuse(SECRETS, Some(403));
    let mut operator = Operator::start(fake.client(), NAMESPACE).await;
    eventually("it says what is missing", || async {
        let reason = fake.ready_reason("e");
        reason.contains("SecretForbidden")
            && reason.contains("allow it to create, get and update Secrets in namespace shop")
    })
    .await;
    fake.refuse(SECRETS, Some(500));
    eventually("it says that it tries again", || async {
        let reason = fake.ready_reason("e");
        reason.contains("Pending") && reason.contains("could not be made yet")
    })
    .await;
    fake.refuse(SECRETS, None);
    eventually("it is routed", || async { operator.active().await == 1 }).await;
    assert!(
        operator.measures("harborhook_operator_secret_requests_total{result=\"made\"} 1"),
        "{}",
        operator.metrics()
    );
    operator.running.stop().await;
}

/// A Secret as it is made for the endpoint with this UID.
fn made_for(endpoint_uid: &str, key: &str) -> Value {
    let owner = json!({
        "apiVersion": "harborhook.dev/v1alpha1", "kind": "Endpoint", "name": "e", "uid": endpoint_uid, "controller": true,
    });
    json!({"metadata": {"resourceVersion": "1", "ownerReferences": [owner]}, "data": {"key": key}})
}

/// `whsec_` and 32 bytes.
const SHARED_KEY: &str = "d2hzZWNfQndjSEJ3Y0hCd2NIQndjSEJ3Y0hCd2NIQndjSEJ3Y0hCd2NIQndjSEJ3Yz0=";

#[tokio::test(flavor = "multi_thread")]
async fn a_signing_key_that_is_taken_away_is_told_of() {
    let fake = Fake::with_endpoints(std::iter::empty());
    fake.put_endpoint("e", json!({"signing": null}));
    fake.forget(&format!("{SECRETS}/e-signing-key"), true);
    let mut operator = Operator::start(fake.client(), NAMESPACE).await;
    eventually("it says that something takes it away", || async {
        let reason = fake.ready_reason("e");
        reason.contains("Pending") && reason.contains("was made and is gone again")
    })
    .await;
    assert_eq!(operator.active().await, 0);
    fake.forget(&format!("{SECRETS}/e-signing-key"), false);
    eventually("it is routed", || async { operator.active().await == 1 }).await;
    operator.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signing_key_of_another_kind_that_somebody_else_has_made_is_told_of() {
    let fake = Fake::with_endpoints(std::iter::empty());
    fake.put_endpoint("e", json!({"signing": {"scheme": "StandardWebhooksEd25519"}}));
    fake.put(&format!("{SECRETS}/e-signing-key"), json!({"data": {"key": SHARED_KEY}}));
    let mut operator = Operator::start(fake.client(), NAMESPACE).await;
    eventually("it says what to do", || async {
        let reason = fake.ready_reason("e");
        reason.contains("SecretKeyMissing") && reason.contains("remove the Secret, or name one")
    })
    .await;
    fake.remove(&format!("{SECRETS}/e-signing-key"));
    eventually("it is routed", || async { operator.active().await == 1 }).await;
    operator.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_is_made_anew_waits_for_a_key_of_its_own() {
    let fake = Fake::with_endpoints(std::iter::empty());
    fake.put_endpoint("e", json!({"signing": null}));
    // The one before is gone, and its Secret is about to follow.
    let path = format!("{SECRETS}/e-signing-key");
    fake.put(&path, made_for("before", SHARED_KEY));
    let mut operator = Operator::start(fake.client(), NAMESPACE).await;
    eventually("it waits for that", || async {
        fake.ready_reason("e").contains("belongs to an endpoint of this name that was deleted")
    })
    .await;
    assert_eq!(operator.active().await, 0);
    fake.remove(&path);
    eventually("it is routed", || async { operator.active().await == 1 }).await;
    assert_ne!(fake.0.objects.lock().unwrap()[&path]["data"]["key"], SHARED_KEY);
    operator.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_disappears_all_at_once_stays_routed_until_that_is_confirmed() {
    let fake = Fake::with_endpoints((0..60).map(|number| format!("e{number}")));
    let mut operator = Operator::start(fake.client(), NAMESPACE).await;
    eventually("all are routed", || async { operator.active().await == 60 }).await;
    for number in 0..60 {
        fake.remove(&format!("{ENDPOINTS}/e{number}"));
    }
    fake.put_endpoint("new", json!({}));
    fake.expire();
    eventually("it waits", || async { !operator.waiting().await.is_empty() }).await;
    eventually("what is new is routed all the same", || async { operator.active().await == 61 }).await;
    let message = operator.waiting().await;
    let digest = message.rsplit('=').next().unwrap().to_owned();
    assert!(message.contains("60 of 6") && message.contains("-n shop annotate"), "{message}");
    assert!(operator.is_ready().await, "nothing is wrong with the operator");
    // Nor does a restart confirm it.
    operator.running.stop().await;
    let mut operator = operator.start_beside(Setup::new(fake.client(), NAMESPACE)).await;
    eventually("it waits again", || async { operator.waiting().await.ends_with(&digest) }).await;
    assert_eq!(operator.active().await, 61);
    let mut lease = fake.0.objects.lock().unwrap()[LEASE].clone();
    lease["metadata"]["annotations"] = json!({CONFIRM_REMOVAL_ANNOTATION: digest});
    fake.put(LEASE, lease);
    eventually("it is done", || async { operator.active().await == 1 }).await;
    eventually("nothing waits", || async { operator.waiting().await.is_empty() }).await;

    // They come back, and disappear once more: what was confirmed was the time before.
    (0..60).for_each(|number| fake.put_endpoint(&format!("e{number}"), json!({})));
    fake.expire();
    eventually("they are routed again", || async { operator.active().await == 61 }).await;
    (0..60).for_each(|number| fake.remove(&format!("{ENDPOINTS}/e{number}")));
    fake.expire();
    eventually("it waits for another confirmation", || async {
        let message = operator.waiting().await;
        !message.is_empty() && !message.ends_with(&digest)
    })
    .await;
    assert_eq!(operator.active().await, 61);
    operator.running.stop().await;
}
