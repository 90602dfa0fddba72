//! `harborctl dev`: everything in one process, on resources from files.
//!
//! `source` reads files, `resources` makes the routing table of them, `session` starts what runs and shows what happens;
//! `troubles` remembers what is wrong; `samples` are published, `once` says when all is finished. `data_folder` and `generated` are what stays.

mod columns;
mod data_folder;
mod engine;
mod generated;
mod live;
mod once;
mod publisher;
mod resources;
mod samples;
mod session;
mod source;
mod troubles;
mod view;
mod watch;

use std::sync::Arc;

use dispatcher::process::StopSignals;
use dispatcher_core::seal::SealingKey;

use self::data_folder::DataFolder;
use self::engine::Listeners;
use self::generated::GeneratedSecrets;
use self::resources::Resources;
use self::session::{Session, SessionConfig};
use self::source::Source;
use crate::cli::DevArguments;
use crate::exit::{Exit, Failure};
use crate::listen;
use crate::output::{Format, Output};

/// Runs `dev` until it is stopped or, with `--once`, until everything is finished.
pub(crate) async fn run(arguments: DevArguments, output: &Output) -> Result<Exit, Failure> {
    if output.format() == Format::Yaml {
        return Err(Failure::Local("dev prints --output table or json".to_owned()));
    }
    let stop = StopSignals::listen().map_err(|error| Failure::Local(error.to_string()))?;
    output.go_live()?;
    let listener = listen::bind_loopback("--listen", arguments.listen).await?;
    let admin = match arguments.admin {
        Some(address) => Some(listen::bind_loopback("--admin", address).await?),
        None => None,
    };
    let source = Source::named(&arguments.path)?;
    let (resources, news) = Resources::first(source.load().await?)?;
    let samples = source.samples()?;
    let folder = open_data_folder(&arguments, &source)?;
    view::tell_skipped(&news.skipped, output);

    let sealing_key = Arc::new(SealingKey::from_bytes(folder.sealing_key().expose()));
    let ledger_file = folder.ledger_file();
    let secrets = GeneratedSecrets::load(folder)?;
    let config = SessionConfig { once: arguments.once, source, sealing_key, ledger_file };
    Session::start(config, resources, secrets, Listeners { api: listener, admin }, output)
        .await?
        .run(samples, stop)
        .await
}

fn open_data_folder(arguments: &DevArguments, source: &Source) -> Result<DataFolder, Failure> {
    let path = if let Some(path) = &arguments.data {
        path.clone()
    } else {
        let (state_home, home) = (arguments.state_home.as_deref(), std::env::home_dir());
        data_folder::default_path(source.identity(), state_home, home.as_deref())
            .ok_or_else(|| Failure::Local("there is no home folder: add --data DIR".to_owned()))?
    };
    let resolved =
        data_folder::resolve(&path).map_err(|error| Failure::Local(format!("--data {}: {error}", path.display())))?;
    // What is written there would be read as resources.
    if source.path().is_some_and(|source| resolved.starts_with(source)) {
        let message = format!("--data {} must not be inside of the folder of resources", path.display());
        return Err(Failure::Local(message));
    }
    DataFolder::open(&path)
}
