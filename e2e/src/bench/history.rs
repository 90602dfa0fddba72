//! A ledger that has been in use for days: finished rows, made by the server itself.
//!
//! Each day's tables are filled before they become partitions, without indexes; becoming partitions they get them, built
//! at once. So ten million rows take a minute or two.

use anyhow::Result;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

/// Days that the rows are spread over; the last is today.
const DAYS: i64 = 7;
/// Endpoints that they went to.
const ENDPOINTS: u64 = 1_000;
/// Rows of an event that went to one endpoint: its own, and that of its delivery with the attempt.
const ROWS_PER_EVENT: u64 = 2;
const DAY_MS: i64 = 86_400_000;

/// Makes so many rows in all. The ledger must be migrated, and hold nothing of these days.
pub async fn make(database: &str, rows: u64) -> Result<()> {
    let mut connection = PgConnection::connect(database).await?;
    connection.execute("SET maintenance_work_mem = '512MB'").await?;
    let now_ms: i64 =
        sqlx::query_scalar("SELECT (extract(epoch FROM now()) * 1000)::int8").fetch_one(&mut connection).await?;
    let today_ms = now_ms - now_ms % DAY_MS;
    for days_ago in 0..DAYS {
        let first_ms = today_ms - days_ago * DAY_MS;
        let suffix = "SELECT to_char(to_timestamp($1 / 1000) AT TIME ZONE 'UTC', 'YYYYMMDD')";
        let suffix: String = sqlx::query_scalar(suffix).bind(first_ms).fetch_one(&mut connection).await?;
        let day = Day { suffix, first_ms, passed_ms: (now_ms - first_ms).min(DAY_MS) };
        let events = rows / ROWS_PER_EVENT / DAYS.unsigned_abs();
        for (table, columns) in [("events", EVENT), ("deliveries", DELIVERY)] {
            connection.execute(AssertSqlSafe(day.partition(table, columns, events))).await?;
        }
    }
    connection.execute("VACUUM (ANALYZE) events, deliveries").await?;
    connection.execute("CHECKPOINT").await?;
    connection.close().await?;
    Ok(())
}

struct Day {
    /// The end of its partitions' names.
    suffix: String,
    /// Its first millisecond since the Unix epoch.
    first_ms: i64,
    /// What has passed of it.
    passed_ms: i64,
}

/// The row of an event. `ms` and `tail` are the first and the last digits of identities.
const EVENT: &str = "(tenant, id, table_version, fanout_count, event_type, content_type, attributes, targets, body)
    SELECT md5('tenant')::uuid, (ms || '7000' || tail)::uuid, 1, 1, 'history.one', 'application/json', '{}',
           uuid_send(endpoint) || uuid_send(endpoint),
           convert_to('{\"filler\":\"' || repeat('x', 100) || '\"}', 'UTF8')";
/// The row of its delivery.
const DELIVERY: &str = "(id, tenant, event, subscription, endpoint, run_started_at, run, attempts, state,
        last_status_code, last_outcome, first_started_at, first_duration_us, first_status_code, first_outcome,
        first_excerpt)
    SELECT (ms || '8000' || tail)::uuid, md5('tenant')::uuid, (ms || '7000' || tail)::uuid, endpoint, endpoint, now(), 1,
           1, 1, 204, 'delivered', now(), 1000, 204, 'delivered', ''";

impl Day {
    /// Makes a table's partition of the day, with the rows of so many events evenly over its time. One that maintenance
    /// has made already, and that is empty, gives way.
    fn partition(&self, table: &str, columns: &str, events: u64) -> String {
        let Self { suffix, first_ms, passed_ms } = self;
        let bound = |ms: i64| format!("{ms:012x}{:020x}", 0);
        let (first, end) = (bound(*first_ms), bound(first_ms + DAY_MS));
        format!(
            "DROP TABLE IF EXISTS {table}_{suffix};
             CREATE TABLE {table}_{suffix} (LIKE {table} INCLUDING CONSTRAINTS INCLUDING COMPRESSION);
             INSERT INTO {table}_{suffix} {columns}
             FROM (SELECT lpad(to_hex({first_ms} + {passed_ms} * number / {events}), 12, '0') AS ms,
                          lpad(to_hex(number), 16, '0') AS tail, md5((number % {ENDPOINTS})::text)::uuid AS endpoint
                   FROM generate_series(0, {events}::int8 - 1) AS number OFFSET 0) one;
             ALTER TABLE {table} ATTACH PARTITION {table}_{suffix} FOR VALUES FROM ('{first}') TO ('{end}')"
        )
    }
}
