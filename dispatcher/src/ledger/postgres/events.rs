//! Reading events, alone, in pages, and for claimed work.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use dispatcher_core::delivery::Target;
use dispatcher_core::event::{Attributes, Event};
use dispatcher_core::id::{EndpointId, EventId, SubscriptionId, TenantId};
use dispatcher_core::table::TableVersion;
use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row as _};
use uuid::Uuid;

use super::encode::{self, count};
use super::{EventQuery, EventRecord, LedgerError, Page};
use crate::ledger::claiming::Found;
use crate::ledger::paging::{before, page};

/// A page of events; see [`crate::ledger::Ledger::events`].
pub(super) async fn events(
    pool: &PgPool,
    tenant: TenantId,
    query: &EventQuery,
) -> Result<Page<EventRecord>, LedgerError> {
    let statement = match &query.event_type {
        None => sqlx::query(
            "SELECT tenant, id, event_type, recipient, content_type, attributes, fanout_count, ''::bytea AS body,
                        length(body) AS body_bytes
                 FROM events WHERE tenant = $1 AND id < $2 ORDER BY id DESC LIMIT $3",
        ),
        Some(_) => sqlx::query(
            "SELECT tenant, id, event_type, recipient, content_type, attributes, fanout_count, ''::bytea AS body,
                        length(body) AS body_bytes
                 FROM events WHERE tenant = $1 AND id < $2 AND event_type = $4 AND uuid_send(id) < uuid_send($2)
                 ORDER BY uuid_send(id) DESC LIMIT $3",
        ),
    };
    let statement = statement.bind(tenant.0).bind(before(query.after)).bind(i64::from(query.rows_max) + 1);
    let statement = match &query.event_type {
        None => statement,
        Some(event_type) => statement.bind(event_type),
    };
    let rows = statement.fetch_all(pool).await?;
    let records = rows.iter().map(event_record).collect::<Result<Vec<_>, _>>()?;
    Ok(page(records, query.rows_max, |record| record.event.id.0))
}

/// One event with its body.
pub(super) async fn event(pool: &PgPool, tenant: TenantId, event: EventId) -> Result<Option<EventRecord>, LedgerError> {
    let row = sqlx::query(
        "SELECT tenant, id, event_type, recipient, content_type, attributes, fanout_count, body,
                length(body) AS body_bytes
         FROM events WHERE tenant = $1 AND id = $2",
    )
    .bind(tenant.0)
    .bind(event.0)
    .fetch_optional(pool)
    .await?;
    row.as_ref().map(event_record).transpose()
}

fn event_record(row: &PgRow) -> Result<EventRecord, LedgerError> {
    let fanout_count = count(row.try_get::<i32, _>("fanout_count")?)?;
    let body_bytes = count(row.try_get::<i32, _>("body_bytes")?)?;
    Ok(EventRecord { event: event_of(row)?, fanout_count, body_bytes })
}

fn event_of(row: &PgRow) -> Result<Event, LedgerError> {
    let attributes: Attributes = serde_json::from_str(row.try_get("attributes")?)
        .map_err(|_| encode::refused("the attributes of an event in the ledger cannot be read"))?;
    Ok(Event {
        id: EventId(row.try_get("id")?),
        tenant: TenantId(row.try_get("tenant")?),
        event_type: row.try_get("event_type")?,
        recipient: row.try_get("recipient")?,
        content_type: row.try_get("content_type")?,
        body: Bytes::from(row.try_get::<Vec<u8>, _>("body")?),
        attributes,
    })
}

/// Reads a slice of an event's targets.
pub(super) fn targets_of(bytes: &[u8]) -> Result<Vec<Target>, LedgerError> {
    let id = |bytes: &[u8]| {
        Uuid::from_slice(bytes).map_err(|_| encode::refused("the targets of an event in the ledger cannot be read"))
    };
    bytes
        .chunks(32)
        .map(|target| {
            let (subscription, endpoint) = target.split_at_checked(16).unwrap_or((target, &[]));
            Ok(Target { subscription: SubscriptionId(id(subscription)?), endpoint: EndpointId(id(endpoint)?) })
        })
        .collect()
}

/// Reads events, each once. One that is not there is missing in the answer.
pub(super) async fn of_work(
    pool: &PgPool,
    mut wanted: Vec<(TenantId, EventId)>,
) -> Result<HashMap<EventId, Found>, LedgerError> {
    wanted.sort_unstable();
    wanted.dedup();
    if wanted.is_empty() {
        return Ok(HashMap::new());
    }
    let (tenants, ids): (Vec<Uuid>, Vec<Uuid>) = wanted.iter().map(|(tenant, event)| (tenant.0, event.0)).unzip();
    let rows = sqlx::query(
        "SELECT e.tenant, e.id, e.event_type, e.recipient, e.content_type, e.attributes, e.table_version, e.targets,
                e.body
         FROM unnest($1::uuid[], $2::uuid[]) AS u(tenant, id)
         CROSS JOIN LATERAL (SELECT * FROM events WHERE tenant = u.tenant AND id = u.id OFFSET 0) e",
    )
    .bind(&tenants)
    .bind(&ids)
    .fetch_all(pool)
    .await?;
    if rows.len() < wanted.len() {
        tracing::error!(missing = wanted.len() - rows.len(), "deliveries are open whose events are not in the ledger");
    }
    let found = rows.iter().map(|row| {
        let event = event_of(row)?;
        let table_version = TableVersion(count(row.try_get::<i64, _>("table_version")?)?);
        let targets = targets_of(row.try_get("targets")?)?;
        Ok((event.id, Found { event: Arc::new(event), targets, table_version }))
    });
    found.collect()
}
