//! Loads of pools, each count bounded.

use std::collections::{BTreeMap, HashMap};

use dispatcher_core::limits::{LEASE, POOL_LOAD_ROWS_MAX, POOL_RATES_KEPT, POOL_RATES_WINDOW};
use serde::Serialize;
use sqlx::sqlite::SqliteConnection;
use sqlx::{Row as _, Sqlite, SqlitePool, Transaction};

use super::encode::{self, Hex, count, integer};
use super::replays::hold_epoch;
use super::{LedgerError, NEVER_MS, PoolLoad, PoolMetric, begin};
use crate::ledger::pools::{PoolCounts, first_period, period_of};

/// Measures; see [`crate::ledger::Ledger::pool_loads`].
pub(super) async fn loads(readers: &SqlitePool, names: &[String], now_ms: u64) -> Result<Vec<PoolLoad>, LedgerError> {
    let mut snapshot = readers.begin().await?;
    let (first, seconds) = first_period(now_ms, POOL_RATES_WINDOW);
    let rates = rates(&mut snapshot, first).await?;
    let mut loads = Vec::with_capacity(names.len());
    for name in names {
        let mut load = load(&mut snapshot, name, now_ms).await?;
        load.set_rates(rates.get(name).copied().unwrap_or_default(), seconds);
        loads.push(load);
    }
    Ok(loads)
}

async fn load(snapshot: &mut Transaction<'_, Sqlite>, name: &str, now_ms: u64) -> Result<PoolLoad, LedgerError> {
    let row = sqlx::query(
        "SELECT
             (SELECT coalesce(sum(target_count), 0) FROM (SELECT target_count FROM outbox
              WHERE pool = ?1 AND lease_until <= ?2 LIMIT ?3)) AS parts_late,
             (SELECT coalesce(sum(target_count), 0) FROM (SELECT target_count FROM outbox
              WHERE pool = ?1 ORDER BY lease_until LIMIT ?3)) AS in_parts,
             (SELECT count(*) FROM (SELECT 1 FROM outbox WHERE pool = ?1 LIMIT ?3)) AS parts,
             (SELECT coalesce(sum(n), 0) FROM (
                 SELECT min(coalesce(l.quota, ?3), (SELECT count(*) FROM (
                     SELECT 1 FROM due WHERE endpoint = l.endpoint AND due_at <= ?2 LIMIT ?3))) AS n
                 FROM lanes l WHERE l.pool = ?1 AND l.ready_at <= ?2 LIMIT ?3)) AS rows_late,
             (SELECT coalesce(sum(n), 0) FROM (
                 SELECT (SELECT count(*) FROM (SELECT 1 FROM due WHERE endpoint = l.endpoint AND state = 1
                     AND due_at > ?2 AND due_at <= ?2 + ?5 LIMIT ?3)) AS n
                 FROM lanes l WHERE l.pool = ?1 AND l.next_due < ?4 LIMIT ?3)) AS queued,
             (SELECT coalesce(sum(n), 0) FROM (
                 SELECT (SELECT count(*) FROM (SELECT 1 FROM due WHERE endpoint = l.endpoint LIMIT ?3)) AS n
                 FROM lanes l WHERE l.pool = ?1 AND l.next_due < ?4 LIMIT ?3)) AS all_rows",
    )
    .bind(name)
    .bind(integer(now_ms))
    .bind(i64::from(POOL_LOAD_ROWS_MAX))
    .bind(integer(NEVER_MS))
    .bind(integer(encode::milliseconds(LEASE)))
    .fetch_one(&mut **snapshot)
    .await?;
    let number = |column: &str| count::<u64>(row.try_get(column)?);
    let (parts_late, in_parts, rows_late, rows) =
        (number("parts_late")?, number("in_parts")?, number("rows_late")?, number("all_rows")?);
    let queued = number("queued")?;
    Ok(PoolLoad {
        pool: name.to_owned(),
        due: parts_late + rows_late + queued,
        held: in_parts - parts_late,
        open: in_parts + rows,
        is_more: number("parts")?.max(rows) >= u64::from(POOL_LOAD_ROWS_MAX),
        ..PoolLoad::default()
    })
}

