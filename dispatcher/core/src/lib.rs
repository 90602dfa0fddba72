//! The pure domain of Harborhook: events, routing, signing, retries, protection.
//!
//! Everything here is a function of values. Time and randomness are arguments, no I/O happens, and
//! nothing in this crate knows Kubernetes, a database, a broker, an HTTP client or a runtime.

pub mod address;
pub mod breaker;
pub mod classify;
pub mod delivery;
pub mod event;
pub mod expression;
pub mod filter;
pub mod id;
pub mod limits;
pub mod pace;
pub mod pattern;
pub mod recipient;
pub mod redacted;
pub mod retry;
pub mod retry_after;
pub mod route;
pub mod scope;
pub mod seal;
pub mod sign;
pub mod table;
pub mod transform;
pub mod window;
