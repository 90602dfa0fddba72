//! The test receiver: answers webhooks on loopback as it is told to, and checks their signatures.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use dispatcher::clock::now_unix_ms;
use dispatcher_core::limits::{RECEIVER_ACCEPT_PAUSE, RECEIVER_CONNECTIONS_MAX, REQUEST_BODY_BYTES_MAX};
use dispatcher_core::sign::{self, VerifyingKey};
use dispatcher_core::table::SigningScheme;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};

use crate::schemes;

/// Largest difference between the time that was signed and now: five minutes, as Standard Webhooks suggests.
pub(crate) const TOLERANCE_SECONDS: u32 = 300;

/// How the receiver answers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Behaviour {
    /// How many requests, counted from the first, get the first answer.
    pub(crate) first_requests: u64,
    /// What they get.
    pub(crate) first: Answer,
    /// What the others get.
    pub(crate) then: Answer,
    /// How long it takes over each.
    pub(crate) delay: Duration,
}

/// An answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// This status.
    Status(StatusCode),
    /// None: the connection is reset.
    Reset,
}

impl Default for Behaviour {
    /// Says 200 to everything at once.
    fn default() -> Self {
        let fine = Answer::Status(StatusCode::OK);
        Self { first_requests: 0, first: fine, then: fine, delay: Duration::ZERO }
    }
}

impl Behaviour {
    /// The answer to a request by its number, counted from 0.
    fn answer(&self, number: u64) -> Answer {
        if number < self.first_requests { self.first } else { self.then }
    }
}

/// The keys that the receiver verifies with.
#[derive(Debug, Default)]
pub(crate) struct KeyBook {
    /// Keys of requests to a path. One of them must verify.
    pub(crate) by_path: HashMap<String, Vec<Key>>,
    /// Keys of requests to all other paths.
    pub(crate) other: Vec<Key>,
}

/// Keys that belong together.
#[derive(Debug)]
pub(crate) struct Key {
    /// The scheme; `None` if the request's headers tell.
    pub(crate) scheme: Option<SigningScheme>,
    /// Any of them may have signed.
    pub(crate) keys: Vec<VerifyingKey>,
}

/// What the receiver makes of a signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It verifies.
    Verified,
    /// It does not, and why.
    NotVerified(String),
    /// The receiver has no key for it.
    NoKey,
}

/// A request that was received.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// Its path.
    pub(crate) path: String,
    /// The identity that its sender gave the message, if it did.
    pub(crate) id: Option<String>,
    /// Its body.
    pub(crate) body: Bytes,
    /// What its signature is worth.
    pub(crate) verdict: Verdict,
    /// How it was answered.
    pub(crate) answer: Answer,
}

impl KeyBook {
    fn judge(&self, path: &str, headers: &HeaderMap, body: &[u8]) -> Verdict {
        let candidates = self.by_path.get(path).unwrap_or(&self.other);
        let now_unix_seconds = i64::try_from(now_unix_ms() / 1000).unwrap_or(i64::MAX);
        let mut verdict = Verdict::NoKey;
        for candidate in candidates {
            let Some(scheme) = candidate.scheme.or_else(|| schemes::detect(headers, candidate.keys.first())) else {
                verdict = Verdict::NotVerified("no header carries a signature".to_owned());
                continue;
            };
            match sign::verify(scheme, &candidate.keys, headers, body, now_unix_seconds, TOLERANCE_SECONDS) {
                Ok(()) => return Verdict::Verified,
                Err(error) => verdict = Verdict::NotVerified(error.to_string()),
            }
        }
        verdict
    }
}

struct Shared {
    behaviour: Behaviour,
    keys: watch::Receiver<Arc<KeyBook>>,
    seen: mpsc::Sender<Seen>,
    requests: AtomicU64,
}

/// Receives until the listener is dropped with the runtime. Tells of every request before it is answered.
pub(crate) async fn run(
    listener: TcpListener,
    behaviour: Behaviour,
    keys: watch::Receiver<Arc<KeyBook>>,
    seen: mpsc::Sender<Seen>,
) {
    let shared = Arc::new(Shared { behaviour, keys, seen, requests: AtomicU64::new(0) });
    let connections = Arc::new(Semaphore::new(RECEIVER_CONNECTIONS_MAX));
    while let Ok(permit) = Arc::clone(&connections).acquire_owned().await {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors, most likely: accepting again at once would spin.
            tokio::time::sleep(RECEIVER_ACCEPT_PAUSE).await;
            continue;
        };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            serve(stream, shared).await;
            drop(permit);
        });
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let service = service_fn(move |request| Box::pin(answer(Arc::clone(&shared), request)));
    let mut connection = http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
    let result = poll_fn(|context| connection.poll_without_shutdown(context)).await;
    if result.is_err_and(|error| error.is_user()) {
        // Without lingering, closing sends a reset instead of an orderly end.
        let _ = connection.into_parts().io.into_inner().set_zero_linger();
    }
}

/// The connection is to be reset.
#[derive(Debug, thiserror::Error)]
#[error("the connection is to be reset")]
struct ResetWanted;

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, ResetWanted> {
    let number = shared.requests.fetch_add(1, Ordering::Relaxed);
    let (head, body) = request.into_parts();
    let Ok(body) = Limited::new(body, REQUEST_BODY_BYTES_MAX).collect().await else {
        return Ok(plain(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large, or it broke off\n"));
    };
    let body = body.to_bytes();
    let path = head.uri.path().to_owned();
    let verdict = shared.keys.borrow().judge(&path, &head.headers, &body);
    tokio::time::sleep(shared.behaviour.delay).await;
    let answer = match (shared.behaviour.answer(number), &verdict) {
        (Answer::Status(status), Verdict::NotVerified(_)) if status.is_success() => {
            Answer::Status(StatusCode::UNAUTHORIZED)
        }
        (answer, _) => answer,
    };
    let text = match &verdict {
        Verdict::Verified => "verified\n".to_owned(),
        Verdict::NotVerified(reason) => format!("not verified: {reason}\n"),
        Verdict::NoKey => "received\n".to_owned(),
    };
    let id = schemes::message_id(&head.headers);
    // Whoever sent the request is not to wait for whoever looks at it.
    if shared.seen.try_send(Seen { path, id, body, verdict, answer }).is_err() {
        tracing::debug!("a request is not shown: too many are waiting, or the command is about to end");
    }
    match answer {
        Answer::Status(status) => Ok(plain(status, text)),
        Answer::Reset => Err(ResetWanted),
    }
}

fn plain(status: StatusCode, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response
}
