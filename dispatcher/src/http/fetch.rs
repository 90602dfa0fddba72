//! Documents that the installation itself wants: read whole, or not at all.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use dispatcher_core::delivery::Outcome;
use http::header::ACCEPT;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use url::Url;

use super::failure::{Failure, NotMade};
use super::{Client, Identity, next_chunk};

/// Which document to read.
#[derive(Clone, Copy, Debug)]
pub struct Fetch<'a> {
    /// Where it is.
    pub url: &'a Url,
    /// Whom to trust, if not the system's roots.
    pub identity: Option<&'a Identity>,
    /// Its media type.
    pub accept: &'static str,
    /// Most bytes that it may have.
    pub bytes_max: usize,
    /// Bound on the whole exchange.
    pub deadline: Duration,
}

/// Why a document was not read. Holds no URL, and nothing of what was answered.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// This machine lacks what it takes.
    #[error(transparent)]
    NotMade(#[from] NotMade),
    /// No status arrived, or not the whole document.
    #[error("{description}")]
    Failed {
        /// The class of the failure.
        outcome: Outcome,
        /// For people.
        description: String,
    },
    /// Another status than 200.
    #[error("the answer has the status {0}")]
    Status(u16),
    /// More bytes than the document may have.
    #[error("the answer has more than {0} bytes")]
    TooLarge(usize),
}

impl From<Failure> for FetchError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Ours(reason) => Self::NotMade(reason),
            Failure::Theirs { outcome, description } => Self::Failed { outcome, description },
        }
    }
}

impl Client {
    /// Reads a document by GET, under the same guard as every exchange.
    ///
    /// # Errors
    /// [`FetchError`], at the deadline at the latest.
    pub async fn fetch(&self, fetch: Fetch<'_>) -> Result<Bytes, FetchError> {
        let ended = tokio::time::timeout(fetch.deadline, self.read_whole(fetch)).await;
        ended.unwrap_or_else(|_| Err(Failure::timeout(fetch.deadline).into()))
    }

    async fn read_whole(&self, fetch: Fetch<'_>) -> Result<Bytes, FetchError> {
        let pool = match fetch.identity {
            None => Arc::clone(&self.anonymous),
            Some(identity) => self.identified.of(identity).await?,
        };
        let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(fetch.accept))]);
        let mut response = self.ask(&pool, Method::GET, fetch.url, headers, Bytes::new()).await?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status().as_u16()));
        }
        let mut document = BytesMut::new();
        while let Some(chunk) = next_chunk(response.body_mut(), fetch.url).await? {
            if document.len() + chunk.len() > fetch.bytes_max {
                return Err(FetchError::TooLarge(fetch.bytes_max));
            }
            document.extend_from_slice(&chunk);
        }
        Ok(document.freeze())
    }
}
