//! Plans in a real ledger.

use dispatcher::ledger::Ledger as _;
use dispatcher::ledger::sqlite::SqliteLedger;
use operator::apply::{load_world_state, publish};

use crate::fixtures::{Harness, good, subscription};

#[tokio::test]
async fn what_is_published_is_read_back_and_planned_to_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = SqliteLedger::open(&folder.path().join("ledger.db")).await.unwrap();
    let route = subscription("endpointRef: {name: e}\neventTypes: ['order.*']");
    let mut harness = Harness::of(&format!("{}{route}", good("")));
    let plan = harness.plan();
    assert_eq!(plan.table.put.len(), 3);
    let version = publish(&ledger, &plan, None).await.unwrap();

    let state = load_world_state(&ledger).await.unwrap();
    assert_eq!(state.table.version, version);
    state.fill(&mut harness.world);
    let plan = harness.plan();
    assert!(plan.table.is_empty(), "{:?}", plan.table);
    assert_eq!(publish(&ledger, &plan, None).await.unwrap(), version, "an empty change makes no new version");
    ledger.ping().await.unwrap();
}
