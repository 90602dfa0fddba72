//! An API server that stands still: it takes connections, for the kernel does, and answers none.

use std::fs;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use super::Cluster;
use crate::announce;

/// What the program calls itself.
const PROGRAM: &str = "kube-apiserver";

/// See [`Cluster::stall`].
#[derive(Debug)]
pub struct Stalled {
    process: Pid,
}

impl Cluster {
    /// Stops the API server until the value is dropped: everything that it was told is still known to it then, and
    /// whatever it was asked meanwhile it answers late. Only of a private cluster, since everybody else is stopped too.
    pub fn stall(&self) -> Result<Stalled> {
        let node = self.node_process().context("the node is not on this machine")?;
        let process = process_of(node)?.with_context(|| format!("no process of the node is named {PROGRAM}"))?;
        kill_process(process, Signal::STOP).context("the API server cannot be stopped")?;
        Ok(Stalled { process })
    }
}

impl Drop for Stalled {
    fn drop(&mut self) {
        if let Err(error) = kill_process(self.process, Signal::CONT) {
            announce(&format!("the API server was not made to go on: {error}"));
        }
    }
}

/// The API server's process, by the namespace that it shares with the node's PID 1.
fn process_of(node: u32) -> Result<Option<Pid>> {
    let namespace = |process: &str| fs::read_link(format!("/proc/{process}/ns/pid"));
    let of_node = namespace(&node.to_string()).context("the node has ended")?;
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(process) = name.to_str().and_then(|name| name.parse::<i32>().ok().and_then(Pid::from_raw)) else {
            continue;
        };
        let number = process.as_raw_nonzero().to_string();
        // It may have ended since the folder was listed.
        let is_program = fs::read_to_string(format!("/proc/{number}/comm")).is_ok_and(|comm| comm.trim() == PROGRAM);
        if is_program && namespace(&number).is_ok_and(|namespace| namespace == of_node) {
            return Ok(Some(process));
        }
    }
    Ok(None)
}
