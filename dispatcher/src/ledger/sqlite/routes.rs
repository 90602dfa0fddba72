//! The routing table, and the gates of the lanes, which follow it.

use std::time::Duration;

use dispatcher_core::id::{EndpointId, IssuerId, SubscriptionId, TenantId};
use dispatcher_core::limits::TABLE_ROWS_PER_STATEMENT_MAX;
use dispatcher_core::table::{EndpointState, Row, RowKey, TableChange, TableVersion};
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{Row as _, Sqlite, SqlitePool, Transaction};
use uuid::Uuid;

use super::encode::{self, Hex, blob, count, integer, milliseconds, uuid};
use super::{DisableReason, Disabled, GateChange, LedgerError, TableLoad, begin};

/// Applies a change as a whole; see [`crate::ledger::Ledger::publish_table`].
pub(super) async fn publish_table(
    writer: &mut SqliteConnection,
    change: &TableChange,
    epoch: Option<u64>,
    now_ms: u64,
) -> Result<TableVersion, LedgerError> {
    let mut transaction = begin(writer).await?;
    let row = sqlx::query("SELECT table_version, leader_epoch FROM ledger").fetch_one(&mut *transaction).await?;
    let present: u64 = count(row.try_get("table_version")?)?;
    let is_new_leader = crate::ledger::check_epoch(epoch, count(row.try_get("leader_epoch")?)?)?;
    if let Some(epoch) = epoch.filter(|_| is_new_leader) {
        let update = sqlx::query("UPDATE ledger SET leader_epoch = ?1").bind(integer(epoch));
        update.execute(&mut *transaction).await?;
    }
    if change.is_empty() {
        transaction.commit().await?;
        return Ok(TableVersion(present));
    }
    let version = TableVersion(present + 1);
    for rows in change.put.chunks(TABLE_ROWS_PER_STATEMENT_MAX) {
        put_rows(&mut transaction, rows, version).await?;
        put_lanes(&mut transaction, rows).await?;
    }
    for keys in change.drop.chunks(TABLE_ROWS_PER_STATEMENT_MAX) {
        drop_rows(&mut transaction, keys, version, now_ms).await?;
    }
    sqlx::query("UPDATE ledger SET table_version = ?1").bind(integer(version.0)).execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(version)
}

/// The highest number of a kind that this release knows.
const KIND_MAX: i64 = 3;

/// The number of a row's kind, and its identity.
fn key_columns(key: RowKey) -> (u8, Uuid) {
    match key {
        RowKey::Tenant(id) => (0, id.0),
        RowKey::Endpoint(id) => (1, id.0),
        RowKey::Subscription(id) => (2, id.0),
        RowKey::Issuer(id) => (3, id.0),
    }
}

/// The key of a row, unless only a newer release knows its kind.
fn row_key(kind: i64, id: Uuid) -> Option<RowKey> {
    match kind {
        0 => Some(RowKey::Tenant(TenantId(id))),
        1 => Some(RowKey::Endpoint(EndpointId(id))),
        2 => Some(RowKey::Subscription(SubscriptionId(id))),
        3 => Some(RowKey::Issuer(IssuerId(id))),
        _ => None,
    }
}

