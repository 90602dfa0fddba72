//! The routing table, and the gates of the lanes, which follow it.

use std::collections::BTreeMap;
use std::time::Duration;

use dispatcher_core::id::{EndpointId, IssuerId, SubscriptionId, TenantId};
use dispatcher_core::limits::TABLE_ROWS_PER_STATEMENT_MAX;
use dispatcher_core::table::{EndpointState, Row, RowKey, TableChange, TableVersion};
use sqlx::postgres::PgListener;
use sqlx::{PgPool, Postgres, Transaction};
use tokio::sync::Notify;
use uuid::Uuid;

use super::encode::{self, count, int4, int8, microseconds};
use super::{DisableReason, Disabled, GateChange, LedgerError, TableLoad};

/// Channel that tells of new versions of the table.
const CHANNEL: &str = "harborhook_table";

/// Applies a change as a whole; see [`crate::ledger::Ledger::publish_table`]. The version's row is locked first: of
/// two changes one comes after the other, and a reader who has seen a version has seen all below it.
pub(super) async fn publish_table(
    pool: &PgPool,
    change: &TableChange,
    epoch: Option<u64>,
) -> Result<TableVersion, LedgerError> {
    let mut transaction = pool.begin().await?;
    let (present, present_epoch): (i64, i64) =
        sqlx::query_as("SELECT table_version, leader_epoch FROM ledger FOR UPDATE")
            .fetch_one(&mut *transaction)
            .await?;
    let present = count::<u64, _>(present)?;
    let is_new_leader = crate::ledger::check_epoch(epoch, count(present_epoch)?)?;
    if let Some(epoch) = epoch.filter(|_| is_new_leader) {
        let update = sqlx::query("UPDATE ledger SET leader_epoch = $1").bind(int8(epoch));
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
        drop_rows(&mut transaction, keys, version).await?;
    }
    sqlx::query("UPDATE ledger SET table_version = $1").bind(int8(version.0)).execute(&mut *transaction).await?;
    sqlx::query("SELECT pg_notify($1, $2)")
        .bind(CHANNEL)
        .bind(version.0.to_string())
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(version)
}

/// Passes on every notice of a new version; see [`super::PostgresLedger::watch_table`].
pub(super) async fn watch(pool: &PgPool, changed: &Notify) -> Result<(), LedgerError> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.listen(CHANNEL).await?;
    loop {
        // What was published before the channel was listened to, or while the connection was lost, counts too.
        changed.notify_one();
        listener.recv().await?;
    }
}

/// The highest number of a kind that this release knows.
const KIND_MAX: i16 = 3;

/// The number of a row's kind, and its identity.
fn key_columns(key: RowKey) -> (i16, Uuid) {
    match key {
        RowKey::Tenant(id) => (0, id.0),
        RowKey::Endpoint(id) => (1, id.0),
        RowKey::Subscription(id) => (2, id.0),
        RowKey::Issuer(id) => (3, id.0),
    }
}

/// The key of a row, unless only a newer release knows its kind.
fn row_key(kind: i16, id: Uuid) -> Option<RowKey> {
    match kind {
        0 => Some(RowKey::Tenant(TenantId(id))),
        1 => Some(RowKey::Endpoint(EndpointId(id))),
        2 => Some(RowKey::Subscription(SubscriptionId(id))),
        3 => Some(RowKey::Issuer(IssuerId(id))),
        _ => None,
    }
}

