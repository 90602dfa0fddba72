//! What the tests of the whole and the benchmark share.

pub mod bench;
pub mod distributed;
pub mod http;
pub mod payloads;
pub mod process;
