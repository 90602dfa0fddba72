//! A connection that comes back.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use dispatcher_core::limits::{
    BROKER_ANSWER_TIMEOUT, BROKER_CONNECT_TIMEOUT, BROKER_HEARTBEAT_SECONDS, BROKER_RETRY_PAUSE_MAX,
    BROKER_RETRY_PAUSE_MIN,
};
use dispatcher_core::redacted::Redacted;
use futures::StreamExt;
use lapin::tcp::{AMQPUriTcpExt, OwnedIdentity, OwnedTLSConfig};
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{Channel, Connection, ConnectionProperties, ErrorKind, Event};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::RabbitConfig;
use super::topology::{self, QueueName};
use crate::queue::QueueError;

/// Reply codes of a broker that will not have us (AMQP 0-9-1, 1.2): wrong credentials or no rights, a queue with other
/// arguments, no such vhost.
const REFUSALS: [u16; 3] = [403, 406, 530];

/// Where the broker is and who we are to it.
#[derive(Clone)]
pub(super) struct Broker {
    uri: AMQPUri,
    ca_certificates_pem: Option<String>,
    client_certificate_pem: Option<String>,
    client_key_pem: Redacted<String>,
    name: String,
}

/// One connection while it lasts.
pub(super) struct Session {
    connection: Connection,
    /// Cancelled by whoever finds that it is of no use any more.
    lost: CancellationToken,
    declared: tokio::sync::Mutex<HashSet<QueueName>>,
}

/// The session of the moment, if there is one. A task beside it replaces it when it is lost.
#[derive(Clone)]
pub(super) struct Link {
    sessions: watch::Receiver<Option<Arc<Session>>>,
}

impl Broker {
    /// Reads the address. What is wrong with it is said without repeating it: it holds a password.
    pub(super) fn new(config: &RabbitConfig) -> Result<Self, QueueError> {
        let misconfigured = |message: &str| QueueError::Misconfigured(message.to_owned());
        let text = config.url.expose();
        let url = url::Url::parse(text).map_err(|_| {
            misconfigured("the queue's address is not a URL; it looks like amqp://USER:PASSWORD@HOST/VHOST")
        })?;
        let mut uri: AMQPUri = text
            .parse()
            .map_err(|_| misconfigured("the queue's address is not an AMQP URL; it begins with amqp:// or amqps://"))?;
        let Some(host) = url.host_str().filter(|host| !host.is_empty()) else {
            return Err(misconfigured("the queue's address names no host"));
        };
        // The parser of the client library takes an IPv6 address for no host at all, and connects to localhost.
        host.trim_start_matches('[').trim_end_matches(']').clone_into(&mut uri.authority.host);
        if uri.scheme == AMQPScheme::AMQPS && !cfg!(feature = "amqps") {
            return Err(misconfigured("this build has no TLS to the queue; build it with the feature `amqps`"));
        }
        uri.query.heartbeat.get_or_insert(BROKER_HEARTBEAT_SECONDS);
        Ok(Self {
            uri,
            ca_certificates_pem: config.ca_certificates_pem.clone(),
            client_certificate_pem: config.client_certificate_pem.clone(),
            client_key_pem: config.client_key_pem.clone(),
            name: config.connection_name.clone(),
        })
    }

    /// Opens a connection for a purpose that the broker's operator can read.
    pub(super) async fn open(&self, purpose: &str) -> Result<Session, QueueError> {
        let properties =
            ConnectionProperties::default().with_connection_name(format!("{} {purpose}", self.name).into());
        let runtime = lapin::runtime::default_runtime().map_err(|error| unavailable(&error))?;
        let tls = self.tls();
        let opening = Connection::connector(
            self.uri.clone(),
            runtime,
            async move |uri: AMQPUri, runtime| {
                let opening = uri.connect_with_config_async(tls.as_ref(), &runtime);
                let stream = timeout(BROKER_CONNECT_TIMEOUT, opening).await.map_err(std::io::Error::from)??;
                Ok(stream)
            },
            properties,
        );
        let connection = timeout(BROKER_ANSWER_TIMEOUT, opening)
            .await
            .map_err(|_| QueueError::Unavailable("the broker accepted a connection and said nothing".to_owned()))?
            .map_err(|error| refused_or_unavailable(&error))?;
        Ok(Session { connection, lost: CancellationToken::new(), declared: tokio::sync::Mutex::default() })
    }

