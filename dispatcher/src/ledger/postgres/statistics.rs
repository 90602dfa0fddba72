//! Health and statistics of endpoints: counted in memory, written about once a second in a statement of their own.
//!
//! Within the transactions of results every dispatcher would wait for the rows of the busiest endpoints. What a
//! process has counted since its last write is lost with it; deliveries and attempts are not.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use dispatcher_core::delivery::{Attempt, Outcome};
use dispatcher_core::id::EndpointId;
use dispatcher_core::limits::STATISTICS_FLUSH_INTERVAL;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::LedgerError;
use super::encode::{int2, int4, int8};
use super::patience::Patience;
use super::pools::{self, Additions};
use crate::ledger::histogram::{Histogram, bucket_of};

/// What attempts came to.
#[derive(Default)]
pub(super) struct Counted {
    last: HashMap<EndpointId, (Outcome, Option<u16>)>,
    histograms: HashMap<EndpointId, Histogram>,
    /// Deliveries accepted, by pool.
    accepted: BTreeMap<String, u64>,
}

impl Counted {
    fn is_empty(&self) -> bool {
        self.last.is_empty() && self.accepted.is_empty()
    }

    /// Counts an attempt that took effect, if it says something about the endpoint.
    pub(super) fn attempt(&mut self, endpoint: EndpointId, attempt: &Attempt) {
        if !attempt.outcome.is_about_endpoint() {
            return;
        }
        self.last.insert(endpoint, (attempt.outcome, attempt.status_code));
        let bucket = self.histograms.entry(endpoint).or_default().entry(bucket_of(attempt.duration)).or_default();
        bucket.0 += 1;
        bucket.1 += u64::from(attempt.outcome == Outcome::Delivered);
    }

    /// Adds what was counted later.
    pub(super) fn merge(&mut self, later: Self) {
        self.last.extend(later.last);
        for (endpoint, histogram) in later.histograms {
            let of_endpoint = self.histograms.entry(endpoint).or_default();
            for (bucket, (attempts, succeeded)) in histogram {
                let sum = of_endpoint.entry(bucket).or_default();
                *sum = (sum.0 + attempts, sum.1 + succeeded);
            }
        }
        for (pool, accepted) in later.accepted {
            *self.accepted.entry(pool).or_default() += accepted;
        }
    }
}

/// What has been counted and not written.
pub(super) struct Statistics(Mutex<Pending>);

struct Pending {
    counted: Counted,
    flushed: Instant,
}

impl Default for Statistics {
    fn default() -> Self {
        Self(Mutex::new(Pending { counted: Counted::default(), flushed: Instant::now() }))
    }
}

impl Statistics {
    /// Adds what was committed.
    pub(super) fn add(&self, counted: Counted) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).counted.merge(counted);
    }

    /// Adds deliveries that were accepted, by pool.
    pub(super) fn add_accepted(&self, accepted: BTreeMap<String, u64>) {
        self.add(Counted { accepted, ..Counted::default() });
    }

    /// Writes what is there if the last write was long enough ago; a failure costs nothing but time.
    pub(super) async fn flush_when_due(&self, pool: &PgPool, patience: Patience) {
        if self.begin_when_due() {
            self.flush_quietly(pool, patience).await;
        }
    }

    /// The same beside whatever the caller does next: whoever accepts events must not wait for a count.
    pub(super) fn flush_in_background(self: &Arc<Self>, pool: &PgPool, patience: Patience) {
        if self.begin_when_due() {
            let (statistics, pool) = (Arc::clone(self), pool.clone());
            tokio::spawn(async move { statistics.flush_quietly(&pool, patience).await });
        }
    }

    fn begin_when_due(&self) -> bool {
        let mut pending = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = pending.flushed.elapsed() >= STATISTICS_FLUSH_INTERVAL && !pending.counted.is_empty();
        if is_due {
            pending.flushed = Instant::now();
        }
        is_due
    }

    /// Writes what is there; a failure costs nothing but time.
    pub(super) async fn flush_quietly(&self, pool: &PgPool, patience: Patience) {
        if let Err(error) = self.flush(pool, patience).await {
            tracing::debug!(%error, "statistics were not written; they are kept for the next time");
        }
    }

    /// Writes what is there. What could not be written is kept.
    pub(super) async fn flush(&self, pool: &PgPool, patience: Patience) -> Result<(), LedgerError> {
        let counted = std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner).counted);
        if counted.is_empty() {
            return Ok(());
        }
        let written = patience.answer(write(pool, &counted)).await;
        if written.is_err() {
            let mut pending = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let later = std::mem::replace(&mut pending.counted, counted);
            pending.counted.merge(later);
        }
        written
    }
}

