//! Reads request bodies: bounded in bytes, in time, and in memory over all requests.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use dispatcher_core::limits::{
    REQUEST_BODIES_BYTES_MAX, REQUEST_BODY_BYTES_MAX, REQUEST_BODY_TIMEOUT, REQUEST_DISCARD_BYTES_MAX,
};
use http::{HeaderMap, header};
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::problem::{Problem, ProblemKind};

/// Memory is counted in these, because a semaphore counts in `u32`.
const UNIT_BYTES: usize = 1024;

/// The budget of memory for bodies.
#[derive(Clone, Debug)]
pub struct BodyReader {
    budget: Arc<Semaphore>,
    timeout: Duration,
}

/// A body that was read whole, and its share of the budget for as long as it is kept.
#[derive(Debug)]
pub struct ReadBody {
    /// The bytes.
    pub bytes: Bytes,
    _share: OwnedSemaphorePermit,
}

impl Default for BodyReader {
    fn default() -> Self {
        Self::new(REQUEST_BODIES_BYTES_MAX, REQUEST_BODY_TIMEOUT)
    }
}

impl BodyReader {
    /// A reader with a budget in bytes and a time in which a body must arrive.
    pub fn new(budget_bytes: usize, timeout: Duration) -> Self {
        Self { budget: Arc::new(Semaphore::new(budget_bytes / UNIT_BYTES)), timeout }
    }

    /// Reads a body whole.
    pub async fn read(&self, headers: &HeaderMap, body: Body) -> Result<ReadBody, Problem> {
        let announced = content_length(headers);
        if announced.is_some_and(|bytes| bytes > REQUEST_BODY_BYTES_MAX) {
            self.discard(headers, body).await;
            return Err(too_large());
        }
        let wanted = announced.unwrap_or(REQUEST_BODY_BYTES_MAX).div_ceil(UNIT_BYTES);
        let wanted = u32::try_from(wanted).unwrap_or(u32::MAX);
        let Ok(share) = Arc::clone(&self.budget).try_acquire_many_owned(wanted) else {
            self.discard(headers, body).await;
            let detail = "The memory for requests is used up. Try again later.";
            return Err(Problem::new(ProblemKind::Overloaded, detail));
        };
        let Ok(collected) = tokio::time::timeout(self.timeout, collect(body, announced)).await else {
            let detail = format!("The body did not arrive within {} s.", self.timeout.as_secs_f32());
            return Err(Problem::new(ProblemKind::RequestTimeout, detail));
        };
        Ok(ReadBody { bytes: collected?, _share: share })
    }

    /// Reads and drops the body of a request that is refused: closing a connection with unread bytes resets it, and the
    /// client would lose the answer. A client that waits for `100 Continue` is not asked to send at all.
    pub async fn discard(&self, headers: &HeaderMap, mut body: Body) {
        let too_much = content_length(headers).is_some_and(|bytes| bytes > REQUEST_DISCARD_BYTES_MAX);
        if too_much || headers.contains_key(header::EXPECT) {
            return;
        }
        let dropping = async {
            let mut dropped = 0;
            while let Some(Ok(frame)) = body.frame().await {
                dropped += frame.data_ref().map_or(0, Bytes::len);
                if dropped > REQUEST_DISCARD_BYTES_MAX {
                    return;
                }
            }
        };
        // Whether it ended in time makes no difference: the answer follows either way.
        let _ = tokio::time::timeout(self.timeout, dropping).await;
    }
}

async fn collect(mut body: Body, announced: Option<usize>) -> Result<Bytes, Problem> {
    // Of its own, and of the right size: a slice of the connection's buffer would keep all of that in memory.
    let mut whole = BytesMut::with_capacity(announced.unwrap_or_default());
    let mut dropped = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Problem::new(ProblemKind::IncompleteBody, "The body ended early."))?;
        let Ok(data) = frame.into_data() else { continue };
        if dropped == 0 && whole.len() + data.len() <= REQUEST_BODY_BYTES_MAX {
            whole.extend_from_slice(&data);
            continue;
        }
        // Too large, and of unknown length: the rest is read and dropped, within bounds, as in `discard`.
        dropped += whole.len() + data.len();
        whole = BytesMut::new();
        if dropped > REQUEST_DISCARD_BYTES_MAX {
            break;
        }
    }
    if dropped > 0 { Err(too_large()) } else { Ok(whole.freeze()) }
}

fn content_length(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn too_large() -> Problem {
    let detail = format!("A request body has at most {REQUEST_BODY_BYTES_MAX} bytes.");
    Problem::new(ProblemKind::TooLarge, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A body of unknown length, in chunks.
    fn chunked(chunks: usize, chunk_bytes: usize) -> Body {
        let chunk = Bytes::from(vec![b'x'; chunk_bytes]);
        Body::from_stream(futures::stream::iter((0..chunks).map(move |_| Ok::<_, std::io::Error>(chunk.clone()))))
    }

    fn announcing(bytes: usize) -> HeaderMap {
        HeaderMap::from_iter([(header::CONTENT_LENGTH, bytes.to_string().parse().unwrap())])
    }

    #[tokio::test]
    async fn a_body_is_read_up_to_the_limit_and_refused_beyond() {
        let reader = BodyReader::default();
        let chunk = REQUEST_BODY_BYTES_MAX / 4;
        let whole = reader.read(&HeaderMap::new(), chunked(4, chunk)).await.unwrap();
        assert_eq!(whole.bytes.len(), REQUEST_BODY_BYTES_MAX);
        for (headers, body) in [
            (HeaderMap::new(), chunked(5, chunk)),
            (announcing(REQUEST_BODY_BYTES_MAX + 1), chunked(1, REQUEST_BODY_BYTES_MAX + 1)),
            (announcing(usize::MAX), chunked(1, 1)),
            (HeaderMap::new(), chunked(1_000, chunk)),
        ] {
            assert_eq!(reader.read(&headers, body).await.unwrap_err().kind, ProblemKind::TooLarge);
        }
    }

    #[tokio::test]
    async fn the_budget_is_given_back_with_the_body() {
        let reader = BodyReader::new(8 * UNIT_BYTES, REQUEST_BODY_TIMEOUT);
        let first = reader.read(&announcing(6_000), chunked(2, 3_000)).await.unwrap();
        let refused = reader.read(&announcing(6_000), chunked(2, 3_000)).await.unwrap_err();
        assert_eq!(refused.kind, ProblemKind::Overloaded);
        drop(first);
        assert_eq!(reader.read(&announcing(6_000), chunked(2, 3_000)).await.unwrap().bytes.len(), 6_000);
    }

    #[tokio::test]
    async fn a_body_that_never_ends_times_out() {
        let reader = BodyReader::new(REQUEST_BODIES_BYTES_MAX, Duration::from_millis(20));
        let endless = Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>());
        let problem = reader.read(&announcing(10), endless).await.unwrap_err();
        assert_eq!(problem.kind, ProblemKind::RequestTimeout);
    }
}