async fn put_rows(
    transaction: &mut Transaction<'_, Postgres>,
    rows: &[Row],
    version: TableVersion,
) -> Result<(), LedgerError> {
    // The last row of a key counts.
    let mut contents = BTreeMap::new();
    for row in rows {
        let text =
            serde_json::to_string(row).map_err(|_| encode::refused("a routing row cannot be written as JSON"))?;
        contents.insert(key_columns(row.key()), text);
    }
    let (kinds, ids): (Vec<i16>, Vec<Uuid>) = contents.keys().copied().unzip();
    let contents: Vec<String> = contents.into_values().collect();
    sqlx::query(
        "INSERT INTO routes (kind, id, version, content)
         SELECT kind, id, $4, content FROM unnest($1::int2[], $2::uuid[], $3::text[]) AS u(kind, id, content)
         ON CONFLICT (kind, id) DO UPDATE
         SET version = excluded.version, content = excluded.content, dropped_at = NULL",
    )
    .bind(&kinds)
    .bind(&ids)
    .bind(&contents)
    .bind(int8(version.0))
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// Shuts the gates of endpoints that may not deliver. One that may again, or has a new revision, starts with an
/// open gate; a new revision also enables it.
async fn put_lanes(transaction: &mut Transaction<'_, Postgres>, rows: &[Row]) -> Result<(), LedgerError> {
    let mut lanes = BTreeMap::new();
    for row in rows {
        if let Row::Endpoint(endpoint) = row {
            lanes.insert(endpoint.id, endpoint);
        }
    }
    if lanes.is_empty() {
        return Ok(());
    }
    let endpoints: Vec<Uuid> = lanes.keys().map(|id| id.0).collect();
    let tenants: Vec<Uuid> = lanes.values().map(|lane| lane.tenant.0).collect();
    let pools: Vec<&str> = lanes.values().map(|lane| lane.pool.as_str()).collect();
    let revisions: Vec<&str> = lanes.values().map(|lane| lane.revision.as_str()).collect();
    let shut: Vec<bool> = lanes.values().map(|lane| lane.state != EndpointState::Active).collect();
    sqlx::query(
        "INSERT INTO lanes AS l (endpoint, tenant, pool, revision, shut)
         SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::bool[])
         ON CONFLICT (endpoint) DO UPDATE SET
             tenant = excluded.tenant, pool = excluded.pool, revision = excluded.revision, shut = excluded.shut,
             dropped_at = NULL,
             gate_until = CASE WHEN l.shut > excluded.shut OR l.revision IS DISTINCT FROM excluded.revision
                               THEN '-infinity' ELSE l.gate_until END,
             quota = CASE WHEN l.shut > excluded.shut OR l.revision IS DISTINCT FROM excluded.revision
                          THEN NULL ELSE l.quota END,
             disabled_reason = CASE WHEN l.disabled_revision = excluded.revision THEN l.disabled_reason END,
             disabled_revision = CASE WHEN l.disabled_revision = excluded.revision THEN l.disabled_revision END",
    )
    .bind(&endpoints)
    .bind(&tenants)
    .bind(&pools)
    .bind(&revisions)
    .bind(&shut)
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// Leaves tombstones, and shuts the gates of dropped endpoints. What an endpoint was disabled for goes with it.
async fn drop_rows(
    transaction: &mut Transaction<'_, Postgres>,
    keys: &[RowKey],
    version: TableVersion,
) -> Result<(), LedgerError> {
    let (kinds, ids): (Vec<i16>, Vec<Uuid>) = keys.iter().map(|key| key_columns(*key)).unzip();
    sqlx::query(
        "UPDATE routes r SET version = $3, content = NULL, dropped_at = now() FROM unnest($1::int2[], $2::uuid[]) AS u(kind, id)
         WHERE r.kind = u.kind AND r.id = u.id AND r.content IS NOT NULL AND r.kind = ANY($1) AND r.id = ANY($2)",
    )
    .bind(&kinds)
    .bind(&ids)
    .bind(int8(version.0))
    .execute(&mut **transaction)
    .await?;
    sqlx::query(
        "WITH locked AS MATERIALIZED (
             SELECT endpoint FROM lanes
             WHERE endpoint = ANY(ARRAY(SELECT id FROM unnest($1::int2[], $2::uuid[]) AS u(kind, id) WHERE kind = 1))
             ORDER BY endpoint FOR NO KEY UPDATE)
         UPDATE lanes SET shut = true, dropped_at = coalesce(dropped_at, now()), revision = NULL,
                          disabled_reason = NULL, disabled_revision = NULL
         WHERE endpoint = ANY(ARRAY(SELECT endpoint FROM locked))",
    )
    .bind(&kinds)
    .bind(&ids)
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// Forgets rows and lanes of endpoints that were dropped before a time, in milliseconds since the Unix epoch. Whoever has
/// an older table than the last of them reads all of it the next time.
pub(super) async fn forget_dropped(pool: &PgPool, before_ms: u64) -> Result<(), LedgerError> {
    let mut transaction = pool.begin().await?;
    for statement in [
        "UPDATE ledger SET changes_since = greatest(changes_since, (
             SELECT max(version) FROM routes WHERE dropped_at < 'epoch'::timestamptz + $1 * interval '1 millisecond'))",
        "DELETE FROM routes WHERE dropped_at < 'epoch'::timestamptz + $1 * interval '1 millisecond'",
        "WITH locked AS MATERIALIZED (
             SELECT endpoint FROM lanes l WHERE dropped_at < 'epoch'::timestamptz + $1 * interval '1 millisecond'
                AND NOT EXISTS (SELECT FROM due WHERE due.endpoint = l.endpoint OFFSET 0)
             ORDER BY endpoint FOR UPDATE SKIP LOCKED),
         gone AS (DELETE FROM lanes WHERE endpoint = ANY(ARRAY(SELECT endpoint FROM locked)))
         DELETE FROM endpoint_health WHERE endpoint = ANY(ARRAY(SELECT endpoint FROM locked))",
    ] {
        sqlx::query(statement).bind(int8(before_ms)).execute(&mut *transaction).await?;
    }
    transaction.commit().await?;
    Ok(())
}