async fn rates(snapshot: &mut Transaction<'_, Sqlite>, first: u64) -> Result<HashMap<String, PoolCounts>, LedgerError> {
    let rows = sqlx::query(
        "SELECT pool, sum(accepted) AS accepted, sum(attempts) AS attempts, sum(delivered) AS delivered
         FROM pool_statistics WHERE period >= ?1 GROUP BY pool",
    )
    .bind(integer(first))
    .fetch_all(&mut **snapshot)
    .await?;
    let counts = rows.iter().map(|row| {
        let number = |column: &str| count::<u64>(row.try_get(column)?);
        let counts = PoolCounts {
            accepted: number("accepted")?,
            attempts: number("attempts")?,
            delivered: number("delivered")?,
        };
        Ok((row.try_get("pool")?, counts))
    });
    counts.collect()
}

/// Adds accepted deliveries to the present period.
pub(super) async fn add_accepted(
    transaction: &mut Transaction<'_, Sqlite>,
    accepted: &BTreeMap<String, u64>,
    now_ms: u64,
) -> Result<(), LedgerError> {
    let rows: Vec<_> = accepted.iter().collect();
    add(
        transaction,
        "INSERT INTO pool_statistics (period, pool, accepted, attempts, delivered)
         SELECT ?2, value->>0, value->>1, 0, 0 FROM json_each(?1) WHERE true
         ON CONFLICT (period, pool) DO UPDATE SET accepted = accepted + excluded.accepted",
        &rows,
        now_ms,
    )
    .await
}

/// Adds attempts to the present period: endpoint, attempts, and of these the ones that succeeded. They are those of the
/// pool that the endpoint's lane names.
pub(super) async fn add_attempts(
    transaction: &mut Transaction<'_, Sqlite>,
    attempts: &[(Hex, u64, u64)],
    now_ms: u64,
) -> Result<(), LedgerError> {
    add(
        transaction,
        "INSERT INTO pool_statistics (period, pool, accepted, attempts, delivered)
         SELECT ?2, l.pool, 0, sum(j.value->>1), sum(j.value->>2)
         FROM json_each(?1) j CROSS JOIN lanes l ON l.endpoint = unhex(j.value->>0) WHERE true GROUP BY l.pool
         ON CONFLICT (period, pool) DO UPDATE
         SET attempts = attempts + excluded.attempts, delivered = delivered + excluded.delivered",
        attempts,
        now_ms,
    )
    .await
}

async fn add<T: Serialize>(
    transaction: &mut Transaction<'_, Sqlite>,
    statement: &'static str,
    rows: &[T],
    now_ms: u64,
) -> Result<(), LedgerError> {
    if !rows.is_empty() {
        let query = sqlx::query(statement).bind(encode::rows(rows)?).bind(integer(period_of(now_ms)));
        query.execute(&mut **transaction).await?;
    }
    Ok(())
}

/// Forgets periods that are over.
pub(super) async fn forget_statistics(writer: &mut SqliteConnection, now_ms: u64) -> Result<(), LedgerError> {
    let (first_kept, _) = first_period(now_ms, POOL_RATES_KEPT);
    sqlx::query("DELETE FROM pool_statistics WHERE period < ?1").bind(integer(first_kept)).execute(writer).await?;
    Ok(())
}

/// Writes what autoscalers read; see [`crate::ledger::Ledger::publish_pool_metrics`].
pub(super) async fn publish_metrics(
    writer: &mut SqliteConnection,
    metrics: &[PoolMetric],
    epoch: Option<u64>,
    now_ms: u64,
) -> Result<(), LedgerError> {
    let mut transaction = begin(writer).await?;
    hold_epoch(&mut transaction, epoch).await?;
    sqlx::query("DELETE FROM pool_metrics").execute(&mut *transaction).await?;
    let rows: Vec<_> = metrics
        .iter()
        .map(|metric| {
            let PoolMetric { pool, backlog, arrival_per_second, delivery_per_second, wanted_replicas } = metric;
            (pool, backlog, arrival_per_second, delivery_per_second, wanted_replicas)
        })
        .collect();
    sqlx::query(
        "INSERT INTO pool_metrics (pool, backlog, arrival_per_second, delivery_per_second, wanted_replicas, measured_at)
         SELECT value->>0, value->>1, value->>2, value->>3, value->>4, ?2 FROM json_each(?1)",
    )
    .bind(encode::rows(&rows)?)
    .bind(integer(now_ms))
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(())
}
