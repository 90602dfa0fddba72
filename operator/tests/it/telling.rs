//! What plans tell, and how soon their statuses must be written.

use std::sync::Arc;
use std::time::Duration;

use dispatcher::ledger::EndpointFacts;
use dispatcher_core::delivery::Outcome;
use dispatcher_core::id::{EndpointId, TenantId};
use operator::plan::{Plan, StatusChange};

use crate::fixtures::{Harness, SIGNING, endpoint, good, pool, subscription};

const ROUTE: &str = "endpointRef: {name: e}\neventTypes: ['order.*']";

/// Plans and applies until nothing changes; answers what was told, as `kubectl get events` shows it.
fn tell(harness: &mut Harness) -> Vec<String> {
    for endpoint in &mut harness.world.endpoints {
        Arc::make_mut(endpoint).metadata.uid = Some("u-1".into());
    }
    let mut told = Vec::new();
    loop {
        let plan = harness.plan();
        if plan.is_empty() {
            return told;
        }
        told.extend(plan.statuses.iter().flat_map(|status| &status.events).map(|event| {
            let (kind, name) = (event.kind.as_str(), &event.name);
            format!("{} {} {kind}/{name} {}", event.type_.as_str(), event.reason.as_str(), event.note)
        }));
        harness.world.apply(&plan);
    }
}

fn facts(attempts: u64, succeeded: u64) -> EndpointFacts {
    EndpointFacts {
        endpoint: EndpointId::derive(TenantId::of_namespace_name("shop"), "e"),
        attempts,
        succeeded,
        p95: Some(Duration::from_millis(130)),
        pending: 0,
        oldest_unix_ms: None,
        last_status_code: Some(200),
        last_outcome: Some(Outcome::Delivered),
        gate_closed_for: None,
    }
}

#[test]
fn an_owner_reads_what_was_wrong_and_that_it_is_right_again() {
    let without_secret = endpoint(&format!("url: https://example.com/hook\n{SIGNING}"));
    let mut harness = Harness::of(&without_secret);
    let missing = tell(&mut harness);
    assert_eq!(missing.len(), 1, "{missing:?}");
    assert!(missing[0].starts_with("Warning SecretNotFound Endpoint/e spec.signing"), "{missing:?}");
    harness.change(&good(""));
    let healed = tell(&mut harness);
    assert_eq!(
        healed,
        ["Normal Resolved Endpoint/e Everything that is named is there", "Normal Programmed Endpoint/e In effect"]
    );
    harness.change(&good("suspend: true"));
    assert_eq!(tell(&mut harness), ["Normal Suspended Endpoint/e Suspended, as the spec asks"]);
}

#[test]
fn an_operator_that_begins_tells_nothing() {
    let mut harness = Harness::of(&format!("{}{}", good(""), subscription(ROUTE)));
    assert!(!tell(&mut harness).is_empty());
    // Another process finds the statuses that this one wrote, and plans with a memory of nothing.
    harness.now += 3_600_000;
    assert_eq!(tell(&mut harness), Vec::<String>::new());
}

fn change(plan: &Plan) -> Vec<StatusChange> {
    plan.statuses.iter().map(|status| status.change).collect()
}

#[test]
fn the_first_status_can_wait_for_dispatchers_if_nothing_is_wrong_and_no_other_one_can() {
    let mut harness = Harness::of(&format!("{}{}", good(""), subscription(ROUTE)));
    harness.world.pools.insert("default".to_owned(), pool(1, 0));
    harness.world.ingest = pool(1, 0);
    let plan = harness.plan();
    assert_eq!(change(&plan), [StatusChange::Beginning; 2]);
    harness.world.apply(&plan);
    assert_eq!(change(&harness.plan()), [StatusChange::Conditions; 2], "something was said of them");
    let wrong = Harness::of(&good("").replace("https:", "http:"));
    assert_eq!(change(&wrong.plan()), [StatusChange::Conditions]);
    let without_dispatchers = Harness::of(&good(""));
    assert_eq!(change(&without_dispatchers.plan()), [StatusChange::Beginning], "it is not published yet");
}

#[test]
fn facts_alone_can_wait_and_another_state_cannot() {
    let mut harness = Harness::of(&format!("{}{}", good(""), subscription(ROUTE)));
    harness.world.facts = vec![facts(1000, 1000)];
    harness.settle();
    harness.now += 60_000;
    harness.world.facts = vec![facts(1000, 960)];
    let plan = harness.plan();
    // 100% to 95%: five bands.
    assert_eq!(change(&plan), [StatusChange::Facts { steps: 5 }]);
    assert!(plan.statuses[0].events.is_empty());
    harness.world.facts = vec![EndpointFacts { last_outcome: Some(Outcome::Timeout), ..facts(1000, 10) }];
    assert_eq!(change(&harness.plan()), [StatusChange::Conditions]);
}
