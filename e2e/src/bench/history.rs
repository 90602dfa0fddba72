//! A ledger that has been in use for days: finished rows, made by SQL.

use anyhow::Result;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

/// Days that the rows are spread over; the last is today.
const DAYS: u64 = 7;
/// Endpoints that they went to.
const ENDPOINTS: u64 = 1_000;

/// Makes so many rows in all: an event, its delivery and its attempt, again and again. The ledger must be migrated.
pub async fn make(database: &str, rows: u64) -> Result<()> {
    let mut connection = PgConnection::connect(database).await?;
    let each = rows / 3 / DAYS;
    for days_ago in (0..DAYS).rev() {
        connection.execute(AssertSqlSafe(partitions(days_ago))).await?;
        connection.execute(AssertSqlSafe(day(days_ago, each))).await?;
    }
    connection.execute("VACUUM ANALYZE").await?;
    connection.execute("CHECKPOINT").await?;
    connection.close().await?;
    Ok(())
}

/// Makes a past day's partitions, as maintenance did when the day was to come.
fn partitions(days_ago: u64) -> String {
    format!(
        "DO $$
         DECLARE
             day date := (now() AT TIME ZONE 'UTC')::date - {days_ago};
             ms int8 := (day - date '1970-01-01')::int8 * 86400000;
             bound text := 'FOR VALUES FROM (''%s'') TO (''%s'')';
             name text;
         BEGIN
             FOREACH name IN ARRAY ARRAY['events', 'deliveries', 'attempts'] LOOP
                 EXECUTE format('CREATE TABLE IF NOT EXISTS %I PARTITION OF %I ' || bound,
                                name || '_' || to_char(day, 'YYYYMMDD'), name,
                                rpad(lpad(to_hex(ms), 12, '0'), 32, '0')::uuid,
                                rpad(lpad(to_hex(ms + 86400000), 12, '0'), 32, '0')::uuid);
             END LOOP;
         END $$"
    )
}

/// The rows of a day, evenly over its time; of today over the time that has passed.
fn day(days_ago: u64, each: u64) -> String {
    format!(
        "WITH time AS (
             SELECT (extract(epoch FROM now())::int8 / 86400 - {days_ago}) * 86400000 AS first,
                    CASE {days_ago} WHEN 0 THEN (extract(epoch FROM now())::int8 % 86400) * 1000 ELSE 86400000 END AS span),
         row AS MATERIALIZED (
             SELECT lpad(to_hex(first + span * number / {each}), 12, '0') AS ms,
                    lpad(to_hex(number), 16, '0') AS tail,
                    md5((number % {ENDPOINTS})::text)::uuid AS endpoint, md5('tenant')::uuid AS tenant
             FROM time, generate_series(0, {each} - 1) AS number),
         event AS (
             INSERT INTO events (tenant, id, table_version, fanout_count, event_type, content_type, attributes, targets,
                                 body)
             SELECT tenant, (ms || '7000' || tail)::uuid, 1, 1, 'history.one', 'application/json', '{{}}',
                    uuid_send(endpoint) || uuid_send(endpoint), convert_to('{{\"filler\":\"' || repeat('x', 100) || '\"}}', 'UTF8')
             FROM row),
         delivery AS (
             INSERT INTO deliveries (id, tenant, event, subscription, endpoint, run_started_at, run, attempts, state,
                                     last_status_code, last_outcome)
             SELECT (ms || '8000' || tail)::uuid, tenant, (ms || '7000' || tail)::uuid, endpoint, endpoint, now(), 1, 1, 1,
                    204, 'delivered'
             FROM row)
         INSERT INTO attempts (delivery, started_at, duration_us, run, gen, number, status_code, of_part, superseded,
                               outcome, excerpt)
         SELECT (ms || '8000' || tail)::uuid, now(), 1000, 1, 1, 1, 204, true, false, 'delivered', ''
         FROM row"
    )
}
