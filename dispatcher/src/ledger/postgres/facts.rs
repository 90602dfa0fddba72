//! Counting: the backlog, the balance, and what endpoints did lately.

use std::collections::HashMap;
use std::time::Duration;

use dispatcher_core::id::{EndpointId, EventId, TenantId};
use dispatcher_core::limits::STATISTICS_MINUTES_MAX;
use sqlx::{PgPool, Postgres, Row as _, Transaction};
use uuid::Uuid;

use super::encode::{self, count, int8, microseconds};
use super::{Backlog, Balance, EndpointFacts, LedgerError};
use crate::ledger::histogram::{Histogram, percentile_95};

/// A transaction for statements that read whole tables.
async fn counting(pool: &PgPool) -> Result<Transaction<'static, Postgres>, LedgerError> {
    let mut transaction = pool.begin().await?;
    sqlx::query("SELECT set_config('enable_seqscan', 'on', true), set_config('enable_hashjoin', 'on', true)")
        .execute(&mut *transaction)
        .await?;
    Ok(transaction)
}

/// Counts open deliveries; see [`crate::ledger::Ledger::backlog`].
pub(super) async fn backlog(pool: &PgPool) -> Result<Backlog, LedgerError> {
    let mut transaction = counting(pool).await?;
    let rows: Vec<(Uuid, i64, i64)> = sqlx::query_as(
        "SELECT tenant, sum(n)::int8, coalesce(sum(n) FILTER (WHERE NOT gated), 0)::int8 FROM (
             SELECT tenant, sum(target_count) AS n, false AS gated FROM outbox GROUP BY tenant
             UNION ALL
             SELECT l.tenant, d.n, l.shut OR l.disabled_reason IS NOT NULL OR l.gate_until > now()
             FROM (SELECT endpoint, count(*) AS n FROM due GROUP BY endpoint) d
             JOIN lanes l ON l.endpoint = d.endpoint) open
         GROUP BY tenant",
    )
    .fetch_all(&mut *transaction)
    .await?;
    transaction.commit().await?;
    let mut backlog = Backlog::default();
    for (tenant, open, ungated) in rows {
        backlog.ungated += count::<u64, _>(ungated)?;
        backlog.by_tenant.push((TenantId(tenant), count(open)?));
    }
    Ok(backlog)
}

/// Balances every tenant; see [`crate::ledger::Ledger::balance`]. One statement, so one snapshot.
pub(super) async fn balance(pool: &PgPool) -> Result<Vec<Balance>, LedgerError> {
    let mut transaction = counting(pool).await?;
    let rows: Vec<(Uuid, i64, i64, i64, i64, i64)> = sqlx::query_as(
        "SELECT tenant, sum(accepted)::int8, sum(delivered)::int8, sum(dead)::int8, sum(cancelled)::int8,
                sum(open)::int8
         FROM (
             SELECT tenant, sum(fanout_count) AS accepted, 0 AS delivered, 0 AS dead, 0 AS cancelled, 0 AS open
             FROM events GROUP BY tenant
             UNION ALL
             SELECT tenant, 0, count(*) FILTER (WHERE state = 1), count(*) FILTER (WHERE state = 2),
                    count(*) FILTER (WHERE state = 3), count(*) FILTER (WHERE state = 0)
             FROM deliveries GROUP BY tenant
             UNION ALL
             SELECT tenant, 0, 0, 0, 0, sum(target_count) FROM outbox GROUP BY tenant) counted
         GROUP BY tenant ORDER BY tenant",
    )
    .fetch_all(&mut *transaction)
    .await?;
    transaction.commit().await?;
    let balances = rows.into_iter().map(|(tenant, accepted, delivered, dead, cancelled, open)| {
        Ok(Balance {
            tenant: TenantId(tenant),
            accepted: count(accepted)?,
            delivered: count(delivered)?,
            dead: count(dead)?,
            cancelled: count(cancelled)?,
            open: count(open)?,
        })
    });
    balances.collect()
}

/// Facts for statuses; see [`crate::ledger::Ledger::endpoint_facts`]. The window is rounded up to whole minutes.
pub(super) async fn endpoint_facts(
    pool: &PgPool,
    tenant: TenantId,
    window: Duration,
) -> Result<Vec<EndpointFacts>, LedgerError> {
    let mut histograms = histograms(pool, tenant, window).await?;
    let rows = sqlx::query(
        "SELECT l.endpoint, h.last_outcome, h.last_status_code, d.pending, d.oldest,
                CASE WHEN isfinite(l.gate_until) AND l.gate_until > now()
                     THEN (extract(epoch FROM l.gate_until - now()) * 1000)::int8 END AS closed_for_ms
         FROM lanes l
         LEFT JOIN endpoint_health h ON h.endpoint = l.endpoint
         CROSS JOIN LATERAL (
             SELECT count(*) AS pending,
                    (SELECT delivery FROM due WHERE due.endpoint = l.endpoint ORDER BY delivery LIMIT 1) AS oldest
             FROM due WHERE due.endpoint = l.endpoint) d
         WHERE l.tenant = $1 AND l.dropped_at IS NULL ORDER BY l.endpoint",
    )
    .bind(tenant.0)
    .fetch_all(pool)
    .await?;
    let facts = rows.iter().map(|row| {
        let endpoint = EndpointId(row.try_get("endpoint")?);
        let histogram = histograms.remove(&endpoint).unwrap_or_default();
        let oldest: Option<Uuid> = row.try_get("oldest")?;
        let status_code: Option<i16> = row.try_get("last_status_code")?;
        let closed_for_ms: Option<i64> = row.try_get("closed_for_ms")?;
        Ok(EndpointFacts {
            endpoint,
            attempts: histogram.values().map(|(attempts, _)| attempts).sum(),
            succeeded: histogram.values().map(|(_, succeeded)| succeeded).sum(),
            p95: percentile_95(&histogram),
            pending: count(row.try_get::<i64, _>("pending")?)?,
            // A delivery's identity begins with its event's time.
            oldest_unix_ms: oldest.map(|delivery| EventId(delivery).unix_ms()),
            last_status_code: status_code.map(count).transpose()?,
            last_outcome: encode::variant(row.try_get("last_outcome")?)?,
            gate_closed_for: closed_for_ms.map(count).transpose()?.map(Duration::from_millis),
        })
    });
    facts.collect()
}

async fn histograms(
    pool: &PgPool,
    tenant: TenantId,
    window: Duration,
) -> Result<HashMap<EndpointId, Histogram>, LedgerError> {
    let rows: Vec<(Uuid, i32, i64, i64)> = sqlx::query_as(
        "SELECT s.endpoint, s.bucket, sum(s.attempts)::int8, sum(s.succeeded)::int8
         FROM endpoint_statistics s JOIN lanes l ON l.endpoint = s.endpoint
         WHERE l.tenant = $1
           AND s.minute >= floor(extract(epoch FROM now() - $2 * interval '1 microsecond') / 60)::int8
           AND s.minute > floor(extract(epoch FROM now()) / 60)::int8 - $3
         GROUP BY s.endpoint, s.bucket",
    )
    .bind(tenant.0)
    .bind(microseconds(window))
    .bind(int8(STATISTICS_MINUTES_MAX))
    .fetch_all(pool)
    .await?;
    let mut histograms: HashMap<EndpointId, Histogram> = HashMap::new();
    for (endpoint, bucket, attempts, succeeded) in rows {
        let histogram = histograms.entry(EndpointId(endpoint)).or_default();
        histogram.insert(count(bucket)?, (count(attempts)?, count(succeeded)?));
    }
    Ok(histograms)
}
