//! Accepting by `COPY` beside accepting as it is done: a measurement, on a server that syncs every commit.
//!
//! ```sh
//! cargo test -p dispatcher --test it -- --ignored --nocapture accepting_by_copy
//! ```

use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use dispatcher::clock::now_unix_ms;
use dispatcher::ledger::postgres::{PostgresConfig, PostgresLedger};
use dispatcher::ledger::{Ledger, NewEvent};
use dispatcher_core::delivery::split_into_parts;
use dispatcher_core::id::EventId;
use sqlx::{Connection, Executor, PgConnection};
use testbed::TestDatabase;
use uuid::Uuid;

use crate::ledger::support::*;

const ROUNDS: usize = 40;
const BODY_BYTES: usize = 1024;
/// Milliseconds from the Unix epoch to that of PostgreSQL, 2000-01-01.
const EPOCH_MS: u64 = 946_684_800_000;

fn batch(size: usize) -> Vec<NewEvent> {
    let event = |_| {
        let mut random = [0; 10];
        random.copy_from_slice(&Uuid::new_v4().as_bytes()[..10]);
        let parts = split_into_parts(vec![(POOL.to_owned(), target("a"))]);
        let mut new = event_of(shop(), EventId::from_parts(now_unix_ms(), random), parts, HOUR);
        Arc::make_mut(&mut new.event).body = Bytes::from(vec![b'x'; BODY_BYTES]);
        new
    };
    (0..size).map(event).collect()
}

/// Rows in the binary format of `COPY` (PostgreSQL manual, COPY, "Binary Format").
struct Rows(BytesMut);

impl Rows {
    fn new() -> Self {
        Self(BytesMut::from(&b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0"[..]))
    }

    fn row(&mut self, columns: i16) {
        self.0.put_i16(columns);
    }

    fn column(&mut self, value: &[u8]) {
        self.0.put_i32(i32::try_from(value.len()).unwrap());
        self.0.put_slice(value);
    }

    fn end(mut self) -> Bytes {
        self.0.put_i16(-1);
        self.0.freeze()
    }
}

async fn copy(connection: &mut PgConnection, events: &[NewEvent]) {
    let (mut rows, mut parts) = (Rows::new(), Rows::new());
    for new in events {
        let event = &new.event;
        let (tenant, id) = (event.tenant.0.as_bytes(), event.id.0.as_bytes());
        let targets: Vec<u8> = new.parts[0]
            .targets
            .iter()
            .flat_map(|target| [target.subscription.0.into_bytes(), target.endpoint.0.into_bytes()])
            .flatten()
            .collect();
        let attributes = serde_json::to_string(&event.attributes).unwrap();
        rows.row(9);
        for column in [tenant.as_slice(), id, &3_i64.to_be_bytes(), &1_i32.to_be_bytes()] {
            rows.column(column);
        }
        for column in [event.event_type.as_bytes(), event.content_type.as_bytes(), attributes.as_bytes()] {
            rows.column(column);
        }
        rows.column(&targets);
        rows.column(&event.body);
        let lease_until_us = i64::try_from((now_unix_ms() + 3_600_000 - EPOCH_MS) * 1000).unwrap();
        parts.row(8);
        for column in [id.as_slice(), tenant, &lease_until_us.to_be_bytes(), &0_i32.to_be_bytes()] {
            parts.column(column);
        }
        for number in [1_i32, 0, 1] {
            parts.column(&number.to_be_bytes());
        }
        parts.column(POOL.as_bytes());
    }
    connection.execute("BEGIN").await.unwrap();
    for (statement, rows) in [
        (
            "COPY events (tenant, id, table_version, fanout_count, event_type, content_type, attributes, targets, body)
             FROM STDIN (FORMAT binary)",
            rows.end(),
        ),
        (
            "COPY outbox (event, tenant, lease_until, part, gen, first_target, target_count, pool)
             FROM STDIN (FORMAT binary)",
            parts.end(),
        ),
    ] {
        let mut copying = connection.copy_in_raw(statement).await.unwrap();
        copying.send(rows).await.unwrap();
        assert_eq!(copying.finish().await.unwrap(), events.len() as u64);
    }
    connection.execute("COMMIT").await.unwrap();
}

fn median(mut durations: Vec<Duration>) -> Duration {
    durations.sort_unstable();
    durations[durations.len() / 2]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn accepting_by_copy_beside_accepting_by_arrays() {
    let settings = [("fsync", "on"), ("shared_buffers", "'512MB'"), ("unix_socket_directories", "'/srv'")];
    let Some(server) = testbed::postgres(&settings).await.unwrap() else { return };
    let database = TestDatabase::create(server.url()).await.unwrap();
    for url in [database.url().to_owned(), through_socket(database.url())] {
        measure(&url).await;
    }
}

/// The URL of the same database through the server's socket in its folder: there the kernel holds nothing back.
fn through_socket(url: &str) -> String {
    let mut url: url::Url = url.parse().unwrap();
    let socket = format!(".s.PGSQL.{}", url.port().unwrap());
    let mut folders = std::fs::read_dir(std::env::temp_dir()).unwrap().map(|entry| entry.unwrap().path());
    let folder = folders.find(|folder| folder.join(&socket).exists()).expect("the server's folder");
    url.query_pairs_mut().append_pair("host", folder.to_str().unwrap());
    url.to_string()
}

async fn measure(url: &str) {
    let config = PostgresConfig::new(url);
    PostgresLedger::migrate(&config).await.unwrap();
    let ledger = PostgresLedger::connect(config).await.unwrap();
    let mut connection = PgConnection::connect(url).await.unwrap();
    // The print macros are captured, and refused.
    let mut told = std::io::stderr();
    let way = if url.contains("host=") { "socket" } else { "TCP" };
    let before = ledger.balance().await.unwrap().first().map_or(0, |balance| balance.accepted);
    for size in [1, 32, 128, 512] {
        let (mut by_arrays, mut by_copy) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let (one, two) = (batch(size), batch(size));
            let began = Instant::now();
            ledger.accept(one).await.unwrap();
            by_arrays.push(began.elapsed());
            let began = Instant::now();
            copy(&mut connection, &two).await;
            by_copy.push(began.elapsed());
        }
        let (by_arrays, by_copy) = (median(by_arrays), median(by_copy));
        writeln!(told, "{way}, {size:4} events: arrays {by_arrays:?}, COPY {by_copy:?}").unwrap();
    }
    let accepted = ledger.balance().await.unwrap()[0].accepted - before;
    assert_eq!(accepted, (2 * ROUNDS * (1 + 32 + 128 + 512)) as u64);
}
