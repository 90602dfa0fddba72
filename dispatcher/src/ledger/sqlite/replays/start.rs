//! What a step of a replay starts.

use std::collections::{BTreeMap, BTreeSet};

use dispatcher_core::delivery::{DeliveryKey, Target};
use dispatcher_core::id::{EventId, TenantId};
use dispatcher_core::limits::FANOUT_MAX;
use dispatcher_core::table::DEFAULT_POOL;
use sqlx::{Row as _, Sqlite, Transaction};

use crate::ledger::sqlite::encode::{self, Hex, blob, integer, uuid};
use crate::ledger::sqlite::listing::targets_of;
use crate::ledger::{LedgerError, ReplayStep};

/// Opens finished deliveries again, those that are still as they were found; answers how many.
pub(super) async fn again(
    transaction: &mut Transaction<'_, Sqlite>,
    step: &ReplayStep,
    now_ms: u64,
) -> Result<u64, LedgerError> {
    if step.again.is_empty() {
        return Ok(0);
    }
    let asked: Vec<_> = step.again.iter().map(|(delivery, run)| (Hex(delivery.0), run)).collect();
    let opened = sqlx::query(
        "UPDATE deliveries SET state = 0, reason = NULL, run = run + 1, run_started_at = ?3, attempts = 0
         WHERE id IN (SELECT unhex(value->>0) FROM json_each(?1)) AND tenant = ?2 AND state <> 0
           AND (id, run) IN (SELECT unhex(value->>0), value->>1 FROM json_each(?1))
         RETURNING id, run, endpoint",
    )
    .bind(encode::rows(&asked)?)
    .bind(blob(step.tenant.0))
    .bind(integer(now_ms))
    .fetch_all(&mut **transaction)
    .await?;
    let rows = opened.iter().map(|row| {
        let run: i64 = row.try_get("run")?;
        Ok((Hex(uuid(row.try_get("id")?)?), Hex(uuid(row.try_get("endpoint")?)?), run))
    });
    let rows = rows.collect::<Result<Vec<_>, LedgerError>>()?;
    put_due(transaction, step, &rows, now_ms).await?;
    Ok(rows.len() as u64)
}

/// A delivery that is open from now on: itself, its endpoint, its run.
type DueRow = (Hex, Hex, i64);

