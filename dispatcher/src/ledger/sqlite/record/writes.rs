//! The rows that a batch of results comes to, one statement a table.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use dispatcher_core::delivery::{Attempt, DeliveryKey, DeliveryState, EndReason, Next, Outcome};
use dispatcher_core::id::{DeliveryId, EndpointId, TenantId};
use dispatcher_core::limits::STATISTICS_MINUTES_MAX;
use dispatcher_core::table::DEFAULT_POOL;
use serde::Serialize;
use sqlx::{Sqlite, Transaction};
use uuid::Uuid;

use super::{EarlySuccess, Generation, Maker};
use crate::ledger::histogram::bucket_of;
use crate::ledger::sqlite::encode::{self, Hex, integer, milliseconds, state_number};
use crate::ledger::sqlite::pools;
use crate::ledger::{DeliveryResult, LedgerError};

/// Gathers rows while changes are decided, then writes them.
pub(super) struct Writes {
    now_ms: u64,
    /// Who holds what is in flight.
    holder: Option<Hex>,
    inserts: Vec<InsertRow>,
    updates: Vec<UpdateRow>,
    due_puts: Vec<DuePut>,
    due_deletes: Vec<[Hex; 1]>,
    attempts: Vec<AttemptRow>,
    excerpts: Vec<u8>,
    wakes: HashMap<EndpointId, Wake>,
    last_results: HashMap<EndpointId, (Outcome, Option<u16>)>,
    statistics: HashMap<(EndpointId, u32), (u64, u64)>,
}

/// `deliveries`: id, tenant, event, subscription, endpoint, state, reason, run start, attempts, outcome, status code.
type InsertRow = (Hex, Hex, Hex, Hex, Hex, i64, Option<EndReason>, u64, u8, Option<Outcome>, Option<u16>);
/// `deliveries`: id, state, reason, further attempts, outcome, status code.
type UpdateRow = (Hex, i64, Option<EndReason>, u8, Option<Outcome>, Option<u16>);
/// `due`: delivery, endpoint, due at, run, gen, state, owner.
type DuePut = (Hex, Hex, u64, u32, u32, u8, Option<Hex>);
/// `attempts`: delivery, run, of part, gen, number, superseded, start, microseconds, outcome, status code, excerpt.
type AttemptRow = (Hex, u32, bool, u32, u32, bool, u64, u64, Outcome, Option<u16>, usize, usize);

/// An endpoint that has something due, and what its lane is made of if it has none yet.
struct Wake {
    tenant: TenantId,
    pool: String,
    due_at_ms: u64,
}

/// What a [`Next`] means for the delivery's row: its state, and why it ended.
pub(super) fn finish_of(next: &Next) -> (DeliveryState, Option<EndReason>) {
    match next {
        Next::Delivered => (DeliveryState::Delivered, None),
        Next::Dead(reason) => (DeliveryState::Dead, Some(*reason)),
        Next::Cancelled(reason) => (DeliveryState::Cancelled, Some(*reason)),
        Next::Waiting { .. } | Next::InFlight { .. } => (DeliveryState::Open, None),
    }
}

/// The state in `due` of what is in flight.
const IN_FLIGHT: u8 = 2;

/// When an open delivery is due, and its state in `due`: 0 waiting, 2 in flight.
fn due_of(next: &Next) -> Option<(Duration, u8)> {
    match next {
        Next::Waiting { delay } => Some((*delay, 0)),
        Next::InFlight { lease } => Some((*lease, IN_FLIGHT)),
        Next::Delivered | Next::Dead(_) | Next::Cancelled(_) => None,
    }
}

impl Writes {
    pub(super) fn new(now_ms: u64, holder: Option<Uuid>) -> Self {
        Self {
            now_ms,
            holder: holder.map(Hex),
            inserts: Vec::new(),
            updates: Vec::new(),
            due_puts: Vec::new(),
            due_deletes: Vec::new(),
            attempts: Vec::new(),
            excerpts: Vec::new(),
            wakes: HashMap::new(),
            last_results: HashMap::new(),
            statistics: HashMap::new(),
        }
    }

