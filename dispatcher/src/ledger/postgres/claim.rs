//! Claiming due work: outbox parts whose lease is over, and due deliveries, round the lanes.
//!
//! A look comes first, so that an idle claimer takes no lock; one claimer at a time works on a pool. Lanes are locked
//! in one statement and what is due in them is read in the next: whoever made something due meanwhile has either
//! committed, and is seen, or waits for the lane and wakes it afterwards. No lock is waited for.

mod bounds;
mod lanes;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use dispatcher_core::id::{EventId, TenantId};
use dispatcher_core::limits::{CLAIM_DELIVERIES_MAX, CLAIM_DUE_SHARE, HEARTBEAT_DEAD_AFTER, HEARTBEAT_GAP_MAX};
use sqlx::{PgPool, Postgres, Transaction};
use uuid::Uuid;

pub(super) use self::bounds::OutboxBounds;
use self::lanes::Due;
use super::encode::{count, int4, int8, microseconds};
use super::events::{self, Found};
use super::{Claim, Claimed, LedgerError, dispatchers};
use crate::queue::{DueDelivery, Item, Work};

struct Part {
    tenant: TenantId,
    event: EventId,
    number: u16,
    r#gen: u32,
    first_target: usize,
    target_count: usize,
}

/// Claims; see [`crate::ledger::Ledger::claim`].
pub(super) async fn claim(pool: &PgPool, claim: &Claim, bounds: &OutboxBounds) -> Result<Claimed, LedgerError> {
    let bound_us = bounds.of(&claim.pool);
    let look = look(pool, &claim.pool, bound_us).await?;
    bounds.remember(&claim.pool, look.outbox_us, look.now_us);
    if look.is_abandoned {
        dispatchers::free_abandoned(pool, CLAIM_DELIVERIES_MAX).await?;
    } else if look.due_in != Some(Duration::ZERO) {
        return Ok(Claimed { items: Vec::new(), next_due_in: look.due_in });
    }
    let mut transaction = pool.begin().await?;
    let Some(now_ms) = only_claimer(&mut transaction, &claim.pool).await? else {
        // Another process is at it. What it leaves is seen at the next look.
        return Ok(Claimed::default());
    };
    let mut parts = ready_parts(&mut transaction, claim, bound_us).await?;
    let in_parts: usize = parts.iter().map(|part| part.target_count).sum();
    let due_max = claim.deliveries_max.saturating_sub(in_parts).max(claim.deliveries_max / CLAIM_DUE_SHARE);
    let due = lanes::claim(&mut transaction, claim, due_max).await?;
    keep_within(&mut parts, claim.deliveries_max.saturating_sub(due.len()), due.is_empty());
    let parts = lease_parts(&mut transaction, parts, claim.lease).await?;
    transaction.commit().await?;
    let next_due_in = self::look(pool, &claim.pool, bound_us).await?.due_in;
    let lease_until_ms = now_ms + u64::try_from(claim.lease.as_millis()).unwrap_or(u64::from(u32::MAX));
    with_events(pool, parts, due, lease_until_ms, next_due_in).await
}

/// When something in a pool is due next.
struct Look {
    now_us: i64,
    /// When the first part's lease ends.
    outbox_us: Option<i64>,
    due_in: Option<Duration>,
    /// Whether a dead process has something in flight, in whatever pool; see [`dispatchers::free_abandoned`].
    is_abandoned: bool,
}

async fn look(pool: &PgPool, name: &str, bound_us: i64) -> Result<Look, LedgerError> {
    let (now_us, outbox_us, lane_us, is_abandoned): (i64, Option<i64>, Option<i64>, bool) = sqlx::query_as(
        "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::int8,
                (extract(epoch FROM (SELECT min(lease_until) FROM outbox WHERE pool = $1
                    AND lease_until >= 'epoch'::timestamptz + $2 * interval '1 microsecond')) * 1000000)::int8,
                (extract(epoch FROM (SELECT CASE WHEN isfinite(min(ready_at)) THEN min(ready_at) END
                    FROM lanes WHERE pool = $1)) * 1000000)::int8,
                EXISTS (SELECT FROM dispatchers dead WHERE last_seen < now() - $3 * interval '1 microsecond'
                    AND EXISTS (SELECT FROM due WHERE owner = dead.instance AND state = 2 OFFSET 0)
                    AND EXISTS (SELECT FROM dispatchers
                                WHERE last_seen >= now() - $4 * interval '1 microsecond'
                                  AND beating_since <= now() - $3 * interval '1 microsecond' OFFSET 0))",
    )
    .bind(name)
    .bind(bound_us)
    .bind(microseconds(HEARTBEAT_DEAD_AFTER))
    .bind(microseconds(HEARTBEAT_GAP_MAX))
    .fetch_one(pool)
    .await?;
    let next_us = outbox_us.into_iter().chain(lane_us).min();
    let due_in = next_us.map(|next_us| Duration::from_micros(u64::try_from(next_us - now_us).unwrap_or_default()));
    Ok(Look { now_us, outbox_us, due_in, is_abandoned })
}

/// Takes the claimers' lock of a pool until the end of the transaction, and answers its time; `None` if another has it.
async fn only_claimer(transaction: &mut Transaction<'_, Postgres>, pool: &str) -> Result<Option<u64>, LedgerError> {
    let (alone, now_ms): (bool, i64) = sqlx::query_as(
        "SELECT pg_try_advisory_xact_lock(hashtextextended('harborhook claim ' || current_schema() || ' ' || $1, 0)),
                floor(extract(epoch FROM now()) * 1000)::int8",
    )
    .bind(pool)
    .fetch_one(&mut **transaction)
    .await?;
    alone.then(|| count(now_ms)).transpose()
}

