//! Access tokens for receivers that want one: asked for, kept, and asked for again before they expire.
//!
//! The client credentials grant of OAuth 2.0 (RFC 6749, 4.4), sent as a bearer token (RFC 6750, 2.1). Whatever wants a
//! token waits for the one request that asks for it; the request goes on when those who wait give up. The token endpoint
//! is trusted no more than a receiver: it is asked by the same guarded client, and its answer is read strictly.

mod answer;
mod request;
mod state;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use dispatcher_core::delivery::Outcome;
use dispatcher_core::id::EndpointId;
use dispatcher_core::limits::TOKENS_MAX;
use dispatcher_core::table::TokenSource;
use http::StatusCode;
use http::header::AUTHORIZATION;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use self::answer::TokenFailure;
use self::request::TokenRequest;
use self::state::{Look, State, Token};
use super::{Client, Exchange, NotMade, Request};
use crate::clock::now_unix_ms;

/// The access tokens of one process, one for each endpoint that has a source of them.
pub struct Tokens {
    client: Client,
    request_timeout: Duration,
    slots_max: usize,
    slots: Mutex<HashMap<EndpointId, Arc<Slot>>>,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Tokens").field("slots", &lock(&self.slots).len()).finish_non_exhaustive()
    }
}

impl Tokens {
    /// Tokens that this client asks for, each request for at most this long.
    pub fn new(client: Client, request_timeout: Duration) -> Self {
        Self { client, request_timeout, slots_max: TOKENS_MAX, slots: Mutex::default() }
    }

    /// Sends a request by `client`, with an access token of the source if the endpoint has one. The deadline of the
    /// request includes the time for the token.
    ///
    /// Without a token nothing is sent, and the outcome is [`Outcome::TokenFailed`]. A receiver that answers 401 makes
    /// the token be forgotten, so that the next exchange asks for another.
    ///
    /// # Errors
    /// [`NotMade`] if this machine lacks what it takes to ask for the token, or to send the request.
    pub async fn exchange(
        &self,
        client: &Client,
        endpoint: EndpointId,
        source: Option<&TokenSource>,
        mut request: Request<'_>,
    ) -> Result<Exchange, NotMade> {
        let Some(source) = source else { return client.exchange(request).await };
        let (started, deadline) = (Instant::now(), request.deadline);
        let slot = self.slot(endpoint, source);
        let failed = |reason: String| Exchange {
            outcome: Outcome::TokenFailed,
            status_code: None,
            retry_after: None,
            excerpt: format!("no access token: {reason}").into(),
            duration: started.elapsed(),
        };
        let token = match tokio::time::timeout(deadline, slot.token(&self.client, self.request_timeout)).await {
            Ok(Ok(token)) => token,
            Ok(Err(NoToken::NotMade(reason))) => return Err(reason),
            Ok(Err(NoToken::Failed(failure))) => return Ok(failed(failure.to_string())),
            Ok(Err(NoToken::FailedBefore { failure, again_in })) => {
                let seconds = again_in.as_secs_f64().ceil();
                return Ok(failed(format!("{failure}; it is asked again in {seconds} s")));
            }
            Err(_) => {
                let seconds = deadline.as_secs_f64();
                return Ok(failed(format!("the token endpoint did not answer within the {seconds} s of the exchange")));
            }
        };
        request.headers.insert(AUTHORIZATION, token.header.clone());
        request.deadline = deadline.saturating_sub(started.elapsed());
        let mut exchange = client.exchange(request).await?;
        if exchange.status_code == Some(StatusCode::UNAUTHORIZED.as_u16()) {
            slot.refused(&token);
        }
        exchange.excerpt = without(exchange.excerpt, token.secret());
        exchange.duration = started.elapsed();
        Ok(exchange)
    }

    /// Forgets the tokens of every endpoint for which `is_current` does not confirm the source.
    pub fn retain(&self, is_current: impl Fn(EndpointId, &TokenSource) -> bool) {
        lock(&self.slots).retain(|endpoint, slot| is_current(*endpoint, &slot.source));
    }

