//! Connects to the queue. What no waiting heals ends the process; what may pass is tried again, and told once for each
//! change.

use std::sync::Arc;

use dispatcher::process::{Failure, Retry};
use dispatcher::queue::memory::MemoryQueue;
use dispatcher::queue::rabbitmq::{RabbitConfig, RabbitQueue};
use dispatcher::queue::{Queue, QueueError};
use dispatcher::readiness::{Finding, Probe};
use dispatcher_core::limits::MEMORY_QUEUE_MESSAGES_MAX;

use super::settings::QueueChoice;

/// A queue that is connected, or will be.
pub(crate) struct ConnectedQueue {
    pub(crate) queue: Arc<dyn Queue>,
    rabbit: Option<Arc<RabbitQueue>>,
}

impl ConnectedQueue {
    /// Ends its connections in order: what was acknowledged is told to the broker.
    pub(crate) async fn close(&self) {
        if let Some(rabbit) = &self.rabbit {
            rabbit.close().await;
        }
    }
}

/// Connects to the queue. A broker that is not there is no obstacle: its client goes on trying.
pub(crate) async fn queue(choice: QueueChoice, probe: &Probe) -> Result<ConnectedQueue, Failure> {
    let connected = match choice {
        QueueChoice::Rabbit(config) => {
            let rabbit = Arc::new(rabbit(*config, probe).await?);
            ConnectedQueue { queue: Arc::clone(&rabbit) as Arc<dyn Queue>, rabbit: Some(rabbit) }
        }
        QueueChoice::Memory => {
            ConnectedQueue { queue: Arc::new(MemoryQueue::new(MEMORY_QUEUE_MESSAGES_MAX)), rabbit: None }
        }
    };
    probe.set_queue(if connected.queue.is_connected() { Finding::Ok } else { Finding::Unreachable });
    Ok(connected)
}

async fn rabbit(config: RabbitConfig, probe: &Probe) -> Result<RabbitQueue, Failure> {
    let mut retry = Retry::new();
    loop {
        let error = match RabbitQueue::connect(config.clone()).await {
            Ok(queue) => return Ok(queue),
            Err(QueueError::Misconfigured(message)) => return Err(Failure::Configuration(message)),
            Err(error @ QueueError::Unavailable(_)) => error,
        };
        probe.set_queue(Finding::Unreachable);
        if retry.is_news(&error.to_string()) {
            tracing::warn!(%error, "not ready: the queue cannot be used yet; trying again");
        }
        retry.pause().await;
    }
}