/// Parts whose lease is over, oldest first; more than the claim may take, never fewer. They are not locked yet.
async fn ready_parts(
    transaction: &mut Transaction<'_, Postgres>,
    claim: &Claim,
    bound_us: i64,
) -> Result<Vec<Part>, LedgerError> {
    let rows: Vec<(Uuid, Uuid, i32, i32, i32, i32)> = sqlx::query_as(
        "SELECT tenant, event, part, gen, first_target, target_count FROM outbox
         WHERE pool = $1 AND lease_until <= now()
           AND lease_until >= 'epoch'::timestamptz + $2 * interval '1 microsecond'
         ORDER BY lease_until LIMIT $3",
    )
    .bind(&claim.pool)
    .bind(bound_us)
    .bind(int8(claim.deliveries_max))
    .fetch_all(&mut **transaction)
    .await?;
    let parts = rows.into_iter().map(|(tenant, event, part, r#gen, first_target, target_count)| {
        Ok(Part {
            tenant: TenantId(tenant),
            event: EventId(event),
            number: count(part)?,
            r#gen: count(r#gen)?,
            first_target: count(first_target)?,
            target_count: count(target_count)?,
        })
    });
    parts.collect()
}

/// Keeps the parts that fit. If nothing else is claimed the first is kept even if it alone is too large: else it
/// would never be delivered.
fn keep_within(parts: &mut Vec<Part>, deliveries_max: usize, first_always: bool) {
    let mut deliveries = 0;
    let fitting = parts.iter().take_while(|part| {
        deliveries += part.target_count;
        deliveries <= deliveries_max
    });
    let kept = fitting.count();
    parts.truncate(kept.max(usize::from(first_always)));
}

/// Leases the parts that nobody has taken, recorded or locked meanwhile, and answers them.
async fn lease_parts(
    transaction: &mut Transaction<'_, Postgres>,
    mut parts: Vec<Part>,
    lease: Duration,
) -> Result<Vec<Part>, LedgerError> {
    if parts.is_empty() {
        return Ok(parts);
    }
    let events: Vec<Uuid> = parts.iter().map(|part| part.event.0).collect();
    let numbers: Vec<i32> = parts.iter().map(|part| i32::from(part.number)).collect();
    let generations: Vec<i32> = parts.iter().map(|part| int4(part.r#gen)).collect();
    let leased: Vec<(Uuid, i32, i32)> = sqlx::query_as(
        "WITH held AS MATERIALIZED (
             SELECT o.event, o.part
             FROM unnest($1::uuid[], $2::int4[], $3::int4[]) AS u(event, part, gen)
             CROSS JOIN LATERAL (
                 SELECT event, part FROM outbox WHERE event = u.event AND part = u.part AND gen = u.gen
                 FOR UPDATE SKIP LOCKED) o)
         UPDATE outbox SET gen = gen + 1, lease_until = now() + $4 * interval '1 microsecond'
         WHERE event = ANY(ARRAY(SELECT event FROM held)) AND ((event, part) IN (SELECT event, part FROM held)) IS TRUE
         RETURNING event, part, gen",
    )
    .bind(&events)
    .bind(&numbers)
    .bind(&generations)
    .bind(microseconds(lease))
    .fetch_all(&mut **transaction)
    .await?;
    let leased = leased.into_iter().map(|(event, part, r#gen)| Ok(((EventId(event), count(part)?), count(r#gen)?)));
    let leased: HashMap<(EventId, u16), u32> = leased.collect::<Result<_, LedgerError>>()?;
    parts.retain_mut(|part| match leased.get(&(part.event, part.number)) {
        Some(r#gen) => {
            part.r#gen = *r#gen;
            true
        }
        None => false,
    });
    Ok(parts)
}

/// Reads the events of claimed work, after the commit, and joins the two.
async fn with_events(
    pool: &PgPool,
    parts: Vec<Part>,
    due: Vec<Due>,
    lease_until_ms: u64,
    next_due_in: Option<Duration>,
) -> Result<Claimed, LedgerError> {
    let part_events = parts.iter().map(|part| (part.tenant, part.event));
    let due_events = due.iter().map(|due| (due.tenant, due.event));
    let events = events::of_work(pool, part_events.chain(due_events).collect()).await?;
    let mut items = Vec::new();
    for (event, deliveries) in by_event(due) {
        let Some(found) = events.get(&event) else { continue };
        items.push(found.item(Work::Due(deliveries), lease_until_ms));
    }
    for Part { event, number, r#gen, first_target, target_count, .. } in parts {
        let Some(found) = events.get(&event) else { continue };
        let Some(targets) = found.targets.get(first_target..first_target + target_count) else {
            tracing::error!(%event, part = number, "an outbox part names targets that its event does not have");
            continue;
        };
        items.push(found.item(Work::Part { part: number, r#gen, targets: targets.to_vec() }, lease_until_ms));
    }
    Ok(Claimed { items, next_due_in })
}

/// Deliveries of the same event travel together. The order of the lanes is kept as far as that allows.
fn by_event(due: Vec<Due>) -> Vec<(EventId, Vec<DueDelivery>)> {
    let mut places: HashMap<EventId, usize> = HashMap::new();
    let mut groups: Vec<(EventId, Vec<DueDelivery>)> = Vec::new();
    for Due { event, delivery, .. } in due {
        let place = *places.entry(event).or_insert_with(|| {
            groups.push((event, Vec::new()));
            groups.len() - 1
        });
        groups[place].1.push(delivery);
    }
    groups
}

impl Found {
    fn item(&self, work: Work, lease_until_unix_ms: u64) -> Item {
        Item { event: Arc::clone(&self.event), table_version: self.table_version, lease_until_unix_ms, work }
    }
}
