//! A leader that stands still for longer than its Lease, and goes on.

use crds::Kind;
use dispatcher::ledger::Ledger;
use dispatcher::ledger::postgres::{PostgresConfig, PostgresLedger};
use dispatcher_core::table::{EndpointState, Row};
use serde_json::json;

use super::process::Process;
use super::run::{KEY, signed};
use super::support::{Cluster, condition_of, eventually};

/// What a leader writes, as it counts it itself.
const WRITES: [&str; 5] =
    ["table_publications_total", "status_writes_total", "status_failures_total", "events_total", "epoch"];

async fn state(ledger: &dyn Ledger) -> (u64, Option<EndpointState>) {
    let load = ledger.load_table(None).await.unwrap();
    let state = load.rows.into_iter().find_map(|row| if let Row::Endpoint(row) = row { Some(row.state) } else { None });
    (load.version.0, state)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_was_stopped_writes_nothing_when_it_goes_on() {
    let Some(cluster) = Cluster::with_kinds("paused").await else { return };
    let Some(database) = testbed::database().await.unwrap() else { return };
    cluster.put_secret("keys", &[("key", KEY)]).await;
    cluster.put(Kind::Endpoint, "e", &signed()).await;
    // All that can be logged is: a Secret is read by both of them.
    let options = ["--log", "trace"];
    let old = Process::start(&cluster, "old", database.url(), &options).await;
    eventually("the first one leads", || old.leads()).await;
    let new = Process::start(&cluster, "new", database.url(), &options).await;
    eventually("the second one follows", || new.is_ready()).await;
    let ledger = PostgresLedger::connect(PostgresConfig::new(database.url())).await.unwrap();
    let observed = async || condition_of(&cluster.read_endpoint("e").await, "Ready")["observedGeneration"].clone();
    eventually("all is told", || async {
        state(&ledger).await.1 == Some(EndpointState::Active) && observed().await == 1
    })
    .await;
    let lease = async || cluster.kubectl().get("lease/harborhook-operator").await.unwrap();
    assert_eq!(lease().await["spec"]["leaseTransitions"], 1);

    old.pause();
    let edit = async |suspend: bool| {
        let mut spec = signed();
        spec["suspend"] = json!(suspend);
        cluster.put(Kind::Endpoint, "e", &spec).await;
    };
    edit(true).await;
    eventually("the second one takes over", || new.leads()).await;
    eventually("and publishes", || async { state(&ledger).await.1 == Some(EndpointState::Suspended) }).await;
    eventually("and tells", || async { observed().await == 2 }).await;
    let version = state(&ledger).await.0;

    old.go_on();
    eventually("it knows that it does not lead", || async { !old.leads().await }).await;
    let writes = old.metrics(&WRITES).await;
    edit(false).await;
    eventually("the new leader goes on", || async { state(&ledger).await.1 == Some(EndpointState::Active) }).await;
    eventually("and tells of it", || async { observed().await == 3 }).await;
    assert_eq!(state(&ledger).await.0, version + 1, "nobody else has published");
    assert_eq!(old.metrics(&WRITES).await, writes);
    assert!(writes.iter().all(|line| !line.contains("superseded") && !line.contains("failures")), "{writes:?}");
    assert!(writes.contains(&"harborhook_operator_epoch 1".to_owned()), "{writes:?}");
    assert_eq!(lease().await["spec"]["leaseTransitions"], 2);

    for process in [&old, &new] {
        let log = process.log();
        assert!(log.contains(" TRACE ") && log.contains("this operator"), "{log}");
        for secret in [KEY, "Zmlyc3Qta2V5LWZpcnN0LWtleS1maXJzdC1rZXk"] {
            assert!(!log.contains(secret), "a Secret is logged");
        }
    }
}
