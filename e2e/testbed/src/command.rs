//! `testbed run`: a command among servers of its own.

use std::os::unix::process::ExitStatusExt;
use std::process::{ExitCode, ExitStatus};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process_group};
use testbed::{
    AMQP_URL, Cluster, DATABASE_URL, Environment, HELM, KUBECONFIG, KUBECTL, MANAGEMENT_URL, PostgresServer,
    RabbitServer,
};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

/// Runs a command and the servers that the environment does not name.
pub(crate) async fn run(command: &[String]) -> Result<ExitCode> {
    // From the first moment, so that no signal ends this process and leaves the command behind.
    let mut signals = Signals::new()?;
    let servers = tokio::select! {
        servers = Servers::start() => servers?,
        signal = signals.next() => return Ok(exit_code_of_signal(signal)),
    };
    let mut child = servers.command(command).spawn().with_context(|| format!("{} does not start", command[0]))?;
    loop {
        tokio::select! {
            status = child.wait() => return Ok(exit_code(status?)),
            signal = signals.next() => pass_on(signal, &child)?,
        }
    }
}

/// What asks this process to end.
pub(crate) struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    /// From now on they do not end the process by themselves.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    pub(crate) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::INT,
            _ = self.terminate.recv() => Signal::TERM,
        }
    }
}

/// The private servers of this run; they end when it is dropped.
struct Servers {
    postgres: Option<PostgresServer>,
    rabbitmq: Option<RabbitServer>,
    cluster: Option<Cluster>,
}

impl Servers {
    async fn start() -> Result<Self> {
        let environment = Environment::read()?;
        let postgres =
            async { if environment.database_url.is_some() { Ok(None) } else { testbed::postgres(&[]).await } };
        let rabbitmq = async { if environment.amqp_url.is_some() { Ok(None) } else { testbed::rabbitmq(&[]).await } };
        let cluster = async { if environment.kubeconfig.is_some() { Ok(None) } else { testbed::kubernetes().await } };
        let (postgres, rabbitmq, cluster) = tokio::try_join!(postgres, rabbitmq, cluster)?;
        Ok(Self { postgres, rabbitmq, cluster })
    }

    /// The command in a process group of its own, so that a signal reaches all of it.
    fn command(&self, command: &[String]) -> Command {
        let mut process = Command::new(&command[0]);
        process.args(&command[1..]).process_group(0);
        if let Some(postgres) = &self.postgres {
            process.env(DATABASE_URL, postgres.url());
        }
        if let Some(rabbitmq) = &self.rabbitmq {
            process.env(AMQP_URL, rabbitmq.url()).env(MANAGEMENT_URL, rabbitmq.management_url());
        }
        if let Some(cluster) = &self.cluster {
            process
                .env(KUBECONFIG, cluster.kubeconfig())
                .env(KUBECTL, cluster.kubectl_program())
                .env(HELM, cluster.helm_program());
        }
        process
    }
}

fn pass_on(signal: Signal, child: &Child) -> Result<()> {
    let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed())).context("the command has ended")?;
    kill_process_group(group, signal).context("cannot pass the signal on")
}

/// As a shell reports it: the command's own code, or 128 and the number of the signal that ended it.
fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from)
}

pub(crate) fn exit_code_of_signal(signal: Signal) -> ExitCode {
    u8::try_from(128 + signal.as_raw()).map_or(ExitCode::FAILURE, ExitCode::from)
}
