use std::sync::Arc;

use dispatcher::ledger::{DisableReason, Disabled, GateChange, Ledger, LedgerError};
use dispatcher_core::delivery::{DeliveryState, EndReason, Next};
use dispatcher_core::table::{EndpointState, Row, RowKey, SubscriptionRow, TableChange, TableVersion, TenantRow};

use crate::ledger::support::*;

async fn put(ledger: &Arc<dyn Ledger>, name: &str, revision: &str, state: EndpointState) -> TableVersion {
    let put = vec![endpoint_row(name, revision, state)];
    ledger.publish_table(TableChange { put, drop: vec![] }, None).await.unwrap()
}

async fn drop_endpoint(ledger: &Arc<dyn Ledger>, name: &str) -> TableVersion {
    let drop = vec![RowKey::Endpoint(endpoint(name))];
    ledger.publish_table(TableChange { put: vec![], drop }, None).await.unwrap()
}

async fn claims(ledger: &Arc<dyn Ledger>) -> usize {
    due(&claim(ledger, 10, NOW).await).len()
}

pub(crate) async fn versions_rise_and_loads_tell_what_changed(ledger: &Arc<dyn Ledger>) {
    let tenant_row = Row::Tenant(TenantRow { id: shop(), name: "shop".into() });
    let subscription = Row::Subscription(SubscriptionRow {
        id: target("a").subscription,
        tenant: shop(),
        name: "orders".into(),
        endpoints: vec![endpoint("a")],
        event_types: vec!["order.*".into()],
        filter: Some("event.data.total > 3".into()),
        transform: None,
        suspended: false,
    });
    let all = vec![tenant_row.clone(), endpoint_row("a", "1", EndpointState::Active), subscription.clone()];
    let first = ledger.publish_table(TableChange { put: all.clone(), drop: vec![] }, None).await.unwrap();
    let load = ledger.load_table(None).await.unwrap();
    assert_eq!((load.version, load.complete, load.rows, load.dropped), (first, true, all, vec![]));

    let changed = endpoint_row("a", "2", EndpointState::Held { reason: "InvalidSpec".into() });
    let change = TableChange { put: vec![changed.clone()], drop: vec![subscription.key()] };
    let second = ledger.publish_table(change, None).await.unwrap();
    assert!(second > first);
    let load = ledger.load_table(Some(first)).await.unwrap();
    assert_eq!((load.version, load.complete), (second, false));
    assert_eq!((load.rows, load.dropped), (vec![changed.clone()], vec![subscription.key()]));
    let load = ledger.load_table(Some(second)).await.unwrap();
    assert_eq!((load.version, load.complete, load.rows.len(), load.dropped.len()), (second, false, 0, 0));
    let load = ledger.load_table(None).await.unwrap();
    assert_eq!((load.rows, load.dropped), (vec![tenant_row, changed], vec![]));
}

pub(crate) async fn an_empty_change_keeps_the_version(ledger: &Arc<dyn Ledger>) {
    let version = put(ledger, "a", "1", EndpointState::Active).await;
    assert_eq!(ledger.publish_table(TableChange::default(), None).await.unwrap(), version);
    assert_eq!(ledger.load_table(None).await.unwrap().version, version);
}

pub(crate) async fn every_row_tells_which_version_changed_it_last(ledger: &Arc<dyn Ledger>) {
    let first = put(ledger, "a", "1", EndpointState::Active).await;
    let second = put(ledger, "b", "1", EndpointState::Active).await;
    let third = put(ledger, "a", "2", EndpointState::Active).await;
    for (since, expected) in [(None, vec![("a", third), ("b", second)]), (Some(second), vec![("a", third)])] {
        let load = ledger.load_table(since).await.unwrap();
        let mut found: Vec<_> = load.rows.iter().map(Row::key).zip(load.row_versions).collect();
        let mut expected: Vec<_> =
            expected.iter().map(|(name, version)| (RowKey::Endpoint(endpoint(name)), *version)).collect();
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected, "since {since:?}, after {first:?}");
    }
}

