//! What the controller reports about an endpoint.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{limits, schema};

/// What the controller knows about an endpoint.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointStatus {
    /// Generation of the spec that this status describes; -1 before a controller has seen the resource.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Conditions, one of each type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// How deliveries go. Rounded, and written only when a rounded value changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivery: Option<DeliveryStatus>,
    /// Host and port of the URL; never the whole URL, which may be a secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::HOST_LENGTH_MAX))]
    pub host: Option<String>,
}

/// How deliveries to an endpoint go. Texts are rendered for people.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeliveryStatus {
    /// Reason of the `Delivering` condition.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::COLUMN_LENGTH_MAX))]
    pub state: Option<String>,
    /// Attempts of the last 5 minutes that succeeded, such as `99.5%`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::COLUMN_LENGTH_MAX))]
    pub success: Option<String>,
    /// 95th percentile of the duration of an attempt, such as `200ms`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::COLUMN_LENGTH_MAX))]
    pub p95: Option<String>,
    /// Deliveries that wait, such as `~12k`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::COLUMN_LENGTH_MAX))]
    pub pending: Option<String>,
    /// When the oldest delivery that waits was accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_time: Option<Time>,
    /// Status code of the last response.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 100, max = 999))]
    pub last_code: Option<i32>,
    /// When these facts were measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measured_time: Option<Time>,
}
