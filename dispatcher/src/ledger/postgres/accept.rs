//! Accepting events: idempotency keys decide first, then events and their outbox parts go in as one statement.

use std::collections::{BTreeMap, HashMap};

use dispatcher_core::id::{EventId, TenantId};
use sqlx::{Connection, PgConnection, Postgres, Transaction};
use uuid::Uuid;

use super::encode::{self, count, int4, int8, microseconds};
use super::error::is_duplicate;
use super::{Accepted, LedgerError, NewEvent};

/// Commits a batch; see [`crate::ledger::Ledger::accept`]. Without keys it is a single statement.
pub(super) async fn accept(connection: &mut PgConnection, events: &[NewEvent]) -> Result<Vec<Accepted>, LedgerError> {
    if events.iter().all(|new| new.idempotency.is_none()) {
        let batch = Batch::of(events.iter())?;
        match batch.write(INSERT, &mut *connection).await {
            // The batch is tried again, since it was unclear what became of it.
            Err(error) if is_duplicate(&error) => batch.write(INSERT_MISSING, connection).await?,
            inserted => inserted?,
        }
        return Ok(vec![Accepted::New; events.len()]);
    }
    let mut transaction = connection.begin().await?;
    let first_uses = first_uses(&mut transaction, events).await?;
    let answers = events.iter().map(|new| decide(&first_uses, new)).collect::<Result<Vec<_>, _>>()?;
    let winners = events.iter().zip(&answers).filter(|(_, answer)| **answer == Accepted::New).map(|(new, _)| new);
    Batch::of(winners)?.write(INSERT_MISSING, &mut *transaction).await?;
    transaction.commit().await?;
    Ok(answers)
}

/// The first use of an idempotency key.
struct FirstUse {
    digest: Vec<u8>,
    event: EventId,
    fanout_count: Option<u32>,
}

/// Tenant, key, digest, event, and its number of targets if it is there.
type KeyRow = (Uuid, String, Vec<u8>, Uuid, Option<i32>);

type FirstUses = HashMap<(TenantId, String), FirstUse>;

fn decide(first_uses: &FirstUses, new: &NewEvent) -> Result<Accepted, LedgerError> {
    let Some(idempotency) = &new.idempotency else { return Ok(Accepted::New) };
    let first = first_uses
        .get(&(new.event.tenant, idempotency.key.clone()))
        .ok_or_else(|| LedgerError::Unavailable("an idempotency key went while it was used".to_owned()))?;
    Ok(if first.event == new.event.id {
        Accepted::New
    } else if first.digest == idempotency.digest {
        Accepted::Repeated { event: first.event, fanout_count: first.fanout_count.unwrap_or_default() }
    } else {
        Accepted::Conflict
    })
}

/// Puts in the keys that are new or over, then reads all of them. Two statements: the second sees a winner that
/// committed while the first one waited for it. Keys are in order, so that two batches never wait for each other.
async fn first_uses(
    transaction: &mut Transaction<'_, Postgres>,
    events: &[NewEvent],
) -> Result<FirstUses, LedgerError> {
    let mut firsts = BTreeMap::new();
    for new in events {
        if let Some(idempotency) = &new.idempotency {
            firsts.entry((new.event.tenant.0, idempotency.key.as_str())).or_insert((new.event.id, idempotency));
        }
    }
    let (tenants, keys): (Vec<Uuid>, Vec<&str>) = firsts.keys().copied().unzip();
    let ids: Vec<Uuid> = firsts.values().map(|(event, _)| event.0).collect();
    let digests: Vec<&[u8]> = firsts.values().map(|(_, idempotency)| idempotency.digest.as_slice()).collect();
    let lifetimes: Vec<i64> = firsts.values().map(|(_, idempotency)| microseconds(idempotency.lifetime)).collect();
    sqlx::query(
        "INSERT INTO idempotency (tenant, key, event, digest, expires_at)
         SELECT tenant, key, event, digest, now() + lifetime * interval '1 microsecond'
         FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::bytea[], $5::int8[])
              AS u(tenant, key, event, digest, lifetime)
         ON CONFLICT (tenant, key) DO UPDATE
         SET event = excluded.event, digest = excluded.digest, expires_at = excluded.expires_at
         WHERE idempotency.expires_at <= now()",
    )
    .bind(&tenants)
    .bind(&keys)
    .bind(&ids)
    .bind(&digests)
    .bind(&lifetimes)
    .execute(&mut **transaction)
    .await?;
    let rows: Vec<KeyRow> = sqlx::query_as(
        "SELECT i.tenant, i.key, i.digest, i.event, e.fanout_count
         FROM unnest($1::uuid[], $2::text[]) AS u(tenant, key)
         CROSS JOIN LATERAL (SELECT * FROM idempotency WHERE tenant = u.tenant AND key = u.key OFFSET 0) i
         LEFT JOIN LATERAL (
             SELECT fanout_count FROM events WHERE tenant = i.tenant AND id = i.event OFFSET 0) e ON true",
    )
    .bind(&tenants)
    .bind(&keys)
    .fetch_all(&mut **transaction)
    .await?;
    let in_batch: HashMap<EventId, u32> = events.iter().map(|new| (new.event.id, new.fanout_count())).collect();
    let uses = rows.into_iter().map(|(tenant, key, digest, event, stored)| {
        let event = EventId(event);
        let stored = stored.map(count::<u32, _>).transpose()?;
        // An event of this very batch is not there yet.
        let fanout_count = stored.or_else(|| in_batch.get(&event).copied());
        Ok(((TenantId(tenant), key), FirstUse { digest, event, fanout_count }))
    });
    uses.collect()
}