    /// The first result of a delivery, which has no row yet: the row begins with the generation of the part's hold, so
    /// that whoever held the part before is as stale here as it was there. One that has succeeded already comes to what
    /// it would be if the success came later.
    pub(super) fn insert(&mut self, maker: Maker, pool: &str, result: &DeliveryResult, early: Option<&EarlySuccess>) {
        let (key, attempt) = (&result.key, result.attempt.as_ref());
        let next = if early.is_some() { &Next::Delivered } else { &result.next };
        let (state, reason) = finish_of(next);
        let (outcome, status_code) = match early {
            Some(early) => (Some(Outcome::Delivered), early.status_code),
            None => (attempt.map(|attempt| attempt.outcome), attempt.and_then(|attempt| attempt.status_code)),
        };
        self.inserts.push((
            Hex(key.delivery.0),
            Hex(key.tenant.0),
            Hex(key.event.0),
            Hex(key.target.subscription.0),
            Hex(key.target.endpoint.0),
            state_number(state),
            reason,
            key.event.unix_ms(),
            u8::from(attempt.is_some()) + u8::from(early.is_some()),
            outcome,
            status_code,
        ));
        if let Some(due) = due_of(next) {
            self.put_due(pool, maker.generation, key, due);
        }
        if let Some(attempt) = attempt {
            self.keep_applied(maker, key, attempt);
        }
    }

    /// The next result of a delivery that has a row.
    pub(super) fn change(&mut self, maker: Maker, key: &DeliveryKey, attempt: Option<&Attempt>, next: &Next) {
        let (state, reason) = finish_of(next);
        self.updates.push((
            Hex(key.delivery.0),
            state_number(state),
            reason,
            u8::from(attempt.is_some()),
            attempt.map(|attempt| attempt.outcome),
            attempt.and_then(|attempt| attempt.status_code),
        ));
        match due_of(next) {
            // The lane of a delivery that has a row is there already, so the pool is not used.
            Some(due) => self.put_due(DEFAULT_POOL, maker.generation, key, due),
            None => self.due_deletes.push([Hex(key.delivery.0)]),
        }
        if let Some(attempt) = attempt {
            self.keep_applied(maker, key, attempt);
        }
    }

    /// A stale holder's 2xx finishes a delivery that is still open.
    pub(super) fn finish_late(&mut self, key: &DeliveryKey, attempt: &Attempt) {
        let (id, state) = (Hex(key.delivery.0), state_number(DeliveryState::Delivered));
        self.updates.push((id, state, None, 1, Some(attempt.outcome), attempt.status_code));
        self.due_deletes.push([id]);
    }

    /// A stale holder's attempt. A hold keeps one attempt: the first that was recorded, unless a 2xx follows.
    pub(super) fn keep_superseded(&mut self, maker: Maker, delivery: DeliveryId, attempt: &Attempt) {
        self.keep(maker, delivery, attempt, true);
    }

    fn keep_applied(&mut self, maker: Maker, key: &DeliveryKey, attempt: &Attempt) {
        self.keep(maker, key.delivery, attempt, false);
        if !attempt.outcome.is_about_endpoint() {
            return;
        }
        let endpoint = key.target.endpoint;
        self.last_results.insert(endpoint, (attempt.outcome, attempt.status_code));
        let (attempts, succeeded) = self.statistics.entry((endpoint, bucket_of(attempt.duration))).or_default();
        *attempts += 1;
        *succeeded += u64::from(attempt.outcome == Outcome::Delivered);
    }

