//! The ledger: one conformance suite and one model for every implementation.

#![expect(clippy::unwrap_used, reason = "helpers and suites are functions of tests")]

mod conformance;
mod many;
mod model;
mod postgres;
mod sqlite;
mod support;
