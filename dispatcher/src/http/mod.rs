//! The one client that sends requests to receivers: hostile until proven otherwise.
//!
//! Every exchange that is made ends as exactly one [`Outcome`] within its deadline. Addresses are refused in three places: the URL
//! before the exchange, every answer of a name look-up ([`resolve`]), and the address that answered.

mod clients;
mod connect;
mod failure;
mod fetch;
pub mod identity;
mod resolve;
#[cfg(test)]
mod tests;
mod token;
mod watch;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use dispatcher_core::address::AddressPolicy;
use dispatcher_core::classify::classify_status;
use dispatcher_core::delivery::Outcome;
use dispatcher_core::limits::{IDENTITY_CLIENTS_MAX, RESPONSE_EXCERPT_BYTES_MAX};
use dispatcher_core::retry_after;
use http::header::{ACCEPT, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::HttpInfo;
use url::Url;

use self::clients::{Factory, IdentityClients};
use self::connect::Pool;
pub use self::failure::NotMade;
use self::failure::{Failure, RefusedAddress};
pub use self::fetch::{Fetch, FetchError};
pub use self::identity::Identity;
pub use self::resolve::ResolverConfig;
use self::resolve::{GuardedResolver, Lookup, SystemLookup};
pub use self::token::{TokenSlot, Tokens};
pub use self::watch::Watch;
use self::watch::within;
use crate::clock::now_unix_ms;

/// Names us to receivers.
const OUR_NAME: HeaderValue = HeaderValue::from_static(concat!("Harborhook/", env!("CARGO_PKG_VERSION")));
/// Of an answer only its beginning is kept, as bytes.
const ANYTHING: HeaderValue = HeaderValue::from_static("*/*");

/// The outbound client. Cheap to clone; clones share their connections.
#[derive(Clone, Debug)]
pub struct Client {
    /// For requests without a TLS identity.
    anonymous: Arc<Pool>,
    /// For requests with one.
    identified: Arc<IdentityClients>,
    address_policy: Arc<AddressPolicy>,
}

/// What a client may reach.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Which URLs and addresses are refused.
    pub address_policy: AddressPolicy,
    /// How names become addresses.
    pub resolver: ResolverConfig,
}

/// Why a client cannot be built.
#[derive(Debug, thiserror::Error)]
#[error("the outbound client cannot be built: {0}; are the system's root certificates installed (ca-certificates)?")]
pub struct ClientError(#[source] rustls::Error);

/// One request, always a POST.
pub struct Request<'a> {
    /// Where to send it.
    pub url: &'a Url,
    /// Whom to trust and who to be in TLS; `None`: the system's roots and nobody. An endpoint's own request is made by
    /// [`crate::snapshot::EndpointRoute::request`], which takes the URL and the identity of one endpoint.
    pub identity: Option<&'a Identity>,
    /// All headers but those of the connection.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// Bound on the whole exchange: look-up, connection, TLS, request, response with its body.
    pub deadline: Duration,
}

/// The URL and the headers can hold secrets, and are left out.
impl fmt::Debug for Request<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Request")
            .field("has_identity", &self.identity.is_some())
            .field("body_bytes", &self.body.len())
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

/// How an exchange ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// Its class.
    pub outcome: Outcome,
    /// The status code, if the receiver answered with one, even if its body then failed.
    pub status_code: Option<u16>,
    /// What the header `Retry-After` asks for, capped.
    pub retry_after: Option<Duration>,
    /// The beginning of the response body, or a description of the failure, which never holds the URL.
    pub excerpt: Bytes,
    /// From the beginning to the end, the body included.
    pub duration: Duration,
}

impl Client {
    /// A client with its own pool of connections.
    ///
    /// # Errors
    /// [`ClientError`] if TLS cannot be set up.
    pub fn new(config: ClientConfig) -> Result<Self, ClientError> {
        Self::with_lookup(config, SystemLookup)
    }

    fn with_lookup(config: ClientConfig, lookup: impl Lookup) -> Result<Self, ClientError> {
        let address_policy = Arc::new(config.address_policy);
        let resolver = GuardedResolver::new(Arc::clone(&address_policy), config.resolver, lookup);
        let factory = Factory::new(resolver);
        let anonymous = factory.build(None).map_err(ClientError)?;
        let identified = IdentityClients::new(factory, IDENTITY_CLIENTS_MAX);
        Ok(Self { anonymous, identified, address_policy })
    }

    /// Sends a request and reads the beginning of the answer. Whatever the receiver does is a class.
    ///
    /// Dropping the future closes the connection. Connections are shared by requests without an identity, and by those
    /// with the same one.
    ///
    /// # Errors
    /// [`NotMade`] if this machine lacks what it takes, or the identity cannot be used: not the receiver's failure, and
    /// not an attempt.
    pub async fn exchange(&self, request: Request<'_>) -> Result<Exchange, NotMade> {
        self.exchange_since(Instant::now(), None, request).await
    }

