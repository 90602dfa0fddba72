//! Recording results: compare-and-set on the hold, then deliveries, due times, attempts, lanes.
//!
//! Parts that end with their first attempt take one round trip a batch; the others go in a transaction of their own.

mod columns;
mod first;

use std::collections::{BTreeMap, HashMap, HashSet};

use dispatcher_core::delivery::{Next, Outcome};
use dispatcher_core::id::{DeliveryId, EventId};
use sqlx::{Connection, PgConnection, Postgres, Transaction};
use uuid::Uuid;

use self::columns::Writes;
use super::encode::{self, count, int4};
use super::statistics::Counted;
use super::{Change, LedgerError, Recorded};
use crate::ledger::DeliveryResult;

/// Commits results; see [`crate::ledger::Ledger::record`]. What was committed is added to `counted`, also when a later
/// part of the batch fails: tried again, it is stale and is not counted.
/// `holder` is the process that holds what is in flight, if it is known.
pub(super) async fn record(
    connection: &mut PgConnection,
    changes: &[Change],
    holder: Option<Uuid>,
    counted: &mut Counted,
) -> Result<Vec<Recorded>, LedgerError> {
    let recorded = first::record(connection, changes, counted).await?;
    let rest: Vec<&Change> =
        changes.iter().zip(&recorded).filter(|(_, done)| !**done).map(|(change, _)| change).collect();
    if rest.is_empty() {
        return Ok(vec![Recorded::Applied; changes.len()]);
    }
    // Each in a transaction of its own: locks are taken in one order only within a wave.
    let mut of_rest = Vec::with_capacity(rest.len());
    for wave in waves(&rest) {
        let (mut transaction, mut of_wave) = (connection.begin().await?, Counted::default());
        of_rest.extend(record_wave(&mut transaction, wave, holder, &mut of_wave).await?);
        transaction.commit().await?;
        counted.merge(of_wave);
    }
    let mut of_rest = of_rest.into_iter();
    let answers = recorded.iter().filter_map(|done| if *done { Some(Recorded::Applied) } else { of_rest.next() });
    Ok(answers.collect())
}

/// The hold that an attempt was made under.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Maker {
    run: u32,
    r#gen: u32,
    of_part: bool,
}

impl Maker {
    /// That of an attempt which can stand in the row of its delivery.
    const FIRST: Self = Self { run: 1, r#gen: 1, of_part: true };
}

/// The row in `due` of an open delivery.
struct DueRow {
    run: u32,
    r#gen: u32,
    waiting: bool,
}

/// An outbox part that was still held, and is gone now.
struct HeldPart {
    pool: String,
    target_count: usize,
}

/// What stands in the ledger of the things that a wave speaks of, locked.
struct Present {
    parts: HashMap<(EventId, u16), HeldPart>,
    due: HashMap<DeliveryId, DueRow>,
    /// Deliveries of held parts that an earlier, stale holder of the part has delivered after all.
    early_successes: HashMap<DeliveryId, EarlySuccess>,
    /// First attempts that stand in the rows of their deliveries, by their outcome.
    first_attempts: HashMap<DeliveryId, Outcome>,
}

/// What a receiver answered to a stale holder before the present one reported.
struct EarlySuccess {
    status_code: Option<i16>,
}

/// Cuts a batch where a delivery or a part comes again: the later change builds on the earlier one.
fn waves<'a, 'b>(changes: &'a [&'b Change]) -> Vec<&'a [&'b Change]> {
    let (mut waves, mut start) = (Vec::new(), 0);
    let mut seen: HashSet<(Uuid, Option<u16>)> = HashSet::new();
    for (place, change) in changes.iter().enumerate() {
        let mut keys = Vec::new();
        match change {
            Change::Part { event, part, results, .. } => {
                keys.push((event.0, Some(*part)));
                keys.extend(results.iter().map(|result| (result.key.delivery.0, None)));
            }
            Change::Delivery { result, .. } => keys.push((result.key.delivery.0, None)),
        }
        if keys.iter().any(|key| seen.contains(key)) {
            waves.push(&changes[start..place]);
            start = place;
            seen.clear();
        }
        seen.extend(keys);
    }
    waves.push(&changes[start..]);
    waves
}

