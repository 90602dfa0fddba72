//! The control plane: resources in, routing table and statuses out.
//!
//! `world -> validate -> plan -> apply`: [`world`] is all that is known, as plain values; [`validate`] finds what is wrong
//! with a resource; [`plan`] computes what must change; [`apply`] changes it. Only `apply`, [`replays`],
//! which carries out what is planned of them, and the reading of files do I/O.

pub mod apply;
#[cfg(feature = "cluster")]
pub mod cluster;
pub mod conditions;
pub mod effective;
pub mod facts;
pub mod generate;
pub mod plan;
#[cfg(feature = "cluster")]
pub mod program;
pub mod replays;
pub mod validate;
pub mod world;
