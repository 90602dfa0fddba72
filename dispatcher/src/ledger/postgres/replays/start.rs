//! What a step of a replay starts.

use std::collections::{BTreeMap, BTreeSet};

use dispatcher_core::delivery::{DeliveryKey, Target};
use dispatcher_core::id::{EventId, TenantId};
use dispatcher_core::limits::FANOUT_MAX;
use dispatcher_core::table::DEFAULT_POOL;
use sqlx::{Postgres, Transaction};
use uuid::Uuid;

use crate::ledger::postgres::encode::{count, int4};
use crate::ledger::postgres::events::targets_of;
use crate::ledger::{LedgerError, ReplayStep};

/// Opens finished deliveries again, those that are still as they were found; answers how many.
pub(super) async fn again(transaction: &mut Transaction<'_, Postgres>, step: &ReplayStep) -> Result<u64, LedgerError> {
    let asked: BTreeMap<Uuid, i32> = step.again.iter().map(|(delivery, run)| (delivery.0, int4(*run))).collect();
    if asked.is_empty() {
        return Ok(0);
    }
    let (ids, runs): (Vec<Uuid>, Vec<i32>) = asked.into_iter().unzip();
    let opened: i64 = sqlx::query_scalar(
        "WITH opened AS (
             UPDATE deliveries SET state = 0, reason = NULL, run = run + 1, run_started_at = now(), attempts = 0
             WHERE id = ANY($1) AND tenant = $3 AND state <> 0
               AND ((id, run) IN (SELECT * FROM unnest($1::uuid[], $2::int4[]))) IS TRUE
             RETURNING id, run, tenant, endpoint),
         put AS (
             INSERT INTO due (delivery, endpoint, due_at, run, gen, state)
             SELECT id, endpoint, now(), run, 0, 0 FROM opened),
         noted AS (
             INSERT INTO replay_runs (replay, delivery, run) SELECT $4, id, run FROM opened
             ON CONFLICT (replay, delivery) DO UPDATE SET run = excluded.run),
         woken AS (
             INSERT INTO lanes (endpoint, tenant, pool, next_due)
             SELECT DISTINCT endpoint, tenant, $5, now() FROM opened ORDER BY endpoint
             ON CONFLICT (endpoint) DO UPDATE SET next_due = least(lanes.next_due, excluded.next_due))
         SELECT count(*) FROM opened",
    )
    .bind(&ids)
    .bind(&runs)
    .bind(step.tenant.0)
    .bind(step.replay.0)
    .bind(DEFAULT_POOL)
    .fetch_one(&mut **transaction)
    .await?;
    count(opened)
}

/// Makes deliveries that there are not: targets of their events from now on, and due at once. Answers how many.
pub(super) async fn missing(
    transaction: &mut Transaction<'_, Postgres>,
    step: &ReplayStep,
) -> Result<u64, LedgerError> {
    let added = added_targets(transaction, step).await?;
    if added.is_empty() {
        return Ok(0);
    }
    let mut keys: Vec<DeliveryKey> = added
        .iter()
        .flat_map(|(event, targets)| targets.iter().map(|target| DeliveryKey::new(step.tenant, *event, *target)))
        .collect();
    keys.sort_unstable_by_key(|key| key.delivery);
    add_targets(transaction, step.tenant, &added).await?;
    let column = |of: fn(&DeliveryKey) -> Uuid| keys.iter().map(of).collect::<Vec<Uuid>>();
    sqlx::query(
        "WITH made AS (
             INSERT INTO deliveries (id, tenant, event, subscription, endpoint, run_started_at, run, attempts, state)
             SELECT id, $5, event, subscription, endpoint, now(), 1, 0, 0
             FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[]) AS u(id, event, subscription, endpoint)
             RETURNING id, run, tenant, endpoint),
         put AS (
             INSERT INTO due (delivery, endpoint, due_at, run, gen, state)
             SELECT id, endpoint, now(), run, 0, 0 FROM made),
         noted AS (INSERT INTO replay_runs (replay, delivery, run) SELECT $6, id, run FROM made)
         INSERT INTO lanes (endpoint, tenant, pool, next_due)
         SELECT DISTINCT endpoint, tenant, $7, now() FROM made ORDER BY endpoint
         ON CONFLICT (endpoint) DO UPDATE SET next_due = least(lanes.next_due, excluded.next_due)",
    )
    .bind(column(|key| key.delivery.0))
    .bind(column(|key| key.event.0))
    .bind(column(|key| key.target.subscription.0))
    .bind(column(|key| key.target.endpoint.0))
    .bind(step.tenant.0)
    .bind(step.replay.0)
    .bind(DEFAULT_POOL)
    .execute(&mut **transaction)
    .await?;
    Ok(keys.len() as u64)
}

/// The asked targets that their events do not have yet; the events are locked. An event that is gone gets none.
async fn added_targets(
    transaction: &mut Transaction<'_, Postgres>,
    step: &ReplayStep,
) -> Result<BTreeMap<EventId, BTreeSet<Target>>, LedgerError> {
    let mut asked: BTreeMap<EventId, BTreeSet<Target>> = BTreeMap::new();
    for (event, targets) in &step.missing {
        asked.entry(*event).or_default().extend(targets);
    }
    if asked.is_empty() {
        return Ok(asked);
    }
    let ids: Vec<Uuid> = asked.keys().map(|event| event.0).collect();
    let rows: Vec<(Uuid, Vec<u8>)> = sqlx::query_as(
        "SELECT id, targets FROM events WHERE tenant = $1 AND id = ANY($2) ORDER BY id FOR NO KEY UPDATE",
    )
    .bind(step.tenant.0)
    .bind(&ids)
    .fetch_all(&mut **transaction)
    .await?;
    let mut added = BTreeMap::new();
    for (event, present) in rows {
        let present = targets_of(&present)?;
        let mut targets = asked.remove(&EventId(event)).unwrap_or_default();
        for target in &present {
            targets.remove(target);
        }
        let room = FANOUT_MAX.saturating_sub(present.len());
        let targets: BTreeSet<Target> = targets.into_iter().take(room).collect();
        if !targets.is_empty() {
            added.insert(EventId(event), targets);
        }
    }
    Ok(added)
}

/// At the end: parts in the outbox are slices of what stands before.
async fn add_targets(
    transaction: &mut Transaction<'_, Postgres>,
    tenant: TenantId,
    added: &BTreeMap<EventId, BTreeSet<Target>>,
) -> Result<(), LedgerError> {
    let ids: Vec<Uuid> = added.keys().map(|event| event.0).collect();
    let targets: Vec<Vec<u8>> = added
        .values()
        .map(|targets| {
            let bytes = targets.iter().flat_map(|target| [target.subscription.0, target.endpoint.0]);
            bytes.flat_map(|id| *id.as_bytes()).collect()
        })
        .collect();
    sqlx::query(
        "UPDATE events e SET targets = e.targets || u.added, fanout_count = e.fanout_count + length(u.added) / 32
         FROM unnest($2::uuid[], $3::bytea[]) AS u(id, added)
         WHERE e.tenant = $1 AND e.id = u.id AND e.id = ANY($2)",
    )
    .bind(tenant.0)
    .bind(&ids)
    .bind(&targets)
    .execute(&mut **transaction)
    .await?;
    Ok(())
}
