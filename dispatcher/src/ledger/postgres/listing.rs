//! Reading deliveries and attempts, in pages by identity.
//!
//! A delivery whose part is still in the outbox has no row; a page merges both, in one snapshot, so that none is
//! missing or there twice while it moves from one to the other.

mod outbox;

use std::time::Duration;

use bytes::Bytes;
use dispatcher_core::delivery::{Attempt, DeliveryKey, DeliveryState, Target};
use dispatcher_core::id::{DeliveryId, EndpointId, EventId, SubscriptionId, TenantId};
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgPool, Postgres, Row as _, Transaction};
use uuid::Uuid;

use super::encode::{self, count, state_number};
use super::events::targets_of;
use super::{AttemptRecord, DeliveryQuery, DeliveryRecord, LedgerError, Page};
use crate::ledger::paging::{before, page};

const COLUMNS: &str = "SELECT d.id, d.tenant, d.event, d.subscription, d.endpoint, d.state, d.reason, d.run,
        d.attempts, d.last_outcome, d.last_status_code, e.event_type,
        floor(extract(epoch FROM q.due_at) * 1000)::int8 AS due_at_ms ";
const JOINS: &str = "
        LEFT JOIN due q ON q.delivery = d.id
        LEFT JOIN events e ON e.tenant = d.tenant AND e.id = d.event ";

async fn snapshot(pool: &PgPool) -> Result<Transaction<'static, Postgres>, LedgerError> {
    Ok(pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?)
}

/// A page of deliveries; see [`crate::ledger::Ledger::deliveries`].
pub(super) async fn deliveries(
    pool: &PgPool,
    tenant: TenantId,
    query: &DeliveryQuery,
) -> Result<Page<DeliveryRecord>, LedgerError> {
    let mut snapshot = snapshot(pool).await?;
    let mut records = match query.event {
        Some(event) => of_event(&mut snapshot, tenant, event, query).await?,
        None => with_rows(&mut snapshot, tenant, query).await?,
    };
    if query.state.is_none_or(|state| state == DeliveryState::Open) {
        records.extend(outbox::deliveries(&mut snapshot, tenant, query).await?);
    }
    snapshot.commit().await?;
    records.sort_unstable_by_key(|record| std::cmp::Reverse(record.key.delivery));
    Ok(page(records, query.rows_max, |record| record.key.delivery.0))
}

/// Deliveries of an event: their identities follow from its targets, so no index is needed.
async fn of_event(
    snapshot: &mut Transaction<'_, Postgres>,
    tenant: TenantId,
    event: EventId,
    query: &DeliveryQuery,
) -> Result<Vec<DeliveryRecord>, LedgerError> {
    let targets: Option<Vec<u8>> = sqlx::query_scalar("SELECT targets FROM events WHERE tenant = $1 AND id = $2")
        .bind(tenant.0)
        .bind(event.0)
        .fetch_optional(&mut **snapshot)
        .await?;
    let Some(targets) = targets else { return Ok(Vec::new()) };
    let before = before(query.after);
    let ids: Vec<Uuid> = targets_of(&targets)?
        .into_iter()
        .filter(|target| query.endpoint.is_none_or(|endpoint| endpoint == target.endpoint))
        .map(|target| target.delivery(event).0)
        .filter(|id| *id < before)
        .collect();
    let rows = sqlx::query(AssertSqlSafe(format!(
        "{COLUMNS} FROM deliveries d {JOINS}
         WHERE d.id = ANY($1) AND d.tenant = $2 AND ($3::int2 IS NULL OR d.state = $3)
         ORDER BY d.id DESC LIMIT $4"
    )))
    .bind(&ids)
    .bind(tenant.0)
    .bind(query.state.map(state_number))
    .bind(i64::from(query.rows_max) + 1)
    .fetch_all(&mut **snapshot)
    .await?;
    rows.iter().map(delivery_record).collect()
}

/// Deliveries of a tenant, by the index that fits the question; `IS TRUE` keeps the planner from another one. The
/// partial indexes leave out what was delivered.
async fn with_rows(
    snapshot: &mut Transaction<'_, Postgres>,
    tenant: TenantId,
    query: &DeliveryQuery,
) -> Result<Vec<DeliveryRecord>, LedgerError> {
    let unfinished = query.state.is_some_and(|state| state != DeliveryState::Delivered);
    let condition = match (query.endpoint.is_some(), unfinished) {
        (true, true) => "d.endpoint = $1 AND d.state = $3 AND d.state <> 1 AND (d.tenant = $2) IS TRUE",
        (true, false) => "d.endpoint = $1 AND (d.tenant = $2) IS TRUE AND ($3::int2 IS NULL OR (d.state = $3) IS TRUE)",
        (false, true) => "d.tenant = $2 AND d.state = $3 AND d.state <> 1 AND $1::uuid IS NULL",
        (false, false) => "d.tenant = $2 AND ($3::int2 IS NULL OR (d.state = $3) IS TRUE) AND $1::uuid IS NULL",
    };
    let rows = sqlx::query(AssertSqlSafe(format!(
        "{COLUMNS} FROM deliveries d {JOINS} WHERE {condition} AND d.id < $4 AND uuid_send(d.id) < uuid_send($4)
         ORDER BY uuid_send(d.id) DESC LIMIT $5"
    )))
    .bind(query.endpoint.map(|endpoint| endpoint.0))
    .bind(tenant.0)
    .bind(query.state.map(state_number))
    .bind(before(query.after))
    .bind(i64::from(query.rows_max) + 1)
    .fetch_all(&mut **snapshot)
    .await?;
    rows.iter().map(delivery_record).collect()
}

