//! Limits of replays.

use std::time::Duration;

/// Deliveries or events that a replay looks at in one step.
pub const REPLAY_PAGE_ROWS_MAX: u32 = 1000;
/// Bytes of bodies that a replay reads in one step, beside the first.
pub const REPLAY_PAGE_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Deliveries that one step of a replay starts: as many rows as an outcome batch, so that no other write waits long.
pub const REPLAY_STEP_DELIVERIES_MAX: usize = 500;
/// Runs of a replay that are looked at at once to see whether they are over.
pub const REPLAY_SETTLE_ROWS_MAX: u32 = 1000;
/// Deliveries of one replay that are open at once. A replay waits for some to be finished before it starts more, so that
/// one to an endpoint that is down does not use up what its tenant may have waiting.
pub const REPLAY_OPEN_MAX: u64 = 10_000;
/// Replays that look for deliveries at once, in all; the others wait for their turn.
pub const REPLAYS_RUNNING_MAX: usize = 64;
/// Of these, the ones of one tenant.
pub const REPLAYS_RUNNING_PER_TENANT_MAX: usize = 8;
/// Replays of one tenant that a ledger remembers, newest first.
pub const REPLAYS_REMEMBERED_MAX: u32 = 10_000;
/// Complete replays of which a worker still knows, newest first.
pub const REPLAYS_FINISHED_KEPT_MAX: usize = 1000;
/// Shortest time between two steps of a replay that start something: a slow one starts several at once, not one a commit.
pub const REPLAY_STEP_INTERVAL: Duration = Duration::from_millis(250);
/// How long to wait before looking again at runs that are not over.
pub const REPLAY_SETTLE_INTERVAL: Duration = Duration::from_secs(1);
/// The same, when a whole round has found none that was over.
pub const REPLAY_SETTLE_INTERVAL_MAX: Duration = Duration::from_secs(15);
/// How long to wait after the ledger has not answered.
pub const REPLAY_RETRY_PAUSE: Duration = Duration::from_secs(2);
/// Shortest time between two reports of a replay's counts to whoever writes its status.
pub const REPLAY_REPORT_INTERVAL: Duration = Duration::from_secs(10);
