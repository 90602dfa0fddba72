//! Which addresses may be delivered to: the guard against server-side request forgery.
//!
//! A URL is checked when it is read ([`AddressPolicy::check_url`]), and every address that its host resolves to is
//! checked before a connection is made ([`AddressPolicy::check_address`]); one forbidden address refuses the host.

mod embedded;
mod host;
mod ranges;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use ipnet::IpNet;
use url::{Host, Url};

/// Ports of https that are open whatever the policy says about http.
pub const HTTPS_PORTS: [u16; 2] = [443, 8443];
/// Ports that are open too where http is allowed.
pub const HTTP_PORTS: [u16; 2] = [80, 8080];

/// Which addresses an installation delivers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressPolicy {
    /// Ranges that are allowed although they are not public. A metadata address needs an entry of its own (`/32`,
    /// `/128`): the range around it is allowed for other reasons.
    pub allow: Vec<IpNet>,
    /// Ranges that are never delivered to, whatever `allow` says: the cluster's own, for example.
    pub deny: Vec<IpNet>,
    /// Host names, and with them all names below, that are allowed although they look internal, for example `svc`
    /// or `payments.internal`. What they resolve to is still checked.
    pub allow_hosts: Vec<String>,
    /// Whether `http` is allowed beside `https`.
    pub allow_http: bool,
    /// Which ports are open.
    pub ports: PortRule,
}

/// Which ports may be delivered to. Everything else is closed: a port is where SSH, mail and databases listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortRule {
    /// [`HTTPS_PORTS`], and where http is allowed [`HTTP_PORTS`].
    Web,
    /// Exactly these.
    Only(Vec<u16>),
    /// All.
    Any,
}

/// Why an address is refused, from a closed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AddressErrorReason {
    /// Not `https`, or `http` where it is allowed.
    Scheme,
    /// The URL holds a user name or password.
    UserInfo,
    /// The URL has no host.
    NoHost,
    /// The port is not open.
    Port,
    /// The host name is one of an internal network.
    InternalHost,
    /// The installation's deny-list has it.
    Denied,
    /// A metadata service of a cloud.
    Metadata,
    /// This very machine.
    Loopback,
    /// A private network.
    Private,
    /// The local link.
    LinkLocal,
    /// Carrier-grade NAT.
    SharedAddressSpace,
    /// A group, not a host.
    Multicast,
    /// No host at all.
    Unspecified,
    /// Documentation or benchmarks.
    Documentation,
    /// A form of transition from IPv4 to IPv6, which leads elsewhere than it seems.
    Transition,
    /// Reserved, or assigned for a special purpose.
    Reserved,
}

impl AddressErrorReason {
    /// A stable name for logs, metrics and conditions.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scheme => "scheme",
            Self::UserInfo => "user_info",
            Self::NoHost => "no_host",
            Self::Port => "port",
            Self::InternalHost => "internal_host",
            Self::Denied => "denied",
            Self::Metadata => "metadata",
            Self::Loopback => "loopback",
            Self::Private => "private",
            Self::LinkLocal => "link_local",
            Self::SharedAddressSpace => "shared_address_space",
            Self::Multicast => "multicast",
            Self::Unspecified => "unspecified",
            Self::Documentation => "documentation",
            Self::Transition => "transition",
            Self::Reserved => "reserved",
        }
    }

    /// The second half of "the address … is …".
    fn describe(self) -> &'static str {
        match self {
            Self::Metadata => "a metadata service of a cloud",
            Self::Loopback => "this very machine (loopback)",
            Self::Private => "in a private network",
            Self::LinkLocal => "on the local link",
            Self::SharedAddressSpace => "in the shared space of carrier-grade NAT",
            Self::Multicast => "a multicast group",
            Self::Unspecified => "unspecified",
            Self::Documentation => "reserved for documentation or benchmarks",
            Self::Transition => "a transition form of IPv4 in IPv6",
            _ => "reserved for a special purpose",
        }
    }
}

/// Why an address is refused, and what to do about it. Never quotes the URL's path, user or query.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not an allowed scheme.
    #[error("the scheme {scheme} is not allowed: use {allowed}")]
    Scheme {
        /// The URL's scheme.
        scheme: String,
        /// What the policy allows.
        allowed: &'static str,
    },
    /// A user name or password.
    #[error("the URL holds a user name or password: take it out and send credentials as a header from a Secret")]
    UserInfo,
    /// No host.
    #[error("the URL has no host")]
    NoHost,
    /// A closed port.
    #[error("port {0} is not open for deliveries: use 443 or 8443, or have the installation open it")]
    Port(u16),
    /// An internal name.
    #[error("the host {0} is a name of an internal network: use a public name, or have the installation allow it")]
    InternalHost(String),
    /// On the deny-list.
    #[error("the address {0} is in the range {1}, which this installation denies")]
    Denied(IpAddr, IpNet),
    /// A special-purpose address.
    #[error("the address {address} is {}: use a public address, or have the installation allow it", .reason.describe())]
    Special {
        /// The address as it was given.
        address: IpAddr,
        /// What it is, or what the IPv4 address inside of it is.
        reason: AddressErrorReason,
    },
}

