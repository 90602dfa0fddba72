//! Replays of many deliveries: their places, their steps, and what became of what they started.

mod page;
mod start;

use std::collections::HashMap;

use dispatcher_core::id::{DeliveryId, ReplayId, TenantId};
use dispatcher_core::limits::REPLAYS_REMEMBERED_MAX;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{Row as _, Sqlite, SqliteExecutor, SqlitePool, Transaction};
use uuid::Uuid;

pub(super) use self::page::page;
use super::encode::{self, Hex, blob, count, integer, uuid};
use super::{LedgerError, NewReplay, ReplayCursor, ReplayRecord, ReplaySettled, ReplayStage, ReplayStep, begin};
use crate::ledger::check_epoch;

/// The columns of a [`ReplayRecord`].
macro_rules! columns {
    () => {
        "id, step, stage, after, matched, queued, delivered, failed, started_at, finished_at,
         min(asked_until, started_at) AS until_at"
    };
}

/// Begins a replay; see [`crate::ledger::Ledger::begin_replay`]. Of a tenant's replays the oldest beyond their bound are
/// forgotten.
pub(super) async fn begin_replay(
    writer: &mut SqliteConnection,
    new: &NewReplay,
    epoch: Option<u64>,
    now_ms: u64,
) -> Result<ReplayRecord, LedgerError> {
    let mut transaction = begin(writer).await?;
    if let Some(record) = read(&mut *transaction, new.tenant, new.replay).await? {
        return Ok(record);
    }
    hold_epoch(&mut transaction, epoch).await?;
    sqlx::query("INSERT INTO replays (id, tenant, stage, started_at, asked_until) VALUES (?1, ?2, ?3, ?4, ?5)")
        .bind(blob(new.replay.0))
        .bind(blob(new.tenant.0))
        .bind(stage_number(new.first_stage))
        .bind(integer(now_ms))
        .bind(integer(new.asked_until_unix_ms))
        .execute(&mut *transaction)
        .await?;
    let gone = sqlx::query(
        "DELETE FROM replays WHERE id IN (
             SELECT id FROM replays WHERE tenant = ?1 ORDER BY started_at DESC LIMIT -1 OFFSET ?2) RETURNING id",
    )
    .bind(blob(new.tenant.0))
    .bind(i64::from(REPLAYS_REMEMBERED_MAX))
    .fetch_all(&mut *transaction)
    .await?;
    forget_runs(&mut *transaction, &gone).await?;
    let record = read(&mut *transaction, new.tenant, new.replay).await?;
    transaction.commit().await?;
    record.ok_or_else(|| encode::refused("a replay that was put into the ledger is not there"))
}

/// Forgets replays of a time of which nothing is kept any more: to repeat one would find nothing.
pub(super) async fn forget_before(writer: &mut SqliteConnection, unix_ms: u64) -> Result<(), LedgerError> {
    let mut transaction = begin(writer).await?;
    let gone = sqlx::query("DELETE FROM replays WHERE asked_until < ?1 RETURNING id")
        .bind(integer(unix_ms))
        .fetch_all(&mut *transaction)
        .await?;
    forget_runs(&mut *transaction, &gone).await?;
    transaction.commit().await?;
    Ok(())
}

async fn forget_runs(executor: impl SqliteExecutor<'_>, replays: &[SqliteRow]) -> Result<(), LedgerError> {
    if replays.is_empty() {
        return Ok(());
    }
    let ids =
        replays.iter().map(|row| Ok([Hex(uuid(row.try_get("id")?)?)])).collect::<Result<Vec<_>, LedgerError>>()?;
    sqlx::query("DELETE FROM replay_runs WHERE replay IN (SELECT unhex(value->>0) FROM json_each(?1))")
        .bind(encode::rows(&ids)?)
        .execute(executor)
        .await?;
    Ok(())
}

async fn read(
    executor: impl SqliteExecutor<'_>,
    tenant: TenantId,
    replay: ReplayId,
) -> Result<Option<ReplayRecord>, LedgerError> {
    let row = sqlx::query(concat!("SELECT ", columns!(), " FROM replays WHERE id = ?1 AND tenant = ?2"))
        .bind(blob(replay.0))
        .bind(blob(tenant.0))
        .fetch_optional(executor)
        .await?;
    row.as_ref().map(record_of).transpose()
}

