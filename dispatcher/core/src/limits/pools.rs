//! Limits of pools of dispatchers.

use std::time::Duration;

/// Time over which a pool's rates are measured, rounded up to [`POOL_RATES_PERIOD`].
pub const POOL_RATES_WINDOW: Duration = Duration::from_secs(30);
/// Period that is counted as one.
pub const POOL_RATES_PERIOD: Duration = Duration::from_secs(5);
/// How long the counts of a period are kept.
pub const POOL_RATES_KEPT: Duration = Duration::from_mins(5);
/// Most rows of each kind that are counted of a pool's load; beyond them it is known to be large, and how large does not
/// matter.
pub const POOL_LOAD_ROWS_MAX: u32 = 100_000;
/// Longest name of an object that is also a label or a host name.
pub const OBJECT_LABEL_BYTES_MAX: usize = 63;
/// How often pools are looked at.
pub const POOL_LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// Shortest pause between two looks, whatever changes.
pub const POOL_LOOK_PAUSE: Duration = Duration::from_secs(1);
/// Most pods of a pool that are looked at for why they do not start.
pub const POOL_PODS_READ_MAX: u32 = 50;
/// How long what a busy dispatcher gets done is believed, once dispatchers are no longer busy.
pub const POOL_RATE_LIFETIME: Duration = Duration::from_hours(6);
/// The same for a rate that was found to be the same again and again.
pub const POOL_RATE_LIFETIME_MAX: Duration = Duration::from_hours(48);
/// Shortest time between two steps up.
pub const SCALE_UP_PAUSE: Duration = Duration::from_secs(15);
/// A step up adds as many as there are, or this many if that is more.
pub const SCALE_UP_STEP_MIN: u32 = 4;
/// Shortest time between any step and a step down.
pub const SCALE_DOWN_PAUSE: Duration = Duration::from_mins(1);
/// Most measurements of a pool that are remembered.
pub const SCALE_SAMPLES_MAX: usize = 1024;
/// Most exchanges on the fast track that a process can be given.
pub const FAST_TRACK_EXCHANGES_LIMIT: usize = 1024;
