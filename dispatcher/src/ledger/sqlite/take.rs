//! Taking over holds: late or redelivered work, and all of it after a restart.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use dispatcher_core::id::{DeliveryId, EventId};
use sqlx::sqlite::SqliteConnection;
use sqlx::{Row as _, Sqlite, Transaction};
use uuid::Uuid;

use super::encode::{self, Hex, blob, count, integer, uuid};
use super::{Hold, LedgerError, begin};

/// Raises the generations of the holds that are still valid; see [`crate::ledger::Ledger::take`].
pub(super) async fn take(
    writer: &mut SqliteConnection,
    holds: &[Hold],
    lease_until_ms: u64,
    holder: Option<Uuid>,
) -> Result<Vec<Option<u32>>, LedgerError> {
    let (mut parts, mut deliveries) = (Vec::new(), Vec::new());
    // Of the same hold asked for twice only the first is served: taking it makes the second stale.
    let mut places: HashMap<Hold, usize> = HashMap::new();
    for (place, hold) in holds.iter().enumerate() {
        let Entry::Vacant(first) = places.entry(*hold) else { continue };
        first.insert(place);
        match *hold {
            Hold::Part { event, part, r#gen } => parts.push((Hex(event.0), part, r#gen)),
            Hold::Delivery { delivery, run, r#gen } => deliveries.push((Hex(delivery.0), run, r#gen)),
        }
    }
    let mut transaction = begin(writer).await?;
    let mut answers = vec![None; holds.len()];
    for (taken, r#gen) in take_parts(&mut transaction, &parts, lease_until_ms)
        .await?
        .into_iter()
        .chain(take_deliveries(&mut transaction, &deliveries, lease_until_ms, holder).await?)
    {
        if let Some(place) = places.get(&taken) {
            answers[*place] = Some(r#gen);
        }
    }
    transaction.commit().await?;
    Ok(answers)
}

/// Answers each hold that was valid, with its new generation.
async fn take_parts(
    transaction: &mut Transaction<'_, Sqlite>,
    rows: &[(Hex, u16, u32)],
    lease_until_ms: u64,
) -> Result<Vec<(Hold, u32)>, LedgerError> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let taken = sqlx::query(
        "UPDATE outbox SET gen = outbox.gen + 1, lease_until = ?2 FROM json_each(?1) j
         WHERE outbox.event = unhex(j.value->>0) AND outbox.part = j.value->>1 AND outbox.gen = j.value->>2
         RETURNING event, part, gen",
    )
    .bind(encode::rows(rows)?)
    .bind(integer(lease_until_ms))
    .fetch_all(&mut **transaction)
    .await?;
    let holds = taken.into_iter().map(|row| {
        let r#gen: u32 = count(row.try_get("gen")?)?;
        let (event, part) = (EventId(uuid(row.try_get("event")?)?), count(row.try_get("part")?)?);
        Ok((Hold::Part { event, part, r#gen: r#gen - 1 }, r#gen))
    });
    holds.collect()
}

/// Only what is queued can be taken: what is in flight belongs to its holder until the lease ends.
async fn take_deliveries(
    transaction: &mut Transaction<'_, Sqlite>,
    rows: &[(Hex, u32, u32)],
    lease_until_ms: u64,
    holder: Option<Uuid>,
) -> Result<Vec<(Hold, u32)>, LedgerError> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let taken = sqlx::query(
        "UPDATE due SET gen = due.gen + 1, due_at = ?2, owner = ?3 FROM json_each(?1) j
         WHERE due.delivery = unhex(j.value->>0) AND due.run = j.value->>1 AND due.gen = j.value->>2
           AND due.state = 1
         RETURNING delivery, run, gen",
    )
    .bind(encode::rows(rows)?)
    .bind(integer(lease_until_ms))
    .bind(holder.map(blob))
    .fetch_all(&mut **transaction)
    .await?;
    // The new lease may be shorter than the old one.
    sqlx::query(
        "UPDATE lanes SET next_due = ?2
         WHERE next_due > ?2 AND endpoint IN (
             SELECT d.endpoint FROM json_each(?1) j CROSS JOIN due d ON d.delivery = unhex(j.value->>0)
             WHERE d.due_at = ?2)",
    )
    .bind(encode::rows(rows)?)
    .bind(integer(lease_until_ms))
    .execute(&mut **transaction)
    .await?;
    let holds = taken.into_iter().map(|row| {
        let r#gen: u32 = count(row.try_get("gen")?)?;
        let (delivery, run) = (DeliveryId(uuid(row.try_get("delivery")?)?), count(row.try_get("run")?)?);
        Ok((Hold::Delivery { delivery, run, r#gen: r#gen - 1 }, r#gen))
    });
    holds.collect()
}

/// Ends every lease; see [`crate::ledger::Ledger::expire_all_leases`].
pub(super) async fn expire_all_leases(writer: &mut SqliteConnection, now_ms: u64) -> Result<(), LedgerError> {
    let mut transaction = begin(writer).await?;
    for statement in [
        "UPDATE outbox SET lease_until = ?1, gen = gen + 1 WHERE lease_until > ?1",
        "UPDATE lanes SET next_due = min(next_due, ?1)
         WHERE endpoint IN (SELECT endpoint FROM due WHERE state <> 0)",
        "UPDATE due SET due_at = ?1, gen = gen + 1, state = 0, owner = NULL WHERE state <> 0",
    ] {
        sqlx::query(statement).bind(integer(now_ms)).execute(&mut *transaction).await?;
    }
    transaction.commit().await?;
    Ok(())
}
