//! A network between a client and a server that can be cut, held and reset.

mod rename;

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use url::Url;

use rename::Rename;

/// Bytes that are read at once.
const CHUNK_BYTES: usize = 16 * 1024;

/// A way to a server. It ends with the value, and every connection through it.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    server: String,
    /// What clients call something, and what the server does.
    names: Option<(String, String)>,
    /// Connections that were made.
    made: AtomicUsize,
    /// The first connection, in the order in which they were made, that carries anything.
    first_carrying: watch::Sender<usize>,
    /// Bytes that clients may still send until their connection is reset, and one more; zero for any number.
    reset_after: AtomicUsize,
    resets: AtomicUsize,
    /// Whether connections end as soon as they are made.
    refuses: AtomicBool,
    connections: Mutex<Vec<JoinHandle<()>>>,
}

impl Proxy {
    /// A proxy to the server of a URL, on a loopback port of its own.
    pub async fn to(url: &str) -> Result<Self> {
        Self::start(url, None).await
    }

    /// The same, where something has another name for clients than for the server; of the same length, because lengths
    /// are told before names. It must not end like the beginning of the name, whatever is said in one go.
    pub async fn renaming(url: &str, clients_name: &str, servers_name: &str) -> Result<Self> {
        Self::start(url, Some((clients_name.to_owned(), servers_name.to_owned()))).await
    }

    async fn start(url: &str, names: Option<(String, String)>) -> Result<Self> {
        let url = Url::parse(url).context("the proxy needs a URL")?;
        let usual_port = match url.scheme() {
            "amqp" => Some(5672),
            "postgres" | "postgresql" => Some(5432),
            _ => None,
        };
        let port = url.port().or(usual_port).context("the URL has no port")?;
        let server = format!("{}:{port}", url.host_str().context("the URL has no host")?);
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("no loopback port is free")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            server,
            names,
            made: AtomicUsize::new(0),
            first_carrying: watch::Sender::new(0),
            reset_after: AtomicUsize::new(0),
            resets: AtomicUsize::new(0),
            refuses: AtomicBool::new(false),
            connections: Mutex::default(),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { address, shared, accepting })
    }

    /// The URL that leads through the proxy instead of straight to its server.
    pub fn through(&self, url: &str) -> Result<String> {
        let mut url = Url::parse(url)?;
        url.set_host(Some("127.0.0.1"))?;
        url.set_port(Some(self.address.port())).ok().context("the URL cannot have a port")?;
        Ok(url.into())
    }

    /// Connections that were made since the start, or since they were cut; those that have ended included.
    pub fn connections(&self) -> usize {
        self.shared.connections().len()
    }

    /// Ends every connection; returns when nothing goes through them any more. New ones are made as before.
    pub async fn cut(&self) {
        let connections: Vec<_> = self.shared.connections().drain(..).collect();
        for connection in connections {
            connection.abort();
            // Cancelled, or over before.
            let _ended = connection.await;
        }
    }

    /// Ends every connection, and each that is made from now on at once, until [`Self::accept`].
    pub async fn refuse(&self) {
        self.shared.refuses.store(true, Ordering::SeqCst);
        self.cut().await;
    }

    /// From now on connections are made as before [`Self::refuse`].
    pub fn accept(&self) {
        self.shared.refuses.store(false, Ordering::SeqCst);
    }

    /// From now on bytes wait here, in both directions, until [`Self::release`].
    pub fn hold(&self) {
        self.shared.first_carrying.send_replace(usize::MAX);
    }

    /// The connections that there are carry nothing any more; new ones do.
    pub fn strand(&self) {
        self.shared.first_carrying.send_replace(self.shared.made.load(Ordering::SeqCst));
    }

    /// Lets the bytes go on that [`Self::hold`] or [`Self::strand`] stopped.
    pub fn release(&self) {
        self.shared.first_carrying.send_replace(0);
    }

    /// Once clients have sent this many further bytes, the connection by which the last of them came is reset: both
    /// sides get a TCP reset in the middle of whatever was being said. Only the next time; ask again for another.
    pub fn reset_after(&self, bytes: usize) {
        self.shared.reset_after.store(bytes.saturating_add(1), Ordering::Relaxed);
    }

    /// Connections that were reset so far.
    pub fn resets(&self) -> usize {
        self.shared.resets.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        for connection in self.shared.connections().drain(..) {
            connection.abort();
        }
    }
}

impl Shared {
    fn connections(&self) -> std::sync::MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many of these bytes may pass, if the connection is to be reset among them.
    fn reset_within(&self, bytes: usize) -> Option<usize> {
        let spend = |left: usize| (left > 0).then(|| left.saturating_sub(bytes));
        let before = self.reset_after.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend).ok()?;
        (before <= bytes).then(|| before - 1)
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        if shared.refuses.load(Ordering::SeqCst) {
            continue;
        }
        let number = shared.made.fetch_add(1, Ordering::SeqCst);
        let connection = tokio::spawn(connect(client, number, Arc::clone(&shared)));
        shared.connections().push(connection);
    }
}

