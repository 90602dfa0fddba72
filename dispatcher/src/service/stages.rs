//! The parts of a service, and the order in which they stop.

use std::collections::HashMap;

use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;

use super::ServiceError;

/// The order in which a service stops: nothing stops before what feeds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Stage {
    /// Receives requests.
    Serve,
    /// Commits and answers them.
    Accept,
    /// Feeds the queue with what is due.
    Claim,
    /// Delivers what the queue holds.
    Deliver,
    /// What the others look at.
    Support,
}

impl Stage {
    const IN_ORDER: [Self; 5] = [Self::Serve, Self::Accept, Self::Claim, Self::Deliver, Self::Support];
}

/// The tasks of a service.
#[derive(Default)]
pub(super) struct Parts {
    tasks: JoinSet<()>,
    stages: HashMap<Id, (Stage, &'static str)>,
    tokens: HashMap<Stage, CancellationToken>,
}

impl Parts {
    /// Starts a part, which ends when the token that it is given is cancelled.
    pub(super) fn spawn<F>(&mut self, stage: Stage, name: &'static str, task: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let token = self.tokens.entry(stage).or_default().clone();
        let handle = self.tasks.spawn(task(token));
        self.stages.insert(handle.id(), (stage, name));
    }

    /// Starts a part that can be dropped at any time.
    pub(super) fn spawn_endless<F>(&mut self, stage: Stage, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.spawn(stage, name, |stop| async move {
            stop.run_until_cancelled(task).await;
        });
    }

    /// Waits until `stopping` is cancelled, or for a part that ends by itself, and then cancels it; then stops all
    /// stages in order.
    pub(super) async fn run(mut self, stopping: CancellationToken) -> Result<(), ServiceError> {
        let mut result = tokio::select! {
            () = stopping.cancelled() => Ok(()),
            ended = self.join_next() => ended.1,
        };
        stopping.cancel();
        for stage in Stage::IN_ORDER {
            if let Some(token) = self.tokens.get(&stage) {
                token.cancel();
            }
            while self.stages.values().any(|(running, _)| *running == stage) {
                let (ended, was_asked) = self.join_next().await;
                result = result.and(was_asked);
                tracing::debug!(stage = ?ended, "a part of the service has stopped");
            }
        }
        result
    }

    /// The next part that ends; an error if it ended by a panic, or before its stage was told to stop.
    async fn join_next(&mut self) -> (Option<Stage>, Result<(), ServiceError>) {
        let (id, panicked) = match self.tasks.join_next_with_id().await {
            None => return (None, Ok(())),
            Some(Ok((id, ()))) => (id, false),
            Some(Err(error)) => (error.id(), true),
        };
        let Some((stage, name)) = self.stages.remove(&id) else { return (None, Ok(())) };
        let asked = self.tokens.get(&stage).is_some_and(CancellationToken::is_cancelled);
        (Some(stage), if asked && !panicked { Ok(()) } else { Err(ServiceError::Ended(name)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_part_that_ends_by_itself_is_an_error_and_makes_the_service_stop_and_say_so() {
        let stopping = CancellationToken::new();
        let (told, seen) = (stopping.clone(), tokio::sync::oneshot::channel());
        let mut parts = Parts::default();
        parts.spawn(Stage::Serve, "ended", |_| async {});
        parts.spawn(Stage::Support, "support", |stop| async move {
            stop.cancelled().await;
            seen.0.send(told.is_cancelled()).unwrap();
        });
        assert!(matches!(parts.run(stopping).await, Err(ServiceError::Ended("ended"))));
        assert!(seen.1.await.unwrap(), "it drained without a word");
    }
}
