//! The client of the bare pipeline: connections to one host, each used by whoever finds it idle.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::HOST;
use hyper::rt::{Read, Write};
use hyper::{HeaderMap, Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

type Sender = SendRequest<Full<Bytes>>;

/// Posts to one host.
pub(super) struct Client {
    address: SocketAddr,
    host: String,
    tls: Option<TlsConnector>,
    idle: Mutex<Vec<Sender>>,
}

impl Client {
    /// For a host on this machine, over TLS if there is a configuration.
    pub(super) fn new(address: SocketAddr, tls: Option<Arc<ClientConfig>>) -> Self {
        let tls = tls.map(TlsConnector::from);
        Self { address, host: address.to_string(), tls, idle: Mutex::default() }
    }

    /// Posts a body and reads the whole answer.
    pub(super) async fn post(&self, path: &str, headers: HeaderMap, body: Bytes) -> Result<StatusCode> {
        let mut request = Request::post(path).header(HOST, &self.host).body(Full::new(body))?;
        request.headers_mut().extend(headers);
        let mut sender = self.sender().await?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        response.into_body().collect().await?;
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        Ok(status)
    }

    async fn sender(&self) -> Result<Sender> {
        loop {
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            match idle {
                // One that was closed meanwhile is dropped here.
                Some(mut sender) if !sender.is_closed() => {
                    sender.ready().await?;
                    return Ok(sender);
                }
                Some(_) => {}
                None => return self.connect().await,
            }
        }
    }

    async fn connect(&self) -> Result<Sender> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        match &self.tls {
            None => open(TokioIo::new(stream)).await,
            Some(tls) => {
                let name = ServerName::from(self.address.ip());
                open(TokioIo::new(tls.connect(name, stream).await?)).await
            }
        }
    }
}

async fn open(stream: impl Read + Write + Unpin + Send + 'static) -> Result<Sender> {
    let (sender, connection) = handshake(stream).await?;
    // A connection that fails fails the request on it.
    tokio::spawn(connection);
    Ok(sender)
}
