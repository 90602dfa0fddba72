//! Real PostgreSQL, RabbitMQ and Kubernetes for tests.
//!
//! A test asks for a [`database`] or a [`vhost`] of its own, or for a namespace of a [`cluster`]. They live on the servers that the environment names; where
//! it names none, on private servers that the tests of one process share and that end with them:
//!
//! | variable | meaning |
//! |---|---|
//! | `HARBORHOOK_TEST_DATABASE_URL` | PostgreSQL server: `postgres://USER:PASSWORD@HOST:PORT/DATABASE`, a user that may create databases |
//! | `HARBORHOOK_TEST_AMQP_URL` | RabbitMQ server: `amqp://USER:PASSWORD@HOST:PORT/`, a user with the tag `administrator` |
//! | `HARBORHOOK_TEST_RABBITMQ_MANAGEMENT_URL` | its management plugin, `http://USER:PASSWORD@HOST:PORT`; without it, port 15672 of the same host |
//! | `HARBORHOOK_E2E_KUBECONFIG` | Kubernetes cluster: path of a kubeconfig whose current context may do everything |
//! | `HARBORHOOK_E2E_IMAGE` | Harborhook's image in a cluster that is not on this machine; without it, one is built and loaded |
//! | `HARBORHOOK_KUBECTL`, `HARBORHOOK_HELM` | the programs; without them, those that were built, then those on the PATH |
//! | `HARBORHOOK_REQUIRE_SERVERS` | `1`: a machine that has no servers and cannot start any is an error, not a reason to skip |
//!
//! `testbed run COMMAND…` starts one of each for a whole test run and names it to the command in these variables. A test
//! that kills servers takes a private one with [`postgres`], [`rabbitmq`] or [`kubernetes`]; `testbed cluster` holds one
//! for as long as somebody works with it.
//!
//! Private servers need Linux, root, and Debian's `mmdebstrap` once; a cluster also some of Debian's packages.
//! Where something is missing every function here says so on the standard error stream and returns `None`; the test then
//! returns early.

mod cache;
mod clock;
mod cluster;
mod environment;
pub mod image;
mod kubectl;
mod missing;
mod postgres;
mod proxy;
mod rabbitmq;
mod root;
mod sandbox;
mod service;

use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Weak};

use anyhow::Result;
use tokio::sync::Mutex;

pub use clock::WallClock;
pub use cluster::{Cluster, NODE_ADDRESS, NODE_NAME, Stalled};
pub use environment::{
    AMQP_URL, DATABASE_URL, Environment, HELM, IMAGE, KUBECONFIG, KUBECTL, MANAGEMENT_URL, REQUIRE_SERVERS,
};
pub use kubectl::{Kubectl, PortForward, TestNamespace};
pub use postgres::{PostgresServer, TestDatabase};
pub use proxy::Proxy;
pub use rabbitmq::{RabbitServer, TestVhost};
pub use root::{OLDEST, RELEASE, Release};

use missing::or_skip;
use root::Root;

/// An empty database of the caller's own, dropped with the value.
pub async fn database() -> Result<Option<TestDatabase>> {
    static SHARED: Mutex<Weak<PostgresServer>> = Mutex::const_new(Weak::new());
    if let Some(url) = Environment::read()?.database_url {
        return TestDatabase::create(&url).await.map(Some);
    }
    let mut shared = SHARED.lock().await;
    let server = match shared.upgrade() {
        Some(server) => server,
        None => match postgres(&[]).await? {
            Some(server) => Arc::new(server),
            None => return Ok(None),
        },
    };
    *shared = Arc::downgrade(&server);
    drop(shared);
    let database = TestDatabase::create(server.url()).await?;
    Ok(Some(database.keeping(server)))
}

/// An empty vhost of the caller's own, deleted with the value.
pub async fn vhost() -> Result<Option<TestVhost>> {
    static SHARED: Mutex<Weak<RabbitServer>> = Mutex::const_new(Weak::new());
    let environment = Environment::read()?;
    if let Some(url) = &environment.amqp_url {
        return TestVhost::create(url, &environment.management_url_of(url)?).await.map(Some);
    }
    shared_vhost(&SHARED, RELEASE).await
}

/// The same on a private server of the oldest release, whatever the environment names.
pub async fn vhost_of_oldest() -> Result<Option<TestVhost>> {
    static SHARED: Mutex<Weak<RabbitServer>> = Mutex::const_new(Weak::new());
    shared_vhost(&SHARED, OLDEST).await
}

async fn shared_vhost(shared: &Mutex<Weak<RabbitServer>>, release: Release) -> Result<Option<TestVhost>> {
    let mut shared = shared.lock().await;
    let server = match shared.upgrade() {
        Some(server) => server,
        None => match private_rabbitmq(release, &[], &[]).await? {
            Some(server) => Arc::new(server),
            None => return Ok(None),
        },
    };
    *shared = Arc::downgrade(&server);
    drop(shared);
    let vhost = TestVhost::create(server.url(), server.management_url()).await?;
    Ok(Some(vhost.keeping(server)))
}

/// A private PostgreSQL server for one caller, whatever the environment names. `settings` are lines of
/// `postgresql.conf`, such as `("max_connections", "20")`.
pub async fn postgres(settings: &[(&str, &str)]) -> Result<Option<PostgresServer>> {
    postgres_with_files(settings, &[]).await
}

