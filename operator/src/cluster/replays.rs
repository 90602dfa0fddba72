//! Replays on a cluster: whoever leads orders them in the name of its epoch, and nobody else does.

use std::sync::Arc;

use crds::{Kind, Replay};
use dispatcher::ledger::Ledger;
use serde_json::{Value, json};

use super::lease::Leadership;
use super::watch::WatchedResource;
use crate::plan::replay::ReplayJob;
use crate::replays::{ReplayDesk, ReplayWorker, worker};
use crate::world::World;

/// The main loop's side of the worker.
pub struct Replays(ReplayDesk);

impl Replays {
    /// A worker without orders, which is to be run, and the loop's side of it.
    pub fn new(ledger: Arc<dyn Ledger>) -> (Self, ReplayWorker) {
        let (worker, desk) = worker(ledger);
        (Self(desk), worker)
    }

    /// Orders what a plan asks for. One who does not lead orders nothing: the worker ends with the step that it is at.
    pub fn order(&self, leadership: Leadership, jobs: Vec<ReplayJob>) {
        match leadership {
            Leadership::Leader { epoch } => self.0.order(jobs, Some(epoch)),
            Leadership::Follower => self.0.order(Vec::new(), None),
        }
    }

    /// Puts how far replays have come into a world.
    pub fn fill(&self, world: &mut World) {
        world.replay_progress.clone_from(&*self.0.progress());
    }

    /// Waits for a report that is worth planning again.
    pub async fn reported(&mut self) {
        self.0.reported().await;
    }
}

impl WatchedResource for Replay {
    const KIND: Kind = Kind::Replay;

    fn least_spec() -> Value {
        json!({"sinceTime": "1970-01-01T00:00:00Z", "untilTime": "1970-01-01T00:00:00Z"})
    }
}

#[cfg(test)]
mod tests {
    use crds::admission::{Admitted, admit};

    use super::*;

    #[test]
    fn the_least_spec_is_understood_and_asks_for_nothing() {
        let object = json!({
            "apiVersion": crds::API_VERSION, "kind": "Replay", "metadata": {"name": "r"}, "spec": Replay::least_spec(),
        });
        assert!(serde_json::from_value::<Replay>(object.clone()).is_ok());
        assert!(!matches!(admit(&object), Ok(Admitted::Replay(_))), "it is for what is not understood");
    }
}
