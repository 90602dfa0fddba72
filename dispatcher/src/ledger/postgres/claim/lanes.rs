//! The due deliveries of a claim: which lanes have their turn, and what is due in them.

use std::collections::HashSet;
use std::time::Duration;

use dispatcher_core::delivery::Target;
use dispatcher_core::id::{DeliveryId, EndpointId, EventId, SubscriptionId, TenantId};
use dispatcher_core::limits::{
    CLAIM_LANE_DELIVERIES_MAX, CLAIM_LANES_LOOKED_AT_MAX, CLAIM_LANES_MAX, CLAIM_TENANT_LANES_MAX,
};
use sqlx::{Postgres, Transaction};
use uuid::Uuid;

use crate::ledger::postgres::encode::{count, int8, microseconds};
use crate::ledger::{Claim, LedgerError};
use crate::queue::DueDelivery;

/// A claimed delivery.
pub(super) struct Due {
    pub(super) tenant: TenantId,
    pub(super) event: EventId,
    pub(super) delivery: DueDelivery,
}

/// Tenant, event, delivery, subscription, endpoint; run, generation, attempts, age of the run in milliseconds.
type DueRow = (Uuid, Uuid, Uuid, Uuid, Uuid, i32, i32, i32, i64);

struct Lane {
    endpoint: EndpointId,
    quota: Option<u32>,
}

/// Claims due deliveries round the lanes, and sends the visited lanes to the end of the round.
pub(super) async fn claim(
    transaction: &mut Transaction<'_, Postgres>,
    claim: &Claim,
    deliveries_max: usize,
) -> Result<Vec<Due>, LedgerError> {
    let lanes = lock_ready(transaction, &claim.pool, deliveries_max).await?;
    if lanes.is_empty() {
        return Ok(Vec::new());
    }
    let shares: Vec<i64> =
        lanes.iter().enumerate().map(|(place, lane)| int8(share(deliveries_max, lanes.len(), place, lane))).collect();
    let claimed = lease_due(transaction, &lanes, &shares, claim).await?;
    turn(transaction, &lanes, &claimed, claim.lease).await?;
    Ok(claimed)
}

/// Most deliveries that the claim takes from a lane: an even part of its bound, the first lanes one more.
fn share(deliveries_max: usize, lanes: usize, place: usize, lane: &Lane) -> usize {
    let even = deliveries_max / lanes + usize::from(place < deliveries_max % lanes);
    let quota = lane.quota.map_or(usize::MAX, |quota| quota as usize);
    even.min(CLAIM_LANE_DELIVERIES_MAX).min(quota)
}

/// Locks the lanes whose turn it is, no tenant with more than its share. One that is locked already is being woken or
/// changed, and has its turn at the next claim.
async fn lock_ready(
    transaction: &mut Transaction<'_, Postgres>,
    pool: &str,
    lanes_max: usize,
) -> Result<Vec<Lane>, LedgerError> {
    let rows: Vec<(Uuid, Option<i32>)> = sqlx::query_as(
        "WITH ready AS (
             SELECT endpoint, ready_at, row_number() OVER (PARTITION BY tenant ORDER BY ready_at) AS place
             FROM (SELECT endpoint, tenant, ready_at FROM lanes WHERE pool = $1 AND ready_at <= now()
                   ORDER BY ready_at LIMIT $2) looked_at),
         chosen AS MATERIALIZED (SELECT endpoint FROM ready WHERE place <= $3 ORDER BY ready_at LIMIT $4)
         SELECT l.endpoint, l.quota FROM chosen CROSS JOIN LATERAL (
             SELECT endpoint, quota FROM lanes WHERE endpoint = chosen.endpoint AND pool = $1 AND ready_at <= now()
             FOR NO KEY UPDATE SKIP LOCKED) l",
    )
    .bind(pool)
    .bind(int8(CLAIM_LANES_LOOKED_AT_MAX))
    .bind(int8(CLAIM_TENANT_LANES_MAX))
    .bind(int8(lanes_max.min(CLAIM_LANES_MAX)))
    .fetch_all(&mut **transaction)
    .await?;
    let lanes = rows
        .into_iter()
        .map(|(endpoint, quota)| Ok(Lane { endpoint: EndpointId(endpoint), quota: quota.map(count).transpose()? }));
    lanes.collect()
}

