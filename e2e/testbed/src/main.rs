//! Runs a command with real servers.

mod command;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use command::{Signals, exit_code_of_signal};
use testbed::{Environment, HELM, KUBECONFIG, KUBECTL};

/// Real PostgreSQL, RabbitMQ and Kubernetes for tests.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Starts a private server of each kind that the environment does not name, and a cluster, runs COMMAND with their
    /// names in its environment, and ends them after it. Exits as COMMAND does.
    Run {
        /// Program and arguments.
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Starts a private Kubernetes cluster of one node, says how to use it, and ends it on an interrupt.
    Cluster {
        /// Loads these images (docker-archive) into it.
        #[arg(long = "image", value_name = "FILE")]
        images: Vec<PathBuf>,
    },
    /// Loads images (docker-archive) into the cluster that the environment names.
    Load {
        /// Archives.
        #[arg(required = true)]
        images: Vec<PathBuf>,
    },
    /// Builds Harborhook's image of programs that are compiled already, and writes it as a docker-archive.
    Image {
        /// Folder with `operator`, `dispatcher` and `harborctl`.
        #[arg(long)]
        binaries: PathBuf,
        /// Archive to write.
        #[arg(long)]
        output: PathBuf,
        /// Name of the image.
        #[arg(long, default_value = "localhost/harborhook:latest")]
        tag: String,
    },
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    match Arguments::parse().action {
        Action::Run { command } => command::run(&command).await,
        Action::Cluster { images } => cluster(&images).await,
        Action::Load { images } => load(&images).await,
        Action::Image { binaries, output, tag } => image(binaries, output, tag).await,
    }
}

async fn cluster(images: &[PathBuf]) -> Result<ExitCode> {
    let mut signals = Signals::new()?;
    let start = async {
        let Some(cluster) = testbed::kubernetes().await? else { bail!("there is no cluster") };
        for image in images {
            cluster.load_image(image).await?;
        }
        Ok(cluster)
    };
    let cluster = tokio::select! {
        cluster = start => cluster?,
        signal = signals.next() => return Ok(exit_code_of_signal(signal)),
    };
    let names = [
        (KUBECONFIG, cluster.kubeconfig()),
        (KUBECTL, cluster.kubectl_program()),
        (HELM, cluster.helm_program()),
        ("KUBECONFIG", cluster.kubeconfig()),
    ];
    say(&names.map(|(name, path)| format!("export {name}={}", path.display())).join("\n"))?;
    say(&format!(
        "# {} get nodes\n# The cluster ends with this command, or on an interrupt.",
        cluster.kubectl_program().display()
    ))?;
    Ok(exit_code_of_signal(signals.next().await))
}

async fn load(images: &[PathBuf]) -> Result<ExitCode> {
    if Environment::read()?.kubeconfig.is_none() {
        bail!("name the cluster in {KUBECONFIG}");
    }
    let cluster = testbed::cluster().await?.context("there is no cluster")?;
    for image in images {
        cluster.load_image(image).await?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn image(binaries: PathBuf, output: PathBuf, tag: String) -> Result<ExitCode> {
    let environment = Environment::read()?;
    let output = std::path::absolute(output)?;
    let shown = format!("{tag} is in {}", output.display());
    let build = move || testbed::image::build(&environment, &binaries, &tag, Path::new(&output));
    tokio::task::spawn_blocking(build).await??;
    say(&shown)?;
    Ok(ExitCode::SUCCESS)
}

fn say(text: &str) -> Result<()> {
    writeln!(std::io::stdout(), "{text}").context("the output is closed")
}
