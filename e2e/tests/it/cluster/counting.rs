//! A receiver that takes its time, verifies every signature, and counts what it has answered.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use e2e::http::{Received, serve_in_time};
use hyper::StatusCode;
use serde_json::Value;
use standardwebhooks::Webhook;
use tokio::sync::Notify;

use super::support::{DEADLINE, Setting};

/// The key that all endpoints of a counting receiver are signed with.
pub(super) const KEY: &str = "whsec_Y291bnRpbmcgY291bnRpbmcgY291bnRpbmchISE=";

/// A running receiver. It ends with the runtime.
pub(super) struct CountingReceiver {
    /// For Endpoints, without a path: each has a path of its own.
    pub(super) url: String,
    state: Arc<State>,
}

struct State {
    key: Webhook,
    /// From the whole request to its answer.
    takes: Duration,
    seen: Mutex<Seen>,
    changed: Notify,
}

/// What has arrived so far.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// What was answered, by path and number of the event.
    answered: HashMap<(String, u64), Answered>,
    /// Requests that have arrived and are not answered.
    pub(super) in_flight: usize,
    /// Requests with a signature that is not the key's, or a body without a number.
    wrong: usize,
    /// Deliveries that came under another identity than before.
    renamed: usize,
}

/// One delivery.
#[derive(Debug)]
struct Answered {
    webhook_id: String,
    times: usize,
}

impl Seen {
    /// How many events of these were answered on a path at least so often.
    pub(super) fn answered(&self, path: &str, numbers: &Range<u64>, times: usize) -> usize {
        let of = |number| self.answered.get(&(path.to_owned(), number));
        numbers.clone().filter(|number| of(*number).is_some_and(|answered| answered.times >= times)).count()
    }

    /// Answers beyond the first for each delivery.
    pub(super) fn copies(&self) -> usize {
        self.answered.values().map(|answered| answered.times - 1).sum()
    }
}

impl CountingReceiver {
    /// Starts one that pods reach, and that takes this long for each request.
    pub(super) async fn start(setting: &Setting, takes: Duration) -> Self {
        let key = Webhook::new(KEY).unwrap();
        let state = Arc::new(State { key, takes, seen: Mutex::default(), changed: Notify::new() });
        let shared = Arc::clone(&state);
        let local = serve_in_time(move |received| answer(Arc::clone(&shared), received)).await.unwrap();
        let exposed = setting.cluster.expose(local.port()).await.unwrap();
        Self { url: format!("http://{exposed}"), state }
    }

    /// Looks at what has arrived so far.
    pub(super) fn look<T>(&self, look: impl FnOnce(&Seen) -> T) -> T {
        look(&lock(&self.state.seen))
    }

    /// Waits until what has arrived is as wanted.
    pub(super) async fn until(&self, what: &str, wanted: impl Fn(&Seen) -> bool) {
        let wait = async {
            loop {
                let mut changed = std::pin::pin!(self.state.changed.notified());
                changed.as_mut().enable();
                if self.look(&wanted) {
                    return;
                }
                changed.await;
            }
        };
        if tokio::time::timeout(DEADLINE, wait).await.is_err() {
            self.look(|seen| {
                let Seen { answered, in_flight, wrong, .. } = seen;
                panic!("in vain: {what}; {} answered, {in_flight} in flight, {wrong} wrong", answered.len())
            });
        }
    }

    /// Waits until all of these have been answered on every path.
    pub(super) async fn all_answered(&self, paths: &[String], numbers: &Range<u64>) {
        let wanted = usize::try_from(numbers.end - numbers.start).unwrap();
        for path in paths {
            let what = format!("{wanted} events arrive at {path}");
            self.until(&what, |seen| seen.answered(path, numbers, 1) == wanted).await;
        }
    }

    /// That nothing was wrong with any request, and that there were so many copies at most. Answers how many there were.
    pub(super) fn assert_nothing_wrong(&self, copies_max: usize) -> usize {
        self.look(|seen| {
            assert_eq!((seen.wrong, seen.renamed), (0, 0), "not verified, and under another identity");
            assert!(seen.copies() <= copies_max, "{} copies of {copies_max}", seen.copies());
            seen.copies()
        })
    }
}

async fn answer(state: Arc<State>, received: Received) -> StatusCode {
    let _flight = Flight::begin(&state);
    tokio::time::sleep(state.takes).await;
    // Counted when it is answered: a sender that is gone by then has not been told anything.
    let number = serde_json::from_slice(&received.body).ok().and_then(|body: Value| body["number"].as_u64());
    let webhook_id = received.headers.get("webhook-id").and_then(|id| id.to_str().ok()).map(ToOwned::to_owned);
    let is_verified = state.key.verify(&received.body, &received.headers).is_ok();
    let mut seen = lock(&state.seen);
    match (number, webhook_id) {
        (Some(number), Some(webhook_id)) if is_verified => {
            let first = Answered { webhook_id: webhook_id.clone(), times: 0 };
            let answered = seen.answered.entry((received.path, number)).or_insert(first);
            answered.times += 1;
            let is_renamed = answered.webhook_id != webhook_id;
            seen.renamed += usize::from(is_renamed);
        }
        _ => seen.wrong += 1,
    }
    StatusCode::OK
}

/// Counts a request as in flight until it is answered, or given up.
struct Flight<'a>(&'a State);

impl<'a> Flight<'a> {
    fn begin(state: &'a State) -> Self {
        lock(&state.seen).in_flight += 1;
        state.changed.notify_waiters();
        Self(state)
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        lock(&self.0.seen).in_flight -= 1;
        self.0.changed.notify_waiters();
    }
}

/// Nothing panics while it holds this lock but an assertion that ends the test.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