pub(crate) async fn a_leader_that_was_replaced_writes_nothing(ledger: &Arc<dyn Ledger>) {
    let publish = async |name: &str, epoch| {
        let put = vec![endpoint_row(name, "1", EndpointState::Active)];
        ledger.publish_table(TableChange { put, drop: vec![] }, epoch).await
    };
    publish("a", Some(7)).await.unwrap();
    let version = publish("b", Some(8)).await.unwrap();
    let refused = publish("c", Some(7)).await;
    assert!(matches!(refused, Err(LedgerError::Superseded { asked: 7, present: 8 })), "{refused:?}");
    assert_eq!(ledger.load_table(None).await.unwrap().version, version);
    assert!(publish("c", Some(8)).await.unwrap() > version, "the present one goes on");
    publish("d", None).await.unwrap();
}

pub(crate) async fn a_new_leader_shuts_the_old_one_out_before_it_has_changed_anything(ledger: &Arc<dyn Ledger>) {
    let version = put(ledger, "a", "1", EndpointState::Active).await;
    assert_eq!(ledger.publish_table(TableChange::default(), Some(3)).await.unwrap(), version);
    let change = TableChange { put: vec![endpoint_row("b", "1", EndpointState::Active)], drop: vec![] };
    for late in [change, TableChange::default()] {
        let refused = ledger.publish_table(late, Some(2)).await;
        assert!(matches!(refused, Err(LedgerError::Superseded { asked: 2, present: 3 })), "{refused:?}");
    }
}

pub(crate) async fn a_version_from_elsewhere_reloads_everything(ledger: &Arc<dyn Ledger>) {
    put(ledger, "a", "1", EndpointState::Active).await;
    let load = ledger.load_table(Some(TableVersion(1_000))).await.unwrap();
    assert!(load.complete && load.rows.len() == 1);
}

pub(crate) async fn every_load_tells_the_same_history(ledger: &Arc<dyn Ledger>) {
    let (before, history) =
        (put(ledger, "a", "1", EndpointState::Active).await, ledger.load_table(None).await.unwrap());
    let after = put(ledger, "b", "1", EndpointState::Active).await;
    assert!(!history.history.is_empty());
    for since in [None, Some(before), Some(after)] {
        assert_eq!(ledger.load_table(since).await.unwrap().history, history.history);
    }
}

pub(crate) async fn gates_follow_the_state_of_the_row(ledger: &Arc<dyn Ledger>) {
    put(ledger, "a", "1", EndpointState::Active).await;
    waiting(ledger, "a", NOW).await;
    for closed in [EndpointState::Suspended, EndpointState::Held { reason: "InvalidSpec".into() }] {
        put(ledger, "a", "1", closed).await;
        assert_eq!(claims(ledger).await, 0);
        ledger.set_gates(vec![gate("a", NOW, None)]).await.unwrap();
        assert_eq!(claims(ledger).await, 0, "only the table opens what it closed");
        put(ledger, "a", "1", EndpointState::Active).await;
        assert_eq!(claims(ledger).await, 1);
    }
}

pub(crate) async fn a_dropped_endpoint_holds_until_its_grace_is_over(ledger: &Arc<dyn Ledger>) {
    put(ledger, "a", "1", EndpointState::Active).await;
    let events = [waiting(ledger, "a", NOW).await, waiting(ledger, "a", HOUR).await, waiting(ledger, "a", NOW).await];
    let other = waiting(ledger, "b", HOUR).await;
    drop_endpoint(ledger, "a").await;
    assert_eq!(claims(ledger).await, 0);
    assert_eq!(ledger.cancel_orphans(HOUR, 100).await.unwrap(), 0);
    assert_eq!(ledger.cancel_orphans(NOW, 2).await.unwrap(), 2, "in bounded steps");
    assert_eq!(ledger.cancel_orphans(NOW, 2).await.unwrap(), 1);
    assert_eq!(ledger.cancel_orphans(NOW, 2).await.unwrap(), 0);
    for new in &events {
        let shown = show(ledger, delivery(new, "a")).await;
        assert_eq!((shown.state, shown.reason), (DeliveryState::Cancelled, Some(EndReason::EndpointDeleted)));
    }
    assert_eq!(state(ledger, delivery(&other, "b")).await, Some(DeliveryState::Open));
}

