//! Claiming due work: outbox parts whose lease is over, and due deliveries, round the lanes.
//!
//! A look on a reading connection comes first, so that an idle claimer never waits for the writer. Events are
//! read after the commit, each once, also outside the write.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use dispatcher_core::delivery::Target;
use dispatcher_core::event::Event;
use dispatcher_core::id::{DeliveryId, EndpointId, EventId, SubscriptionId, TenantId};
use dispatcher_core::limits::{
    CLAIM_DUE_SHARE, CLAIM_LANE_DELIVERIES_MAX, CLAIM_LANES_LOOKED_AT_MAX, CLAIM_LANES_MAX, CLAIM_TENANT_LANES_MAX,
};
use dispatcher_core::table::TableVersion;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{Row as _, Sqlite, SqlitePool, Transaction};
use uuid::Uuid;

use super::encode::{self, Hex, blob, count, integer, milliseconds, uuid};
use super::listing::{event_of, targets_of};
use super::{Claim, Claimed, LedgerError, NEVER_MS, begin, dispatchers};
use crate::queue::{DueDelivery, Item, Work};

/// When something in a pool is due next: the end of a part's lease, or a lane.
const NEXT_DUE: &str = "SELECT min(at) AS at FROM (
        SELECT min(lease_until) AS at FROM outbox WHERE pool = ?1
        UNION ALL SELECT min(ready_at) FROM lanes WHERE pool = ?1)";

/// Times of one claim, in milliseconds since the Unix epoch.
#[derive(Clone, Copy)]
pub(super) struct Times {
    /// Now.
    pub(super) now_ms: u64,
    /// The lanes' next turn, a little later than now: see `SqliteLedger::next_turn_ms`.
    pub(super) turn_ms: u64,
}

/// Claimed work whose events have not been read yet.
pub(super) struct ClaimedWork {
    parts: Vec<Part>,
    due: Vec<Due>,
    lease_until_ms: u64,
    next_due_in: Option<Duration>,
}

struct Part {
    tenant: TenantId,
    event: EventId,
    number: u16,
    r#gen: u32,
    first_target: usize,
    target_count: usize,
}

struct Due {
    tenant: TenantId,
    event: EventId,
    delivery: DueDelivery,
}

/// What a claim sees before it writes.
pub(super) struct Look {
    /// When something in the pool is due next.
    pub(super) due_in: Option<Duration>,
    /// Whether a dead process has something in flight, in whatever pool; see [`dispatchers::free_abandoned`].
    pub(super) is_abandoned: bool,
}

/// Looks without a write. What is due by `horizon_ms` is due now.
pub(super) async fn look(readers: &SqlitePool, pool: &str, horizon_ms: u64, now_ms: u64) -> Result<Look, LedgerError> {
    let due = sqlx::query(NEXT_DUE).bind(pool).fetch_one(readers).await?;
    let [dead_since, seen_since] = dispatchers::bounds(now_ms);
    let abandoned = sqlx::query(dispatchers::IS_ABANDONED).bind(dead_since).bind(seen_since).fetch_one(readers).await?;
    Ok(Look { due_in: due_in(&due, horizon_ms)?, is_abandoned: abandoned.try_get("is_abandoned")? })
}

fn due_in(row: &SqliteRow, now_ms: u64) -> Result<Option<Duration>, LedgerError> {
    let at: Option<i64> = row.try_get("at")?;
    let Some(at_ms) = at.map(count::<u64>).transpose()? else { return Ok(None) };
    Ok((at_ms < NEVER_MS).then(|| Duration::from_millis(at_ms.saturating_sub(now_ms))))
}

