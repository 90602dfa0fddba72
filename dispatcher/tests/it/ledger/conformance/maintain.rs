use std::sync::Arc;
use std::time::Duration;

use dispatcher::clock::now_unix_ms;
use dispatcher::ledger::{EventQuery, Ledger, NewEvent, Recorded};
use dispatcher_core::delivery::{DeliveryState, Next, Target, split_into_parts};
use dispatcher_core::id::{EndpointId, EventId, SubscriptionId, TenantId};
use dispatcher_core::limits::{ATTEMPTS_READ_MAX, HOUSEKEEPING_ROWS_MAX};

use crate::ledger::support::*;

const DAY: Duration = Duration::from_hours(24);

/// An event of this moment; those of `new_event` are of 2023.
fn young_event() -> NewEvent {
    let id = EventId::from_parts(now_unix_ms(), [5; 10]);
    event_of(shop(), id, split_into_parts(vec![(POOL.to_owned(), target("a"))]), HOUR)
}

pub(crate) async fn what_is_older_than_its_retention_is_given_up_and_gone(ledger: &Arc<dyn Ledger>) {
    let (done, untouched, young) = (new_event(&["a"], HOUR), new_event(&["a", "b"], HOUR), young_event());
    for new in [&done, &untouched, &young] {
        accept(ledger, new).await;
    }
    record(ledger, part_change(&done, 0, 1, &delivered(1))).await;
    let retried = waiting(ledger, "b", HOUR).await;
    let flying = new_event(&["c"], HOUR);
    accept(ledger, &flying).await;
    record(ledger, part_change(&flying, 0, 1, &(None, Next::InFlight { lease: HOUR }))).await;

    assert_eq!(ledger.maintain(10_000 * DAY).await.unwrap().deliveries_ended, 0);
    assert_eq!(ledger.balance().await.unwrap()[0].accepted, 6);
    assert_eq!(ledger.maintain(30 * DAY).await.unwrap().deliveries_ended, 4);
    let balance = ledger.balance().await.unwrap()[0];
    assert_eq!((balance.accepted, balance.open), (1, 1), "only the young one is left");
    for (new, name) in [(&done, "a"), (&untouched, "b"), (&retried, "b"), (&flying, "c")] {
        assert_eq!(state(ledger, delivery(new, name)).await, None);
        assert!(ledger.event(shop(), new.event.id).await.unwrap().is_none());
        assert!(ledger.attempts(shop(), delivery(new, name), ATTEMPTS_READ_MAX).await.unwrap().is_empty());
    }
    // Whoever held something finds its hold gone.
    let late = delivery_change(key(&flying, target("c")), 1, 1, failed(1, NOW));
    assert_eq!(record(ledger, late).await, Recorded::Superseded);
    assert_eq!(state(ledger, delivery(&young, "a")).await, Some(DeliveryState::Open));
    assert_eq!(record(ledger, part_change(&young, 0, 1, &delivered(1))).await, Recorded::Applied);
    assert_eq!(ledger.maintain(30 * DAY).await.unwrap().deliveries_ended, 0);
}

pub(crate) async fn tenants_and_steps_of_maintenance_are_many(ledger: &Arc<dyn Ledger>) {
    let fanout = 3;
    let count = HOUSEKEEPING_ROWS_MAX as usize / fanout + 100;
    let event = |number: usize| {
        let tenant: TenantId = tenant(["shop", "loud", "quiet"][number % 3]);
        let target = |place: usize| Target {
            subscription: SubscriptionId::derive(tenant, "s"),
            endpoint: EndpointId::derive(tenant, &place.to_string()),
        };
        let id = EventId::from_parts(1_600_000_000_000 + number as u64, [4; 10]);
        let targets = (0..fanout).map(|place| (POOL.to_owned(), target(place))).collect();
        event_of(tenant, id, split_into_parts(targets), HOUR)
    };
    let events: Vec<NewEvent> = (0..count).map(event).collect();
    for batch in events.chunks(100) {
        ledger.accept(batch.to_vec()).await.unwrap();
    }
    let done = events.iter().step_by(2).map(|new| part_change(new, 0, 1, &delivered(1)));
    ledger.record(done.collect()).await.unwrap();
    let maintained = ledger.maintain(30 * DAY).await.unwrap();
    assert_eq!(maintained.deliveries_ended, (count / 2 * fanout) as u64);
    assert!(ledger.balance().await.unwrap().is_empty(), "nothing is left of any tenant");
    let query = EventQuery { rows_max: 10, ..EventQuery::default() };
    assert!(ledger.events(tenant("quiet"), query).await.unwrap().rows.is_empty());
}
