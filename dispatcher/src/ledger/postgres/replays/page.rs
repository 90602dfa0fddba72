//! What a replay finds after a place. Nothing is locked or written.

use std::sync::Arc;

use dispatcher_core::delivery::{DeliveryKey, Target};
use dispatcher_core::id::{EndpointId, EventId, SubscriptionId, TenantId};
use dispatcher_core::limits::REPLAY_PAGE_BYTES_MAX;
use sqlx::{AssertSqlSafe, PgPool};
use uuid::Uuid;

use crate::ledger::postgres::encode::count;
use crate::ledger::postgres::events;
use crate::ledger::{LedgerError, ReplayCursor, ReplayFound, ReplayPage, ReplayScope, ReplayStage};

/// Looks at a page; see [`crate::ledger::Ledger::replay_page`].
pub(in crate::ledger::postgres) async fn page(
    pool: &PgPool,
    scope: &ReplayScope,
    after: ReplayCursor,
    rows_max: u32,
) -> Result<ReplayPage, LedgerError> {
    match after.stage {
        ReplayStage::Deliveries => deliveries(pool, scope, after, rows_max).await,
        ReplayStage::Events => events_with_targets(pool, scope, after, rows_max).await,
        ReplayStage::Done => Ok(ReplayPage { found: Vec::new(), next: after }),
    }
}

/// A delivery that was looked at: identity, subscription, endpoint, run, event, whether it is wanted, type and size of its
/// event.
type Looked = (Uuid, Uuid, Uuid, i32, Uuid, bool, Option<String>, Option<i32>);

async fn deliveries(
    pool: &PgPool,
    scope: &ReplayScope,
    after: ReplayCursor,
    rows_max: u32,
) -> Result<ReplayPage, LedgerError> {
    let mut looked = look_at_deliveries(pool, scope, after.after, rows_max).await?;
    let mut is_end = looked.len() < rows_max as usize;
    if scope.with_events {
        let bytes = looked.iter().map(|row| if row.5 { u64::try_from(row.7.unwrap_or(0)).unwrap_or(0) } else { 0 });
        let fitting = fitting(bytes);
        is_end &= fitting == looked.len();
        looked.truncate(fitting);
    }
    let next = match looked.last() {
        Some(last) if !is_end => ReplayCursor { stage: after.stage, after: last.0 },
        _ => ReplayCursor::start_of(scope.stage_after(after.stage)),
    };
    let wanted = looked.into_iter().filter(|row| row.5);
    let wanted: Vec<(DeliveryKey, i32, String)> = wanted
        .filter_map(|(_, subscription, endpoint, run, event, _, event_type, _)| {
            let target = Target { subscription: SubscriptionId(subscription), endpoint: EndpointId(endpoint) };
            Some((DeliveryKey::new(scope.tenant, EventId(event), target), run, event_type?))
        })
        .collect();
    let events = if scope.with_events {
        events::of_work(pool, wanted.iter().map(|(key, ..)| (key.tenant, key.event)).collect()).await?
    } else {
        std::collections::HashMap::new()
    };
    let found = wanted.into_iter().map(|(key, run, event_type)| {
        let event = events.get(&key.event).map(|found| Arc::clone(&found.event));
        Ok(ReplayFound::Delivery { key, run: count(run)?, event_type, event })
    });
    Ok(ReplayPage { found: found.collect::<Result<_, LedgerError>>()?, next })
}

/// By the index that fits the question, as for listings. What is looked at is bounded, whatever is wanted of it.
async fn look_at_deliveries(
    pool: &PgPool,
    scope: &ReplayScope,
    after: Uuid,
    rows_max: u32,
) -> Result<Vec<Looked>, LedgerError> {
    let condition = match (scope.endpoint.is_some(), scope.delivered) {
        (true, false) => "d.endpoint = $1 AND d.state = 2 AND d.state <> 1 AND (d.tenant = $2) IS TRUE",
        (true, true) => "d.endpoint = $1 AND (d.tenant = $2) IS TRUE",
        (false, false) => "d.tenant = $2 AND d.state = 2 AND d.state <> 1 AND $1::uuid IS NULL",
        (false, true) => "d.tenant = $2 AND $1::uuid IS NULL",
    };
    let (after, before) = scope.bounds(after);
    Ok(sqlx::query_as(AssertSqlSafe(format!(
        "SELECT d.id, d.subscription, d.endpoint, d.run, d.event,
                (d.state = 1 AND $3 OR d.state = 2 AND $4) AND ($5::uuid IS NULL OR d.subscription = $5)
                AND EXISTS (SELECT FROM routes WHERE kind = 1 AND id = d.endpoint AND content IS NOT NULL OFFSET 0)
                AND EXISTS (SELECT FROM routes WHERE kind = 2 AND id = d.subscription AND content IS NOT NULL OFFSET 0),
                e.event_type, e.body_bytes
         FROM (SELECT d.id, d.subscription, d.endpoint, d.run, d.event, d.state FROM deliveries d
               WHERE {condition} AND d.id > $6 AND d.id < $7
                 AND uuid_send(d.id) > uuid_send($6) AND uuid_send(d.id) < uuid_send($7)
               ORDER BY uuid_send(d.id) LIMIT $8) d
         LEFT JOIN LATERAL (SELECT event_type, length(body) AS body_bytes FROM events
                            WHERE tenant = $2 AND id = d.event OFFSET 0) e ON true
         ORDER BY d.id"
    )))
    .bind(scope.endpoint.map(|endpoint| endpoint.0))
    .bind(scope.tenant.0)
    .bind(scope.delivered)
    .bind(scope.dead)
    .bind(scope.subscription.map(|subscription| subscription.0))
    .bind(after)
    .bind(before)
    .bind(i64::from(rows_max))
    .fetch_all(pool)
    .await?)
}

/// How many of these come to no more than the bytes of a page, and at least one.
fn fitting(sizes: impl Iterator<Item = u64>) -> usize {
    let mut sum = 0;
    let fits = |size: &u64| {
        let before = sum;
        sum += size;
        before == 0 || sum <= REPLAY_PAGE_BYTES_MAX
    };
    sizes.take_while(fits).count()
}

async fn events_with_targets(
    pool: &PgPool,
    scope: &ReplayScope,
    after: ReplayCursor,
    rows_max: u32,
) -> Result<ReplayPage, LedgerError> {
    let (lower, upper) = scope.bounds(after.after);
    let ids: Vec<(Uuid, i64)> = sqlx::query_as(
        "SELECT id, length(body)::int8 FROM events WHERE tenant = $1 AND id > $2 AND id < $3 ORDER BY id LIMIT $4",
    )
    .bind(scope.tenant.0)
    .bind(lower)
    .bind(upper)
    .bind(i64::from(rows_max))
    .fetch_all(pool)
    .await?;
    let fitting = fitting(ids.iter().map(|(_, bytes)| u64::try_from(*bytes).unwrap_or_default()));
    let is_end = ids.len() < rows_max as usize && fitting == ids.len();
    let ids = &ids[..fitting];
    let next = match ids.last() {
        Some((last, _)) if !is_end => ReplayCursor { stage: after.stage, after: *last },
        _ => ReplayCursor::start_of(scope.stage_after(after.stage)),
    };
    let tenant: TenantId = scope.tenant;
    let mut events = events::of_work(pool, ids.iter().map(|(id, _)| (tenant, EventId(*id))).collect()).await?;
    let found = ids.iter().filter_map(|(id, _)| events.remove(&EventId(*id)));
    let found = found.map(|found| ReplayFound::Event { event: found.event, targets: found.targets }).collect();
    Ok(ReplayPage { found, next })
}
