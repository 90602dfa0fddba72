//! What is logged of a Secret that cannot be read: nothing of what is in it.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use crds::Endpoint;
use http::{Request, Response};
use operator::cluster::metrics::OperatorMetrics;
use operator::cluster::secrets::SecretReader;
use serde_json::json;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::fmt::MakeWriter;

use super::run::signed;
use super::support::eventually;

/// What stands in the Secret, and must stand nowhere else.
const VALUE: &str = "c2VjcmV0LXNlY3JldC1zZWNyZXQ";

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// A client of a server that answers every request with this body.
fn client(body: Vec<u8>) -> kube::Client {
    let service = tower::service_fn(move |_: Request<kube::client::Body>| {
        let body = body.clone();
        async move { Ok::<_, kube::Error>(Response::new(Body::from(body))) }
    });
    kube::Client::new(service, "default")
}

#[tokio::test]
async fn nothing_of_a_secret_of_the_wrong_shape_is_logged() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(log.clone()).finish();
    let _logging = tracing::subscriber::set_default(subscriber);
    let endpoint: Endpoint = serde_json::from_value(json!({
        "apiVersion": crds::API_VERSION, "kind": "Endpoint", "metadata": {"name": "e", "namespace": "shop"},
        "spec": signed(),
    }))
    .unwrap();
    for body in [
        format!("{{\"data\": {{\"key\": \"{VALUE}").into_bytes(),
        json!({"data": [VALUE]}).to_string().into_bytes(),
        json!({"data": {"key": {"nested": VALUE}}}).to_string().into_bytes(),
        json!({"data": {"key": [VALUE], VALUE: 7}}).to_string().into_bytes(),
        format!("<html>{VALUE}</html>").into_bytes(),
        [VALUE.as_bytes(), &[0xff]].concat(),
        Vec::new(),
    ] {
        let metrics = Arc::new(OperatorMetrics::new());
        let reader = SecretReader::new(client(body), Arc::new(Notify::new()), Arc::clone(&metrics));
        reader.want(std::iter::once(&endpoint));
        let stop = CancellationToken::new();
        let is_read = eventually("it is read", || async {
            metrics.render().unwrap().contains("secret_requests_total{result=\"failed\"} 1")
        });
        tokio::select! {
            () = reader.run(stop.clone()) => {}
            () = is_read => {}
        }
    }
    tracing::trace!("this is logged, at {:?}", Duration::ZERO);
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(text.contains("this is logged"), "{text}");
    assert!(!text.contains(VALUE), "{text}");
}
