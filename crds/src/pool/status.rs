//! What the controller reports about a pool.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{limits, schema};

/// What the controller knows about a pool.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DispatcherPoolStatus {
    /// Generation of the spec that this status describes; -1 before a controller has seen the resource.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Conditions, one of each type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// Dispatchers that are ready, of those that are there, such as `3/4`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::COLUMN_LENGTH_MAX))]
    pub replicas: Option<String>,
    /// Dispatchers that the load asks for, within the bounds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub wanted_replicas: Option<i32>,
    /// The lower bound in effect.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub min_replicas: Option<i32>,
    /// The upper bound in effect.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub max_replicas: Option<i32>,
    /// Who sets the number of dispatchers: `Backlog` or `External`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::COLUMN_LENGTH_MAX))]
    pub mode: Option<String>,
    /// When the operator last changed the number of dispatchers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_scale_time: Option<Time>,
    /// How busy the pool is. Rounded, and written only when a rounded value changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load: Option<PoolLoadStatus>,
    /// Name of the Deployment that runs the dispatchers.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::OBJECT_NAME_LENGTH_MAX))]
    pub deployment: Option<String>,
}

/// How busy a pool is. Texts are rendered for people.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolLoadStatus {
    /// Deliveries that are late, such as `~12k`; those behind a closed gate do not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::COLUMN_LENGTH_MAX))]
    pub backlog: Option<String>,
    /// All deliveries that are not finished, such as `~20k`: those behind a closed gate too.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::COLUMN_LENGTH_MAX))]
    pub open: Option<String>,
    /// Deliveries accepted, such as `~200/s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::COLUMN_LENGTH_MAX))]
    pub arriving: Option<String>,
    /// Deliveries that succeeded, such as `~200/s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::COLUMN_LENGTH_MAX))]
    pub delivering: Option<String>,
    /// What one dispatcher gets done when it is busy, such as `~500/s`; absent until it was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::COLUMN_LENGTH_MAX))]
    pub per_dispatcher: Option<String>,
    /// When these facts were measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measured_time: Option<Time>,
}
