//! Delivery as a whole: a real ledger and queue, and real receivers on loopback.

#![expect(clippy::unwrap_used, reason = "the harness is a part of tests")]

mod failures;
pub(crate) mod harness;
mod identity;
mod paths;
mod protection;
mod returned;
mod unavailable;
