//! A ledger that is down while everything else works.

use std::sync::Arc;

use crds::Kind;
use dispatcher::ledger::Ledger;
use dispatcher::ledger::postgres::{PostgresConfig, PostgresLedger};
use dispatcher_core::table::EndpointState;
use serde_json::json;
use testbed::Proxy;

use super::instance::{Operator, Setup};
use super::run::{KEY, signed};
use super::support::{Cluster, condition_of, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_while_the_database_is_down_is_published_in_one_plan_once_it_is_back() {
    let Some(cluster) = Cluster::with_kinds("ledger-down").await else { return };
    let Some(mut server) = testbed::postgres(&[]).await.unwrap() else { return };
    let proxy = Proxy::to(server.url()).await.unwrap();
    let config = PostgresConfig::new(&proxy.through(server.url()).unwrap());
    PostgresLedger::migrate(&config).await.unwrap();
    let ledger: Arc<dyn Ledger> = Arc::new(PostgresLedger::connect(config).await.unwrap());
    cluster.put_secret("keys", &[("key", KEY)]).await;
    for name in ["a", "b", "c"] {
        cluster.put(Kind::Endpoint, name, &signed()).await;
    }
    let mut operator = Operator::start_on(Setup::new(cluster.client.clone(), cluster.namespace()), ledger);
    eventually("all are routed", || async { operator.active().await == 3 && operator.is_ready().await }).await;
    let ready = async |name: &str| condition_of(&cluster.read_endpoint(name).await, "Ready");
    eventually("and told so", || async { ready("a").await["observedGeneration"] == 1 }).await;
    let before = operator.version().await;

    server.kill().unwrap();
    eventually("it says so", || async { operator.reasons().await.contains("ledger: the ledger is not available") })
        .await;
    assert!(operator.leads().await, "another one could do no more");
    assert!(operator.measures("harborhook_operator_troubles{part=\"ledger\"} 1"));
    let mut suspended = signed();
    suspended["suspend"] = json!(true);
    for name in ["a", "b"] {
        cluster.put(Kind::Endpoint, name, &suspended).await;
    }
    cluster.put(Kind::Subscription, "s", &json!({"endpointRef": {"name": "c"}, "eventTypes": ["**"]})).await;
    eventually("an Event about the Lease tells it", || async {
        let events = cluster.events_about("Lease").await;
        events.iter().any(|(reason, note)| reason == "LedgerUnavailable" && note.starts_with("ledger: "))
    })
    .await;
    assert_eq!(ready("a").await["observedGeneration"], 1, "a condition says of which generation it speaks");

    server.restart().await.unwrap();
    eventually("it works again", || operator.is_ready()).await;
    eventually("what was edited is told", || async { ready("a").await["reason"] == "Suspended" }).await;
    assert_eq!(operator.version().await, before + 1, "all in one plan");
    assert_eq!((operator.active().await, operator.rows().await.len()), (1, 6), "nothing was removed");
    assert_eq!(operator.endpoint("b").await.unwrap().state, EndpointState::Suspended);
    assert!(operator.measures("harborhook_operator_troubles{part=\"ledger\"} 0"));

    // A network that stands is found out as well.
    proxy.hold();
    eventually("it says so", || async { operator.reasons().await.contains("ledger: ") }).await;
    proxy.release();
    eventually("it works again", || operator.is_ready()).await;
    assert_eq!(operator.version().await, before + 1);
    operator.running.stop().await;
}
