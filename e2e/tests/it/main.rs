//! Tests of the whole, one binary so that it links once.
#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

mod chart;
mod cluster;
mod dependencies;
mod faults;
mod gitops;
mod habits;
mod hostile;
mod payloads;
