//! Accepting events: idempotency keys decide first, then events and their outbox parts go in.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use dispatcher_core::id::{EventId, TenantId};
use sqlx::sqlite::SqliteConnection;
use sqlx::{Row as _, Sqlite, Transaction};

use super::encode::{self, Hex, integer};
use super::{Accepted, LedgerError, NewEvent, begin, pools};
use crate::ledger::pools::count_accepted;

/// Commits a batch; see [`crate::ledger::Ledger::accept`].
pub(super) async fn accept(
    writer: &mut SqliteConnection,
    events: &[NewEvent],
    now_ms: u64,
) -> Result<Vec<Accepted>, LedgerError> {
    if events.is_empty() {
        return Ok(Vec::new());
    }
    let mut transaction = begin(writer).await?;
    let mut first_uses = known_keys(&mut transaction, events, now_ms).await?;
    let answers: Vec<Accepted> = events.iter().map(|new| decide(&mut first_uses, new)).collect();

    let mut ids = HashSet::new();
    let winners: Vec<&NewEvent> = events
        .iter()
        .zip(&answers)
        .filter(|(new, answer)| **answer == Accepted::New && ids.insert(new.event.id))
        .map(|(new, _)| new)
        .collect();
    insert_outbox(&mut transaction, &winners, now_ms).await?;
    insert_events(&mut transaction, &winners).await?;
    insert_keys(&mut transaction, &winners, now_ms).await?;
    pools::add_accepted(&mut transaction, &count_accepted(events, &answers), now_ms).await?;
    transaction.commit().await?;
    Ok(answers)
}

/// The first use of an idempotency key.
struct FirstUse {
    digest: [u8; 32],
    event: EventId,
    fanout_count: u32,
}

type FirstUses = HashMap<(TenantId, String), FirstUse>;

fn decide(first_uses: &mut FirstUses, new: &NewEvent) -> Accepted {
    let Some(idempotency) = &new.idempotency else { return Accepted::New };
    match first_uses.entry((new.event.tenant, idempotency.key.clone())) {
        Entry::Vacant(vacant) => {
            vacant.insert(FirstUse {
                digest: idempotency.digest,
                event: new.event.id,
                fanout_count: new.fanout_count(),
            });
            Accepted::New
        }
        Entry::Occupied(first) => {
            let first = first.get();
            if first.event == new.event.id {
                Accepted::New
            } else if first.digest == idempotency.digest {
                Accepted::Repeated { event: first.event, fanout_count: first.fanout_count }
            } else {
                Accepted::Conflict
            }
        }
    }
}

async fn known_keys(
    transaction: &mut Transaction<'_, Sqlite>,
    events: &[NewEvent],
    now_ms: u64,
) -> Result<FirstUses, LedgerError> {
    let asked: Vec<(TenantId, &str)> =
        events.iter().filter_map(|new| Some((new.event.tenant, new.idempotency.as_ref()?.key.as_str()))).collect();
    let mut known = HashMap::new();
    if asked.is_empty() {
        return Ok(known);
    }
    let rows: Vec<_> = asked.iter().map(|(tenant, key)| (Hex(tenant.0), key)).collect();
    let found = sqlx::query(
        "SELECT j.key AS place, i.digest, i.event, e.fanout_count
         FROM json_each(?1) j
         CROSS JOIN idempotency i ON i.tenant = unhex(j.value->>0) AND i.key = j.value->>1
         CROSS JOIN events e ON e.tenant = i.tenant AND e.id = i.event
         WHERE i.expires_at > ?2",
    )
    .bind(encode::rows(&rows)?)
    .bind(integer(now_ms))
    .fetch_all(&mut **transaction)
    .await?;
    for row in found {
        let place: usize = encode::count(row.try_get("place")?)?;
        let (tenant, key) = asked[place];
        let digest: &[u8] = row.try_get("digest")?;
        let first = FirstUse {
            digest: digest.try_into().map_err(|_| encode::refused("a digest in the ledger has the wrong length"))?,
            event: EventId(encode::uuid(row.try_get("event")?)?),
            fanout_count: encode::count(row.try_get("fanout_count")?)?,
        };
        known.insert((tenant, key.to_owned()), first);
    }
    Ok(known)
}

