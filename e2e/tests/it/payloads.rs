//! GitHub's own payloads through the whole, while the process is killed again and again.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use e2e::http::{Client, Received, serve};
use e2e::payloads::{Payload, load};
use e2e::process::{DEADLINE, Dev};
use hyper::StatusCode;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::Notify;

const KILLS: usize = 20;
const SEED: u64 = 20_261_124;
/// An example key; it signs nothing but this test.
const SIGNING_KEY: &str = "whsec_aGFyYm9yaG9vay1lMmUtcGF5bG9hZHMta2V5LTAwMDE=";

/// What arrived: how often each payload came, and what was wrong with a request.
#[derive(Default)]
struct Arrivals {
    bodies: HashMap<Bytes, usize>,
    ids: HashSet<String>,
    faults: Vec<String>,
}

#[derive(Default)]
struct Judge {
    arrivals: Mutex<Arrivals>,
    changed: Notify,
}

impl Judge {
    /// The independent verifier decides whether a request is genuine.
    fn receive(&self, request: &Received) -> StatusCode {
        let webhook = standardwebhooks::Webhook::new(SIGNING_KEY).unwrap();
        let mut arrivals = self.arrivals.lock().unwrap();
        match webhook.verify(&request.body, &request.headers) {
            Ok(()) => {
                *arrivals.bodies.entry(request.body.clone()).or_default() += 1;
                let id = request.headers["webhook-id"].to_str().unwrap().to_owned();
                arrivals.ids.insert(id);
            }
            Err(error) => arrivals.faults.push(format!("{} {error}", request.path)),
        }
        drop(arrivals);
        self.changed.notify_waiters();
        StatusCode::NO_CONTENT
    }

    fn missing(&self, payloads: &[Payload]) -> usize {
        let arrivals = self.arrivals.lock().unwrap();
        payloads.iter().filter(|payload| !arrivals.bodies.contains_key(&payload.bytes)).count()
    }

    async fn wait_for_all(&self, payloads: &[Payload]) {
        let all = async {
            loop {
                let changed = self.changed.notified();
                if self.missing(payloads) == 0 {
                    return;
                }
                changed.await;
            }
        };
        let in_time = tokio::time::timeout(DEADLINE, all).await.is_ok();
        assert!(in_time, "{} payloads were acknowledged and never arrived (seed {SEED})", self.missing(payloads));
    }
}

fn write_resources(folder: &Path, receiver: std::net::SocketAddr) {
    let resources = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: github-key, namespace: forge}}\nstringData: {{key: {SIGNING_KEY}}}\n\
         ---\n\
         apiVersion: harborhook.dev/v1alpha1\nkind: Endpoint\nmetadata: {{name: mirror, namespace: forge}}\n\
         spec:\n  url: http://{receiver}/github\n  signing: {{secretKeyRef: {{name: github-key, key: key}}}}\n  \
         retry: {{type: Fixed, delaySeconds: 1}}\n\
         ---\n\
         apiVersion: harborhook.dev/v1alpha1\nkind: Subscription\nmetadata: {{name: everything, namespace: forge}}\n\
         spec:\n  endpointRef: {{name: mirror}}\n  eventTypes: [\"github.*\"]\n"
    );
    fs::write(folder.join("forge.yaml"), resources).unwrap();
}

/// The payload as a publish request, its bytes untouched.
fn publish_request(number: usize, payload: &Payload) -> Bytes {
    let head =
        format!(r#"{{"event_type":"github.{}","idempotency_key":"payload-{number}","payload":"#, payload.event_name);
    let mut request = Vec::with_capacity(head.len() + payload.bytes.len() + 1);
    request.extend_from_slice(head.as_bytes());
    request.extend_from_slice(&payload.bytes);
    request.push(b'}');
    request.into()
}

/// Publishes until everything is acknowledged or the process is gone; answers what is not acknowledged.
async fn publish(client: &Client, dev: &Dev, payloads: &[Payload], numbers: Vec<usize>) -> Vec<usize> {
    let url = dev.url("/v1/tenants/forge/events:publish");
    let mut left = Vec::new();
    for number in numbers {
        match client.post_json(&url, publish_request(number, &payloads[number])).await {
            Ok((StatusCode::ACCEPTED, _)) => {}
            Ok((status, body)) => panic!("payload {number}: {status} {}", String::from_utf8_lossy(&body)),
            Err(_) => left.push(number),
        }
    }
    left
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_payload_of_github_arrives_byte_for_byte_although_the_process_is_killed_twenty_times() {
    let Some(payloads) = load().unwrap() else {
        // Written to the stream itself: the test runner would swallow a print.
        writeln!(std::io::stderr(), "SKIPPED: npm is not installed, so GitHub's payloads were not tested").unwrap();
        return;
    };
    assert!(payloads.len() > 300, "only {} payloads", payloads.len());
    let judge = Arc::new(Judge::default());
    let receiver = serve({
        let judge = Arc::clone(&judge);
        move |request| judge.receive(&request)
    })
    .await
    .unwrap();
    let (folder, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write_resources(folder.path(), receiver);

    let mut random = StdRng::seed_from_u64(SEED);
    let mut waiting: Vec<usize> = (0..payloads.len()).rev().collect();
    for kill in 0..KILLS {
        let dev = Dev::start(folder.path(), data.path()).await.unwrap();
        let rounds_left = KILLS - kill;
        let slice = waiting.split_off(waiting.len() - waiting.len() / rounds_left);
        let client = Client::default();
        let moment = Duration::from_millis(random.random_range(0..400));
        let publishing = publish(&client, &dev, &payloads, slice.clone());
        // Whatever was under way when the moment came is not acknowledged: published again, under the same key.
        let left = tokio::select! {
            left = publishing => { tokio::time::sleep(moment / 8).await; left }
            () = tokio::time::sleep(moment) => slice,
        };
        dev.kill().await.unwrap();
        waiting.extend(left);
    }
    let dev = Dev::start(folder.path(), data.path()).await.unwrap();
    let left = publish(&Client::default(), &dev, &payloads, waiting).await;
    assert!(left.is_empty(), "{} requests failed although nobody killed the process", left.len());
    judge.wait_for_all(&payloads).await;

    let arrivals = judge.arrivals.lock().unwrap();
    assert_eq!(arrivals.faults, Vec::<String>::new());
    let known: HashSet<_> = payloads.iter().map(|payload| payload.bytes.clone()).collect();
    assert!(arrivals.bodies.keys().all(|body| known.contains(body)), "a body arrived that nobody sent");
    // One identity per accepted event, whatever was killed: copies carry the id of the first.
    assert_eq!(arrivals.ids.len(), payloads.len());
    let requests: usize = arrivals.bodies.values().sum();
    writeln!(
        std::io::stderr(),
        "{} payloads, {KILLS} kills, {requests} requests: {} copies",
        payloads.len(),
        requests - payloads.len()
    )
    .unwrap();
}
