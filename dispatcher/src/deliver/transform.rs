//! What is sent for a delivery: the payload, or what its subscription's transform makes of the event.
//!
//! A transform runs where it is while it costs next to nothing, else on one of a few threads that may work for a while.
//! Cheap ones never wait for costly ones: they have memory of their own. Costly ones wait for the turn of their endpoint
//! first, then for a thread, then for memory: an endpoint has at most one of them that uses or queues for a thread,
//! however many are in its window, so all endpoints get threads in turn.
//!
//! It runs after the delivery has entered its endpoint's window and before it takes a track: what waits here holds no
//! track that others need.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use dispatcher_core::event::Event;
use dispatcher_core::expression::EvaluationBudget;
use dispatcher_core::limits::{TRANSFORM_RESULT_BYTES_MAX, TRANSFORM_RESULTS_BYTES_MAX, TRANSFORM_THREADS_MAX};
use dispatcher_core::route::Content;
use dispatcher_core::transform::{Transform, substitute};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Worker;
use super::endpoints::Endpoint;
use super::part::Job;

/// Threads for costly transforms, and memory for the results of both kinds.
pub(super) struct Transforms {
    threads: Arc<Semaphore>,
    cheap_bytes: Arc<Semaphore>,
    costly_bytes: Arc<Semaphore>,
}

/// What there is to send.
pub(super) struct Shaped {
    /// The event as it is rendered.
    pub(super) event: Arc<Event>,
    /// The memory of a transform's result; given back when the exchange begins, whose memory the tracks bound.
    pub(super) memory: Option<OwnedSemaphorePermit>,
}

/// Why there is nothing to send.
pub(super) enum NotShaped {
    /// The transform yields nothing; for people, without values of the event.
    Failed(String),
    /// There was no turn, thread or memory for it while its lease lasted, or the process stops.
    Late,
}

impl Default for Transforms {
    fn default() -> Self {
        Self {
            threads: Arc::new(Semaphore::new(TRANSFORM_THREADS_MAX)),
            cheap_bytes: Arc::new(Semaphore::new(TRANSFORM_RESULTS_BYTES_MAX)),
            costly_bytes: Arc::new(Semaphore::new(TRANSFORM_RESULTS_BYTES_MAX)),
        }
    }
}

/// Makes what is sent.
pub(super) async fn shape(
    worker: &Worker,
    job: &Job,
    content: &Content,
    endpoint: &Endpoint,
) -> Result<Shaped, NotShaped> {
    match content {
        Content::Payload => Ok(Shaped { event: Arc::clone(&job.event), memory: None }),
        Content::Invalid(error) => {
            Err(NotShaped::Failed(format!("the transform of the subscription does not compile: {error}")))
        }
        Content::Transformed(transform) => {
            let made = worker.transforms.apply(transform, &job.event, endpoint.transform_turn());
            let in_time = tokio::time::timeout(worker.time_left(job.lease_until_unix_ms), made);
            tokio::select! {
                () = worker.stopping.cancelled() => Err(NotShaped::Late),
                made = in_time => made.unwrap_or(Err(NotShaped::Late)),
            }
        }
    }
}

impl Transforms {
    /// Leaves no thread for anything, until the answer is dropped.
    #[cfg(test)]
    pub(super) async fn all_threads(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.threads).acquire_many_owned(u32::try_from(TRANSFORM_THREADS_MAX).unwrap()).await.unwrap()
    }

    /// `turn` is the endpoint's: whoever holds it may have a costly transform made.
    async fn apply(
        &self,
        transform: &Arc<Transform>,
        event: &Arc<Event>,
        turn: Arc<Semaphore>,
    ) -> Result<Shaped, NotShaped> {
        let Some(made) = made_inline(transform, event) else {
            return self.apply_elsewhere(Arc::clone(transform), Arc::clone(event), turn).await;
        };
        let result = made.map_err(NotShaped::Failed)?;
        let bytes = u32::try_from(result.len()).unwrap_or(u32::MAX);
        if let Ok(memory) = Arc::clone(&self.cheap_bytes).try_acquire_many_owned(bytes) {
            return Ok(shaped(event, result, memory));
        }
        // Nothing is kept while it waits for memory: the same bytes are made again.
        drop(result);
        let memory = acquire(&self.cheap_bytes, bytes).await?;
        let result = made_inline(transform, event).ok_or(NotShaped::Late)?.map_err(NotShaped::Failed)?;
        Ok(shaped(event, result, memory))
    }

    async fn apply_elsewhere(
        &self,
        transform: Arc<Transform>,
        event: Arc<Event>,
        turn: Arc<Semaphore>,
    ) -> Result<Shaped, NotShaped> {
        let turn = acquire(&turn, 1).await?;
        let thread = acquire(&self.threads, 1).await?;
        // Until its size is known, a result counts as the largest.
        let largest = u32::try_from(TRANSFORM_RESULT_BYTES_MAX).unwrap_or(u32::MAX);
        let memory = acquire(&self.costly_bytes, largest).await?;
        let working = tokio::task::spawn_blocking(move || {
            // Held by the thread itself: who gives up waiting does not make room before the work is done.
            let (_turn, _thread, mut memory) = (turn, thread, memory);
            let result = guarded(&transform, &event, &mut EvaluationBudget::of_transform())?;
            let memory = memory.split(result.len());
            Ok::<_, String>((event, result, memory))
        });
        let (event, result, memory) = working.await.map_err(|_| NotShaped::Late)?.map_err(NotShaped::Failed)?;
        Ok(Shaped { event: Arc::new(substitute(&event, result)), memory })
    }
}

