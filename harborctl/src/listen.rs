//! Loopback listeners.

use std::io::ErrorKind;
use std::net::SocketAddr;

use dispatcher::server::is_loopback;
use tokio::net::TcpListener;

use crate::exit::Failure;

/// Binds a loopback address for an option such as `--listen`, or says what to do about it.
pub(crate) async fn bind_loopback(option: &str, address: SocketAddr) -> Result<TcpListener, Failure> {
    let ip = match address {
        SocketAddr::V4(address) => address.ip().to_string(),
        SocketAddr::V6(address) => format!("[{}]", address.ip()),
    };
    if !is_loopback(address) {
        let message = format!("{option} {address}: only loopback is served, because nobody has to prove who they are");
        return Err(Failure::Local(message));
    }
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        ErrorKind::AddrInUse => {
            Failure::Local(format!("{address} is taken by another process: add {option} {ip}:0 to take a free port"))
        }
        _ => Failure::Local(format!("cannot listen on {address}: {error}")),
    })
}
