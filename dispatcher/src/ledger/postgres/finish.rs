//! Changes that do not come from attempts: replay, cancellation of orphans, expiry of idempotency keys.

use std::time::Duration;

use dispatcher_core::id::{DeliveryId, TenantId};
use dispatcher_core::table::DEFAULT_POOL;
use sqlx::PgPool;

use super::LedgerError;
use super::encode::{count, microseconds};

/// Opens a finished delivery again and answers its new run; `None` if the tenant has no finished delivery of
/// this identity.
pub(super) async fn replay(pool: &PgPool, tenant: TenantId, delivery: DeliveryId) -> Result<Option<u32>, LedgerError> {
    let run: Option<i32> = sqlx::query_scalar(
        "WITH opened AS (
             UPDATE deliveries SET state = 0, reason = NULL, run = run + 1, run_started_at = now(), attempts = 0
             WHERE id = $1 AND tenant = $2 AND state <> 0 RETURNING id, run, tenant, endpoint),
         put AS (
             INSERT INTO due (delivery, endpoint, due_at, run, gen, state)
             SELECT id, endpoint, now(), run, 0, 0 FROM opened),
         woken AS (
             INSERT INTO lanes (endpoint, tenant, pool, next_due) SELECT endpoint, tenant, $3, now() FROM opened
             ON CONFLICT (endpoint) DO UPDATE SET next_due = least(lanes.next_due, excluded.next_due))
         SELECT run FROM opened",
    )
    .bind(delivery.0)
    .bind(tenant.0)
    .bind(DEFAULT_POOL)
    .fetch_optional(pool)
    .await?;
    run.map(count).transpose()
}

/// Cancels what waits for endpoints that are gone; see [`crate::ledger::Ledger::cancel_orphans`]. What is in
/// flight under a valid lease finishes; if it fails, it waits, and the next call cancels it. The lane is locked with
/// it, so that an endpoint that comes back just now keeps what waits.
pub(super) async fn cancel_orphans(pool: &PgPool, grace: Duration, rows_max: u32) -> Result<u64, LedgerError> {
    let cancelled: i64 = sqlx::query_scalar(
        "WITH orphans AS MATERIALIZED (
             SELECT d.delivery FROM (
                 SELECT endpoint FROM lanes WHERE dropped_at <= now() - $1 * interval '1 microsecond'
                 FOR SHARE SKIP LOCKED) l
             CROSS JOIN LATERAL (
                 SELECT delivery FROM due WHERE endpoint = l.endpoint AND (state <> 2 OR due_at <= now())
                 FOR UPDATE SKIP LOCKED) d
             LIMIT $2),
         ended AS (
             UPDATE deliveries SET state = 3, reason = 'endpoint_deleted'
             WHERE id = ANY(ARRAY(SELECT delivery FROM orphans))),
         gone AS (DELETE FROM due WHERE delivery = ANY(ARRAY(SELECT delivery FROM orphans)))
         SELECT count(*) FROM orphans",
    )
    .bind(microseconds(grace))
    .bind(i64::from(rows_max))
    .fetch_one(pool)
    .await?;
    count(cancelled)
}

/// Forgets keys whose lifetime is over; see [`crate::ledger::Ledger::expire_idempotency_keys`].
pub(super) async fn expire_idempotency_keys(pool: &PgPool, rows_max: u32) -> Result<u64, LedgerError> {
    let result = sqlx::query(
        "WITH expired AS MATERIALIZED (
             SELECT ctid FROM idempotency WHERE expires_at <= now() ORDER BY expires_at LIMIT $1
             FOR UPDATE SKIP LOCKED)
         DELETE FROM idempotency WHERE ctid = ANY(ARRAY(SELECT ctid FROM expired))",
    )
    .bind(i64::from(rows_max))
    .execute(pool)
    .await?;
    Ok(result.rows_affected())
}
