//! A bare HTTP server and client on loopback, straight on hyper: as little as possible between a measurement and the
//! wire.

use std::convert::Infallible;
use std::future::ready;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::client::legacy::Client as PooledClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// A request that a server received, whole.
#[derive(Clone, Debug)]
pub struct Received {
    /// Path of the request.
    pub path: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// Starts a server on a free loopback port. It answers every request with what `handler` says, and ends with the
/// runtime.
pub async fn serve<H>(handler: H) -> Result<SocketAddr>
where
    H: Fn(Received) -> StatusCode + Send + Sync + 'static,
{
    serve_in_time(move |received| ready(handler(received))).await
}

/// The same with a handler that may take its time. Where the sender hangs up meanwhile, it is not finished.
pub async fn serve_in_time<H, F>(handler: H) -> Result<SocketAddr>
where
    H: Fn(Received) -> F + Send + Sync + 'static,
    F: Future<Output = StatusCode> + Send + 'static,
{
    listen(Arc::new(handler), None).await
}

/// The same over TLS.
pub async fn serve_tls<H>(handler: H, tls: ServerConfig) -> Result<SocketAddr>
where
    H: Fn(Received) -> StatusCode + Send + Sync + 'static,
{
    let handler = move |received| ready(handler(received));
    listen(Arc::new(handler), Some(TlsAcceptor::from(Arc::new(tls)))).await
}

async fn listen<H, F>(handler: Arc<H>, tls: Option<TlsAcceptor>) -> Result<SocketAddr>
where
    H: Fn(Received) -> F + Send + Sync + 'static,
    F: Future<Output = StatusCode> + Send + 'static,
{
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("no loopback port is free")?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // A benchmark measures the work, not the wait of small packets.
            let _ = stream.set_nodelay(true);
            let (handler, tls) = (Arc::clone(&handler), tls.clone());
            tokio::spawn(async move {
                match tls {
                    None => converse(handler, stream).await,
                    // A peer that does not like the certificate hangs up.
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(stream).await {
                            converse(handler, stream).await;
                        }
                    }
                }
            });
        }
    });
    Ok(address)
}

async fn converse<H, F>(handler: Arc<H>, stream: impl AsyncRead + AsyncWrite + Unpin)
where
    H: Fn(Received) -> F,
    F: Future<Output = StatusCode>,
{
    let service = service_fn(move |request| answer(Arc::clone(&handler), request));
    // A peer that hangs up, or is killed, ends its connection and nothing else.
    let _ = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn answer<H, F>(
    handler: Arc<H>,
    request: Request<hyper::body::Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible>
where
    H: Fn(Received) -> F,
    F: Future<Output = StatusCode>,
{
    let (head, body) = request.into_parts();
    let mut response = Response::new(Full::default());
    *response.status_mut() = match body.collect().await {
        Ok(body) => {
            let received = Received { path: head.uri.path().to_owned(), headers: head.headers, body: body.to_bytes() };
            handler(received).await
        }
        // The sender broke off: nothing was received.
        Err(_) => StatusCode::BAD_REQUEST,
    };
    Ok(response)
}

/// A client with a connection pool.
#[derive(Clone)]
pub struct Client(PooledClient<HttpConnector, Full<Bytes>>);

impl Default for Client {
    fn default() -> Self {
        #[expect(clippy::disallowed_methods, reason = "it asks what the tests and benchmarks started themselves")]
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Self(PooledClient::builder(TokioExecutor::new()).build(connector))
    }
}

impl Client {
    /// Posts JSON and reads the whole answer.
    pub async fn post_json(&self, url: &str, body: Bytes) -> Result<(StatusCode, Bytes)> {
        let request = Request::post(url)
            .header("content-type", "application/json")
            .body(Full::new(body))
            .context("bad request")?;
        self.send(request).await
    }

    /// Gets a resource and reads the whole answer.
    pub async fn get(&self, url: &str) -> Result<(StatusCode, Bytes)> {
        self.send(Request::get(url).body(Full::default()).context("bad request")?).await
    }

    /// Sends any request and reads the whole answer.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes)> {
        let response = self.0.request(request).await?;
        let status = response.status();
        Ok((status, response.into_body().collect().await?.to_bytes()))
    }
}
