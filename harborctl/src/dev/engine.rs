//! The service in this process: ledger, queue, ingest and delivery on the embedded pair.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use dispatcher::deliver::Observed;
use dispatcher::ledger::Ledger;
use dispatcher::ledger::sqlite::SqliteLedger;
use dispatcher::queue::memory::MemoryQueue;
use dispatcher::service::{Service, ServiceConfig};
use dispatcher::snapshot::{Snapshot, SnapshotReceiver};
use dispatcher_core::address::AddressPolicy;
use dispatcher_core::limits::{DEVELOPMENT_TABLE_PATIENCE, MEMORY_QUEUE_MESSAGES_MAX};
use dispatcher_core::seal::SealingKey;
use tokio::net::TcpListener;
use tokio::sync::{Notify, broadcast};
use tokio_util::sync::CancellationToken;

use super::resources::RECEIVER_HOST;
use crate::exit::Failure;

/// What the service listens on.
pub(super) struct Listeners {
    /// For the API.
    pub(super) api: TcpListener,
    /// For health and metrics, if they are served.
    pub(super) admin: Option<TcpListener>,
}

/// The running service.
pub(super) struct Engine {
    /// Where the API listens.
    pub(super) address: SocketAddr,
    /// Where health and metrics are served, if they are.
    pub(super) admin_address: Option<SocketAddr>,
    /// Every committed attempt.
    pub(super) observed: broadcast::Receiver<Arc<Observed>>,
    /// Cancelled once the service has ended, drained or not.
    pub(super) ended: CancellationToken,
    snapshot: SnapshotReceiver,
    table_changed: Arc<Notify>,
    shutdown: CancellationToken,
}

/// Opens the ledger in a file, or makes it.
pub(super) async fn open_ledger(file: &Path) -> Result<Arc<dyn Ledger>, Failure> {
    match SqliteLedger::open(file).await {
        Ok(ledger) => Ok(Arc::new(ledger)),
        Err(error) => Err(Failure::Local(format!("{}: {error}", file.display()))),
    }
}

impl Engine {
    /// Starts the service. Deliveries to [`RECEIVER_HOST`] go to the receiver.
    pub(super) async fn start(
        ledger: Arc<dyn Ledger>,
        sealing_key: Arc<SealingKey>,
        address_policy: AddressPolicy,
        receiver: SocketAddr,
        listeners: Listeners,
    ) -> Result<Self, Failure> {
        let queue = Arc::new(MemoryQueue::new(MEMORY_QUEUE_MESSAGES_MAX));
        let mut config = ServiceConfig::new(ledger, queue, sealing_key, address_policy);
        config.fixed_hosts.insert(RECEIVER_HOST.to_owned(), receiver);
        let shutdown = CancellationToken::new();
        let running = Service::start(config, listeners.api, listeners.admin, shutdown.clone())
            .await
            .map_err(|error| Failure::Local(format!("the server does not start: {error}")))?;
        let (observed, join) = (running.observers.subscribe(), running.join);
        let ended = CancellationToken::new();
        tokio::spawn({
            let ended = ended.clone();
            async move {
                match join.await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::error!(%error, "the service has failed"),
                    Err(error) => tracing::error!(%error, "the service has failed"),
                }
                ended.cancel();
            }
        });
        Ok(Self {
            address: running.address,
            admin_address: running.admin_address,
            observed,
            ended,
            snapshot: running.snapshot,
            table_changed: running.table_changed,
            shutdown,
        })
    }

    /// The routing table in use.
    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.borrow())
    }

    /// Waits until a published table is in use.
    pub(super) async fn load_table(&mut self, version: u64) {
        self.table_changed.notify_one();
        let loaded = self.snapshot.wait_for(|snapshot| snapshot.version.0 >= version);
        if !matches!(tokio::time::timeout(DEVELOPMENT_TABLE_PATIENCE, loaded).await, Ok(Ok(_))) {
            tracing::warn!(version, "the new routing table is not in use yet");
        }
    }

    /// Asks the service to stop: it accepts nothing more, and drains.
    pub(super) fn stop(&self) {
        self.shutdown.cancel();
    }
}
