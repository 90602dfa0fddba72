//! Why an exchange failed, read from the types of the errors and never from their text.

use std::error::Error;
use std::io;
use std::time::Duration;

use dispatcher_core::address::AddressError;
use dispatcher_core::delivery::Outcome;

/// A failed exchange.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) outcome: Outcome,
    /// For people. Holds no URL: paths and queries can be secrets.
    pub(super) description: String,
}

/// An address that must not be reached.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(super) struct RefusedAddress(#[from] AddressError);

/// A name without a usable answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum LookupFailed {
    #[error("the host's name does not resolve: {0}")]
    System(#[source] io::Error),
    #[error("the host's name has no address")]
    NoAddress,
    #[error("the host's name has too many addresses")]
    TooMany,
}

impl Failure {
    pub(super) fn timeout(deadline: Duration) -> Self {
        let description = format!("the exchange did not end within {} s", deadline.as_secs_f64());
        Self { outcome: Outcome::Timeout, description }
    }

    pub(super) fn no_answer() -> Self {
        Self { outcome: Outcome::Network, description: "the receiver did not answer".to_owned() }
    }
}

impl From<AddressError> for Failure {
    fn from(error: AddressError) -> Self {
        Self { outcome: Outcome::AddressBlocked, description: error.to_string() }
    }
}

impl From<RefusedAddress> for Failure {
    fn from(error: RefusedAddress) -> Self {
        error.0.into()
    }
}

impl From<reqwest::Error> for Failure {
    fn from(error: reqwest::Error) -> Self {
        let error = error.without_url();
        Self { outcome: classify(&error), description: describe(&error) }
    }
}

/// The class of the first error in the chain that has one. The chain goes from the general to the particular, so
/// what is looked for first decides: a refused address, then the look-up, TLS, a time limit, a refused connection.
fn classify(error: &(dyn Error + 'static)) -> Outcome {
    let chain = chain(error);
    let holds = |wanted: fn(&(dyn Error + 'static)) -> bool| chain.iter().any(|error| wanted(*error));
    if holds(<dyn Error>::is::<RefusedAddress>) {
        Outcome::AddressBlocked
    } else if holds(<dyn Error>::is::<LookupFailed>) {
        Outcome::DnsError
    } else if holds(<dyn Error>::is::<rustls::Error>) {
        Outcome::TlsError
    } else if holds(is_timeout) {
        Outcome::Timeout
    } else if holds(|error| has_kind(error, io::ErrorKind::ConnectionRefused)) {
        Outcome::ConnectionRefused
    } else {
        Outcome::Network
    }
}

fn is_timeout(error: &(dyn Error + 'static)) -> bool {
    error.downcast_ref::<reqwest::Error>().is_some_and(reqwest::Error::is_timeout)
        || error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_timeout)
        || has_kind(error, io::ErrorKind::TimedOut)
}

fn has_kind(error: &(dyn Error + 'static), kind: io::ErrorKind) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == kind)
}

/// The error and everything below it. What an [`io::Error`] wraps is not its source, but part of the chain here.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> Vec<&'a (dyn Error + 'static)> {
    let mut chain = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        chain.push(error);
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = wrapped.map(|error| error as &(dyn Error + 'static)).or_else(|| error.source());
    }
    chain
}

/// The messages of the chain, each once.
fn describe(error: &(dyn Error + 'static)) -> String {
    let mut messages: Vec<String> = Vec::new();
    for error in chain(error) {
        let message = error.to_string();
        if messages.last().is_none_or(|last| !last.ends_with(&message)) {
            messages.push(message);
        }
    }
    messages.join(": ")
}
