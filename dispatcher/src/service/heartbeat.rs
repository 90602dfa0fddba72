//! Tells the ledger each second that the process lives and with which routing table, at once when that is a new one, and
//! learns by how much the clocks differ.

use std::sync::Arc;

use dispatcher_core::limits::{
    HEARTBEAT_DEAD_AFTER, HEARTBEAT_INTERVAL, HEARTBEAT_NEWS_INTERVAL, LEDGER_RETRY_PAUSE_MIN, READINESS_DEADLINE,
};
use dispatcher_core::table::TableVersion;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::ServiceConfig;
use crate::ledger::{DispatcherRole, Heartbeat, Ledger, LedgerError};
use crate::metrics::{Metrics, Role};
use crate::readiness::Probe;
use crate::snapshot::SnapshotReceiver;

/// The heartbeat of a process.
pub(super) struct Beating {
    ledger: Arc<dyn Ledger>,
    instance: Uuid,
    role: DispatcherRole,
    /// The pool that it delivers for, if it does.
    pool: Option<String>,
    snapshot: SnapshotReceiver,
    probe: Arc<Probe>,
    metrics: Arc<Metrics>,
}

impl Beating {
    /// The heartbeat of the process that a configuration describes.
    pub(super) fn of(config: &ServiceConfig, snapshot: SnapshotReceiver) -> Self {
        Self {
            ledger: Arc::clone(&config.ledger),
            instance: config.deliver.instance,
            role: config.role,
            pool: config.role.delivers().then(|| config.deliver.pool.clone()),
            snapshot,
            probe: Arc::clone(&config.probe),
            metrics: Arc::clone(&config.metrics),
        }
    }

    /// Beats until it is told to stop, which must be after everything else has; then the ledger may forget the process.
    pub(super) async fn run(self, shutdown: CancellationToken) {
        shutdown.run_until_cancelled(self.beat_for_ever()).await;
        match timeout(READINESS_DEADLINE, self.ledger.retire(self.instance)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "the ledger was not told of the end; it will find out"),
            Err(_) => tracing::debug!("the ledger was not told of the end in time; it will find out"),
        }
    }

    async fn beat_for_ever(&self) {
        let mut pause = LEDGER_RETRY_PAUSE_MIN;
        loop {
            let began = Instant::now();
            match timeout(HEARTBEAT_DEAD_AFTER, self.beat()).await {
                Ok(Ok(told)) => {
                    pause = LEDGER_RETRY_PAUSE_MIN;
                    tokio::select! {
                        () = sleep_until(began + HEARTBEAT_INTERVAL) => {}
                        () = self.loaded_another(told) => sleep_until(began + HEARTBEAT_NEWS_INTERVAL).await,
                    }
                }
                failed => {
                    self.metrics.ledger_failed(Role::Heartbeat);
                    if let Ok(Err(error)) = failed {
                        tracing::debug!(%error, "a heartbeat was not accepted");
                    }
                    sleep(pause).await;
                    pause = (pause * 2).min(HEARTBEAT_INTERVAL);
                }
            }
        }
    }

    /// Waits until another table is in use than the one that the ledger was told of.
    async fn loaded_another(&self, told: TableVersion) {
        let mut snapshot = self.snapshot.clone();
        let ended = snapshot.wait_for(|snapshot| snapshot.version != told).await.is_err();
        if ended {
            // Nothing is loaded any more.
            std::future::pending::<()>().await;
        }
    }

    /// Beats once; answers the table that was told.
    pub(super) async fn beat(&self) -> Result<TableVersion, LedgerError> {
        let began = Instant::now();
        let table_version = self.snapshot.borrow().version;
        let heartbeat = Heartbeat { instance: self.instance, role: self.role, pool: self.pool.clone(), table_version };
        let beat = self.ledger.beat(heartbeat).await?;
        self.probe.beat_accepted(began);
        self.metrics.set_clock_offset(beat.clock_offset_ms);
        Ok(table_version)
    }
}
