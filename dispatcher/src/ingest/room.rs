//! What is published at once, and what waits in the ledger until there is room for it.

use std::collections::HashMap;
use std::time::Duration;

use dispatcher_core::delivery::split_into_parts;
use dispatcher_core::limits::LEASE;

use super::NewRequest;
use crate::ledger::NewEvent;
use crate::queue::{Queue, Track};

/// How much the queue takes on at present, by pool.
pub(super) struct Room<'a> {
    queue: Option<&'a dyn Queue>,
    by_pool: HashMap<String, usize>,
}

impl<'a> Room<'a> {
    /// The room of a queue; without one there is none.
    pub(super) fn new(queue: Option<&'a dyn Queue>) -> Self {
        Self { queue, by_pool: HashMap::new() }
    }

    /// Leases an event for publishing if the queue has room for all of it. Without, it is due at once, and the
    /// scheduler publishes it when there is room.
    pub(super) fn lease(&mut self, request: NewRequest) -> NewEvent {
        let parts = split_into_parts(request.targets);
        let mut wanted: HashMap<&str, usize> = HashMap::new();
        for part in &parts {
            *wanted.entry(&part.pool).or_default() += part.targets.len();
        }
        for pool in wanted.keys() {
            if !self.by_pool.contains_key(*pool) {
                self.by_pool.insert((*pool).to_owned(), self.queue.map_or(0, |queue| queue.room(pool, Track::Fresh)));
            }
        }
        let fits = wanted.iter().all(|(pool, count)| self.by_pool.get(*pool).is_some_and(|room| room >= count));
        if fits {
            for (pool, count) in wanted {
                if let Some(room) = self.by_pool.get_mut(pool) {
                    *room -= count;
                }
            }
        }
        NewEvent {
            event: request.event,
            parts,
            table_version: request.table_version,
            idempotency: request.idempotency,
            lease: if fits { LEASE } else { Duration::ZERO },
        }
    }
}
