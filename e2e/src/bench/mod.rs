//! The benchmark: ratios measured side by side in one run, on one machine.
//!
//! The yardstick is the *relay limit*: the rate at which a bare HTTP client posts the same bodies to the same sink,
//! with nothing in between. The load, the sink and the bare client live in this process; the system under test lives
//! in a process of its own, so that its memory can be told.

pub mod load;
pub mod report;
pub mod run;
pub mod server;
pub mod sink;
