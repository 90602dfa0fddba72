//! Replays of many deliveries: their places, their steps, and what became of what they started.
//!
//! The leader's epoch is held first, then the row of the replay is locked, then events, deliveries, due and lanes, each by key.

mod page;
mod start;

use std::collections::HashMap;

use dispatcher_core::id::{DeliveryId, ReplayId, TenantId};
use dispatcher_core::limits::REPLAYS_REMEMBERED_MAX;
use sqlx::postgres::PgRow;
use sqlx::{PgPool, Postgres, Row as _, Transaction};
use uuid::Uuid;

pub(super) use self::page::page;
use super::encode::{self, count, int8};
use super::{LedgerError, NewReplay, ReplayCursor, ReplayRecord, ReplaySettled, ReplayStage, ReplayStep};
use crate::ledger::check_epoch;

/// The columns of a [`ReplayRecord`].
macro_rules! columns {
    () => {
        "id, step, stage, after, matched, queued, delivered, failed,
         floor(extract(epoch FROM started_at) * 1000)::int8 AS started_ms,
         floor(extract(epoch FROM finished_at) * 1000)::int8 AS finished_ms,
         floor(extract(epoch FROM least(asked_until, started_at)) * 1000)::int8 AS until_ms"
    };
}

/// Begins a replay; see [`crate::ledger::Ledger::begin_replay`].
pub(super) async fn begin(pool: &PgPool, new: &NewReplay, epoch: Option<u64>) -> Result<ReplayRecord, LedgerError> {
    if let Some(record) = read(pool, new.tenant, new.replay).await? {
        return Ok(record);
    }
    let mut transaction = pool.begin().await?;
    hold_epoch(&mut transaction, epoch).await?;
    sqlx::query(
        "INSERT INTO replays (id, tenant, stage, started_at, asked_until)
         VALUES ($1, $2, $3, now(), 'epoch'::timestamptz + $4 * interval '1 millisecond') ON CONFLICT (id) DO NOTHING",
    )
    .bind(new.replay.0)
    .bind(new.tenant.0)
    .bind(stage_number(new.first_stage))
    .bind(int8(new.asked_until_unix_ms.min(ASKED_UNTIL_MS_MAX)))
    .execute(&mut *transaction)
    .await?;
    forget_beyond_bound(&mut transaction, new.tenant).await?;
    transaction.commit().await?;
    let record = read(pool, new.tenant, new.replay).await?;
    record.ok_or_else(|| LedgerError::Unavailable("a replay went while it began".to_owned()))
}

/// The end of the year 9999, well within the range of a timestamp.
const ASKED_UNTIL_MS_MAX: u64 = 253_402_300_799_999;

async fn read(pool: &PgPool, tenant: TenantId, replay: ReplayId) -> Result<Option<ReplayRecord>, LedgerError> {
    let row = sqlx::query(concat!("SELECT ", columns!(), " FROM replays WHERE id = $1 AND tenant = $2"))
        .bind(replay.0)
        .bind(tenant.0)
        .fetch_optional(pool)
        .await?;
    row.as_ref().map(record_of).transpose()
}

/// Forgets a tenant's oldest replays beyond their bound.
async fn forget_beyond_bound(transaction: &mut Transaction<'_, Postgres>, tenant: TenantId) -> Result<(), LedgerError> {
    sqlx::query(
        "WITH gone AS (
             DELETE FROM replays WHERE id = ANY(ARRAY(
                 SELECT id FROM replays WHERE tenant = $1 ORDER BY started_at DESC OFFSET $2)) RETURNING id)
         DELETE FROM replay_runs WHERE replay = ANY(ARRAY(SELECT id FROM gone))",
    )
    .bind(tenant.0)
    .bind(i64::from(REPLAYS_REMEMBERED_MAX))
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// Forgets replays of a time of which nothing is kept any more: to repeat one would find nothing.
pub(super) async fn forget_before(pool: &PgPool, unix_ms: u64) -> Result<(), LedgerError> {
    sqlx::query(
        "WITH gone AS (
             DELETE FROM replays WHERE asked_until < 'epoch'::timestamptz + $1 * interval '1 millisecond' RETURNING id)
         DELETE FROM replay_runs WHERE replay = ANY(ARRAY(SELECT id FROM gone))",
    )
    .bind(int8(unix_ms))
    .execute(pool)
    .await?;
    Ok(())
}