/// Carries bytes until either side ends, or the connection is to be reset.
async fn connect(mut client: TcpStream, number: usize, shared: Arc<Shared>) {
    // Without a server there is nobody to talk to: the client sees its connection end.
    let Ok(mut server) = TcpStream::connect(&shared.server).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (to_servers, to_clients) = match &shared.names {
        Some((clients, servers)) => (Some(Rename::new(clients, servers)), Some(Rename::new(servers, clients))),
        None => (None, None),
    };
    let is_reset = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        tokio::select! {
            carried = carry(from_client, to_server, number, &shared, Direction { counts: true, rename: to_servers }) => carried.is_err_and(|error| error.kind() == RESET),
            _ = carry(from_server, to_client, number, &shared, Direction { counts: false, rename: to_clients }) => false,
        }
    };
    if is_reset {
        // With nothing left to linger for, closing sends a reset.
        let _ = (client.set_zero_linger(), server.set_zero_linger());
        shared.resets.fetch_add(1, Ordering::Relaxed);
    }
}

/// Marks the end that [`Proxy::reset_after`] asked for; sockets report other kinds while they are read.
const RESET: io::ErrorKind = io::ErrorKind::Interrupted;

/// What is special about one of the two directions.
struct Direction {
    /// Whether its bytes count for [`Proxy::reset_after`].
    counts: bool,
    rename: Option<Rename>,
}

async fn carry(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    number: usize,
    shared: &Shared,
    mut direction: Direction,
) -> io::Result<()> {
    let mut first_carrying = shared.first_carrying.subscribe();
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let count = from.read(&mut chunk).await?;
        if count == 0 {
            return to.shutdown().await;
        }
        // The sender lives as long as the connection.
        first_carrying.wait_for(|first| *first <= number).await.ok();
        if let Some(passing) = direction.counts.then(|| shared.reset_within(count)).flatten() {
            to.write_all(&chunk[..passing]).await?;
            return Err(RESET.into());
        }
        match &mut direction.rename {
            Some(rename) => to.write_all(&rename.pass(&chunk[..count])).await?,
            None => to.write_all(&chunk[..count]).await?,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A server that sends back what it gets.
    async fn echo() -> String {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("tcp://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.split();
                    tokio::io::copy(&mut from, &mut to).await
                });
            }
        });
        url
    }

    async fn open(proxy: &Proxy) -> TcpStream {
        TcpStream::connect(proxy.address).await.unwrap()
    }

    async fn says(stream: &mut TcpStream, text: &[u8]) -> io::Result<Vec<u8>> {
        stream.write_all(text).await?;
        let mut answer = vec![0; text.len()];
        stream.read_exact(&mut answer).await?;
        Ok(answer)
    }

    #[tokio::test]
    async fn bytes_pass_until_they_are_held_and_go_on_afterwards() {
        let proxy = Proxy::to(&echo().await).await.unwrap();
        let mut stream = open(&proxy).await;
        assert_eq!(says(&mut stream, b"before").await.unwrap(), b"before");
        proxy.hold();
        let mut held = tokio::spawn(async move { says(&mut stream, b"held").await });
        assert!(tokio::time::timeout(Duration::from_millis(100), &mut held).await.is_err());
        proxy.release();
        assert_eq!(held.await.unwrap().unwrap(), b"held");
    }

    #[tokio::test]
    async fn connections_that_are_stranded_stand_and_new_ones_do_not() {
        let proxy = Proxy::to(&echo().await).await.unwrap();
        let mut old = open(&proxy).await;
        assert_eq!(says(&mut old, b"before").await.unwrap(), b"before");
        proxy.strand();
        assert!(tokio::time::timeout(Duration::from_millis(100), says(&mut old, b"held")).await.is_err());
        assert_eq!(says(&mut open(&proxy).await, b"anew").await.unwrap(), b"anew");
    }

    #[tokio::test]
    async fn a_connection_is_reset_after_as_many_bytes_as_asked_and_the_next_one_is_not() {
        let proxy = Proxy::to(&echo().await).await.unwrap();
        let mut stream = open(&proxy).await;
        proxy.reset_after(4);
        assert_eq!(says(&mut stream, b"four").await.unwrap(), b"four");
        let error = says(&mut stream, b"!").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(proxy.resets(), 1);
        assert_eq!(says(&mut open(&proxy).await, b"again").await.unwrap(), b"again");
    }

    #[tokio::test]
    async fn connections_are_refused_until_they_are_accepted_again() {
        let proxy = Proxy::to(&echo().await).await.unwrap();
        let mut stream = open(&proxy).await;
        says(&mut stream, b"before").await.unwrap();
        proxy.refuse().await;
        says(&mut stream, b"after").await.unwrap_err();
        says(&mut open(&proxy).await, b"anew").await.unwrap_err();
        proxy.accept();
        assert_eq!(says(&mut open(&proxy).await, b"again").await.unwrap(), b"again");
    }

    #[tokio::test]
    async fn each_side_says_and_hears_its_own_name() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("tcp://{}", listener.local_addr().unwrap());
        let proxy = Proxy::renaming(&url, "ours", "hers").await.unwrap();
        let (mut client, server) = (open(&proxy).await, listener.accept().await);
        let (mut server, mut heard) = (server.unwrap().0, [0; 5]);
        client.write_all(b"ours!").await.unwrap();
        server.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"hers!");
        server.write_all(b"hers?").await.unwrap();
        client.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"ours?");
    }

    #[tokio::test]
    async fn connections_that_are_cut_end_and_new_ones_are_made() {
        let proxy = Proxy::to(&echo().await).await.unwrap();
        let mut stream = open(&proxy).await;
        says(&mut stream, b"before").await.unwrap();
        assert_eq!(proxy.connections(), 1);
        proxy.cut().await;
        says(&mut stream, b"after").await.unwrap_err();
        assert_eq!(proxy.connections(), 0);
        says(&mut open(&proxy).await, b"anew").await.unwrap();
    }
}
