use serde_json::json;

use super::{BILLING, plan_of, rows_of};

const SLOW: &str = "apiVersion: harborhook.dev/v1alpha1
kind: DispatcherPool
metadata: {name: slow, namespace: hooks}
spec: {maxReplicas: 4}
";

#[test]
fn one_that_comes_changes_or_goes_is_told_with_its_bounds() {
    let slow = |spec: &str| SLOW.replace("{maxReplicas: 4}", spec);
    let rows = |from: &str, to: &str| rows_of(&[("p.yaml", from)], &[("p.yaml", to)], 1);
    assert_eq!(rows_of(&[], &[("p.yaml", SLOW)], 1), ["added DispatcherPool hooks slow 2 to 4 dispatchers"]);
    assert_eq!(rows_of(&[("p.yaml", SLOW)], &[], 1), ["removed DispatcherPool hooks slow 2 to 4 dispatchers"]);
    for (spec, words) in [
        ("{}", "spec.maxReplicas; 2 to 10 dispatchers instead of 2 to 4"),
        ("{minReplicas: 0, maxReplicas: 4}", "spec.minReplicas; 0 to 4 dispatchers instead of 2 to 4"),
        (
            "{maxReplicas: 4, scaling: {mode: External}}",
            "spec.scaling; 2 to 4 dispatchers (set by somebody else) instead of 2 to 4",
        ),
        ("{maxReplicas: 4, maxInFlight: 64}", "spec.maxInFlight"),
    ] {
        assert_eq!(rows(SLOW, &slow(spec)), [format!("changed DispatcherPool hooks slow {words}")], "{spec}");
    }
    let answer = plan_of(&[("p.yaml", SLOW)], &[("p.yaml", &slow("{maxReplicas: 20}"))], 1);
    let expected = json!([{
        "change": "changed", "kind": "DispatcherPool", "namespace": "hooks", "name": "slow", "min_replicas": 2,
        "max_replicas": 20, "mode": "Backlog",
        "before": {"min_replicas": 2, "max_replicas": 4, "mode": "Backlog"}, "fields": ["spec.maxReplicas"],
    }]);
    assert_eq!(answer["changes"], expected, "{answer}");
}

#[test]
fn endpoints_that_name_one_that_goes_would_not_be_ready() {
    let endpoint = BILLING.to_owned() + "  poolRef: {name: slow}\n";
    let both = [("a.yaml", &*endpoint), ("p.yaml", SLOW)];
    assert_eq!(
        rows_of(&both, &[("a.yaml", &endpoint)], 2),
        [
            "removed DispatcherPool hooks slow 2 to 4 dispatchers",
            "not ready Endpoint shop billing PoolNotFound: spec.poolRef.name: there is no pool slow: name one that exists, or \
         none for the default pool; what waits is held",
        ]
    );
    // One that moves to another pool is well, and so is one whose pool no tree has.
    assert_eq!(
        rows_of(&both, &[("a.yaml", BILLING)], 1),
        ["changed Endpoint shop billing spec.poolRef", "removed DispatcherPool hooks slow 2 to 4 dispatchers",]
    );
    assert_eq!(rows_of(&[], &[("a.yaml", &endpoint)], 1), ["added Endpoint shop billing billing.example.com"]);
}
