//! Partitions: one a day for events, deliveries and attempts, made ahead and dropped by retention.

use std::time::Duration;

use dispatcher_core::limits::{LEDGER_PARTITION_DAYS_AHEAD, LEDGER_PARTITION_LOCK_TIMEOUT, STATISTICS_MINUTES_MAX};
use sqlx::{AssertSqlSafe, PgPool, Postgres, Transaction};
use uuid::Uuid;

use super::encode::int8;
use super::{LedgerError, Maintained, dispatchers, pools, replays, retention, routes};
use crate::ledger::days;

/// The partitioned tables, each with the column that carries the day.
const PARTITIONED: [(&str, &str); 3] = [("events", "id"), ("deliveries", "id"), ("attempts", "delivery")];

/// Keeps the ledger in order; see [`crate::ledger::Ledger::maintain`]. Of several processes one changes partitions.
pub(super) async fn maintain(pool: &PgPool, retention: Duration) -> Result<Maintained, LedgerError> {
    let kept_days = i32::try_from(days::whole_days(retention)).unwrap_or(i32::MAX);
    let first_kept = today(pool).await?.saturating_sub(kept_days).max(0);
    // A day more, for events that were routed by a table of the moment before.
    let dropped_before_ms = u64::try_from(first_kept - 1).unwrap_or_default() * days::DAY_MS;
    let mut failed = FirstError::default();
    failed.note(dispatchers::forget_silent(pool).await);
    let done = Maintained {
        days_made: failed.note(make_partitions(pool).await),
        deliveries_ended: failed.note(retention::end_unfinished(pool, first_of_day(first_kept)).await),
        days_dropped: failed.note(drop_days_before(pool, first_kept).await),
        events_outside: {
            failed.note(empty_defaults(pool, first_of_day(first_kept)).await);
            failed.note(count_outside(pool).await)
        },
    };
    failed.note(routes::forget_dropped(pool, dropped_before_ms).await);
    failed.note(replays::forget_before(pool, dropped_before_ms).await);
    failed.note(forget_statistics(pool).await);
    failed.note(pools::forget_statistics(pool).await);
    failed.0.map_or(Ok(done), Err)
}

/// The first of the steps' errors. Steps do not build on each other: one that fails must not keep the others from being
/// done, since it may fail again the next time.
#[derive(Default)]
struct FirstError(Option<LedgerError>);

impl FirstError {
    fn note<T: Default>(&mut self, done: Result<T, LedgerError>) -> T {
        done.unwrap_or_else(|error| {
            self.0.get_or_insert(error);
            T::default()
        })
    }
}

/// Drops days that are over; answers how many. The first that cannot be dropped now ends it.
async fn drop_days_before(pool: &PgPool, first_kept: i32) -> Result<u32, LedgerError> {
    let mut dropped = 0;
    for day in present_days(pool).await?.into_iter().filter(|day| *day < first_kept) {
        dropped += u32::from(drop_day(pool, day).await?);
    }
    Ok(dropped)
}

async fn count_outside(pool: &PgPool) -> Result<u64, LedgerError> {
    let outside: i64 = sqlx::query_scalar("SELECT count(*) FROM events_default").fetch_one(pool).await?;
    Ok(u64::try_from(outside).unwrap_or_default())
}

async fn forget_statistics(pool: &PgPool) -> Result<(), LedgerError> {
    sqlx::query("DELETE FROM endpoint_statistics WHERE minute <= floor(extract(epoch FROM now()) / 60)::int8 - $1")
        .bind(int8(STATISTICS_MINUTES_MAX))
        .execute(pool)
        .await?;
    Ok(())
}

/// Makes the partitions of yesterday, today and the coming days that are missing; answers how many days.
pub(super) async fn make_partitions(pool: &PgPool) -> Result<u32, LedgerError> {
    let (today, present) = (today(pool).await?, present_days(pool).await?);
    let mut made = 0;
    for day in today - 1..=today + LEDGER_PARTITION_DAYS_AHEAD {
        if !present.contains(&day) {
            made += u32::from(make_day(pool, day).await?);
        }
    }
    Ok(made)
}

/// The day by the database's clock, counted from 1970-01-01.
async fn today(pool: &PgPool) -> Result<i32, LedgerError> {
    let today = "SELECT floor(extract(epoch FROM now()) / 86400)::int4";
    Ok(sqlx::query_scalar(today).fetch_one(pool).await?)
}

/// Days that have partitions.
async fn present_days(pool: &PgPool) -> Result<Vec<i32>, LedgerError> {
    Ok(sqlx::query_scalar(
        "SELECT to_date(right(c.relname, 8), 'YYYYMMDD') - date '1970-01-01' FROM pg_inherits i
         JOIN pg_class c ON c.oid = i.inhrelid
         WHERE i.inhparent = 'events'::regclass AND c.relname ~ '^events_[0-9]{8}$' ORDER BY 1",
    )
    .fetch_all(pool)
    .await?)
}

