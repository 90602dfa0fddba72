//! Installations in a real cluster, made with helm as a user makes them.

mod embedded;
mod support;
