//! Deliveries that are still in the outbox: their identities are computed from the targets of their parts.

use dispatcher_core::id::{DeliveryId, EventId, TenantId};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, Sqlite, Transaction};

use super::targets_of;
use crate::ledger::paging::{before, first_of_its_time, is_wanted, last_of_its_time, of_part};
use crate::ledger::sqlite::encode::{blob, uuid};
use crate::ledger::{DeliveryQuery, DeliveryRecord, LedgerError};

/// At least one more than the page's deliveries, if there are as many, newest first in time.
///
/// Deliveries of the same millisecond are ordered by hash, so a millisecond is read whole or not at all: that of
/// the cursor, and then as many events as could fill the page, with all others of the oldest one's millisecond.
pub(super) async fn deliveries(
    snapshot: &mut Transaction<'_, Sqlite>,
    tenant: TenantId,
    query: &DeliveryQuery,
) -> Result<Vec<DeliveryRecord>, LedgerError> {
    let before = before(query.after);
    let rows = sqlx::query(
        "WITH wanted AS NOT MATERIALIZED (
             SELECT o.event, e.event_type,
                    substr(e.targets, 1 + 32 * o.first_target, 32 * o.target_count) AS targets
             FROM outbox o INDEXED BY outbox_by_tenant
             CROSS JOIN events e ON e.tenant = o.tenant AND e.id = o.event
             WHERE o.tenant = ?1 AND (?2 IS NULL OR o.event = ?2)),
         older AS (
             SELECT event FROM wanted WHERE event < ?4 AND (?3 IS NULL OR instr(targets, ?3) > 0)
             ORDER BY event DESC LIMIT ?6)
         SELECT event, event_type, targets FROM wanted
         WHERE event <= ?5 AND event >= coalesce((SELECT substr(min(event), 1, 6) FROM older), ?4)
           AND (?3 IS NULL OR instr(targets, ?3) > 0)",
    )
    .bind(blob(tenant.0))
    .bind(query.event.map(|event| blob(event.0)))
    .bind(query.endpoint.map(|endpoint| blob(endpoint.0)))
    .bind(blob(first_of_its_time(before)))
    .bind(blob(last_of_its_time(before)))
    .bind(i64::from(query.rows_max) + 1)
    .fetch_all(&mut **snapshot)
    .await?;
    let mut records = Vec::new();
    for row in &rows {
        records.extend(part_records(row, tenant)?.filter(|record| is_wanted(record, query)));
    }
    Ok(records)
}

/// One delivery: only the parts of events of its own time can hold it.
pub(super) async fn delivery(
    snapshot: &mut Transaction<'_, Sqlite>,
    tenant: TenantId,
    delivery: DeliveryId,
) -> Result<Option<DeliveryRecord>, LedgerError> {
    let rows = sqlx::query(
        "SELECT o.event, e.event_type,
                substr(e.targets, 1 + 32 * o.first_target, 32 * o.target_count) AS targets
         FROM outbox o INDEXED BY outbox_by_tenant
         CROSS JOIN events e ON e.tenant = o.tenant AND e.id = o.event
         WHERE o.tenant = ?1 AND o.event BETWEEN ?2 AND ?3",
    )
    .bind(blob(tenant.0))
    .bind(blob(first_of_its_time(delivery.0)))
    .bind(blob(last_of_its_time(delivery.0)))
    .fetch_all(&mut **snapshot)
    .await?;
    for row in &rows {
        if let Some(record) = part_records(row, tenant)?.find(|record| record.key.delivery == delivery) {
            return Ok(Some(record));
        }
    }
    Ok(None)
}

fn part_records(row: &SqliteRow, tenant: TenantId) -> Result<impl Iterator<Item = DeliveryRecord>, LedgerError> {
    let event = EventId(uuid(row.try_get("event")?)?);
    Ok(of_part(tenant, event, row.try_get("event_type")?, targets_of(row.try_get("targets")?)?))
}
