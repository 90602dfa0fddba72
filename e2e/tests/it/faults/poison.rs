//! One row that the database refuses, in a batch of 200.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dispatcher_core::limits::MAX_IN_FLIGHT_MAX;
use e2e::distributed::{Acknowledged, Recovery, Routes, Row, TENANT, event_id, until};
use e2e::http::Client;
use hyper::StatusCode;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tokio::task::JoinSet;

use super::support::{Bed, bounds};

const BATCH: u64 = 200;
/// The number of the poison in its batch.
const POISON: u64 = 100;

fn one_endpoint(routes: Routes) -> Routes {
    Routes { endpoints: vec!["billing"], max_in_flight: MAX_IN_FLIGHT_MAX, ..routes }
}

fn event(number: u64) -> Bytes {
    format!(r#"{{"event_type":"order.created","payload":{{"number":{number}}}}}"#).into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_the_database_refuses_is_in_a_batch_of_200() {
    let Some(bed) = Bed::with_routes(one_endpoint).await else { return };
    let system = &bed.system;
    let mut row =
        Row::begin("an_event_that_the_database_refuses_is_in_a_batch_of_200", system, bounds(0, Recovery::AtOnce))
            .unwrap();
    let mut admin = PgConnection::connect(system.database_url()).await.unwrap();
    let poison = "ALTER TABLE events ADD CONSTRAINT no_poison CHECK (body <> convert_to('{\"number\":100}', 'UTF8'))";
    admin.execute(poison).await.unwrap();
    let ingest = system.ingest().await.unwrap();
    // While one commit waits, the next batch gathers.
    admin.execute("BEGIN; LOCK TABLE events IN SHARE ROW EXCLUSIVE MODE").await.unwrap();
    let url: Arc<str> = format!("http://{}/v1/tenants/{TENANT}/events:publish", ingest.api()).into();
    let mut requests = JoinSet::new();
    let post = |number| {
        let (client, url) = (Client::default(), Arc::clone(&url));
        async move { (number, client.post_json(&url, event(number)).await.unwrap()) }
    };
    requests.spawn(post(BATCH));
    until("the first commit waits", async || {
        let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'events'::regclass";
        Ok(sqlx::query_scalar::<_, i64>(waiting).fetch_one(row.pool()).await? > 0)
    })
    .await
    .unwrap();
    for number in 0..BATCH {
        requests.spawn(post(number));
    }
    admin.execute("ROLLBACK").await.unwrap();
    let mut acknowledged = Acknowledged::new();
    for (number, (status, answer)) in requests.join_all().await {
        let expected = if number == POISON { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::ACCEPTED };
        assert_eq!(status, expected, "event {number}");
        acknowledged.extend(event_id(&answer).map(|event| (number, event)));
    }
    row.is_looked_at().await.unwrap();
    let _deliver = system.deliver().await.unwrap();
    row.recovers(&acknowledged).await.unwrap();
    row.conclude(&acknowledged.into()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outcome_that_the_database_refuses_is_in_a_batch_of_200() {
    /// The poison is sent once for each lease until the database takes it.
    const TIMES: usize = 2;
    let Some(bed) = Bed::with_routes(one_endpoint).await else { return };
    let system = &bed.system;
    let bounds = bounds(2 * TIMES, Recovery::AfterLease);
    let mut row = Row::begin("an_outcome_that_the_database_refuses_is_in_a_batch_of_200", system, bounds).unwrap();
    let acknowledged = system.accept(0..BATCH, Duration::ZERO).await.unwrap();
    let poison = system.routes.deliveries_of(acknowledged[&POISON])[0];
    let mut admin = PgConnection::connect(system.database_url()).await.unwrap();
    let refuse = format!("ALTER TABLE deliveries ADD CONSTRAINT no_poison CHECK (id <> '{poison}')");
    admin.execute(AssertSqlSafe(refuse)).await.unwrap();
    let _deliver = system.deliver().await.unwrap();
    until("all others are finished", async || Ok(row.balance().await?.delivered == i64::try_from(BATCH).unwrap() - 1))
        .await
        .unwrap();
    let again = format!("the poison comes {TIMES} times");
    system.receiver.until(&again, |arrivals| arrivals.taken.get(&poison) >= Some(&TIMES)).await.unwrap();
    let copies_of_others = system
        .receiver
        .look(|arrivals| arrivals.taken.iter().filter(|(delivery, times)| **delivery != poison && **times > 1).count());
    assert_eq!(copies_of_others, 0, "one row's refusal made others come again");
    admin.execute("ALTER TABLE deliveries DROP CONSTRAINT no_poison").await.unwrap();
    row.recovers(&acknowledged).await.unwrap();
    row.conclude(&acknowledged.into()).await.unwrap();
}
