//! What protects endpoints from us, and from each other.

use std::time::Duration;

use dispatcher_core::delivery::{DeliveryState, EndReason, Outcome};
use dispatcher_core::limits::LEASE;
use dispatcher_core::table::{BreakerPolicy, RateLimit};

use super::harness::{Process, Receiver, config, endpoint, endpoint_id, eventually, policy};

#[tokio::test(flavor = "multi_thread")]
async fn gone_disables_the_endpoint_until_its_revision_changes() {
    let receiver = Receiver::start(410).await;
    let row = endpoint("gone", &receiver.url, policy());
    let process = Process::start(vec![row.clone()], config()).await;
    let first = process.publish(&["gone"], LEASE).await;
    eventually("it is disabled", || async { process.ledger.disabled().await.unwrap().len() == 1 }).await;
    assert_eq!(process.ledger.disabled().await.unwrap()[0].endpoint, endpoint_id("gone"));
    eventually("it is dead", || async { process.delivery(first, "gone").await.state == DeliveryState::Dead }).await;
    assert_eq!(process.delivery(first, "gone").await.reason, Some(EndReason::Gone));

    let second = process.publish(&["gone"], LEASE).await;
    eventually("it waits", || async { process.pending("gone").await == 1 }).await;
    assert_eq!(receiver.count(), 1);

    receiver.answer(200);
    let mut changed = row;
    changed.revision = "2".into();
    process.put(vec![changed]).await;
    process.finished().await;
    assert_eq!(process.delivery(second, "gone").await.state, DeliveryState::Delivered);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_but_failures_disables_the_endpoint() {
    let receiver = Receiver::start(500).await;
    let mut strict = policy();
    strict.disable_after_failing_for_seconds = Some(1);
    let process = Process::start(vec![endpoint("failing", &receiver.url, strict)], config()).await;
    process.publish(&["failing"], LEASE).await;
    eventually("it is disabled", || async { process.ledger.disabled().await.unwrap().len() == 1 }).await;
    assert!(receiver.count() >= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_hangs_slows_no_other() {
    let (hanging, healthy) = (Receiver::start(0).await, Receiver::start(200).await);
    let rows = vec![endpoint("hanging", &hanging.url, policy()), endpoint("healthy", &healthy.url, policy())];
    let small = dispatcher::deliver::DeliverConfig { fast_track_max: 8, slow_track_max: 4, ..config() };
    let process = Process::start(rows, small).await;
    let mut events = Vec::new();
    for _ in 0..100 {
        events.push(process.publish(&["hanging", "healthy"], LEASE).await);
    }
    eventually("the healthy one has got everything", || async {
        let mut delivered = 0;
        for event in &events {
            delivered += u32::from(process.delivery(*event, "healthy").await.state == DeliveryState::Delivered);
        }
        delivered == 100
    })
    .await;
    for event in &events {
        let delivery = process.delivery(*event, "hanging").await;
        assert_eq!((delivery.state, delivery.attempts), (DeliveryState::Open, 0));
    }
    assert_eq!(healthy.count(), 100, "each once");
    hanging.answer(200);
    process.finished().await;
    process.assert_balanced().await;
    for event in &events {
        let attempts = process.attempts(*event, "hanging").await;
        assert_eq!(attempts.iter().filter(|attempt| !attempt.superseded).count(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_answer_is_recorded_when_it_comes() {
    let receiver = Receiver::start(0).await;
    let process = Process::start(vec![endpoint("slow", &receiver.url, policy())], config()).await;
    let event = process.publish(&["slow"], LEASE).await;
    eventually("it is recorded as in flight", || async { process.pending("slow").await == 1 }).await;
    assert_eq!(process.delivery(event, "slow").await.attempts, 0);
    receiver.answer(200);
    process.finished().await;
    assert_eq!(receiver.count(), 1);
    let attempts = process.attempts(event, "slow").await;
    assert_eq!(attempts.len(), 1);
    assert!(attempts[0].attempt.duration >= config().soft_budget);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_finds_no_place_within_its_lease_goes_back_without_an_attempt() {
    let receiver = Receiver::start(200).await;
    let full = dispatcher::deliver::DeliverConfig { fast_track_max: 0, lease: LEASE / 4, ..config() };
    let process = Process::start(vec![endpoint("crowded", &receiver.url, policy())], full).await;
    let event = process.publish(&["crowded"], LEASE / 4).await;
    eventually("it waits in the ledger", || async { process.pending("crowded").await == 1 }).await;
    assert_eq!((process.delivery(event, "crowded").await.attempts, receiver.count()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_circuit_opens_and_closes_again() {
    let receiver = Receiver::start(500).await;
    let mut careful = policy();
    careful.circuit_breaker = BreakerPolicy {
        failure_percent: 50,
        min_attempts: 4,
        window_seconds: 60,
        initial_pause_seconds: 2,
        max_pause_seconds: 2,
        probes: 1,
    };
    careful.retry.max_attempts = 50;
    let process = Process::start(vec![endpoint("tripped", &receiver.url, careful)], config()).await;
    let mut events = Vec::new();
    for _ in 0..4 {
        events.push(process.publish(&["tripped"], LEASE).await);
    }
    eventually("the gate is closed", || async {
        let facts = process.ledger.endpoint_facts(super::harness::tenant(), Duration::from_mins(1)).await.unwrap();
        facts.iter().any(|facts| facts.gate_closed_for.is_some())
    })
    .await;
    let before = receiver.count();
    for _ in 0..20 {
        events.push(process.publish(&["tripped"], LEASE).await);
    }
    eventually("all wait", || async { process.pending("tripped").await == 24 }).await;
    // At most a probe or two may have gone in the meantime, however slow this machine is.
    assert!(receiver.count() < before + 20, "{} after {before}", receiver.count());
    receiver.answer(200);
    process.finished().await;
    for event in &events {
        assert_eq!(process.delivery(*event, "tripped").await.state, DeliveryState::Delivered);
    }
    process.assert_balanced().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limit_delays_and_loses_nothing() {
    let receiver = Receiver::start(200).await;
    let mut paced = policy();
    paced.rate_limit = Some(RateLimit { per_second: 20, burst: 1 });
    let process = Process::start(vec![endpoint("paced", &receiver.url, paced)], config()).await;
    let started = std::time::Instant::now();
    for _ in 0..40 {
        process.publish(&["paced"], LEASE).await;
    }
    process.finished().await;
    assert_eq!(receiver.count(), 40);
    // A bound of the algorithm, not of this machine: 40 tokens at 20 a second, the first at once.
    assert!(started.elapsed() >= Duration::from_millis(1_900), "{:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_refused_is_an_attempt_of_its_class() {
    let mut once = policy();
    once.retry.max_attempts = 1;
    let process = Process::start(vec![endpoint("inside", "http://10.0.0.1/", once)], config()).await;
    let event = process.publish(&["inside"], LEASE).await;
    process.finished().await;
    let attempts = process.attempts(event, "inside").await;
    assert_eq!((attempts.len(), attempts[0].attempt.outcome), (1, Outcome::AddressBlocked));
}
