//! The usual case in one round trip: a part that was delivered at the first attempt, or ended with it.
//!
//! One statement removes the parts from the outbox by compare-and-set and inserts the deliveries of those that it removed,
//! each with its attempt in the same row. What does not fit, or turns out to be somebody else's by now, goes the long way.

use std::collections::{BTreeMap, HashSet};

use dispatcher_core::delivery::{EndReason, Next};
use sqlx::PgConnection;
use uuid::Uuid;

use super::columns::end_of;
use crate::ledger::postgres::encode::{int2, int4, int8, microseconds, state_number};
use crate::ledger::postgres::error::is_duplicate;
use crate::ledger::postgres::statistics::Counted;
use crate::ledger::{Change, DeliveryResult, LedgerError};

/// What ends with a part, and the place of its change in the batch.
struct Finished<'a> {
    place: usize,
    results: &'a [DeliveryResult],
}

/// Records the parts of a batch that nobody held before and of which nothing stays open. Answers for each change whether
/// that was so and the part was still held; nothing of the others is written. What is to be counted of them is added.
pub(super) async fn record(
    connection: &mut PgConnection,
    changes: &[Change],
    counted: &mut Counted,
) -> Result<Vec<bool>, LedgerError> {
    let mut recorded = vec![false; changes.len()];
    let parts = finished(changes);
    if parts.is_empty() {
        return Ok(recorded);
    }
    let gone: HashSet<(Uuid, i32)> = match Rows::of(&parts).write(connection).await {
        // A delivery that has a row already is nothing new: the long way knows what to do.
        Err(error) if is_duplicate(&error) => return Ok(recorded),
        gone => gone?.into_iter().collect(),
    };
    for (key, Finished { place, results }) in &parts {
        if gone.contains(key) {
            recorded[*place] = true;
            for result in *results {
                if let Some(attempt) = &result.attempt {
                    counted.attempt(result.key.target.endpoint, attempt);
                }
            }
        }
    }
    Ok(recorded)
}

/// By key. Only what comes first of its event may overtake: a change that builds on an earlier one goes after it.
fn finished(changes: &[Change]) -> BTreeMap<(Uuid, i32), Finished<'_>> {
    let (mut parts, mut others) = (BTreeMap::new(), HashSet::new());
    for (place, change) in changes.iter().enumerate() {
        match change {
            Change::Part { event, part, r#gen: 1, results, .. }
                if end_at_once(results)
                    && !others.contains(event)
                    && !parts.contains_key(&(event.0, i32::from(*part))) =>
            {
                parts.insert((event.0, i32::from(*part)), Finished { place, results });
            }
            Change::Part { event, .. } => drop(others.insert(*event)),
            Change::Delivery { result, .. } => drop(others.insert(result.key.event)),
        }
    }
    parts
}

/// Whether all end with their first attempt, or without any.
fn end_at_once(results: &[DeliveryResult]) -> bool {
    results.iter().all(|result| {
        let is_first = result.attempt.as_ref().is_none_or(|attempt| attempt.number == 1);
        is_first && !matches!(result.next, Next::Waiting { .. } | Next::InFlight { .. })
    })
}

/// The columns: of the parts, then of their results.
#[derive(Default)]
struct Rows<'a> {
    events: Vec<Uuid>,
    parts: Vec<i32>,
    result_counts: Vec<i32>,
    /// For each result the place of its part, from one.
    places: Vec<i32>,
    ids: Vec<Uuid>,
    tenants: Vec<Uuid>,
    subscriptions: Vec<Uuid>,
    endpoints: Vec<Uuid>,
    states: Vec<i16>,
    reasons: Vec<Option<&'static str>>,
    run_starts_ms: Vec<i64>,
    starts_ms: Vec<Option<i64>>,
    durations_us: Vec<Option<i64>>,
    outcomes: Vec<Option<&'static str>>,
    status_codes: Vec<Option<i16>>,
    excerpts: Vec<Option<&'a [u8]>>,
}

impl<'a> Rows<'a> {
    fn of(parts: &BTreeMap<(Uuid, i32), Finished<'a>>) -> Self {
        let mut rows = Self::default();
        for ((event, part), Finished { results, .. }) in parts {
            rows.events.push(*event);
            rows.parts.push(*part);
            rows.result_counts.push(int4(distinct(results)));
            results.iter().for_each(|result| rows.push(result));
        }
        rows
    }

