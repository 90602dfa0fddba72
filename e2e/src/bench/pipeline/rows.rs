//! Rows in PostgreSQL's binary copy format (documentation of `COPY`, "Binary Format").

use std::fs;
use std::net::TcpStream;

use anyhow::{Context, Result};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use sqlx::{Connection, PgConnection};
use url::Url;
use uuid::Uuid;

const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
/// Flags, then the length of the header's extension: none of either.
const HEADER_REST: [u8; 8] = [0; 8];
const END: [u8; 2] = (-1_i16).to_be_bytes();

/// Rows to copy.
pub(super) struct Rows(Vec<u8>);

impl Rows {
    pub(super) fn new() -> Self {
        Self([SIGNATURE, &HEADER_REST].concat())
    }

    /// Begins a row of so many columns.
    pub(super) fn row(&mut self, columns: i16) -> &mut Self {
        self.0.extend_from_slice(&columns.to_be_bytes());
        self
    }

    pub(super) fn bytes(&mut self, value: &[u8]) -> &mut Self {
        let length = i32::try_from(value.len()).expect("a body of the benchmark is small");
        self.0.extend_from_slice(&length.to_be_bytes());
        self.0.extend_from_slice(value);
        self
    }

    pub(super) fn uuid(&mut self, value: Uuid) -> &mut Self {
        self.bytes(value.as_bytes())
    }

    pub(super) fn int2(&mut self, value: i16) -> &mut Self {
        self.bytes(&value.to_be_bytes())
    }

    pub(super) fn int4(&mut self, value: i32) -> &mut Self {
        self.bytes(&value.to_be_bytes())
    }

    pub(super) fn int8(&mut self, value: i64) -> &mut Self {
        self.bytes(&value.to_be_bytes())
    }

    /// Copies them as one transaction.
    pub(super) async fn copy(mut self, connection: &mut PgConnection, statement: &str) -> Result<()> {
        self.0.extend_from_slice(&END);
        let mut copy = connection.copy_in_raw(statement).await?;
        copy.send(self.0).await?;
        copy.finish().await?;
        Ok(())
    }
}

/// Connects for copying. A copy is several small writes, and the client library leaves Nagle's algorithm on: each copy
/// would wait 40 ms for a delayed acknowledgement. Its socket is found among those of this process.
pub(super) async fn connect(database: &str) -> Result<PgConnection> {
    let port = Url::parse(database)?.port().context("the database's URL has a port")?;
    let connection = PgConnection::connect(database).await?;
    let this_process = pidfd_open(getpid(), PidfdFlags::empty())?;
    for entry in fs::read_dir("/proc/self/fd")? {
        let number = entry?.file_name().to_string_lossy().parse()?;
        // What was open a moment ago, to read this list, is not there any more.
        let Ok(descriptor) = pidfd_getfd(&this_process, number, PidfdGetfdFlags::empty()) else { continue };
        let stream = TcpStream::from(descriptor);
        if stream.peer_addr().is_ok_and(|peer| peer.port() == port) {
            stream.set_nodelay(true)?;
        }
    }
    Ok(connection)
}
