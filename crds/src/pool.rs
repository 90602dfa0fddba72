//! `DispatcherPool`: dispatchers of their own for some endpoints, and how many of them.
#![expect(unreachable_pub, reason = "the schema derive repeats every struct inside a function")]

mod status;
mod template;

pub use status::{DispatcherPoolStatus, PoolLoadStatus};
pub use template::{DispatcherTemplate, Resources, TaintEffect, Toleration, TolerationOperator};

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::limits;

/// Dispatchers of their own for the endpoints that name the pool.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "harborhook.dev",
    version = "v1alpha1",
    kind = "DispatcherPool",
    plural = "hookpools",
    singular = "hookpool",
    shortname = "hpool",
    category = "hooks",
    namespaced,
    status = "DispatcherPoolStatus",
    derive = "PartialEq",
    doc = "Dispatchers of their own for the endpoints that name the pool; it stands in the namespace of the installation.",
    validation = Rule::new("!has(self.metadata) || !has(self.metadata.name) || self.metadata.name.matches('^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$')")
        .message("metadata.name must have at most 40 lower case letters, digits and -, and begin with a letter"),
    validation = Rule::new("!has(self.metadata) || !has(self.metadata.name) || self.metadata.name != 'default'")
        .message("metadata.name must not be default: that pool belongs to the installation and is set up there"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(
        name = "Replicas",
        type_ = "string",
        json_path = ".status.replicas",
        description = "Dispatchers that are ready, of those that are there"
    ),
    printcolumn(
        name = "Wanted",
        type_ = "integer",
        json_path = ".status.wantedReplicas",
        description = "Dispatchers that the load asks for, within the bounds"
    ),
    printcolumn(
        name = "Backlog",
        type_ = "string",
        json_path = ".status.load.backlog",
        description = "Deliveries that are late, rounded; those behind a closed gate do not count"
    ),
    printcolumn(name = "Mode", type_ = "string", json_path = ".status.mode", description = "Who sets the replicas"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Min",
        type_ = "integer",
        json_path = ".status.minReplicas",
        description = "Fewest dispatchers",
        priority = 1
    ),
    printcolumn(
        name = "Max",
        type_ = "integer",
        json_path = ".status.maxReplicas",
        description = "Most dispatchers",
        priority = 1
    ),
    printcolumn(
        name = "Arriving",
        type_ = "string",
        json_path = ".status.load.arriving",
        description = "Deliveries that are accepted, rounded",
        priority = 1
    ),
    printcolumn(
        name = "Delivering",
        type_ = "string",
        json_path = ".status.load.delivering",
        description = "Deliveries that succeed, rounded",
        priority = 1
    ),
    printcolumn(
        name = "Scaled",
        type_ = "date",
        json_path = ".status.lastScaleTime",
        description = "Since when the number is what it is",
        priority = 1
    )
)]
#[x_kube(
    validation = Rule::new("(has(self.minReplicas) ? self.minReplicas : 2) <= (has(self.maxReplicas) ? self.maxReplicas : 10)")
        .message("must not be smaller than minReplicas (when absent they are 10 and 2)").field_path(".maxReplicas")
)]
#[serde(rename_all = "camelCase")]
pub struct DispatcherPoolSpec {
    /// Fewest dispatchers. With 0 the pool is empty while nothing is due, and the first event after a pause waits until a
    /// dispatcher has started. Default: 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = limits::POOL_REPLICAS_MAX))]
    pub min_replicas: Option<i32>,
    /// Most dispatchers. Default: 10.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = limits::POOL_REPLICAS_MAX))]
    pub max_replicas: Option<i32>,
    /// Who sets the number of dispatchers, and how fast it follows the load. Default: see its fields.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scaling: Option<Scaling>,
    /// How the pool's pods differ from those of the installation's default pool. Default: not at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<DispatcherTemplate>,
    /// Most requests that one dispatcher has in flight at once; those that have not been answered after a second make
    /// room for others. Default: 128.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = limits::POOL_MAX_IN_FLIGHT_MAX))]
    pub max_in_flight: Option<i32>,
}

/// How the number of dispatchers follows the load.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new("!has(self.stabilizationSeconds) || !has(self.mode) || self.mode != 'External'")
        .message("belongs to mode Backlog: in mode External whoever sets the replicas has a window of its own")
        .field_path(".stabilizationSeconds")
)]
#[serde(rename_all = "camelCase")]
pub struct Scaling {
    /// Who sets the number of dispatchers. Default: `Backlog`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<ScalingMode>,
    /// Seconds within which a backlog is to be worked off: the smaller, the more dispatchers a backlog calls for.
    /// Default: 60.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = limits::POOL_DRAIN_TARGET_SECONDS_MIN, max = limits::POOL_DRAIN_TARGET_SECONDS_MAX))]
    pub drain_target_seconds: Option<i32>,
    /// Seconds for which fewer dispatchers must have been enough before some of them are taken away; mode `Backlog` only.
    /// Default: 300.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = limits::POOL_STABILIZATION_SECONDS_MIN, max = limits::POOL_STABILIZATION_SECONDS_MAX))]
    pub stabilization_seconds: Option<i32>,
}

/// Who sets the number of dispatchers.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ScalingMode {
    /// The operator, from what is late, what arrives and what a dispatcher gets done.
    #[default]
    Backlog,
    /// Somebody else, such as a HorizontalPodAutoscaler or KEDA; the operator only measures.
    External,
}

impl ScalingMode {
    /// The word that stands in `mode`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Backlog => "Backlog",
            Self::External => "External",
        }
    }
}
