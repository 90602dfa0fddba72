//! Refuses requests for host names that are not this machine's.
//!
//! Where access is open, a web page may lead its own name to a loopback address (DNS rebinding), and the browser then
//! takes our answers for those of the page's server. Such a request names the page's host.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use http::header;
use http::uri::Authority;

use crate::metrics::Metrics;
use crate::problem::{Problem, ProblemKind};

/// The router behind a check of every host that a request names. One that names none comes from no browser.
pub fn for_this_machine_only(router: Router, metrics: Arc<Metrics>) -> Router {
    router.layer(from_fn_with_state(metrics, check))
}

async fn check(State(metrics): State<Arc<Metrics>>, request: Request, next: Next) -> Response {
    let in_target = request.uri().authority().is_none_or(|authority| is_this_machine(authority.as_str()));
    let mut in_headers = request.headers().get_all(header::HOST).iter();
    if in_target && in_headers.all(|value| value.to_str().is_ok_and(is_this_machine)) {
        return next.run(request).await;
    }
    metrics.request_rejected(ProblemKind::ForeignHost);
    let detail = "The API asks for no credentials, so it answers only to names of this machine, lest web pages use it: \
                  use localhost, a name that ends in .localhost, or a loopback address.";
    Problem::new(ProblemKind::ForeignHost, detail).at("host").into_response()
}

/// Whether a host, with or without a port, is a loopback address, `localhost` or a name below it (RFC 6761, 6.3).
fn is_this_machine(host: &str) -> bool {
    if host.contains('@') {
        return false;
    }
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let host = authority.host();
    if let Some(literal) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return literal.parse::<Ipv6Addr>().is_ok_and(|address| address.to_canonical().is_loopback());
    }
    if let Ok(address) = host.parse::<Ipv4Addr>() {
        return address.is_loopback();
    }
    let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_addresses_and_localhost_are_this_machine() {
        for host in [
            "localhost",
            "localhost:8080",
            "LocalHost:1",
            "localhost.",
            "receiver.localhost:9000",
            "127.0.0.1",
            "127.0.0.1:8080",
            "127.8.9.1",
            "[::1]",
            "[::1]:8080",
            "[::ffff:127.0.0.1]:1",
        ] {
            assert!(is_this_machine(host), "{host}");
        }
        for host in [
            "",
            ":8080",
            "evil.example",
            "evil.example:8080",
            "localhost.evil.example",
            "notlocalhost",
            "127.0.0.1.evil.example",
            "127.0.0.1@evil.example",
            "evil.example@127.0.0.1",
            "localhost/evil.example",
            "0.0.0.0",
            "10.0.0.1",
            "[::]",
            "[fe80::1]",
            "::1",
            "2130706433",
            "localhost evil.example",
        ] {
            assert!(!is_this_machine(host), "{host}");
        }
    }
}
