//! Counting: the backlog, the balance, and what endpoints did lately.

use std::collections::HashMap;
use std::time::Duration;

use dispatcher_core::id::{DeliveryId, EndpointId, EventId, TenantId};
use dispatcher_core::limits::STATISTICS_MINUTES_MAX;
use sqlx::{Row as _, SqlitePool};

use super::encode::{self, blob, count, integer, milliseconds, uuid};
use super::{Backlog, Balance, EndpointFacts, LedgerError};
use crate::ledger::histogram::{Histogram, percentile_95};

/// Counts open deliveries; see [`crate::ledger::Ledger::backlog`].
pub(super) async fn backlog(readers: &SqlitePool, now_ms: u64) -> Result<Backlog, LedgerError> {
    let rows = sqlx::query(
        "SELECT tenant, sum(n) AS open, sum(n * NOT gated) AS ungated FROM (
             SELECT tenant, sum(target_count) AS n, 0 AS gated FROM outbox GROUP BY tenant
             UNION ALL
             SELECT l.tenant, d.n, l.shut OR l.disabled_reason IS NOT NULL OR l.gate_until > ?1
             FROM (SELECT endpoint, count(*) AS n FROM due GROUP BY endpoint) d
             JOIN lanes l ON l.endpoint = d.endpoint)
         GROUP BY tenant",
    )
    .bind(integer(now_ms))
    .fetch_all(readers)
    .await?;
    let mut backlog = Backlog::default();
    for row in rows {
        backlog.ungated += count::<u64>(row.try_get("ungated")?)?;
        backlog.by_tenant.push((TenantId(uuid(row.try_get("tenant")?)?), count(row.try_get("open")?)?));
    }
    Ok(backlog)
}

/// Balances every tenant; see [`crate::ledger::Ledger::balance`]. One statement, so one snapshot.
pub(super) async fn balance(readers: &SqlitePool) -> Result<Vec<Balance>, LedgerError> {
    let rows = sqlx::query(
        "SELECT tenant, sum(accepted) AS accepted, sum(delivered) AS delivered, sum(dead) AS dead,
                sum(cancelled) AS cancelled, sum(open) AS open
         FROM (
             SELECT tenant, sum(fanout_count) AS accepted, 0 AS delivered, 0 AS dead, 0 AS cancelled, 0 AS open
             FROM events GROUP BY tenant
             UNION ALL
             SELECT tenant, 0, sum(state = 1), sum(state = 2), sum(state = 3), sum(state = 0)
             FROM deliveries GROUP BY tenant
             UNION ALL
             SELECT tenant, 0, 0, 0, 0, sum(target_count) FROM outbox GROUP BY tenant)
         GROUP BY tenant ORDER BY tenant",
    )
    .fetch_all(readers)
    .await?;
    let balances = rows.iter().map(|row| {
        Ok(Balance {
            tenant: TenantId(uuid(row.try_get("tenant")?)?),
            accepted: count(row.try_get("accepted")?)?,
            delivered: count(row.try_get("delivered")?)?,
            dead: count(row.try_get("dead")?)?,
            cancelled: count(row.try_get("cancelled")?)?,
            open: count(row.try_get("open")?)?,
        })
    });
    balances.collect()
}

/// Facts for statuses; see [`crate::ledger::Ledger::endpoint_facts`]. The window is rounded up to whole minutes.
pub(super) async fn endpoint_facts(
    readers: &SqlitePool,
    tenant: TenantId,
    window: Duration,
    now_ms: u64,
) -> Result<Vec<EndpointFacts>, LedgerError> {
    let mut snapshot = readers.begin().await?;
    let since_minute = now_ms.saturating_sub(milliseconds(window)) / 60_000;
    let rows = sqlx::query(
        "SELECT s.endpoint, s.bucket, sum(s.attempts) AS attempts, sum(s.succeeded) AS succeeded
         FROM endpoint_statistics s CROSS JOIN lanes l ON l.endpoint = s.endpoint
         WHERE s.minute >= ?2 AND l.tenant = ?1 GROUP BY s.endpoint, s.bucket",
    )
    .bind(blob(tenant.0))
    .bind(integer(since_minute.max((now_ms / 60_000).saturating_sub(STATISTICS_MINUTES_MAX))))
    .fetch_all(&mut *snapshot)
    .await?;
    let mut histograms: HashMap<EndpointId, Histogram> = HashMap::new();
    for row in rows {
        let of_bucket = (count(row.try_get("attempts")?)?, count(row.try_get("succeeded")?)?);
        let histogram = histograms.entry(EndpointId(uuid(row.try_get("endpoint")?)?)).or_default();
        histogram.insert(count(row.try_get("bucket")?)?, of_bucket);
    }
    let rows = sqlx::query(
        "SELECT l.endpoint, l.gate_until, l.last_outcome, l.last_status_code,
                count(d.delivery) AS pending, min(d.delivery) AS oldest
         FROM lanes l LEFT JOIN due d ON d.endpoint = l.endpoint
         WHERE l.tenant = ?1 AND l.dropped_at IS NULL GROUP BY l.endpoint ORDER BY l.endpoint",
    )
    .bind(blob(tenant.0))
    .fetch_all(&mut *snapshot)
    .await?;
    let facts = rows.iter().map(|row| {
        let endpoint = EndpointId(uuid(row.try_get("endpoint")?)?);
        let histogram = histograms.remove(&endpoint).unwrap_or_default();
        let oldest: Option<&[u8]> = row.try_get("oldest")?;
        // A delivery's identity begins with its event's time.
        let oldest = oldest.map(|id| Ok::<_, LedgerError>(EventId(DeliveryId(uuid(id)?).0).unix_ms())).transpose()?;
        let status_code: Option<i64> = row.try_get("last_status_code")?;
        let closed_for_ms = count::<u64>(row.try_get("gate_until")?)?.saturating_sub(now_ms);
        let gate_closed_for = (closed_for_ms > 0).then(|| Duration::from_millis(closed_for_ms));
        Ok(EndpointFacts {
            endpoint,
            attempts: histogram.values().map(|(attempts, _)| attempts).sum(),
            succeeded: histogram.values().map(|(_, succeeded)| succeeded).sum(),
            p95: percentile_95(&histogram),
            pending: count(row.try_get("pending")?)?,
            oldest_unix_ms: oldest,
            last_status_code: status_code.map(count).transpose()?,
            last_outcome: encode::variant(row.try_get("last_outcome")?)?,
            gate_closed_for,
        })
    });
    facts.collect()
}
