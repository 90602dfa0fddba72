//! The resources: Endpoints that say as little as most do, each with a Subscription of its own.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use crds::Kind;
use serde_json::{Value, json};

use super::api::ApiServer;

/// Endpoints of one namespace.
const ENDPOINTS_PER_NAMESPACE: usize = 100;

/// All resources, by the numbers of their Endpoints.
pub(super) struct Fleet {
    /// Endpoints that there are.
    pub(super) endpoints: usize,
    /// Where they all are.
    pub(super) receiver: SocketAddr,
}

impl Fleet {
    /// Creates all, and the namespaces that they are in.
    pub(super) async fn create(&self, api: &ApiServer) -> Result<()> {
        let namespaces = (0..self.endpoints.div_ceil(ENDPOINTS_PER_NAMESPACE)).map(|number| {
            let metadata = json!({"name": namespace(number * ENDPOINTS_PER_NAMESPACE)});
            ("/api/v1/namespaces".to_owned(), json!({"metadata": metadata}))
        });
        api.create_all(namespaces).await?;
        let kinds = [Kind::Endpoint, Kind::Subscription];
        let objects = (0..self.endpoints).flat_map(|number| kinds.map(|kind| (number, kind)));
        api.create_all(objects.map(|(number, kind)| (collection(kind, number), self.object(kind, number)))).await
    }

    /// Fails unless all are ready and in effect as they are now.
    pub(super) async fn check(&self, api: &ApiServer) -> Result<()> {
        for kind in [Kind::Endpoint, Kind::Subscription] {
            let ready = api.count(kind, |object| is_true(object, "Ready") && is_true(object, "Programmed")).await?;
            ensure!(ready == self.endpoints, "{ready} of {} {} are ready", self.endpoints, kind.plural());
        }
        Ok(())
    }

    fn object(&self, kind: Kind, number: usize) -> Value {
        let metadata = json!({"name": name(number), "labels": {"app.kubernetes.io/part-of": "bench"}});
        let spec = match kind {
            Kind::Endpoint => {
                let url = format!("http://{}/{}/{}", self.receiver, namespace(number), name(number));
                json!({"url": url, "timeoutSeconds": 10})
            }
            _ => json!({"endpointRef": {"name": name(number)}, "eventTypes": [event_type(number)]}),
        };
        json!({"apiVersion": crds::API_VERSION, "kind": kind.as_str(), "metadata": metadata, "spec": spec})
    }
}

/// Whether a condition is True for the present generation.
pub(super) fn is_true(object: &Value, condition: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|one| {
        one["type"] == condition
            && one["status"] == "True"
            && one["observedGeneration"] == object["metadata"]["generation"]
    })
}

/// The namespace of an Endpoint, which is its tenant.
pub(super) fn namespace(number: usize) -> String {
    format!("bench-{:04}", number / ENDPOINTS_PER_NAMESPACE)
}

/// The type of the events that an Endpoint gets.
pub(super) fn event_type(number: usize) -> String {
    format!("bench.{}", name(number))
}

/// Path of an object.
pub(super) fn path(kind: Kind, number: usize) -> String {
    format!("{}/{}", collection(kind, number), name(number))
}

fn name(number: usize) -> String {
    format!("e{:02}", number % ENDPOINTS_PER_NAMESPACE)
}

fn collection(kind: Kind, number: usize) -> String {
    format!("/apis/{}/namespaces/{}/{}", crds::API_VERSION, namespace(number), kind.plural())
}
