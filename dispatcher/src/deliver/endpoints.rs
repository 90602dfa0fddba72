//! The endpoints that this process delivers to, each with its state.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dispatcher_core::id::EndpointId;
use dispatcher_core::route::RoutingIndex;
use dispatcher_core::table::EndpointRow;
use tokio::sync::{Notify, Semaphore};

use super::recorder::Effect;
use super::state::{Enter, Pass, State};
use crate::clock::steady_ms;
use crate::http::Exchange;
use crate::ledger::GateChange;

/// States by endpoint. Bounded by the routing table: only its endpoints enter, and those that leave it are evicted.
#[derive(Default)]
pub(super) struct Endpoints(Mutex<HashMap<EndpointId, Arc<Endpoint>>>);

impl Endpoints {
    /// The state of an endpoint of the present table.
    pub(super) fn of(&self, row: &EndpointRow, soft_budget: Duration) -> Arc<Endpoint> {
        let mut endpoints = lock(&self.0);
        let endpoint = endpoints.entry(row.id).or_insert_with(|| {
            let state = Mutex::new(State::new(row, soft_budget));
            Arc::new(Endpoint { state, left: Notify::new(), transform_turn: Arc::new(Semaphore::new(1)) })
        });
        Arc::clone(endpoint)
    }

    /// Forgets endpoints that are no longer in the table.
    pub(super) fn evict(&self, index: &RoutingIndex) {
        lock(&self.0).retain(|endpoint, _| index.endpoint(*endpoint).is_some());
    }
}

/// One endpoint.
pub(super) struct Endpoint {
    state: Mutex<State>,
    /// An exchange has left the window.
    left: Notify,
    /// Held while a costly transform uses or queues for a thread.
    transform_turn: Arc<Semaphore>,
}

/// The answer to a delivery that wants to go.
pub(super) enum Admitted {
    Go(Entered),
    WaitForRoom,
    WaitForPace(Duration),
    Park(GateChange),
    Disabled,
}

impl Endpoint {
    /// Asks for an exchange; see [`State::enter`].
    pub(super) fn enter(self: &Arc<Self>, row: &EndpointRow, patience: Duration) -> Admitted {
        match lock(&self.state).enter(row, steady_ms(), patience) {
            Enter::Go(pass) => Admitted::Go(Entered { endpoint: Arc::clone(self), pass: Some(pass) }),
            Enter::WaitForRoom => Admitted::WaitForRoom,
            Enter::WaitForPace(wait) => Admitted::WaitForPace(wait),
            Enter::Park(gate) => Admitted::Park(gate),
            Enter::Disabled => Admitted::Disabled,
        }
    }

    /// Waits until an exchange leaves the window, at most this long.
    pub(super) async fn wait_for_room(&self, at_most: Duration) {
        tokio::time::timeout(at_most, self.left.notified()).await.ok();
    }

    /// Wakes the next one who waits for room if there is more of it.
    pub(super) fn pass_on(&self) {
        if lock(&self.state).has_room() {
            self.left.notify_one();
        }
    }

    /// The turn of its costly transforms: they are made one after the other.
    pub(super) fn transform_turn(&self) -> Arc<Semaphore> {
        Arc::clone(&self.transform_turn)
    }

    /// Whether exchanges with it are known to be slow.
    pub(super) fn is_slow(&self) -> bool {
        lock(&self.state).is_slow()
    }

    /// Notes that an exchange has outlived the soft budget.
    pub(super) fn mark_slow(&self) {
        lock(&self.state).mark_slow();
    }

    /// Lets one exchange at a time through from here on.
    pub(super) fn collapse(&self) {
        lock(&self.state).collapse();
    }

    /// The gate to park behind for at least this long.
    pub(super) fn gate(&self, closed_for: Duration) -> GateChange {
        lock(&self.state).gate(steady_ms(), closed_for)
    }
}

/// A place in the window. Dropped without a result it is given back as if nothing had been sent.
pub(super) struct Entered {
    endpoint: Arc<Endpoint>,
    pass: Option<Pass>,
}

impl Entered {
    pub(super) fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// There was nothing to send; see [`State::give_back`].
    pub(super) fn give_back(mut self) -> Option<Effect> {
        let pass = self.pass.take()?;
        let effect = lock(&self.endpoint.state).give_back(&pass, steady_ms());
        self.endpoint.left.notify_one();
        effect
    }

    /// It may not be made for a while; see [`State::put_off`].
    pub(super) fn put_off(mut self, pause: Duration) -> Option<Effect> {
        let pass = self.pass.take()?;
        let effect = lock(&self.endpoint.state).put_off(&pass, steady_ms(), pause);
        self.endpoint.left.notify_one();
        effect
    }

    /// The exchange ended; see [`State::leave`].
    pub(super) fn leave(mut self, exchange: &Exchange, row: &EndpointRow) -> Vec<Effect> {
        let pass = self.pass.take();
        let effects = pass.map(|pass| lock(&self.endpoint.state).leave(&pass, exchange, row, steady_ms()));
        self.endpoint.left.notify_one();
        effects.unwrap_or_default()
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        if let Some(pass) = self.pass.take() {
            lock(&self.endpoint.state).abandon(&pass);
            self.endpoint.left.notify_one();
        }
    }
}

/// Nothing panics while it holds one of these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
