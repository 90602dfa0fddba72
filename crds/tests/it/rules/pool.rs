//! Rules of pools.

use crds::Kind;
use serde_json::{Value, json};

use super::{Row, endpoint};

/// All of them.
pub(super) fn rows() -> Vec<Row> {
    let toleration = |toleration: Value| json!({"template": {"tolerations": [toleration]}});
    let quantity = |list: &str, quantity: &str| json!({"template": {"resources": {list: {"cpu": quantity}}}});
    let quantity_message = "must be a quantity such as 500m, 2 or 256Mi";
    vec![
        pool(
            "",
            "metadata.name must have at most 40 lower case letters, digits and -, and begin with a letter",
            json!({"name": "a-234567890123456789012345678901234567-0"}),
            json!({"name": "a.b"}),
        ),
        pool(
            "",
            "metadata.name must not be default: that pool belongs to the installation and is set up there",
            json!({"name": "default-2"}),
            json!({"name": "default"}),
        ),
        pool(
            "spec.maxReplicas",
            "must not be smaller than minReplicas (when absent they are 10 and 2)",
            json!({"minReplicas": 10}),
            json!({"maxReplicas": 1}),
        ),
        pool(
            "spec.scaling.stabilizationSeconds",
            "belongs to mode Backlog: in mode External whoever sets the replicas has a window of its own",
            json!({"scaling": {"stabilizationSeconds": 60}}),
            json!({"scaling": {"mode": "External", "stabilizationSeconds": 60}}),
        ),
        pool(
            "spec.template.resources.requests{}",
            quantity_message,
            quantity("requests", "1.5"),
            quantity("requests", "1 core"),
        ),
        pool(
            "spec.template.resources.limits{}",
            quantity_message,
            quantity("limits", "100m"),
            quantity("limits", "-1"),
        ),
        pool(
            "spec.template.tolerations[0]",
            "set key, or operator Exists for every taint",
            toleration(json!({"operator": "Exists"})),
            toleration(json!({"operator": "Equal"})),
        ),
        pool(
            "spec.template.tolerations[0].value",
            "belongs to operator Equal",
            toleration(json!({"key": "dedicated", "value": "hooks"})),
            toleration(json!({"key": "dedicated", "operator": "Exists", "value": "hooks"})),
        ),
        pool(
            "spec.template.tolerations[0].tolerationSeconds",
            "belongs to effect NoExecute",
            toleration(json!({"key": "a", "effect": "NoExecute", "tolerationSeconds": 30})),
            toleration(json!({"key": "a", "effect": "NoSchedule", "tolerationSeconds": 30})),
        ),
    ]
}

fn pool(field: &str, message: &'static str, accepted: Value, refused: Value) -> Row {
    Row { kind: Kind::DispatcherPool, ..endpoint(field, message, accepted, refused) }
}