    /// An exchange that began earlier with something else: its deadline and its duration count from then. Somebody may
    /// watch over the deadline for a while.
    async fn exchange_since(
        &self,
        started: Instant,
        watch: Option<&Watch>,
        request: Request<'_>,
    ) -> Result<Exchange, NotMade> {
        let deadline = request.deadline;
        let time_left = || deadline.saturating_sub(started.elapsed());
        let pool = match request.identity {
            None => Arc::clone(&self.anonymous),
            Some(identity) => {
                let pool = tokio::time::timeout(time_left(), self.identified.of(identity)).await;
                pool.unwrap_or(Err(NotMade::NoClient))?
            }
        };
        let mut answer = Answer::default();
        let failure = match within(time_left(), watch, self.send(&pool, request, &mut answer)).await {
            Some(Ok(())) => None,
            Some(Err(failure)) => Some(failure),
            None => Some(Failure::timeout(deadline)),
        };
        answer.into_exchange(failure, started.elapsed())
    }

    async fn send(&self, pool: &Pool, request: Request<'_>, answer: &mut Answer) -> Result<(), Failure> {
        let Request { url, headers, body, .. } = request;
        let mut response = self.ask(pool, Method::POST, url, headers, body).await?;
        answer.status_code = Some(response.status().as_u16());
        answer.retry_after =
            response.headers().get(RETRY_AFTER).and_then(|value| retry_after::parse(value.as_bytes(), now_unix_ms()));
        // Read to its end, a small body gives its connection back; a large one is cut off with its connection.
        while let Some(chunk) = next_chunk(response.body_mut(), url).await? {
            answer.keep(chunk);
            if answer.is_full {
                break;
            }
        }
        Ok(())
    }

    /// Sends a request, and answers once its answer begins. No address is asked that the policy refuses.
    async fn ask(
        &self,
        pool: &Pool,
        method: Method,
        url: &Url,
        mut headers: HeaderMap,
        body: Bytes,
    ) -> Result<http::Response<Incoming>, Failure> {
        self.address_policy.check_url(url)?;
        headers.entry(USER_AGENT).or_insert(OUR_NAME);
        headers.entry(ACCEPT).or_insert(ANYTHING);
        let mut request = http::Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = Uri::try_from(url.as_str()).map_err(|error| Failure::of(&error, url))?;
        *request.headers_mut() = headers;
        let response = pool.request(request).await.map_err(|error| Failure::of(&error, url))?;
        // The look-up was checked before; this holds whatever way the connection was made.
        if let Some(info) = response.extensions().get::<HttpInfo>() {
            self.address_policy.check_address(info.remote_addr().ip()).map_err(RefusedAddress::from)?;
        }
        Ok(response)
    }
}

/// The next piece of a body; `None` after the last.
async fn next_chunk(body: &mut Incoming, url: &Url) -> Result<Option<Bytes>, Failure> {
    while let Some(frame) = body.frame().await {
        // Trailers are of no use here.
        if let Ok(chunk) = frame.map_err(|error| Failure::of(&error, url))?.into_data() {
            return Ok(Some(chunk));
        }
    }
    Ok(None)
}

/// What has arrived of an answer.
#[derive(Default)]
struct Answer {
    status_code: Option<u16>,
    retry_after: Option<Duration>,
    excerpt: Excerpt,
    is_full: bool,
}

/// The beginning of a body. One chunk, as most answers are, is kept without a copy.
#[derive(Default)]
enum Excerpt {
    #[default]
    Empty,
    One(Bytes),
    Joined(BytesMut),
}

impl Answer {
    fn keep(&mut self, chunk: Bytes) {
        let excerpt = match std::mem::take(&mut self.excerpt) {
            Excerpt::Empty => Excerpt::One(chunk),
            Excerpt::One(first) => {
                let mut joined = BytesMut::from(first);
                joined.extend_from_slice(&chunk);
                Excerpt::Joined(joined)
            }
            Excerpt::Joined(mut joined) => {
                joined.extend_from_slice(&chunk);
                Excerpt::Joined(joined)
            }
        };
        self.is_full = excerpt.len() > RESPONSE_EXCERPT_BYTES_MAX;
        self.excerpt = excerpt;
    }

    fn into_exchange(self, failure: Option<Failure>, duration: Duration) -> Result<Exchange, NotMade> {
        let Self { status_code, retry_after, excerpt, .. } = self;
        match (failure, status_code) {
            (None, Some(status)) => {
                let (outcome, excerpt) = (classify_status(status), excerpt.cut());
                Ok(Exchange { outcome, status_code, retry_after, excerpt, duration })
            }
            (failure, _) => match failure.unwrap_or_else(Failure::no_answer) {
                Failure::Ours(reason) => Err(reason),
                Failure::Theirs { outcome, description } => {
                    Ok(Exchange { outcome, status_code, retry_after, excerpt: description.into(), duration })
                }
            },
        }
    }
}

impl Excerpt {
    fn len(&self) -> usize {
        match self {
            Self::Empty => 0,
            Self::One(bytes) => bytes.len(),
            Self::Joined(bytes) => bytes.len(),
        }
    }

    /// Owned bytes, no more than may be kept, that hold on to no read buffer of the connection.
    fn cut(self) -> Bytes {
        let bytes = match self {
            Self::Empty => return Bytes::new(),
            Self::One(bytes) => bytes,
            Self::Joined(bytes) => bytes.freeze(),
        };
        Bytes::copy_from_slice(&bytes[..bytes.len().min(RESPONSE_EXCERPT_BYTES_MAX)])
    }
}
