//! Where routing runs: on the thread of the request while it costs next to nothing, else on one of a few threads that
//! may work for a while, so that one tenant's filters do not hold up the requests of all others.

use std::sync::Arc;

use dispatcher_core::expression::EvaluationBudget;
use dispatcher_core::limits::ROUTING_THREADS_MAX;
use tokio::sync::Semaphore;

use crate::problem::{Problem, ProblemKind};

/// Runs routing; cheap to clone.
#[derive(Clone, Debug)]
pub struct Routing {
    threads: Arc<Semaphore>,
}

impl Default for Routing {
    fn default() -> Self {
        Self { threads: Arc::new(Semaphore::new(ROUTING_THREADS_MAX)) }
    }
}

impl Routing {
    /// Does `work` with the steps that a request may have inline. If those do not suffice, does it once more, on a
    /// thread for blocking work and with the steps that a request may have at all.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl Fn(&mut EvaluationBudget) -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let mut budget = EvaluationBudget::inline();
        let answer = work(&mut budget);
        if !budget.is_exceeded() {
            return Ok(answer);
        }
        drop(answer);
        let failed =
            || Problem::new(ProblemKind::Internal, "The event could not be routed. This is a defect: report it.");
        let permit = Arc::clone(&self.threads).acquire_owned().await.map_err(|_| failed())?;
        let working = tokio::task::spawn_blocking(move || {
            // Held by the thread itself: a client that hangs up does not make room before the work is done.
            let _permit = permit;
            work(&mut EvaluationBudget::of_request())
        });
        working.await.map_err(|_| failed())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use dispatcher_core::event::{Attributes, Event};
    use dispatcher_core::expression::{EventInput, ExpressionError};
    use dispatcher_core::filter::Filter;
    use dispatcher_core::id::{EventId, TenantId};

    use super::*;

    /// A list of so many numbers.
    fn event(numbers: usize) -> Event {
        Event {
            id: EventId::from_parts(1, [0; 10]),
            tenant: TenantId::of_namespace_name("shop"),
            event_type: "a".into(),
            recipient: None,
            content_type: "application/json".into(),
            body: format!("[{}]", vec!["7"; numbers].join(",")).into(),
            attributes: Attributes::default(),
        }
    }

    #[tokio::test]
    async fn only_costly_routing_leaves_the_thread_of_the_request() {
        let here = std::thread::current().id();
        for (numbers, leaves) in [(10, false), (20_000, true)] {
            let (event, seen) = (event(numbers), Arc::new(Mutex::new(Vec::new())));
            let threads = Arc::clone(&seen);
            let routing = Routing::default();
            let answer = routing.run(move |budget| -> Result<bool, ExpressionError> {
                threads.lock().unwrap().push(std::thread::current().id());
                let filter = Filter::compile("event.data.exists(x, x == 8)").unwrap();
                let input = EventInput::read(&event, budget)?;
                filter.matches(&input, budget)
            });
            assert_eq!(answer.await.unwrap(), Ok(false), "{numbers} numbers");
            let seen = seen.lock().unwrap();
            assert_eq!((seen[0], seen.len() > 1), (here, leaves), "{numbers} numbers");
            assert!(seen[1..].iter().all(|thread| *thread != here));
        }
    }
}
