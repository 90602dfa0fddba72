//! Signs of life of the processes that work on the ledger.

use std::time::Duration;

use dispatcher_core::limits::{
    DISPATCHERS_READ_MAX, HEARTBEAT_DEAD_AFTER, HEARTBEAT_FORGOTTEN_AFTER, HEARTBEAT_GAP_MAX,
};
use dispatcher_core::table::TableVersion;
use sqlx::PgPool;
use uuid::Uuid;

use super::encode::{count, int8, microseconds};
use super::{DispatcherRecord, Heartbeat, LedgerError};
use crate::ledger::DispatcherRole;

/// Takes note of a process; see [`crate::ledger::Ledger::beat`]. Answers the database's clock, in milliseconds.
pub(super) async fn beat(pool: &PgPool, heartbeat: &Heartbeat) -> Result<u64, LedgerError> {
    let ledger_ms: i64 = sqlx::query_scalar(
        "INSERT INTO dispatchers AS d (instance, role, pool, table_version, beating_since, last_seen)
         VALUES ($1, $2, $3, $4, now(), now())
         ON CONFLICT (instance) DO UPDATE
         SET role = excluded.role, pool = excluded.pool, table_version = excluded.table_version, last_seen = now(),
             beating_since = CASE WHEN d.last_seen < now() - $5 * interval '1 microsecond' THEN now()
                                  ELSE d.beating_since END
         RETURNING floor(extract(epoch FROM clock_timestamp()) * 1000)::int8",
    )
    .bind(heartbeat.instance)
    .bind(heartbeat.role.as_str())
    .bind(&heartbeat.pool)
    .bind(int8(heartbeat.table_version.0))
    .bind(microseconds(HEARTBEAT_GAP_MAX))
    .fetch_one(pool)
    .await?;
    count(ledger_ms)
}

/// Forgets a process that has finished, and makes what it has in flight due; see [`crate::ledger::Ledger::retire`].
pub(super) async fn retire(pool: &PgPool, instance: Uuid) -> Result<(), LedgerError> {
    sqlx::query(
        "WITH gone AS (DELETE FROM dispatchers WHERE instance = $1),
         held AS MATERIALIZED (
             SELECT delivery FROM due WHERE owner = $1 AND state = 2 ORDER BY delivery FOR UPDATE),
         freed AS (
             UPDATE due SET due_at = now(), gen = gen + 1, state = 0, owner = NULL
             WHERE delivery = ANY(ARRAY(SELECT delivery FROM held)) RETURNING endpoint),
         locked AS MATERIALIZED (
             SELECT endpoint FROM lanes WHERE endpoint = ANY(ARRAY(SELECT endpoint FROM freed))
             ORDER BY endpoint FOR NO KEY UPDATE)
         UPDATE lanes SET next_due = least(next_due, now()) WHERE endpoint = ANY(ARRAY(SELECT endpoint FROM locked))",
    )
    .bind(instance)
    .execute(pool)
    .await?;
    Ok(())
}

/// Makes due what dead processes have in flight, at most `rows_max` deliveries. A process is dead if it has been silent
/// for as long as that takes while another one was heard of all the time: after a failure of the ledger all are silent,
/// and none is dead.
pub(super) async fn free_abandoned(pool: &PgPool, rows_max: usize) -> Result<(), LedgerError> {
    sqlx::query(
        "WITH dead AS MATERIALIZED (
             SELECT instance FROM dispatchers WHERE last_seen < now() - $1 * interval '1 microsecond'
                AND EXISTS (SELECT FROM dispatchers
                            WHERE last_seen >= now() - $2 * interval '1 microsecond'
                              AND beating_since <= now() - $1 * interval '1 microsecond' OFFSET 0)),
         held AS MATERIALIZED (
             SELECT d.delivery FROM dead CROSS JOIN LATERAL (
                 SELECT delivery FROM due WHERE owner = dead.instance AND state = 2 FOR UPDATE SKIP LOCKED) d
             LIMIT $3),
         freed AS (
             UPDATE due SET due_at = now(), gen = gen + 1, state = 0, owner = NULL
             WHERE delivery = ANY(ARRAY(SELECT delivery FROM held)) RETURNING endpoint),
         locked AS MATERIALIZED (
             SELECT endpoint FROM lanes WHERE endpoint = ANY(ARRAY(SELECT endpoint FROM freed))
             ORDER BY endpoint FOR NO KEY UPDATE)
         UPDATE lanes SET next_due = least(next_due, now()) WHERE endpoint = ANY(ARRAY(SELECT endpoint FROM locked))",
    )
    .bind(microseconds(HEARTBEAT_DEAD_AFTER))
    .bind(microseconds(HEARTBEAT_GAP_MAX))
    .bind(int8(rows_max))
    .execute(pool)
    .await?;
    Ok(())
}

/// Forgets processes that have been silent for long.
pub(super) async fn forget_silent(pool: &PgPool) -> Result<(), LedgerError> {
    sqlx::query("DELETE FROM dispatchers WHERE last_seen < now() - $1 * interval '1 microsecond'")
        .bind(microseconds(HEARTBEAT_FORGOTTEN_AFTER))
        .execute(pool)
        .await?;
    Ok(())
}

/// Instance, role, pool, version of the table, microseconds since it was seen.
type DispatcherRow = (Uuid, String, Option<String>, i64, i64);

/// Lists processes; see [`crate::ledger::Ledger::dispatchers`].
pub(super) async fn dispatchers(pool: &PgPool, seen_within: Duration) -> Result<Vec<DispatcherRecord>, LedgerError> {
    let rows: Vec<DispatcherRow> = sqlx::query_as(
        "SELECT instance, role, pool, table_version, (extract(epoch FROM now() - last_seen) * 1000000)::int8
         FROM dispatchers WHERE last_seen >= now() - $1 * interval '1 microsecond' ORDER BY instance LIMIT $2",
    )
    .bind(microseconds(seen_within))
    .bind(i64::from(DISPATCHERS_READ_MAX))
    .fetch_all(pool)
    .await?;
    let records = rows.into_iter().filter_map(|(instance, role, pool, table_version, seen_ago_us)| {
        let role = DispatcherRole::parse(&role)?;
        let record = |table_version| DispatcherRecord {
            instance,
            role,
            pool,
            table_version: TableVersion(table_version),
            // Seen in a transaction that began before the one that looks.
            seen_ago: Duration::from_micros(u64::try_from(seen_ago_us).unwrap_or_default()),
        };
        Some(count(table_version).map(record))
    });
    records.collect()
}
