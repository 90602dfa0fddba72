//! Installations in a real cluster, made with helm as a user makes them.

mod counting;
mod distributed;
mod embedded;
mod publishing;
mod support;