/// Commits a step; see [`crate::ledger::Ledger::advance_replay`].
pub(super) async fn advance(
    pool: &PgPool,
    step: &ReplayStep,
    epoch: Option<u64>,
) -> Result<Option<ReplayRecord>, LedgerError> {
    let mut transaction = pool.begin().await?;
    hold_epoch(&mut transaction, epoch).await?;
    let Some(record) = lock(&mut transaction, step.tenant, step.replay).await? else { return Ok(None) };
    if record.step != step.after_step || record.cursor.stage == ReplayStage::Done {
        return Ok(Some(record));
    }
    let again = start::again(&mut transaction, step).await?;
    let missing = start::missing(&mut transaction, step).await?;
    let row = sqlx::query(concat!(
        "UPDATE replays SET step = step + 1, stage = $2, after = $3, matched = matched + $4, queued = queued + $5,
                finished_at = CASE WHEN $2 = 2 AND queued + $5 = delivered + failed THEN now() END
         WHERE id = $1 RETURNING ",
        columns!()
    ))
    .bind(step.replay.0)
    .bind(stage_number(step.cursor.stage))
    .bind(step.cursor.after)
    .bind(int8(step.matched))
    .bind(int8(again + missing))
    .fetch_one(&mut *transaction)
    .await?;
    let record = record_of(&row)?;
    transaction.commit().await?;
    Ok(Some(record))
}

/// Whether a leader may still write; until the end of the transaction no later one can begin to.
pub(super) async fn hold_epoch(
    transaction: &mut Transaction<'_, Postgres>,
    epoch: Option<u64>,
) -> Result<(), LedgerError> {
    if epoch.is_none() {
        return Ok(());
    }
    let present: i64 =
        sqlx::query_scalar("SELECT leader_epoch FROM ledger FOR SHARE").fetch_one(&mut **transaction).await?;
    check_epoch(epoch, count(present)?).map(drop)
}

async fn lock(
    transaction: &mut Transaction<'_, Postgres>,
    tenant: TenantId,
    replay: ReplayId,
) -> Result<Option<ReplayRecord>, LedgerError> {
    let row = sqlx::query(concat!("SELECT ", columns!(), " FROM replays WHERE id = $1 AND tenant = $2 FOR UPDATE"))
        .bind(replay.0)
        .bind(tenant.0)
        .fetch_optional(&mut **transaction)
        .await?;
    row.as_ref().map(record_of).transpose()
}

/// Counts runs that are over; see [`crate::ledger::Ledger::settle_replay`]. A look comes first: as long as none is over
/// nothing is locked or written.
pub(super) async fn settle(
    pool: &PgPool,
    (tenant, replay): (TenantId, ReplayId),
    (after, rows_max): (Option<DeliveryId>, u32),
    epoch: Option<u64>,
) -> Result<Option<ReplaySettled>, LedgerError> {
    let looked = look(pool, replay, after, rows_max).await?;
    let next = looked.last().filter(|_| looked.len() == rows_max as usize).map(|run| run.delivery);
    let over: HashMap<Uuid, bool> = looked.iter().filter_map(|run| Some((run.delivery.0, run.has_arrived?))).collect();
    if over.is_empty() {
        let record = read(pool, tenant, replay).await?;
        return Ok(record.map(|record| ReplaySettled { record, ended: 0, next }));
    }
    let mut transaction = pool.begin().await?;
    hold_epoch(&mut transaction, epoch).await?;
    if lock(&mut transaction, tenant, replay).await?.is_none() {
        return Ok(None);
    }
    let deliveries: Vec<Uuid> = over.keys().copied().collect();
    let gone: Vec<Uuid> =
        sqlx::query_scalar("DELETE FROM replay_runs WHERE replay = $1 AND delivery = ANY($2) RETURNING delivery")
            .bind(replay.0)
            .bind(&deliveries)
            .fetch_all(&mut *transaction)
            .await?;
    let arrived = gone.iter().filter(|delivery| over[*delivery]).count();
    let row = sqlx::query(concat!(
        "UPDATE replays SET delivered = delivered + $2, failed = failed + $3,
                finished_at = CASE WHEN stage = 2 AND queued = delivered + $2 + failed + $3
                              THEN coalesce(finished_at, now()) END
         WHERE id = $1 RETURNING ",
        columns!()
    ))
    .bind(replay.0)
    .bind(int8(arrived))
    .bind(int8(gone.len() - arrived))
    .fetch_one(&mut *transaction)
    .await?;
    let record = record_of(&row)?;
    transaction.commit().await?;
    Ok(Some(ReplaySettled { record, ended: u32::try_from(gone.len()).unwrap_or(u32::MAX), next }))
}

