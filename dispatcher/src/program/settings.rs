//! What a role is started with: the command line, checked as far as it can be without a server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dispatcher::access::TokenConfig;
use dispatcher::ledger::DispatcherRole;
use dispatcher::process::{Database, Failure, read_sealing_keys};
use dispatcher::queue::rabbitmq::RabbitConfig;
use dispatcher::service::Access;
use dispatcher_core::address::AddressPolicy;
use dispatcher_core::limits::{FAST_TRACK_EXCHANGES_MAX, POOL_NAME_BYTES_MAX};
use dispatcher_core::redacted::Redacted;
use dispatcher_core::seal::SealingKey;
use dispatcher_core::table::DEFAULT_POOL;
use uuid::Uuid;

use super::arguments::{
    AccessKind, AllArguments, ApiArguments, CommonArguments, DeliverArguments, DeliveryArguments, IngestArguments,
};
use super::queue_url;

/// Everything that a role needs to start.
pub(crate) struct Settings {
    pub(crate) role: DispatcherRole,
    pub(crate) instance: Uuid,
    pub(crate) database: Database,
    pub(crate) queue: QueueChoice,
    pub(crate) sealing_key: Arc<SealingKey>,
    pub(crate) access: Access,
    /// Where the API listens, if the role has one.
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) admin_listen: SocketAddr,
    pub(crate) retention: Duration,
    pub(crate) drain: Duration,
    pub(crate) pool: String,
    pub(crate) max_in_flight: usize,
    pub(crate) address_policy: AddressPolicy,
}

/// Where the queue is.
pub(crate) enum QueueChoice {
    Rabbit(Box<RabbitConfig>),
    Memory,
}

/// Settings of `ingest`.
pub(crate) fn of_ingest(arguments: &IngestArguments) -> Result<Settings, Failure> {
    settings(DispatcherRole::Ingest, &arguments.common, Some(&arguments.ingest), None)
}

/// Settings of `deliver`.
pub(crate) fn of_deliver(arguments: &DeliverArguments) -> Result<Settings, Failure> {
    settings(DispatcherRole::Deliver, &arguments.common, None, Some(&arguments.delivery))
}

/// Settings of `all`.
pub(crate) fn of_all(arguments: &AllArguments) -> Result<Settings, Failure> {
    settings(DispatcherRole::All, &arguments.common, Some(&arguments.ingest), Some(&arguments.delivery))
}

fn settings(
    role: DispatcherRole,
    common: &CommonArguments,
    api: Option<&ApiArguments>,
    delivery: Option<&DeliveryArguments>,
) -> Result<Settings, Failure> {
    let access = api.map_or(Ok(Access::Open), access)?;
    let listen = api.map(|api| api.listen);
    if let Some(address) = listen {
        access.check(address).map_err(|error| Failure::Configuration(format!("--listen: {error}")))?;
    }
    let instance = Uuid::new_v4();
    let (pool, address_policy) = match delivery {
        Some(delivery) => (delivery.pool.clone(), delivery.address.policy()),
        None => (DEFAULT_POOL.to_owned(), AddressPolicy::public_https()),
    };
    if pool.is_empty() || pool.len() > POOL_NAME_BYTES_MAX {
        let message = format!("--pool: a pool's name has 1 to {POOL_NAME_BYTES_MAX} bytes");
        return Err(Failure::Configuration(message));
    }
    Ok(Settings {
        role,
        instance,
        database: database(role, common)?,
        queue: queue(role, &common.queue, &pool, instance)?,
        sealing_key: Arc::new(
            read_sealing_keys(&common.sealing_key_file)
                .map_err(|error| Failure::Configuration(format!("--sealing-key-file {error}")))?,
        ),
        access,
        listen,
        admin_listen: common.admin_listen,
        retention: Duration::from_hours(24) * common.retention_days,
        drain: Duration::from_secs(common.drain_seconds.into()),
        pool,
        max_in_flight: delivery.map_or(FAST_TRACK_EXCHANGES_MAX, |delivery| delivery.max_in_flight),
        address_policy,
    })
}

/// Who may use the API.
fn access(api: &ApiArguments) -> Result<Access, Failure> {
    match (api.access, &api.issuers_file) {
        (AccessKind::Open, None) => Ok(Access::Open),
        (AccessKind::Open, Some(_)) => {
            let message = "--issuers-file is of no use without tokens: add --access tokens";
            Err(Failure::Configuration(message.to_owned()))
        }
        (AccessKind::Tokens, file) => {
            let tokens = TokenConfig::read(file.clone());
            let tokens = tokens.map_err(|error| Failure::Configuration(format!("--issuers-file {error}")))?;
            Ok(Access::Tokens(Arc::new(tokens)))
        }
    }
}

fn database(role: DispatcherRole, common: &CommonArguments) -> Result<Database, Failure> {
    let url = common.database.expose();
    if url.starts_with("sqlite:") && role != DispatcherRole::All {
        return Err(only_in_one_process(role, "--database", "sqlite:", "postgres://"));
    }
    Database::read(&common.database, common.database_connections_max)
}

