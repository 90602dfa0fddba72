//! Reading events, deliveries and attempts, in pages by identity.
//!
//! A delivery whose part is still in the outbox has no row; a page merges both, in one snapshot, so that none is
//! missing or there twice while it moves from one to the other.

mod outbox;

use std::time::Duration;

use bytes::Bytes;
use dispatcher_core::delivery::{Attempt, DeliveryKey, DeliveryState, Target};
use dispatcher_core::event::{Attributes, Event};
use dispatcher_core::id::{DeliveryId, EndpointId, EventId, SubscriptionId, TenantId};
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Row as _, Sqlite, SqlitePool, Transaction};

use super::encode::{self, Hex, blob, count, state_number, uuid};
use super::{AttemptRecord, DeliveryQuery, DeliveryRecord, EventQuery, EventRecord, LedgerError, Page};
use crate::ledger::paging::{before, page};

/// Reads an event from columns of their own names; a missing `body` reads as empty.
pub(super) fn event_of(row: &SqliteRow) -> Result<Event, LedgerError> {
    let attributes: &str = row.try_get("attributes")?;
    let [attributes]: [Attributes; 1] = serde_json::from_str(attributes)
        .map_err(|_| encode::refused("the attributes of an event in the ledger cannot be read"))?;
    Ok(Event {
        id: EventId(uuid(row.try_get("id")?)?),
        tenant: TenantId(uuid(row.try_get("tenant")?)?),
        event_type: row.try_get("event_type")?,
        recipient: row.try_get("recipient")?,
        content_type: row.try_get("content_type")?,
        body: Bytes::from(row.try_get::<Vec<u8>, _>("body")?),
        attributes,
    })
}

/// Reads a slice of an event's targets.
pub(super) fn targets_of(bytes: &[u8]) -> Result<Vec<Target>, LedgerError> {
    bytes
        .chunks(32)
        .map(|target| {
            let (subscription, endpoint) = target.split_at_checked(16).unwrap_or((target, &[]));
            Ok(Target { subscription: SubscriptionId(uuid(subscription)?), endpoint: EndpointId(uuid(endpoint)?) })
        })
        .collect()
}

/// A page of events; see [`crate::ledger::Ledger::events`].
pub(super) async fn events(
    readers: &SqlitePool,
    tenant: TenantId,
    query: &EventQuery,
) -> Result<Page<EventRecord>, LedgerError> {
    const PAGE: &str = "SELECT tenant, id, event_type, recipient, content_type, attributes, fanout_count,
                               x'' AS body, length(body) AS body_bytes
                        FROM events WHERE tenant = ?1 AND id < ?2 ";
    let by_type = if query.event_type.is_some() { "AND event_type = ?4 " } else { "" };
    let rows = sqlx::query(AssertSqlSafe(format!("{PAGE}{by_type}ORDER BY id DESC LIMIT ?3")))
        .bind(blob(tenant.0))
        .bind(blob(before(query.after)))
        .bind(i64::from(query.rows_max) + 1)
        .bind(query.event_type.as_deref())
        .fetch_all(readers)
        .await?;
    let records = rows.iter().map(event_record).collect::<Result<Vec<_>, _>>()?;
    Ok(page(records, query.rows_max, |record| record.event.id.0))
}

/// One event with its body.
pub(super) async fn event(
    readers: &SqlitePool,
    tenant: TenantId,
    event: EventId,
) -> Result<Option<EventRecord>, LedgerError> {
    let row = sqlx::query(
        "SELECT tenant, id, event_type, recipient, content_type, attributes, fanout_count, body,
                length(body) AS body_bytes
         FROM events WHERE tenant = ?1 AND id = ?2",
    )
    .bind(blob(tenant.0))
    .bind(blob(event.0))
    .fetch_optional(readers)
    .await?;
    row.as_ref().map(event_record).transpose()
}

fn event_record(row: &SqliteRow) -> Result<EventRecord, LedgerError> {
    let fanout_count = count(row.try_get("fanout_count")?)?;
    let body_bytes = count(row.try_get("body_bytes")?)?;
    Ok(EventRecord { event: event_of(row)?, fanout_count, body_bytes })
}