/// Reads the table; see [`crate::ledger::Ledger::load_table`]. A version from the future belongs to another ledger, and
/// what has changed since one from long ago is not known any more. Rows of kinds that only a newer release knows are
/// passed over.
///
/// A restore keeps the ledger's identity, and a promoted standby may lack the last versions. Neither happens without a
/// new table or another start of the server, so these are a part of the history too.
pub(super) async fn load_table(pool: &PgPool, since: Option<TableVersion>) -> Result<TableLoad, LedgerError> {
    const PRESENT: &str =
        "SELECT concat_ws('/', id, 'ledger'::regclass::oid, extract(epoch FROM pg_postmaster_start_time())),
                                  table_version, changes_since FROM ledger";
    if let Some(since) = since {
        let (history, present, _): (String, i64, i64) = sqlx::query_as(PRESENT).fetch_one(pool).await?;
        if TableVersion(count(present)?) == since {
            return Ok(TableLoad { history, version: since, ..TableLoad::default() });
        }
    }
    let mut snapshot = pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let (history, present, changes_since): (String, i64, i64) =
        sqlx::query_as(PRESENT).fetch_one(&mut *snapshot).await?;
    let version = TableVersion(count(present)?);
    let told = TableVersion(count(changes_since)?)..=version;
    let known = since.filter(|since| told.contains(since));
    let rows: Vec<(i16, Uuid, i64, Option<String>)> =
        sqlx::query_as("SELECT kind, id, version, content FROM routes WHERE version > $1 ORDER BY kind, id")
            .bind(int8(known.unwrap_or_default().0))
            .fetch_all(&mut *snapshot)
            .await?;
    let unknown_count: i64 = sqlx::query_scalar("SELECT count(*) FROM routes WHERE kind > $1 AND content IS NOT NULL")
        .bind(KIND_MAX)
        .fetch_one(&mut *snapshot)
        .await?;
    snapshot.commit().await?;
    let unknown_count = count(unknown_count)?;
    let mut load = TableLoad { history, version, complete: known.is_none(), unknown_count, ..TableLoad::default() };
    for (kind, id, row_version, content) in rows {
        let Some(key) = row_key(kind, id) else { continue };
        match content {
            Some(content) => {
                load.rows.push(
                    serde_json::from_str(&content)
                        .map_err(|_| encode::refused("the routing table holds a row that this release cannot read"))?,
                );
                load.row_versions.push(TableVersion(count(row_version)?));
            }
            None if load.complete => {}
            None => load.dropped.push(key),
        }
    }
    Ok(load)
}

