//! The one place that asks the wall clock, and the one that counts time without it.

use std::sync::LazyLock;
use std::time::Instant;

/// Milliseconds since the Unix epoch.
#[expect(clippy::disallowed_methods, reason = "this is the edge that the rule points to")]
pub fn now_unix_ms() -> u64 {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}

/// Milliseconds since this was asked first. They go on whatever the wall clock is set to.
pub fn steady_ms() -> u64 {
    static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(BEGAN.elapsed().as_millis()).unwrap_or(u64::MAX)
}
