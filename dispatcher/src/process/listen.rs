//! Opens the listeners and tells where they are.

use std::io::Write;
use std::net::SocketAddr;

use serde::Serialize;
use tokio::net::TcpListener;

use super::Failure;

/// What is served on a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ListenerRole {
    /// What producers and tenants use.
    Api,
    /// Health and metrics.
    Admin,
}

impl ListenerRole {
    fn option(self) -> &'static str {
        match self {
            Self::Api => "--listen",
            Self::Admin => "--admin-listen",
        }
    }
}

/// Listens on an address.
///
/// # Errors
/// If that is not possible.
pub async fn open(role: ListenerRole, address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| {
        let option = role.option();
        Failure::Configuration(format!("{option} {address}: {error}; choose another address, or port 0 for a free one"))
    })
}

/// A line of the standard output, which carries nothing else.
#[derive(Serialize)]
struct Listening {
    kind: &'static str,
    role: ListenerRole,
    address: SocketAddr,
}

/// Tells whoever started the process where it listens, by a line of JSON on the standard output.
///
/// # Errors
/// If nobody can be told.
pub fn announce(role: ListenerRole, address: SocketAddr) -> Result<(), Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        Failure::Configuration(format!("the standard output cannot be written: {error}"))
    };
    let line =
        serde_json::to_string(&Listening { kind: "listening", role, address }).map_err(|error| failed(&error))?;
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}").and_then(|()| stdout.flush()).map_err(|error| failed(&error))
}