/// Claims in one transaction.
pub(super) async fn claim(
    writer: &mut SqliteConnection,
    claim: &Claim,
    times: Times,
) -> Result<ClaimedWork, LedgerError> {
    let lease_until_ms = times.now_ms + milliseconds(claim.lease);
    let mut transaction = begin(writer).await?;
    let mut parts = ready_parts(&mut transaction, claim, times.now_ms).await?;
    let in_parts: usize = parts.iter().map(|part| part.target_count).sum();
    let due_max = claim.deliveries_max.saturating_sub(in_parts).max(claim.deliveries_max / CLAIM_DUE_SHARE);

    let due = claim_due(&mut transaction, claim, due_max, times, lease_until_ms).await?;
    keep_within(&mut parts, claim.deliveries_max.saturating_sub(due.len()), due.is_empty());
    lease_parts(&mut transaction, &parts, lease_until_ms).await?;

    let row = sqlx::query(NEXT_DUE).bind(&claim.pool).fetch_one(&mut *transaction).await?;
    let next_due_in = due_in(&row, times.turn_ms)?;
    transaction.commit().await?;
    Ok(ClaimedWork { parts, due, lease_until_ms, next_due_in })
}

/// Parts whose lease is over, oldest first, as they will be once they are leased; more than the claim may take, never fewer.
async fn ready_parts(
    transaction: &mut Transaction<'_, Sqlite>,
    claim: &Claim,
    now_ms: u64,
) -> Result<Vec<Part>, LedgerError> {
    let rows = sqlx::query(
        "SELECT tenant, event, part, gen, first_target, target_count FROM outbox
         WHERE pool = ?1 AND lease_until <= ?2 ORDER BY lease_until LIMIT ?3",
    )
    .bind(&claim.pool)
    .bind(integer(now_ms))
    .bind(integer(claim.deliveries_max as u64))
    .fetch_all(&mut **transaction)
    .await?;
    let parts = rows.into_iter().map(|row| {
        let r#gen: u32 = count(row.try_get("gen")?)?;
        Ok(Part {
            tenant: TenantId(uuid(row.try_get("tenant")?)?),
            event: EventId(uuid(row.try_get("event")?)?),
            number: count(row.try_get("part")?)?,
            r#gen: r#gen + 1,
            first_target: count(row.try_get("first_target")?)?,
            target_count: count(row.try_get("target_count")?)?,
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

async fn lease_parts(
    transaction: &mut Transaction<'_, Sqlite>,
    parts: &[Part],
    lease_until_ms: u64,
) -> Result<(), LedgerError> {
    if parts.is_empty() {
        return Ok(());
    }
    let rows: Vec<_> = parts.iter().map(|part| (Hex(part.event.0), part.number)).collect();
    sqlx::query(
        "UPDATE outbox SET gen = gen + 1, lease_until = ?2 FROM json_each(?1) j
         WHERE event = unhex(j.value->>0) AND part = j.value->>1",
    )
    .bind(encode::rows(&rows)?)
    .bind(integer(lease_until_ms))
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

struct Lane {
    endpoint: EndpointId,
    quota: Option<u32>,
}

async fn claim_due(
    transaction: &mut Transaction<'_, Sqlite>,
    claim: &Claim,
    deliveries_max: usize,
    times: Times,
    lease_until_ms: u64,
) -> Result<Vec<Due>, LedgerError> {
    let lanes = ready_lanes(transaction, &claim.pool, deliveries_max, times).await?;
    if lanes.is_empty() {
        return Ok(Vec::new());
    }
    let shares: Vec<_> = lanes
        .iter()
        .enumerate()
        .map(|(place, lane)| (Hex(lane.endpoint.0), share(deliveries_max, lanes.len(), place, lane)))
        .collect();
    let rows = sqlx::query(
        "SELECT d.tenant, d.event, d.id, d.subscription, d.endpoint, q.run, q.gen, d.attempts, d.run_started_at
         FROM json_each(?1) j
         CROSS JOIN due q ON q.delivery IN (
             SELECT delivery FROM (
                 SELECT delivery, row_number() OVER (ORDER BY due_at) AS place FROM due
                 WHERE endpoint = unhex(j.value->>0) AND due_at <= ?2 ORDER BY due_at LIMIT ?3)
             WHERE place <= j.value->>1)
         CROSS JOIN deliveries d ON d.id = q.delivery",
    )
    .bind(encode::rows(&shares)?)
    .bind(integer(times.now_ms))
    .bind(integer(CLAIM_LANE_DELIVERIES_MAX as u64))
    .fetch_all(&mut **transaction)
    .await?;
    let claimed = rows.iter().map(|row| due_delivery(row, times.now_ms)).collect::<Result<Vec<_>, _>>()?;
    lease_due(transaction, &claimed, claim.instance, lease_until_ms).await?;
    turn_lanes(transaction, &lanes, &claimed, times, lease_until_ms).await?;
    Ok(claimed)
}

/// What one of the lanes may give, so that all of them together give no more than the claim may take.
fn share(deliveries_max: usize, lanes: usize, place: usize, lane: &Lane) -> usize {
    let even = deliveries_max / lanes + usize::from(place < deliveries_max % lanes);
    let quota = lane.quota.map_or(usize::MAX, |quota| quota as usize);
    even.min(CLAIM_LANE_DELIVERIES_MAX).min(quota)
}

/// The lanes whose turn it is, no tenant with more than its share.
async fn ready_lanes(
    transaction: &mut Transaction<'_, Sqlite>,
    pool: &str,
    lanes_max: usize,
    times: Times,
) -> Result<Vec<Lane>, LedgerError> {
    let rows = sqlx::query(
        "SELECT endpoint, quota FROM (
             SELECT endpoint, quota, ready_at, row_number() OVER (PARTITION BY tenant ORDER BY ready_at) AS place
             FROM (SELECT endpoint, tenant, quota, ready_at FROM lanes WHERE pool = ?1 AND ready_at <= ?2
                   ORDER BY ready_at LIMIT ?3))
         WHERE place <= ?4 ORDER BY ready_at LIMIT ?5",
    )
    .bind(pool)
    .bind(integer(times.turn_ms))
    .bind(integer(CLAIM_LANES_LOOKED_AT_MAX as u64))
    .bind(integer(CLAIM_TENANT_LANES_MAX as u64))
    .bind(integer(lanes_max.min(CLAIM_LANES_MAX) as u64))
    .fetch_all(&mut **transaction)
    .await?;
    let lanes = rows.into_iter().map(|row| {
        let quota: Option<i64> = row.try_get("quota")?;
        let quota = quota.map(count).transpose()?;
        Ok(Lane { endpoint: EndpointId(uuid(row.try_get("endpoint")?)?), quota })
    });
    lanes.collect()
}

/// Reads a due delivery as it will be once it is leased.
fn due_delivery(row: &SqliteRow, now_ms: u64) -> Result<Due, LedgerError> {
    let run_started_ms: u64 = count(row.try_get("run_started_at")?)?;
    let r#gen: u32 = count(row.try_get("gen")?)?;
    let delivery = DueDelivery {
        delivery: DeliveryId(uuid(row.try_get("id")?)?),
        target: Target {
            subscription: SubscriptionId(uuid(row.try_get("subscription")?)?),
            endpoint: EndpointId(uuid(row.try_get("endpoint")?)?),
        },
        run: count(row.try_get("run")?)?,
        r#gen: r#gen + 1,
        attempts: count(row.try_get("attempts")?)?,
        run_age: Duration::from_millis(now_ms.saturating_sub(run_started_ms)),
    };
    let (tenant, event) = (TenantId(uuid(row.try_get("tenant")?)?), EventId(uuid(row.try_get("event")?)?));
    Ok(Due { tenant, event, delivery })
}

async fn lease_due(
    transaction: &mut Transaction<'_, Sqlite>,
    claimed: &[Due],
    owner: Uuid,
    lease_until_ms: u64,
) -> Result<(), LedgerError> {
    let rows: Vec<_> = claimed.iter().map(|due| [Hex(due.delivery.delivery.0)]).collect();
    sqlx::query(
        "UPDATE due SET gen = gen + 1, due_at = ?2, state = 1, owner = ?3
         WHERE delivery IN (SELECT unhex(value->>0) FROM json_each(?1))",
    )
    .bind(encode::rows(&rows)?)
    .bind(integer(lease_until_ms))
    .bind(blob(owner))
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// Sends the visited lanes to the end of the round. A lane with a quota has had it: its gate closes until whoever
/// holds the probes says how they went, or their lease is over.
async fn turn_lanes(
    transaction: &mut Transaction<'_, Sqlite>,
    lanes: &[Lane],
    claimed: &[Due],
    times: Times,
    lease_until_ms: u64,
) -> Result<(), LedgerError> {
    let taken_from: HashSet<_> = claimed.iter().map(|due| due.delivery.target.endpoint).collect();
    let rows: Vec<_> = lanes.iter().map(|lane| (Hex(lane.endpoint.0), taken_from.contains(&lane.endpoint))).collect();
    sqlx::query(
        "UPDATE lanes SET turn = ?2,
             next_due = coalesce((SELECT min(due_at) FROM due WHERE due.endpoint = lanes.endpoint), ?3),
             gate_until = CASE WHEN quota IS NOT NULL AND j.value->>1 THEN ?4 ELSE gate_until END
         FROM json_each(?1) j WHERE lanes.endpoint = unhex(j.value->>0)",
    )
    .bind(encode::rows(&rows)?)
    .bind(integer(times.turn_ms))
    .bind(integer(NEVER_MS))
    .bind(integer(lease_until_ms))
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// Reads the events of claimed work and joins the two, each event once.
pub(super) async fn with_events(readers: &SqlitePool, claimed: ClaimedWork) -> Result<Claimed, LedgerError> {
    let ClaimedWork { parts, due, lease_until_ms, next_due_in } = claimed;
    let part_events = parts.iter().map(|part| (part.tenant, part.event));
    let due_events = due.iter().map(|due| (due.tenant, due.event));
    let events = events_of(readers, part_events.chain(due_events).collect()).await?;

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

struct Found {
    event: Arc<Event>,
    targets: Vec<Target>,
    table_version: TableVersion,
}

impl Found {
    fn item(&self, work: Work, lease_until_unix_ms: u64) -> Item {
        Item { event: Arc::clone(&self.event), table_version: self.table_version, lease_until_unix_ms, work }
    }
}

async fn events_of(
    readers: &SqlitePool,
    mut wanted: Vec<(TenantId, EventId)>,
) -> Result<HashMap<EventId, Found>, LedgerError> {
    wanted.sort_unstable();
    wanted.dedup();
    if wanted.is_empty() {
        return Ok(HashMap::new());
    }
    let rows: Vec<_> = wanted.iter().map(|(tenant, event)| (Hex(tenant.0), Hex(event.0))).collect();
    let rows = sqlx::query(
        "SELECT e.tenant, e.id, e.event_type, e.recipient, e.content_type, e.attributes, e.table_version,
                e.targets, e.body
         FROM json_each(?1) j
         CROSS JOIN events e ON e.tenant = unhex(j.value->>0) AND e.id = unhex(j.value->>1)",
    )
    .bind(encode::rows(&rows)?)
    .fetch_all(readers)
    .await?;
    if rows.len() < wanted.len() {
        tracing::error!(missing = wanted.len() - rows.len(), "deliveries are open whose events are not in the ledger");
    }
    let found = rows.iter().map(|row| {
        let event = event_of(row)?;
        let table_version = TableVersion(count(row.try_get("table_version")?)?);
        let targets = targets_of(row.try_get("targets")?)?;
        Ok((event.id, Found { event: Arc::new(event), targets, table_version }))
    });
    found.collect()
}
