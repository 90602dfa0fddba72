//! The `CustomResourceDefinition`s: what the derive makes of the types, finished for Kubernetes.

use std::sync::LazyLock;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt;
use kube_cel::CompiledSchema;
use serde_json::{Value, json};

use crate::condition::{ConditionStatus, ConditionType, Reason};
use crate::{DispatcherPool, Endpoint, Kind, Replay, Subscription};

/// The definition of a kind, as it is installed. Differs from the derive's `crd()` in two ways: an absent field is never
/// `nullable` (Kubernetes then treats `null` as absent, also in rules), and `status` has its default.
pub fn definition(kind: Kind) -> CustomResourceDefinition {
    let mut definition = match kind {
        Kind::Endpoint => Endpoint::crd(),
        Kind::Replay => Replay::crd(),
        Kind::Subscription => Subscription::crd(),
        Kind::DispatcherPool => DispatcherPool::crd(),
    };
    for version in &mut definition.spec.versions {
        if let Some(schema) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) {
            clear_nullable(schema);
            if let Some(status) = schema.properties.as_mut().and_then(|properties| properties.get_mut("status")) {
                status.default = Some(JSON(default_status()));
            }
        }
    }
    definition
}

/// The status of a resource that no controller has seen: not ready, and its generation is not observed, so that no
/// tool takes it for healthy.
pub fn default_status() -> Value {
    json!({
        "observedGeneration": -1,
        "conditions": [{
            "type": ConditionType::Ready.as_str(),
            "status": ConditionStatus::Unknown.as_str(),
            "reason": Reason::Pending.as_str(),
            "message": "Waiting for the controller",
            "lastTransitionTime": "1970-01-01T00:00:00Z",
        }],
    })
}

/// A kind's schema in the two forms that [`crate::admission`] reads, made once.
pub(crate) struct CompiledDefinition {
    /// `openAPIV3Schema` as JSON.
    pub(crate) schema: Value,
    /// Its CEL rules, compiled.
    pub(crate) rules: CompiledSchema,
}

pub(crate) fn compiled(kind: Kind) -> &'static CompiledDefinition {
    static ENDPOINT: LazyLock<CompiledDefinition> = LazyLock::new(|| compile(Kind::Endpoint));
    static REPLAY: LazyLock<CompiledDefinition> = LazyLock::new(|| compile(Kind::Replay));
    static SUBSCRIPTION: LazyLock<CompiledDefinition> = LazyLock::new(|| compile(Kind::Subscription));
    static DISPATCHER_POOL: LazyLock<CompiledDefinition> = LazyLock::new(|| compile(Kind::DispatcherPool));
    match kind {
        Kind::Endpoint => &ENDPOINT,
        Kind::Replay => &REPLAY,
        Kind::Subscription => &SUBSCRIPTION,
        Kind::DispatcherPool => &DISPATCHER_POOL,
    }
}

fn compile(kind: Kind) -> CompiledDefinition {
    let schema = openapi_schema(kind);
    CompiledDefinition { rules: kube_cel::compile_schema(&schema), schema }
}

/// `openAPIV3Schema` of a kind's one version, as JSON.
pub fn openapi_schema(kind: Kind) -> Value {
    let versions = definition(kind).spec.versions;
    let schema = versions.into_iter().find_map(|version| version.schema?.open_api_v3_schema);
    serde_json::to_value(schema).expect("a schema of plain maps and strings has a JSON form")
}

fn clear_nullable(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    if let Some(properties) = &mut schema.properties {
        properties.values_mut().for_each(clear_nullable);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        clear_nullable(items);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        clear_nullable(values);
    }
}