    /// The slot of an endpoint. Another source than before begins with nothing.
    fn slot(&self, endpoint: EndpointId, source: &TokenSource) -> Arc<Slot> {
        let now_ms = now_unix_ms();
        let mut slots = lock(&self.slots);
        if let Some(slot) = slots.get(&endpoint).filter(|slot| slot.source == *source) {
            slot.used_at_ms.store(now_ms, Ordering::Relaxed);
            return Arc::clone(slot);
        }
        slots.remove(&endpoint);
        if slots.len() >= self.slots_max {
            let longest_unused = slots.iter().min_by_key(|(_, slot)| slot.used_at_ms.load(Ordering::Relaxed));
            if let Some(endpoint) = longest_unused.map(|(endpoint, _)| *endpoint) {
                slots.remove(&endpoint);
            }
        }
        let used_at_ms = AtomicU64::new(now_ms);
        let slot = Arc::new(Slot { source: source.clone(), used_at_ms, inner: Mutex::default() });
        slots.insert(endpoint, Arc::clone(&slot));
        slot
    }
}

/// One source and its token. Dropped by all who want the token, it gives up asking for it.
struct Slot {
    source: TokenSource,
    used_at_ms: AtomicU64,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    state: State,
    asked: Option<Asked>,
}

/// The request for a token that was sent last.
struct Asked {
    answer: watch::Receiver<Option<Result<Token, NoToken>>>,
    task: AbortOnDropHandle<()>,
}

/// Why there is no token.
#[derive(Clone, Debug)]
enum NoToken {
    /// The token endpoint gave none.
    Failed(Arc<TokenFailure>),
    /// It gave none a moment ago, and was not asked again.
    FailedBefore { failure: Arc<TokenFailure>, again_in: Duration },
    /// It could not be asked for want of something here.
    NotMade(NotMade),
}

impl Asked {
    fn is_under_way(&self) -> bool {
        self.answer.borrow().is_none() && !self.task.is_finished()
    }
}

impl Slot {
    /// The token, if need be asked for, by one request for all who want it.
    async fn token(self: &Arc<Self>, client: &Client, request_timeout: Duration) -> Result<Token, NoToken> {
        let mut answer = {
            let mut inner = lock(&self.inner);
            let Inner { state, asked } = &mut *inner;
            asked.take_if(|asked| !asked.is_under_way());
            let ask = || self.ask(client, request_timeout);
            match state.look(now_unix_ms()) {
                Look::Use(token) => return Ok(token),
                Look::UseAndAsk(token) => {
                    asked.get_or_insert_with(ask);
                    return Ok(token);
                }
                Look::Failed { failure, again_in } => return Err(NoToken::FailedBefore { failure, again_in }),
                Look::Ask => asked.get_or_insert_with(ask).answer.clone(),
            }
        };
        let answer = answer.wait_for(Option::is_some).await.ok().and_then(|answer| answer.clone());
        answer.expect("whoever waits keeps the request alive; a panic in it is one here too")
    }

    fn ask(self: &Arc<Self>, client: &Client, request_timeout: Duration) -> Asked {
        let (sender, answer) = watch::channel(None);
        // The task does not keep the slot: a source that nobody wants any more is not asked.
        let (slot, client) = (Arc::downgrade(self), client.clone());
        let request = TokenRequest::new(&self.source);
        let task = tokio::spawn(async move {
            let asked_at_ms = now_unix_ms();
            let exchange = match request {
                Ok(TokenRequest { url, headers, body }) => Ok(client
                    .exchange(Request { url: &url, identity: None, headers, body, deadline: request_timeout })
                    .await),
                Err(failure) => Err(failure),
            };
            if let Some(slot) = Weak::upgrade(&slot) {
                sender.send_replace(Some(slot.answered(asked_at_ms, exchange)));
            }
        });
        Asked { answer, task: AbortOnDropHandle::new(task) }
    }

    /// Notes what the token endpoint answered.
    fn answered(
        &self,
        asked_at_ms: u64,
        exchange: Result<Result<Exchange, NotMade>, TokenFailure>,
    ) -> Result<Token, NoToken> {
        let (read, retry_after) = match exchange {
            Ok(Ok(exchange)) => (answer::read(&exchange, &self.source), exchange.retry_after),
            Ok(Err(reason)) => return Err(NoToken::NotMade(reason)),
            Err(failure) => (Err(failure), None),
        };
        let state = &mut lock(&self.inner).state;
        match read {
            Ok(grant) => Ok(state.granted(grant, asked_at_ms)),
            Err(failure) => {
                tracing::debug!(%failure, "no access token could be had");
                let failure = Arc::new(failure);
                state.failed(Arc::clone(&failure), retry_after, now_unix_ms());
                Err(NoToken::Failed(failure))
            }
        }
    }