impl AddressError {
    /// The reason's label.
    pub fn reason(&self) -> AddressErrorReason {
        match self {
            Self::Scheme { .. } => AddressErrorReason::Scheme,
            Self::UserInfo => AddressErrorReason::UserInfo,
            Self::NoHost => AddressErrorReason::NoHost,
            Self::Port(_) => AddressErrorReason::Port,
            Self::InternalHost(_) => AddressErrorReason::InternalHost,
            Self::Denied(..) => AddressErrorReason::Denied,
            Self::Special { reason, .. } => *reason,
        }
    }
}

impl AddressPolicy {
    /// Public addresses over https, and nothing else.
    pub fn public_https() -> Self {
        Self { allow: Vec::new(), deny: Vec::new(), allow_hosts: Vec::new(), allow_http: false, ports: PortRule::Web }
    }

    /// For one's own machine: http, loopback, `localhost` and every port too, and nothing else.
    pub fn development() -> Self {
        Self {
            allow: ranges::loopback().to_vec(),
            allow_hosts: vec!["localhost".to_owned()],
            allow_http: true,
            ports: PortRule::Any,
            ..Self::public_https()
        }
    }

    /// Checks all that can be known of a URL without resolving its host: scheme, user info, port, the host's name,
    /// and an IP literal in whatever spelling (the URL parser has read `0x7f.1` and `2130706433` as `127.0.0.1`).
    pub fn check_url(&self, url: &Url) -> Result<(), AddressError> {
        if url.scheme() != "https" && !(url.scheme() == "http" && self.allow_http) {
            let allowed = if self.allow_http { "https or http" } else { "https" };
            return Err(AddressError::Scheme { scheme: url.scheme().to_owned(), allowed });
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(AddressError::UserInfo);
        }
        self.check_port(url.port_or_known_default().ok_or(AddressError::NoHost)?)?;
        match url.host().ok_or(AddressError::NoHost)? {
            Host::Domain(name) => self.check_host(name),
            Host::Ipv4(address) => self.check_address(address.into()),
            Host::Ipv6(address) => self.check_address(address.into()),
        }
    }

    /// Checks an address that is about to be connected to.
    ///
    /// `deny` comes first, then `allow`, then the special-purpose ranges. An IPv4 address inside of an IPv6 address
    /// is held to the same rules, so that no form of an address says more than the address itself.
    pub fn check_address(&self, address: IpAddr) -> Result<(), AddressError> {
        let embedded = embedded::ipv4_addresses(address);
        let forms = std::iter::once(address).chain(embedded.iter().map(|inner| IpAddr::V4(*inner)));
        for form in forms.clone() {
            if let Some(range) = self.deny.iter().find(|range| range.contains(&form)) {
                return Err(AddressError::Denied(address, *range));
            }
        }
        // A mapped address is the IPv4 address itself, as dual-stack sockets show it.
        let itself = usize::from(embedded::is_mapped(address));
        for form in forms.skip(itself) {
            if let Some(reason) = ranges::special_purpose(form)
                && !self.allows(form, reason)
            {
                return Err(AddressError::Special { address, reason });
            }
        }
        Ok(())
    }

    fn allows(&self, address: IpAddr, reason: AddressErrorReason) -> bool {
        let single = |range: &IpNet| range.prefix_len() == range.max_prefix_len();
        let metadata = reason == AddressErrorReason::Metadata;
        self.allow.iter().any(|range| range.contains(&address) && (!metadata || single(range)))
    }

    fn check_port(&self, port: u16) -> Result<(), AddressError> {
        let open = match &self.ports {
            PortRule::Any => true,
            PortRule::Only(ports) => ports.contains(&port),
            PortRule::Web => HTTPS_PORTS.contains(&port) || (self.allow_http && HTTP_PORTS.contains(&port)),
        };
        if open { Ok(()) } else { Err(AddressError::Port(port)) }
    }

    fn check_host(&self, name: &str) -> Result<(), AddressError> {
        let allowed = |suffix: &String| host::is_at_or_below(name, suffix);
        if host::is_internal(name) && !self.allow_hosts.iter().any(allowed) {
            return Err(AddressError::InternalHost(name.to_owned()));
        }
        Ok(())
    }
}