    fn push(&mut self, result: &'a DeliveryResult) {
        let (key, attempt) = (&result.key, result.attempt.as_ref());
        let (state, reason) = end_of(&result.next);
        self.places.push(int4(self.events.len()));
        self.ids.push(key.delivery.0);
        self.tenants.push(key.tenant.0);
        self.subscriptions.push(key.target.subscription.0);
        self.endpoints.push(key.target.endpoint.0);
        self.states.push(state_number(state));
        self.reasons.push(reason.map(EndReason::as_str));
        self.run_starts_ms.push(int8(key.event.unix_ms()));
        self.starts_ms.push(attempt.map(|attempt| int8(attempt.started_at_unix_ms)));
        self.durations_us.push(attempt.map(|attempt| microseconds(attempt.duration)));
        self.outcomes.push(attempt.map(|attempt| attempt.outcome.as_str()));
        self.status_codes.push(attempt.and_then(|attempt| attempt.status_code).map(int2));
        self.excerpts.push(attempt.map(|attempt| &*attempt.excerpt));
    }

    /// The parts are locked by key before any is removed, whether or not they are still held: a stale holder comes
    /// before or after the present one. One with the wrong number of results is left for the long way, which refuses it.
    ///
    /// Whoever removes a part makes its deliveries, so none of them can be there: to look before each insert would cost as
    /// much as the insert.
    async fn write(&self, connection: &mut PgConnection) -> Result<Vec<(Uuid, i32)>, sqlx::Error> {
        sqlx::query_as(
            "WITH asked AS MATERIALIZED (
                 SELECT * FROM unnest($1::uuid[], $2::int4[], $3::int4[]) WITH ORDINALITY
                          AS u(event, part, results, place)),
             locked AS MATERIALIZED (
                 SELECT o.event, o.part, o.gen = 1 AND o.target_count = asked.results AS held
                 FROM asked CROSS JOIN LATERAL (
                     SELECT * FROM outbox WHERE event = asked.event AND part = asked.part FOR UPDATE) o),
             gone AS (
                 DELETE FROM outbox
                 WHERE event = ANY(ARRAY(SELECT event FROM locked WHERE held))
                   AND ((event, part) IN (SELECT event, part FROM locked WHERE held)) IS TRUE
                 RETURNING event, part),
             held AS MATERIALIZED (
                 SELECT array_agg(event ORDER BY place) AS events,
                        array_agg(((event, part) IN (SELECT event, part FROM gone)) IS TRUE ORDER BY place) AS gone
                 FROM asked),
             delivery AS (
                 INSERT INTO deliveries (id, tenant, event, subscription, endpoint, state, reason, run, run_started_at,
                                         attempts, last_outcome, last_status_code, first_started_at, first_duration_us,
                                         first_outcome, first_status_code, first_excerpt)
                 SELECT id, tenant, held.events[place], subscription, endpoint, state, reason, 1,
                        'epoch'::timestamptz + run_start_ms * interval '1 millisecond', (outcome IS NOT NULL)::int4,
                        outcome, status_code, 'epoch'::timestamptz + start_ms * interval '1 millisecond', duration_us,
                        outcome, status_code, excerpt
                 FROM held, unnest($4::int4[], $5::uuid[], $6::uuid[], $7::uuid[], $8::uuid[], $9::int2[], $10::text[],
                                   $11::int8[], $12::int8[], $13::int8[], $14::text[], $15::int2[], $16::bytea[])
                      AS u(place, id, tenant, subscription, endpoint, state, reason, run_start_ms, start_ms,
                           duration_us, outcome, status_code, excerpt)
                 WHERE held.gone[place])
             SELECT event, part FROM gone",
        )
        .bind(&self.events)
        .bind(&self.parts)
        .bind(&self.result_counts)
        .bind(&self.places)
        .bind(&self.ids)
        .bind(&self.tenants)
        .bind(&self.subscriptions)
        .bind(&self.endpoints)
        .bind(&self.states)
        .bind(&self.reasons)
        .bind(&self.run_starts_ms)
        .bind(&self.starts_ms)
        .bind(&self.durations_us)
        .bind(&self.outcomes)
        .bind(&self.status_codes)
        .bind(&self.excerpts)
        .fetch_all(connection)
        .await
    }
}

/// The number of results, or one that no part has when a delivery stands there twice.
fn distinct(results: &[DeliveryResult]) -> usize {
    let distinct: HashSet<_> = results.iter().map(|result| result.key.delivery).collect();
    if distinct.len() == results.len() { results.len() } else { usize::MAX }
}
