//! Deliveries that are still in the outbox: their identities are computed from the targets of their parts.

use dispatcher_core::id::{DeliveryId, EventId, TenantId};
use sqlx::{Postgres, Transaction};
use uuid::Uuid;

use crate::ledger::paging::{before, first_of_its_time, is_wanted, last_of_its_time, of_part};
use crate::ledger::postgres::events::targets_of;
use crate::ledger::{DeliveryQuery, DeliveryRecord, LedgerError};

/// A part's event, its type, and its slice of targets.
type PartRow = (Uuid, String, Vec<u8>);

/// At least one more than the page's deliveries, if there are as many, newest first in time.
///
/// Deliveries of the same millisecond are ordered by hash, so a millisecond is read whole or not at all: that of
/// the cursor, and then as many events as could fill the page, with all others of the oldest one's millisecond.
pub(super) async fn deliveries(
    snapshot: &mut Transaction<'_, Postgres>,
    tenant: TenantId,
    query: &DeliveryQuery,
) -> Result<Vec<DeliveryRecord>, LedgerError> {
    let before = before(query.after);
    let endpoint = query.endpoint.map(|endpoint| endpoint.0.as_bytes().to_vec());
    let oldest: Option<Uuid> = sqlx::query_scalar(
        "SELECT event FROM (
             SELECT o.event FROM outbox o
             WHERE o.tenant = $1 AND uuid_send(o.event) < uuid_send($2) AND ($3::uuid IS NULL OR o.event = $3)
               AND ($4::bytea IS NULL OR EXISTS (
                   SELECT FROM events e WHERE e.tenant = o.tenant AND e.id = o.event
                   AND position($4 IN substring(e.targets FROM 1 + 32 * o.first_target FOR 32 * o.target_count)) > 0))
             ORDER BY uuid_send(o.event) DESC LIMIT $5) older
         ORDER BY event LIMIT 1",
    )
    .bind(tenant.0)
    .bind(first_of_its_time(before))
    .bind(query.event.map(|event| event.0))
    .bind(&endpoint)
    .bind(i64::from(query.rows_max) + 1)
    .fetch_optional(&mut **snapshot)
    .await?;
    let rows: Vec<PartRow> = sqlx::query_as(
        "SELECT o.event, e.event_type,
                substring(e.targets FROM 1 + 32 * o.first_target FOR 32 * o.target_count)
         FROM outbox o CROSS JOIN LATERAL (
             SELECT event_type, targets FROM events WHERE tenant = o.tenant AND id = o.event OFFSET 0) e
         WHERE o.tenant = $1 AND uuid_send(o.event) BETWEEN uuid_send($2) AND uuid_send($3) AND ($4::uuid IS NULL OR o.event = $4)
           AND ($5::bytea IS NULL OR
                position($5 IN substring(e.targets FROM 1 + 32 * o.first_target FOR 32 * o.target_count)) > 0)",
    )
    .bind(tenant.0)
    .bind(first_of_its_time(oldest.unwrap_or(before)))
    .bind(last_of_its_time(before))
    .bind(query.event.map(|event| event.0))
    .bind(&endpoint)
    .fetch_all(&mut **snapshot)
    .await?;
    let mut records = Vec::new();
    for row in rows {
        records.extend(part_records(row, tenant)?.filter(|record| is_wanted(record, query)));
    }
    Ok(records)
}

/// One delivery: only the parts of events of its own time can hold it.
pub(super) async fn delivery(
    snapshot: &mut Transaction<'_, Postgres>,
    tenant: TenantId,
    delivery: DeliveryId,
) -> Result<Option<DeliveryRecord>, LedgerError> {
    let rows: Vec<PartRow> = sqlx::query_as(
        "SELECT o.event, e.event_type,
                substring(e.targets FROM 1 + 32 * o.first_target FOR 32 * o.target_count)
         FROM outbox o CROSS JOIN LATERAL (
             SELECT event_type, targets FROM events WHERE tenant = o.tenant AND id = o.event OFFSET 0) e
         WHERE o.tenant = $1 AND uuid_send(o.event) BETWEEN uuid_send($2) AND uuid_send($3)",
    )
    .bind(tenant.0)
    .bind(first_of_its_time(delivery.0))
    .bind(last_of_its_time(delivery.0))
    .fetch_all(&mut **snapshot)
    .await?;
    for row in rows {
        if let Some(record) = part_records(row, tenant)?.find(|record| record.key.delivery == delivery) {
            return Ok(Some(record));
        }
    }
    Ok(None)
}

fn part_records(row: PartRow, tenant: TenantId) -> Result<impl Iterator<Item = DeliveryRecord>, LedgerError> {
    let (event, event_type, targets) = row;
    Ok(of_part(tenant, EventId(event), event_type, targets_of(&targets)?))
}
