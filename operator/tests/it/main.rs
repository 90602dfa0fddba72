//! The control plane from outside.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod agreement;
mod apply;
#[cfg(feature = "cluster")]
mod cluster;
mod control;
mod files;
mod fixtures;
#[cfg(feature = "cluster")]
mod issuer;
mod limits;
mod page;
mod plan;
mod pools;
mod properties;
mod replay;
mod replays;
mod scale;
mod sealing;
mod telling;
mod tls;
mod token;
