//! Recording results: compare-and-set on the hold, then deliveries, due times, attempts, statistics.

mod writes;

use std::collections::{HashMap, HashSet};

use dispatcher_core::delivery::{Next, Outcome};
use dispatcher_core::id::{DeliveryId, EventId};
use sqlx::sqlite::SqliteConnection;
use sqlx::{Row as _, Sqlite, Transaction};
use uuid::Uuid;

use self::writes::Writes;
use super::encode::{self, Hex, count, uuid};
use super::{Change, LedgerError, Recorded, begin};
use crate::ledger::DeliveryResult;

/// Commits results; see [`crate::ledger::Ledger::record`]. `holder` is the process that holds what is in flight, if it
/// is known.
pub(super) async fn record(
    writer: &mut SqliteConnection,
    changes: &[Change],
    holder: Option<Uuid>,
    now_ms: u64,
) -> Result<Vec<Recorded>, LedgerError> {
    let mut answers = Vec::with_capacity(changes.len());
    let mut transaction = begin(writer).await?;
    for wave in waves(changes) {
        answers.extend(record_wave(&mut transaction, wave, Writes::new(now_ms, holder)).await?);
    }
    transaction.commit().await?;
    Ok(answers)
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Generation {
    run: u32,
    r#gen: u32,
}

/// The hold that an attempt was made under.
#[derive(Clone, Copy)]
struct Maker {
    generation: Generation,
    of_part: bool,
}

/// The row in `due` of an open delivery.
struct DueRow {
    generation: Generation,
    waiting: bool,
}

/// What a receiver answered to a stale holder of a part before the present one reported.
struct EarlySuccess {
    status_code: Option<u16>,
}

/// An outbox part that was still held, and is gone now.
struct HeldPart {
    pool: String,
    target_count: usize,
}

/// Cuts a batch where a delivery or a part comes again: the later change builds on the earlier one.
fn waves(changes: &[Change]) -> Vec<&[Change]> {
    let (mut waves, mut start) = (Vec::new(), 0);
    let (mut deliveries, mut parts) = (HashSet::new(), HashSet::new());
    for (place, change) in changes.iter().enumerate() {
        let comes_again = match change {
            Change::Part { event, part, results, .. } => {
                parts.contains(&(*event, *part))
                    || results.iter().any(|result| deliveries.contains(&result.key.delivery))
            }
            Change::Delivery { result, .. } => deliveries.contains(&result.key.delivery),
        };
        if comes_again {
            waves.push(&changes[start..place]);
            start = place;
            deliveries.clear();
            parts.clear();
        }
        match change {
            Change::Part { event, part, results, .. } => {
                parts.insert((*event, *part));
                deliveries.extend(results.iter().map(|result| result.key.delivery));
            }
            Change::Delivery { result, .. } => {
                deliveries.insert(result.key.delivery);
            }
        }
    }
    waves.push(&changes[start..]);
    waves
}

async fn record_wave(
    transaction: &mut Transaction<'_, Sqlite>,
    changes: &[Change],
    mut writes: Writes,
) -> Result<Vec<Recorded>, LedgerError> {
    let held_parts = delete_parts(transaction, changes).await?;
    let early_successes = early_successes(transaction, changes, &held_parts).await?;
    let due = due_rows(transaction, changes, &held_parts).await?;
    let mut answers = Vec::with_capacity(changes.len());
    for change in changes {
        let applied = match change {
            Change::Part { event, part, r#gen, results, .. } => {
                let maker = Maker { generation: Generation { run: 1, r#gen: *r#gen }, of_part: true };
                if let Some(held) = held_parts.get(&(*event, *part)) {
                    apply_part(&mut writes, held, maker, results, &early_successes)?
                } else {
                    for result in results {
                        supersede(&mut writes, &due, maker, result);
                    }
                    false
                }
            }
            Change::Delivery { run, r#gen, result } => {
                let generation = Generation { run: *run, r#gen: *r#gen };
                let maker = Maker { generation, of_part: false };
                let held =
                    due.get(&result.key.delivery).is_some_and(|row| row.generation == generation && !row.waiting);
                if held {
                    writes.change(maker, &result.key, result.attempt.as_ref(), &result.next);
                } else {
                    supersede(&mut writes, &due, maker, result);
                }
                held
            }
        };
        answers.push(if applied { Recorded::Applied } else { Recorded::Superseded });
    }
    writes.flush(transaction).await?;
    Ok(answers)
}

fn apply_part(
    writes: &mut Writes,
    held: &HeldPart,
    maker: Maker,
    results: &[DeliveryResult],
    early_successes: &HashMap<DeliveryId, EarlySuccess>,
) -> Result<bool, LedgerError> {
    let distinct: HashSet<_> = results.iter().map(|result| result.key.delivery).collect();
    if distinct.len() != held.target_count || results.len() != held.target_count {
        return Err(encode::refused("the results of a part are not one for each of its targets"));
    }
    for result in results {
        writes.insert(maker, &held.pool, result, early_successes.get(&result.key.delivery));
    }
    Ok(true)
}

/// A stale holder changes nothing, but what it saw is kept; and a 2xx is a 2xx.
fn supersede(writes: &mut Writes, due: &HashMap<DeliveryId, DueRow>, maker: Maker, result: &DeliveryResult) {
    let Some(attempt) = &result.attempt else { return };
    writes.keep_superseded(maker, result.key.delivery, attempt);
    let open_in_this_run = due.get(&result.key.delivery).is_some_and(|row| row.generation.run == maker.generation.run);
    if attempt.outcome == Outcome::Delivered && open_in_this_run {
        writes.finish_late(&result.key, attempt);
    }
}

/// Removes the parts that are still held by whoever reports on them, and answers them.
async fn delete_parts(
    transaction: &mut Transaction<'_, Sqlite>,
    changes: &[Change],
) -> Result<HashMap<(EventId, u16), HeldPart>, LedgerError> {
    let rows: Vec<_> = changes
        .iter()
        .filter_map(|change| match change {
            Change::Part { event, part, r#gen, .. } => Some((Hex(event.0), part, r#gen)),
            Change::Delivery { .. } => None,
        })
        .collect();
    if rows.is_empty() {
        return Ok(HashMap::new());
    }
    let deleted = sqlx::query(
        "DELETE FROM outbox
         WHERE (event, part, gen) IN (SELECT unhex(value->>0), value->>1, value->>2 FROM json_each(?1))
         RETURNING event, part, pool, target_count",
    )
    .bind(encode::rows(&rows)?)
    .fetch_all(&mut **transaction)
    .await?;
    let held = deleted.into_iter().map(|row| {
        let key = (EventId(uuid(row.try_get("event")?)?), count(row.try_get("part")?)?);
        Ok((key, HeldPart { pool: row.try_get("pool")?, target_count: count(row.try_get("target_count")?)? }))
    });
    held.collect()
}

/// Deliveries of held parts that an earlier, stale holder of the part has delivered after all: within its time with
/// the part, or later, on the slow track.
async fn early_successes(
    transaction: &mut Transaction<'_, Sqlite>,
    changes: &[Change],
    held_parts: &HashMap<(EventId, u16), HeldPart>,
) -> Result<HashMap<DeliveryId, EarlySuccess>, LedgerError> {
    let mut rows = Vec::new();
    for change in changes {
        // Only a part that was taken over has had another holder.
        if let Change::Part { event, part, r#gen: 2.., results, .. } = change
            && held_parts.contains_key(&(*event, *part))
        {
            rows.extend(
                results
                    .iter()
                    .filter(|result| result.next != Next::Delivered)
                    .map(|result| [Hex(result.key.delivery.0)]),
            );
        }
    }
    if rows.is_empty() {
        return Ok(HashMap::new());
    }
    let found = sqlx::query(
        "SELECT a.delivery, a.status_code FROM json_each(?1) j CROSS JOIN attempts a ON a.delivery = unhex(j.value->>0)
         WHERE a.run = 1 AND a.outcome = 'delivered'",
    )
    .bind(encode::rows(&rows)?)
    .fetch_all(&mut **transaction)
    .await?;
    let early = found.into_iter().map(|row| {
        let status_code: Option<i64> = row.try_get("status_code")?;
        let early = EarlySuccess { status_code: status_code.map(count).transpose()? };
        Ok((DeliveryId(uuid(row.try_get("delivery")?)?), early))
    });
    early.collect()
}

/// The `due` rows of all deliveries that a change could apply to.
async fn due_rows(
    transaction: &mut Transaction<'_, Sqlite>,
    changes: &[Change],
    held_parts: &HashMap<(EventId, u16), HeldPart>,
) -> Result<HashMap<DeliveryId, DueRow>, LedgerError> {
    let mut rows = Vec::new();
    for change in changes {
        match change {
            Change::Delivery { result, .. } => rows.push([Hex(result.key.delivery.0)]),
            Change::Part { event, part, results, .. } if !held_parts.contains_key(&(*event, *part)) => {
                rows.extend(results.iter().map(|result| [Hex(result.key.delivery.0)]));
            }
            Change::Part { .. } => {}
        }
    }
    if rows.is_empty() {
        return Ok(HashMap::new());
    }
    let found = sqlx::query(
        "SELECT d.delivery, d.run, d.gen, d.state = 0 AS waiting
         FROM json_each(?1) j CROSS JOIN due d ON d.delivery = unhex(j.value->>0)",
    )
    .bind(encode::rows(&rows)?)
    .fetch_all(&mut **transaction)
    .await?;
    let due = found.into_iter().map(|row| {
        let generation = Generation { run: count(row.try_get("run")?)?, r#gen: count(row.try_get("gen")?)? };
        Ok((DeliveryId(uuid(row.try_get("delivery")?)?), DueRow { generation, waiting: row.try_get("waiting")? }))
    });
    due.collect()
}
