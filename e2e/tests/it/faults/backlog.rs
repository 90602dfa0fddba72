//! A backlog that is older than every lease.

use dispatcher_core::limits::{LEASE, MAX_IN_FLIGHT_MAX};
use e2e::distributed::{Recovery, Routes, Row};

use super::support::{Bed, bounds};

const EVENTS: u64 = 200_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_of_200_000_events_waits_for_a_stopped_pool() {
    let one = |routes| Routes { endpoints: vec!["billing"], max_in_flight: MAX_IN_FLIGHT_MAX, ..routes };
    let Some(bed) = Bed::with_routes(one).await else { return };
    let system = &bed.system;
    let bounds = bounds(0, Recovery::WithTheBacklog);
    let mut row = Row::begin("a_backlog_of_200_000_events_waits_for_a_stopped_pool", system, bounds).unwrap();
    // The pool is stopped; accepting takes longer than a lease, so that most of them are over.
    let acknowledged = system.accept(0..EVENTS, LEASE).await.unwrap();
    let _delivers = [system.deliver().await.unwrap(), system.deliver().await.unwrap()];
    row.recovers(&acknowledged).await.unwrap();
    row.conclude(&acknowledged.into()).await.unwrap();
}