    fn keep(&mut self, maker: Maker, delivery: DeliveryId, attempt: &Attempt, superseded: bool) {
        let excerpt_at = self.excerpts.len() + 1;
        self.excerpts.extend_from_slice(&attempt.excerpt);
        self.attempts.push((
            Hex(delivery.0),
            maker.generation.run,
            maker.of_part,
            maker.generation.r#gen,
            attempt.number,
            superseded,
            attempt.started_at_unix_ms,
            u64::try_from(attempt.duration.as_micros()).unwrap_or(u64::MAX),
            attempt.outcome,
            attempt.status_code,
            excerpt_at,
            attempt.excerpt.len(),
        ));
    }

    fn put_due(&mut self, pool: &str, generation: Generation, key: &DeliveryKey, due: (Duration, u8)) {
        let (delay, state) = due;
        let due_at_ms = self.now_ms + milliseconds(delay);
        let (delivery, endpoint) = (Hex(key.delivery.0), key.target.endpoint);
        let owner = self.holder.filter(|_| state == IN_FLIGHT);
        self.due_puts.push((delivery, Hex(endpoint.0), due_at_ms, generation.run, generation.r#gen, state, owner));
        let wake =
            self.wakes.entry(endpoint).or_insert_with(|| Wake { tenant: key.tenant, pool: pool.to_owned(), due_at_ms });
        wake.due_at_ms = wake.due_at_ms.min(due_at_ms);
    }

    /// Writes all rows, in the lock order of the tables.
    pub(super) async fn flush(mut self, transaction: &mut Transaction<'_, Sqlite>) -> Result<(), LedgerError> {
        execute(
            transaction,
            "INSERT INTO deliveries (id, tenant, event, subscription, endpoint, state, reason, run, run_started_at,
                                     attempts, last_outcome, last_status_code)
             SELECT unhex(value->>0), unhex(value->>1), unhex(value->>2), unhex(value->>3), unhex(value->>4),
                    value->>5, value->>6, 1, value->>7, value->>8, value->>9, value->>10
             FROM json_each(?1)",
            &self.inserts,
        )
        .await?;
        execute(
            transaction,
            "UPDATE deliveries
             SET state = j.value->>1, reason = j.value->>2, attempts = attempts + (j.value->>3),
                 last_outcome = coalesce(j.value->>4, last_outcome),
                 last_status_code = CASE WHEN j.value->>4 IS NULL THEN last_status_code ELSE j.value->>5 END
             FROM json_each(?1) j WHERE deliveries.id = unhex(j.value->>0)",
            &self.updates,
        )
        .await?;
        execute(
            transaction,
            "DELETE FROM due WHERE delivery IN (SELECT unhex(value->>0) FROM json_each(?1))",
            &self.due_deletes,
        )
        .await?;
        execute(
            transaction,
            "INSERT INTO due (delivery, endpoint, due_at, run, gen, state, owner)
             SELECT unhex(value->>0), unhex(value->>1), value->>2, value->>3, value->>4, value->>5,
                    unhex(value->>6)
             FROM json_each(?1) WHERE true
             ON CONFLICT (delivery) DO UPDATE
             SET due_at = excluded.due_at, state = excluded.state, owner = excluded.owner",
            &self.due_puts,
        )
        .await?;
        self.write_attempts(transaction).await?;
        self.write_lanes(transaction).await?;
        self.write_statistics(transaction).await
    }

    async fn write_attempts(&mut self, transaction: &mut Transaction<'_, Sqlite>) -> Result<(), LedgerError> {
        let excerpts = std::mem::take(&mut self.excerpts);
        if self.attempts.is_empty() {
            return Ok(());
        }
        sqlx::query(
            "INSERT INTO attempts (delivery, run, of_part, gen, number, superseded, started_at, duration_us,
                                   outcome, status_code, excerpt)
             SELECT unhex(value->>0), value->>1, value->>2, value->>3, value->>4, value->>5, value->>6, value->>7,
                    value->>8, value->>9, coalesce(substr(?2, value->>10, value->>11), x'')
             FROM json_each(?1) WHERE true
             ON CONFLICT (delivery, run, of_part, gen) DO UPDATE
             SET number = excluded.number, superseded = excluded.superseded, started_at = excluded.started_at,
                 duration_us = excluded.duration_us, outcome = excluded.outcome,
                 status_code = excluded.status_code, excerpt = excluded.excerpt
             WHERE outcome <> 'delivered' AND excluded.outcome = 'delivered'",
        )
        .bind(encode::rows(&self.attempts)?)
        .bind(excerpts)
        .execute(&mut **transaction)
        .await?;
        Ok(())
    }