    fn tls(&self) -> OwnedTLSConfig {
        OwnedTLSConfig {
            identity: self.client_certificate_pem.as_ref().map(|certificate| OwnedIdentity::PKCS8 {
                pem: certificate.clone().into_bytes(),
                key: self.client_key_pem.expose().clone().into_bytes(),
            }),
            cert_chain: self.ca_certificates_pem.clone(),
        }
    }
}

impl Session {
    /// Opens a channel. A connection on which that fails is given up: the client library never uses the number of a
    /// channel that the broker closed again, and fails when it comes round to it.
    pub(super) async fn channel(&self) -> lapin::Result<Channel> {
        let opened = self.connection.create_channel().await;
        // Too many channels are no fault of the connection, and the others are in use.
        if opened.as_ref().is_err_and(|error| !matches!(error.kind(), ErrorKind::ChannelsLimitReached)) {
            self.give_up();
        }
        opened
    }

    /// Whether it can be used to publish now: it is there and the broker has no alarm.
    pub(super) fn takes_messages(&self) -> bool {
        self.is_there() && !self.is_blocked()
    }

    pub(super) fn is_blocked(&self) -> bool {
        self.connection.status().blocked()
    }

    pub(super) fn is_there(&self) -> bool {
        !self.lost.is_cancelled() && self.connection.status().connected()
    }

    /// Gives it up: nothing that was asked of it is answered.
    pub(super) fn give_up(&self) {
        self.lost.cancel();
    }

    /// Returns when it is given up, or closed after it was lost.
    pub(super) async fn gone(&self) {
        self.lost.cancelled().await;
    }

    /// Makes sure that the queue is there, once in a session.
    pub(super) async fn ensure(&self, queue: &QueueName, messages_max: u32) -> lapin::Result<()> {
        let mut declared = self.declared.lock().await;
        if !declared.contains(queue) {
            topology::declare(self.channel().await?, queue, messages_max).await?;
            declared.insert(queue.clone());
        }
        Ok(())
    }

    /// The queue was found missing: the next [`Session::ensure`] makes it.
    pub(super) async fn forget(&self, queue: &QueueName) {
        self.declared.lock().await.remove(queue);
    }

    /// Returns when the connection is lost or given up.
    async fn end(&self) {
        let mut events = std::pin::pin!(self.connection.events_listener());
        loop {
            // The look at the status is for an end that came before anybody listened.
            let event = tokio::select! {
                () = self.lost.cancelled() => return,
                event = events.next() => event,
                () = sleep(BROKER_RETRY_PAUSE_MAX) => Some(Event::Connected),
            };
            match event {
                Some(Event::ConnectionBlocked(reason)) => {
                    tracing::warn!(reason, "the broker takes no messages: it is short of memory or disk");
                }
                Some(Event::ConnectionUnblocked) => tracing::info!("the broker takes messages again"),
                None => return,
                // An error may be that of one channel; the status tells.
                Some(_) => {}
            }
            if !self.connection.status().connected() {
                return;
            }
        }
    }

    async fn close(&self) {
        // A connection that cannot be closed in order is closed by its end.
        let _closed = timeout(BROKER_CONNECT_TIMEOUT, self.connection.close(200, "OK".into())).await;
        self.give_up();
    }
}

