//! Why an exchange failed, read from the types of the errors and never from their text.

mod tls;

use std::error::Error;
use std::io;
use std::time::Duration;

use dispatcher_core::address::{AddressError, AddressErrorReason};
use dispatcher_core::delivery::Outcome;
use hyper_util::client::legacy;
use rustix::io::Errno;
use url::Url;

use super::identity::IdentityError;

/// A failed exchange.
#[derive(Debug)]
pub(super) enum Failure {
    /// For want of something here.
    Ours(NotMade),
    /// For the receiver, or the way there.
    Theirs {
        outcome: Outcome,
        /// For people. Holds no URL: paths and queries can be secrets.
        description: String,
    },
}

/// Why an exchange was not made, or broke off, that says nothing about the receiver: this machine lacks something, or
/// the request is not one that can be made, or not yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotMade {
    /// No file descriptor is left, of this process or of the machine.
    #[error("no file descriptor is left: raise the limit of open files, or lower the number of exchanges in flight")]
    FileDescriptors,
    /// No memory is left for a connection.
    #[error("no memory is left for a connection: give the machine more, or lower the number of exchanges in flight")]
    Memory,
    /// No local port is left.
    #[error("no local port is left: widen the range of ephemeral ports, or spread the work over more machines")]
    Ports,
    /// The machine's network is down.
    #[error("the network of this machine is down")]
    NetworkDown,
    /// No client could be built in time for a TLS identity.
    #[error(
        "no client can be built for a TLS identity: are the system's root certificates installed (ca-certificates)?"
    )]
    NoClient,
    /// The token endpoint gave no access token a moment ago, and is left alone for this time.
    #[error("no access token could be had a moment ago; it is asked for again in {} s", .0.as_secs_f64().ceil())]
    TokenPause(Duration),
    /// The certificates or the key of the TLS identity cannot be used.
    #[error("the TLS identity cannot be used: {0}")]
    Identity(#[source] IdentityError),
}

impl NotMade {
    /// A stable name for logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FileDescriptors => "file_descriptors",
            Self::Memory => "memory",
            Self::Ports => "ports",
            Self::NetworkDown => "network_down",
            Self::NoClient => "no_client",
            Self::TokenPause(_) => "token_pause",
            Self::Identity(error) => error.reason.as_str(),
        }
    }

    fn of_code(code: i32) -> Option<Self> {
        match Errno::from_raw_os_error(code) {
            Errno::MFILE | Errno::NFILE => Some(Self::FileDescriptors),
            Errno::NOMEM | Errno::NOBUFS => Some(Self::Memory),
            Errno::ADDRNOTAVAIL => Some(Self::Ports),
            Errno::NETDOWN => Some(Self::NetworkDown),
            _ => None,
        }
    }
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
        Self::Theirs { outcome: Outcome::Timeout, description }
    }

    pub(super) fn no_answer() -> Self {
        Self::Theirs { outcome: Outcome::Network, description: "the receiver did not answer".to_owned() }
    }

    /// What became of an exchange with this URL.
    pub(super) fn of(error: &(dyn Error + 'static), url: &Url) -> Self {
        if let Some(refused) = chain(error).into_iter().find_map(|error| error.downcast_ref::<RefusedAddress>()) {
            return refused.0.clone().into();
        }
        match not_made(error) {
            Some(reason) => Self::Ours(reason),
            None if url.scheme() == "https" && is_unsent(error) => Self::Theirs {
                outcome: Outcome::TlsError,
                description: format!("{}; {}", describe(error), tls::ENDED_AFTER_HANDSHAKE),
            },
            None => Self::Theirs { outcome: classify(error), description: describe(error) },
        }
    }
}

/// The description goes to the tenant: it names neither what a name resolved to nor what the installation denies.
impl From<AddressError> for Failure {
    fn from(error: AddressError) -> Self {
        tracing::debug!(%error, "an address is refused");
        let reason = error.reason();
        let description = format!("the address is refused ({}): {}", reason.as_str(), what_to_do(reason));
        Self::Theirs { outcome: Outcome::AddressBlocked, description }
    }
}

fn what_to_do(reason: AddressErrorReason) -> &'static str {
    match reason {
        AddressErrorReason::Scheme => "use an https URL",
        AddressErrorReason::UserInfo => "take the user name and password out of the URL",
        AddressErrorReason::NoHost => "give the URL a host",
        AddressErrorReason::Port => "use port 443 or 8443, or have the installation open the port",
        AddressErrorReason::InternalHost => "use a public name, or have the installation allow it",
        AddressErrorReason::Denied => "use another address, or have the installation no longer deny it",
        _ => "use a public address, or have the installation allow it",
    }
}

