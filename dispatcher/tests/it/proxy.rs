//! A network between a process and a server that can be cut, or stand and carry nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dispatcher_core::redacted::Redacted;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;

/// A way to a server.
pub(crate) struct Proxy {
    connections: Arc<Mutex<Vec<JoinHandle<()>>>>,
    accepting: JoinHandle<()>,
    made: Arc<AtomicUsize>,
    /// The first connection, in the order in which they were made, that carries anything.
    first_carrying: watch::Sender<usize>,
}

impl Proxy {
    /// A proxy to the server of a URL, and the URL that leads through it.
    pub(crate) async fn to(url: &str) -> (Self, Redacted<String>) {
        let mut url = url::Url::parse(url).unwrap();
        let usual_port = if url.scheme().starts_with("amqp") { 5672 } else { 5432 };
        let server = (url.host_str().unwrap().to_owned(), url.port().unwrap_or(usual_port));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        url.set_host(Some("127.0.0.1")).unwrap();
        url.set_port(Some(listener.local_addr().unwrap().port())).unwrap();
        let (first_carrying, first) = watch::channel(0);
        let made = Arc::new(AtomicUsize::new(0));
        let number = Arc::clone(&made);
        let connections: Arc<Mutex<Vec<JoinHandle<()>>>> = Arc::default();
        let accepted = Arc::clone(&connections);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (server, first) = (server.clone(), first.clone());
                let number = number.fetch_add(1, Ordering::SeqCst);
                accepted.lock().await.push(tokio::spawn(async move {
                    let (client, to_client) = client.into_split();
                    let (server, to_server) = TcpStream::connect(server).await.unwrap().into_split();
                    // Whichever side ends, the other one ends with it.
                    tokio::select! {
                        () = carry(client, to_server, (number, first.clone())) => {}
                        () = carry(server, to_client, (number, first)) => {}
                    }
                }));
            }
        });
        (Self { connections, accepting, made, first_carrying }, Redacted::new(url.to_string()))
    }

    /// Connections that were made since the start, or since they were cut.
    pub(crate) async fn connections(&self) -> usize {
        self.connections.lock().await.len()
    }

    /// Ends every connection; returns when nothing goes through them any more. New ones are made as before.
    pub(crate) async fn cut(&self) {
        for connection in self.connections.lock().await.drain(..) {
            connection.abort();
            assert!(connection.await.unwrap_err().is_cancelled(), "it was still there");
        }
    }

    /// From now on all connections stand and carry nothing.
    pub(crate) fn stop(&self) {
        self.first_carrying.send_replace(usize::MAX);
    }

    /// All connections carry again, also what was sent meanwhile.
    pub(crate) fn go_on(&self) {
        self.first_carrying.send_replace(0);
    }

    /// The connections that there are carry nothing any more; new ones do.
    pub(crate) fn strand(&self) {
        self.first_carrying.send_replace(self.made.load(Ordering::SeqCst));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Carries bytes one way while the connection of this number may.
async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, (number, mut first): (usize, watch::Receiver<usize>)) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if first.wait_for(|first| *first <= number).await.is_err() || to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
