//! The queues that this process publishes to, and a task that looks at their depth.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use dispatcher_core::limits::{POOLS_MAX, QUEUE_LOOK_INTERVAL, QUEUE_LOOK_INTERVAL_IDLE};
use lapin::Channel;
use tokio::time::{Instant, sleep};

use super::depth::Depth;
use super::link::{Link, Session};
use super::lock;
use super::topology::{self, QueueName};
use crate::queue::Track;

/// A queue and what is known of its depth.
pub(super) struct WatchedQueue {
    pub(super) name: QueueName,
    pub(super) depth: Mutex<Depth>,
}

/// The queues of all pools that were named so far.
#[derive(Default)]
pub(super) struct Pools {
    queues: Mutex<HashMap<(String, Track), Arc<WatchedQueue>>>,
}

impl Pools {
    /// A pool's queue; `None` when there can be none: the pool's name is too long, or there are too many pools.
    pub(super) fn queue(&self, pool: &str, track: Track) -> Option<Arc<WatchedQueue>> {
        let key = (pool.to_owned(), track);
        let mut queues = lock(&self.queues);
        if let Some(queue) = queues.get(&key) {
            return Some(Arc::clone(queue));
        }
        if queues.len() >= 2 * POOLS_MAX {
            return None;
        }
        let queue = Arc::new(WatchedQueue { name: QueueName::new(pool, track)?, depth: Mutex::default() });
        queues.insert(key, Arc::clone(&queue));
        Some(queue)
    }

    /// Makes sure that all queues are there.
    pub(super) async fn ensure(&self, session: &Session, messages_max: u32) -> lapin::Result<()> {
        for queue in self.all() {
            session.ensure(&queue.name, messages_max).await?;
        }
        Ok(())
    }

    fn all(&self) -> Vec<Arc<WatchedQueue>> {
        lock(&self.queues).values().cloned().collect()
    }

    /// Looks at the queues again and again, often while there is something in them. Never returns.
    pub(super) async fn watch(&self, link: &Link, messages_max: u32) {
        let start = Instant::now();
        loop {
            let session = link.wait().await;
            if let Err(error) = self.look(&session, messages_max, start).await {
                tracing::debug!(%error, "the depth of the queues is not known at the moment");
            }
            sleep(QUEUE_LOOK_INTERVAL).await;
        }
    }

    /// Looks until something goes wrong.
    async fn look(&self, session: &Session, messages_max: u32, start: Instant) -> lapin::Result<()> {
        self.ensure(session, messages_max).await?;
        let channel = session.channel().await?;
        loop {
            for queue in self.all() {
                let is_due = {
                    let depth = lock(&queue.depth);
                    let looked_at = depth.looked_at();
                    depth.is_busy()
                        || looked_at.is_none_or(|at| start.elapsed().saturating_sub(at) >= QUEUE_LOOK_INTERVAL_IDLE)
                };
                if is_due && let Err(error) = look_at(&channel, &queue, start).await {
                    // A queue that is missing closes the channel that asked for it.
                    session.forget(&queue.name).await;
                    return Err(error);
                }
            }
            sleep(QUEUE_LOOK_INTERVAL).await;
        }
    }
}

async fn look_at(channel: &Channel, queue: &WatchedQueue, start: Instant) -> lapin::Result<()> {
    let look = lock(&queue.depth).look();
    let messages = topology::count(channel, &queue.name).await?;
    lock(&queue.depth).looked(look, messages, start.elapsed());
    Ok(())
}
