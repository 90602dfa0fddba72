//! The real program as a process of its own, on real servers.

mod configuration;
pub(crate) mod harness;
mod pair;
mod stopping;
mod unready;
mod waiting;
