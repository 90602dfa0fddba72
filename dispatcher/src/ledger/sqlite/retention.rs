//! The end of what is older than retention: it is given up and removed in steps, and between them others write. The file
//! does not shrink; what is freed is used again.

use std::collections::BTreeSet;
use std::time::Duration;

use dispatcher_core::delivery::{DeliveryKey, EndReason, Next, Target};
use dispatcher_core::id::{EventId, TenantId};
use dispatcher_core::limits::HOUSEKEEPING_ROWS_MAX;
use sqlx::sqlite::SqliteConnection;
use sqlx::{Row as _, Sqlite, Transaction};
use tokio::sync::Mutex;
use uuid::Uuid;

use super::encode::{self, Hex, blob, count, uuid};
use super::listing::targets_of;
use super::{Change, LedgerError, Maintained, begin, dispatchers, pools, record, replays, routes};
use crate::ledger::DeliveryResult;
use crate::ledger::days::{DAY_MS, first_of_day, whole_days};

/// Outbox parts that one step ends, and events that one step looks at.
const ROWS_PER_STEP: i64 = 64;

/// Keeps the ledger in order; see [`crate::ledger::Ledger::maintain`].
pub(super) async fn maintain(
    writer: &Mutex<SqliteConnection>,
    retention: Duration,
    now_ms: u64,
) -> Result<Maintained, LedgerError> {
    dispatchers::forget_silent(&mut *writer.lock().await, now_ms).await?;
    pools::forget_statistics(&mut *writer.lock().await, now_ms).await?;
    let first_kept = (now_ms / DAY_MS).saturating_sub(whole_days(retention));
    let bound = first_of_day(first_kept);
    let mut done = Maintained::default();
    loop {
        let ended = end_unfinished(&mut *writer.lock().await, bound, now_ms).await?;
        done.deliveries_ended += ended;
        if ended == 0 {
            break;
        }
    }
    let mut days = BTreeSet::new();
    loop {
        let removed = remove_events(&mut *writer.lock().await, bound).await?;
        days.extend(removed.iter().map(|event| event.unix_ms() / DAY_MS));
        if removed.is_empty() {
            break;
        }
    }
    done.days_dropped = u32::try_from(days.len()).unwrap_or(u32::MAX);
    // A day more, for events that were routed by a table of the moment before.
    let dropped_before_ms = first_kept.saturating_sub(1) * DAY_MS;
    routes::forget_dropped(&mut *writer.lock().await, dropped_before_ms).await?;
    replays::forget_before(&mut *writer.lock().await, dropped_before_ms).await?;
    Ok(done)
}

/// Gives up some of the deliveries of events before an identity; answers how many.
async fn end_unfinished(writer: &mut SqliteConnection, bound: Uuid, now_ms: u64) -> Result<u64, LedgerError> {
    let parts = old_parts(writer, bound).await?;
    if parts.is_empty() {
        return end_due(writer, bound).await;
    }
    record::record(writer, &parts, None, now_ms).await?;
    let results = parts.iter().map(|change| match change {
        Change::Part { results, .. } => results.len() as u64,
        Change::Delivery { .. } => 1,
    });
    Ok(results.sum())
}

