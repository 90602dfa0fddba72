//! Two processes that record at the same moment, held at the point where each could miss the other.

use std::sync::Arc;
use std::time::Duration;

use dispatcher::ledger::{Change, Ledger, NewEvent, Recorded};
use dispatcher_core::delivery::{DeliveryState, Next, Outcome};
use dispatcher_core::limits::ATTEMPTS_READ_MAX;
use sqlx::{AssertSqlSafe, Executor, PgConnection};
use tokio::task::JoinHandle;

use super::{connect, database, raw};
use crate::ledger::support::*;

/// Longest wait for what must happen.
const DEADLINE: Duration = Duration::from_mins(2);

/// Two processes, and a third connection that can hold the first of them.
struct Scene {
    first: Arc<dyn Ledger>,
    second: Arc<dyn Ledger>,
    beside: PgConnection,
    _database: testbed::TestDatabase,
}

/// Where a transaction of the first process is held.
enum At {
    /// Before it inserts attempts.
    Attempts,
    /// Before it inserts deliveries.
    Deliveries,
}

impl Scene {
    /// Whoever inserts a row at that point waits for the lock that the scene holds.
    async fn held_at(at: At) -> Option<Self> {
        let database = database().await?;
        let mut beside = raw(&database).await;
        let table = match at {
            At::Attempts => "attempts",
            At::Deliveries => "deliveries",
        };
        for statement in [
            "CREATE FUNCTION wait_here() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN NEW; END $$"
                .to_owned(),
            format!("CREATE TRIGGER wait_here BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION wait_here()"),
            "SELECT pg_advisory_lock(1)".to_owned(),
        ] {
            beside.execute(AssertSqlSafe(statement)).await.unwrap();
        }
        let (first, second) = (Arc::new(connect(&database).await), Arc::new(connect(&database).await));
        Some(Self { first, second, beside, _database: database })
    }

    /// An event whose part was taken over with `gen` 2.
    async fn taken_over(&self) -> NewEvent {
        let new = new_event(&["a"], NOW);
        accept(&self.first, &new).await;
        claim(&self.second, 10, HOUR).await;
        new
    }

    /// Records `held` until it waits at the scene's point, then `other` until it has ended or waits for the first, then
    /// lets the first go on; answers what the two came to.
    async fn interleave(&mut self, held: Change, other: Change) -> [Recorded; 2] {
        let record = |ledger: &Arc<dyn Ledger>, change: Change| -> JoinHandle<Recorded> {
            let ledger = Arc::clone(ledger);
            tokio::spawn(async move { record(&ledger, change).await })
        };
        let all = async {
            let held = record(&self.first, held);
            self.until_waiting(1, None).await;
            let other = record(&self.second, other);
            self.until_waiting(2, Some(&other)).await;
            self.beside.execute("SELECT pg_advisory_unlock(1)").await.unwrap();
            [held.await.unwrap(), other.await.unwrap()]
        };
        tokio::time::timeout(DEADLINE, all).await.expect("all of it ends")
    }

    /// Returns once so many transactions wait for a lock, or the task has ended.
    async fn until_waiting(&mut self, count: i64, or_ended: Option<&JoinHandle<Recorded>>) {
        let waiting = "SELECT count(*) FROM pg_stat_activity
                       WHERE datname = current_database() AND wait_event_type = 'Lock'";
        loop {
            let now: i64 = sqlx::query_scalar(waiting).fetch_one(&mut self.beside).await.unwrap();
            if now >= count || or_ended.is_some_and(JoinHandle::is_finished) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The delivery is delivered, its row and its attempts say so, and nothing is left to send.
    async fn assert_delivered(&self, new: &NewEvent) {
        let shown = show(&self.first, delivery(new, "a")).await;
        assert_eq!((shown.state, shown.last_outcome), (DeliveryState::Delivered, Some(Outcome::Delivered)));
        let attempts = self.first.attempts(shop(), delivery(new, "a"), ATTEMPTS_READ_MAX).await.unwrap();
        assert!(attempts.iter().any(|kept| kept.superseded && kept.attempt.outcome == Outcome::Delivered));
        assert_eq!(shown.attempts as usize, attempts.len(), "{attempts:?}");
        assert!(claim(&self.first, 10, HOUR).await.items.is_empty());
        assert_balanced(&self.first).await;
    }
}

/// What the new holder reports: it failed and waits, or it is still in flight.
fn reports() -> [(Option<dispatcher_core::delivery::Attempt>, Next); 2] {
    [failed(1, NOW), (None, Next::InFlight { lease: HOUR })]
}

#[tokio::test]
async fn a_stale_followers_success_is_not_missed_by_the_new_holder() {
    for report in reports() {
        let Some(mut scene) = Scene::held_at(At::Attempts).await else { return };
        let new = scene.taken_over().await;
        let follows = delivery_change(key(&new, target("a")), 1, 1, delivered(1));
        let answers = scene.interleave(follows, part_change(&new, 0, 2, &report)).await;
        assert_eq!(answers, [Recorded::Superseded, Recorded::Applied]);
        scene.assert_delivered(&new).await;
    }
}

#[tokio::test]
async fn the_new_holders_rows_are_not_missed_by_a_stale_followers_success() {
    for report in reports() {
        let Some(mut scene) = Scene::held_at(At::Deliveries).await else { return };
        let new = scene.taken_over().await;
        let follows = delivery_change(key(&new, target("a")), 1, 1, delivered(1));
        let answers = scene.interleave(part_change(&new, 0, 2, &report), follows).await;
        assert_eq!(answers, [Recorded::Applied, Recorded::Superseded]);
        scene.assert_delivered(&new).await;
    }
}

#[tokio::test]
async fn a_stale_parts_success_and_the_new_holder_do_not_miss_each_other() {
    for (at, stale_first) in [(At::Attempts, true), (At::Deliveries, false)] {
        let Some(mut scene) = Scene::held_at(at).await else { return };
        let new = scene.taken_over().await;
        let (stale, fresh) = (part_change(&new, 0, 1, &delivered(1)), part_change(&new, 0, 2, &failed(1, NOW)));
        let (held, other) = if stale_first { (stale, fresh) } else { (fresh, stale) };
        let answers = scene.interleave(held, other).await;
        assert!(answers.contains(&Recorded::Superseded) && answers.contains(&Recorded::Applied), "{answers:?}");
        scene.assert_delivered(&new).await;
    }
}
