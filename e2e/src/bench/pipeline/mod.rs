//! The *bare pipeline*: the same hops as the distributed pair, and no safety at all.
//!
//! It accepts over HTTP, copies a batch into PostgreSQL, publishes each event as one message to a quorum queue and has it
//! confirmed; it consumes, signs, posts with 64 exchanges in flight, copies the attempts and acknowledges. There is no
//! outbox, no lease, no retry, no routing table, no check of an address and no bound on what waits: what it does not do
//! is the price of what Harborhook promises, and what it does is as fast as such a small program can be.
//!
//! The first byte of a message is its [`path`], then come the event's id and the body.

mod client;
pub mod deliver;
pub mod ingest;
mod rows;

use anyhow::{Context, Result};
use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ConnectionProperties};
use sqlx::{Connection as _, Executor, PgConnection};

use super::table::Route;

const QUEUE: &str = "bench.events";
/// Beside the fan-out in a [`path`].
const OVER_TLS: u8 = 0x80;

/// Tables with a primary key each, so that what is written can be looked up.
const SCHEMA: &str = "CREATE TABLE events (id uuid PRIMARY KEY, body bytea NOT NULL);
    CREATE TABLE attempts (event uuid, endpoint int4, started_ms int8 NOT NULL, duration_us int8 NOT NULL,
                           status int2 NOT NULL, PRIMARY KEY (event, endpoint));";

/// The last segment of the URL for a route: the fan-out, plus 128 over TLS.
pub fn path(route: Route) -> u8 {
    let fanout = u8::try_from(route.fanout()).expect("no fan-out is beyond a hundred");
    if route == Route::OneOverTls { fanout | OVER_TLS } else { fanout }
}

/// Makes its tables and its queue.
pub async fn prepare(database: &str, broker: &str) -> Result<()> {
    let mut connection = PgConnection::connect(database).await?;
    connection.execute(SCHEMA).await?;
    connection.close().await?;
    let connection = connect(broker).await?;
    let channel = connection.create_channel().await?;
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    channel.queue_declare(QUEUE.into(), options, arguments).await?;
    connection.close(200, "OK".into()).await?;
    Ok(())
}

async fn connect(broker: &str) -> Result<Connection> {
    let runtime = lapin::runtime::default_runtime()?;
    Connection::connect_with_runtime(broker, ConnectionProperties::default(), runtime)
        .await
        .context("the broker cannot be reached")
}

async fn channel(connection: &Connection) -> Result<Channel> {
    connection.create_channel().await.context("no channel could be opened")
}
