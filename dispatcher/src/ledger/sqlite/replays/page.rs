//! What a replay finds after a place. Nothing is written.

use std::sync::Arc;

use dispatcher_core::delivery::{DeliveryKey, Target};
use dispatcher_core::event::Event;
use dispatcher_core::id::{EndpointId, EventId, SubscriptionId};
use dispatcher_core::limits::REPLAY_PAGE_BYTES_MAX;
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Row as _, SqlitePool};
use uuid::Uuid;

use crate::ledger::sqlite::encode::{blob, count, uuid};
use crate::ledger::sqlite::listing::{event_of, targets_of};
use crate::ledger::{LedgerError, ReplayCursor, ReplayFound, ReplayPage, ReplayScope, ReplayStage};

/// Looks at a page; see [`crate::ledger::Ledger::replay_page`].
pub(in crate::ledger::sqlite) async fn page(
    readers: &SqlitePool,
    scope: &ReplayScope,
    after: ReplayCursor,
    rows_max: u32,
) -> Result<ReplayPage, LedgerError> {
    let rows = match after.stage {
        ReplayStage::Deliveries => deliveries(readers, scope, after.after, rows_max).await?,
        ReplayStage::Events => events(readers, scope, after.after, rows_max).await?,
        ReplayStage::Done => return Ok(ReplayPage { found: Vec::new(), next: after }),
    };
    let (mut found, mut bytes, mut last) = (Vec::new(), 0, None);
    for row in &rows {
        bytes += count::<u64>(row.try_get("body_bytes")?)?;
        if last.is_some() && bytes > REPLAY_PAGE_BYTES_MAX {
            break;
        }
        last = Some(uuid(row.try_get("place")?)?);
        found.extend(match after.stage {
            ReplayStage::Deliveries => found_delivery(row, scope)?,
            ReplayStage::Events | ReplayStage::Done => Some(found_event(row)?),
        });
    }
    let is_end = rows.len() < rows_max as usize && bytes <= REPLAY_PAGE_BYTES_MAX;
    let next = match last {
        Some(after_last) if !is_end => ReplayCursor { stage: after.stage, after: after_last },
        _ => ReplayCursor::start_of(scope.stage_after(after.stage)),
    };
    Ok(ReplayPage { found, next })
}

/// By the index that fits the question, as for listings. What is looked at is bounded, whatever is wanted of it.
async fn deliveries(
    readers: &SqlitePool,
    scope: &ReplayScope,
    after: Uuid,
    rows_max: u32,
) -> Result<Vec<SqliteRow>, LedgerError> {
    let (index, condition) = match (scope.endpoint.is_some(), scope.delivered) {
        (true, false) => ("deliveries_by_endpoint_state", "endpoint = ?1 AND state = 2 AND state <> 1"),
        (true, true) => ("deliveries_by_endpoint", "endpoint = ?1"),
        (false, false) => ("deliveries_by_tenant_state", "tenant = ?2 AND state = 2 AND state <> 1"),
        (false, true) => ("deliveries_by_tenant", "tenant = ?2"),
    };
    let (after, before) = scope.bounds(after);
    Ok(sqlx::query(AssertSqlSafe(format!(
        "SELECT d.id AS place, d.subscription, d.endpoint, d.run, d.wanted, e.tenant, e.id, e.event_type, e.recipient,
                e.content_type, e.attributes, iif(?8 AND d.wanted, e.body, x'') AS body,
                iif(?8 AND d.wanted, length(e.body), 0) AS body_bytes
         FROM (SELECT id, subscription, endpoint, run, event,
                      (state = 1 AND ?3 OR state = 2 AND ?4) AND (?5 IS NULL OR subscription = ?5)
                      AND EXISTS (SELECT 1 FROM routes WHERE kind = 1 AND routes.id = endpoint AND row IS NOT NULL)
                      AND EXISTS (SELECT 1 FROM routes WHERE kind = 2 AND routes.id = subscription AND row IS NOT NULL)
                      AS wanted
               FROM deliveries INDEXED BY {index}
               WHERE {condition} AND id > ?6 AND id < ?7 AND +tenant = ?2 ORDER BY id LIMIT ?9) d
         LEFT JOIN events e ON e.tenant = ?2 AND e.id = d.event ORDER BY d.id"
    )))
    .bind(scope.endpoint.map(|endpoint| blob(endpoint.0)))
    .bind(blob(scope.tenant.0))
    .bind(scope.delivered)
    .bind(scope.dead)
    .bind(scope.subscription.map(|subscription| blob(subscription.0)))
    .bind(blob(after))
    .bind(blob(before))
    .bind(scope.with_events)
    .bind(i64::from(rows_max))
    .fetch_all(readers)
    .await?)
}

fn found_delivery(row: &SqliteRow, scope: &ReplayScope) -> Result<Option<ReplayFound>, LedgerError> {
    let event: Option<&[u8]> = row.try_get("id")?;
    let (Some(event), true) = (event, row.try_get::<bool, _>("wanted")?) else { return Ok(None) };
    let target = Target {
        subscription: SubscriptionId(uuid(row.try_get("subscription")?)?),
        endpoint: EndpointId(uuid(row.try_get("endpoint")?)?),
    };
    Ok(Some(ReplayFound::Delivery {
        key: DeliveryKey::new(scope.tenant, EventId(uuid(event)?), target),
        run: count(row.try_get("run")?)?,
        event_type: row.try_get("event_type")?,
        event: scope.with_events.then(|| event_of(row)).transpose()?.map(Arc::new),
    }))
}

/// Sizes come first, so that bodies beyond the bytes of a page are not read.
async fn events(
    readers: &SqlitePool,
    scope: &ReplayScope,
    after: Uuid,
    rows_max: u32,
) -> Result<Vec<SqliteRow>, LedgerError> {
    let (after, before) = scope.bounds(after);
    Ok(sqlx::query(
        "SELECT e.id AS place, e.tenant, e.id, e.event_type, e.recipient, e.content_type, e.attributes, e.targets,
                iif(p.bytes <= ?5 OR p.number = 1, e.body, x'') AS body, length(e.body) AS body_bytes
         FROM (SELECT id, sum(length(body)) OVER (ORDER BY id) AS bytes, row_number() OVER (ORDER BY id) AS number
               FROM (SELECT id, body FROM events WHERE tenant = ?1 AND id > ?2 AND id < ?3 ORDER BY id LIMIT ?4)) p
         CROSS JOIN events e ON e.tenant = ?1 AND e.id = p.id ORDER BY p.id",
    )
    .bind(blob(scope.tenant.0))
    .bind(blob(after))
    .bind(blob(before))
    .bind(i64::from(rows_max))
    .bind(i64::try_from(REPLAY_PAGE_BYTES_MAX).unwrap_or(i64::MAX))
    .fetch_all(readers)
    .await?)
}

fn found_event(row: &SqliteRow) -> Result<ReplayFound, LedgerError> {
    let event: Event = event_of(row)?;
    Ok(ReplayFound::Event { event: Arc::new(event), targets: targets_of(row.try_get("targets")?)? })
}