pub(crate) async fn a_recreated_endpoint_adopts_what_waits(ledger: &Arc<dyn Ledger>) {
    put(ledger, "a", "1", EndpointState::Active).await;
    waiting(ledger, "a", NOW).await;
    drop_endpoint(ledger, "a").await;
    put(ledger, "a", "1", EndpointState::Active).await;
    assert_eq!(ledger.cancel_orphans(NOW, 100).await.unwrap(), 0);
    assert_eq!(claims(ledger).await, 1);
}

pub(crate) async fn orphans_in_flight_are_left_to_finish(ledger: &Arc<dyn Ledger>) {
    put(ledger, "a", "1", EndpointState::Active).await;
    let new = new_event(&["a"], HOUR);
    accept(ledger, &new).await;
    record(ledger, part_change(&new, 0, 1, &(None, Next::InFlight { lease: HOUR }))).await;
    drop_endpoint(ledger, "a").await;
    assert_eq!(ledger.cancel_orphans(NOW, 100).await.unwrap(), 0);
    record(ledger, delivery_change(key(&new, target("a")), 1, 1, failed(1, HOUR))).await;
    assert_eq!(ledger.cancel_orphans(NOW, 100).await.unwrap(), 1);
}

pub(crate) async fn disabled_until_the_revision_changes(ledger: &Arc<dyn Ledger>) {
    put(ledger, "a", "1", EndpointState::Active).await;
    waiting(ledger, "a", NOW).await;
    ledger.disable(endpoint("a"), "1", DisableReason::Gone).await.unwrap();
    let disabled = Disabled { endpoint: endpoint("a"), revision: "1".into(), reason: DisableReason::Gone };
    assert_eq!(ledger.disabled().await.unwrap(), [disabled]);
    ledger.set_gates(vec![gate("a", NOW, None)]).await.unwrap();
    put(ledger, "a", "1", EndpointState::Suspended).await;
    put(ledger, "a", "1", EndpointState::Active).await;
    assert_eq!(claims(ledger).await, 0, "the revision is still the same");
    put(ledger, "a", "2", EndpointState::Active).await;
    assert_eq!(ledger.disabled().await.unwrap(), []);
    assert_eq!(claims(ledger).await, 1);
}

pub(crate) async fn a_disable_of_an_old_revision_is_ignored(ledger: &Arc<dyn Ledger>) {
    put(ledger, "a", "2", EndpointState::Active).await;
    ledger.disable(endpoint("a"), "1", DisableReason::DisabledAfterFailures).await.unwrap();
    assert_eq!(ledger.disabled().await.unwrap(), []);
}

pub(crate) async fn a_new_revision_opens_the_gate(ledger: &Arc<dyn Ledger>) {
    put(ledger, "a", "1", EndpointState::Active).await;
    waiting(ledger, "a", NOW).await;
    ledger.set_gates(vec![gate("a", HOUR, Some(1))]).await.unwrap();
    put(ledger, "a", "1", EndpointState::Active).await;
    assert_eq!(claims(ledger).await, 0, "a row that says the same changes nothing");
    put(ledger, "a", "2", EndpointState::Active).await;
    assert_eq!(claims(ledger).await, 1);
}

pub(crate) async fn a_late_gate_of_an_old_revision_is_ignored(ledger: &Arc<dyn Ledger>) {
    put(ledger, "a", "1", EndpointState::Active).await;
    waiting(ledger, "a", NOW).await;
    put(ledger, "a", "2", EndpointState::Active).await;
    ledger.set_gates(vec![gate("a", HOUR, None)]).await.unwrap();
    assert_eq!(claims(ledger).await, 1);
    let present = GateChange { revision: "2".into(), ..gate("a", HOUR, None) };
    ledger.set_gates(vec![present, gate("a", NOW, None)]).await.unwrap();
    assert_eq!(claims(ledger).await, 0, "nor does it take the place of one of the present revision");
}
