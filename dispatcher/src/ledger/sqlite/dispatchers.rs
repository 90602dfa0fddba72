//! Signs of life of the processes that work on the ledger.

use std::time::Duration;

use dispatcher_core::limits::{
    DISPATCHERS_READ_MAX, HEARTBEAT_DEAD_AFTER, HEARTBEAT_FORGOTTEN_AFTER, HEARTBEAT_GAP_MAX,
};
use dispatcher_core::table::TableVersion;
use sqlx::sqlite::SqliteConnection;
use sqlx::{Row as _, SqlitePool};
use uuid::Uuid;

use super::encode::{self, Hex, blob, count, integer, milliseconds, uuid};
use super::{DispatcherRecord, Heartbeat, LedgerError, begin};
use crate::ledger::DispatcherRole;

/// Takes note of a process; see [`crate::ledger::Ledger::beat`].
pub(super) async fn beat(writer: &mut SqliteConnection, heartbeat: &Heartbeat, now_ms: u64) -> Result<(), LedgerError> {
    sqlx::query(
        "INSERT INTO dispatchers (instance, role, pool, table_version, beating_since, last_seen)
         VALUES (?1, ?2, ?3, ?4, ?5, ?5)
         ON CONFLICT (instance) DO UPDATE
         SET role = excluded.role, pool = excluded.pool, table_version = excluded.table_version,
             beating_since = CASE WHEN last_seen < ?6 THEN ?5 ELSE beating_since END, last_seen = ?5",
    )
    .bind(blob(heartbeat.instance))
    .bind(heartbeat.role.as_str())
    .bind(&heartbeat.pool)
    .bind(integer(heartbeat.table_version.0))
    .bind(integer(now_ms))
    .bind(integer(now_ms.saturating_sub(milliseconds(HEARTBEAT_GAP_MAX))))
    .execute(writer)
    .await?;
    Ok(())
}

/// Forgets a process that has finished, and makes what it has in flight due; see [`crate::ledger::Ledger::retire`].
pub(super) async fn retire(writer: &mut SqliteConnection, instance: Uuid, now_ms: u64) -> Result<(), LedgerError> {
    let mut transaction = begin(writer).await?;
    for statement in [
        "UPDATE lanes SET next_due = min(next_due, ?2)
         WHERE endpoint IN (SELECT endpoint FROM due WHERE owner = ?1 AND state = 2)",
        "UPDATE due SET due_at = ?2, gen = gen + 1, state = 0, owner = NULL WHERE owner = ?1 AND state = 2",
        "DELETE FROM dispatchers WHERE instance = ?1",
    ] {
        let query = sqlx::query(statement).bind(blob(instance)).bind(integer(now_ms));
        query.execute(&mut *transaction).await?;
    }
    transaction.commit().await?;
    Ok(())
}

/// Whether a process is dead: it has been silent for as long as that takes (since ?1) while another one was heard of
/// all the time, and just now (since ?2). After a failure of the ledger all are silent, and none is dead.
macro_rules! is_dead {
    () => {
        "dead.last_seen < ?1 AND EXISTS (
             SELECT 1 FROM dispatchers other WHERE other.last_seen >= ?2 AND other.beating_since <= ?1)"
    };
}

/// Whether a dead process has something in flight.
pub(super) const IS_ABANDONED: &str = concat!(
    "SELECT EXISTS (SELECT 1 FROM dispatchers dead WHERE ",
    is_dead!(),
    " AND EXISTS (SELECT 1 FROM due WHERE owner = dead.instance AND state = 2)) AS is_abandoned"
);

/// What [`IS_ABANDONED`] compares with.
pub(super) fn bounds(now_ms: u64) -> [i64; 2] {
    [HEARTBEAT_DEAD_AFTER, HEARTBEAT_GAP_MAX].map(|ago| integer(now_ms.saturating_sub(milliseconds(ago))))
}

/// Makes due what dead processes have in flight, at most `rows_max` deliveries.
pub(super) async fn free_abandoned(
    writer: &mut SqliteConnection,
    rows_max: usize,
    now_ms: u64,
) -> Result<(), LedgerError> {
    let mut transaction = begin(writer).await?;
    let [dead_since, seen_since] = bounds(now_ms);
    let abandoned = sqlx::query(concat!(
        "SELECT due.delivery FROM dispatchers dead CROSS JOIN due ON due.owner = dead.instance AND due.state = 2 WHERE ",
        is_dead!(),
        " LIMIT ?3"
    ))
    .bind(dead_since)
    .bind(seen_since)
    .bind(integer(rows_max as u64))
    .fetch_all(&mut *transaction)
    .await?;
    let rows = abandoned.iter().map(|row| Ok([Hex(uuid(row.try_get("delivery")?)?)]));
    let rows = encode::rows(&rows.collect::<Result<Vec<_>, LedgerError>>()?)?;
    for statement in [
        "UPDATE due SET due_at = ?2, gen = gen + 1, state = 0, owner = NULL
         WHERE delivery IN (SELECT unhex(value->>0) FROM json_each(?1))",
        "UPDATE lanes SET next_due = min(next_due, ?2) WHERE endpoint IN (
             SELECT d.endpoint FROM json_each(?1) j CROSS JOIN due d ON d.delivery = unhex(j.value->>0))",
    ] {
        sqlx::query(statement).bind(&rows).bind(integer(now_ms)).execute(&mut *transaction).await?;
    }
    transaction.commit().await?;
    Ok(())
}

/// Forgets processes that have been silent for long.
pub(super) async fn forget_silent(writer: &mut SqliteConnection, now_ms: u64) -> Result<(), LedgerError> {
    sqlx::query("DELETE FROM dispatchers WHERE last_seen < ?1")
        .bind(integer(now_ms.saturating_sub(milliseconds(HEARTBEAT_FORGOTTEN_AFTER))))
        .execute(writer)
        .await?;
    Ok(())
}

/// Lists processes; see [`crate::ledger::Ledger::dispatchers`].
pub(super) async fn dispatchers(
    readers: &SqlitePool,
    seen_within: Duration,
    now_ms: u64,
) -> Result<Vec<DispatcherRecord>, LedgerError> {
    let rows = sqlx::query(
        "SELECT instance, role, pool, table_version, last_seen FROM dispatchers WHERE last_seen >= ?1
         ORDER BY instance LIMIT ?2",
    )
    .bind(integer(now_ms.saturating_sub(milliseconds(seen_within))))
    .bind(i64::from(DISPATCHERS_READ_MAX))
    .fetch_all(readers)
    .await?;
    let records = rows.iter().map(|row| {
        let Some(role) = DispatcherRole::parse(row.try_get("role")?) else { return Ok(None) };
        let seen_ms: u64 = count(row.try_get("last_seen")?)?;
        Ok(Some(DispatcherRecord {
            instance: uuid(row.try_get("instance")?)?,
            role,
            pool: row.try_get("pool")?,
            table_version: TableVersion(count(row.try_get("table_version")?)?),
            seen_ago: Duration::from_millis(now_ms.saturating_sub(seen_ms)),
        }))
    });
    records.filter_map(Result::transpose).collect()
}
