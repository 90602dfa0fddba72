//! What is sent for a delivery: the payload, or what its subscription's transform makes of the event.
//!
//! A transform runs where it is while it costs next to nothing, else on one of a few threads that may work for a while.
//! It runs after the delivery has entered its endpoint's window and before it takes a track: so one endpoint's costly
//! transforms are bounded by its window, and hold no track that others need.

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
use super::part::Job;

/// Threads for transforms, and memory for their results.
pub(super) struct Transforms {
    threads: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
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
    /// There was no thread or memory for it while its lease lasted, or the process stops.
    Late,
}

impl Default for Transforms {
    fn default() -> Self {
        Self {
            threads: Arc::new(Semaphore::new(TRANSFORM_THREADS_MAX)),
            bytes: Arc::new(Semaphore::new(TRANSFORM_RESULTS_BYTES_MAX)),
        }
    }
}

/// Makes what is sent.
pub(super) async fn shape(worker: &Worker, job: &Job, content: &Content) -> Result<Shaped, NotShaped> {
    match content {
        Content::Payload => Ok(Shaped { event: Arc::clone(&job.event), memory: None }),
        Content::Invalid(error) => {
            Err(NotShaped::Failed(format!("the transform of the subscription does not compile: {error}")))
        }
        Content::Transformed(transform) => {
            let made = worker.transforms.apply(transform, &job.event);
            let in_time = tokio::time::timeout(worker.time_left(job.lease_until_unix_ms), made);
            tokio::select! {
                () = worker.stopping.cancelled() => Err(NotShaped::Late),
                made = in_time => made.unwrap_or(Err(NotShaped::Late)),
            }
        }
    }
}

impl Transforms {
    async fn apply(&self, transform: &Arc<Transform>, event: &Arc<Event>) -> Result<Shaped, NotShaped> {
        // Until its size is known, a result counts as the largest.
        let largest = u32::try_from(TRANSFORM_RESULT_BYTES_MAX).unwrap_or(u32::MAX);
        let mut memory = Arc::clone(&self.bytes).acquire_many_owned(largest).await.map_err(|_| NotShaped::Late)?;
        let mut budget = EvaluationBudget::inline();
        let mut made = guarded(transform, event, &mut budget);
        if budget.is_exceeded() {
            made = self.apply_elsewhere(Arc::clone(transform), Arc::clone(event)).await?;
        }
        let result = made.map_err(NotShaped::Failed)?;
        let memory = memory.split(result.len());
        Ok(Shaped { event: Arc::new(substitute(event, result)), memory })
    }

    async fn apply_elsewhere(
        &self,
        transform: Arc<Transform>,
        event: Arc<Event>,
    ) -> Result<Result<Bytes, String>, NotShaped> {
        let permit = Arc::clone(&self.threads).acquire_owned().await.map_err(|_| NotShaped::Late)?;
        let working = tokio::task::spawn_blocking(move || {
            // Held by the thread itself: who gives up waiting does not make room before the work is done.
            let _permit = permit;
            guarded(&transform, &event, &mut EvaluationBudget::of_transform())
        });
        working.await.map_err(|_| NotShaped::Late)
    }
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