const DELIVERY_COLUMNS: &str = "SELECT d.id, d.tenant, d.event, d.subscription, d.endpoint, d.state, d.reason, d.run,
        d.attempts, d.last_outcome, d.last_status_code, q.due_at, e.event_type ";
const DELIVERY_JOINS: &str = "
        LEFT JOIN due q ON q.delivery = d.id
        LEFT JOIN events e ON e.tenant = d.tenant AND e.id = d.event ";

/// A page of deliveries; see [`crate::ledger::Ledger::deliveries`].
pub(super) async fn deliveries(
    readers: &SqlitePool,
    tenant: TenantId,
    query: &DeliveryQuery,
) -> Result<Page<DeliveryRecord>, LedgerError> {
    let mut snapshot = readers.begin().await?;
    let mut records = match query.event {
        Some(event) => of_event(&mut snapshot, tenant, event, query).await?,
        None => with_rows(&mut snapshot, tenant, query).await?,
    };
    if query.state.is_none_or(|state| state == DeliveryState::Open) {
        records.extend(outbox::deliveries(&mut snapshot, tenant, query).await?);
    }
    records.sort_unstable_by_key(|record| std::cmp::Reverse(record.key.delivery));
    Ok(page(records, query.rows_max, |record| record.key.delivery.0))
}

/// Deliveries of an event: their identities follow from its targets, so no index is needed.
async fn of_event(
    snapshot: &mut Transaction<'_, Sqlite>,
    tenant: TenantId,
    event: EventId,
    query: &DeliveryQuery,
) -> Result<Vec<DeliveryRecord>, LedgerError> {
    let row = sqlx::query("SELECT targets FROM events WHERE tenant = ?1 AND id = ?2")
        .bind(blob(tenant.0))
        .bind(blob(event.0))
        .fetch_optional(&mut **snapshot)
        .await?;
    let Some(row) = row else { return Ok(Vec::new()) };
    let before = before(query.after);
    let ids: Vec<_> = targets_of(row.try_get("targets")?)?
        .into_iter()
        .filter(|target| query.endpoint.is_none_or(|endpoint| endpoint == target.endpoint))
        .map(|target| target.delivery(event).0)
        .filter(|id| *id < before)
        .map(|id| [Hex(id)])
        .collect();
    let rows = sqlx::query(AssertSqlSafe(format!(
        "{DELIVERY_COLUMNS} FROM json_each(?1) j CROSS JOIN deliveries d ON d.id = unhex(j.value->>0) {DELIVERY_JOINS}
         WHERE d.tenant = ?2 AND (?3 IS NULL OR d.state = ?3) ORDER BY d.id DESC LIMIT ?4"
    )))
    .bind(encode::rows(&ids)?)
    .bind(blob(tenant.0))
    .bind(query.state.map(state_number))
    .bind(i64::from(query.rows_max) + 1)
    .fetch_all(&mut **snapshot)
    .await?;
    rows.iter().map(delivery_record).collect()
}

/// Deliveries of a tenant, by the index that fits the question. The partial indexes leave out what was delivered.
async fn with_rows(
    snapshot: &mut Transaction<'_, Sqlite>,
    tenant: TenantId,
    query: &DeliveryQuery,
) -> Result<Vec<DeliveryRecord>, LedgerError> {
    let unfinished = query.state.is_some_and(|state| state != DeliveryState::Delivered);
    let (index, condition) = match (query.endpoint.is_some(), unfinished) {
        (true, true) => ("deliveries_by_endpoint_state", "d.endpoint = ?1 AND d.state = ?3 AND d.state <> 1"),
        (true, false) => ("deliveries_by_endpoint", "d.endpoint = ?1"),
        (false, true) => ("deliveries_by_tenant_state", "d.tenant = ?2 AND d.state = ?3 AND d.state <> 1"),
        (false, false) => ("deliveries_by_tenant", "d.tenant = ?2"),
    };
    let rows = sqlx::query(AssertSqlSafe(format!(
        "{DELIVERY_COLUMNS} FROM deliveries d INDEXED BY {index} {DELIVERY_JOINS}
         WHERE {condition} AND d.id < ?4 AND +d.tenant = ?2 AND (?3 IS NULL OR +d.state = ?3)
         ORDER BY d.id DESC LIMIT ?5"
    )))
    .bind(query.endpoint.map(|endpoint| blob(endpoint.0)))
    .bind(blob(tenant.0))
    .bind(query.state.map(state_number))
    .bind(blob(before(query.after)))
    .bind(i64::from(query.rows_max) + 1)
    .fetch_all(&mut **snapshot)
    .await?;
    rows.iter().map(delivery_record).collect()
}