/// Makes them due at once, wakes their lanes, and notes which replay started them.
async fn put_due(
    transaction: &mut Transaction<'_, Sqlite>,
    step: &ReplayStep,
    rows: &[DueRow],
    now_ms: u64,
) -> Result<(), LedgerError> {
    let rows = encode::rows(rows)?;
    sqlx::query(
        "INSERT INTO due (delivery, endpoint, due_at, run, gen, state)
         SELECT unhex(value->>0), unhex(value->>1), ?2, value->>2, 0, 0 FROM json_each(?1)",
    )
    .bind(&rows)
    .bind(integer(now_ms))
    .execute(&mut **transaction)
    .await?;
    sqlx::query(
        "INSERT INTO lanes (endpoint, tenant, pool, next_due)
         SELECT DISTINCT unhex(value->>1), ?2, ?3, ?4 FROM json_each(?1) WHERE true
         ON CONFLICT (endpoint) DO UPDATE SET next_due = min(next_due, excluded.next_due)",
    )
    .bind(&rows)
    .bind(blob(step.tenant.0))
    .bind(DEFAULT_POOL)
    .bind(integer(now_ms))
    .execute(&mut **transaction)
    .await?;
    sqlx::query(
        "INSERT INTO replay_runs (replay, delivery, run)
         SELECT ?2, unhex(value->>0), value->>2 FROM json_each(?1) WHERE true
         ON CONFLICT (replay, delivery) DO UPDATE SET run = excluded.run",
    )
    .bind(&rows)
    .bind(blob(step.replay.0))
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// Makes deliveries that there are not: targets of their events from now on, and due at once. Answers how many.
pub(super) async fn missing(
    transaction: &mut Transaction<'_, Sqlite>,
    step: &ReplayStep,
    now_ms: u64,
) -> Result<u64, LedgerError> {
    let added = added_targets(transaction, step).await?;
    if added.is_empty() {
        return Ok(0);
    }
    add_targets(transaction, step.tenant, &added).await?;
    let keys: Vec<DeliveryKey> = added
        .iter()
        .flat_map(|(event, targets)| targets.iter().map(|target| DeliveryKey::new(step.tenant, *event, *target)))
        .collect();
    let of_key = |key: &DeliveryKey| {
        let target = key.target;
        (Hex(key.delivery.0), Hex(key.event.0), Hex(target.subscription.0), Hex(target.endpoint.0))
    };
    sqlx::query(
        "INSERT INTO deliveries (id, tenant, event, subscription, endpoint, state, run, run_started_at, attempts)
         SELECT unhex(value->>0), ?2, unhex(value->>1), unhex(value->>2), unhex(value->>3), 0, 1, ?3, 0
         FROM json_each(?1)",
    )
    .bind(encode::rows(&keys.iter().map(of_key).collect::<Vec<_>>())?)
    .bind(blob(step.tenant.0))
    .bind(integer(now_ms))
    .execute(&mut **transaction)
    .await?;
    let rows: Vec<DueRow> = keys.iter().map(|key| (Hex(key.delivery.0), Hex(key.target.endpoint.0), 1)).collect();
    put_due(transaction, step, &rows, now_ms).await?;
    Ok(keys.len() as u64)
}

/// The asked targets that their events do not have yet. An event that is gone gets none.
async fn added_targets(
    transaction: &mut Transaction<'_, Sqlite>,
    step: &ReplayStep,
) -> Result<BTreeMap<EventId, BTreeSet<Target>>, LedgerError> {
    let mut asked: BTreeMap<EventId, BTreeSet<Target>> = BTreeMap::new();
    for (event, targets) in &step.missing {
        asked.entry(*event).or_default().extend(targets);
    }
    let mut added = BTreeMap::new();
    if asked.is_empty() {
        return Ok(added);
    }
    let ids: Vec<[Hex; 1]> = asked.keys().map(|event| [Hex(event.0)]).collect();
    let rows = sqlx::query(
        "SELECT e.id, e.targets FROM json_each(?1) j CROSS JOIN events e
         ON e.tenant = ?2 AND e.id = unhex(j.value->>0)",
    )
    .bind(encode::rows(&ids)?)
    .bind(blob(step.tenant.0))
    .fetch_all(&mut **transaction)
    .await?;
    for row in &rows {
        let event = EventId(uuid(row.try_get("id")?)?);
        let present = targets_of(row.try_get("targets")?)?;
        let mut targets = asked.remove(&event).unwrap_or_default();
        for target in &present {
            targets.remove(target);
        }
        let room = FANOUT_MAX.saturating_sub(present.len());
        let targets: BTreeSet<Target> = targets.into_iter().take(room).collect();
        if !targets.is_empty() {
            added.insert(event, targets);
        }
    }
    Ok(added)
}

/// At the end: parts in the outbox are slices of what stands before.
async fn add_targets(
    transaction: &mut Transaction<'_, Sqlite>,
    tenant: TenantId,
    added: &BTreeMap<EventId, BTreeSet<Target>>,
) -> Result<(), LedgerError> {
    let rows: Vec<_> = added
        .iter()
        .map(|(event, targets)| {
            let ids = targets.iter().flat_map(|target| [target.subscription.0, target.endpoint.0]);
            let hex: String = ids.map(|id| id.simple().to_string()).collect();
            (Hex(event.0), hex, targets.len())
        })
        .collect();
    // `||` makes text of two blobs; the cast makes a blob of it again, byte by byte.
    sqlx::query(
        "UPDATE events SET targets = CAST(targets || unhex(a.added) AS BLOB), fanout_count = fanout_count + a.count
         FROM (SELECT unhex(value->>0) AS id, value->>1 AS added, value->>2 AS count FROM json_each(?1)) a
         WHERE events.tenant = ?2 AND events.id = a.id",
    )
    .bind(encode::rows(&rows)?)
    .bind(blob(tenant.0))
    .execute(&mut **transaction)
    .await?;
    Ok(())
}
