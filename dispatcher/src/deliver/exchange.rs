//! One attempt: render, sign, send, classify, and what follows.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use dispatcher_core::classify;
use dispatcher_core::delivery::{Attempt, Outcome};
use dispatcher_core::event::Event;
use dispatcher_core::event::render::render;
use dispatcher_core::limits::{RESPONSE_EXCERPT_BYTES_MAX, UNUSABLE_ENDPOINT_PAUSE};
use dispatcher_core::sign::{Message, SignError, sign};
use futures::FutureExt;
use futures::future::BoxFuture;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};

use super::admit::{Admission, Failed, Go, Track, admit};
use super::endpoints::Entered;
use super::part::Job;
use super::recorder::{Effect, Entry};
use super::transform::Shaped;
use super::{Observed, Worker};
use crate::http::{Exchange, NotMade, Watch};
use crate::ledger::DeliveryResult;
use crate::snapshot::EndpointRoute;

/// The content type of most events, which needs no copy.
const JSON: &str = "application/json";

/// How far a delivery has come when it is recorded.
#[expect(clippy::large_enum_variant, reason = "the large one is the usual one")]
pub(super) enum Step {
    /// There is a result.
    Ended(Ended),
    /// The exchange is still running, on the slow track, for at most `lease`.
    Slow { lease: Duration, rest: BoxFuture<'static, Ended> },
}

/// A result, what those who watch are told of it, and what it means for the endpoint.
pub(super) struct Ended {
    pub(super) result: DeliveryResult,
    pub(super) observed: Option<Observed>,
    pub(super) effects: Vec<Effect>,
}

/// A request that is ready to be sent.
struct Prepared {
    headers: HeaderMap,
    body: bytes::Bytes,
}

/// Makes an attempt if one may be made, and stays with it up to the soft budget.
pub(super) async fn attempt(worker: &Arc<Worker>, job: &Job) -> Step {
    let Go { route, entered, track, shaped } = match admit(worker, job).await {
        Admission::Go(go) => go,
        Admission::Wait(delay) => return Step::Ended(job.wait(delay)),
        Admission::Cancel(reason) => return Step::Ended(job.cancel(reason)),
        Admission::Fail(failed) => return Step::Ended(fail(worker, job, failed)),
    };
    let endpoint = Arc::clone(entered.endpoint());
    let deadline = Duration::from_secs(route.row.policy.timeout_seconds.into());
    let soft_budget = worker.config.soft_budget;
    // One timer instead of two, as long as the exchange is on the fast track.
    let watch = (soft_budget < deadline).then(Watch::default);
    let mut exchange = run(Arc::clone(worker), job.clone(), route, entered, shaped, watch.clone());
    if let Ok(ended) = tokio::time::timeout(soft_budget, &mut exchange).await {
        return Step::Ended(ended);
    }
    watch.iter().for_each(Watch::end);
    endpoint.mark_slow();
    let slot = match track {
        Track::Slow(permit) => Some(permit),
        Track::Fast(permit) => {
            drop(permit);
            Arc::clone(&worker.slow).try_acquire_owned().ok()
        }
    };
    let Some(slot) = slot else {
        // No slot: given up, as if it had not been made.
        drop(exchange);
        endpoint.collapse();
        let gate = endpoint.gate(soft_budget);
        worker.recorder.send(Entry::Effect(Effect::Gate(gate))).await;
        return Step::Ended(job.wait(Duration::ZERO));
    };
    let lease = deadline.saturating_sub(soft_budget) + worker.config.lease_margin;
    let rest = async move {
        let ended = exchange.await;
        drop(slot);
        ended
    };
    Step::Slow { lease, rest: rest.boxed() }
}

/// The exchange with everything that follows. A panic in it ends it without an attempt. It waits for nothing but the
/// receiver: what it means for the endpoint is only answered, so that whoever drops it loses no part of it.
fn run(
    worker: Arc<Worker>,
    job: Job,
    route: Arc<EndpointRoute>,
    entered: Entered,
    shaped: Shaped,
    watch: Option<Watch>,
) -> BoxFuture<'static, Ended> {
    let pause = worker.config.soft_budget;
    let panicked = job.clone();
    let exchange = async move {
        let started_at_unix_ms = worker.clock.now_unix_ms();
        let Shaped { event, memory } = shaped;
        let Prepared { headers, body } = match prepare(&route, &job, &event, started_at_unix_ms) {
            Ok(prepared) => prepared,
            Err(error) => {
                let (endpoint, reason) = (route.row.id, error.as_str());
                tracing::warn!(%endpoint, reason, "a request cannot be signed; it waits");
                return wait_until_usable(&job, &entered);
            }
        };
        drop((event, memory));
        let request = route.request(headers, body);
        let exchanging = worker.tokens.watched_exchange(&worker.client, route.token.as_ref(), request, watch.as_ref());
        let exchange = match exchanging.await {
            Ok(exchange) => exchange,
            Err(NotMade::TokenPause(again_in)) => {
                // Neither server was asked for anything: it waits behind the gate, without an attempt.
                let effects = entered.put_off(again_in).into_iter().collect();
                return Ended { effects, ..job.wait(Duration::ZERO) };
            }
            Err(NotMade::Identity(error)) => {
                let (endpoint, reason) = (route.row.id, error.reason.as_str());
                tracing::warn!(%endpoint, reason, "the endpoint's TLS identity cannot be used; its deliveries wait");
                return wait_until_usable(&job, &entered);
            }
            Err(reason) => {
                // Its place is given back, and neither the endpoint nor the delivery pays for it.
                worker.tell_of_shortage(reason);
                return job.wait(worker.config.soft_budget);
            }
        };
        worker.metrics.attempt_ended(exchange.outcome, exchange.duration);
        let effects = entered.leave(&exchange, &route.row);
        Ended { effects, ..conclude(&worker, &job, &route, exchange, started_at_unix_ms) }
    };
    let guarded = AssertUnwindSafe(exchange).catch_unwind().map(move |ended| {
        ended.unwrap_or_else(|_| {
            tracing::error!(delivery = %panicked.key.delivery, "an exchange panicked: this is a defect, report it");
            panicked.wait(pause)
        })
    });
    guarded.boxed()
}

