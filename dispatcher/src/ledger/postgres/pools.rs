//! Loads of pools. Every count is a walk along an index that ends at a bound: what waits behind a closed gate costs
//! nothing where the late are counted, and no more than the bound where all are.

use std::collections::HashMap;

use dispatcher_core::limits::{LEASE, POOL_LOAD_ROWS_MAX, POOL_RATES_KEPT, POOL_RATES_WINDOW};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::encode::{count, int4, int8, microseconds};
use super::replays::hold_epoch;
use super::{LedgerError, PoolLoad, PoolMetric};
use crate::ledger::pools::{PoolCounts, first_period, period_of};

/// Pool; late and all deliveries of the outbox and its rows; late, queued and all rows in `due`.
type LoadRow = (String, i64, i64, i64, i64, i64, i64);

/// Measures; see [`crate::ledger::Ledger::pool_loads`].
pub(super) async fn loads(pool: &PgPool, names: &[String]) -> Result<Vec<PoolLoad>, LedgerError> {
    let rates = rates(pool, names).await?;
    let rows: Vec<LoadRow> = sqlx::query_as(
        "SELECT asked.pool, o.late, o.all_of_them, o.parts, d.late, q.queued, w.all_of_them
         FROM unnest($1::text[]) WITH ORDINALITY AS asked(pool, place)
         CROSS JOIN LATERAL (
             SELECT coalesce(sum(target_count) FILTER (WHERE lease_until <= now()), 0)::int8 AS late,
                    coalesce(sum(target_count), 0)::int8 AS all_of_them, count(*) AS parts
             FROM (SELECT target_count, lease_until FROM outbox WHERE outbox.pool = asked.pool
                   ORDER BY lease_until LIMIT $2) part) o
         CROSS JOIN LATERAL (
             SELECT count(*) AS late FROM (
                 SELECT FROM lanes CROSS JOIN LATERAL (
                     SELECT FROM due WHERE due.endpoint = lanes.endpoint AND due_at <= now()
                     LIMIT coalesce(lanes.quota, $2)) row_of_lane
                 WHERE lanes.pool = asked.pool AND ready_at <= now() LIMIT $2) late) d
         CROSS JOIN LATERAL (
             SELECT count(*) AS queued FROM (
                 SELECT FROM lanes CROSS JOIN LATERAL (
                     SELECT FROM due WHERE due.endpoint = lanes.endpoint AND state = 1
                        AND due_at > now() AND due_at <= now() + $3 * interval '1 microsecond'
                     LIMIT $2) row_of_lane
                 WHERE lanes.pool = asked.pool AND isfinite(next_due) LIMIT $2) queued) q
         CROSS JOIN LATERAL (
             SELECT count(*) AS all_of_them FROM (
                 SELECT FROM lanes CROSS JOIN LATERAL (
                     SELECT FROM due WHERE due.endpoint = lanes.endpoint LIMIT $2) row_of_lane
                 WHERE lanes.pool = asked.pool AND isfinite(next_due) LIMIT $2) all_of_them) w
         ORDER BY asked.place",
    )
    .bind(names)
    .bind(int8(POOL_LOAD_ROWS_MAX))
    .bind(microseconds(LEASE))
    .fetch_all(pool)
    .await?;
    let loads = rows.into_iter().map(|(name, parts_late, in_parts, parts, rows_late, queued, rows)| {
        let (parts_late, in_parts, rows) =
            (count::<u64, _>(parts_late)?, count::<u64, _>(in_parts)?, count::<u64, _>(rows)?);
        let is_more = [parts, rows_late].into_iter().any(|counted| counted >= i64::from(POOL_LOAD_ROWS_MAX))
            || rows >= u64::from(POOL_LOAD_ROWS_MAX);
        let mut load = PoolLoad {
            due: parts_late + count::<u64, _>(rows_late)? + count::<u64, _>(queued)?,
            held: in_parts - parts_late,
            open: in_parts + rows,
            is_more,
            ..PoolLoad::default()
        };
        load.set_rates(rates.counts.get(&name).copied().unwrap_or_default(), rates.seconds);
        Ok(PoolLoad { pool: name, ..load })
    });
    loads.collect()
}

struct Rates {
    counts: HashMap<String, PoolCounts>,
    seconds: f64,
}

async fn rates(pool: &PgPool, names: &[String]) -> Result<Rates, LedgerError> {
    let now_ms: i64 =
        sqlx::query_scalar("SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::int8").fetch_one(pool).await?;
    let (first, seconds) = first_period(count(now_ms)?, POOL_RATES_WINDOW);
    let rows: Vec<(String, i64, i64, i64)> = sqlx::query_as(
        "SELECT pool, sum(accepted)::int8, sum(attempts)::int8, sum(delivered)::int8 FROM pool_statistics
         WHERE period >= $1 AND pool = ANY($2) GROUP BY pool",
    )
    .bind(int8(first))
    .bind(names)
    .fetch_all(pool)
    .await?;
    let counts = rows.into_iter().map(|(name, accepted, attempts, delivered)| {
        let counts =
            PoolCounts { accepted: count(accepted)?, attempts: count(attempts)?, delivered: count(delivered)? };
        Ok((name, counts))
    });
    Ok(Rates { counts: counts.collect::<Result<_, LedgerError>>()?, seconds })
}

