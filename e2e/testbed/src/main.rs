//! Runs a command with real servers.

use std::os::unix::process::ExitStatusExt;
use std::process::{ExitCode, ExitStatus};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use rustix::process::{Pid, Signal, kill_process_group};
use testbed::{AMQP_URL, DATABASE_URL, Environment, MANAGEMENT_URL, PostgresServer, RabbitServer};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

/// Real PostgreSQL and RabbitMQ servers for tests.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Starts a private server of each kind that the environment does not name, runs COMMAND with their URLs in its
    /// environment, and ends the servers after it. Exits as COMMAND does.
    Run {
        /// Program and arguments.
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let Arguments { action: Action::Run { command } } = Arguments::parse();
    // From the first moment, so that no signal ends this process and leaves the command behind.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let servers = tokio::select! {
        servers = Servers::start() => servers?,
        _ = interrupt.recv() => return Ok(exit_code_of_signal(Signal::INT)),
        _ = terminate.recv() => return Ok(exit_code_of_signal(Signal::TERM)),
    };
    let mut child = servers.command(&command).spawn().with_context(|| format!("{} does not start", command[0]))?;
    loop {
        tokio::select! {
            status = child.wait() => return Ok(exit_code(status?)),
            _ = interrupt.recv() => pass_on(Signal::INT, &child)?,
            _ = terminate.recv() => pass_on(Signal::TERM, &child)?,
        }
    }
}

/// The private servers of this run; they end when it is dropped.
struct Servers {
    postgres: Option<PostgresServer>,
    rabbitmq: Option<RabbitServer>,
}

impl Servers {
    async fn start() -> Result<Self> {
        let environment = Environment::read()?;
        let postgres =
            async { if environment.database_url.is_some() { Ok(None) } else { testbed::postgres(&[]).await } };
        let rabbitmq = async { if environment.amqp_url.is_some() { Ok(None) } else { testbed::rabbitmq(&[]).await } };
        let (postgres, rabbitmq) = tokio::try_join!(postgres, rabbitmq)?;
        Ok(Self { postgres, rabbitmq })
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

fn exit_code_of_signal(signal: Signal) -> ExitCode {
    u8::try_from(128 + signal.as_raw()).map_or(ExitCode::FAILURE, ExitCode::from)
}
