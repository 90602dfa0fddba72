//! All that talks to an API server.
//!
//! [`sources`] follows what is there (`watch`, `namespaces`, [`secrets`]); [`control`] plans it and publishes the routing
//! table; [`run`] drives both while this process leads ([`lease`]), and hands on what is to be written: [`status`],
//! [`events`], [`generating`].

pub mod assembly;
pub mod confirmation;
pub mod control;
pub mod events;
pub mod failure;
pub mod generating;
pub mod issuer;
pub mod lease;
pub mod metrics;
pub mod namespaces;
pub mod notices;
pub mod pools;
pub mod readiness;
pub mod run;
pub mod secret;
pub mod secrets;
pub mod sources;
pub mod status;
pub mod watch;

/// Who writes, as the API server records it for each field.
pub const FIELD_MANAGER: &str = "harborhook";
