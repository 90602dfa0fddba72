//! Access tokens for receivers that want one: asked for, kept, and asked for again before they expire.
//!
//! The client credentials grant of OAuth 2.0 (RFC 6749, 4.4), sent as a bearer token (RFC 6750, 2.1). Whatever wants a
//! token waits for the one request that asks for it; the request goes on when those who wait give up. The token endpoint
//! is trusted no more than a receiver: it is asked by the same guarded client, and its answer is read strictly.

mod answer;
mod request;
mod state;

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use dispatcher_core::delivery::Outcome;
use dispatcher_core::limits::{TOKEN_PREFIX_BYTES_MIN, TOKEN_REQUEST_SHARE};
use dispatcher_core::redacted::Redacted;
use dispatcher_core::table::TokenSource;
use http::StatusCode;
use http::header::AUTHORIZATION;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use self::answer::TokenFailure;
use self::request::TokenRequest;
use self::state::{Look, State, Token};
use super::{Client, Exchange, NotMade, Request, Watch};
use crate::clock::now_unix_ms;

/// Asks for access tokens.
#[derive(Debug)]
pub struct Tokens {
    client: Client,
    request_timeout: Duration,
}

/// The access token of one endpoint, with the source that it is had from. Cheap to clone; clones share the token, and
/// what is dropped forgets it.
#[derive(Clone)]
pub struct TokenSlot(Arc<Slot>);

impl TokenSlot {
    /// A source that was not asked yet.
    pub fn new(source: TokenSource) -> Self {
        Self(Arc::new(Slot { source, inner: Mutex::default() }))
    }

    /// Whether this is its source.
    pub fn is_of(&self, source: &TokenSource) -> bool {
        self.0.source == *source
    }
}

impl fmt::Debug for TokenSlot {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("TokenSlot([redacted])")
    }
}

impl Tokens {
    /// Tokens that this client asks for, each request for at most this long.
    pub fn new(client: Client, request_timeout: Duration) -> Self {
        Self { client, request_timeout }
    }

    /// Sends a request by `client`, with an access token if the endpoint has a source of them. The deadline of the
    /// request includes the time for the token, of which a part is left for the request itself.
    ///
    /// Without a token nothing is sent, and the outcome is [`Outcome::TokenFailed`]. A receiver that answers 401 makes
    /// the token be forgotten, so that the next exchange asks for another; after several in a row not at once.
    ///
    /// # Errors
    /// [`NotMade`] if this machine lacks what it takes to ask for the token, or to send the request, and
    /// [`NotMade::TokenPause`] if none could be had a moment ago: then nobody was asked for anything.
    pub async fn exchange(
        &self,
        client: &Client,
        slot: Option<&TokenSlot>,
        request: Request<'_>,
    ) -> Result<Exchange, NotMade> {
        self.watched_exchange(client, slot, request, None).await
    }

    /// The same while somebody may watch over the deadline for a while, but for what it takes to ask for a token.
    ///
    /// # Errors
    /// As [`Self::exchange`].
    pub async fn watched_exchange(
        &self,
        client: &Client,
        slot: Option<&TokenSlot>,
        mut request: Request<'_>,
        watch: Option<&Watch>,
    ) -> Result<Exchange, NotMade> {
        let (started, deadline) = (Instant::now(), request.deadline);
        let Some(TokenSlot(slot)) = slot else { return client.exchange_since(started, watch, request).await };
        let failed = |reason: String| Exchange {
            outcome: Outcome::TokenFailed,
            status_code: None,
            retry_after: None,
            excerpt: format!("no access token: {reason}").into(),
            duration: started.elapsed(),
        };
        // A receiver that gets no time to answer must not be blamed for it.
        let patience = deadline.saturating_sub(deadline / TOKEN_REQUEST_SHARE);
        let token = match tokio::time::timeout(patience, slot.token(&self.client, self.request_timeout)).await {
            Ok(Ok(token)) => token,
            Ok(Err(NoToken::NotMade(reason))) => return Err(reason),
            Ok(Err(NoToken::Failed(failure))) => return Ok(failed(failure.to_string())),
            Err(_) => {
                let seconds = deadline.as_secs_f64();
                return Ok(failed(format!(
                    "the token endpoint did not answer soon enough to send anything within {seconds} s"
                )));
            }
        };
        request.headers.insert(AUTHORIZATION, token.header.clone());
        let mut exchange = client.exchange_since(started, watch, request).await?;
        if exchange.status_code == Some(StatusCode::UNAUTHORIZED.as_u16()) {
            slot.refused(&token);
        }
        exchange.excerpt = without(exchange.excerpt, token.secret());
        Ok(exchange)
    }
}

