//! Deliveries that are still in the outbox: their identities are computed from the targets of their parts.

use dispatcher_core::delivery::{DeliveryKey, DeliveryState};
use dispatcher_core::id::{DeliveryId, EventId, TenantId};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, Sqlite, Transaction};
use uuid::Uuid;

use super::targets_of;
use crate::ledger::sqlite::encode::{blob, uuid};
use crate::ledger::{DeliveryQuery, DeliveryRecord, LedgerError};

/// Bytes of an event's identity that its deliveries share: the time.
const TIME_BYTES: usize = 6;

/// At least one more than the page's deliveries, if there are as many, newest first in time.
///
/// Deliveries of the same millisecond are ordered by hash, so a millisecond is read whole or not at all: that of
/// `before`, and then as many events as could fill the page, with all others of the oldest one's millisecond.
pub(super) async fn deliveries(
    snapshot: &mut Transaction<'_, Sqlite>,
    tenant: TenantId,
    query: &DeliveryQuery,
    before: Uuid,
) -> Result<Vec<DeliveryRecord>, LedgerError> {
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
    .bind(before.as_bytes()[..TIME_BYTES].to_vec())
    .bind(last_of_its_time(before))
    .bind(i64::from(query.rows_max) + 1)
    .fetch_all(&mut **snapshot)
    .await?;
    let mut records = Vec::new();
    for row in &rows {
        let wanted = |record: &DeliveryRecord| {
            record.key.delivery.0 < before
                && query.endpoint.is_none_or(|endpoint| endpoint == record.key.target.endpoint)
        };
        records.extend(part_records(row, tenant)?.into_iter().filter(wanted));
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
    .bind(delivery.0.as_bytes()[..TIME_BYTES].to_vec())
    .bind(last_of_its_time(delivery.0))
    .fetch_all(&mut **snapshot)
    .await?;
    for row in &rows {
        let mut records = part_records(row, tenant)?.into_iter();
        if let Some(record) = records.find(|record| record.key.delivery == delivery) {
            return Ok(Some(record));
        }
    }
    Ok(None)
}

/// The highest identity that carries the same time.
fn last_of_its_time(id: Uuid) -> Vec<u8> {
    let mut bytes = [0xff; 16];
    bytes[..TIME_BYTES].copy_from_slice(&id.as_bytes()[..TIME_BYTES]);
    bytes.to_vec()
}

fn part_records(row: &SqliteRow, tenant: TenantId) -> Result<Vec<DeliveryRecord>, LedgerError> {
    let event = EventId(uuid(row.try_get("event")?)?);
    let event_type: &str = row.try_get("event_type")?;
    let targets = targets_of(row.try_get("targets")?)?;
    Ok(targets
        .into_iter()
        .map(|target| DeliveryRecord {
            key: DeliveryKey::new(tenant, event, target),
            event_type: event_type.to_owned(),
            state: DeliveryState::Open,
            reason: None,
            run: 1,
            attempts: 0,
            due_at_unix_ms: None,
            last_outcome: None,
            last_status_code: None,
        })
        .collect())
}