    async fn write_lanes(&self, transaction: &mut Transaction<'_, Sqlite>) -> Result<(), LedgerError> {
        let wakes: Vec<_> = self
            .wakes
            .iter()
            .map(|(endpoint, wake)| (Hex(endpoint.0), Hex(wake.tenant.0), &wake.pool, wake.due_at_ms))
            .collect();
        execute(
            transaction,
            "INSERT INTO lanes (endpoint, tenant, pool, next_due)
             SELECT unhex(value->>0), unhex(value->>1), value->>2, value->>3 FROM json_each(?1) WHERE true
             ON CONFLICT (endpoint) DO UPDATE SET next_due = excluded.next_due WHERE next_due > excluded.next_due",
            &wakes,
        )
        .await?;
        let last_results: Vec<_> = self
            .last_results
            .iter()
            .map(|(endpoint, (outcome, status_code))| (Hex(endpoint.0), outcome, status_code))
            .collect();
        execute(
            transaction,
            "UPDATE lanes SET last_outcome = j.value->>1, last_status_code = j.value->>2
             FROM json_each(?1) j WHERE endpoint = unhex(j.value->>0)",
            &last_results,
        )
        .await
    }

    async fn write_statistics(&self, transaction: &mut Transaction<'_, Sqlite>) -> Result<(), LedgerError> {
        if self.statistics.is_empty() {
            return Ok(());
        }
        let minute = self.now_ms / 60_000;
        let rows: Vec<_> = self
            .statistics
            .iter()
            .map(|((endpoint, bucket), (attempts, succeeded))| (Hex(endpoint.0), bucket, attempts, succeeded))
            .collect();
        sqlx::query(
            "INSERT INTO endpoint_statistics (minute, endpoint, bucket, attempts, succeeded)
             SELECT ?2, unhex(value->>0), value->>1, value->>2, value->>3 FROM json_each(?1) WHERE true
             ON CONFLICT (minute, endpoint, bucket) DO UPDATE
             SET attempts = attempts + excluded.attempts, succeeded = succeeded + excluded.succeeded;
             DELETE FROM endpoint_statistics WHERE minute <= ?3",
        )
        .bind(encode::rows(&rows)?)
        .bind(integer(minute))
        .bind(integer(minute.saturating_sub(STATISTICS_MINUTES_MAX)))
        .execute(&mut **transaction)
        .await?;
        let mut of_endpoints: BTreeMap<EndpointId, (u64, u64)> = BTreeMap::new();
        for ((endpoint, _), (attempts, succeeded)) in &self.statistics {
            let sum = of_endpoints.entry(*endpoint).or_default();
            *sum = (sum.0 + attempts, sum.1 + succeeded);
        }
        let of_endpoints: Vec<_> = of_endpoints
            .into_iter()
            .map(|(endpoint, (attempts, succeeded))| (Hex(endpoint.0), attempts, succeeded))
            .collect();
        pools::add_attempts(transaction, &of_endpoints, self.now_ms).await
    }
}

async fn execute<T: Serialize>(
    transaction: &mut Transaction<'_, Sqlite>,
    statement: &'static str,
    rows: &[T],
) -> Result<(), LedgerError> {
    if !rows.is_empty() {
        sqlx::query(statement).bind(encode::rows(rows)?).execute(&mut **transaction).await?;
    }
    Ok(())
}
