//! Integration tests of the data plane: one binary, so that it links once.
#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

mod access;
mod api;
mod authority;
mod deliver;
mod http;
mod ingest;
mod ledger;
mod ledger_proxy;
mod program;
mod queue;
mod readiness;
mod starting;
