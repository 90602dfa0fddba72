//! All that talks to an API server.

pub mod issuer;