/// All of it or nothing, each table's rows in order: two processes never wait for each other both ways.
async fn write(pool: &PgPool, counted: &Counted) -> Result<(), LedgerError> {
    let mut transaction = pool.begin().await?;
    if !counted.last.is_empty() {
        write_endpoints(&mut transaction, counted).await?;
    }
    pools::add(&mut transaction, &additions(counted)).await?;
    transaction.commit().await?;
    Ok(())
}

/// What was counted, by pool as far as the pool is known.
fn additions(counted: &Counted) -> Additions {
    let mut additions = Additions::default();
    for (pool, accepted) in &counted.accepted {
        additions.pools.push(pool.clone());
        additions.accepted.push(int8(*accepted));
    }
    for (endpoint, histogram) in &counted.histograms {
        additions.endpoints.push(endpoint.0);
        additions.attempts.push(int8(histogram.values().map(|(attempts, _)| attempts).sum::<u64>()));
        additions.delivered.push(int8(histogram.values().map(|(_, succeeded)| succeeded).sum::<u64>()));
    }
    additions
}

async fn write_endpoints(connection: &mut PgConnection, counted: &Counted) -> Result<(), LedgerError> {
    let last: BTreeMap<_, _> = counted.last.iter().collect();
    let endpoints: Vec<Uuid> = last.keys().map(|endpoint| endpoint.0).collect();
    let outcomes: Vec<&str> = last.values().map(|(outcome, _)| outcome.as_str()).collect();
    let status_codes: Vec<Option<i16>> = last.values().map(|(_, status_code)| status_code.map(int2)).collect();

    let histograms: BTreeMap<_, _> = counted.histograms.iter().collect();
    let (mut of_endpoints, mut buckets, mut attempts, mut succeeded) = (vec![], vec![], vec![], vec![]);
    for (endpoint, histogram) in histograms {
        for (bucket, (all, good)) in histogram {
            of_endpoints.push(endpoint.0);
            buckets.push(int4(*bucket));
            attempts.push(int8(*all));
            succeeded.push(int8(*good));
        }
    }
    // The first statement locks in order before the second one begins: it is what the second one reads.
    sqlx::query(
        "WITH health AS (
             INSERT INTO endpoint_health AS h (endpoint, last_outcome, last_status_code)
             SELECT * FROM unnest($1::uuid[], $2::text[], $3::int2[])
             ON CONFLICT (endpoint) DO UPDATE
             SET last_outcome = excluded.last_outcome, last_status_code = excluded.last_status_code
             RETURNING 1)
         INSERT INTO endpoint_statistics AS s (minute, endpoint, bucket, attempts, succeeded)
         SELECT floor(extract(epoch FROM now()) / 60)::int8, endpoint, bucket, attempts, succeeded
         FROM unnest($4::uuid[], $5::int4[], $6::int8[], $7::int8[]) AS u(endpoint, bucket, attempts, succeeded)
         WHERE (SELECT count(*) FROM health) > 0
         ON CONFLICT (minute, endpoint, bucket) DO UPDATE
         SET attempts = s.attempts + excluded.attempts, succeeded = s.succeeded + excluded.succeeded",
    )
    .bind(&endpoints)
    .bind(&outcomes)
    .bind(&status_codes)
    .bind(&of_endpoints)
    .bind(&buckets)
    .bind(&attempts)
    .bind(&succeeded)
    .execute(connection)
    .await?;
    Ok(())
}