async fn put_rows(
    transaction: &mut Transaction<'_, Sqlite>,
    rows: &[Row],
    version: TableVersion,
) -> Result<(), LedgerError> {
    let columns = rows.iter().map(|row| {
        let (kind, id) = key_columns(row.key());
        let text =
            serde_json::to_string(row).map_err(|_| encode::refused("a routing row cannot be written as JSON"))?;
        Ok((kind, Hex(id), text))
    });
    sqlx::query(
        "INSERT INTO routes (kind, id, version, row)
         SELECT value->>0, unhex(value->>1), ?2, value->>2 FROM json_each(?1) WHERE true
         ON CONFLICT (kind, id) DO UPDATE SET version = excluded.version, row = excluded.row, dropped_at = NULL",
    )
    .bind(encode::rows(&columns.collect::<Result<Vec<_>, LedgerError>>()?)?)
    .bind(integer(version.0))
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// Shuts the gates of endpoints that may not deliver. One that may again, or has a new revision, starts with an
/// open gate; a new revision also enables it. In an upsert's expressions plain names are the values before.
async fn put_lanes(transaction: &mut Transaction<'_, Sqlite>, rows: &[Row]) -> Result<(), LedgerError> {
    let lanes: Vec<_> = rows
        .iter()
        .filter_map(|row| {
            let Row::Endpoint(endpoint) = row else { return None };
            let shut = endpoint.state != EndpointState::Active;
            Some((Hex(endpoint.id.0), Hex(endpoint.tenant.0), &endpoint.pool, &endpoint.revision, shut))
        })
        .collect();
    if lanes.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO lanes (endpoint, tenant, pool, revision, shut)
         SELECT unhex(value->>0), unhex(value->>1), value->>2, value->>3, value->>4 FROM json_each(?1) WHERE true
         ON CONFLICT (endpoint) DO UPDATE SET
             tenant = excluded.tenant, pool = excluded.pool, revision = excluded.revision, shut = excluded.shut,
             dropped_at = NULL,
             gate_until = CASE WHEN shut > excluded.shut OR revision IS NOT excluded.revision THEN 0
                               ELSE gate_until END,
             quota = CASE WHEN shut > excluded.shut OR revision IS NOT excluded.revision THEN NULL ELSE quota END,
             disabled_reason = CASE WHEN disabled_revision IS excluded.revision THEN disabled_reason END,
             disabled_revision = CASE WHEN disabled_revision IS excluded.revision THEN disabled_revision END",
    )
    .bind(encode::rows(&lanes)?)
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// Leaves tombstones, and shuts the gates of dropped endpoints. What an endpoint was disabled for goes with it.
async fn drop_rows(
    transaction: &mut Transaction<'_, Sqlite>,
    keys: &[RowKey],
    version: TableVersion,
    now_ms: u64,
) -> Result<(), LedgerError> {
    let columns: Vec<_> = keys.iter().map(|key| key_columns(*key)).map(|(kind, id)| (kind, Hex(id))).collect();
    let columns = encode::rows(&columns)?;
    sqlx::query(
        "UPDATE routes SET version = ?2, row = NULL, dropped_at = ?3 FROM json_each(?1) j
         WHERE routes.kind = j.value->>0 AND routes.id = unhex(j.value->>1) AND routes.row IS NOT NULL",
    )
    .bind(&columns)
    .bind(integer(version.0))
    .bind(integer(now_ms))
    .execute(&mut **transaction)
    .await?;
    sqlx::query(
        "UPDATE lanes SET shut = 1, dropped_at = coalesce(dropped_at, ?2), revision = NULL,
                          disabled_reason = NULL, disabled_revision = NULL
         WHERE endpoint IN (SELECT unhex(value->>1) FROM json_each(?1) WHERE value->>0 = 1)",
    )
    .bind(&columns)
    .bind(integer(now_ms))
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// Forgets rows and lanes of endpoints that were dropped before a time. Whoever has an older table than the last of them
/// reads all of it the next time.
pub(super) async fn forget_dropped(writer: &mut SqliteConnection, before_ms: u64) -> Result<(), LedgerError> {
    let mut transaction = begin(writer).await?;
    for statement in [
        "UPDATE ledger SET changes_since =
             max(changes_since, coalesce((SELECT max(version) FROM routes WHERE dropped_at < ?1), 0))",
        "DELETE FROM routes WHERE dropped_at < ?1",
        "DELETE FROM lanes WHERE dropped_at < ?1
             AND NOT EXISTS (SELECT 1 FROM due WHERE due.endpoint = lanes.endpoint)",
    ] {
        sqlx::query(statement).bind(integer(before_ms)).execute(&mut *transaction).await?;
    }
    transaction.commit().await?;
    Ok(())
}

/// Reads the table; see [`crate::ledger::Ledger::load_table`]. A version from the future belongs to another ledger, and
/// what has changed since one from long ago is not known any more. Rows of kinds that only a newer release knows are
/// passed over.
pub(super) async fn load_table(readers: &SqlitePool, since: Option<TableVersion>) -> Result<TableLoad, LedgerError> {
    let mut snapshot = readers.begin().await?;
    let present = "SELECT hex(id) AS history, table_version, changes_since FROM ledger";
    let row = sqlx::query(present).fetch_one(&mut *snapshot).await?;
    let version = TableVersion(count(row.try_get("table_version")?)?);
    let told = TableVersion(count(row.try_get("changes_since")?)?)..=version;
    let known = since.filter(|since| told.contains(since));
    let history = row.try_get("history")?;
    let mut load = TableLoad { history, version, complete: known.is_none(), ..TableLoad::default() };
    if known == Some(version) {
        return Ok(load);
    }
    let rows = sqlx::query("SELECT kind, id, version, row FROM routes WHERE version > ?1 ORDER BY version, kind, id")
        .bind(integer(known.unwrap_or_default().0))
        .fetch_all(&mut *snapshot)
        .await?;
    let unknown = "SELECT count(*) AS unknown FROM routes WHERE kind > ?1 AND row IS NOT NULL";
    let unknown = sqlx::query(unknown).bind(KIND_MAX).fetch_one(&mut *snapshot).await?;
    load.unknown_count = count(unknown.try_get("unknown")?)?;
    for row in rows {
        let Some(key) = row_key(row.try_get("kind")?, uuid(row.try_get("id")?)?) else { continue };
        let text: Option<&str> = row.try_get("row")?;
        match text {
            Some(text) => {
                load.rows.push(
                    serde_json::from_str(text)
                        .map_err(|_| encode::refused("the routing table holds a row that this release cannot read"))?,
                );
                load.row_versions.push(TableVersion(count(row.try_get("version")?)?));
            }
            None if load.complete => {}
            None => load.dropped.push(key),
        }
    }
    Ok(load)
}

/// Sets the gates of endpoints that still have the revision; see [`crate::ledger::Ledger::set_gates`].
pub(super) async fn set_gates(
    writer: &mut SqliteConnection,
    gates: &[GateChange],
    now_ms: u64,
) -> Result<(), LedgerError> {
    // The last change of a revision counts.
    let rows: std::collections::BTreeMap<(EndpointId, &str), _> = gates
        .iter()
        .map(|gate| {
            let until_ms = match gate.closed_for {
                Duration::ZERO => 0,
                closed_for => now_ms + milliseconds(closed_for),
            };
            let row = (Hex(gate.endpoint.0), until_ms, gate.quota, &gate.revision);
            ((gate.endpoint, gate.revision.as_str()), row)
        })
        .collect();
    sqlx::query(
        "UPDATE lanes SET gate_until = j.value->>1, quota = j.value->>2 FROM json_each(?1) j
         WHERE endpoint = unhex(j.value->>0) AND revision = j.value->>3",
    )
    .bind(encode::rows(&rows.into_values().collect::<Vec<_>>())?)
    .execute(writer)
    .await?;
    Ok(())
}

/// Disables an endpoint that still has this revision; see [`crate::ledger::Ledger::disable`].
pub(super) async fn disable(
    writer: &mut SqliteConnection,
    endpoint: EndpointId,
    revision: &str,
    reason: DisableReason,
) -> Result<(), LedgerError> {
    sqlx::query(
        "UPDATE lanes SET disabled_reason = ?3, disabled_revision = ?2
         WHERE endpoint = ?1 AND revision = ?2 AND disabled_reason IS NULL",
    )
    .bind(blob(endpoint.0))
    .bind(revision)
    .bind(encode::name(reason)?)
    .execute(writer)
    .await?;
    Ok(())
}

/// Lists disabled endpoints.
pub(super) async fn disabled(readers: &SqlitePool) -> Result<Vec<Disabled>, LedgerError> {
    let rows = sqlx::query(
        "SELECT endpoint, disabled_revision, disabled_reason FROM lanes WHERE disabled_reason IS NOT NULL
         ORDER BY endpoint",
    )
    .fetch_all(readers)
    .await?;
    rows.iter().map(disabled_of).collect()
}

fn disabled_of(row: &SqliteRow) -> Result<Disabled, LedgerError> {
    let reason = encode::variant(row.try_get("disabled_reason")?)?;
    Ok(Disabled {
        endpoint: EndpointId(uuid(row.try_get("endpoint")?)?),
        revision: row.try_get("disabled_revision")?,
        reason: reason.ok_or_else(|| encode::refused("a disabled endpoint has no reason"))?,
    })
}