fn delivery_record(row: &PgRow) -> Result<DeliveryRecord, LedgerError> {
    let target = Target {
        subscription: SubscriptionId(row.try_get("subscription")?),
        endpoint: EndpointId(row.try_get("endpoint")?),
    };
    let due_at_ms: Option<i64> = row.try_get("due_at_ms")?;
    let status_code: Option<i16> = row.try_get("last_status_code")?;
    Ok(DeliveryRecord {
        key: DeliveryKey {
            delivery: DeliveryId(row.try_get("id")?),
            tenant: TenantId(row.try_get("tenant")?),
            event: EventId(row.try_get("event")?),
            target,
        },
        event_type: row.try_get::<Option<String>, _>("event_type")?.unwrap_or_default(),
        state: encode::state(row.try_get("state")?)?,
        reason: encode::variant(row.try_get("reason")?)?,
        run: count(row.try_get::<i32, _>("run")?)?,
        attempts: count(row.try_get::<i32, _>("attempts")?)?,
        due_at_unix_ms: due_at_ms.map(count).transpose()?,
        last_outcome: encode::variant(row.try_get("last_outcome")?)?,
        last_status_code: status_code.map(count).transpose()?,
    })
}

/// One delivery, with a row or in the outbox.
pub(super) async fn delivery(
    pool: &PgPool,
    tenant: TenantId,
    delivery: DeliveryId,
) -> Result<Option<DeliveryRecord>, LedgerError> {
    let mut snapshot = snapshot(pool).await?;
    let row =
        sqlx::query(AssertSqlSafe(format!("{COLUMNS} FROM deliveries d {JOINS} WHERE d.id = $1 AND d.tenant = $2")))
            .bind(delivery.0)
            .bind(tenant.0)
            .fetch_optional(&mut *snapshot)
            .await?;
    let record = match row {
        Some(row) => delivery_record(&row).map(Some),
        None => outbox::delivery(&mut snapshot, tenant, delivery).await,
    };
    snapshot.commit().await?;
    record
}

/// Attempts of a delivery; see [`crate::ledger::Ledger::attempts`].
pub(super) async fn attempts(
    pool: &PgPool,
    tenant: TenantId,
    delivery: DeliveryId,
    rows_max: u32,
) -> Result<Vec<AttemptRecord>, LedgerError> {
    if self::delivery(pool, tenant, delivery).await?.is_none() {
        return Ok(Vec::new());
    }
    let rows = sqlx::query(
        "SELECT run, number, superseded, floor(extract(epoch FROM started_at) * 1000)::int8 AS started_ms, duration_us,
                outcome, status_code, excerpt
         FROM (SELECT run, number, gen, superseded, started_at, duration_us, outcome, status_code, excerpt
               FROM attempts WHERE delivery = $1
               UNION ALL
               SELECT 1, 1, 1, false, first_started_at, first_duration_us, first_outcome, first_status_code,
                      first_excerpt
               FROM deliveries WHERE id = $1 AND first_outcome IS NOT NULL AND NOT EXISTS (
                   SELECT FROM attempts WHERE delivery = $1 AND run = 1 AND of_part AND gen = 1)) a
         ORDER BY run DESC, number DESC, started_at DESC, gen DESC LIMIT $2",
    )
    .bind(delivery.0)
    .bind(i64::from(rows_max))
    .fetch_all(pool)
    .await?;
    rows.iter().rev().map(attempt_record).collect()
}

fn attempt_record(row: &PgRow) -> Result<AttemptRecord, LedgerError> {
    let status_code: Option<i16> = row.try_get("status_code")?;
    let outcome = encode::variant(row.try_get("outcome")?)?;
    let attempt = Attempt {
        number: count(row.try_get::<i32, _>("number")?)?,
        started_at_unix_ms: count(row.try_get::<i64, _>("started_ms")?)?,
        duration: Duration::from_micros(count(row.try_get::<i64, _>("duration_us")?)?),
        outcome: outcome.ok_or_else(|| encode::refused("an attempt in the ledger has no outcome"))?,
        status_code: status_code.map(count).transpose()?,
        excerpt: Bytes::from(row.try_get::<Vec<u8>, _>("excerpt")?),
    };
    let run = count(row.try_get::<i32, _>("run")?)?;
    Ok(AttemptRecord { run, attempt, superseded: row.try_get("superseded")? })
}
