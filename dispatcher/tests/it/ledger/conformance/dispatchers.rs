use std::sync::Arc;
use std::time::Duration;

use dispatcher::clock::now_unix_ms;
use dispatcher::ledger::{Claimed, DispatcherRole, Heartbeat, Hold, Ledger, NewEvent, Recorded};
use dispatcher_core::delivery::Next;
use dispatcher_core::table::TableVersion;
use uuid::Uuid;

use crate::ledger::support::*;

pub(crate) fn heartbeat(instance: u128) -> Heartbeat {
    Heartbeat {
        instance: Uuid::from_u128(instance),
        role: DispatcherRole::All,
        pool: Some(POOL.into()),
        table_version: TableVersion(7),
    }
}

async fn seen(ledger: &Arc<dyn Ledger>) -> Vec<u128> {
    let records = ledger.dispatchers(HOUR).await.unwrap();
    records.iter().map(|record| record.instance.as_u128()).collect()
}

pub(crate) async fn whoever_beats_is_listed_with_what_it_last_said(ledger: &Arc<dyn Ledger>) {
    assert!(ledger.dispatchers(HOUR).await.unwrap().is_empty());
    ledger.beat(heartbeat(2)).await.unwrap();
    ledger.beat(heartbeat(1)).await.unwrap();
    let ingest = Heartbeat {
        instance: Uuid::from_u128(2),
        role: DispatcherRole::Ingest,
        pool: None,
        table_version: TableVersion(u64::from(u32::MAX) + 1),
    };
    ledger.beat(ingest.clone()).await.unwrap();
    let records = ledger.dispatchers(HOUR).await.unwrap();
    let told = |place: usize| {
        let record = &records[place];
        let (role, pool) = (record.role, record.pool.clone());
        Heartbeat { instance: record.instance, role, pool, table_version: record.table_version }
    };
    assert_eq!((records.len(), told(0), told(1)), (2, heartbeat(1), ingest));
    assert!(records.iter().all(|record| record.seen_ago < Duration::from_mins(1)), "{records:?}");
}

pub(crate) async fn whoever_retires_is_forgotten(ledger: &Arc<dyn Ledger>) {
    for instance in [1, 2] {
        ledger.beat(heartbeat(instance)).await.unwrap();
    }
    ledger.retire(Uuid::from_u128(1)).await.unwrap();
    ledger.retire(Uuid::from_u128(3)).await.unwrap();
    assert_eq!(seen(ledger).await, [2]);
}

pub(crate) async fn the_clock_of_the_ledger_is_told(ledger: &Arc<dyn Ledger>) {
    let beat = ledger.beat(heartbeat(1)).await.unwrap();
    // Both run on this machine.
    assert!(beat.ledger_unix_ms.abs_diff(now_unix_ms()) < 60_000, "{beat:?}");
    assert!(ledger.clock().now_unix_ms().abs_diff(now_unix_ms()) < 60_000);
    assert!(ledger.clock().offset_ms().abs_diff(beat.clock_offset_ms) < 60_000, "{beat:?}");
}

/// An event to one endpoint whose delivery is in flight for an hour, held by whoever beat last.
pub(crate) async fn in_flight(ledger: &Arc<dyn Ledger>, name: &str) -> NewEvent {
    let new = new_event(&[name], HOUR);
    accept(ledger, &new).await;
    let flying = (None, Next::InFlight { lease: HOUR });
    assert_eq!(record(ledger, part_change(&new, 0, 1, &flying)).await, Recorded::Applied);
    new
}

/// Claims, while one process goes on beating, until something comes.
async fn claim_while_beating(ledger: &Arc<dyn Ledger>, instance: u128) -> Claimed {
    let wait = async {
        loop {
            ledger.beat(heartbeat(instance)).await.unwrap();
            let claimed = claim(ledger, 10, HOUR).await;
            if !claimed.items.is_empty() {
                return claimed;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(2), wait).await.expect("something comes")
}

pub(crate) async fn what_the_dead_have_in_flight_is_claimed_before_its_lease_is_over(ledger: &Arc<dyn Ledger>) {
    let of_nobody = in_flight(ledger, "a").await;
    ledger.beat(heartbeat(1)).await.unwrap();
    let of_the_dead = in_flight(ledger, "b").await;
    ledger.beat(heartbeat(2)).await.unwrap();
    let of_the_living = in_flight(ledger, "c").await;
    assert!(claim(ledger, 10, HOUR).await.items.is_empty(), "a moment's silence is not death");

    let claimed = claim_while_beating(ledger, 2).await;
    let [taken] = due(&claimed)[..] else { panic!("{claimed:?}") };
    assert_eq!((taken.delivery, taken.run, taken.r#gen), (delivery(&of_the_dead, "b"), 1, 3));
    assert_eq!(claimed.items[0].event, of_the_dead.event);
    // It was only paused: it finds that its hold is gone.
    let key = key(&of_the_dead, target("b"));
    assert_eq!(record(ledger, delivery_change(key, 1, 1, failed(1, NOW))).await, Recorded::Superseded);
    assert_eq!(record(ledger, delivery_change(key, 1, 3, delivered(1))).await, Recorded::Applied);
    for (new, name) in [(&of_nobody, "a"), (&of_the_living, "c")] {
        let hold = delivery_change(crate::ledger::support::key(new, target(name)), 1, 1, delivered(1));
        assert_eq!(record(ledger, hold).await, Recorded::Applied, "it was left alone");
    }
}

pub(crate) async fn what_the_retired_have_in_flight_is_due_at_once(ledger: &Arc<dyn Ledger>) {
    ledger.beat(heartbeat(1)).await.unwrap();
    let flying = in_flight(ledger, "a").await;
    let queued = waiting(ledger, "b", NOW).await;
    let claimed = due(&claim(ledger, 10, HOUR).await);
    let hold = Hold::Delivery { delivery: claimed[0].delivery, run: 1, r#gen: claimed[0].r#gen };
    assert_eq!(ledger.take(vec![hold], HOUR).await.unwrap(), [Some(3)]);
    ledger.retire(Uuid::from_u128(1)).await.unwrap();
    let after = in_flight(ledger, "c").await;
    let claimed = due(&claim(ledger, 10, HOUR).await);
    assert_eq!(claimed.iter().map(|due| due.delivery).collect::<Vec<_>>(), [delivery(&flying, "a")]);
    let queued = delivery_change(key(&queued, target("b")), 1, 3, delivered(2));
    assert_eq!(record(ledger, queued).await, Recorded::Applied, "its message may be in another's hands");
    let late = delivery_change(key(&after, target("c")), 1, 1, delivered(1));
    assert_eq!(record(ledger, late).await, Recorded::Applied, "held by nobody that is known");
}
