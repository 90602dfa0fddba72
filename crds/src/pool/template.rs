//! How the pods of a pool differ from those of the default pool.
#![expect(unreachable_pub, reason = "the schema derive repeats every struct inside a function")]

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{limits, schema};

/// What a pool's pods have of their own. A field that is set replaces that of the default pool's pods as a whole.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DispatcherTemplate {
    /// What a dispatcher asks of its node, and may use at most. Default: as the default pool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Labels that a node must have, with these values. Default: as the default pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::node_selector")]
    pub node_selector: Option<BTreeMap<String, String>>,
    /// Taints of nodes that do not keep the pods away. Default: as the default pool.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::TOLERATIONS_MAX), extend("x-kubernetes-list-type" = "atomic"))]
    pub tolerations: Option<Vec<Toleration>>,
}

/// Resources of a container, as Kubernetes has them.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// What is set aside on the node, such as `cpu: 500m` and `memory: 256Mi`. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::quantities")]
    pub requests: Option<BTreeMap<String, String>>,
    /// What may be used at most. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::quantities")]
    pub limits: Option<BTreeMap<String, String>>,
}

/// A taint that does not keep the pods away, as Kubernetes has it.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new("has(self.key) || (has(self.operator) && self.operator == 'Exists')")
        .message("set key, or operator Exists for every taint"),
    validation = Rule::new("!has(self.value) || !has(self.operator) || self.operator == 'Equal'")
        .message("belongs to operator Equal").field_path(".value"),
    validation = Rule::new("!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')")
        .message("belongs to effect NoExecute").field_path(".tolerationSeconds")
)]
#[serde(rename_all = "camelCase")]
pub struct Toleration {
    /// The taint's key. Default: none, every taint; then `operator` must be `Exists`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = limits::LABEL_KEY_LENGTH_MAX))]
    pub key: Option<String>,
    /// Whether the taint's value counts. Default: `Equal`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operator: Option<TolerationOperator>,
    /// The taint's value; operator `Equal` only. Default: the empty text.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::LABEL_VALUE_LENGTH_MAX))]
    pub value: Option<String>,
    /// The taint's effect. Default: none, every effect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effect: Option<TaintEffect>,
    /// Seconds after which a taint that comes later drives the pod away after all; effect `NoExecute` only. Default: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = limits::TOLERATION_SECONDS_MAX))]
    pub toleration_seconds: Option<i32>,
}

/// Whether a taint's value counts.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TolerationOperator {
    /// It must be equal.
    #[default]
    Equal,
    /// It does not count.
    Exists,
}

/// What a taint does to pods.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TaintEffect {
    /// No new ones.
    NoSchedule,
    /// New ones only if there is no other node.
    PreferNoSchedule,
    /// No new ones, and none that are there already.
    NoExecute,
}
