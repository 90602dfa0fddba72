//! The Helm chart, rendered by the real helm, and the kustomize bases made from it.

mod accounts;
mod admission;
mod cluster;
mod crds;
mod kustomize;
mod modes;
mod network;
mod options;
mod roles;
mod security;
pub(crate) mod support;
mod values;