/// The lowest identity of a day.
fn first_of_day(day: i32) -> Uuid {
    days::first_of_day(u64::try_from(day).unwrap_or_default())
}

/// The end of a partition's name, as `20260131`.
async fn suffix(transaction: &mut Transaction<'_, Postgres>, day: i32) -> Result<String, LedgerError> {
    let suffix = "SELECT to_char(date '1970-01-01' + $1, 'YYYYMMDD')";
    Ok(sqlx::query_scalar(suffix).bind(day).fetch_one(&mut **transaction).await?)
}

/// Begins a change of partitions; `None` if another process is at one. It waits for locks only a short time, since
/// everybody else waits behind it, and is tried again at the next maintenance.
async fn begin_alone(pool: &PgPool) -> Result<Option<Transaction<'static, Postgres>>, LedgerError> {
    let mut transaction = pool.begin().await?;
    let alone: bool = sqlx::query_scalar(
        "SELECT pg_try_advisory_xact_lock(hashtextextended('harborhook partitions ' || current_schema(), 0))
                AND set_config('lock_timeout', $1, true) <> ''",
    )
    .bind(LEDGER_PARTITION_LOCK_TIMEOUT.as_millis().to_string())
    .fetch_one(&mut *transaction)
    .await?;
    Ok(alone.then_some(transaction))
}

async fn execute(transaction: &mut Transaction<'_, Postgres>, statement: String) -> Result<(), LedgerError> {
    sqlx::query(AssertSqlSafe(statement)).persistent(false).execute(&mut **transaction).await?;
    Ok(())
}

/// Makes a day's partitions. Rows of the day that the default partitions have caught move into them.
async fn make_day(pool: &PgPool, day: i32) -> Result<bool, LedgerError> {
    let Some(mut transaction) = begin_alone(pool).await? else { return Ok(false) };
    let (first, end) = (first_of_day(day), first_of_day(day + 1));
    let suffix = suffix(&mut transaction, day).await?;
    for (table, column) in PARTITIONED {
        let exists: bool = sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL")
            .bind(format!("{table}_{suffix}"))
            .fetch_one(&mut *transaction)
            .await?;
        if exists {
            return Ok(false);
        }
        execute(&mut transaction, format!("CREATE TABLE {table}_{suffix} (LIKE {table} INCLUDING ALL)")).await?;
        execute(&mut transaction, format!("LOCK TABLE {table}_default IN ACCESS EXCLUSIVE MODE")).await?;
        execute(
            &mut transaction,
            format!(
                "WITH moved AS (DELETE FROM {table}_default WHERE {column} >= '{first}' AND {column} < '{end}' RETURNING *)
                 INSERT INTO {table}_{suffix} SELECT * FROM moved"
            ),
        )
        .await?;
        execute(
            &mut transaction,
            format!("ALTER TABLE {table} ATTACH PARTITION {table}_{suffix} FOR VALUES FROM ('{first}') TO ('{end}')"),
        )
        .await?;
    }
    transaction.commit().await?;
    Ok(true)
}

/// Drops a day's partitions, unless something of the day or of an earlier one is unfinished. With the partitions
/// locked nothing of the day can be opened again.
///
/// Everybody locks a table before its partitions, and so must this: with the partitions locked first, a reader that is
/// in the table already waits for them while the drop waits for the table.
async fn drop_day(pool: &PgPool, day: i32) -> Result<bool, LedgerError> {
    let Some(mut transaction) = begin_alone(pool).await? else { return Ok(false) };
    let suffix = suffix(&mut transaction, day).await?;
    let tables = PARTITIONED.map(|(table, _)| format!("{table}_{suffix}")).join(", ");
    let parents = PARTITIONED.map(|(table, _)| format!("ONLY {table}")).join(", ");
    execute(&mut transaction, format!("LOCK TABLE {parents}, {tables} IN ACCESS EXCLUSIVE MODE")).await?;
    if retention::is_unfinished_before(&mut transaction, first_of_day(day + 1)).await? {
        return Ok(false);
    }
    execute(&mut transaction, format!("DROP TABLE {tables}")).await?;
    transaction.commit().await?;
    Ok(true)
}

/// Removes what the default partitions have caught and is too old, unless something as old is unfinished.
async fn empty_defaults(pool: &PgPool, bound: Uuid) -> Result<(), LedgerError> {
    let any_old = "SELECT EXISTS (SELECT FROM events_default WHERE id < $1)";
    if !sqlx::query_scalar(any_old).bind(bound).fetch_one(pool).await? {
        return Ok(());
    }
    let Some(mut transaction) = begin_alone(pool).await? else { return Ok(()) };
    let tables = PARTITIONED.map(|(table, _)| format!("{table}_default")).join(", ");
    execute(&mut transaction, format!("LOCK TABLE {tables} IN ACCESS EXCLUSIVE MODE")).await?;
    if !retention::is_unfinished_before(&mut transaction, bound).await? {
        retention::empty_defaults(&mut transaction, bound).await?;
        transaction.commit().await?;
    }
    Ok(())
}
