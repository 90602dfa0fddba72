//! A ledger that does not answer.

use std::sync::Arc;
use std::time::Duration;

use dispatcher::deliver::DeliverConfig;
use dispatcher_core::delivery::DeliveryState;
use dispatcher_core::limits::LEASE;
use tokio::sync::Notify;

use super::harness::{Process, Receiver, config, endpoint, eventually, policy};
use super::unavailable::{failing_ledger, hanging_ledger};

#[tokio::test(flavor = "multi_thread")]
async fn an_unavailable_ledger_loses_and_repeats_no_attempt() {
    let receiver = Receiver::start(200).await;
    let (failures, wrap) = failing_ledger(4);
    let process = Process::start_before(vec![endpoint("one", &receiver.url, policy())], config(), wrap).await;
    let mut events = Vec::new();
    for _ in 0..50 {
        events.push(process.publish(&["one"], LEASE).await);
    }
    process.finished().await;
    assert_eq!(failures.left(), 0, "the ledger did fail");
    assert_eq!(receiver.count(), 50);
    for event in &events {
        assert_eq!(process.delivery(*event, "one").await.state, DeliveryState::Delivered);
        assert_eq!(process.attempts(*event, "one").await.len(), 1);
    }
    process.assert_balanced().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_nothing_can_be_recorded_no_new_attempt_is_made() {
    let receiver = Receiver::start(200).await;
    let (failures, wrap) = failing_ledger(usize::MAX);
    let mut process = Process::start_before(vec![endpoint("one", &receiver.url, policy())], config(), wrap).await;
    process.publish(&["one"], LEASE).await;
    eventually("recording fails", || async { failures.seen() > 0 }).await;
    // From here on nothing may leave: one round of a failed recording after it was published is proof enough.
    process.publish(&["one"], LEASE).await;
    let rounds = failures.seen();
    eventually("it failed again", || async { failures.seen() > rounds + 2 }).await;
    assert_eq!(receiver.count(), 1);
    failures.end();
    process.finished().await;
    process.stop().await;
    assert_eq!(process.ledger.balance().await.unwrap()[0].delivered, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_ends_although_the_ledger_never_answers() {
    let receiver = Receiver::start(200).await;
    let asked = Arc::new(Notify::new());
    let wrap = hanging_ledger(&asked);
    let short = DeliverConfig { lease: Duration::from_millis(700), ..config() };
    let mut process = Process::start_before(vec![endpoint("one", &receiver.url, policy())], short, wrap).await;
    // Late, so that it has to be taken before it is sent.
    process.publish(&["one"], Duration::ZERO).await;
    asked.notified().await;
    process.stop().await;
    assert_eq!(receiver.count(), 0);
}
