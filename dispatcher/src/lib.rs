//! The data plane of Harborhook: accepts events, delivers signed webhooks, records every attempt.
//!
//! Roles `ingest` and `deliver` meet only in the [`ledger`] and the [`queue`]. Nothing here knows Kubernetes.

pub mod access;
pub mod admin;
pub mod api;
pub mod clock;
pub mod deliver;
pub mod due;
mod gathering;
pub mod http;
pub mod ingest;
pub mod ledger;
pub mod metrics;
pub mod problem;
pub mod process;
pub mod queue;
pub mod readiness;
pub mod server;
pub mod service;
pub mod snapshot;
