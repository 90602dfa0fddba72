//! A relay between a system and its servers that counts what goes by: round trips and transactions of PostgreSQL, frames
//! and messages of RabbitMQ.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use url::Url;

const BUFFER_BYTES: usize = 64 * 1024;

/// What went by.
#[derive(Debug, Default)]
pub struct Counts {
    /// Times that a client waited for PostgreSQL.
    round_trips: AtomicU64,
    /// Times that PostgreSQL said that no transaction is open any more.
    transactions: AtomicU64,
    /// AMQP frames in both directions.
    frames: AtomicU64,
    /// Messages that were published.
    messages: AtomicU64,
}

/// The counts at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Counted {
    /// Times that a client waited for PostgreSQL.
    pub round_trips: u64,
    /// Times that PostgreSQL said that no transaction is open any more.
    pub transactions: u64,
    /// AMQP frames in both directions.
    pub frames: u64,
    /// Messages that were published.
    pub messages: u64,
}

impl Counts {
    /// What went by so far.
    pub fn get(&self) -> Counted {
        Counted {
            round_trips: self.round_trips.load(Ordering::Relaxed),
            transactions: self.transactions.load(Ordering::Relaxed),
            frames: self.frames.load(Ordering::Relaxed),
            messages: self.messages.load(Ordering::Relaxed),
        }
    }
}

/// What a server speaks.
#[derive(Clone, Copy, Debug)]
pub enum Protocol {
    /// PostgreSQL's, version 3.
    Postgres,
    /// AMQP 0-9-1.
    Amqp,
}

/// Listens on a free port for a server's clients; answers the server's URL with that port. Ends with the runtime.
pub async fn relay(server: &str, protocol: Protocol, counts: Arc<Counts>) -> Result<String> {
    let mut url = Url::parse(server)?;
    let host = url.host_str().context("the server's URL has a host")?;
    let upstream: SocketAddr = format!("{host}:{}", url.port().context("the server's URL has a port")?).parse()?;
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            // An error ends the connection for both sides, as an error between them would.
            tokio::spawn(relay_connection(client, upstream, protocol, Arc::clone(&counts)));
        }
    });
    url.set_port(Some(port)).map_err(|()| anyhow::anyhow!("the server's URL takes no port"))?;
    Ok(url.into())
}

async fn relay_connection(
    client: TcpStream,
    server: SocketAddr,
    protocol: Protocol,
    counts: Arc<Counts>,
) -> Result<()> {
    let server = TcpStream::connect(server).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let (mut requests, mut answers) = match protocol {
        Protocol::Postgres => (Frames::ignored(), Frames::of(Kind::Postgres)),
        Protocol::Amqp => (Frames::of(Kind::AmqpClient), Frames::of(Kind::AmqpServer)),
    };
    tokio::select! {
        ended = copy(from_client, to_server, &mut requests, &counts) => ended,
        ended = copy(from_server, to_client, &mut answers, &counts) => ended,
    }
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    frames: &mut Frames,
    counts: &Counts,
) -> Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        frames.read(&buffer[..length], counts);
        to.write_all(&buffer[..length]).await?;
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// What a PostgreSQL server sends: a type, then a length that counts itself ("Message Formats").
    Postgres,
    /// What an AMQP client sends: eight bytes, then frames.
    AmqpClient,
    /// What an AMQP server sends: a type, a channel, a length, then as many bytes and an end (AMQP 0-9-1, 4.2.3).
    AmqpServer,
}

/// Finds frames in a stream of bytes.
struct Frames {
    kind: Option<Kind>,
    /// The beginning of a frame: as much as is needed to know what it is.
    head: Vec<u8>,
    /// Bytes that are left of a frame whose head was read.
    rest: usize,
}

/// Of a frame of PostgreSQL: type, length, and the state in a `ReadyForQuery`.
const POSTGRES_HEAD_BYTES: usize = 6;
/// Of an AMQP frame: type, channel, length, and the class and method of one that has them.
const AMQP_HEAD_BYTES: usize = 11;
/// What an AMQP client begins with.
const AMQP_GREETING_BYTES: usize = 8;

impl Frames {
    fn ignored() -> Self {
        Self { kind: None, head: Vec::new(), rest: 0 }
    }

