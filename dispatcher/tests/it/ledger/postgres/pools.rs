//! Loads of pools in a large ledger, and what autoscalers read.

use std::time::{Duration, Instant};

use dispatcher::ledger::{Ledger, PoolMetric};
use sqlx::Executor;

use super::{connect, database, raw};
use crate::ledger::support::POOL;

/// The query of the page on pools, which KEDA asks.
const KEDA_QUERY: &str = "SELECT wanted_replicas / (measured_at > now() - interval '1 minute')::int FROM pool_metrics WHERE pool = 'nightly'";

#[tokio::test]
async fn autoscalers_read_the_wanted_replicas_and_are_refused_an_old_number() {
    assert!(include_str!("../../../../../docs/dispatcherpool.md").contains(KEDA_QUERY));
    let Some(database) = database().await else { return };
    let (ledger, mut beside) = (connect(&database).await, raw(&database).await);
    let metric = |pool: &str, wanted_replicas| PoolMetric {
        pool: pool.to_owned(),
        backlog: 1,
        arrival_per_second: 0.5,
        delivery_per_second: 0.25,
        wanted_replicas,
    };
    ledger.publish_pool_metrics(&[metric("nightly", 3), metric(POOL, 1)], None).await.unwrap();
    ledger.publish_pool_metrics(&[metric("nightly", 4)], None).await.unwrap();
    let wanted: Vec<i32> = sqlx::query_scalar(KEDA_QUERY).fetch_all(&mut beside).await.unwrap();
    assert_eq!(wanted, [4]);
    let pools: Vec<String> = sqlx::query_scalar("SELECT pool FROM pool_metrics").fetch_all(&mut beside).await.unwrap();
    assert_eq!(pools, ["nightly"], "the other is no longer told of");
    beside.execute("UPDATE pool_metrics SET measured_at = now() - interval '5 minutes'").await.unwrap();
    assert!(sqlx::query_scalar::<_, i32>(KEDA_QUERY).fetch_all(&mut beside).await.is_err());
}

/// A hundred thousand endpoints; behind one of them, whose gate is closed, a million deliveries; a hundred thousand parts.
const MILLION: &str = "
    INSERT INTO lanes (endpoint, tenant, pool, next_due, gate_until)
        SELECT md5(n::text)::uuid, md5('t')::uuid, 'default', 'infinity', '-infinity' FROM generate_series(1, 100000) n;
    UPDATE lanes SET next_due = now(), gate_until = 'infinity' WHERE endpoint = md5('1')::uuid;
    INSERT INTO due (delivery, endpoint, due_at, run, gen, state)
        SELECT md5('d' || n)::uuid, md5('1')::uuid, now(), 1, 1, 0 FROM generate_series(1, 1000000) n;
    INSERT INTO outbox (event, tenant, lease_until, part, gen, first_target, target_count, pool)
        SELECT md5('e' || n)::uuid, md5('t')::uuid, now(), 0, 1, 0, 2, 'default' FROM generate_series(1, 50000) n";

/// Prints what it takes: `cargo test -p dispatcher --test it a_million -- --ignored --nocapture`.
#[tokio::test]
#[ignore = "takes a minute; run it to measure"]
#[expect(clippy::print_stderr, reason = "what was measured is told")]
async fn a_million_deliveries_are_counted_up_to_the_bound() {
    let Some(database) = database().await else { return };
    let (ledger, mut beside) = (connect(&database).await, raw(&database).await);
    beside.execute(MILLION).await.unwrap();
    beside.execute("ANALYZE lanes; ANALYZE due; ANALYZE outbox").await.unwrap();
    let pools = [POOL.to_owned()];
    for (what, change, due) in [
        ("gate closed", "SELECT 1", 100_000),
        ("gate open", "UPDATE lanes SET gate_until = '-infinity' WHERE endpoint = md5('1')::uuid", 200_000),
        ("nothing", "TRUNCATE outbox, due; UPDATE lanes SET next_due = 'infinity'", 0),
    ] {
        beside.execute(change).await.unwrap();
        let mut fastest = Duration::MAX;
        for _ in 0..5 {
            let begun = Instant::now();
            let load = ledger.pool_loads(&pools).await.unwrap().remove(0);
            fastest = fastest.min(begun.elapsed());
            assert_eq!((load.due, load.is_more), (due, due > 0), "{what}: {load:?}");
        }
        let begun = Instant::now();
        ledger.backlog().await.unwrap();
        eprintln!("{what}: pool_loads {fastest:?}, backlog {:?}", begun.elapsed());
    }
}
