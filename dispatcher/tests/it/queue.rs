//! The queue: one suite for every implementation, and what only one of them does.

mod conformance;
mod memory;
mod rabbitmq;
mod support;