fn queue(role: DispatcherRole, url: &Redacted<String>, pool: &str, instance: Uuid) -> Result<QueueChoice, Failure> {
    if url.expose() == "memory:" {
        if role != DispatcherRole::All {
            return Err(only_in_one_process(role, "--queue", "memory:", "amqp://"));
        }
        return Ok(QueueChoice::Memory);
    }
    let connection_name = format!("harborhook {} {instance}", role.as_str());
    Ok(QueueChoice::Rabbit(Box::new(RabbitConfig {
        pools: vec![pool.to_owned()],
        connection_name,
        ..queue_url::read(url)?
    })))
}

fn only_in_one_process(role: DispatcherRole, option: &str, given: &str, needed: &str) -> Failure {
    Failure::Configuration(format!(
        "{option}: `{given}` is for one process that does everything: use `dispatcher all`, or give `{}` a {needed} URL",
        role.as_str()
    ))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::Parser;
    use dispatcher_core::address::PortRule;

    use super::super::arguments::{Arguments, Command};
    use super::*;

    /// Settings of a command line; a valid key file is added.
    fn settings_of(line: &[&str]) -> Result<Settings, Failure> {
        let key = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(key.path(), [7; 32]).unwrap();
        let key = key.path().to_str().unwrap();
        let line = [&["dispatcher"], line, &["--sealing-key-file", key]].concat();
        match Arguments::try_parse_from(line).unwrap().command {
            Command::Ingest(arguments) => of_ingest(&arguments),
            Command::Deliver(arguments) => of_deliver(&arguments),
            Command::All(arguments) => of_all(&arguments),
            Command::Migrate(_) => unreachable!("it has no settings"),
        }
    }

    const SERVERS: [&str; 4] = ["--database", "postgres://u@h/d", "--queue", "amqp://h"];

    fn policy(more: &[&str]) -> AddressPolicy {
        settings_of(&[&["deliver"], &SERVERS[..], more].concat()).unwrap().address_policy
    }

    #[test]
    fn nothing_is_allowed_that_was_not_asked_for() {
        assert_eq!(policy(&[]), AddressPolicy::public_https());
        let all = policy(&[
            "--allow-http",
            "--allow-address=10.0.0.0/8,::1/128",
            "--allow-address=127.0.0.1/32",
            "--deny-address=10.1.0.0/16",
            "--allow-host=svc",
            "--allow-port=9000",
        ]);
        assert_eq!((all.allow.len(), all.deny.len(), all.allow_http), (3, 1, true));
        assert_eq!(all.allow_hosts, ["svc"]);
        assert_eq!(all.ports, PortRule::Only(vec![443, 8443, 80, 8080, 9000]));
        assert_eq!(policy(&["--allow-port=9000"]).ports, PortRule::Only(vec![443, 8443, 9000]));
        assert_eq!(policy(&["--allow-port=9000,any"]).ports, PortRule::Any);
    }

    #[test]
    fn what_only_one_process_can_use_is_refused_for_the_others() {
        for (line, what) in [
            (["ingest", "--database", "sqlite:a.db", "--queue", "amqp://h"], "use `dispatcher all`"),
            (["deliver", "--database", "postgres://h/d", "--queue", "memory:"], "use `dispatcher all`"),
            (["all", "--database", "sqlite:", "--queue", "memory:"], "names no file"),
        ] {
            let failure = settings_of(&line).err().expect(what).to_string();
            assert!(failure.contains(what), "{failure}");
        }
        for url in ["sqlite:a/b.db", "sqlite://a/b.db"] {
            let settings = settings_of(&["all", "--database", url, "--queue", "memory:"]).unwrap();
            assert!(matches!(settings.database, Database::Sqlite(path) if path == Path::new("a/b.db")), "{url}");
            assert!(matches!(settings.queue, QueueChoice::Memory));
        }
    }

    #[test]
    fn open_access_is_refused_beyond_loopback_and_tokens_are_not() {
        let line = |more: &[&str]| settings_of(&[&["ingest"], &SERVERS[..], more].concat());
        let failure = line(&["--listen", "0.0.0.0:0"]).err().unwrap().to_string();
        assert!(failure.contains("--listen: 0.0.0.0:0 is not a loopback address"), "{failure}");
        assert!(failure.contains("--access tokens"), "{failure}");
        let settings = line(&["--listen", "0.0.0.0:0", "--access", "tokens", "--admin-listen", "0.0.0.0:0"]).unwrap();
        assert!(matches!(settings.access, Access::Tokens(tokens) if tokens.file.is_none()));
        let deliver = settings_of(&[&["deliver"], &SERVERS[..], &["--admin-listen", "0.0.0.0:0"]].concat()).unwrap();
        assert!(matches!(deliver.access, Access::Open) && deliver.listen.is_none());
    }

    #[test]
    fn a_file_of_issuers_is_read_at_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("issuers.json");
        let line = |access: &str| {
            let file = ["--access", access, "--issuers-file", path.to_str().unwrap()];
            settings_of(&[&["ingest"], &SERVERS[..], &file].concat())
        };
        let failure = |access| line(access).err().unwrap().to_string();
        assert!(failure("tokens").contains("issuers.json: No such file"));
        std::fs::write(&path, "{\"issuers\": [{}]}").unwrap();
        assert!(failure("tokens").contains("issuers.json: missing field `issuer`"));
        std::fs::write(&path, "{\"issuers\": []}").unwrap();
        assert!(matches!(line("tokens").unwrap().access, Access::Tokens(tokens) if tokens.file.is_some()));
        assert!(failure("open").contains("--access tokens"));
    }
}