fn delivery_record(row: &SqliteRow) -> Result<DeliveryRecord, LedgerError> {
    let target = Target {
        subscription: SubscriptionId(uuid(row.try_get("subscription")?)?),
        endpoint: EndpointId(uuid(row.try_get("endpoint")?)?),
    };
    let due_at: Option<i64> = row.try_get("due_at")?;
    let status_code: Option<i64> = row.try_get("last_status_code")?;
    Ok(DeliveryRecord {
        key: DeliveryKey {
            delivery: DeliveryId(uuid(row.try_get("id")?)?),
            tenant: TenantId(uuid(row.try_get("tenant")?)?),
            event: EventId(uuid(row.try_get("event")?)?),
            target,
        },
        event_type: row.try_get::<Option<String>, _>("event_type")?.unwrap_or_default(),
        state: encode::state(row.try_get("state")?)?,
        reason: encode::variant(row.try_get("reason")?)?,
        run: count(row.try_get("run")?)?,
        attempts: count(row.try_get("attempts")?)?,
        due_at_unix_ms: due_at.map(count).transpose()?,
        last_outcome: encode::variant(row.try_get("last_outcome")?)?,
        last_status_code: status_code.map(count).transpose()?,
    })
}

/// One delivery, with a row or in the outbox.
pub(super) async fn delivery(
    readers: &SqlitePool,
    tenant: TenantId,
    delivery: DeliveryId,
) -> Result<Option<DeliveryRecord>, LedgerError> {
    let mut snapshot = readers.begin().await?;
    let row = sqlx::query(AssertSqlSafe(format!(
        "{DELIVERY_COLUMNS} FROM deliveries d {DELIVERY_JOINS} WHERE d.id = ?1 AND d.tenant = ?2"
    )))
    .bind(blob(delivery.0))
    .bind(blob(tenant.0))
    .fetch_optional(&mut *snapshot)
    .await?;
    match row {
        Some(row) => delivery_record(&row).map(Some),
        None => outbox::delivery(&mut snapshot, tenant, delivery).await,
    }
}

/// Attempts of a delivery; see [`crate::ledger::Ledger::attempts`].
pub(super) async fn attempts(
    readers: &SqlitePool,
    tenant: TenantId,
    delivery: DeliveryId,
    rows_max: u32,
) -> Result<Vec<AttemptRecord>, LedgerError> {
    if self::delivery(readers, tenant, delivery).await?.is_none() {
        return Ok(Vec::new());
    }
    let rows = sqlx::query(
        "SELECT run, number, superseded, started_at, duration_us, outcome, status_code, excerpt FROM attempts
         WHERE delivery = ?1 ORDER BY run DESC, number DESC, started_at DESC, gen DESC LIMIT ?2",
    )
    .bind(blob(delivery.0))
    .bind(rows_max)
    .fetch_all(readers)
    .await?;
    rows.iter().rev().map(attempt_record).collect()
}

fn attempt_record(row: &SqliteRow) -> Result<AttemptRecord, LedgerError> {
    let status_code: Option<i64> = row.try_get("status_code")?;
    let outcome = encode::variant(row.try_get("outcome")?)?;
    let attempt = Attempt {
        number: count(row.try_get("number")?)?,
        started_at_unix_ms: count(row.try_get("started_at")?)?,
        duration: Duration::from_micros(count(row.try_get("duration_us")?)?),
        outcome: outcome.ok_or_else(|| encode::refused("an attempt in the ledger has no outcome"))?,
        status_code: status_code.map(count).transpose()?,
        excerpt: Bytes::from(row.try_get::<Vec<u8>, _>("excerpt")?),
    };
    Ok(AttemptRecord { run: count(row.try_get("run")?)?, attempt, superseded: row.try_get("superseded")? })
}
