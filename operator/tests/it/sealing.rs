//! A new sealing key: everything is sealed anew, and nothing else changes.

use dispatcher::ledger::sqlite::SqliteLedger;
use dispatcher::ledger::{DisableReason, Disabled, Ledger};
use dispatcher_core::seal::SealingKey;
use dispatcher_core::table::EndpointState;

use crate::fixtures::{Harness, KEY, NOW, good, secret, subscription};

const OLD: [u8; 32] = [7; 32];
const NEW: [u8; 32] = [8; 32];
const SECOND_KEY: &str = "second-key-second-key-second";

fn world(key: &str) -> String {
    let route = subscription("endpointRef: {name: e}\neventTypes: ['order.*']");
    let text = good("").replace(KEY, key).replace("signing: {", "signing: {rotationOverlapSeconds: 60, ");
    format!("{text}{route}")
}

/// Opens with both keys, before and after the new one seals; then the old one is gone.
fn steps() -> [SealingKey; 3] {
    [
        SealingKey::from_bytes(&OLD).opening_with(&NEW),
        SealingKey::from_bytes(&NEW).opening_with(&OLD),
        SealingKey::from_bytes(&NEW),
    ]
}

#[test]
fn a_rotation_of_the_sealing_key_keeps_retiring_keys_and_what_was_disabled() {
    let mut harness = Harness::of(&world(KEY));
    harness.settle();
    harness.change(&world(SECOND_KEY));
    harness.settle();
    let before = harness.row("e").unwrap().clone();
    let secrets = harness.secrets("e");
    assert_eq!(secrets.keys.len(), 2);
    harness.world.disabled =
        vec![Disabled { endpoint: before.id, revision: before.revision.clone(), reason: DisableReason::Gone }];
    harness.settle();

    let [both, turned, new] = steps();
    harness.use_sealing_key(both);
    assert!(harness.settle().table.is_empty(), "a key that only opens changes nothing");
    harness.use_sealing_key(turned);
    let plan = harness.settle();
    assert_eq!(plan.table.put.len(), 1, "{:?}", plan.table);
    let sealed_anew = harness.row("e").unwrap().clone();
    assert_ne!(sealed_anew.sealed, before.sealed);
    assert_eq!(sealed_anew.revision, before.revision, "what is disabled stays disabled");
    harness.use_sealing_key(new);
    assert!(harness.settle().table.is_empty(), "the old key is needed for nothing");
    assert_eq!(harness.secrets("e"), secrets, "keys that retire are still there, and retire when they would have");

    harness.now = NOW + 60_000;
    harness.settle();
    assert_eq!(harness.secrets("e").keys.len(), 1);
    harness.change(&world(KEY));
    harness.settle();
    assert_ne!(harness.row("e").unwrap().revision, before.revision, "a change still counts");
}

#[test]
fn an_endpoint_that_is_held_is_sealed_anew_too() {
    let mut harness = Harness::of(&good(""));
    harness.settle();
    let secrets = harness.secrets("e");
    harness.change(&good("").replace(&secret(KEY), ""));
    harness.settle();
    let held = harness.row("e").unwrap().clone();
    assert!(matches!(held.state, EndpointState::Held { .. }), "{held:?}");
    let [_, turned, new] = steps();
    harness.use_sealing_key(turned);
    assert_eq!(harness.settle().table.put.len(), 1);
    harness.use_sealing_key(new);
    assert!(harness.settle().table.is_empty());
    assert_eq!(harness.secrets("e"), secrets);
}

#[test]
fn a_key_that_was_taken_away_too_early_costs_only_keys_that_were_to_retire() {
    let mut harness = Harness::of(&world(KEY));
    harness.settle();
    harness.change(&world(SECOND_KEY));
    harness.settle();
    harness.use_sealing_key(SealingKey::from_bytes(&NEW));
    harness.settle();
    assert_eq!(harness.secrets("e").keys.len(), 1);
}

#[tokio::test]
async fn a_ledger_does_not_take_what_was_sealed_anew_for_an_edit() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = SqliteLedger::open_in(folder.path()).await.unwrap();
    let mut harness = Harness::of(&world(KEY));
    ledger.publish_table(harness.settle().table, None).await.unwrap();
    let before = harness.row("e").unwrap().clone();
    ledger.disable(before.id, &before.revision, DisableReason::Gone).await.unwrap();
    let disabled = ledger.disabled().await.unwrap();
    assert_eq!(disabled.len(), 1);

    let [_, turned, _] = steps();
    harness.use_sealing_key(turned);
    let plan = harness.settle();
    assert_eq!(plan.table.put.len(), 1);
    ledger.publish_table(plan.table, None).await.unwrap();
    assert_ne!(harness.row("e").unwrap().sealed, before.sealed);
    assert_eq!(ledger.disabled().await.unwrap(), disabled);
    // An edit enables it.
    harness.change(&world(SECOND_KEY));
    ledger.publish_table(harness.settle().table, None).await.unwrap();
    assert!(ledger.disabled().await.unwrap().is_empty());
}
