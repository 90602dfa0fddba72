//! The one place that asks the wall clock.

/// Milliseconds since the Unix epoch.
#[expect(clippy::disallowed_methods, reason = "this is the edge that the rule points to")]
pub fn now_unix_ms() -> u64 {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}