async fn record_wave(
    transaction: &mut Transaction<'_, Postgres>,
    changes: &[&Change],
    holder: Option<Uuid>,
    counted: &mut Counted,
) -> Result<Vec<Recorded>, LedgerError> {
    let parts = delete_parts(transaction, changes).await?;
    let early_successes = early_successes(transaction, changes, &parts).await?;
    let due = due_rows(transaction, changes, &parts).await?;
    let first_attempts = first_attempts(transaction, changes, &parts).await?;
    let present = Present { parts, due, early_successes, first_attempts };
    let mut writes = Writes::default();
    let mut answers = Vec::with_capacity(changes.len());
    for change in changes {
        let applied = match change {
            Change::Part { event, part, r#gen, results, .. } => {
                let maker = Maker { run: 1, r#gen: *r#gen, of_part: true };
                if let Some(held) = present.parts.get(&(*event, *part)) {
                    apply_part(&mut writes, &present, held, maker, results)?
                } else {
                    for result in results {
                        supersede(&mut writes, &present, maker, result);
                    }
                    false
                }
            }
            Change::Delivery { run, r#gen, result } => {
                let maker = Maker { run: *run, r#gen: *r#gen, of_part: false };
                let row = present.due.get(&result.key.delivery);
                let held = row.is_some_and(|row| (row.run, row.r#gen) == (*run, *r#gen) && !row.waiting);
                if held {
                    writes.change(maker, result);
                } else {
                    supersede(&mut writes, &present, maker, result);
                }
                held
            }
        };
        answers.push(if applied { Recorded::Applied } else { Recorded::Superseded });
    }
    counted.merge(writes.flush(transaction, holder).await?);
    Ok(answers)
}

fn apply_part(
    writes: &mut Writes,
    present: &Present,
    held: &HeldPart,
    maker: Maker,
    results: &[DeliveryResult],
) -> Result<bool, LedgerError> {
    let distinct: HashSet<_> = results.iter().map(|result| result.key.delivery).collect();
    if distinct.len() != held.target_count || results.len() != held.target_count {
        return Err(encode::refused("the results of a part are not one for each of its targets"));
    }
    for result in results {
        writes.insert(maker, &held.pool, result, present.early_successes.get(&result.key.delivery));
    }
    Ok(true)
}

/// A stale holder changes nothing, but what it saw is kept; and a 2xx is a 2xx.
fn supersede(writes: &mut Writes, present: &Present, maker: Maker, result: &DeliveryResult) {
    let Some(attempt) = &result.attempt else { return };
    let is_success = attempt.outcome == Outcome::Delivered;
    // One that was recorded with its delivery is there already; only a success takes the place of a failure.
    let first = present.first_attempts.get(&result.key.delivery).filter(|_| maker == Maker::FIRST);
    if first.is_none_or(|first| is_success && *first != Outcome::Delivered) {
        writes.keep(maker, result.key.delivery, attempt, true);
    }
    let open_in_this_run = present.due.get(&result.key.delivery).is_some_and(|row| row.run == maker.run);
    if is_success && open_in_this_run {
        writes.finish_late(&result.key, attempt);
    }
}

/// Removes the parts that are still held by whoever reports on them, and answers them. The others are locked too: a
/// stale holder and the present one come one after the other, so that the second sees what the first has written. For
/// the same reason a single delivery that went at once locks whatever parts its event still has: whoever reports it may
/// have had it in flight when it lost the part.
async fn delete_parts(
    transaction: &mut Transaction<'_, Postgres>,
    changes: &[&Change],
) -> Result<HashMap<(EventId, u16), HeldPart>, LedgerError> {
    // Event, first and last part; and the generation of the hold. In this order all parts are locked in order.
    let mut asked = BTreeMap::new();
    for change in changes {
        match change {
            Change::Part { event, part, r#gen, .. } => {
                asked.insert((event.0, i32::from(*part), i32::from(*part)), int4(*r#gen));
            }
            Change::Delivery { run: 1, result, .. } if is_first_success(result) => {
                asked.insert((result.key.event.0, 0, i32::MAX), NO_GENERATION);
            }
            Change::Delivery { .. } => {}
        }
    }
    if asked.is_empty() {
        return Ok(HashMap::new());
    }
    let events: Vec<Uuid> = asked.keys().map(|(event, _, _)| *event).collect();
    let (firsts, lasts): (Vec<i32>, Vec<i32>) = asked.keys().map(|(_, first, last)| (*first, *last)).unzip();
    let generations: Vec<i32> = asked.into_values().collect();
    let deleted: Vec<(Uuid, i32, String, i32)> = sqlx::query_as(
        "WITH locked AS MATERIALIZED (
             SELECT o.event, o.part, o.gen = u.gen AS held
             FROM unnest($1::uuid[], $2::int4[], $3::int4[], $4::int4[]) AS u(event, first, last, gen)
             CROSS JOIN LATERAL (SELECT * FROM outbox WHERE event = u.event AND part BETWEEN u.first AND u.last
                                 ORDER BY part FOR UPDATE) o)
         DELETE FROM outbox
         WHERE event = ANY(ARRAY(SELECT event FROM locked WHERE held))
           AND ((event, part) IN (SELECT event, part FROM locked WHERE held)) IS TRUE
         RETURNING event, part, pool, target_count",
    )
    .bind(&events)
    .bind(&firsts)
    .bind(&lasts)
    .bind(&generations)
    .fetch_all(&mut **transaction)
    .await?;
    let held = deleted.into_iter().map(|(event, part, pool, target_count)| {
        Ok(((EventId(event), count(part)?), HeldPart { pool, target_count: count(target_count)? }))
    });
    held.collect()
}

/// The generation of no hold.
const NO_GENERATION: i32 = -1;

/// Whether it is a 2xx to the first attempt of a run.
fn is_first_success(result: &DeliveryResult) -> bool {
    result.attempt.as_ref().is_some_and(|attempt| attempt.number == 1 && attempt.outcome == Outcome::Delivered)
}

async fn early_successes(
    transaction: &mut Transaction<'_, Postgres>,
    changes: &[&Change],
    held: &HashMap<(EventId, u16), HeldPart>,
) -> Result<HashMap<DeliveryId, EarlySuccess>, LedgerError> {
    let mut asked = Vec::new();
    for change in changes {
        // Only a part that was taken over has had another holder.
        if let Change::Part { event, part, r#gen: 2.., results, .. } = change
            && held.contains_key(&(*event, *part))
        {
            let open = results.iter().filter(|result| result.next != Next::Delivered);
            asked.extend(open.map(|result| result.key.delivery.0));
        }
    }
    if asked.is_empty() {
        return Ok(HashMap::new());
    }
    let found: Vec<(Uuid, Option<i16>)> = sqlx::query_as(
        "SELECT delivery, status_code FROM attempts
         WHERE delivery = ANY($1) AND run = 1 AND outcome = 'delivered'",
    )
    .bind(&asked)
    .fetch_all(&mut **transaction)
    .await?;
    let early = found.into_iter().map(|(delivery, status_code)| (DeliveryId(delivery), EarlySuccess { status_code }));
    Ok(early.collect())
}

/// Whoever reports on a part that is gone may have recorded it, and not know that it did.
async fn first_attempts(
    transaction: &mut Transaction<'_, Postgres>,
    changes: &[&Change],
    held: &HashMap<(EventId, u16), HeldPart>,
) -> Result<HashMap<DeliveryId, Outcome>, LedgerError> {
    let mut asked = Vec::new();
    for change in changes {
        if let Change::Part { event, part, r#gen: 1, results, .. } = change
            && !held.contains_key(&(*event, *part))
        {
            asked.extend(results.iter().map(|result| result.key.delivery.0));
        }
    }
    if asked.is_empty() {
        return Ok(HashMap::new());
    }
    let found: Vec<(Uuid, String)> =
        sqlx::query_as("SELECT id, first_outcome FROM deliveries WHERE id = ANY($1) AND first_outcome IS NOT NULL")
            .bind(&asked)
            .fetch_all(&mut **transaction)
            .await?;
    let mut first_attempts = HashMap::with_capacity(found.len());
    for (id, outcome) in found {
        if let Some(outcome) = encode::variant(Some(&outcome))? {
            first_attempts.insert(DeliveryId(id), outcome);
        }
    }
    Ok(first_attempts)
}

/// Locks and reads the `due` rows of all deliveries that a change could apply to.
async fn due_rows(
    transaction: &mut Transaction<'_, Postgres>,
    changes: &[&Change],
    held: &HashMap<(EventId, u16), HeldPart>,
) -> Result<HashMap<DeliveryId, DueRow>, LedgerError> {
    let mut asked = Vec::new();
    for change in changes {
        match change {
            Change::Delivery { result, .. } => asked.push(result.key.delivery.0),
            Change::Part { event, part, results, .. } if !held.contains_key(&(*event, *part)) => {
                asked.extend(results.iter().map(|result| result.key.delivery.0));
            }
            Change::Part { .. } => {}
        }
    }
    if asked.is_empty() {
        return Ok(HashMap::new());
    }
    let found: Vec<(Uuid, i32, i32, bool)> = sqlx::query_as(
        "SELECT delivery, run, gen, state = 0 FROM due WHERE delivery = ANY($1) ORDER BY delivery FOR UPDATE",
    )
    .bind(&asked)
    .fetch_all(&mut **transaction)
    .await?;
    let due = found.into_iter().map(|(delivery, run, r#gen, waiting)| {
        Ok((DeliveryId(delivery), DueRow { run: count(run)?, r#gen: count(r#gen)?, waiting }))
    });
    due.collect()
}
