//! Changes that do not come from attempts: replay, cancellation of orphans, expiry of idempotency keys.

use std::time::Duration;

use dispatcher_core::id::{DeliveryId, TenantId};
use dispatcher_core::table::DEFAULT_POOL;
use sqlx::Row as _;
use sqlx::sqlite::SqliteConnection;

use super::encode::{self, Hex, blob, count, integer, milliseconds, uuid};
use super::{LedgerError, begin};

/// Opens a finished delivery again and answers its new run; `None` if the tenant has no finished delivery of
/// this identity.
pub(super) async fn replay(
    writer: &mut SqliteConnection,
    tenant: TenantId,
    delivery: DeliveryId,
    now_ms: u64,
) -> Result<Option<u32>, LedgerError> {
    let mut transaction = begin(writer).await?;
    let row = sqlx::query(
        "UPDATE deliveries SET state = 0, reason = NULL, run = run + 1, run_started_at = ?3, attempts = 0
         WHERE id = ?1 AND tenant = ?2 AND state <> 0 RETURNING run, endpoint",
    )
    .bind(blob(delivery.0))
    .bind(blob(tenant.0))
    .bind(integer(now_ms))
    .fetch_optional(&mut *transaction)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let run: u32 = count(row.try_get("run")?)?;
    let endpoint: Vec<u8> = row.try_get("endpoint")?;
    sqlx::query("INSERT INTO due (delivery, endpoint, due_at, run, gen, state) VALUES (?1, ?2, ?3, ?4, 0, 0)")
        .bind(blob(delivery.0))
        .bind(endpoint.clone())
        .bind(integer(now_ms))
        .bind(i64::from(run))
        .execute(&mut *transaction)
        .await?;
    sqlx::query(
        "INSERT INTO lanes (endpoint, tenant, pool, next_due) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (endpoint) DO UPDATE SET next_due = min(next_due, excluded.next_due)",
    )
    .bind(endpoint)
    .bind(blob(tenant.0))
    .bind(DEFAULT_POOL)
    .bind(integer(now_ms))
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(Some(run))
}

/// Cancels what waits for endpoints that are gone; see [`crate::ledger::Ledger::cancel_orphans`]. What is in
/// flight under a valid lease finishes; if it fails, it waits, and the next call cancels it.
pub(super) async fn cancel_orphans(
    writer: &mut SqliteConnection,
    grace: Duration,
    rows_max: u32,
    now_ms: u64,
) -> Result<u64, LedgerError> {
    let mut transaction = begin(writer).await?;
    let orphans = sqlx::query(
        "SELECT d.delivery FROM lanes l CROSS JOIN due d ON d.endpoint = l.endpoint
         WHERE l.dropped_at IS NOT NULL AND l.dropped_at <= ?1 AND (d.state <> 2 OR d.due_at <= ?2) LIMIT ?3",
    )
    .bind(integer(now_ms) - integer(milliseconds(grace)))
    .bind(integer(now_ms))
    .bind(i64::from(rows_max))
    .fetch_all(&mut *transaction)
    .await?;
    if orphans.is_empty() {
        return Ok(0);
    }
    let rows = orphans.iter().map(|row| Ok([Hex(uuid(row.try_get("delivery")?)?)]));
    let rows = encode::rows(&rows.collect::<Result<Vec<_>, LedgerError>>()?)?;
    for statement in [
        "UPDATE deliveries SET state = 3, reason = 'endpoint_deleted'
         WHERE id IN (SELECT unhex(value->>0) FROM json_each(?1))",
        "DELETE FROM due WHERE delivery IN (SELECT unhex(value->>0) FROM json_each(?1))",
    ] {
        sqlx::query(statement).bind(&rows).execute(&mut *transaction).await?;
    }
    transaction.commit().await?;
    Ok(orphans.len() as u64)
}

/// Forgets keys whose lifetime is over; see [`crate::ledger::Ledger::expire_idempotency_keys`].
pub(super) async fn expire_idempotency_keys(
    writer: &mut SqliteConnection,
    rows_max: u32,
    now_ms: u64,
) -> Result<u64, LedgerError> {
    let result = sqlx::query(
        "DELETE FROM idempotency WHERE (tenant, key) IN
         (SELECT tenant, key FROM idempotency WHERE expires_at <= ?1 ORDER BY expires_at LIMIT ?2)",
    )
    .bind(integer(now_ms))
    .bind(i64::from(rows_max))
    .execute(writer)
    .await?;
    Ok(result.rows_affected())
}
