//! Installations in a real cluster, made with helm as a user makes them.

mod distributed;
mod embedded;
mod support;
