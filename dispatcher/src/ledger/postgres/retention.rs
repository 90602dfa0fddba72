//! The end of what is older than retention: it is given up, in steps, before its partitions go.

use dispatcher_core::delivery::{DeliveryKey, EndReason, Next};
use dispatcher_core::id::{EventId, TenantId};
use dispatcher_core::limits::HOUSEKEEPING_ROWS_MAX;
use sqlx::{PgPool, Postgres, Transaction};
use uuid::Uuid;

use super::encode::count;
use super::events::targets_of;
use super::record;
use super::statistics::Counted;
use super::{Change, LedgerError};
use crate::ledger::DeliveryResult;

/// Outbox parts that one step ends.
const PARTS_PER_STEP: i64 = 64;

/// Gives up all deliveries of events before an identity; answers how many.
pub(super) async fn end_unfinished(pool: &PgPool, bound: Uuid) -> Result<u64, LedgerError> {
    let mut ended = 0;
    loop {
        let parts = old_parts(pool, bound).await?;
        if parts.is_empty() {
            break;
        }
        for change in &parts {
            if let Change::Part { results, .. } = change {
                ended += results.len() as u64;
            }
        }
        record::record(&mut *pool.acquire().await?, &parts, None, &mut Counted::default()).await?;
    }
    loop {
        let rows = end_due(pool, bound).await?;
        if rows == 0 {
            return Ok(ended);
        }
        ended += rows;
    }
}

/// Parts of old events, as changes that end each of their deliveries.
async fn old_parts(pool: &PgPool, bound: Uuid) -> Result<Vec<Change>, LedgerError> {
    let rows: Vec<(Uuid, Uuid, i32, i32, Vec<u8>)> = sqlx::query_as(
        "SELECT o.tenant, o.event, o.part, o.gen,
                substring(e.targets FROM 1 + 32 * o.first_target FOR 32 * o.target_count)
         FROM outbox o
         CROSS JOIN LATERAL (SELECT targets FROM events WHERE tenant = o.tenant AND id = o.event OFFSET 0) e
         WHERE o.event < $1 ORDER BY o.event LIMIT $2",
    )
    .bind(bound)
    .bind(PARTS_PER_STEP)
    .fetch_all(pool)
    .await?;
    let changes = rows.into_iter().map(|(tenant, event, part, r#gen, targets)| {
        let (tenant, event) = (TenantId(tenant), EventId(event));
        let results = targets_of(&targets)?
            .into_iter()
            .map(|target| DeliveryResult {
                key: DeliveryKey::new(tenant, event, target),
                attempt: None,
                next: Next::Dead(EndReason::Retention),
            })
            .collect();
        Ok(Change::Part { event, tenant, part: count(part)?, r#gen: count(r#gen)?, results })
    });
    changes.collect()
}

/// Whoever holds one of them finds its hold gone.
async fn end_due(pool: &PgPool, bound: Uuid) -> Result<u64, LedgerError> {
    let ended: i64 = sqlx::query_scalar(
        "WITH old AS MATERIALIZED (
             SELECT delivery FROM due WHERE delivery < $1 ORDER BY delivery LIMIT $2 FOR UPDATE),
         ended AS (
             UPDATE deliveries SET state = 2, reason = 'retention' WHERE id = ANY(ARRAY(SELECT delivery FROM old))),
         gone AS (DELETE FROM due WHERE delivery = ANY(ARRAY(SELECT delivery FROM old)))
         SELECT count(*) FROM old",
    )
    .bind(bound)
    .bind(i64::from(HOUSEKEEPING_ROWS_MAX))
    .fetch_one(pool)
    .await?;
    count(ended)
}

/// Whether anything before an identity is unfinished.
pub(super) async fn is_unfinished_before(
    transaction: &mut Transaction<'_, Postgres>,
    bound: Uuid,
) -> Result<bool, LedgerError> {
    Ok(sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM outbox WHERE event < $1) OR EXISTS (SELECT FROM due WHERE delivery < $1)",
    )
    .bind(bound)
    .fetch_one(&mut **transaction)
    .await?)
}

/// Removes old rows from the default partitions, which the caller has locked, all at once: the balance of a tenant
/// never sees its events without their deliveries.
pub(super) async fn empty_defaults(
    transaction: &mut Transaction<'_, Postgres>,
    bound: Uuid,
) -> Result<(), LedgerError> {
    for statement in [
        "DELETE FROM attempts_default WHERE delivery < $1",
        "DELETE FROM deliveries_default WHERE id < $1",
        "DELETE FROM events_default WHERE id < $1",
    ] {
        sqlx::query(statement).bind(bound).execute(&mut **transaction).await?;
    }
    Ok(())
}