/// Whether a leader may still write.
pub(super) async fn hold_epoch(
    transaction: &mut Transaction<'_, Sqlite>,
    epoch: Option<u64>,
) -> Result<(), LedgerError> {
    let row = sqlx::query("SELECT leader_epoch FROM ledger").fetch_one(&mut **transaction).await?;
    check_epoch(epoch, count(row.try_get("leader_epoch")?)?).map(drop)
}

/// Commits a step; see [`crate::ledger::Ledger::advance_replay`].
pub(super) async fn advance(
    writer: &mut SqliteConnection,
    step: &ReplayStep,
    epoch: Option<u64>,
    now_ms: u64,
) -> Result<Option<ReplayRecord>, LedgerError> {
    let mut transaction = begin(writer).await?;
    hold_epoch(&mut transaction, epoch).await?;
    let Some(record) = read(&mut *transaction, step.tenant, step.replay).await? else { return Ok(None) };
    if record.step != step.after_step || record.cursor.stage == ReplayStage::Done {
        return Ok(Some(record));
    }
    let again = start::again(&mut transaction, step, now_ms).await?;
    let missing = start::missing(&mut transaction, step, now_ms).await?;
    let row = sqlx::query(concat!(
        "UPDATE replays SET step = step + 1, stage = ?2, after = ?3, matched = matched + ?4, queued = queued + ?5,
                finished_at = CASE WHEN ?2 = 2 AND queued + ?5 = delivered + failed THEN ?6 END
         WHERE id = ?1 RETURNING ",
        columns!()
    ))
    .bind(blob(step.replay.0))
    .bind(stage_number(step.cursor.stage))
    .bind(blob(step.cursor.after))
    .bind(integer(step.matched))
    .bind(integer(again + missing))
    .bind(integer(now_ms))
    .fetch_one(&mut *transaction)
    .await?;
    let record = record_of(&row)?;
    transaction.commit().await?;
    Ok(Some(record))
}

/// Runs that a replay started, each with whether it arrived, if it is over. A run that has given way to a later one ended
/// as its attempts say; one whose delivery is gone has failed.
pub(super) struct Runs(Vec<(DeliveryId, Option<bool>)>);

impl Runs {
    /// At most `rows_max` after a delivery. Nothing is written.
    pub(super) async fn look(
        readers: &SqlitePool,
        replay: ReplayId,
        after: Option<DeliveryId>,
        rows_max: u32,
    ) -> Result<Self, LedgerError> {
        let rows = sqlx::query(
            "SELECT r.delivery,
                    CASE WHEN d.run = r.run AND d.state = 0 THEN NULL
                         WHEN d.run = r.run THEN d.state = 1
                         ELSE EXISTS (SELECT 1 FROM attempts WHERE delivery = r.delivery AND run = r.run
                                      AND outcome = 'delivered') END AS has_arrived
             FROM (SELECT delivery, run FROM replay_runs WHERE replay = ?1 AND delivery > ?2
                   ORDER BY delivery LIMIT ?3) r
             LEFT JOIN deliveries d ON d.id = r.delivery ORDER BY r.delivery",
        )
        .bind(blob(replay.0))
        .bind(blob(after.map_or(Uuid::nil(), |delivery| delivery.0)))
        .bind(i64::from(rows_max))
        .fetch_all(readers)
        .await?;
        let runs = rows.iter().map(|row| {
            let has_arrived: Option<i64> = row.try_get("has_arrived")?;
            Ok((DeliveryId(uuid(row.try_get("delivery")?)?), has_arrived.map(|arrived| arrived != 0)))
        });
        Ok(Self(runs.collect::<Result<_, LedgerError>>()?))
    }

    /// Whether none of them is over.
    pub(super) fn none_over(&self) -> bool {
        self.0.iter().all(|(_, has_arrived)| has_arrived.is_none())
    }

