//! A watch that asks a real API server for what it has forgotten.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crds::Kind;
use http::Request;
use http::uri::PathAndQuery;
use kube::client::Body;

use super::instance::Operator;
use super::run::{KEY, signed};
use super::support::{Cluster, eventually};

/// A client whose first watch of endpoints ends after a second; the next one asks for what was before all that the API server
/// remembers.
fn forgetful(cluster: &Cluster) -> kube::Client {
    let (client, watches) = (cluster.client.clone(), Arc::new(AtomicUsize::new(0)));
    let service = tower::service_fn(move |mut request: Request<Body>| {
        let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
        if path.ends_with("/hookendpoints") && query.contains("watch=true") {
            let changed = match watches.fetch_add(1, Ordering::SeqCst) {
                0 => with(query, "timeoutSeconds", "1"),
                1 => with(query, "resourceVersion", "1"),
                _ => query.to_owned(),
            };
            let path_and_query: PathAndQuery = format!("{path}?{changed}").parse().unwrap();
            let mut parts = request.uri().clone().into_parts();
            parts.path_and_query = Some(path_and_query);
            *request.uri_mut() = parts.try_into().unwrap();
        }
        let client = client.clone();
        async move { client.send(request).await }
    });
    kube::Client::new(service, "default")
}

/// A query in which a parameter has this value.
fn with(query: &str, name: &str, value: &str) -> String {
    let others = query.split('&').filter(|pair| pair.split('=').next() != Some(name));
    others.map(ToOwned::to_owned).chain([format!("{name}={value}")]).collect::<Vec<_>>().join("&")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_a_real_api_server_calls_expired_begins_anew() {
    let Some(cluster) = Cluster::with_kinds("expired").await else { return };
    cluster.put_secret("keys", &[("key", KEY)]).await;
    cluster.put(Kind::Endpoint, "before", &signed()).await;
    let mut operator = Operator::start(forgetful(&cluster), cluster.namespace()).await;
    eventually("it is routed", || async { operator.active().await == 1 }).await;
    let restarts = "harborhook_operator_watch_restarts_total{resource=\"hookendpoints\",reason=\"expired\"} 1";
    eventually("the watch has expired", || async { operator.measures(restarts) }).await;
    cluster.put(Kind::Endpoint, "after", &signed()).await;
    eventually("it is followed again", || async { operator.active().await == 2 && operator.is_ready().await }).await;
    assert!(operator.measures(restarts), "it was listed anew once");
    operator.running.stop().await;
}
