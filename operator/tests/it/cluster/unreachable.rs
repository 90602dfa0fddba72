//! A network to the API server that breaks, and one that stands.

use crds::Kind;
use dispatcher_core::table::EndpointState;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use testbed::Proxy;

use super::instance::Operator;
use super::run::{KEY, signed};
use super::support::{Cluster, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn routing_stands_while_the_api_server_is_out_of_reach_and_goes_on_afterwards() {
    let Some(cluster) = Cluster::with_kinds("unreachable").await else { return };
    cluster.put_secret("keys", &[("key", KEY)]).await;
    cluster.put(Kind::Endpoint, "e", &signed()).await;
    let url = cluster.config.cluster_url.to_string();
    let proxy = Proxy::to(&url).await.unwrap();
    let client = cluster.client_at(&proxy.through(&url).unwrap());
    let mut operator = Operator::start(client, cluster.namespace()).await;
    let works = async || operator.is_ready().await && operator.leads().await;
    eventually("it works", || async { works().await && operator.active().await == 1 }).await;
    for is_refusing in [true, false] {
        let version = operator.version().await;
        if is_refusing {
            proxy.refuse().await;
        } else {
            proxy.hold();
        }
        let suspend = json!({"spec": {"suspend": is_refusing}});
        let endpoints = cluster.objects(Kind::Endpoint);
        endpoints.patch("e", &PatchParams::default(), &Patch::Merge(suspend)).await.unwrap();
        eventually("it gives up the lead and says why", || async {
            let reasons = operator.reasons().await;
            !operator.leads().await && reasons.contains("lease harborhook-operator: the API server cannot be reached")
        })
        .await;
        assert!(operator.measures("harborhook_operator_troubles{part=\"lease\"} 1"));
        if is_refusing {
            eventually("so do the watches", || async { operator.reasons().await.contains("hookendpoints in ") }).await;
        }
        assert_eq!(operator.version().await, version, "nothing is published that is not known");
        proxy.accept();
        proxy.release();
        let expected = if is_refusing { EndpointState::Suspended } else { EndpointState::Active };
        eventually("what was edited meanwhile is published", || async {
            operator.endpoint_state().await == Some(expected.clone())
        })
        .await;
        eventually("it is ready, without a restart", &works).await;
        assert_eq!(operator.version().await, version + 1, "in one plan");
    }
    operator.running.stop().await;
}
