//! TLS identities in the routing table.

use dispatcher_core::delivery::{DeliveryState, Outcome};
use dispatcher_core::limits::LEASE;
use dispatcher_core::table::{EndpointRow, TlsIdentity};

use super::harness::{Process, config, endpoint, eventually, policy, sealing_key};
use crate::authority::{Authority, TlsReceiver, VERSIONS, certificate};

/// An endpoint of the receiver with this identity.
fn endpoint_with(name: &str, receiver: &TlsReceiver, revision: &str, tls: TlsIdentity) -> EndpointRow {
    let mut row = endpoint(name, &receiver.url(), policy());
    let mut secrets = sealing_key().open(row.id, &row.sealed).unwrap();
    secrets.tls = Some(tls);
    row.sealed = sealing_key().seal(row.id, &secrets);
    row.revision = revision.into();
    row
}

#[tokio::test(flavor = "multi_thread")]
async fn every_endpoint_is_asked_with_its_own_certificate() {
    let authority = Authority::new("ours");
    let receiver = TlsReceiver::start(&authority.issue(&certificate(&["127.0.0.1"])), Some(&authority), &VERSIONS);
    let (one, two) = (authority.issue(&certificate(&[])), authority.issue(&certificate(&[])));
    let rows = vec![
        endpoint_with("one", &receiver, "1", authority.trusted_with(&one)),
        endpoint_with("two", &receiver, "1", authority.trusted_with(&two)),
    ];
    let process = Process::start(rows, config()).await;
    for (name, pair) in [("one", &one), ("two", &two), ("one", &one)] {
        process.publish(&[name], LEASE).await;
        process.finished().await;
        assert!(receiver.was_shown(pair), "{name}");
    }
    assert_eq!(receiver.seen().len(), 3);
    process.assert_balanced().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_identity_in_the_table_is_used_by_the_next_attempt() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let receiver = TlsReceiver::start(&new.issue(&certificate(&["127.0.0.1"])), Some(&new), &VERSIONS);
    let (first, second) = (new.issue(&certificate(&[])), new.issue(&certificate(&[])));
    let process = Process::start(vec![endpoint_with("rotated", &receiver, "1", old.trusted())], config()).await;
    let event = process.publish(&["rotated"], LEASE).await;
    eventually("an attempt", || async { !process.attempts(event, "rotated").await.is_empty() }).await;
    assert_eq!(process.attempts(event, "rotated").await[0].attempt.outcome, Outcome::TlsError);

    process.put(vec![endpoint_with("rotated", &receiver, "2", new.trusted_with(&first))]).await;
    process.finished().await;
    assert_eq!(process.delivery(event, "rotated").await.state, DeliveryState::Delivered);
    assert!(receiver.was_shown(&first));

    // The connection of the first one is open still, and not used again.
    process.put(vec![endpoint_with("rotated", &receiver, "3", new.trusted_with(&second))]).await;
    eventually("the second one is shown", || async {
        process.publish(&["rotated"], LEASE).await;
        process.finished().await;
        receiver.was_shown(&second)
    })
    .await;
    process.assert_balanced().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_an_identity_that_cannot_be_used_costs_no_attempt() {
    let authority = Authority::new("ours");
    let receiver = TlsReceiver::start(&authority.issue(&certificate(&["127.0.0.1"])), None, &VERSIONS);
    let broken = TlsIdentity { authorities: Some(String::from("swordfish").into()), client: None };
    let process = Process::start(vec![endpoint_with("broken", &receiver, "1", broken)], config()).await;
    let event = process.publish(&["broken"], LEASE).await;
    eventually("it has a row", || async { process.pending("broken").await == 1 }).await;
    assert_eq!(process.delivery(event, "broken").await.attempts, 0);

    process.put(vec![endpoint_with("broken", &receiver, "2", authority.trusted())]).await;
    process.finished().await;
    let attempts = process.attempts(event, "broken").await;
    assert_eq!((attempts.len(), attempts[0].attempt.outcome), (1, Outcome::Delivered));
    process.assert_balanced().await;
}