/// One source and its token. Dropped by all who want the token, it gives up asking for it.
struct Slot {
    source: TokenSource,
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
    /// It could not be asked for want of something here, or was not asked again so soon.
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
                Look::Pause(again_in) => return Err(NoToken::NotMade(NotMade::TokenPause(again_in))),
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
                state.failed(retry_after, now_unix_ms());
                Err(NoToken::Failed(Arc::new(failure)))
            }
        }
    }

    /// The receiver did not take the token.
    fn refused(&self, token: &Token) {
        lock(&self.inner).state.refused(token, now_unix_ms());
    }
}

/// An answer that repeats the token it was sent, with stars in its place: as it is, or escaped in JSON (RFC 8259, 7; some
/// escape the slash too).
fn without(excerpt: Bytes, secret: &[u8]) -> Bytes {
    let plain = Redacted::new(String::from_utf8_lossy(secret).into_owned());
    let escaped = Redacted::new(plain.expose().replace('\\', r"\\").replace('"', r#"\""#));
    let fully_escaped = Redacted::new(escaped.expose().replace('/', r"\/"));
    let forms = [plain, escaped, fully_escaped];
    forms.iter().fold(excerpt, |excerpt, form| starred(excerpt, form.expose().as_bytes()))
}

/// Stars in every place of the secret, and in that of its beginning where the answer was cut amid it.
fn starred(excerpt: Bytes, secret: &[u8]) -> Bytes {
    let end = excerpt.len();
    let is_at = |at: &usize| excerpt[*at..].starts_with(secret);
    let mut places: Vec<Range<usize>> = (0..end).filter(is_at).map(|at| at..at + secret.len()).collect();
    let cut_length = (TOKEN_PREFIX_BYTES_MIN..secret.len()).rev().find(|length| excerpt.ends_with(&secret[..*length]));
    places.extend(cut_length.map(|length| end - length..end));
    if places.is_empty() {
        return excerpt;
    }
    let mut starred = BytesMut::from(&*excerpt);
    for place in places {
        starred[place].fill(b'*');
    }
    starred.freeze()
}

/// Nothing panics while it holds one of these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use dispatcher_core::table::ClientAuthentication;

    use super::*;

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
    fn an_answer_that_is_cut_amid_the_token_does_not_repeat_its_beginning() {
        for (answer, expected) in [
            ("Bearer hunter", "Bearer ******"),
            ("Bearer hunter2 hunt", "Bearer ******* ****"),
            ("Bearer hun", "Bearer hun"),
            ("hunt Bearer", "hunt Bearer"),
        ] {
            assert_eq!(without(Bytes::from_static(answer.as_bytes()), b"hunter2"), expected.as_bytes(), "{answer}");
        }
    }

    #[test]
    fn an_answer_does_not_repeat_the_token_escaped() {
        for (answer, expected) in [
            (r#"a"b\c/d"#, "*******"),
            (r#"{"seen":"a\"b\\c/d"}"#, r#"{"seen":"*********"}"#),
            (r#"{"seen":"a\"b\\c\/d"}"#, r#"{"seen":"**********"}"#),
            (r#"{"seen":"a\"b\\c\"#, r#"{"seen":"********"#),
        ] {
            assert_eq!(without(Bytes::from_static(answer.as_bytes()), br#"a"b\c/d"#), expected.as_bytes(), "{answer}");
        }
    }

    #[test]
    fn nothing_of_a_source_is_printed() {
        let source = TokenSource {
            url: "https://login.example.com/token".to_owned().into(),
            client_id: "hooks".to_owned().into(),
            client_secret: "hunter2".to_owned().into(),
            authentication: ClientAuthentication::Basic,
            scopes: Vec::new(),
            audience: None,
        };
        assert!(!format!("{:?}", TokenRequest::new(&source)).contains("hunter2"));
        assert_eq!(format!("{:?}", TokenSlot::new(source)), "TokenSlot([redacted])");
    }
}
