//! Where deliveries may go, as the command line says it.

use clap::Args;
use clap::builder::BoolishValueParser;
use dispatcher_core::address::{AddressPolicy, HTTP_PORTS, HTTPS_PORTS, PortRule};
use ipnet::IpNet;

/// Arguments of the programs that deliver, or that judge what is delivered to. They must be the same for all.
#[derive(Debug, Args)]
pub struct AddressArguments {
    /// Deliver over `http` too, not only over `https`
    #[arg(long, env = "HARBORHOOK_ALLOW_HTTP", value_parser = BoolishValueParser::new())]
    pub allow_http: bool,

    /// Range of addresses to deliver to although it is not public, such as 10.1.0.0/16; may be given several times
    #[arg(long, value_name = "CIDR", env = "HARBORHOOK_ALLOW_ADDRESS", value_delimiter = ',')]
    pub allow_address: Vec<IpNet>,

    /// Range of addresses never to deliver to, whatever is allowed; may be given several times
    #[arg(long, value_name = "CIDR", env = "HARBORHOOK_DENY_ADDRESS", value_delimiter = ',')]
    pub deny_address: Vec<IpNet>,

    /// Host name, and with it all names below, to deliver to although it looks internal; may be given several times
    #[arg(long, value_name = "NAME", env = "HARBORHOOK_ALLOW_HOST", value_delimiter = ',')]
    pub allow_host: Vec<String>,

    /// Port to deliver to beside those of https (and of http, where it is allowed), or `any`; may be given several times
    #[arg(long, value_name = "PORT", env = "HARBORHOOK_ALLOW_PORT", value_delimiter = ',')]
    pub allow_port: Vec<AllowedPort>,
}

/// A port to deliver to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AllowedPort {
    /// Every one.
    Any,
    /// This one.
    Only(u16),
}

impl std::str::FromStr for AllowedPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match (text, text.parse()) {
            ("any", _) => Ok(Self::Any),
            (_, Ok(port)) if port > 0 => Ok(Self::Only(port)),
            _ => Err("a port is a number from 1 to 65535, or `any`".to_owned()),
        }
    }
}

impl AddressArguments {
    /// What they say.
    pub fn policy(&self) -> AddressPolicy {
        let only = |port: &AllowedPort| match port {
            AllowedPort::Only(port) => Some(*port),
            AllowedPort::Any => None,
        };
        let ports = if self.allow_port.contains(&AllowedPort::Any) {
            PortRule::Any
        } else if self.allow_port.is_empty() {
            PortRule::Web
        } else {
            let usual = HTTPS_PORTS.into_iter().chain(HTTP_PORTS.into_iter().filter(|_| self.allow_http));
            PortRule::Only(usual.chain(self.allow_port.iter().filter_map(only)).collect())
        };
        AddressPolicy {
            allow: self.allow_address.clone(),
            deny: self.deny_address.clone(),
            allow_hosts: self.allow_host.clone(),
            allow_http: self.allow_http,
            ports,
        }
    }
}