/// The columns of a batch.
#[derive(Default)]
struct Batch<'a> {
    tenants: Vec<Uuid>,
    ids: Vec<Uuid>,
    event_types: Vec<&'a str>,
    recipients: Vec<Option<&'a str>>,
    content_types: Vec<&'a str>,
    attributes: Vec<String>,
    table_versions: Vec<i64>,
    fanout_counts: Vec<i32>,
    targets: Vec<Vec<u8>>,
    bodies: Vec<&'a [u8]>,
    parts: Parts<'a>,
}

/// The columns of a batch's outbox parts.
#[derive(Default)]
struct Parts<'a> {
    events: Vec<Uuid>,
    numbers: Vec<i32>,
    tenants: Vec<Uuid>,
    pools: Vec<&'a str>,
    leases_us: Vec<i64>,
    first_targets: Vec<i32>,
    target_counts: Vec<i32>,
}

impl<'a> Batch<'a> {
    /// In the order of identities, each once: a batch that is tried again beside itself waits and does not deadlock.
    fn of(events: impl Iterator<Item = &'a NewEvent>) -> Result<Self, LedgerError> {
        let events: BTreeMap<EventId, &NewEvent> = events.map(|new| (new.event.id, new)).collect();
        let mut batch = Self::default();
        for new in events.into_values() {
            batch.push(new)?;
        }
        Ok(batch)
    }

    fn push(&mut self, new: &'a NewEvent) -> Result<(), LedgerError> {
        let event = &new.event;
        let attributes = serde_json::to_string(&event.attributes)
            .map_err(|_| encode::refused("the attributes of an event cannot be written as JSON"))?;
        let mut targets = Vec::with_capacity(32 * new.fanout_count() as usize);
        let mut first_target = 0;
        for part in &new.parts {
            for target in &part.targets {
                targets.extend_from_slice(target.subscription.0.as_bytes());
                targets.extend_from_slice(target.endpoint.0.as_bytes());
            }
            self.parts.events.push(event.id.0);
            self.parts.numbers.push(i32::from(part.number));
            self.parts.tenants.push(event.tenant.0);
            self.parts.pools.push(&part.pool);
            self.parts.leases_us.push(microseconds(new.lease));
            self.parts.first_targets.push(int4(first_target));
            self.parts.target_counts.push(int4(part.targets.len()));
            first_target += part.targets.len();
        }
        self.tenants.push(event.tenant.0);
        self.ids.push(event.id.0);
        self.event_types.push(&event.event_type);
        self.recipients.push(event.recipient.as_deref());
        self.content_types.push(&event.content_type);
        self.attributes.push(attributes);
        self.table_versions.push(int8(new.table_version.0));
        self.fanout_counts.push(int4(new.fanout_count()));
        self.targets.push(targets);
        self.bodies.push(&event.body);
        Ok(())
    }

    /// Writes it by [`INSERT`] or [`INSERT_MISSING`].
    async fn write(&self, statement: &'static str, executor: impl sqlx::PgExecutor<'_>) -> Result<(), sqlx::Error> {
        if self.ids.is_empty() {
            return Ok(());
        }
        sqlx::query(statement)
            .bind(&self.tenants)
            .bind(&self.ids)
            .bind(&self.event_types)
            .bind(&self.recipients)
            .bind(&self.content_types)
            .bind(&self.attributes)
            .bind(&self.table_versions)
            .bind(&self.fanout_counts)
            .bind(&self.targets)
            .bind(&self.bodies)
            .bind(&self.parts.events)
            .bind(&self.parts.numbers)
            .bind(&self.parts.tenants)
            .bind(&self.parts.pools)
            .bind(&self.parts.leases_us)
            .bind(&self.parts.first_targets)
            .bind(&self.parts.target_counts)
            .execute(executor)
            .await?;
        Ok(())
    }
}

/// Events that are new, with their parts. To look before each insert whether it is there would cost a fifth more.
const INSERT: &str = "
    WITH new AS (
        INSERT INTO events (tenant, id, event_type, recipient, content_type, attributes, table_version, fanout_count,
                            targets, body)
        SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::int8[],
                             $8::int4[], $9::bytea[], $10::bytea[]))
    INSERT INTO outbox (event, part, tenant, pool, gen, lease_until, first_target, target_count)
    SELECT event, part, tenant, pool, 1, now() + lease * interval '1 microsecond', first_target, target_count
    FROM unnest($11::uuid[], $12::int4[], $13::uuid[], $14::text[], $15::int8[], $16::int4[], $17::int4[])
         AS u(event, part, tenant, pool, lease, first_target, target_count)";

/// Events of which some may be there. Only one that was not gets its parts: one that was has had them, and they may be
/// finished by now. `IS TRUE` makes the condition a look-up in a hash table, and not a join that compares each with each.
const INSERT_MISSING: &str = "
    WITH new AS (
        INSERT INTO events (tenant, id, event_type, recipient, content_type, attributes, table_version, fanout_count,
                            targets, body)
        SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::int8[],
                             $8::int4[], $9::bytea[], $10::bytea[])
        ON CONFLICT (tenant, id) DO NOTHING RETURNING id)
    INSERT INTO outbox (event, part, tenant, pool, gen, lease_until, first_target, target_count)
    SELECT event, part, tenant, pool, 1, now() + lease * interval '1 microsecond', first_target, target_count
    FROM unnest($11::uuid[], $12::int4[], $13::uuid[], $14::text[], $15::int8[], $16::int4[], $17::int4[])
         AS u(event, part, tenant, pool, lease, first_target, target_count)
    WHERE (event IN (SELECT id FROM new)) IS TRUE";
