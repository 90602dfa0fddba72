//! Private RabbitMQ servers, and a vhost for each test on any server.
//!
//! Vhosts are made through the management plugin, which answers within a tenth of a second and needs nothing on this
//! machine; `rabbitmqctl` would start an Erlang of its own for each.

use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::Empty;
use hyper::header::{AUTHORIZATION, HOST};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use url::Url;
use uuid::Uuid;

use crate::root::Root;
use crate::service::{Service, free_ports};
use crate::{AMQP_URL, MANAGEMENT_URL, announce};

/// Name of the Erlang node.
const NODE: &str = "testbed@localhost";
/// What a client of AMQP 0-9-1 sends first, section 4.2.2 of its specification.
const PROTOCOL_HEADER: &[u8; 8] = b"AMQP\x00\x00\x09\x01";
/// Type of the frame that the server answers with, a method.
const FRAME_METHOD: u8 = 1;

/// A private server with its management plugin. Its processes and data are gone when the value is dropped.
#[derive(Debug)]
pub struct RabbitServer {
    service: Service,
    /// Folder of its programs.
    programs: &'static str,
    port: u16,
    url: String,
    management_url: String,
}

impl RabbitServer {
    /// `further_files` are names and contents of files beside its configuration, which it sees in `/srv`.
    pub(crate) async fn start(root: &Root, settings: &[(&str, &str)], further_files: &[(&str, &str)]) -> Result<Self> {
        let [port, management_port, mapper_port, distribution_port] = free_ports()?;
        let password = Uuid::new_v4().simple().to_string();
        let mut configuration = configuration(port, management_port, &password);
        for (name, value) in settings {
            writeln!(configuration, "{name} = {value}")?;
        }
        let programs = root.release.rabbitmq;
        let (environment, start) = (
            environment(mapper_port, distribution_port),
            format!(". /srv/environment\nexec {programs}/rabbitmq-server\n"),
        );
        let mut files = vec![
            ("environment", environment.as_str()),
            ("start", &start),
            ("rabbitmq.conf", &configuration),
            ("enabled_plugins", "[rabbitmq_management].\n"),
        ];
        files.extend(further_files);
        let mut server = Self {
            service: Service::new(root, "rabbitmq", None, &files)?,
            programs,
            port,
            url: format!("amqp://harborhook:{password}@127.0.0.1:{port}/"),
            management_url: format!("http://harborhook:{password}@127.0.0.1:{management_port}"),
        };
        server.restart().await?;
        Ok(server)
    }

    /// `amqp://USER:PASSWORD@HOST:PORT/`, without a vhost.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// `http://USER:PASSWORD@HOST:PORT` of the management plugin.
    pub fn management_url(&self) -> &str {
        &self.management_url
    }

    /// Where it keeps the registry of its quorum queues. The broker writes a new queue into it a moment after it has
    /// declared it, and confirms messages at once; killed in between, it comes back with a queue that never elects a
    /// leader, and without its messages.
    pub fn quorum_queue_registry(&self) -> PathBuf {
        self.service.folder().join(format!("data/{NODE}/quorum/{NODE}/names.dets"))
    }

    /// SIGKILL to all its processes, at once; returns when they are gone. Its data and its ports stay.
    pub fn kill(&mut self) -> Result<()> {
        self.service.kill()
    }

    /// Starts it on its data and ports, after a kill when it runs; returns when it accepts connections.
    pub async fn restart(&mut self) -> Result<()> {
        self.service.start().context("RabbitMQ does not start")?;
        while !speaks_amqp(self.port).await {
            self.service.wait_a_moment().await.context("RabbitMQ does not start")?;
        }
        Ok(())
    }

    /// Runs `rabbitmqctl` on it, for example with `["set_vm_memory_high_watermark", "0.5"]`. Takes some seconds: it
    /// starts an Erlang of its own.
    pub async fn control(&self, arguments: &[&str]) -> Result<()> {
        let script = format!(". /srv/environment\nunset RABBITMQ_DIST_PORT\nexec {}/rabbitmqctl \"$@\"", self.programs);
        self.service.run(&script, arguments).await.context("rabbitmqctl failed")
    }

    /// Host's process id of the process that all its other processes end with; `None` when it does not run.
    pub fn process_id(&self) -> Option<u32> {
        self.service.process_id()
    }
}

