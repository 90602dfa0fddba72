//! All that talks to an API server.

pub mod events;
pub mod failure;
pub mod issuer;
pub mod lease;
pub mod metrics;
pub mod pools;
pub mod secret;
pub mod status;
pub mod watch;

/// Who writes, as the API server records it for each field.
pub const FIELD_MANAGER: &str = "harborhook";
