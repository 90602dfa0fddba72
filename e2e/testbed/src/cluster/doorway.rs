//! Connections between the host's network and the node's, which have no other: two threads, one in each, where a
//! connection that is accepted on one side goes on from the other. A socket belongs to the network of the thread that
//! made it, whoever uses it later, so nothing is changed in either network.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::mpsc;
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// It is closed when the value is dropped, and every connection through it.
#[derive(Debug)]
pub(crate) struct Doorway {
    outside: Side,
    inside: Side,
}

impl Doorway {
    /// To the network of a process.
    pub(crate) fn open(process: u32) -> Result<Self> {
        let network = File::open(format!("/proc/{process}/ns/net")).context("the node has no network")?;
        let enter = move || Ok(move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))?);
        let inside = Side::start("testbed-inside", enter).context("cannot enter the node's network")?;
        Ok(Self { outside: Side::start("testbed-outside", || Ok(()))?, inside })
    }

    /// A loopback address of the host that leads to an address inside.
    pub(crate) async fn lead_in(&self, target: SocketAddr) -> Result<SocketAddr> {
        lead(&self.outside.runtime, Ipv4Addr::LOCALHOST.into(), &self.inside.runtime, target).await
    }

    /// An address inside, on this one of the node's, that leads to an address of the host.
    pub(crate) async fn lead_out(&self, entrance: IpAddr, target: SocketAddr) -> Result<SocketAddr> {
        lead(&self.inside.runtime, entrance, &self.outside.runtime, target).await
    }
}

/// Accepts on one side and connects on the other.
async fn lead(from: &Handle, entrance: IpAddr, to: &Handle, target: SocketAddr) -> Result<SocketAddr> {
    let to = to.clone();
    let (listening, address) = oneshot::channel();
    from.spawn(async move {
        let listener = match TcpListener::bind((entrance, 0)).await {
            Ok(listener) => listener,
            Err(error) => return drop(listening.send(Err(error))),
        };
        // Who asked may be gone; the way is there until the doorway is closed.
        let _ = listening.send(listener.local_addr());
        while let Ok((accepted, _)) = listener.accept().await {
            // Out of this thread's runtime, into the other's.
            if let Ok(accepted) = accepted.into_std() {
                to.spawn(carry(accepted, target));
            }
        }
    });
    address.await.context("the doorway is closed")?.with_context(|| format!("cannot listen on {entrance}"))
}

async fn carry(accepted: std::net::TcpStream, target: SocketAddr) -> io::Result<()> {
    let mut near = TcpStream::from_std(accepted)?;
    let mut far = TcpStream::connect(target).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    tokio::io::copy_bidirectional(&mut near, &mut far).await?;
    Ok(())
}

/// A thread with a runtime of its own, which runs until it is dropped.
#[derive(Debug)]
struct Side {
    runtime: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Side {
    fn start(name: &str, enter: impl FnOnce() -> io::Result<()> + Send + 'static) -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_io().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let (tell, told) = mpsc::channel();
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            let entered = enter();
            let is_inside = entered.is_ok();
            if tell.send(entered).is_ok() && is_inside {
                // An error is the same message: nobody wants this thread any more.
                let _ = runtime.block_on(stopped);
            }
        })?;
        told.recv().context("the thread ended")??;
        Ok(Self { runtime: handle, stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported there.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn bytes_pass_both_ways_and_the_end_of_a_stream_too() {
        // Both sides are this network: entering another one takes root, and is the cluster's test.
        let side = |name| Side::start(name, || Ok(())).unwrap();
        let doorway = Doorway { outside: side("outside"), inside: side("inside") };
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = doorway.lead_in(server.local_addr().unwrap()).await.unwrap();
        let mut client = TcpStream::connect(address).await.unwrap();
        let (mut accepted, _) = server.accept().await.unwrap();
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut text = String::new();
        accepted.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "question");
        accepted.write_all(b"answer").await.unwrap();
        drop(accepted);
        text.clear();
        client.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "answer");

        drop(doorway);
        TcpStream::connect(address).await.unwrap_err();
    }

    #[test]
    fn a_network_that_cannot_be_entered_is_an_error() {
        let error = Side::start("inside", || Err(io::ErrorKind::PermissionDenied.into())).unwrap_err();
        assert!(error.to_string().contains("permission denied"), "{error}");
    }
}
