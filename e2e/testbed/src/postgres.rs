//! Private PostgreSQL servers, and a database for each test on any server.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use url::Url;
use uuid::Uuid;

use crate::root::Root;
use crate::service::{Service, free_ports};
use crate::{DATABASE_URL, announce};

/// Settings of every private server. A kill of the process loses nothing that it has handed to the kernel, so the wait
/// for the disk is left out; only a crash of the machine would tell the difference. Each of many tests has its pools.
const SETTINGS: &[(&str, &str)] = &[
    ("listen_addresses", "'127.0.0.1'"),
    ("unix_socket_directories", "''"),
    ("fsync", "off"),
    ("max_connections", "300"),
];

/// Bytes that are written at once to fill a disk: a page of a table, so that no page fits any more.
const FILLER_CHUNK_BYTES: usize = 8 * 1024;

/// A private server. Its processes and data are gone when the value is dropped.
#[derive(Debug)]
pub struct PostgresServer {
    service: Service,
    url: String,
}

impl PostgresServer {
    /// `further_files` are names and contents of files beside its configuration, which it sees in `/srv`.
    pub(crate) async fn start(
        root: &Root,
        settings: &[(&str, &str)],
        further_files: &[(&str, &str)],
        disk_mebibytes: Option<u32>,
    ) -> Result<Self> {
        let [port] = free_ports()?;
        let password = Uuid::new_v4().simple().to_string();
        let mut configuration = format!("port = {port}\n");
        for (name, value) in SETTINGS.iter().chain(settings) {
            writeln!(configuration, "{name} = {value}")?;
        }
        let start = start_script(root.release.postgresql);
        let mut files = vec![("start", start.as_str()), ("postgresql.conf", &configuration), ("password", &password)];
        files.extend(further_files);
        let service = Service::new(root, "postgres", disk_mebibytes, &files)?;
        let url = format!("postgres://harborhook:{password}@127.0.0.1:{port}/postgres");
        let mut server = Self { service, url };
        server.restart().await?;
        Ok(server)
    }

    /// URL of its maintenance database, for [`TestDatabase::create`].
    pub fn url(&self) -> &str {
        &self.url
    }

    /// SIGKILL to all its processes, at once; returns when they are gone. Its data and its port stay.
    pub fn kill(&mut self) -> Result<()> {
        self.service.kill()
    }

    /// Starts it on its data and port, after a kill when it runs; returns when it accepts connections.
    pub async fn restart(&mut self) -> Result<()> {
        self.service.start().context("PostgreSQL does not start")?;
        while !accepts_connections(&self.url).await {
            self.service.wait_a_moment().await.context("PostgreSQL does not start")?;
        }
        Ok(())
    }

    /// Fills the disk of its tables to the last byte. What is in the tables already can still be changed in place.
    pub fn fill_disk(&self) -> Result<()> {
        let mut filler = File::create(self.filler()?).context("cannot write to the server's disk")?;
        let chunk = vec![0; FILLER_CHUNK_BYTES];
        loop {
            match filler.write(&chunk) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(error).context("cannot fill the server's disk"),
            }
        }
    }

    /// Gives back what [`Self::fill_disk`] took.
    pub fn free_disk(&self) -> Result<()> {
        fs::remove_file(self.filler()?).context("the server's disk was not filled")
    }

    fn filler(&self) -> Result<PathBuf> {
        Ok(self.service.folder_inside()?.join("data/filler"))
    }

    /// Host's process id of the process that all its other processes end with; `None` when it does not run.
    pub fn process_id(&self) -> Option<u32> {
        self.service.process_id()
    }
}

/// The process id in a lock file that a killed server left means nothing in a new process namespace. The log of changes
/// stands elsewhere than the tables: a disk that is full of tables refuses writes, one that is full of log ends the server.
fn start_script(programs: &str) -> String {
    format!(
        "cd /srv\n\
         [ -e data/PG_VERSION ] || {programs}/initdb --pgdata=data --waldir=/srv/wal --no-sync --username=harborhook \
         --pwfile=password --auth=scram-sha-256 --encoding=UTF8 --locale=C.UTF-8\n\
         rm -f data/postmaster.pid\n\
         exec {programs}/postgres -D data --config-file=/srv/postgresql.conf\n"
    )
}

/// Without TLS, for which the server may want a certificate.
async fn accepts_connections(url: &str) -> bool {
    match PgConnection::connect(&format!("{url}?sslmode=disable")).await {
        Ok(connection) => connection.close().await.is_ok(),
        Err(_) => false,
    }
}

/// An empty database. It is dropped with the value, together with the connections that are still open to it.
#[derive(Debug)]
pub struct TestDatabase {
    url: String,
    name: String,
    server_url: String,
    /// Lives at least as long as the database.
    server: Option<Arc<PostgresServer>>,
}

impl TestDatabase {
    /// Makes a database on a server, given any of its databases and a user who may do that.
    pub async fn create(server_url: &str) -> Result<Self> {
        let mut url = Url::parse(server_url).with_context(|| format!("{DATABASE_URL} is not a URL"))?;
        let name = format!("test_{}", Uuid::new_v4().simple());
        execute(server_url, format!("CREATE DATABASE {name}")).await.context("no database could be made")?;
        url.set_path(&name);
        Ok(Self { url: url.into(), name, server_url: server_url.to_owned(), server: None })
    }

    pub(crate) fn keeping(mut self, server: Arc<PostgresServer>) -> Self {
        self.server = Some(server);
        self
    }

    /// Its URL: `postgres://USER:PASSWORD@HOST:PORT/test_…`.
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        if self.server.as_ref().is_some_and(|server| Arc::strong_count(server) == 1) {
            return; // The server goes with it.
        }
        let statement = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        if let Err(error) = crate::sandbox::block_on_own_thread(execute(&self.server_url, statement)) {
            announce(&format!("the database {} was left behind: {error:#}", self.name));
        }
    }
}

async fn execute(url: &str, statement: String) -> Result<()> {
    let mut connection = PgConnection::connect(url).await?;
    connection.execute(AssertSqlSafe(statement)).await?;
    connection.close().await?;
    Ok(())
}
