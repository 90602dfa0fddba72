//! An API server that takes connections and answers nothing.

use std::time::{Duration, Instant};

use crds::Kind;
use dispatcher::ledger::Ledger;
use dispatcher::ledger::sqlite::SqliteLedger;
use dispatcher_core::limits::{LEASE_DURATION_DEFAULT, OPERATOR_STOP_DEADLINE};
use dispatcher_core::table::{EndpointState, Row};
use serde_json::json;

use super::process::Process;
use super::run::{KEY, signed};
use super::support::{Cluster, eventually};

async fn rows(ledger: &dyn Ledger) -> (u64, Vec<Row>) {
    let load = ledger.load_table(None).await.unwrap();
    (load.version.0, load.rows)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_hangs_costs_the_lead_and_time_and_nothing_else() {
    let Some(cluster) = Cluster::private("hang").await else { return };
    cluster.install_kinds().await;
    cluster.put_secret("keys", &[("key", KEY)]).await;
    cluster.put(Kind::Endpoint, "e", &signed()).await;
    cluster.put(Kind::Subscription, "s", &json!({"endpointRef": {"name": "e"}, "eventTypes": ["**"]})).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ledger");
    let database = format!("sqlite:{}", file.display());
    let process = Process::start(&cluster, "one", &database, &[]).await;
    let ledger = SqliteLedger::open(&file).await.unwrap();
    let is_told = async || cluster.read_endpoint("e").await["status"]["observedGeneration"] == 1;
    eventually("it works", || async { process.is_ready().await && process.leads().await && is_told().await }).await;
    let before = rows(&ledger).await;
    assert_eq!(before.1.len(), 4, "tenant, endpoint, subscription, issuer: {before:?}");

    let (stalled, began) = (cluster.server().stall().unwrap(), Instant::now());
    eventually("it gives up the lead", || async { !process.leads().await }).await;
    let lead = began.elapsed();
    assert!(lead < LEASE_DURATION_DEFAULT, "while nobody else could have it: {lead:?}");
    eventually("it says why and what to do", || async {
        let reasons = process.readyz().await["reasons"].to_string();
        let words = "lease harborhook-operator: the API server cannot be reached or does not answer";
        reasons.contains(words) && reasons.contains("look at the API server and the network on the way to it")
    })
    .await;
    assert!(!process.is_ready().await);
    let metrics = process.metrics(&["leader", "troubles"]).await;
    assert!(metrics.contains(&"harborhook_operator_leader 0".to_owned()), "{metrics:?}");
    assert!(metrics.contains(&"harborhook_operator_troubles{part=\"lease\"} 1".to_owned()), "{metrics:?}");
    let log = process.log();
    assert!(log.contains("the API server did not answer within") && log.contains("does not lead any more"), "{log}");
    assert_eq!(rows(&ledger).await, before, "every route stays");

    drop(stalled);
    eventually("it leads again, the same process", || async { process.leads().await && process.is_ready().await })
        .await;
    cluster.put(Kind::Endpoint, "e", &json!({"url": "https://example.com/", "suspend": true})).await;
    eventually("what changes is published", || async {
        let rows = rows(&ledger).await.1;
        rows.iter().any(|row| matches!(row, Row::Endpoint(row) if row.state == EndpointState::Suspended))
    })
    .await;
    let after = rows(&ledger).await;
    assert_eq!((after.0, after.1.len()), (before.0 + 1, before.1.len()), "and nothing else: {after:?}");

    // Nor does it keep a process from ending.
    let stalled = cluster.server().stall().unwrap();
    let ended = process.terminate(OPERATOR_STOP_DEADLINE + Duration::from_secs(5)).await;
    assert!(matches!(ended.code(), Some(0 | 4)), "{ended}");
    drop(stalled);
}