/// Goes before the events: an event that is there already has had its parts, and they may be finished by now.
async fn insert_outbox(
    transaction: &mut Transaction<'_, Sqlite>,
    events: &[&NewEvent],
    now_ms: u64,
) -> Result<(), LedgerError> {
    let mut rows = Vec::new();
    for new in events {
        let lease_until_ms = now_ms + encode::milliseconds(new.lease);
        let mut first_target = 0;
        for part in &new.parts {
            let (event, tenant) = (Hex(new.event.id.0), Hex(new.event.tenant.0));
            rows.push((event, tenant, part.number, &part.pool, lease_until_ms, first_target, part.targets.len()));
            first_target += part.targets.len();
        }
    }
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO outbox (event, part, tenant, pool, gen, lease_until, first_target, target_count)
         SELECT unhex(value->>0), value->>2, unhex(value->>1), value->>3, 1, value->>4, value->>5, value->>6
         FROM json_each(?1)
         WHERE NOT EXISTS (SELECT 1 FROM events WHERE tenant = unhex(value->>1) AND id = unhex(value->>0))",
    )
    .bind(encode::rows(&rows)?)
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

async fn insert_events(transaction: &mut Transaction<'_, Sqlite>, events: &[&NewEvent]) -> Result<(), LedgerError> {
    if events.is_empty() {
        return Ok(());
    }
    let bytes = events.iter().map(|new| 32 * new.fanout_count() as usize + new.event.body.len()).sum();
    let mut blobs: Vec<u8> = Vec::with_capacity(bytes);
    let mut rows = Vec::with_capacity(events.len());
    for new in events {
        let event = &new.event;
        let attributes = encode::rows(&[&event.attributes])?;
        let targets_at = blobs.len() + 1;
        for target in new.parts.iter().flat_map(|part| &part.targets) {
            blobs.extend_from_slice(target.subscription.0.as_bytes());
            blobs.extend_from_slice(target.endpoint.0.as_bytes());
        }
        blobs.extend_from_slice(&event.body);
        rows.push((
            Hex(event.tenant.0),
            Hex(event.id.0),
            &event.event_type,
            &event.recipient,
            &event.content_type,
            attributes,
            new.table_version,
            new.fanout_count(),
            targets_at,
            event.body.len(),
        ));
    }
    sqlx::query(
        "INSERT INTO events (tenant, id, event_type, recipient, content_type, attributes, table_version,
                             fanout_count, targets, body)
         SELECT unhex(value->>0), unhex(value->>1), value->>2, value->>3, value->>4, value->>5, value->>6,
                value->>7, coalesce(substr(?2, value->>8, 32 * (value->>7)), x''),
                coalesce(substr(?2, (value->>8) + 32 * (value->>7), value->>9), x'')
         FROM json_each(?1) WHERE true
         ON CONFLICT (tenant, id) DO NOTHING",
    )
    .bind(encode::rows(&rows)?)
    .bind(blobs)
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

async fn insert_keys(
    transaction: &mut Transaction<'_, Sqlite>,
    events: &[&NewEvent],
    now_ms: u64,
) -> Result<(), LedgerError> {
    let rows: Vec<_> = events
        .iter()
        .filter_map(|new| {
            let idempotency = new.idempotency.as_ref()?;
            let expires_ms = now_ms + encode::milliseconds(idempotency.lifetime);
            let digest = hex_digest(&idempotency.digest);
            Some((Hex(new.event.tenant.0), &idempotency.key, digest, Hex(new.event.id.0), expires_ms))
        })
        .collect();
    if rows.is_empty() {
        return Ok(());
    }
    // Only an expired key can be in the way: a live one has decided already.
    sqlx::query(
        "INSERT INTO idempotency (tenant, key, digest, event, expires_at)
         SELECT unhex(value->>0), value->>1, unhex(value->>2), unhex(value->>3), value->>4 FROM json_each(?1) WHERE true
         ON CONFLICT (tenant, key) DO UPDATE
         SET digest = excluded.digest, event = excluded.event, expires_at = excluded.expires_at
         WHERE idempotency.expires_at <= ?2",
    )
    .bind(encode::rows(&rows)?)
    .bind(integer(now_ms))
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

fn hex_digest(digest: &[u8; 32]) -> String {
    use std::fmt::Write as _;
    digest.iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
