//! The benchmark: ratios measured side by side in one run, on one machine.
//!
//! There are two yardsticks. The *relay limit* is the rate at which a bare HTTP client posts the same bodies to the same
//! sink, with nothing in between. The *bare pipeline* ([`pipeline`]) has the same hops as the distributed pair, on the
//! same servers, and no safety at all. The load, the sink and the bare client live in this process; what is measured
//! lives in processes of its own, so that its memory and its time can be told. The control plane ([`control`]) has floors
//! instead of a yardstick.

pub mod certificate;
pub mod child;
pub mod control;
pub mod counted;
pub mod distributed;
pub mod duel;
pub mod embedded;
pub mod history;
pub mod load;
pub mod pipeline;
pub mod report;
pub mod run;
pub mod servers;
pub mod sink;
pub mod system;
pub mod table;
pub mod usage;
