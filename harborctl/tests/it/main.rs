//! Tests of the real `harborctl` binary.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on must fail")]

mod commands;
mod dev;
mod edit;
mod receiver;
mod restart;
mod support;
mod verify;
