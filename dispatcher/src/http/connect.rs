//! How connections are made: the guarded look-up, TCP, and TLS where the URL says so, all within one time.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use dispatcher_core::limits::{
    CONNECT_TIMEOUT, IDLE_CONNECTION_LIFETIME, IDLE_CONNECTIONS_PER_HOST_MAX, KEEPALIVE_INTERVAL, KEEPALIVE_PROBES_MAX,
    RESPONSE_HEADERS_MAX, UNACKNOWLEDGED_MAX,
};
use futures::future::BoxFuture;
use http::Uri;
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower_service::Service;

use super::resolve::{BoxError, GuardedResolver};

/// Sends requests over connections of its own, which it keeps for a while.
pub(super) type Pool = legacy::Client<Connector, Full<Bytes>>;

/// Makes connections. Addresses that a URL names are not looked up: whoever uses it checks the URL before.
#[derive(Clone)]
pub(super) struct Connector(HttpsConnector<HttpConnector<GuardedResolver>>);

/// A pool whose connections are made in this way, for HTTP/1.1 alone.
pub(super) fn pool(resolver: GuardedResolver, tls: ClientConfig) -> Pool {
    let mut tcp = HttpConnector::new_with_resolver(resolver);
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    // A name with several addresses must not use all the time on the first.
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    tcp.set_keepalive(Some(KEEPALIVE_INTERVAL));
    tcp.set_keepalive_interval(Some(KEEPALIVE_INTERVAL));
    tcp.set_keepalive_retries(Some(KEEPALIVE_PROBES_MAX));
    // Other systems have no such option.
    #[cfg(target_os = "linux")]
    tcp.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX));
    legacy::Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_max_idle_per_host(IDLE_CONNECTIONS_PER_HOST_MAX)
        .pool_idle_timeout(IDLE_CONNECTION_LIFETIME)
        .http1_max_headers(RESPONSE_HEADERS_MAX)
        .build(Connector(HttpsConnector::from((tcp, Arc::new(tls)))))
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.0.call(uri);
        Box::pin(async move {
            let late = || io::Error::new(io::ErrorKind::TimedOut, "no connection could be made in time").into();
            timeout(CONNECT_TIMEOUT, connecting).await.unwrap_or_else(|_| Err(late()))
        })
    }
}