/// The plugin is there to make vhosts; the metrics it would collect all the time are left out.
fn configuration(port: u16, management_port: u16, password: &str) -> String {
    format!(
        "listeners.tcp.1 = 127.0.0.1:{port}\n\
         distribution.listener.interface = 127.0.0.1\n\
         default_user = harborhook\n\
         default_pass = {password}\n\
         management.tcp.ip = 127.0.0.1\n\
         management.tcp.port = {management_port}\n\
         management_agent.disable_metrics_collector = true\n\
         log.console = true\n\
         log.file = false\n"
    )
}

/// What the server and its command-line tool must agree on.
fn environment(mapper_port: u16, distribution_port: u16) -> String {
    format!(
        "cd /srv\n\
         export RABBITMQ_NODENAME={NODE} RABBITMQ_CONFIG_FILE=/srv/rabbitmq.conf\n\
         export RABBITMQ_ENABLED_PLUGINS_FILE=/srv/enabled_plugins\n\
         export RABBITMQ_MNESIA_BASE=/srv/data RABBITMQ_LOG_BASE=/srv RABBITMQ_PID_FILE=/srv/pid\n\
         export ERL_EPMD_ADDRESS=127.0.0.1 ERL_EPMD_PORT={mapper_port} RABBITMQ_DIST_PORT={distribution_port}\n"
    )
}

/// The listener opens last, after plugins and recovered queues.
async fn speaks_amqp(port: u16) -> bool {
    let greet = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(PROTOCOL_HEADER).await?;
        stream.read_u8().await
    };
    matches!(greet.await, Ok(FRAME_METHOD))
}

/// An empty vhost. It is deleted with the value, together with its queues and connections.
#[derive(Debug)]
pub struct TestVhost {
    url: String,
    name: String,
    management_url: String,
    /// Lives at least as long as the vhost.
    server: Option<Arc<RabbitServer>>,
}

impl TestVhost {
    /// Makes a vhost on a server; the user of `management_url` must be that of `server_url`, and gets all rights in it.
    pub async fn create(server_url: &str, management_url: &str) -> Result<Self> {
        let mut url = Url::parse(server_url).with_context(|| format!("{AMQP_URL} is not a URL"))?;
        let name = format!("test_{}", Uuid::new_v4().simple());
        manage(management_url, Method::PUT, format!("/api/vhosts/{name}")).await.context("no vhost could be made")?;
        url.set_path(&name);
        Ok(Self { url: url.into(), name, management_url: management_url.to_owned(), server: None })
    }

    pub(crate) fn keeping(mut self, server: Arc<RabbitServer>) -> Self {
        self.server = Some(server);
        self
    }

    /// Deletes it with its queues and connections, and makes it again, empty.
    pub async fn wipe(&self) -> Result<()> {
        for method in [Method::DELETE, Method::PUT] {
            manage(&self.management_url, method, format!("/api/vhosts/{}", self.name)).await?;
        }
        Ok(())
    }

    /// Its URL: `amqp://USER:PASSWORD@HOST:PORT/test_…`.
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for TestVhost {
    fn drop(&mut self) {
        if self.server.as_ref().is_some_and(|server| Arc::strong_count(server) == 1) {
            return; // The server goes with it.
        }
        let path = format!("/api/vhosts/{}", self.name);
        if let Err(error) = crate::sandbox::block_on_own_thread(manage(&self.management_url, Method::DELETE, path)) {
            announce(&format!("the vhost {} was left behind: {error:#}", self.name));
        }
    }
}

/// One request to the management plugin; anything but success is an error.
async fn manage(management_url: &str, method: Method, path: String) -> Result<()> {
    let url = Url::parse(management_url).with_context(|| format!("{MANAGEMENT_URL} is not a URL"))?;
    let host = url.host_str().with_context(|| format!("{MANAGEMENT_URL} names no host"))?;
    let (user, password) = (url.username(), url.password().unwrap_or_default());
    if user.contains('%') || password.contains('%') {
        bail!("user and password of {MANAGEMENT_URL} must do without percent-encoding");
    }
    let port = url.port_or_known_default().context("the management URL names no port")?;
    let stream = TcpStream::connect((host, port)).await.with_context(|| {
        format!("no management plugin at {host}:{port}; enable rabbitmq_management or set {MANAGEMENT_URL}")
    })?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, host)
        .header(AUTHORIZATION, format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
        .body(Empty::<Bytes>::new())?;
    let exchange = async {
        let status = sender.send_request(request).await?.status();
        drop(sender);
        Ok::<_, hyper::Error>(status)
    };
    let (status, _) = tokio::join!(exchange, connection);
    let status = status?;
    if !status.is_success() {
        bail!("the management plugin at {host}:{port} answered {status}");
    }
    Ok(())
}
