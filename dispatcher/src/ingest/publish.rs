//! Publishes accepted events beside the writer: packs them into queue messages, and waits for the queue.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dispatcher_core::limits::{ACCEPT_PUBLISH_PATIENCE, ACCEPT_PUBLISHING_MAX};
use futures::future::join_all;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::ledger::NewEvent;
use crate::metrics::{Metrics, Role};
use crate::queue::{self, Item, Message, Queue, Track, Work};

/// Publishes batches, a few at a time.
pub(super) struct Publisher {
    queue: Arc<dyn Queue>,
    metrics: Arc<Metrics>,
    places: Arc<Semaphore>,
    /// Whether it has been waited for a place in vain, and none has been free since.
    is_silent: AtomicBool,
    tasks: TaskTracker,
}

/// The right to publish a batch.
pub(super) struct Place(OwnedSemaphorePermit);

impl Publisher {
    pub(super) fn new(queue: Arc<dyn Queue>, metrics: Arc<Metrics>) -> Self {
        let (places, is_silent) = (Arc::new(Semaphore::new(ACCEPT_PUBLISHING_MAX)), AtomicBool::new(false));
        Self { queue, metrics, places, is_silent, tasks: TaskTracker::new() }
    }

    /// A place for a batch, if need be after a moment: what has none waits in the ledger for the scheduler, which is far
    /// longer than a queue usually takes to answer. `None` while the queue does not answer for as many as there are;
    /// then it is waited for once, and not for every batch.
    pub(super) async fn place(&self) -> Option<Place> {
        let free = Arc::clone(&self.places).try_acquire_owned().ok();
        let place = match free {
            None if self.is_silent.load(Ordering::Relaxed) => return None,
            None => {
                let waiting = timeout(ACCEPT_PUBLISH_PATIENCE, Arc::clone(&self.places).acquire_owned());
                waiting.await.ok().and_then(Result::ok)
            }
            free => free,
        };
        self.is_silent.store(place.is_none(), Ordering::Relaxed);
        place.map(Place)
    }

    /// Publishes freshly accepted events, whose parts are leased with `gen` 1, to all pools at once. What the queue does
    /// not take on stays in the ledger and is due when the lease ends. It goes on when the handle is dropped.
    pub(super) fn publish(&self, place: Place, events: Vec<NewEvent>, lease_until_unix_ms: u64) -> JoinHandle<()> {
        let (queue, metrics) = (Arc::clone(&self.queue), Arc::clone(&self.metrics));
        self.tasks.spawn(async move {
            let pools = pack(events, lease_until_unix_ms);
            let publishing = pools.into_iter().map(async |(pool, messages)| {
                let results = queue.publish(&pool, Track::Fresh, messages).await;
                results.iter().filter(|result| result.is_err()).count()
            });
            for _ in 0..join_all(publishing).await.into_iter().sum() {
                metrics.publish_failed(Role::Ingest);
            }
            drop(place.0);
        })
    }

    /// Waits until everything is published or given up.
    pub(super) async fn finish(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Messages by pool.
fn pack(events: Vec<NewEvent>, lease_until_unix_ms: u64) -> BTreeMap<String, Vec<Message>> {
    let mut items: BTreeMap<String, Vec<Item>> = BTreeMap::new();
    for new in events {
        for part in new.parts {
            let item = Item {
                event: Arc::clone(&new.event),
                table_version: new.table_version,
                lease_until_unix_ms,
                work: Work::Part { part: part.number, r#gen: 1, targets: part.targets },
            };
            items.entry(part.pool).or_default().push(item);
        }
    }
    items.into_iter().map(|(pool, items)| (pool, queue::pack(items))).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use bytes::Bytes;
    use dispatcher_core::delivery::{Target, split_into_parts};
    use dispatcher_core::event::{Attributes, Event};
    use dispatcher_core::id::{EndpointId, EventId, SubscriptionId, TenantId};
    use dispatcher_core::limits::{MESSAGE_BODY_BYTES_MAX, MESSAGE_DELIVERIES_MAX};
    use dispatcher_core::table::TableVersion;
    use futures::FutureExt;
    use proptest::prelude::*;

    use super::*;
    use crate::queue::memory::MemoryQueue;

    /// An event with targets in two pools.
    fn new_event(number: u64, fanout: [usize; 2], body_bytes: usize) -> NewEvent {
        let tenant = TenantId::of_namespace_name("shop");
        let subscription = SubscriptionId::derive(tenant, "all");
        let targets = fanout.iter().enumerate().flat_map(|(pool, count)| {
            (0..*count).map(move |target| {
                let endpoint = EndpointId::derive(tenant, &format!("{pool}-{target}"));
                (format!("pool-{pool}"), Target { subscription, endpoint })
            })
        });
        NewEvent {
            event: Arc::new(Event {
                id: EventId::from_parts(number, [0; 10]),
                tenant,
                event_type: "order.created".into(),
                recipient: None,
                content_type: "application/json".into(),
                body: Bytes::from(vec![b'1'; body_bytes]),
                attributes: Attributes::default(),
            }),
            parts: split_into_parts(targets.collect()),
            table_version: TableVersion(1),
            idempotency: None,
            lease: Duration::from_secs(5),
        }
    }

    #[tokio::test]
    async fn a_place_that_is_free_in_a_moment_is_waited_for_and_a_silent_queue_only_once() {
        let publisher = Publisher::new(Arc::new(MemoryQueue::new(1)), Arc::new(Metrics::new()));
        let mut places = Vec::new();
        for _ in 0..ACCEPT_PUBLISHING_MAX {
            places.extend(publisher.place().now_or_never().expect("nobody waits while there is one"));
        }
        let mut waiting = Box::pin(publisher.place());
        assert!((&mut waiting).now_or_never().is_none());
        drop(places.pop());
        places.extend(waiting.await);
        assert_eq!(places.len(), ACCEPT_PUBLISHING_MAX);

        assert!(publisher.place().await.is_none(), "nothing is answered");
        assert!(publisher.place().now_or_never().expect("it was waited for already").is_none());
        places.pop();
        places.extend(publisher.place().now_or_never().flatten());
        let again = (&mut Box::pin(publisher.place())).now_or_never();
        assert!(again.is_none(), "a queue that has answered is waited for again");
    }

    proptest! {
        #[test]
        fn every_target_is_packed_once_and_no_message_is_too_large(
            events in prop::collection::vec(([0_usize..300, 0_usize..40], 0_usize..600_000), 0..12)
        ) {
            let events: Vec<NewEvent> = events
                .into_iter()
                .enumerate()
                .map(|(number, (fanout, bytes))| new_event(number as u64, fanout, bytes))
                .collect();
            let mut expected: Vec<_> = events
                .iter()
                .flat_map(|new| new.parts.iter().map(|part| (part.pool.clone(), new.event.id, part.number)))
                .collect();
            let mut packed = Vec::new();
            for (pool, messages) in pack(events, 7) {
                for message in messages {
                    prop_assert!(message.deliveries() <= MESSAGE_DELIVERIES_MAX);
                    let bytes: usize = message.items.iter().map(|item| item.event.body.len()).sum();
                    prop_assert!(bytes <= MESSAGE_BODY_BYTES_MAX || message.items.len() == 1);
                    for item in &message.items {
                        let Work::Part { part, r#gen: 1, .. } = item.work else { panic!("not a fresh part") };
                        packed.push((pool.clone(), item.event.id, part));
                    }
                }
            }
            expected.sort();
            packed.sort();
            prop_assert_eq!(packed, expected);
        }
    }
}