impl From<RefusedAddress> for Failure {
    fn from(error: RefusedAddress) -> Self {
        error.0.into()
    }
}

/// What this machine lacks, if that is in the chain, whatever part of the exchange met it.
fn not_made(error: &(dyn Error + 'static)) -> Option<NotMade> {
    let code = |error: &(dyn Error + 'static)| error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
    chain(error).into_iter().filter_map(code).find_map(NotMade::of_code)
}

/// The class of the first error in the chain that has one. The chain goes from the general to the particular, so
/// what is looked for first decides: the look-up, then TLS, a time limit, a refused connection.
///
/// A resolver that is out of order counts as a name that does not resolve: the standard library keeps the code of
/// `getaddrinfo` to itself, so `EAI_AGAIN` cannot be told from `EAI_NONAME`. Such attempts count.
fn classify(error: &(dyn Error + 'static)) -> Outcome {
    let chain = chain(error);
    let holds = |wanted: fn(&(dyn Error + 'static)) -> bool| chain.iter().any(|error| wanted(*error));
    if holds(<dyn Error>::is::<LookupFailed>) {
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

/// Whether the connection ended before anything of the request was written to it. A connection from the pool is then
/// replaced, so this one was new: over TLS 1.3 a receiver refuses a client certificate after our side of the handshake
/// has ended (RFC 8446, 4.4.2.4), and the alert may come when nobody reads any more. A reset amid the request stays a
/// failure of the network: nothing tells a refusal from any other.
fn is_unsent(error: &(dyn Error + 'static)) -> bool {
    let chain = chain(error);
    let says_more = chain.iter().any(|error| error.is::<rustls::Error>());
    !says_more && chain.iter().any(|error| error.downcast_ref().is_some_and(hyper::Error::is_canceled))
}

fn is_timeout(error: &(dyn Error + 'static)) -> bool {
    error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_timeout)
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

/// The messages of the chain, each once, and what to do about an error of TLS. What the pool of connections has to say is
/// left out: its `client` is not the tenant's, and why it failed is told below it.
fn describe(error: &(dyn Error + 'static)) -> String {
    let mut messages: Vec<String> = Vec::new();
    for error in chain(error).into_iter().filter(|error| !error.is::<legacy::Error>()) {
        let message = error.to_string();
        if messages.last().is_none_or(|last| !last.ends_with(&message)) {
            messages.push(message);
        }
    }
    // Nothing is known that would leave none.
    let description = if messages.is_empty() { "the request was not sent".to_owned() } else { messages.join(": ") };
    let advice = chain(error).into_iter().find_map(|error| error.downcast_ref().and_then(tls::advice));
    match advice {
        Some(advice) => format!("{description}; {advice}"),
        None => description,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_takes_too_long_is_a_timeout_at_whatever_depth() {
        let late = || io::Error::new(io::ErrorKind::TimedOut, "no connection could be made in time");
        assert_eq!(classify(&late()), Outcome::Timeout);
        assert_eq!(classify(&io::Error::other(late())), Outcome::Timeout);
        assert_eq!(classify(&io::Error::other("something else")), Outcome::Network);
    }

    #[test]
    fn what_this_machine_lacks_is_not_the_receivers_failure() {
        for (code, reason) in [
            (Errno::MFILE, Some(NotMade::FileDescriptors)),
            (Errno::NFILE, Some(NotMade::FileDescriptors)),
            (Errno::NOBUFS, Some(NotMade::Memory)),
            (Errno::NOMEM, Some(NotMade::Memory)),
            (Errno::ADDRNOTAVAIL, Some(NotMade::Ports)),
            (Errno::NETDOWN, Some(NotMade::NetworkDown)),
            (Errno::CONNREFUSED, None),
            (Errno::CONNRESET, None),
            (Errno::TIMEDOUT, None),
            (Errno::NETUNREACH, None),
            (Errno::HOSTUNREACH, None),
        ] {
            let below = io::Error::from_raw_os_error(code.raw_os_error());
            assert_eq!(not_made(&below), reason, "{code:?}");
            assert_eq!(not_made(&io::Error::other(LookupFailed::System(below))), reason, "{code:?}, wrapped");
        }
    }
}