    /// Where to look next, if as many as could be were looked at.
    pub(super) fn next(&self, rows_max: u32) -> Option<DeliveryId> {
        self.0.last().filter(|_| self.0.len() == rows_max as usize).map(|(delivery, _)| *delivery)
    }
}

/// The record of a replay of which no run is over.
pub(super) async fn unchanged(
    readers: &SqlitePool,
    (tenant, replay): (TenantId, ReplayId),
    next: Option<DeliveryId>,
) -> Result<Option<ReplaySettled>, LedgerError> {
    let record = read(readers, tenant, replay).await?;
    Ok(record.map(|record| ReplaySettled { record, ended: 0, next }))
}

/// Counts runs that are over; see [`crate::ledger::Ledger::settle_replay`]. Where to look next is not told.
pub(super) async fn settle(
    writer: &mut SqliteConnection,
    (tenant, replay): (TenantId, ReplayId),
    runs: &Runs,
    epoch: Option<u64>,
    now_ms: u64,
) -> Result<Option<ReplaySettled>, LedgerError> {
    let mut transaction = begin(writer).await?;
    hold_epoch(&mut transaction, epoch).await?;
    if read(&mut *transaction, tenant, replay).await?.is_none() {
        return Ok(None);
    }
    let over: HashMap<Uuid, bool> = runs.0.iter().filter_map(|(id, arrived)| Some((id.0, (*arrived)?))).collect();
    let ids: Vec<[Hex; 1]> = over.keys().map(|id| [Hex(*id)]).collect();
    let rows = sqlx::query(
        "DELETE FROM replay_runs WHERE replay = ?1 AND delivery IN (SELECT unhex(value->>0) FROM json_each(?2))
         RETURNING delivery",
    )
    .bind(blob(replay.0))
    .bind(encode::rows(&ids)?)
    .fetch_all(&mut *transaction)
    .await?;
    let gone = rows.iter().map(|row| uuid(row.try_get("delivery")?)).collect::<Result<Vec<Uuid>, LedgerError>>()?;
    let arrived = gone.iter().filter(|delivery| over[*delivery]).count();
    let row = sqlx::query(concat!(
        "UPDATE replays SET delivered = delivered + ?2, failed = failed + ?3,
                finished_at = CASE WHEN stage = 2 AND queued = delivered + ?2 + failed + ?3
                              THEN coalesce(finished_at, ?4) END
         WHERE id = ?1 RETURNING ",
        columns!()
    ))
    .bind(blob(replay.0))
    .bind(integer(arrived as u64))
    .bind(integer((gone.len() - arrived) as u64))
    .bind(integer(now_ms))
    .fetch_one(&mut *transaction)
    .await?;
    let record = record_of(&row)?;
    transaction.commit().await?;
    Ok(Some(ReplaySettled { record, ended: u32::try_from(gone.len()).unwrap_or(u32::MAX), next: None }))
}

fn record_of(row: &SqliteRow) -> Result<ReplayRecord, LedgerError> {
    let number = |name: &str| -> Result<u64, LedgerError> { count(row.try_get(name)?) };
    Ok(ReplayRecord {
        replay: ReplayId(uuid(row.try_get("id")?)?),
        step: number("step")?,
        cursor: ReplayCursor { stage: stage(row.try_get("stage")?)?, after: uuid(row.try_get("after")?)? },
        started_at_unix_ms: number("started_at")?,
        finished_at_unix_ms: row.try_get::<Option<i64>, _>("finished_at")?.map(count).transpose()?,
        until_unix_ms: number("until_at")?,
        matched: number("matched")?,
        queued: number("queued")?,
        delivered: number("delivered")?,
        failed: number("failed")?,
    })
}

fn stage_number(stage: ReplayStage) -> i64 {
    match stage {
        ReplayStage::Deliveries => 0,
        ReplayStage::Events => 1,
        ReplayStage::Done => 2,
    }
}

fn stage(number: i64) -> Result<ReplayStage, LedgerError> {
    match number {
        0 => Ok(ReplayStage::Deliveries),
        1 => Ok(ReplayStage::Events),
        2 => Ok(ReplayStage::Done),
        _ => Err(encode::refused("the ledger holds a stage of a replay that this release does not know")),
    }
}