/// What was counted and is to be added to the present period.
#[derive(Default)]
pub(super) struct Additions {
    pub(super) pools: Vec<String>,
    pub(super) accepted: Vec<i64>,
    pub(super) endpoints: Vec<Uuid>,
    pub(super) attempts: Vec<i64>,
    pub(super) delivered: Vec<i64>,
}

/// Adds to the present period, in the order of the pools. Attempts are those of the pool that the endpoint's lane names.
pub(super) async fn add(connection: &mut PgConnection, additions: &Additions) -> Result<(), LedgerError> {
    let now_ms: i64 =
        sqlx::query_scalar("SELECT floor(extract(epoch FROM now()) * 1000)::int8").fetch_one(&mut *connection).await?;
    sqlx::query(
        "INSERT INTO pool_statistics AS s (period, pool, accepted, attempts, delivered)
         SELECT $1, pool, sum(accepted), sum(attempts), sum(delivered) FROM (
             SELECT l.pool, 0 AS accepted, u.attempts, u.delivered
             FROM unnest($4::uuid[], $5::int8[], $6::int8[]) AS u(endpoint, attempts, delivered)
             CROSS JOIN LATERAL (SELECT pool FROM lanes WHERE endpoint = u.endpoint OFFSET 0) l
             UNION ALL
             SELECT pool, accepted, 0, 0 FROM unnest($2::text[], $3::int8[]) AS a(pool, accepted)) counted
         GROUP BY pool ORDER BY pool
         ON CONFLICT (period, pool) DO UPDATE
         SET accepted = s.accepted + excluded.accepted, attempts = s.attempts + excluded.attempts,
             delivered = s.delivered + excluded.delivered",
    )
    .bind(int8(period_of(count(now_ms)?)))
    .bind(&additions.pools)
    .bind(&additions.accepted)
    .bind(&additions.endpoints)
    .bind(&additions.attempts)
    .bind(&additions.delivered)
    .execute(connection)
    .await?;
    Ok(())
}

/// Forgets periods that are over.
pub(super) async fn forget_statistics(pool: &PgPool) -> Result<(), LedgerError> {
    let now_ms: i64 =
        sqlx::query_scalar("SELECT floor(extract(epoch FROM now()) * 1000)::int8").fetch_one(pool).await?;
    let (first_kept, _) = first_period(count(now_ms)?, POOL_RATES_KEPT);
    sqlx::query("DELETE FROM pool_statistics WHERE period < $1").bind(int8(first_kept)).execute(pool).await?;
    Ok(())
}

/// Writes what autoscalers read; see [`crate::ledger::Ledger::publish_pool_metrics`].
pub(super) async fn publish_metrics(
    pool: &PgPool,
    metrics: &[PoolMetric],
    epoch: Option<u64>,
) -> Result<(), LedgerError> {
    let names: Vec<&str> = metrics.iter().map(|metric| metric.pool.as_str()).collect();
    let backlogs: Vec<i64> = metrics.iter().map(|metric| int8(metric.backlog)).collect();
    let arrivals: Vec<f64> = metrics.iter().map(|metric| metric.arrival_per_second).collect();
    let deliveries: Vec<f64> = metrics.iter().map(|metric| metric.delivery_per_second).collect();
    let wanted: Vec<i32> = metrics.iter().map(|metric| int4(metric.wanted_replicas)).collect();
    let mut transaction = pool.begin().await?;
    hold_epoch(&mut transaction, epoch).await?;
    sqlx::query("DELETE FROM pool_metrics WHERE pool <> ALL($1)").bind(&names).execute(&mut *transaction).await?;
    sqlx::query(
        "INSERT INTO pool_metrics (pool, backlog, arrival_per_second, delivery_per_second, wanted_replicas)
         SELECT * FROM unnest($1::text[], $2::int8[], $3::float8[], $4::float8[], $5::int4[]) ORDER BY 1
         ON CONFLICT (pool) DO UPDATE
         SET backlog = excluded.backlog, arrival_per_second = excluded.arrival_per_second,
             delivery_per_second = excluded.delivery_per_second, wanted_replicas = excluded.wanted_replicas,
             measured_at = excluded.measured_at",
    )
    .bind(&names)
    .bind(&backlogs)
    .bind(&arrivals)
    .bind(&deliveries)
    .bind(&wanted)
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(())
}
