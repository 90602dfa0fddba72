//! Where everything arrives: counts requests and tells how long after its scheduled time each came.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use hyper::StatusCode;
use tokio::sync::Semaphore;

use super::certificate::Certificate;
use crate::http::{Received, serve, serve_tls};

/// Every payload begins with this, then the scheduled time in nanoseconds, twenty digits.
const PREFIX: &[u8] = b"{\"scheduled_ns\":\"";
const DIGITS: usize = 20;
/// Size of a usual payload: what a usual webhook has.
pub const PAYLOAD_BYTES: usize = 1024;

/// The sink and what it has seen.
pub struct Sink {
    /// Where it listens.
    pub address: SocketAddr,
    /// Where it listens over TLS.
    pub tls_address: SocketAddr,
    /// What it shows there.
    pub certificate: Certificate,
    state: Arc<State>,
}

struct State {
    started: Instant,
    arrivals: AtomicU64,
    latencies: Mutex<Vec<Duration>>,
    flow: Mutex<Option<Flow>>,
}

/// Gives back a permit for every event that has arrived as often as it fans out.
struct Flow {
    permits: Arc<Semaphore>,
    fanout: u64,
    arrived: u64,
}

impl Sink {
    /// Starts it on two free ports.
    pub async fn start() -> Result<Self> {
        let state = Arc::new(State {
            started: Instant::now(),
            arrivals: AtomicU64::new(0),
            latencies: Mutex::default(),
            flow: Mutex::default(),
        });
        let handler = |state: &Arc<State>| {
            let state = Arc::clone(state);
            move |request: Received| {
                state.arrived(&request.body);
                StatusCode::NO_CONTENT
            }
        };
        let certificate = Certificate::new()?;
        let address = serve(handler(&state)).await?;
        let tls_address = serve_tls(handler(&state), certificate.server()?).await?;
        Ok(Self { address, tls_address, certificate, state })
    }

    /// Time since the sink's start: what scheduled times are measured in.
    pub fn now(&self) -> Duration {
        self.state.started.elapsed()
    }

    /// A payload of a size for an event that is scheduled at a time.
    pub fn payload(scheduled: Duration, bytes: usize) -> Bytes {
        let mut payload = Vec::with_capacity(bytes);
        payload.extend_from_slice(PREFIX);
        payload.extend_from_slice(format!("{:0DIGITS$}\",\"filler\":\"", scheduled.as_nanos()).as_bytes());
        payload.resize(bytes - 2, b'x');
        payload.extend_from_slice(b"\"}");
        payload.into()
    }

    /// Requests so far.
    pub fn arrivals(&self) -> u64 {
        self.state.arrivals.load(Ordering::Relaxed)
    }

    /// Takes the latencies that were gathered since the last call.
    pub fn take_latencies(&self) -> Vec<Duration> {
        std::mem::take(&mut *lock(&self.state.latencies))
    }

    /// From now on an event's permit is given back when it has arrived `fanout` times.
    pub fn close_loop(&self, permits: Arc<Semaphore>, fanout: u64) {
        *lock(&self.state.flow) = Some(Flow { permits, fanout, arrived: 0 });
    }

    /// Ends what [`Sink::close_loop`] began.
    pub fn open_loop(&self) {
        *lock(&self.state.flow) = None;
    }
}

impl State {
    fn arrived(&self, body: &[u8]) {
        self.arrivals.fetch_add(1, Ordering::Relaxed);
        if let Some(scheduled) = scheduled(body) {
            lock(&self.latencies).push(self.started.elapsed().saturating_sub(scheduled));
        }
        if let Some(flow) = lock(&self.flow).as_mut() {
            flow.arrived += 1;
            if flow.arrived.is_multiple_of(flow.fanout) {
                flow.permits.add_permits(1);
            }
        }
    }
}

fn scheduled(body: &[u8]) -> Option<Duration> {
    let digits = body.strip_prefix(PREFIX)?.get(..DIGITS)?;
    let nanoseconds: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(Duration::from_nanos(nanoseconds))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_tells_its_scheduled_time_and_has_the_agreed_size() {
        let payload = Sink::payload(Duration::from_nanos(1_234_567), PAYLOAD_BYTES);
        assert_eq!(payload.len(), PAYLOAD_BYTES);
        assert_eq!(scheduled(&payload), Some(Duration::from_nanos(1_234_567)));
        assert!(serde_json::from_slice::<serde_json::Value>(&payload).is_ok());
        assert_eq!(scheduled(b"{}"), None);
    }
}
