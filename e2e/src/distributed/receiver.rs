//! A receiver that counts what arrives, and answers as it is told.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use dispatcher::clock::now_unix_ms;
use dispatcher_core::id::DeliveryId;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{HeaderValue, RETRY_AFTER};
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::Notify;

use super::DEADLINE;

/// How far a request's time may lie from ours: what receivers allow (Standard Webhooks).
const TIMESTAMP_SECONDS_MAX: u64 = 300;

/// How a request is answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Time before the answer, from the whole request on.
    pub delay: Duration,
    /// Status.
    pub status: StatusCode,
    /// Body.
    pub body: Bytes,
    /// Whether it asks to be left alone for a second.
    pub asks_for_pause: bool,
}

impl Answer {
    /// 200 at once.
    pub fn ok() -> Self {
        Self { delay: Duration::ZERO, status: StatusCode::OK, body: Bytes::new(), asks_for_pause: false }
    }

    /// 503, and not again for a second.
    pub fn busy() -> Self {
        Self { asks_for_pause: true, ..Self::status(StatusCode::SERVICE_UNAVAILABLE) }
    }

    /// 200 after a while.
    pub fn late(delay: Duration) -> Self {
        Self { delay, ..Self::ok() }
    }

    /// Another status, at once.
    pub fn status(status: StatusCode) -> Self {
        Self { status, ..Self::ok() }
    }
}

/// What has arrived so far.
#[derive(Clone, Debug, Default)]
pub struct Arrivals {
    /// How often each delivery was answered with 2xx.
    pub taken: HashMap<DeliveryId, usize>,
    /// Requests that arrived whole, answered or not.
    pub begun: usize,
    /// Answers other than 2xx.
    pub refused: usize,
    /// Requests that receivers refuse to look at: without a `webhook-id` that is one, or by whose `webhook-timestamp`
    /// they are of another time.
    pub strange: usize,
}

impl Arrivals {
    /// Answers 2xx beyond the first for each delivery.
    pub fn copies(&self) -> usize {
        self.taken.values().map(|times| times - 1).sum()
    }

    /// Requests whose sender went before it was answered, or waits yet.
    pub fn unanswered(&self) -> usize {
        self.begun - self.taken.values().sum::<usize>() - self.refused - self.strange
    }
}

/// A running receiver. It ends with the runtime.
pub struct Receiver {
    address: SocketAddr,
    state: Arc<State>,
}

struct State {
    answer: Mutex<Answer>,
    arrivals: Mutex<Arrivals>,
    changed: Notify,
}

impl Receiver {
    /// Starts one on a free loopback port that answers 200 at once.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("no loopback port is free")?;
        let address = listener.local_addr()?;
        let state =
            Arc::new(State { answer: Mutex::new(Answer::ok()), arrivals: Mutex::default(), changed: Notify::new() });
        tokio::spawn(serve(listener, Arc::clone(&state)));
        Ok(Self { address, state })
    }

    /// Its URL, without a path.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From the next request on, answers so.
    pub fn answers(&self, answer: Answer) {
        *lock(&self.state.answer) = answer;
    }

    /// What has arrived so far.
    pub fn arrivals(&self) -> Arrivals {
        lock(&self.state.arrivals).clone()
    }

    /// Looks at what has arrived, without a copy of it.
    pub fn look<T>(&self, look: impl FnOnce(&Arrivals) -> T) -> T {
        look(&lock(&self.state.arrivals))
    }

    /// Deliveries that were answered with 2xx.
    pub fn taken(&self) -> usize {
        self.look(|arrivals| arrivals.taken.len())
    }

    /// Waits until each of these has been taken at least once. An error says how many have not.
    pub async fn take_all(&self, mut missing: Vec<DeliveryId>) -> Result<()> {
        let wait = async {
            loop {
                let changed = self.state.changed.notified();
                self.look(
                    |arrivals| {
                        while missing.pop_if(|delivery| arrivals.taken.contains_key(delivery)).is_some() {}
                    },
                );
                if missing.is_empty() {
                    return;
                }
                changed.await;
            }
        };
        if tokio::time::timeout(DEADLINE, wait).await.is_err() {
            let lost = self.look(|arrivals| missing.iter().filter(|id| !arrivals.taken.contains_key(id)).count());
            bail!("{lost} deliveries of acknowledged events never arrived");
        }
        Ok(())
    }

    /// Waits until what has arrived is as wanted.
    pub async fn until(&self, what: &str, mut wanted: impl FnMut(&Arrivals) -> bool) -> Result<()> {
        let wait = async {
            loop {
                let changed = self.state.changed.notified();
                if self.look(&mut wanted) {
                    return;
                }
                changed.await;
            }
        };
        if tokio::time::timeout(DEADLINE, wait).await.is_err() {
            bail!("in vain: {what} ({} deliveries taken)", self.taken());
        }
        Ok(())
    }
}

async fn serve(listener: TcpListener, state: Arc<State>) {
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(Arc::clone(&state), request));
            // A sender that is killed ends its connection and nothing else.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(state: Arc<State>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let id = delivery_of(request.headers());
    if request.into_body().collect().await.is_err() {
        // Nobody is there to be answered.
        return Ok(Response::new(Full::default()));
    }
    lock(&state.arrivals).begun += 1;
    state.changed.notify_waiters();
    let Answer { delay, status, body, asks_for_pause } = lock(&state.answer).clone();
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    // Counted when it is answered: a sender that gave up before has not been told anything.
    let mut arrivals = lock(&state.arrivals);
    match id {
        Some(id) if status.is_success() => *arrivals.taken.entry(id).or_default() += 1,
        Some(_) => arrivals.refused += 1,
        None => arrivals.strange += 1,
    }
    drop(arrivals);
    state.changed.notify_waiters();
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    if asks_for_pause {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    Ok(response)
}

/// The delivery that a request is of, unless receivers would refuse it for its head.
fn delivery_of(headers: &HeaderMap) -> Option<DeliveryId> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let unix_seconds: u64 = text("webhook-timestamp")?.parse().ok()?;
    let is_of_now = unix_seconds.abs_diff(now_unix_ms() / 1_000) <= TIMESTAMP_SECONDS_MAX;
    text("webhook-id").filter(|_| is_of_now)?.parse().ok()
}

/// Nothing panics while it holds one of these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
