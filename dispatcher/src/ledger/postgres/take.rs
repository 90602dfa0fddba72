//! Taking over holds: late or redelivered work, and all of it after a restart.

use std::collections::HashMap;
use std::time::Duration;

use dispatcher_core::id::{DeliveryId, EventId};
use sqlx::PgPool;
use uuid::Uuid;

use super::encode::{count, int4, microseconds};
use super::{Hold, LedgerError};

/// Raises the generations of the holds that are still valid; see [`crate::ledger::Ledger::take`].
pub(super) async fn take(
    pool: &PgPool,
    holds: &[Hold],
    lease: Duration,
    holder: Option<Uuid>,
) -> Result<Vec<Option<u32>>, LedgerError> {
    let (mut events, mut parts, mut part_generations) = (Vec::new(), Vec::new(), Vec::new());
    let (mut deliveries, mut runs, mut generations) = (Vec::new(), Vec::new(), Vec::new());
    // Of the same hold asked for twice only the first is served: taking it makes the second stale.
    let mut places: HashMap<Hold, usize> = HashMap::new();
    for (place, hold) in holds.iter().enumerate() {
        places.entry(*hold).or_insert(place);
    }
    let mut sorted: Vec<Hold> = places.keys().copied().collect();
    sorted.sort_unstable_by_key(|hold| match *hold {
        Hold::Part { event, part, .. } => (event.0, u32::from(part)),
        Hold::Delivery { delivery, run, .. } => (delivery.0, run),
    });
    for hold in sorted {
        match hold {
            Hold::Part { event, part, r#gen } => {
                events.push(event.0);
                parts.push(i32::from(part));
                part_generations.push(int4(r#gen));
            }
            Hold::Delivery { delivery, run, r#gen } => {
                deliveries.push(delivery.0);
                runs.push(int4(run));
                generations.push(int4(r#gen));
            }
        }
    }
    let mut transaction = pool.begin().await?;
    let mut taken = Vec::new();
    if !events.is_empty() {
        let rows: Vec<(Uuid, i32, i32)> = sqlx::query_as(TAKE_PARTS)
            .bind(&events)
            .bind(&parts)
            .bind(&part_generations)
            .bind(microseconds(lease))
            .fetch_all(&mut *transaction)
            .await?;
        for (event, part, r#gen) in rows {
            taken.push((Hold::Part { event: EventId(event), part: count(part)?, r#gen: count(r#gen - 1)? }, r#gen));
        }
    }
    if !deliveries.is_empty() {
        let rows: Vec<(Uuid, i32, i32)> = sqlx::query_as(TAKE_DELIVERIES)
            .bind(&deliveries)
            .bind(&runs)
            .bind(&generations)
            .bind(microseconds(lease))
            .bind(holder)
            .fetch_all(&mut *transaction)
            .await?;
        for (delivery, run, r#gen) in rows {
            let delivery = DeliveryId(delivery);
            taken.push((Hold::Delivery { delivery, run: count(run)?, r#gen: count(r#gen - 1)? }, r#gen));
        }
    }
    transaction.commit().await?;
    let mut answers = vec![None; holds.len()];
    for (hold, r#gen) in taken {
        if let Some(place) = places.get(&hold) {
            answers[*place] = Some(count(r#gen)?);
        }
    }
    Ok(answers)
}

const TAKE_PARTS: &str = "
    WITH held AS MATERIALIZED (
        SELECT o.event, o.part
        FROM unnest($1::uuid[], $2::int4[], $3::int4[]) AS u(event, part, gen)
        CROSS JOIN LATERAL (
            SELECT event, part FROM outbox WHERE event = u.event AND part = u.part AND gen = u.gen FOR UPDATE) o)
    UPDATE outbox SET gen = gen + 1, lease_until = now() + $4 * interval '1 microsecond'
    WHERE event = ANY(ARRAY(SELECT event FROM held)) AND ((event, part) IN (SELECT event, part FROM held)) IS TRUE
    RETURNING event, part, gen";

/// Only what is queued can be taken: what is in flight belongs to its holder until the lease ends. The new lease may
/// be shorter than the old one, so the lanes are woken.
const TAKE_DELIVERIES: &str = "
    WITH held AS MATERIALIZED (
        SELECT d.delivery
        FROM unnest($1::uuid[], $2::int4[], $3::int4[]) AS u(delivery, run, gen)
        CROSS JOIN LATERAL (
            SELECT delivery FROM due
            WHERE delivery = u.delivery AND run = u.run AND gen = u.gen AND state = 1 FOR UPDATE) d),
    taken AS (
        UPDATE due SET gen = gen + 1, due_at = now() + $4 * interval '1 microsecond', owner = $5
        WHERE delivery = ANY(ARRAY(SELECT delivery FROM held))
        RETURNING delivery, endpoint, run, gen),
    locked AS MATERIALIZED (
        SELECT endpoint FROM lanes WHERE endpoint = ANY(ARRAY(SELECT endpoint FROM taken))
        ORDER BY endpoint FOR NO KEY UPDATE),
    woken AS (
        UPDATE lanes SET next_due = least(next_due, now() + $4 * interval '1 microsecond')
        WHERE endpoint = ANY(ARRAY(SELECT endpoint FROM locked)))
    SELECT delivery, run, gen FROM taken";

/// Ends every lease; see [`crate::ledger::Ledger::expire_all_leases`].
pub(super) async fn expire_all_leases(pool: &PgPool) -> Result<(), LedgerError> {
    let mut transaction = pool.begin().await?;
    for statement in [
        "WITH held AS MATERIALIZED (
             SELECT event, part FROM outbox WHERE lease_until > now() ORDER BY event, part FOR UPDATE)
         UPDATE outbox SET lease_until = now(), gen = gen + 1
         WHERE ((event, part) IN (SELECT event, part FROM held)) IS TRUE",
        "WITH held AS MATERIALIZED (SELECT delivery FROM due WHERE state <> 0 ORDER BY delivery FOR UPDATE),
         freed AS (
             UPDATE due SET due_at = now(), gen = gen + 1, state = 0, owner = NULL
             WHERE (delivery IN (SELECT delivery FROM held)) IS TRUE RETURNING endpoint),
         locked AS MATERIALIZED (
             SELECT endpoint FROM lanes WHERE endpoint = ANY(ARRAY(SELECT endpoint FROM freed))
             ORDER BY endpoint FOR NO KEY UPDATE)
         UPDATE lanes SET next_due = least(next_due, now()) WHERE endpoint = ANY(ARRAY(SELECT endpoint FROM locked))",
    ] {
        sqlx::query(statement).execute(&mut *transaction).await?;
    }
    transaction.commit().await?;
    Ok(())
}
