//! An API server in the process that does what a test says.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes};
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use serde_json::{Value, json};

/// What a request is answered with.
pub(crate) enum Answer {
    /// A code and a body.
    Reply(u16, Value),
    /// Nothing, ever.
    Hang,
}

/// A request as the server got it.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) body: Value,
}

/// An answer of the server's that is not an object.
pub(crate) fn refusal(code: u16, reason: &str) -> Answer {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason,
        "message": format!("refused as {reason}"),
    });
    Answer::Reply(code, status)
}

/// A client of a server that answers as the function says.
pub(crate) fn client(answer: impl Fn(&Asked) -> Answer + Clone + Send + Sync + 'static) -> kube::Client {
    let service = tower::service_fn(move |request: Request<kube::client::Body>| {
        let answer = answer.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body: Bytes = body.collect().await?.to_bytes();
            let body = serde_json::from_slice(&body).unwrap_or_default();
            let asked = Asked { method: parts.method, path: parts.uri.path().to_owned(), body };
            let (code, value) = match answer(&asked) {
                Answer::Reply(code, value) => (code, value),
                Answer::Hang => std::future::pending().await,
            };
            let response = Response::builder().status(code).body(Body::from(value.to_string()));
            Ok::<_, kube::Error>(response.unwrap())
        }
    });
    kube::Client::new(service, "default")
}

/// Objects that are written by compare-and-set, as an API server does.
#[derive(Clone, Default)]
pub(crate) struct Objects(Arc<Inner>);

#[derive(Default)]
struct Inner {
    objects: Mutex<BTreeMap<String, Value>>,
    versions: AtomicU64,
    hangs: AtomicBool,
}

impl Objects {
    pub(crate) fn client(&self) -> kube::Client {
        let objects = self.clone();
        client(move |asked| objects.answer(asked))
    }

    /// From now on nothing is answered, or everything again.
    pub(crate) fn hang(&self, hangs: bool) {
        self.0.hangs.store(hangs, Ordering::SeqCst);
    }

    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.0.objects.lock().unwrap().get(path).cloned()
    }

    pub(crate) fn remove(&self, path: &str) {
        self.0.objects.lock().unwrap().remove(path);
    }

    /// Somebody else changes an object, if it is there.
    pub(crate) fn touch(&self, path: &str) {
        let version = self.next_version();
        if let Some(object) = self.0.objects.lock().unwrap().get_mut(path) {
            object["metadata"]["labels"] = json!({"touched": version});
            object["metadata"]["resourceVersion"] = json!(version);
        }
    }

    fn next_version(&self) -> String {
        (self.0.versions.fetch_add(1, Ordering::SeqCst) + 1).to_string()
    }

    fn answer(&self, asked: &Asked) -> Answer {
        if self.0.hangs.load(Ordering::SeqCst) {
            return Answer::Hang;
        }
        let version = self.next_version();
        let mut objects = self.0.objects.lock().unwrap();
        let mut new = asked.body.clone();
        if asked.method == Method::GET {
            return objects
                .get(&asked.path)
                .map_or_else(|| refusal(404, "NotFound"), |found| Answer::Reply(200, found.clone()));
        }
        let sent_version = new["metadata"]["resourceVersion"].take();
        new["metadata"]["resourceVersion"] = json!(version);
        if asked.method == Method::POST {
            let path = format!("{}/{}", asked.path, new["metadata"]["name"].as_str().unwrap());
            if objects.contains_key(&path) {
                return refusal(409, "AlreadyExists");
            }
            objects.insert(path, new.clone());
            return Answer::Reply(201, new);
        }
        match objects.get(&asked.path) {
            None => refusal(404, "NotFound"),
            Some(present) if present["metadata"]["resourceVersion"] != sent_version => refusal(409, "Conflict"),
            Some(_) => {
                objects.insert(asked.path.clone(), new.clone());
                Answer::Reply(200, new)
            }
        }
    }
}
