//! Tokens, their issuers, and what they give access to.

mod issuers;
mod service;
pub(crate) mod signer;
mod verify;
