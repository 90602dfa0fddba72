//! The rows that a batch of results comes to, as columns, and the two statements that write them.

use std::collections::BTreeMap;
use std::time::Duration;

use dispatcher_core::delivery::{Attempt, DeliveryKey, DeliveryState, EndReason, Next, Outcome};
use dispatcher_core::id::{DeliveryId, EndpointId, TenantId};
use dispatcher_core::table::DEFAULT_POOL;
use sqlx::{Postgres, Transaction};
use uuid::Uuid;

use super::{EarlySuccess, Maker};
use crate::ledger::postgres::encode::{int2, int4, int8, microseconds, state_number};
use crate::ledger::postgres::statistics::Counted;
use crate::ledger::{DeliveryResult, LedgerError};

/// Gathers rows while changes are decided, then writes them.
#[derive(Default)]
pub(super) struct Writes {
    inserts: Inserts,
    attempts: Attempts,
    updates: Updates,
    due: DuePuts,
    due_deletes: Vec<Uuid>,
    /// In the order of the endpoints, so that lanes are locked in it.
    wakes: BTreeMap<EndpointId, Wake>,
    counted: Counted,
}

/// First results: new rows in `deliveries`.
#[derive(Default)]
struct Inserts {
    ids: Vec<Uuid>,
    tenants: Vec<Uuid>,
    events: Vec<Uuid>,
    subscriptions: Vec<Uuid>,
    endpoints: Vec<Uuid>,
    states: Vec<i16>,
    reasons: Vec<Option<&'static str>>,
    run_starts_ms: Vec<i64>,
    attempts: Vec<i32>,
    outcomes: Vec<Option<&'static str>>,
    status_codes: Vec<Option<i16>>,
}

/// Further results: changes in `deliveries`.
#[derive(Default)]
struct Updates {
    ids: Vec<Uuid>,
    tenants: Vec<Uuid>,
    events: Vec<Uuid>,
    subscriptions: Vec<Uuid>,
    endpoints: Vec<Uuid>,
    states: Vec<i16>,
    reasons: Vec<Option<&'static str>>,
    more_attempts: Vec<i32>,
    outcomes: Vec<Option<&'static str>>,
    status_codes: Vec<Option<i16>>,
}

#[derive(Default)]
struct Attempts {
    deliveries: Vec<Uuid>,
    runs: Vec<i32>,
    of_part: Vec<bool>,
    generations: Vec<i32>,
    numbers: Vec<i32>,
    superseded: Vec<bool>,
    starts_ms: Vec<i64>,
    durations_us: Vec<i64>,
    outcomes: Vec<&'static str>,
    status_codes: Vec<Option<i16>>,
    excerpts: Vec<Vec<u8>>,
}

#[derive(Default)]
struct DuePuts {
    deliveries: Vec<Uuid>,
    endpoints: Vec<Uuid>,
    delays_us: Vec<i64>,
    runs: Vec<i32>,
    generations: Vec<i32>,
    states: Vec<i16>,
}

/// An endpoint that has something due, and what its lane is made of if it has none yet.
struct Wake {
    tenant: TenantId,
    pool: String,
    delay_us: i64,
}

/// What a [`Next`] means for the delivery's row: its state, and why it ended.
fn end_of(next: &Next) -> (DeliveryState, Option<EndReason>) {
    match next {
        Next::Delivered => (DeliveryState::Delivered, None),
        Next::Dead(reason) => (DeliveryState::Dead, Some(*reason)),
        Next::Cancelled(reason) => (DeliveryState::Cancelled, Some(*reason)),
        Next::Waiting { .. } | Next::InFlight { .. } => (DeliveryState::Open, None),
    }
}

/// When an open delivery is due, and its state in `due`: 0 waiting, 2 in flight.
fn due_of(next: &Next) -> Option<(Duration, i16)> {
    match next {
        Next::Waiting { delay } => Some((*delay, 0)),
        Next::InFlight { lease } => Some((*lease, 2)),
        Next::Delivered | Next::Dead(_) | Next::Cancelled(_) => None,
    }
}