impl Link {
    /// A link that begins with `first`, and the work of keeping it, which ends with `shutdown`.
    pub(super) fn new(
        broker: Broker,
        purpose: &'static str,
        first: Option<Session>,
        shutdown: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let first = first.map(Arc::new);
        let (sender, sessions) = watch::channel(first.clone());
        (Self { sessions }, keep(broker, purpose, first, sender, shutdown))
    }

    pub(super) fn session(&self) -> Option<Arc<Session>> {
        self.sessions.borrow().clone().filter(|session| session.is_there())
    }

    /// Waits for a session. Never returns after the link has ended.
    pub(super) async fn wait(&self) -> Arc<Session> {
        let mut sessions = self.sessions.clone();
        loop {
            let session = sessions.borrow_and_update().clone().filter(|session| session.is_there());
            if let Some(session) = session {
                return session;
            }
            if sessions.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

async fn keep(
    broker: Broker,
    purpose: &'static str,
    first: Option<Arc<Session>>,
    sessions: watch::Sender<Option<Arc<Session>>>,
    shutdown: CancellationToken,
) {
    let mut next = first;
    let mut pause = BROKER_RETRY_PAUSE_MIN;
    loop {
        if let Some(session) = next.take() {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = session.end() => tracing::warn!(purpose, "the connection to the broker is lost; connecting again"),
            }
            sessions.send_replace(None);
            session.close().await;
            pause = BROKER_RETRY_PAUSE_MIN;
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = sleep(jittered(pause, rand::random())) => {}
        }
        let opened = tokio::select! {
            () = shutdown.cancelled() => return,
            opened = broker.open(purpose) => opened,
        };
        match opened {
            Ok(session) => {
                tracing::info!(purpose, "connected to the broker");
                let session = Arc::new(session);
                sessions.send_replace(Some(Arc::clone(&session)));
                next = Some(session);
            }
            Err(error) if pause < BROKER_RETRY_PAUSE_MAX => {
                tracing::warn!(purpose, %error, "the broker cannot be reached; trying again");
                pause = (pause * 2).min(BROKER_RETRY_PAUSE_MAX);
            }
            Err(error) => tracing::debug!(purpose, %error, "the broker still cannot be reached"),
        }
    }
}

/// Between half and all of a pause, so that processes that lost the broker together do not come back together.
fn jittered(pause: Duration, random_unit: f64) -> Duration {
    pause.mul_f64(0.5 + random_unit / 2.0)
}

/// Sorts a failure: into one that somebody must mend, and one that may pass.
pub(super) fn refused_or_unavailable(error: &lapin::Error) -> QueueError {
    match topology::reply_code(error) {
        Some(code) if REFUSALS.contains(&code) => QueueError::Misconfigured(format!(
            "the broker refused us: {error}; check user, password and vhost of the queue's address (the default vhost is \
             %2f), that the user may configure, write and read there, and that nobody else made the queue"
        )),
        _ => match error.kind() {
            ErrorKind::IOError(cause) if is_for_want_of_trust(cause) => QueueError::Misconfigured(format!(
                "no trusted TLS connection to the queue ({cause}); check that its address and port are those of amqps, \
                 cacertfile, and where the broker asks for one, certfile and keyfile"
            )),
            _ => unavailable(error),
        },
    }
}

/// Whether a connection failed because one side does not trust the other, or does not speak TLS: no waiting heals that.
fn is_for_want_of_trust(error: &std::io::Error) -> bool {
    let mut cause = error.get_ref().map(|inner| inner as &(dyn std::error::Error + 'static));
    while let Some(inner) = cause {
        if inner.is::<rustls::Error>() {
            return true;
        }
        // The source of an error of input or output is the source of what it wraps, which leaves that out.
        cause = match inner.downcast_ref::<std::io::Error>() {
            Some(wrapped) => return is_for_want_of_trust(wrapped),
            None => inner.source(),
        };
    }
    error.kind() == std::io::ErrorKind::InvalidData
}

fn unavailable(error: &lapin::Error) -> QueueError {
    QueueError::Unavailable(error.to_string())
}
