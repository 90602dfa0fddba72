//! Leader election.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::Api;
use operator::cluster::lease::{Elector, EpochFloor, Lead, Leadership, LeaseConfig};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::server::Objects;
use super::support::{Cluster, PATIENCE};

const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/release/leases/harborhook-operator";

/// An elector that runs.
struct Running {
    lead: Lead,
    floor: EpochFloor,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    fn start(client: kube::Client, namespace: &str, identity: &str, duration: Duration) -> Self {
        let config = LeaseConfig {
            duration,
            renew_every: Duration::from_millis(500),
            ..LeaseConfig::new(namespace.to_owned(), "harborhook-operator".to_owned(), identity.to_owned())
        };
        let (elector, lead) = Elector::new(client, config);
        let (floor, stop) = (elector.epoch_floor(), CancellationToken::new());
        let task = tokio::spawn(elector.run(stop.clone()));
        Self { lead, floor, stop, task }
    }

    async fn is(&mut self, wanted: Leadership) {
        let reached = async { while self.lead.now() != wanted && self.lead.changed().await {} };
        let is_in_time = tokio::time::timeout(PATIENCE, reached).await.is_ok();
        let now = self.lead.now();
        assert!(is_in_time && now == wanted, "{wanted:?} and not {now:?}");
    }

    async fn leads(&mut self, epoch: u64) {
        self.is(Leadership::Leader { epoch }).await;
    }

    fn leads_now(&self) -> bool {
        self.lead.now() != Leadership::Follower
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

/// Much longer than a test waits: whoever takes over did not wait for it to run out.
const LONG: Duration = Duration::from_secs(110);
/// The shortest there is.
const SHORT: Duration = Duration::from_secs(3);

#[tokio::test]
async fn a_leader_stops_by_its_own_clock_when_the_api_server_hangs_and_goes_on_afterwards() {
    let objects = Objects::default();
    let mut elector = Running::start(objects.client(), "release", "a", SHORT);
    elector.leads(1).await;
    objects.hang(true);
    elector.is(Leadership::Follower).await;
    objects.hang(false);
    // Nobody else held the Lease meanwhile.
    elector.leads(1).await;
    elector.stop().await;
    assert_eq!(objects.get(LEASE).unwrap()["spec"]["holderIdentity"], "");
}

#[tokio::test]
async fn a_stop_is_not_held_up_by_an_api_server_that_hangs() {
    let objects = Objects::default();
    let mut elector = Running::start(objects.client(), "release", "a", SHORT);
    elector.leads(1).await;
    objects.hang(true);
    tokio::time::timeout(PATIENCE, elector.stop()).await.unwrap();
}

#[tokio::test]
async fn a_leader_goes_on_while_others_change_the_lease() {
    let objects = Objects::default();
    let mut elector = Running::start(objects.client(), "release", "a", SHORT);
    elector.leads(1).await;
    for _ in 0..5 {
        objects.touch(LEASE);
        let touched = objects.get(LEASE).unwrap();
        super::support::eventually("the Lease is renewed", || async {
            objects.get(LEASE).unwrap()["spec"]["renewTime"] != touched["spec"]["renewTime"]
        })
        .await;
        assert!(elector.leads_now());
        let renewed = objects.get(LEASE).unwrap();
        assert_eq!(renewed["metadata"]["labels"], touched["metadata"]["labels"]);
    }
    elector.stop().await;
}

#[tokio::test]
async fn a_deleted_lease_is_made_again_with_a_larger_epoch() {
    let objects = Objects::default();
    let mut elector = Running::start(objects.client(), "release", "a", SHORT);
    elector.leads(1).await;
    objects.remove(LEASE);
    elector.leads(2).await;
    // What was written carries a larger epoch than the new Lease: the Lease goes beyond it.
    elector.floor.raise(40);
    elector.leads(41).await;
    elector.stop().await;
}

#[tokio::test]
async fn two_electors_take_turns() {
    let objects = Objects::default();
    take_turns(&objects.client(), "release").await;
}

#[tokio::test]
async fn two_electors_take_turns_on_a_real_api_server() {
    let Some(cluster) = Cluster::connect("lease").await else { return };
    take_turns(&cluster.client, cluster.namespace()).await;
    let leases: Api<Lease> = Api::namespaced(cluster.client.clone(), cluster.namespace());
    let spec = leases.get("harborhook-operator").await.unwrap().spec.unwrap();
    assert_eq!((spec.holder_identity.as_deref(), spec.lease_transitions), (Some(""), Some(4)));
}

async fn take_turns(client: &kube::Client, namespace: &str) {
    let start = |identity, duration| Running::start(client.clone(), namespace, identity, duration);
    let mut first = start("a", LONG);
    first.leads(1).await;
    let mut second = start("b", SHORT);
    assert!(!second.leads_now());
    // Told to stop, a leader hands over: nobody waits for the long Lease to run out.
    let stopped = tokio::time::Instant::now();
    first.stop().await;
    second.leads(2).await;
    super::support::say(&format!("handed over {} ms after the stop", stopped.elapsed().as_millis()));
    // One that is killed gives nothing up: the other waits for the short Lease to run out.
    let mut third = start("c", SHORT);
    assert!(second.leads_now() && !third.leads_now());
    second.task.abort();
    let killed = tokio::time::Instant::now();
    third.leads(3).await;
    super::support::say(&format!("taken over {} ms after the leader's end", killed.elapsed().as_millis()));
    // The same name in another run is another holder.
    third.task.abort();
    let mut again = start("c", SHORT);
    again.leads(4).await;
    again.stop().await;
}
