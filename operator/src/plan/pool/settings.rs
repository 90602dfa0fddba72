//! What holds for a pool, defaults included.

use std::time::Duration;

use crds::limits;
use crds::pool::{DispatcherPoolSpec, ScalingMode};

use crate::plan::scale::ScalePolicy;

/// How a pool is scaled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolSettings {
    /// Who sets the number of dispatchers.
    pub mode: ScalingMode,
    /// Bounds, and how fast the load is followed.
    pub policy: ScalePolicy,
}

impl PoolSettings {
    /// Those of a resource.
    pub fn of(spec: &DispatcherPoolSpec) -> Self {
        let scaling = spec.scaling.clone().unwrap_or_default();
        let count = |value: Option<i32>, default: i32| u32::try_from(value.unwrap_or(default)).unwrap_or_default();
        let seconds = |value, default| Duration::from_secs(u64::from(count(value, default)));
        Self {
            mode: scaling.mode.unwrap_or_default(),
            policy: ScalePolicy {
                replicas_min: count(spec.min_replicas, limits::POOL_MIN_REPLICAS_DEFAULT),
                replicas_max: count(spec.max_replicas, limits::POOL_MAX_REPLICAS_DEFAULT),
                drain_target: seconds(scaling.drain_target_seconds, limits::POOL_DRAIN_TARGET_SECONDS_DEFAULT),
                stabilization: seconds(scaling.stabilization_seconds, limits::POOL_STABILIZATION_SECONDS_DEFAULT),
            },
        }
    }

    /// Whether the operator sets the number of dispatchers.
    pub fn is_ours(&self) -> bool {
        self.mode == ScalingMode::Backlog
    }
}