/// Sets the gates of endpoints that still have the revision; see [`crate::ledger::Ledger::set_gates`].
pub(super) async fn set_gates(pool: &PgPool, gates: &[GateChange]) -> Result<(), LedgerError> {
    // The last change of a revision counts.
    let gates: BTreeMap<(EndpointId, &str), &GateChange> =
        gates.iter().map(|gate| ((gate.endpoint, gate.revision.as_str()), gate)).collect();
    let endpoints: Vec<Uuid> = gates.keys().map(|(endpoint, _)| endpoint.0).collect();
    let revisions: Vec<&str> = gates.keys().map(|(_, revision)| *revision).collect();
    let closed_for_us: Vec<Option<i64>> =
        gates.values().map(|gate| (gate.closed_for > Duration::ZERO).then(|| microseconds(gate.closed_for))).collect();
    let quotas: Vec<Option<i32>> = gates.values().map(|gate| gate.quota.map(int4)).collect();
    sqlx::query(
        "WITH gate AS MATERIALIZED (
             SELECT l.endpoint, u.closed_for, u.quota
             FROM unnest($1::uuid[], $2::int8[], $3::int4[], $4::text[]) AS u(endpoint, closed_for, quota, revision)
             CROSS JOIN LATERAL (SELECT endpoint FROM lanes WHERE endpoint = u.endpoint AND revision = u.revision
                                 FOR NO KEY UPDATE) l)
         UPDATE lanes l SET quota = gate.quota,
             gate_until = coalesce(now() + gate.closed_for * interval '1 microsecond', '-infinity')
         FROM gate WHERE l.endpoint = gate.endpoint AND l.endpoint = ANY($1)",
    )
    .bind(&endpoints)
    .bind(&closed_for_us)
    .bind(&quotas)
    .bind(&revisions)
    .execute(pool)
    .await?;
    Ok(())
}

/// Disables an endpoint that still has this revision; see [`crate::ledger::Ledger::disable`].
pub(super) async fn disable(
    pool: &PgPool,
    endpoint: EndpointId,
    revision: &str,
    reason: DisableReason,
) -> Result<(), LedgerError> {
    sqlx::query(
        "UPDATE lanes SET disabled_reason = $3, disabled_revision = $2
         WHERE endpoint = $1 AND revision = $2 AND disabled_reason IS NULL",
    )
    .bind(endpoint.0)
    .bind(revision)
    .bind(reason_name(reason))
    .execute(pool)
    .await?;
    Ok(())
}

/// The stable name of a reason, as it is serialised.
fn reason_name(reason: DisableReason) -> &'static str {
    match reason {
        DisableReason::Gone => "gone",
        DisableReason::DisabledAfterFailures => "disabled_after_failures",
    }
}

/// Lists disabled endpoints.
pub(super) async fn disabled(pool: &PgPool) -> Result<Vec<Disabled>, LedgerError> {
    let rows: Vec<(Uuid, String, String)> = sqlx::query_as(
        "SELECT endpoint, disabled_revision, disabled_reason FROM lanes WHERE disabled_reason IS NOT NULL
         ORDER BY endpoint",
    )
    .fetch_all(pool)
    .await?;
    let disabled = rows.into_iter().map(|(endpoint, revision, reason)| {
        let reason = encode::variant(Some(&reason))?;
        let reason = reason.ok_or_else(|| encode::refused("a disabled endpoint has no reason"))?;
        Ok(Disabled { endpoint: EndpointId(endpoint), revision, reason })
    });
    disabled.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_reasons_are_what_is_read() {
        for reason in [DisableReason::Gone, DisableReason::DisabledAfterFailures] {
            assert_eq!(encode::variant(Some(reason_name(reason))).unwrap(), Some(reason));
        }
    }
}