impl Writes {
    /// The first result of a delivery, which has no row yet: it begins with run 1 and the generation of the
    /// part's hold, so that whoever held the part before is as stale here as it was there. One that has succeeded
    /// already comes to what it would be if the success came later.
    pub(super) fn insert(&mut self, maker: Maker, pool: &str, result: &DeliveryResult, early: Option<&EarlySuccess>) {
        let (key, attempt) = (&result.key, result.attempt.as_ref());
        let next = if early.is_some() { &Next::Delivered } else { &result.next };
        let (state, reason) = end_of(next);
        let (outcome, status_code) = match early {
            Some(early) => (Some(Outcome::Delivered), early.status_code),
            None => (attempt.map(|attempt| attempt.outcome), attempt.and_then(|attempt| attempt.status_code).map(int2)),
        };
        let rows = &mut self.inserts;
        rows.ids.push(key.delivery.0);
        rows.tenants.push(key.tenant.0);
        rows.events.push(key.event.0);
        rows.subscriptions.push(key.target.subscription.0);
        rows.endpoints.push(key.target.endpoint.0);
        rows.states.push(state_number(state));
        rows.reasons.push(reason.map(EndReason::as_str));
        rows.run_starts_ms.push(int8(key.event.unix_ms()));
        rows.attempts.push(i32::from(attempt.is_some()) + i32::from(early.is_some()));
        rows.outcomes.push(outcome.map(Outcome::as_str));
        rows.status_codes.push(status_code);
        if let Some(due) = due_of(next) {
            self.put_due(key, pool, (1, maker.r#gen), due);
        }
        self.keep_applied(maker, result);
    }

    /// The next result of a delivery that has a row.
    pub(super) fn change(&mut self, maker: Maker, result: &DeliveryResult) {
        let (state, reason) = end_of(&result.next);
        self.update(&result.key, state, reason, result.attempt.as_ref());
        match due_of(&result.next) {
            // The lane of a delivery that has a row is there already, so the pool is not used.
            Some(due) => self.put_due(&result.key, DEFAULT_POOL, (maker.run, maker.r#gen), due),
            None => self.due_deletes.push(result.key.delivery.0),
        }
        self.keep_applied(maker, result);
    }

    /// A stale holder's 2xx finishes a delivery that is still open.
    pub(super) fn finish_late(&mut self, key: &DeliveryKey, attempt: &Attempt) {
        self.update(key, DeliveryState::Delivered, None, Some(attempt));
        self.due_deletes.push(key.delivery.0);
    }

    /// Keeps an attempt. One that is there already was recorded before; only a success takes the place of a failure.
    pub(super) fn keep(&mut self, maker: Maker, delivery: DeliveryId, attempt: &Attempt, superseded: bool) {
        let rows = &mut self.attempts;
        rows.deliveries.push(delivery.0);
        rows.runs.push(int4(maker.run));
        rows.of_part.push(maker.of_part);
        rows.generations.push(int4(maker.r#gen));
        rows.numbers.push(int4(attempt.number));
        rows.superseded.push(superseded);
        rows.starts_ms.push(int8(attempt.started_at_unix_ms));
        rows.durations_us.push(microseconds(attempt.duration));
        rows.outcomes.push(attempt.outcome.as_str());
        rows.status_codes.push(attempt.status_code.map(int2));
        rows.excerpts.push(attempt.excerpt.to_vec());
    }

    fn keep_applied(&mut self, maker: Maker, result: &DeliveryResult) {
        if let Some(attempt) = &result.attempt {
            self.keep(maker, result.key.delivery, attempt, false);
            self.counted.attempt(result.key.target.endpoint, attempt);
        }
    }

    fn update(
        &mut self,
        key: &DeliveryKey,
        state: DeliveryState,
        reason: Option<EndReason>,
        attempt: Option<&Attempt>,
    ) {
        let rows = &mut self.updates;
        rows.ids.push(key.delivery.0);
        rows.tenants.push(key.tenant.0);
        rows.events.push(key.event.0);
        rows.subscriptions.push(key.target.subscription.0);
        rows.endpoints.push(key.target.endpoint.0);
        rows.states.push(state_number(state));
        rows.reasons.push(reason.map(EndReason::as_str));
        rows.more_attempts.push(i32::from(attempt.is_some()));
        rows.outcomes.push(attempt.map(|attempt| attempt.outcome.as_str()));
        rows.status_codes.push(attempt.and_then(|attempt| attempt.status_code).map(int2));
    }

    fn put_due(&mut self, key: &DeliveryKey, pool: &str, hold: (u32, u32), due: (Duration, i16)) {
        let endpoint = key.target.endpoint;
        let delay_us = microseconds(due.0);
        self.due.deliveries.push(key.delivery.0);
        self.due.endpoints.push(endpoint.0);
        self.due.delays_us.push(delay_us);
        self.due.runs.push(int4(hold.0));
        self.due.generations.push(int4(hold.1));
        self.due.states.push(due.1);
        let new = || Wake { tenant: key.tenant, pool: pool.to_owned(), delay_us };
        let wake = self.wakes.entry(endpoint).or_insert_with(new);
        wake.delay_us = wake.delay_us.min(delay_us);
    }

    /// Writes all rows. Answers what is to be counted once they are committed.
    pub(super) async fn flush(
        self,
        transaction: &mut Transaction<'_, Postgres>,
        holder: Option<Uuid>,
    ) -> Result<Counted, LedgerError> {
        if !self.inserts.ids.is_empty() || !self.attempts.deliveries.is_empty() {
            self.insert_rows(transaction).await?;
        }
        if !self.updates.ids.is_empty() || !self.due.deliveries.is_empty() {
            self.change_rows(transaction, holder).await?;
        }
        Ok(self.counted)
    }

    async fn insert_rows(&self, transaction: &mut Transaction<'_, Postgres>) -> Result<(), LedgerError> {
        let (deliveries, attempts) = (&self.inserts, &self.attempts);
        sqlx::query(
            "WITH attempt AS (
                 INSERT INTO attempts (delivery, run, of_part, gen, number, superseded, started_at, duration_us, outcome,
                                       status_code, excerpt)
                 SELECT delivery, run, of_part, gen, number, superseded,
                        'epoch'::timestamptz + started_ms * interval '1 millisecond', duration_us, outcome,
                        status_code, excerpt
                 FROM unnest($12::uuid[], $13::int4[], $14::bool[], $15::int4[], $16::int4[], $17::bool[], $18::int8[],
                             $19::int8[], $20::text[], $21::int2[], $22::bytea[])
                      AS u(delivery, run, of_part, gen, number, superseded, started_ms, duration_us, outcome,
                           status_code, excerpt)
                 ON CONFLICT (delivery, run, of_part, gen) DO UPDATE
                 SET number = excluded.number, superseded = excluded.superseded, started_at = excluded.started_at,
                     duration_us = excluded.duration_us, outcome = excluded.outcome,
                     status_code = excluded.status_code, excerpt = excluded.excerpt
                 WHERE attempts.outcome <> 'delivered' AND excluded.outcome = 'delivered')
             INSERT INTO deliveries (id, tenant, event, subscription, endpoint, state, reason, run, run_started_at,
                                     attempts, last_outcome, last_status_code)
             SELECT id, tenant, event, subscription, endpoint, state, reason, 1,
                    'epoch'::timestamptz + started_ms * interval '1 millisecond', attempts, outcome, status_code
             FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::uuid[], $6::int2[], $7::text[],
                         $8::int8[], $9::int4[], $10::text[], $11::int2[])
                  AS u(id, tenant, event, subscription, endpoint, state, reason, started_ms, attempts, outcome,
                       status_code)
             ON CONFLICT (id) DO NOTHING",
        )
        .bind(&deliveries.ids)
        .bind(&deliveries.tenants)
        .bind(&deliveries.events)
        .bind(&deliveries.subscriptions)
        .bind(&deliveries.endpoints)
        .bind(&deliveries.states)
        .bind(&deliveries.reasons)
        .bind(&deliveries.run_starts_ms)
        .bind(&deliveries.attempts)
        .bind(&deliveries.outcomes)
        .bind(&deliveries.status_codes)
        .bind(&attempts.deliveries)
        .bind(&attempts.runs)
        .bind(&attempts.of_part)
        .bind(&attempts.generations)
        .bind(&attempts.numbers)
        .bind(&attempts.superseded)
        .bind(&attempts.starts_ms)
        .bind(&attempts.durations_us)
        .bind(&attempts.outcomes)
        .bind(&attempts.status_codes)
        .bind(&attempts.excerpts)
        .execute(&mut **transaction)
        .await?;
        Ok(())
    }

    /// Lanes are woken here, before the commit, and whether or not they seem to need it: a claim that holds a lane
    /// is waited for, and one that comes later reads what is due with the lane already locked, so it sees this commit.
    /// Deliveries, which are all there, change by an upsert: it looks up each by key, whatever the planner thinks of
    /// the size of a partition.
    async fn change_rows(
        &self,
        transaction: &mut Transaction<'_, Postgres>,
        holder: Option<Uuid>,
    ) -> Result<(), LedgerError> {
        let (updates, due) = (&self.updates, &self.due);
        let endpoints: Vec<Uuid> = self.wakes.keys().map(|endpoint| endpoint.0).collect();
        let tenants: Vec<Uuid> = self.wakes.values().map(|wake| wake.tenant.0).collect();
        let pools: Vec<&str> = self.wakes.values().map(|wake| wake.pool.as_str()).collect();
        let delays_us: Vec<i64> = self.wakes.values().map(|wake| wake.delay_us).collect();
        sqlx::query(
            "WITH updated AS (
                 INSERT INTO deliveries AS d (id, state, reason, attempts, last_outcome, last_status_code, tenant, event,
                                              subscription, endpoint, run, run_started_at)
                 SELECT id, state, reason, more_attempts, outcome, status_code, tenant, event, subscription, endpoint,
                        1, now()
                 FROM unnest($1::uuid[], $2::int2[], $3::text[], $4::int4[], $5::text[], $6::int2[], $18::uuid[],
                             $19::uuid[], $20::uuid[], $21::uuid[])
                      AS u(id, state, reason, more_attempts, outcome, status_code, tenant, event, subscription,
                           endpoint)
                 ON CONFLICT (id) DO UPDATE
                 SET state = excluded.state, reason = excluded.reason, attempts = d.attempts + excluded.attempts,
                     last_outcome = coalesce(excluded.last_outcome, d.last_outcome),
                     last_status_code = CASE WHEN excluded.last_outcome IS NULL THEN d.last_status_code
                                             ELSE excluded.last_status_code END),
             ended AS (DELETE FROM due WHERE delivery = ANY($7)),
             put AS (
                 INSERT INTO due (delivery, endpoint, due_at, run, gen, state, owner)
                 SELECT delivery, endpoint, now() + delay * interval '1 microsecond', run, gen, state,
                        CASE WHEN state = 2 THEN $22::uuid END
                 FROM unnest($8::uuid[], $9::uuid[], $10::int8[], $11::int4[], $12::int4[], $13::int2[])
                      AS u(delivery, endpoint, delay, run, gen, state)
                 ON CONFLICT (delivery) DO UPDATE
                 SET due_at = excluded.due_at, state = excluded.state, owner = excluded.owner)
             INSERT INTO lanes (endpoint, tenant, pool, next_due)
             SELECT endpoint, tenant, pool, now() + delay * interval '1 microsecond'
             FROM unnest($14::uuid[], $15::uuid[], $16::text[], $17::int8[]) AS u(endpoint, tenant, pool, delay)
             ON CONFLICT (endpoint) DO UPDATE SET next_due = least(lanes.next_due, excluded.next_due)",
        )
        .bind(&updates.ids)
        .bind(&updates.states)
        .bind(&updates.reasons)
        .bind(&updates.more_attempts)
        .bind(&updates.outcomes)
        .bind(&updates.status_codes)
        .bind(&self.due_deletes)
        .bind(&due.deliveries)
        .bind(&due.endpoints)
        .bind(&due.delays_us)
        .bind(&due.runs)
        .bind(&due.generations)
        .bind(&due.states)
        .bind(&endpoints)
        .bind(&tenants)
        .bind(&pools)
        .bind(&delays_us)
        .bind(&updates.tenants)
        .bind(&updates.events)
        .bind(&updates.subscriptions)
        .bind(&updates.endpoints)
        .bind(holder)
        .execute(&mut **transaction)
        .await?;
        Ok(())
    }
}