/// Leaves what waits for an endpoint alone for a while, until perhaps its row can be used: that is not an attempt.
fn wait_until_usable(job: &Job, entered: &Entered) -> Ended {
    let gate = entered.endpoint().gate(UNUSABLE_ENDPOINT_PAUSE);
    Ended { effects: vec![Effect::Gate(gate)], ..job.wait(Duration::ZERO) }
}

/// Renders and signs. Headers of ours win over those of the endpoint.
fn prepare(route: &EndpointRoute, job: &Job, event: &Event, now_ms: u64) -> Result<Prepared, SignError> {
    let policy = &route.row.policy;
    let rendered = render(policy.format, event);
    let mut headers = route.headers.clone();
    headers.insert(CONTENT_TYPE, content_type(&rendered.content_type));
    for (name, value) in rendered.headers {
        headers.insert(name, value);
    }
    let id = job.key.delivery.to_string();
    let unix_seconds = i64::try_from(now_ms / 1_000).unwrap_or(i64::MAX);
    let message = Message { id: &id, unix_seconds, body: &rendered.body };
    for (name, value) in sign(policy.signing_scheme, &route.secrets.keys, now_ms, &message)? {
        headers.insert(name, value);
    }
    Ok(Prepared { headers, body: rendered.body })
}

fn content_type(text: &str) -> HeaderValue {
    match text {
        JSON => HeaderValue::from_static(JSON),
        other => HeaderValue::from_str(other).unwrap_or_else(|_| HeaderValue::from_static("application/octet-stream")),
    }
}

/// An attempt that ended before anything was sent. The delivery is tried again by the endpoint's policy; the endpoint,
/// of which nothing was learnt, gets back what the delivery had taken.
fn fail(worker: &Worker, job: &Job, Failed { route, entered, message }: Failed) -> Ended {
    let effects = entered.give_back().into_iter().collect();
    let exchange = Exchange {
        outcome: Outcome::TransformFailed,
        status_code: None,
        retry_after: None,
        excerpt: message.into(),
        duration: Duration::ZERO,
    };
    worker.metrics.attempt_ended(exchange.outcome, exchange.duration);
    Ended { effects, ..conclude(worker, job, &route, exchange, worker.clock.now_unix_ms()) }
}

/// The attempt's record and what follows from it for the delivery.
fn conclude(worker: &Worker, job: &Job, route: &EndpointRoute, exchange: Exchange, started_at_unix_ms: u64) -> Ended {
    let Exchange { outcome, status_code, retry_after, mut excerpt, duration } = exchange;
    excerpt.truncate(RESPONSE_EXCERPT_BYTES_MAX);
    let run_age = job.run_age + job.arrived.elapsed();
    let retry = &route.row.policy.retry;
    let next = classify::next(outcome, retry, job.attempt_number, run_age, retry_after, rand::random());
    let observed = (worker.observers.receiver_count() > 0).then(|| Observed {
        tenant: job.key.tenant,
        tenant_name: worker.snapshot.borrow().index.tenant_name(job.key.tenant).unwrap_or_default().to_owned(),
        event: job.key.event,
        event_type: job.event.event_type.clone(),
        delivery: job.key.delivery,
        endpoint: route.row.id,
        endpoint_name: route.row.name.clone(),
        attempt_number: job.attempt_number,
        outcome,
        status_code,
        duration,
        next: next.clone(),
    });
    let attempt = Attempt { number: job.attempt_number, started_at_unix_ms, duration, outcome, status_code, excerpt };
    let result = DeliveryResult { key: job.key, attempt: Some(attempt), next };
    Ended { result, observed, effects: Vec::new() }
}