/// Parts of old events, as changes that end each of their deliveries.
async fn old_parts(writer: &mut SqliteConnection, bound: Uuid) -> Result<Vec<Change>, LedgerError> {
    let rows = sqlx::query(
        "SELECT o.tenant, o.event, o.part, o.gen,
                substr(e.targets, 1 + 32 * o.first_target, 32 * o.target_count) AS targets
         FROM outbox o CROSS JOIN events e ON e.tenant = o.tenant AND e.id = o.event
         WHERE o.event < ?1 ORDER BY o.event, o.part LIMIT ?2",
    )
    .bind(blob(bound))
    .bind(ROWS_PER_STEP)
    .fetch_all(writer)
    .await?;
    let changes = rows.iter().map(|row| {
        let (tenant, event) = (TenantId(uuid(row.try_get("tenant")?)?), EventId(uuid(row.try_get("event")?)?));
        let results = targets_of(row.try_get("targets")?)?
            .into_iter()
            .map(|target| DeliveryResult {
                key: DeliveryKey::new(tenant, event, target),
                attempt: None,
                next: Next::Dead(EndReason::Retention),
            })
            .collect();
        let (part, r#gen) = (count(row.try_get("part")?)?, count(row.try_get("gen")?)?);
        Ok(Change::Part { event, tenant, part, r#gen, results })
    });
    changes.collect()
}

/// Whoever holds one of them finds its hold gone.
async fn end_due(writer: &mut SqliteConnection, bound: Uuid) -> Result<u64, LedgerError> {
    let mut transaction = begin(writer).await?;
    let old = sqlx::query("SELECT delivery FROM due WHERE delivery < ?1 LIMIT ?2")
        .bind(blob(bound))
        .bind(i64::from(HOUSEKEEPING_ROWS_MAX))
        .fetch_all(&mut *transaction)
        .await?;
    let ids =
        old.iter().map(|row| Ok([Hex(uuid(row.try_get("delivery")?)?)])).collect::<Result<Vec<_>, LedgerError>>()?;
    let ids = encode::rows(&ids)?;
    for statement in [
        "UPDATE deliveries SET state = 2, reason = 'retention'
         WHERE id IN (SELECT unhex(value->>0) FROM json_each(?1))",
        "DELETE FROM due WHERE delivery IN (SELECT unhex(value->>0) FROM json_each(?1))",
    ] {
        sqlx::query(statement).bind(&ids).execute(&mut *transaction).await?;
    }
    transaction.commit().await?;
    Ok(old.len() as u64)
}

/// Removes some of the events before an identity, each with its deliveries and their attempts, so that the balance of a
/// tenant never sees the one without the other; answers which. None while anything as old is unfinished: it may have
/// been opened again since it was given up.
async fn remove_events(writer: &mut SqliteConnection, bound: Uuid) -> Result<Vec<EventId>, LedgerError> {
    let mut transaction = begin(writer).await?;
    let unfinished = sqlx::query(
        "SELECT EXISTS (SELECT 1 FROM outbox WHERE event < ?1) OR EXISTS (SELECT 1 FROM due WHERE delivery < ?1) AS any",
    )
    .bind(blob(bound))
    .fetch_one(&mut *transaction)
    .await?;
    if unfinished.try_get("any")? {
        return Ok(Vec::new());
    }
    let (mut events, mut deliveries) = (Vec::new(), Vec::new());
    for (tenant, event, targets) in old_events(&mut transaction, bound).await? {
        let of_event = targets.into_iter().map(|target| [Hex(target.delivery(event).0)]);
        if !events.is_empty() && deliveries.len() + of_event.len() > HOUSEKEEPING_ROWS_MAX as usize {
            break;
        }
        deliveries.extend(of_event);
        events.push((tenant, event));
    }
    let deliveries = encode::rows(&deliveries)?;
    for statement in [
        "DELETE FROM attempts WHERE delivery IN (SELECT unhex(value->>0) FROM json_each(?1))",
        "DELETE FROM deliveries WHERE id IN (SELECT unhex(value->>0) FROM json_each(?1))",
    ] {
        sqlx::query(statement).bind(&deliveries).execute(&mut *transaction).await?;
    }
    let keys: Vec<_> = events.iter().map(|(tenant, event)| (Hex(tenant.0), Hex(event.0))).collect();
    sqlx::query(
        "DELETE FROM events WHERE (tenant, id) IN (SELECT unhex(value->>0), unhex(value->>1) FROM json_each(?1))",
    )
    .bind(encode::rows(&keys)?)
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(events.into_iter().map(|(_, event)| event).collect())
}

/// Old events of one tenant after the other: identities are in order only within a tenant.
async fn old_events(
    transaction: &mut Transaction<'_, Sqlite>,
    bound: Uuid,
) -> Result<Vec<(TenantId, EventId, Vec<Target>)>, LedgerError> {
    let rows = sqlx::query(
        "WITH RECURSIVE tenants (tenant) AS (
             SELECT min(tenant) FROM events
             UNION ALL
             SELECT (SELECT min(e.tenant) FROM events e WHERE e.tenant > tenants.tenant) FROM tenants
             WHERE tenants.tenant IS NOT NULL)
         SELECT e.tenant, e.id, e.targets FROM tenants CROSS JOIN events e
         ON e.tenant = tenants.tenant AND e.id < ?1 LIMIT ?2",
    )
    .bind(blob(bound))
    .bind(ROWS_PER_STEP)
    .fetch_all(&mut **transaction)
    .await?;
    let events = rows.iter().map(|row| {
        let (tenant, event) = (TenantId(uuid(row.try_get("tenant")?)?), EventId(uuid(row.try_get("id")?)?));
        Ok((tenant, event, targets_of(row.try_get("targets")?)?))
    });
    events.collect()
}
