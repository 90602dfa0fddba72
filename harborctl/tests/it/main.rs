//! Tests of the real `harborctl` binary.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on must fail")]

mod commands;
mod data;
mod dev;
mod edit;
mod not_ready;
mod plan;
mod readme;
mod receiver;
mod replay;
mod restart;
mod stalled;
mod support;
mod tls;
mod token;
mod verify;