async fn lease_due(
    transaction: &mut Transaction<'_, Postgres>,
    lanes: &[Lane],
    shares: &[i64],
    claim: &Claim,
) -> Result<Vec<Due>, LedgerError> {
    let endpoints: Vec<Uuid> = lanes.iter().map(|lane| lane.endpoint.0).collect();
    let rows: Vec<DueRow> = sqlx::query_as(
        "WITH chosen AS MATERIALIZED (
             SELECT q.delivery FROM unnest($1::uuid[], $2::int8[]) AS lane(endpoint, share)
             CROSS JOIN LATERAL (
                 SELECT delivery FROM due WHERE due.endpoint = lane.endpoint AND due_at <= now()
                 ORDER BY due_at LIMIT lane.share FOR NO KEY UPDATE SKIP LOCKED) q),
         leased AS (
             UPDATE due SET due_at = now() + $3 * interval '1 microsecond', gen = gen + 1, state = 1, owner = $4
             WHERE delivery = ANY(ARRAY(SELECT delivery FROM chosen)) RETURNING delivery, run, gen)
         SELECT d.tenant, d.event, d.id, d.subscription, d.endpoint, leased.run, leased.gen, d.attempts,
                greatest(0, floor(extract(epoch FROM now() - d.run_started_at) * 1000))::int8
         FROM leased CROSS JOIN LATERAL (SELECT * FROM deliveries WHERE id = leased.delivery OFFSET 0) d",
    )
    .bind(&endpoints)
    .bind(shares)
    .bind(microseconds(claim.lease))
    .bind(claim.instance)
    .fetch_all(&mut **transaction)
    .await?;
    let claimed =
        rows.into_iter().map(|(tenant, event, delivery, subscription, endpoint, run, r#gen, attempts, run_age_ms)| {
            let delivery = DueDelivery {
                delivery: DeliveryId(delivery),
                target: Target { subscription: SubscriptionId(subscription), endpoint: EndpointId(endpoint) },
                run: count(run)?,
                r#gen: count(r#gen)?,
                attempts: count(attempts)?,
                run_age: Duration::from_millis(count(run_age_ms)?),
            };
            Ok(Due { tenant: TenantId(tenant), event: EventId(event), delivery })
        });
    claimed.collect()
}

/// A lane with a quota has had it: its gate closes until whoever holds the probes says how they went, or their lease
/// is over.
async fn turn(
    transaction: &mut Transaction<'_, Postgres>,
    lanes: &[Lane],
    claimed: &[Due],
    lease: Duration,
) -> Result<(), LedgerError> {
    let taken_from: HashSet<_> = claimed.iter().map(|due| due.delivery.target.endpoint).collect();
    let endpoints: Vec<Uuid> = lanes.iter().map(|lane| lane.endpoint.0).collect();
    let taken: Vec<bool> = lanes.iter().map(|lane| taken_from.contains(&lane.endpoint)).collect();
    sqlx::query(
        "UPDATE lanes l SET turn = clock_timestamp(),
             next_due = coalesce((SELECT due_at FROM due WHERE due.endpoint = l.endpoint ORDER BY due_at LIMIT 1),
                                 'infinity'),
             gate_until = CASE WHEN l.quota IS NOT NULL AND u.taken THEN now() + $3 * interval '1 microsecond'
                               ELSE l.gate_until END
         FROM unnest($1::uuid[], $2::bool[]) AS u(endpoint, taken)
         WHERE l.endpoint = u.endpoint AND l.endpoint = ANY($1)",
    )
    .bind(&endpoints)
    .bind(&taken)
    .bind(microseconds(lease))
    .execute(&mut **transaction)
    .await?;
    Ok(())
}