/// The same with further files, names and contents, which settings name as `/srv/NAME`: certificates, for example.
pub async fn postgres_with_files(settings: &[(&str, &str)], files: &[(&str, &str)]) -> Result<Option<PostgresServer>> {
    match root_or_skip("PostgreSQL", RELEASE).await? {
        Some(root) => PostgresServer::start(&root, settings, files, None).await.map(Some),
        None => Ok(None),
    }
}

/// A private PostgreSQL server as [`postgres`] gives it, whose tables have a disk of this size to themselves, which
/// [`PostgresServer::fill_disk`] fills. The disk is memory: it goes when the server is killed.
pub async fn postgres_on_disk_of(mebibytes: u32, settings: &[(&str, &str)]) -> Result<Option<PostgresServer>> {
    match root_or_skip("PostgreSQL", RELEASE).await? {
        Some(root) => PostgresServer::start(&root, settings, &[], Some(mebibytes)).await.map(Some),
        None => Ok(None),
    }
}

/// A private RabbitMQ server for one caller, whatever the environment names. `settings` are lines of `rabbitmq.conf`,
/// such as `("vm_memory_high_watermark.absolute", "200MB")`.
pub async fn rabbitmq(settings: &[(&str, &str)]) -> Result<Option<RabbitServer>> {
    rabbitmq_with_files(settings, &[]).await
}

/// The same with further files, names and contents, which settings name as `/srv/NAME`: certificates, for example.
pub async fn rabbitmq_with_files(settings: &[(&str, &str)], files: &[(&str, &str)]) -> Result<Option<RabbitServer>> {
    private_rabbitmq(RELEASE, settings, files).await
}

/// A loopback port that nothing listens on, for a further listener of a private server.
pub fn free_port() -> Result<u16> {
    service::free_ports().map(|[port]| port)
}

async fn private_rabbitmq(
    release: Release,
    settings: &[(&str, &str)],
    files: &[(&str, &str)],
) -> Result<Option<RabbitServer>> {
    match root_or_skip("RabbitMQ", release).await? {
        Some(root) => RabbitServer::start(&root, settings, files).await.map(Some),
        None => Ok(None),
    }
}

/// A private cluster for one caller, whatever the environment names; ready when this returns.
pub async fn kubernetes() -> Result<Option<Cluster>> {
    let environment = Environment::read()?;
    let started = Cluster::start(&environment).await?;
    or_skip(started, &environment, "Kubernetes cluster", &format!("name a cluster in {KUBECONFIG}"))
}

/// The cluster that the environment names; where it names none, a private one that the tests of this process share.
/// What a test makes there belongs in a [`Kubectl::namespace`] of its own.
pub async fn cluster() -> Result<Option<Arc<Cluster>>> {
    static SHARED: Mutex<Weak<Cluster>> = Mutex::const_new(Weak::new());
    let mut shared = SHARED.lock().await;
    if let Some(cluster) = shared.upgrade() {
        return Ok(Some(cluster));
    }
    let cluster = match Cluster::named(&Environment::read()?).await? {
        Some(named) => Some(named),
        None => kubernetes().await?,
    };
    let cluster = cluster.map(Arc::new);
    *shared = cluster.as_ref().map(Arc::downgrade).unwrap_or_default();
    Ok(cluster)
}

/// Folder with the programs of a Go module in `e2e/cluster`, built once per machine; for what runs beside a cluster.
/// `None` where a cluster cannot be had either.
pub async fn go_programs(module: &str) -> Result<Option<PathBuf>> {
    let environment = Environment::read()?;
    if let Some(missing) = missing::missing(&[root::MMDEBSTRAP]) {
        return or_skip(Err(missing), &environment, "Kubernetes cluster", "leave out the tests that need one");
    }
    let module = module.to_owned();
    tokio::task::spawn_blocking(move || cluster::prepare(&environment, &module)).await?.map(Some)
}

/// Folder with the files of a Go module of a version, such as definitions of resources, fetched once per machine.
/// `None` where a cluster cannot be had either.
pub async fn go_module(module: &str, version: &str) -> Result<Option<PathBuf>> {
    let environment = Environment::read()?;
    if let Some(missing) = missing::missing(&[root::MMDEBSTRAP]) {
        return or_skip(Err(missing), &environment, "Kubernetes cluster", "leave out the tests that need one");
    }
    cluster::fetch(module, version).await.map(Some)
}

async fn root_or_skip(server: &str, release: Release) -> Result<Option<Root>> {
    let environment = Environment::read()?;
    let prepared = environment.clone();
    let prepared = tokio::task::spawn_blocking(move || Root::prepare(&prepared, release)).await??;
    let alternative = format!("name running servers in {DATABASE_URL} and {AMQP_URL}");
    or_skip(prepared, &environment, &format!("{server} server"), &alternative)
}

/// Writes a line to the real standard error stream; the print macros would be captured by the test that passes.
pub(crate) fn announce(line: &str) {
    // Nothing is left to tell it to when the stream is closed.
    let _ = writeln!(std::io::stderr(), "testbed: {line}");
}