async fn acquire(semaphore: &Arc<Semaphore>, permits: u32) -> Result<OwnedSemaphorePermit, NotShaped> {
    Arc::clone(semaphore).acquire_many_owned(permits).await.map_err(|_| NotShaped::Late)
}

fn shaped(event: &Event, result: Bytes, memory: OwnedSemaphorePermit) -> Shaped {
    Shaped { event: Arc::new(substitute(event, result)), memory: Some(memory) }
}

/// The transform's result, unless it costs more than a thread with others to serve may spend.
fn made_inline(transform: &Transform, event: &Event) -> Option<Result<Bytes, String>> {
    let mut budget = EvaluationBudget::inline();
    let made = guarded(transform, event, &mut budget);
    (!budget.is_exceeded()).then_some(made)
}

/// The transform's result. A panic of the interpreter is a failure of this transform, and of nothing else.
fn guarded(transform: &Transform, event: &Event, budget: &mut EvaluationBudget) -> Result<Bytes, String> {
    match catch_unwind(AssertUnwindSafe(|| transform.apply(event, budget))) {
        Ok(Ok(result)) => Ok(result),
        Ok(Err(error)) => Err(format!("the transform of the subscription yields nothing for this event: {error}")),
        Err(_) => {
            tracing::error!(event = %event.id, "a transform panicked: this is a defect, report it");
            Err("the transform of the subscription cannot be evaluated: this is a defect, report it".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use dispatcher_core::event::Attributes;
    use dispatcher_core::id::{EventId, TenantId};
    use futures::FutureExt;

    use super::*;

    /// A list of so many numbers.
    fn event(numbers: usize) -> Arc<Event> {
        Arc::new(Event {
            id: EventId::from_parts(1, [0; 10]),
            tenant: TenantId::of_namespace_name("shop"),
            event_type: "a".into(),
            recipient: None,
            content_type: "application/json".into(),
            body: format!("[{}]", vec!["7"; numbers].join(",")).into(),
            attributes: Attributes::default(),
        })
    }

    fn everything() -> Arc<Transform> {
        Arc::new(Transform::compile("{'all': event.data}").unwrap())
    }

    fn turn() -> Arc<Semaphore> {
        Arc::new(Semaphore::new(1))
    }

    fn body(made: Result<Shaped, NotShaped>) -> Bytes {
        match made {
            Ok(shaped) => shaped.event.body.clone(),
            Err(NotShaped::Failed(message)) => panic!("{message}"),
            Err(NotShaped::Late) => panic!("late"),
        }
    }

    #[tokio::test]
    async fn costly_transforms_of_one_endpoint_hold_up_neither_cheap_nor_costly_ones_of_others() {
        let transforms = Transforms::default();
        let threads = transforms.all_threads().await;
        let (transform, cheap, costly) = (everything(), event(2), event(100_000));
        let (busy, other) = (turn(), turn());
        // As many as a window may hold: more than there is memory or threads for.
        let mut waiting: Vec<_> =
            (0..256).map(|_| transforms.apply(&transform, &costly, Arc::clone(&busy)).boxed()).collect();
        for one in &mut waiting {
            assert!(one.now_or_never().is_none());
        }
        let made = transforms.apply(&transform, &cheap, Arc::clone(&other)).now_or_never();
        assert_eq!(body(made.expect("a cheap one waits for nothing")), "{\"all\":[7,7]}");

        // It came last, and gets the second thread although those before it are not looked after any further.
        let mut last = transforms.apply(&transform, &costly, other).boxed();
        assert!((&mut last).now_or_never().is_none());
        drop(threads);
        let made = tokio::time::timeout(Duration::from_mins(1), last).await.expect("a thread in turn");
        assert_eq!(body(made).len(), "{\"all\":}".len() + costly.body.len());
    }

    #[tokio::test]
    async fn results_count_by_their_size_until_they_are_sent() {
        let transforms = Transforms::default();
        let (transform, cheap, costly) = (everything(), event(2), event(100_000));
        let whole = transforms.apply(&transform, &costly, turn()).await.ok().unwrap();
        let left = TRANSFORM_RESULTS_BYTES_MAX - transforms.costly_bytes.available_permits();
        assert_eq!(left, whole.event.body.len());
        drop(whole);

        let all = u32::try_from(TRANSFORM_RESULTS_BYTES_MAX).unwrap();
        let memory = Arc::clone(&transforms.cheap_bytes).acquire_many_owned(all).await.unwrap();
        let mut waiting = transforms.apply(&transform, &cheap, turn()).boxed();
        assert!((&mut waiting).now_or_never().is_none(), "there is no memory");
        drop(memory);
        let made = waiting.await;
        assert_eq!(TRANSFORM_RESULTS_BYTES_MAX - transforms.cheap_bytes.available_permits(), "{\"all\":[7,7]}".len());
        assert_eq!(body(made), "{\"all\":[7,7]}");
    }
}
