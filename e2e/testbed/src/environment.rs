//! What the environment says about servers. Read here and nowhere else.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use url::Url;

/// Names a PostgreSQL server.
pub const DATABASE_URL: &str = "HARBORHOOK_TEST_DATABASE_URL";
/// Names a RabbitMQ server.
pub const AMQP_URL: &str = "HARBORHOOK_TEST_AMQP_URL";
/// Names the management plugin of that RabbitMQ server.
pub const MANAGEMENT_URL: &str = "HARBORHOOK_TEST_RABBITMQ_MANAGEMENT_URL";
/// Names a cluster: the path of a kubeconfig whose current context may do everything.
pub const KUBECONFIG: &str = "HARBORHOOK_E2E_KUBECONFIG";
/// Names the image of Harborhook in a cluster that images cannot be loaded into.
pub const IMAGE: &str = "HARBORHOOK_E2E_IMAGE";
/// Names the program `kubectl`.
pub const KUBECTL: &str = "HARBORHOOK_KUBECTL";
/// Names the program `helm`.
pub const HELM: &str = "HARBORHOOK_HELM";
/// `1` makes missing servers an error.
pub const REQUIRE_SERVERS: &str = "HARBORHOOK_REQUIRE_SERVERS";

/// Port of the management plugin unless it is configured.
const MANAGEMENT_PORT: u16 = 15672;

/// The settings of this crate. An empty variable counts as unset.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// Value of [`DATABASE_URL`].
    pub database_url: Option<String>,
    /// Value of [`AMQP_URL`].
    pub amqp_url: Option<String>,
    /// Value of [`MANAGEMENT_URL`].
    pub management_url: Option<String>,
    /// Value of [`KUBECONFIG`].
    pub kubeconfig: Option<PathBuf>,
    /// Value of [`IMAGE`].
    pub image: Option<String>,
    /// Value of [`KUBECTL`].
    pub kubectl: Option<PathBuf>,
    /// Value of [`HELM`].
    pub helm: Option<PathBuf>,
    /// Whether [`REQUIRE_SERVERS`] is `1`.
    pub require_servers: bool,
    /// Folder for what is made once: `$XDG_CACHE_HOME/harborhook`, else `$HOME/.cache/harborhook`.
    pub cache: Option<PathBuf>,
}

impl Environment {
    /// Reads the variables of this process. A value that is neither `0` nor `1` for [`REQUIRE_SERVERS`] is an error, as
    /// is text that is not UTF-8.
    pub fn read() -> Result<Self> {
        Self::from_variables(|name| {
            let value = std::env::var_os(name).filter(|value| !value.is_empty());
            value.map(|value| value.into_string().ok().with_context(|| format!("{name} is not UTF-8"))).transpose()
        })
    }

    fn from_variables(variable: impl Fn(&str) -> Result<Option<String>>) -> Result<Self> {
        let require_servers = match variable(REQUIRE_SERVERS)?.as_deref() {
            Some("1") => true,
            None | Some("0") => false,
            Some(other) => bail!("{REQUIRE_SERVERS} is {other:?}; set it to 1 or 0"),
        };
        let cache = match variable("XDG_CACHE_HOME")? {
            Some(folder) => Some(PathBuf::from(folder)),
            None => variable("HOME")?.map(|home| PathBuf::from(home).join(".cache")),
        };
        Ok(Self {
            database_url: variable(DATABASE_URL)?,
            amqp_url: variable(AMQP_URL)?,
            management_url: variable(MANAGEMENT_URL)?,
            kubeconfig: variable(KUBECONFIG)?.map(PathBuf::from),
            image: variable(IMAGE)?,
            kubectl: variable(KUBECTL)?.map(PathBuf::from),
            helm: variable(HELM)?.map(PathBuf::from),
            require_servers,
            cache: cache.map(|folder| folder.join("harborhook")),
        })
    }

    /// [`Self::cache`], or an error that says how to have one.
    pub fn cache_folder(&self) -> Result<&Path> {
        self.cache.as_deref().context("set HOME or XDG_CACHE_HOME: what servers are made of is kept there")
    }

    /// URL of the management plugin of the server at `amqp_url`: the one named, else the usual port of the same host
    /// with the same user.
    pub fn management_url_of(&self, amqp_url: &str) -> Result<String> {
        if let Some(named) = &self.management_url {
            return Ok(named.clone());
        }
        let amqp = Url::parse(amqp_url).with_context(|| format!("{AMQP_URL} is not a URL"))?;
        let host = amqp.host_str().with_context(|| format!("{AMQP_URL} names no host"))?;
        let password = amqp.password().unwrap_or_default();
        Ok(format!("http://{}:{password}@{host}:{MANAGEMENT_PORT}", amqp.username()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Environment> {
        Environment::from_variables(|name| {
            Ok(variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()))
        })
    }

    #[test]
    fn servers_are_required_only_when_asked_for() {
        for (value, expected) in [("1", true), ("0", false)] {
            assert_eq!(read(&[(REQUIRE_SERVERS, value)]).unwrap().require_servers, expected);
        }
        assert!(!read(&[]).unwrap().require_servers);
        assert!(read(&[(REQUIRE_SERVERS, "yes")]).unwrap_err().to_string().contains("set it to 1 or 0"));
    }

    #[test]
    fn the_cache_is_where_the_user_keeps_caches() {
        let both = read(&[("XDG_CACHE_HOME", "/caches"), ("HOME", "/home/user")]).unwrap();
        assert_eq!(both.cache, Some(PathBuf::from("/caches/harborhook")));
        let home = read(&[("HOME", "/home/user")]).unwrap();
        assert_eq!(home.cache, Some(PathBuf::from("/home/user/.cache/harborhook")));
        assert_eq!(read(&[]).unwrap().cache, None);
    }

    #[test]
    fn the_management_url_follows_from_the_broker_unless_it_is_named() {
        let broker = "amqp://user:word@broker:5672/%2f";
        let derived = read(&[]).unwrap().management_url_of(broker).unwrap();
        assert_eq!(derived, "http://user:word@broker:15672");
        let named = read(&[(MANAGEMENT_URL, "http://other:1")]).unwrap().management_url_of(broker).unwrap();
        assert_eq!(named, "http://other:1");
        assert!(read(&[]).unwrap().management_url_of("broker").is_err());
    }
}