    /// The receiver did not take the token.
    fn refused(&self, token: &Token) {
        lock(&self.inner).state.refused(token, now_unix_ms());
    }
}

/// An answer that repeats the token it was sent, with stars in its place.
fn without(excerpt: Bytes, secret: &[u8]) -> Bytes {
    let is_at = |at: &usize| excerpt[*at..].starts_with(secret);
    let places: Vec<usize> = (0..excerpt.len()).filter(is_at).collect();
    if places.is_empty() {
        return excerpt;
    }
    let mut starred = BytesMut::from(&*excerpt);
    for place in places {
        starred[place..place + secret.len()].fill(b'*');
    }
    starred.freeze()
}

/// Nothing panics while it holds one of these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use dispatcher_core::address::AddressPolicy;
    use dispatcher_core::id::TenantId;
    use dispatcher_core::table::ClientAuthentication;

    use super::*;
    use crate::http::{ClientConfig, ResolverConfig};

    fn source(secret: &str) -> TokenSource {
        TokenSource {
            url: "https://login.example.com/token".to_owned().into(),
            client_id: "hooks".to_owned().into(),
            client_secret: secret.to_owned().into(),
            authentication: ClientAuthentication::Basic,
            scopes: Vec::new(),
            audience: None,
        }
    }

    fn tokens(slots_max: usize) -> Tokens {
        let (address_policy, resolver) = (AddressPolicy::public_https(), ResolverConfig::default());
        let client = Client::new(ClientConfig { address_policy, resolver }).unwrap();
        Tokens { slots_max, ..Tokens::new(client, Duration::from_secs(1)) }
    }

    fn endpoint(name: &str) -> EndpointId {
        EndpointId::derive(TenantId::of_namespace_name("shop"), name)
    }

    #[test]
    fn another_source_begins_with_nothing_and_the_old_one_is_forgotten() {
        let tokens = tokens(10);
        let first = tokens.slot(endpoint("a"), &source("one"));
        assert!(Arc::ptr_eq(&first, &tokens.slot(endpoint("a"), &source("one"))));
        assert!(!Arc::ptr_eq(&first, &tokens.slot(endpoint("b"), &source("one"))), "endpoints share no token");
        let rotated = tokens.slot(endpoint("a"), &source("two"));
        assert!(!Arc::ptr_eq(&first, &rotated));
        assert_eq!(Arc::strong_count(&first), 1, "nobody else has it");
        tokens.retain(|id, current| id == endpoint("b") && *current == source("one"));
        assert_eq!(lock(&tokens.slots).keys().collect::<Vec<_>>(), [&endpoint("b")]);
        tokens.retain(|_, current| *current == source("two"));
        assert!(lock(&tokens.slots).is_empty());
    }

    #[test]
    fn the_token_that_was_not_used_for_longest_makes_room() {
        let tokens = tokens(2);
        for (name, used_at_ms) in [("a", 2), ("b", 1)] {
            tokens.slot(endpoint(name), &source("one")).used_at_ms.store(used_at_ms, Ordering::Relaxed);
        }
        tokens.slot(endpoint("a"), &source("two")).used_at_ms.store(3, Ordering::Relaxed);
        assert_eq!(lock(&tokens.slots).len(), 2, "a source that replaces one needs no room");
        tokens.slot(endpoint("c"), &source("one"));
        let slots = lock(&tokens.slots);
        assert!(slots.len() == 2 && !slots.contains_key(&endpoint("b")), "{:?}", slots.keys());
    }

    #[test]
    fn an_answer_does_not_repeat_the_token() {
        for (answer, expected) in [
            ("nothing", "nothing"),
            ("Bearer abc-abc, abc", "Bearer *******, abc"),
            ("abc-abc", "*******"),
            ("abc-abc-abc", "***********"),
            ("", ""),
        ] {
            assert_eq!(without(Bytes::from_static(answer.as_bytes()), b"abc-abc"), expected.as_bytes());
        }
    }

    #[test]
    fn nothing_of_a_source_is_printed() {
        let tokens = tokens(2);
        tokens.slot(endpoint("a"), &source("hunter2"));
        assert_eq!(format!("{tokens:?}"), "Tokens { slots: 1, .. }");
        assert!(!format!("{:?}", TokenRequest::new(&source("hunter2"))).contains("hunter2"));
    }
}
