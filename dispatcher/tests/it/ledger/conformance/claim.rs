use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use dispatcher::ledger::{Claim, Hold, Ledger};
use dispatcher_core::delivery::{Next, Target, split_into_parts};
use dispatcher_core::id::{EndpointId, EventId, SubscriptionId, TenantId};
use dispatcher_core::limits::CLAIM_TENANT_LANES_MAX;
use dispatcher_core::table::{EndpointState, TableChange, TableVersion};
use uuid::Uuid;

use crate::ledger::support::*;

pub(crate) async fn a_leased_part_is_claimed_when_its_lease_is_over(ledger: &Arc<dyn Ledger>) {
    let (leased, free) = (new_event(&["a"], HOUR), new_event(&["a"], NOW));
    accept(ledger, &leased).await;
    accept(ledger, &free).await;
    let claimed = claim(ledger, 10, HOUR).await;
    assert_eq!(parts(&claimed), [Hold::Part { event: free.event.id, part: 0, r#gen: 2 }]);
    assert!(claim(ledger, 10, HOUR).await.items.is_empty());
}

pub(crate) async fn claimed_work_carries_the_whole_event(ledger: &Arc<dyn Ledger>) {
    let new = new_event(&["a", "b"], NOW);
    accept(ledger, &new).await;
    let claimed = claim(ledger, 10, NOW).await;
    assert_eq!(claimed.items[0].event, new.event);
    assert_eq!(claimed.items[0].table_version, TableVersion(3));
    assert!(claimed.items[0].lease_until_unix_ms >= dispatcher::clock::now_unix_ms().saturating_sub(60_000));
    let dispatcher::queue::Work::Part { targets, .. } = &claimed.items[0].work else { panic!("a part") };
    assert_eq!(targets, &new.parts[0].targets);
    record(ledger, part_change(&new, 0, 2, &failed(1, NOW))).await;
    let claimed = claim(ledger, 10, HOUR).await;
    assert_eq!(claimed.items.len(), 1, "the deliveries of one event travel together");
    assert_eq!(claimed.items[0].event, new.event);
    let targets: HashSet<Target> = due(&claimed).iter().map(|due| due.target).collect();
    assert_eq!(targets, HashSet::from([target("a"), target("b")]));
}

pub(crate) async fn a_claim_is_claimed_again_when_its_lease_is_over(ledger: &Arc<dyn Ledger>) {
    waiting(ledger, "a", NOW).await;
    assert_eq!(due(&claim(ledger, 10, NOW).await)[0].r#gen, 2);
    assert_eq!(due(&claim(ledger, 10, HOUR).await)[0].r#gen, 3);
    assert!(claim(ledger, 10, HOUR).await.items.is_empty());
}

pub(crate) async fn lanes_take_turns(ledger: &Arc<dyn Ledger>) {
    for _ in 0..12 {
        waiting(ledger, "busy", NOW).await;
    }
    for name in ["b", "c", "d"] {
        waiting(ledger, name, NOW).await;
    }
    let mut order = Vec::new();
    for _ in 0..8 {
        order.extend(due(&claim(ledger, 1, HOUR).await).iter().map(|due| due.target.endpoint));
    }
    let first_round: HashSet<EndpointId> = order[..4].iter().copied().collect();
    assert_eq!(first_round.len(), 4, "each lane has had one turn");
    assert_eq!(order[4..], [endpoint("busy"); 4]);
}

pub(crate) async fn a_tenant_cannot_take_all_lanes_of_a_claim(ledger: &Arc<dyn Ledger>) {
    let mut changes = Vec::new();
    let mut add = |tenant: TenantId, name: String, number: u64| {
        let target =
            Target { subscription: SubscriptionId::derive(tenant, "s"), endpoint: EndpointId::derive(tenant, &name) };
        let id = EventId::from_parts(1_700_000_000_000 + number, [9; 10]);
        let new = event_of(tenant, id, split_into_parts(vec![(POOL.to_owned(), target)]), HOUR);
        changes.push(part_change(&new, 0, 1, &waits(NOW)));
        new
    };
    let mut events = Vec::new();
    for number in 0..80 {
        events.push(add(tenant("loud"), number.to_string(), number));
    }
    events.push(add(tenant("quiet"), "a".into(), 90));
    ledger.accept(events).await.unwrap();
    ledger.record(changes).await.unwrap();
    let claimed = due(&claim(ledger, 64, HOUR).await);
    assert_eq!(claimed.len(), CLAIM_TENANT_LANES_MAX + 1);
    let quiet = EndpointId::derive(tenant("quiet"), "a");
    assert!(claimed.iter().any(|due| due.target.endpoint == quiet));
}

pub(crate) async fn a_flood_of_parts_leaves_room_for_retries(ledger: &Arc<dyn Ledger>) {
    let flood: Vec<_> = (0..40).map(|_| new_event(&["a"], NOW)).collect();
    waiting(ledger, "b", NOW).await;
    ledger.accept(flood).await.unwrap();
    let claimed = claim(ledger, 8, HOUR).await;
    assert_eq!((due(&claimed).len(), parts(&claimed).len()), (1, 7));
    assert_eq!(claimed.next_due_in, Some(NOW), "more is due already");
}

pub(crate) async fn a_claim_keeps_to_its_bound(ledger: &Arc<dyn Ledger>) {
    let wide = new_event(&["a", "b", "c"], NOW);
    accept(ledger, &wide).await;
    for name in ["a", "b", "c", "d", "d", "d"] {
        waiting(ledger, name, NOW).await;
    }
    let claimed = claim(ledger, 5, HOUR).await;
    let deliveries: usize = claimed.items.iter().map(|item| item.work.deliveries()).sum();
    assert!((3..=5).contains(&deliveries), "{deliveries}");
    // A part that alone exceeds the bound is claimed all the same once nothing else is.
    let mut seen = parts(&claimed).len();
    for _ in 0..10 {
        seen += parts(&claim(ledger, 2, HOUR).await).len();
    }
    assert_eq!(seen, 1);
}

pub(crate) async fn a_closed_gate_holds_whatever_waits(ledger: &Arc<dyn Ledger>) {
    for name in ["a", "b"] {
        let put = vec![endpoint_row(name, "1", EndpointState::Active)];
        ledger.publish_table(TableChange { put, drop: vec![] }, None).await.unwrap();
    }
    for name in ["a", "a", "b"] {
        waiting(ledger, name, NOW).await;
    }
    ledger.set_gates(vec![gate("a", HOUR, None)]).await.unwrap();
    let claimed = claim(ledger, 10, HOUR).await;
    assert_eq!(due(&claimed).iter().map(|due| due.target).collect::<Vec<_>>(), [target("b")]);
    assert!(claimed.next_due_in.unwrap() > HOUR / 2);
    waiting(ledger, "a", NOW).await;
    assert!(claim(ledger, 10, HOUR).await.items.is_empty());
    ledger.set_gates(vec![gate("a", NOW, None)]).await.unwrap();
    assert_eq!(due(&claim(ledger, 10, HOUR).await).len(), 3);
}

pub(crate) async fn a_quota_bounds_a_claim_and_closes_the_gate_again(ledger: &Arc<dyn Ledger>) {
    let put = vec![endpoint_row("a", "1", EndpointState::Active)];
    ledger.publish_table(TableChange { put, drop: vec![] }, None).await.unwrap();
    for _ in 0..4 {
        waiting(ledger, "a", NOW).await;
    }
    ledger.set_gates(vec![gate("a", NOW, Some(1))]).await.unwrap();
    assert_eq!(due(&claim(ledger, 10, HOUR).await).len(), 1);
    assert!(claim(ledger, 10, HOUR).await.items.is_empty(), "exactly the probes leave");
    ledger.set_gates(vec![gate("a", NOW, None)]).await.unwrap();
    assert_eq!(due(&claim(ledger, 10, HOUR).await).len(), 3);
}

pub(crate) async fn next_due_says_when_to_come_back(ledger: &Arc<dyn Ledger>) {
    assert_eq!(claim(ledger, 10, HOUR).await.next_due_in, None);
    let new = new_event(&["a"], 2 * HOUR);
    accept(ledger, &new).await;
    let later = |claimed: dispatcher::ledger::Claimed| claimed.next_due_in.unwrap().as_secs().div_ceil(60);
    assert_eq!(later(claim(ledger, 10, HOUR).await), 120);
    record(ledger, part_change(&new, 0, 1, &failed(1, HOUR))).await;
    assert_eq!(later(claim(ledger, 10, HOUR).await), 60);
    waiting(ledger, "a", NOW).await;
    waiting(ledger, "b", NOW).await;
    assert_eq!(claim(ledger, 1, HOUR).await.next_due_in, Some(NOW));
}

pub(crate) async fn pools_are_apart(ledger: &Arc<dyn Ledger>) {
    let id = EventId::from_parts(1_800_000_000_000, [3; 10]);
    let targets = vec![("extra".to_owned(), target("x")), (POOL.to_owned(), target("a"))];
    let new = event_of(shop(), id, split_into_parts(targets), NOW);
    accept(ledger, &new).await;
    assert_eq!(parts(&claim(ledger, 10, HOUR).await).len(), 1);
    let extra = || Claim { pool: "extra".into(), instance: Uuid::nil(), lease: HOUR, deliveries_max: 10 };
    assert_eq!(parts(&ledger.claim(extra()).await.unwrap()).len(), 1);
    for part in [0, 1] {
        record(ledger, part_change(&new, part, 2, &failed(1, NOW))).await;
    }
    assert_eq!(due(&claim(ledger, 10, HOUR).await)[0].target, target("a"));
    assert_eq!(due(&ledger.claim(extra()).await.unwrap())[0].target, target("x"));
}

pub(crate) async fn expired_leases_are_due_at_once(ledger: &Arc<dyn Ledger>) {
    let (part, flying) = (new_event(&["a"], HOUR), new_event(&["b"], HOUR));
    ledger.accept(vec![part.clone(), flying.clone()]).await.unwrap();
    record(ledger, part_change(&flying, 0, 1, &(None, Next::InFlight { lease: HOUR }))).await;
    let queued = waiting(ledger, "c", NOW).await;
    claim(ledger, 10, HOUR).await;
    let resting = waiting(ledger, "d", HOUR).await;
    ledger.expire_all_leases().await.unwrap();
    let claimed = claim(ledger, 10, HOUR).await;
    assert_eq!(parts(&claimed).len(), 1);
    let ids: HashSet<_> = due(&claimed).iter().map(|due| due.delivery).collect();
    assert_eq!(ids, HashSet::from([delivery(&flying, "b"), delivery(&queued, "c")]));
    assert!(!ids.contains(&delivery(&resting, "d")), "a retry that waits for its time still waits");
}

/// Rows that become due while another claim of the same lane is being made are seen by the next one.
pub(crate) async fn a_wake_between_two_claims_is_not_lost(ledger: &Arc<dyn Ledger>) {
    const DELIVERIES: usize = 40;
    let produce = async {
        for _ in 0..DELIVERIES {
            waiting(ledger, "a", NOW).await;
        }
    };
    let consume = async {
        let mut seen = HashSet::new();
        while seen.len() < DELIVERIES {
            seen.extend(due(&claim(ledger, 3, HOUR).await).iter().map(|due| due.delivery));
            tokio::task::yield_now().await;
        }
    };
    let both = async { tokio::join!(produce, consume) };
    tokio::time::timeout(Duration::from_mins(1), both).await.expect("every delivery is claimed");
}
