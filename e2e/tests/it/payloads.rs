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

/// Every so many deliveries the first attempt is refused, so that whenever the process is killed something waits.
const REFUSED_EVERY: usize = 3;

/// What arrived: how often each payload was taken, and what was wrong with a request.
#[derive(Default)]
struct Arrivals {
    seen: HashSet<String>,
    taken: HashSet<String>,
    bodies: HashMap<Bytes, usize>,
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
        if let Err(error) = webhook.verify(&request.body, &request.headers) {
            arrivals.faults.push(format!("{} {error}", request.path));
            return StatusCode::UNAUTHORIZED;
        }
        let id = request.headers["webhook-id"].to_str().unwrap().to_owned();
        if arrivals.seen.insert(id.clone()) && arrivals.seen.len().is_multiple_of(REFUSED_EVERY) {
            return StatusCode::SERVICE_UNAVAILABLE;
        }
        arrivals.taken.insert(id);
        *arrivals.bodies.entry(request.body.clone()).or_default() += 1;
        drop(arrivals);
        self.changed.notify_waiters();
        StatusCode::NO_CONTENT
    }

    /// Events that were taken: each has one delivery, whose identity survives every kill.
    fn taken(&self) -> usize {
        self.arrivals.lock().unwrap().taken.len()
    }

    async fn wait_for_all(&self, payloads: &[Payload]) {
        let all = async {
            loop {
                let changed = self.changed.notified();
                if self.taken() >= payloads.len() {
                    return;
                }
                changed.await;
            }
        };
        let in_time = tokio::time::timeout(DEADLINE, all).await.is_ok();
        let missing = payloads.len().saturating_sub(self.taken());
        assert!(in_time, "{missing} payloads were acknowledged and never arrived (seed {SEED})");
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

/// Publishes one after another until the process is gone, and notes what was acknowledged.
async fn publish(dev: &Dev, payloads: &[Payload], numbers: &[usize], acknowledged: &Mutex<HashSet<usize>>) {
    let client = Client::default();
    let url = dev.url("/v1/tenants/forge/events:publish");
    for &number in numbers {
        match client.post_json(&url, publish_request(number, &payloads[number])).await {
            Ok((StatusCode::ACCEPTED, _)) => acknowledged.lock().unwrap().insert(number),
            Ok((status, body)) => panic!("payload {number}: {status} {}", String::from_utf8_lossy(&body)),
            Err(_) => return,
        };
    }
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
    let acknowledged = Mutex::new(HashSet::new());
    let (mut cut_off, mut undelivered) = (0, 0);
    // What was acknowledged is never published again; the rest is, under the same key.
    let waiting = || -> Vec<usize> {
        let acknowledged = acknowledged.lock().unwrap();
        (0..payloads.len()).filter(|number| !acknowledged.contains(number)).collect()
    };
    for kill in 0..KILLS {
        let dev = Dev::start(folder.path(), data.path()).await.unwrap();
        let mut slice = waiting();
        slice.truncate(slice.len() / (KILLS - kill));
        let moment = Duration::from_millis(random.random_range(0..150));
        let publishing = publish(&dev, &payloads, &slice, &acknowledged);
        let was_cut_off = tokio::time::timeout(moment, publishing).await.is_err();
        dev.kill().await.unwrap();
        undelivered += acknowledged.lock().unwrap().len().saturating_sub(judge.taken());
        cut_off += usize::from(was_cut_off);
    }
    // Else the kills came too early or too late to prove anything.
    assert!(cut_off > 0, "no kill cut the publishing off (seed {SEED})");
    assert!(undelivered > 0, "no kill left an acknowledged event undelivered (seed {SEED})");
    let dev = Dev::start(folder.path(), data.path()).await.unwrap();
    publish(&dev, &payloads, &waiting(), &acknowledged).await;
    assert!(waiting().is_empty(), "requests failed although nobody killed the process");
    judge.wait_for_all(&payloads).await;

    let arrivals = judge.arrivals.lock().unwrap();
    assert_eq!(arrivals.faults, Vec::<String>::new());
    let sent: HashSet<_> = payloads.iter().map(|payload| payload.bytes.clone()).collect();
    assert_eq!(
        arrivals.bodies.keys().cloned().collect::<HashSet<_>>(),
        sent,
        "bodies that arrived, bodies that were sent"
    );
    // One identity per accepted event, whatever was killed: copies carry the id of the first.
    assert_eq!(arrivals.taken.len(), payloads.len());
    let requests: usize = arrivals.bodies.values().sum();
    writeln!(
        std::io::stderr(),
        "{} payloads, {KILLS} kills: {cut_off} while publishing, {undelivered} acknowledged and not yet delivered, \
         {} copies",
        payloads.len(),
        requests - payloads.len()
    )
    .unwrap();
}