    fn of(kind: Kind) -> Self {
        let rest = if kind == Kind::AmqpClient { AMQP_GREETING_BYTES } else { 0 };
        Self { kind: Some(kind), head: Vec::new(), rest }
    }

    fn read(&mut self, mut bytes: &[u8], counts: &Counts) {
        let Some(kind) = self.kind else { return };
        while !bytes.is_empty() {
            if self.rest > 0 {
                let skipped = self.rest.min(bytes.len());
                self.rest -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            self.head.push(bytes[0]);
            bytes = &bytes[1..];
            let Some(whole) = whole_bytes(kind, &self.head) else { continue };
            let wanted = if kind == Kind::Postgres { POSTGRES_HEAD_BYTES } else { AMQP_HEAD_BYTES };
            if self.head.len() < wanted.min(whole) {
                continue;
            }
            count(kind, &self.head, counts);
            self.rest = whole - self.head.len();
            self.head.clear();
        }
    }
}

/// Size of a frame, as soon as its head tells it.
fn whole_bytes(kind: Kind, head: &[u8]) -> Option<usize> {
    let at = if kind == Kind::Postgres { 1 } else { 3 };
    let length = u32::from_be_bytes(head.get(at..at + 4)?.try_into().ok()?) as usize;
    // PostgreSQL's length counts itself and not the type; AMQP's counts neither the head nor the end.
    Some(if kind == Kind::Postgres { 1 + length } else { 7 + length + 1 })
}

fn count(kind: Kind, head: &[u8], counts: &Counts) {
    let add = |count: &AtomicU64| count.fetch_add(1, Ordering::Relaxed);
    match (kind, head) {
        // `ReadyForQuery` ends what a client asked, `CopyInResponse` is waited for within.
        (Kind::Postgres, [b'Z', _, _, _, _, state, ..]) => {
            add(&counts.round_trips);
            if *state == b'I' {
                add(&counts.transactions);
            }
        }
        (Kind::Postgres, [b'G', ..]) => {
            add(&counts.round_trips);
        }
        (Kind::Postgres, _) => {}
        (Kind::AmqpClient | Kind::AmqpServer, _) => {
            add(&counts.frames);
            // A method frame with `basic.publish`.
            if kind == Kind::AmqpClient && head[0] == 1 && head.get(7..11) == Some(&[0, 60, 0, 40]) {
                add(&counts.messages);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads bytes in pieces of every size.
    fn counted(kind: Kind, bytes: &[u8]) -> Vec<Counted> {
        (1..=bytes.len())
            .map(|size| {
                let (mut frames, counts) = (Frames::of(kind), Counts::default());
                bytes.chunks(size).for_each(|piece| frames.read(piece, &counts));
                assert_eq!((frames.head.len(), frames.rest), (0, 0), "the stream ends with a frame");
                counts.get()
            })
            .collect()
    }

    #[test]
    fn an_answer_of_postgres_is_a_round_trip_and_outside_a_transaction_its_end() {
        let copy = [b'G', 0, 0, 0, 7, 0, 0, 0];
        let within = [b'Z', 0, 0, 0, 5, b'T'];
        let done = [b'C', 0, 0, 0, 4];
        let idle = [b'Z', 0, 0, 0, 5, b'I'];
        for counted in counted(Kind::Postgres, &[&within[..], &copy, &done, &idle].concat()) {
            assert_eq!((counted.round_trips, counted.transactions), (3, 1));
        }
    }

    #[test]
    fn frames_of_a_broker_are_counted_and_published_messages_too() {
        let publish = [1, 0, 1, 0, 0, 0, 6, 0, 60, 0, 40, 0, 0, 0xce];
        let body = [3, 0, 1, 0, 0, 0, 3, 1, 60, 40, 0xce];
        let heartbeat = [8, 0, 0, 0, 0, 0, 0, 0xce];
        let stream = [&b"AMQP\0\0\x09\x01"[..], &publish, &body, &heartbeat, &publish].concat();
        for counted in counted(Kind::AmqpClient, &stream) {
            assert_eq!((counted.frames, counted.messages), (4, 2));
        }
    }
}
