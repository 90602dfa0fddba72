//! The usual ways of a delivery, and the ends of a process.

use std::time::Duration;

use dispatcher::queue::{Queue, Track};
use dispatcher_core::delivery::{DeliveryState, EndReason, Outcome};
use dispatcher_core::limits::LEASE;
use dispatcher_core::table::{
    BodyFormat, DEFAULT_POOL, DeliveryPolicy, EndpointSecrets, EndpointState, KeyBytes, SigningKey,
};

use super::harness::{self, KEY, Process, Receiver, config, endpoint, eventually, policy, sealing_key};

#[tokio::test(flavor = "multi_thread")]
async fn every_target_gets_the_signed_payload_once() {
    let (one, two) = (Receiver::start(200).await, Receiver::start(204).await);
    let rows = vec![endpoint("one", &one.url, policy()), endpoint("two", &two.url, policy())];
    let process = Process::start(rows, config()).await;
    let mut watcher = process.observers.subscribe();
    let event = process.publish(&["one", "two"], LEASE).await;
    process.finished().await;

    let verifier = standardwebhooks::Webhook::from_bytes(KEY.to_vec()).unwrap();
    for (name, receiver, status_code) in [("one", &one, 200), ("two", &two, 204)] {
        let seen = receiver.seen();
        assert_eq!(seen.len(), 1);
        verifier.verify(&seen[0].body, &seen[0].headers).unwrap();
        assert_eq!(seen[0].headers["x-token"], "swordfish");
        assert_eq!(seen[0].headers["content-type"], "application/json");
        assert!(seen[0].body.starts_with(b"{\"number\":  "), "the bytes are untouched: {:?}", seen[0].body);
        let delivery = process.delivery(event, name).await;
        assert_eq!(seen[0].headers["webhook-id"], delivery.key.delivery.to_string());
        assert_eq!((delivery.state, delivery.attempts), (DeliveryState::Delivered, 1));
        assert_eq!(delivery.last_status_code, Some(status_code));
    }
    let mut observed = [watcher.recv().await.unwrap(), watcher.recv().await.unwrap()];
    observed.sort_by(|a, b| a.endpoint_name.cmp(&b.endpoint_name));
    assert_eq!([&*observed[0].endpoint_name, &*observed[1].endpoint_name], ["one", "two"]);
    assert!(observed.iter().all(|attempt| attempt.outcome == Outcome::Delivered && attempt.attempt_number == 1));
    process.assert_balanced().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_of_the_format_win_over_those_of_the_endpoint() {
    let receiver = Receiver::start(200).await;
    let format = BodyFormat::CloudEventsBinary;
    let mut row = endpoint("binary", &receiver.url, DeliveryPolicy { format, ..policy() });
    let secrets = EndpointSecrets {
        url: receiver.url.clone().into(),
        keys: vec![SigningKey { bytes: KeyBytes(KEY.to_vec()).into(), retires_at_unix_ms: None }],
        headers: vec![("ce-type".into(), String::from("forged").into())],
        tls: None,
        token: None,
    };
    row.sealed = sealing_key().seal(row.id, &secrets);
    let process = Process::start(vec![row], config()).await;
    process.publish(&["binary"], LEASE).await;
    process.finished().await;
    let seen = receiver.seen();
    let types: Vec<_> = seen[0].headers.get_all("ce-type").iter().collect();
    assert_eq!(types, [harness::new_event().event_type.as_str()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_tried_again_until_it_succeeds() {
    let receiver = Receiver::start(500).await;
    let process = Process::start(vec![endpoint("flaky", &receiver.url, policy())], config()).await;
    let event = process.publish(&["flaky"], LEASE).await;
    eventually("two attempts", || async { receiver.count() >= 2 }).await;
    receiver.answer(200);
    process.finished().await;

    let delivery = process.delivery(event, "flaky").await;
    assert_eq!(delivery.state, DeliveryState::Delivered);
    let attempts = process.attempts(event, "flaky").await;
    assert_eq!(attempts.len(), receiver.count());
    for (number, attempt) in (1..).zip(&attempts) {
        assert_eq!(attempt.attempt.number, number);
        let is_last = attempts.len() == number as usize;
        assert_eq!(attempt.attempt.outcome, if is_last { Outcome::Delivered } else { Outcome::Http5xx });
    }
    let ids: Vec<_> = receiver.seen().iter().map(|seen| seen.headers["webhook-id"].clone()).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "retries keep the identity");
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_run_out() {
    let receiver = Receiver::start(404).await;
    let mut short = policy();
    short.retry.max_attempts = 2;
    let process = Process::start(vec![endpoint("wrong", &receiver.url, short)], config()).await;
    let event = process.publish(&["wrong"], LEASE).await;
    process.finished().await;
    let delivery = process.delivery(event, "wrong").await;
    assert_eq!((delivery.state, delivery.reason), (DeliveryState::Dead, Some(EndReason::AttemptsExhausted)));
    assert_eq!(receiver.count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_suspended_endpoint_is_delivered_after_it_resumes() {
    let receiver = Receiver::start(200).await;
    let mut row = endpoint("paused", &receiver.url, policy());
    row.state = EndpointState::Suspended;
    let process = Process::start(vec![row.clone()], config()).await;
    let event = process.publish(&["paused"], LEASE).await;
    eventually("it has a row", || async { process.pending("paused").await == 1 }).await;
    assert_eq!((receiver.count(), process.delivery(event, "paused").await.attempts), (0, 0));

    row.state = EndpointState::Active;
    row.revision = "2".into();
    process.put(vec![row]).await;
    process.finished().await;
    let delivery = process.delivery(event, "paused").await;
    assert_eq!((delivery.state, delivery.attempts, receiver.count()), (DeliveryState::Delivered, 1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn work_whose_message_was_lost_is_due_again_when_its_lease_is_over() {
    let receiver = Receiver::start(200).await;
    let process = Process::start(vec![endpoint("lost", &receiver.url, policy())], config()).await;
    let (event, message) = process.accept(&["lost"], Duration::from_millis(300)).await;
    drop(message);
    process.finished().await;
    assert_eq!(process.delivery(event, "lost").await.state, DeliveryState::Delivered);
    assert_eq!(receiver.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_comes_twice_is_sent_once() {
    let receiver = Receiver::start(200).await;
    let mut process = Process::start(vec![endpoint("twice", &receiver.url, policy())], config()).await;
    // The lease is nearly over, so each copy has to be taken first, and only one can be.
    let (event, message) = process.accept(&["twice"], Duration::from_millis(500)).await;
    process.queue.publish(DEFAULT_POOL, Track::Fresh, vec![message.clone(), message]).await;
    process.finished().await;
    process.stop().await;
    assert_eq!(receiver.count(), 1);
    assert_eq!(process.attempts(event, "twice").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_taken_over_and_then_slow_is_recorded_by_its_holder() {
    let receiver = Receiver::start(0).await;
    let process = Process::start(vec![endpoint("slow", &receiver.url, policy())], config()).await;
    // The lease is nearly over, so the part is taken first, and its generation is 2.
    let event = process.publish(&["slow"], Duration::from_millis(500)).await;
    eventually("it is recorded as in flight", || async { process.pending("slow").await == 1 }).await;
    receiver.answer(200);
    process.finished().await;
    let attempts = process.attempts(event, "slow").await;
    assert_eq!((attempts.len(), receiver.count()), (1, 1));
    assert!(!attempts[0].superseded, "the hold was its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_gives_back_what_still_hangs() {
    let receiver = Receiver::start(0).await;
    let mut process = Process::start(vec![endpoint("hanging", &receiver.url, policy())], config()).await;
    let event = process.publish(&["hanging"], LEASE).await;
    eventually("it is sent", || async { receiver.count() == 1 }).await;
    process.stop().await;
    assert_eq!(process.pending("hanging").await, 1);
    let record = process.delivery(event, "hanging").await;
    assert_eq!((record.state, record.attempts), (DeliveryState::Open, 0));
    let due_at = record.due_at_unix_ms.unwrap();
    assert!(due_at <= dispatcher::clock::now_unix_ms(), "it is due at once, not at the end of a lease");
}