/// A run that a replay started.
struct Run {
    delivery: DeliveryId,
    /// Whether it arrived, if it is over.
    has_arrived: Option<bool>,
}

/// A run that has given way to a later one ended as its attempts say; one whose delivery is gone has failed.
async fn look(
    pool: &PgPool,
    replay: ReplayId,
    after: Option<DeliveryId>,
    rows_max: u32,
) -> Result<Vec<Run>, LedgerError> {
    let rows: Vec<(Uuid, Option<bool>)> = sqlx::query_as(
        "SELECT r.delivery,
                CASE WHEN d.run = r.run AND d.state = 0 THEN NULL
                     WHEN d.run = r.run THEN d.state = 1
                     ELSE (r.run = 1 AND d.first_outcome = 'delivered') IS TRUE
                          OR EXISTS (SELECT FROM attempts WHERE delivery = r.delivery AND run = r.run
                                     AND outcome = 'delivered' OFFSET 0) END
         FROM (SELECT delivery, run FROM replay_runs WHERE replay = $1 AND delivery > $2 ORDER BY delivery LIMIT $3) r
         LEFT JOIN LATERAL (SELECT run, state, first_outcome FROM deliveries WHERE id = r.delivery OFFSET 0) d ON true
         ORDER BY r.delivery",
    )
    .bind(replay.0)
    .bind(after.map_or(Uuid::nil(), |delivery| delivery.0))
    .bind(i64::from(rows_max))
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(|(delivery, has_arrived)| Run { delivery: DeliveryId(delivery), has_arrived }).collect())
}

fn record_of(row: &PgRow) -> Result<ReplayRecord, LedgerError> {
    let number = |name: &str| -> Result<u64, LedgerError> { count(row.try_get::<i64, _>(name)?) };
    Ok(ReplayRecord {
        replay: ReplayId(row.try_get("id")?),
        step: number("step")?,
        cursor: ReplayCursor { stage: stage(row.try_get("stage")?)?, after: row.try_get("after")? },
        started_at_unix_ms: number("started_ms")?,
        finished_at_unix_ms: row.try_get::<Option<i64>, _>("finished_ms")?.map(count).transpose()?,
        until_unix_ms: number("until_ms")?,
        matched: number("matched")?,
        queued: number("queued")?,
        delivered: number("delivered")?,
        failed: number("failed")?,
    })
}

fn stage_number(stage: ReplayStage) -> i16 {
    match stage {
        ReplayStage::Deliveries => 0,
        ReplayStage::Events => 1,
        ReplayStage::Done => 2,
    }
}

fn stage(number: i16) -> Result<ReplayStage, LedgerError> {
    match number {
        0 => Ok(ReplayStage::Deliveries),
        1 => Ok(ReplayStage::Events),
        2 => Ok(ReplayStage::Done),
        _ => Err(encode::refused("the ledger holds a stage of a replay that this release does not know")),
    }
}
