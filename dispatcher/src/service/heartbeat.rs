//! Tells the ledger each second that the process lives, and learns by how much the clocks differ.

use std::sync::Arc;

use dispatcher_core::limits::{HEARTBEAT_DEAD_AFTER, HEARTBEAT_INTERVAL, LEDGER_RETRY_PAUSE_MIN, READINESS_DEADLINE};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::ledger::{Beat, DispatcherRole, Heartbeat, Ledger, LedgerError};
use crate::metrics::{Metrics, Role};
use crate::readiness::Probe;
use crate::snapshot::SnapshotReceiver;

/// The heartbeat of a process.
pub(super) struct Beating {
    pub(super) ledger: Arc<dyn Ledger>,
    pub(super) instance: Uuid,
    pub(super) role: DispatcherRole,
    /// The pool that it delivers for, if it does.
    pub(super) pool: Option<String>,
    pub(super) snapshot: SnapshotReceiver,
    pub(super) probe: Arc<Probe>,
    pub(super) metrics: Arc<Metrics>,
}

impl Beating {
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
                Ok(Ok(beat)) => {
                    self.probe.beat_accepted(began);
                    self.metrics.set_clock_offset(beat.clock_offset_ms);
                    pause = LEDGER_RETRY_PAUSE_MIN;
                    sleep(HEARTBEAT_INTERVAL.saturating_sub(began.elapsed())).await;
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

    async fn beat(&self) -> Result<Beat, LedgerError> {
        let table_version = self.snapshot.borrow().version;
        let heartbeat = Heartbeat { instance: self.instance, role: self.role, pool: self.pool.clone(), table_version };
        self.ledger.beat(heartbeat).await
    }
}
