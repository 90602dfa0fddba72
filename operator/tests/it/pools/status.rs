use crds::condition::{ConditionType, Reason};
use crds::pool::DispatcherPoolStatus;
use dispatcher::ledger::PoolLoad;
use dispatcher_core::limits::FACTS_INTERVAL;
use k8s_openapi::api::core::v1::Pod;
use operator::conditions::find;
use operator::plan::pool::trouble::trouble_of;
use operator::plan::pool::{PodTrouble, PoolMemory, PoolWorld, plan_pools};
use operator::plan::{StatusBody, StatusChange};
use serde_json::{Value, json};

use super::{carry_out, load, plan, report, world};
use crate::fixtures::NOW;

fn status(world: &PoolWorld) -> DispatcherPoolStatus {
    let plan = plan(world);
    match plan.statuses.into_iter().next().map(|status| status.body) {
        Some(StatusBody::DispatcherPool(status)) => status,
        Some(other) => panic!("{other:?}"),
        None => world.pools[0].status.clone().expect("it has one"),
    }
}

fn says(status: &DispatcherPoolStatus, type_: ConditionType) -> (&str, &str) {
    let condition = find(&status.conditions, type_).unwrap_or_else(|| panic!("no {type_:?}: {status:?}"));
    (condition.status.as_str(), condition.reason.as_str())
}

fn message(status: &DispatcherPoolStatus, type_: ConditionType) -> &str {
    &find(&status.conditions, type_).unwrap().message
}

/// A world in which everything is applied and two dispatchers are asked for.
fn applied() -> PoolWorld {
    let mut world = world(&json!({}));
    for _ in 0..2 {
        let plan = plan(&world);
        carry_out(&mut world, &plan);
    }
    world
}

fn healthy(replicas: u32) -> Value {
    json!({"observedGeneration": 1, "replicas": replicas, "updatedReplicas": replicas, "readyReplicas": replicas})
}

#[test]
fn a_new_pool_is_made_scaled_to_its_least_and_then_ready() {
    let mut world = world(&json!({}));
    let first = plan(&world);
    assert_eq!(first.scales, [], "there is nothing to scale yet");
    carry_out(&mut world, &first);
    let made = status(&world);
    assert_eq!(says(&made, ConditionType::Ready), ("Unknown", "Pending"));
    let second = plan(&world);
    let scales: Vec<_> = second.scales.iter().map(|scale| (scale.pool.as_str(), scale.from, scale.replicas)).collect();
    assert_eq!(scales, [("slow", 1, 2)]);
    carry_out(&mut world, &second);
    report(&mut world, healthy(2));
    let ready = status(&world);
    for (type_, expected) in [
        (ConditionType::Ready, ("True", "Available")),
        (ConditionType::ResolvedRefs, ("True", "Resolved")),
        (ConditionType::Programmed, ("True", "Programmed")),
        (ConditionType::Scaling, ("True", "AsMeasured")),
    ] {
        assert_eq!(says(&ready, type_), expected);
    }
    assert_eq!(ready.conditions.len(), 4, "nothing is under way: {ready:?}");
    assert_eq!((ready.replicas.as_deref(), ready.wanted_replicas), (Some("2/2"), Some(2)));
    assert_eq!((ready.min_replicas, ready.max_replicas, ready.mode.as_deref()), (Some(2), Some(10), Some("Backlog")));
    assert_eq!(ready.deployment.as_deref(), Some("release-dispatcher-slow"));
    let load = ready.load.unwrap();
    assert_eq!((load.backlog.as_deref(), load.arriving.as_deref()), (Some("0"), Some("0/s")));
}

#[test]
fn a_new_pool_that_may_be_empty_starts_nobody_for_nothing() {
    for (due, generation, scales) in [(0, 1, vec![(1, 0)]), (1, 1, vec![]), (0, 2, vec![])] {
        let mut world = world(&json!({"minReplicas": 0}));
        world.loads.insert("slow".to_owned(), PoolLoad { due, ..load("slow") });
        let first = plan(&world);
        carry_out(&mut world, &first);
        // Somebody has asked for the number that a second generation has.
        world.deployments.get_mut("release-dispatcher-slow").unwrap().metadata.generation = Some(generation);
        let second = plan(&world);
        let found: Vec<_> = second.scales.iter().map(|scale| (scale.from, scale.replicas)).collect();
        assert_eq!(found, scales, "{due} due, generation {generation}");
    }
}

#[test]
fn what_is_told_once_is_not_told_again() {
    let mut world = applied();
    report(&mut world, healthy(2));
    let told = plan(&world);
    carry_out(&mut world, &told);
    let again = plan(&world);
    assert!(again.statuses.is_empty() && again.apply.is_empty() && again.scales.is_empty(), "{again:?}");
}

#[test]
fn every_way_not_to_be_ready_says_what_to_do() {
    let stuck = json!({
        "observedGeneration": 1, "replicas": 2, "updatedReplicas": 2, "readyReplicas": 1,
        "conditions": [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}],
    });
    let refused = json!({
        "observedGeneration": 1,
        "conditions": [{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota: cpu"}],
    });
    let partly = json!({"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2, "readyReplicas": 1});
    let unschedulable = PodTrouble::Unschedulable("0/3 nodes are available: 3 Insufficient cpu.".into());
    let failing = PodTrouble::Failing("container dispatcher of pod a: ImagePullBackOff: no such image".into());
    for (status_of_deployment, trouble, expected, words) in [
        (partly.clone(), None, ("True", "Available"), "1 of 2 dispatchers are ready; the others are starting"),
        (partly.clone(), Some(unschedulable), ("False", "Unschedulable"), "add nodes or change template: 0/3 nodes"),
        (partly, Some(failing), ("False", "NotAvailable"), "ImagePullBackOff: no such image"),
        (stuck, None, ("False", "NotAvailable"), "no other has become ready for long"),
        (refused, None, ("False", "PodsRefused"), "exceeded quota: cpu"),
        (json!({"observedGeneration": 1}), None, ("Unknown", "Pending"), "0 of 2 dispatchers are ready"),
    ] {
        let mut world = applied();
        report(&mut world, status_of_deployment);
        world.troubles.extend(trouble.map(|trouble| ("slow".to_owned(), trouble)));
        let found = status(&world);
        assert_eq!(says(&found, ConditionType::Ready), expected, "{words}");
        assert!(message(&found, ConditionType::Ready).contains(words), "{found:?}");
        let is_under_way = find(&found.conditions, ConditionType::Reconciling).is_some();
        assert!(is_under_way && plan(&world).incomplete == ["slow"], "{words}");
    }
}

#[test]
fn what_the_api_server_refuses_is_told_until_it_is_applied() {
    let mut world = world(&json!({}));
    world.failures.insert("slow".into(), "deployments.apps is forbidden".into());
    let found = status(&world);
    assert_eq!(says(&found, ConditionType::Ready), ("False", "ApplyFailed"));
    assert_eq!(says(&found, ConditionType::Programmed), ("False", "Waiting"));
    assert_eq!(message(&found, ConditionType::Ready), "deployments.apps is forbidden");
}

#[test]
fn a_pool_that_is_wrong_or_in_the_wrong_place_is_left_alone() {
    let mut misplaced = world(&json!({}));
    misplaced.pools[0].metadata.namespace = Some("shop".into());
    let invalid = world(&json!({"minReplicas": 5, "maxReplicas": 3}));
    for (world, words) in [
        (misplaced, "a pool stands in the namespace of the installation: move it to harborhook"),
        (invalid, "spec.maxReplicas: must not be smaller than minReplicas"),
    ] {
        let plan = plan(&world);
        assert!(plan.apply.is_empty() && plan.scales.is_empty(), "{plan:?}");
        let found = status(&world);
        assert_eq!(says(&found, ConditionType::Ready), ("False", "InvalidSpec"));
        assert_eq!(says(&found, ConditionType::Stalled), ("True", "InvalidSpec"));
        assert!(message(&found, ConditionType::Ready).starts_with(words), "{found:?}");
        let told: Vec<Reason> = plan.statuses[0].events.iter().map(|event| event.reason).collect();
        assert_eq!(told, [Reason::InvalidSpec], "once");
    }
}

#[test]
fn without_a_default_pool_there_is_nothing_to_make_a_pool_of() {
    let mut world = world(&json!({}));
    world.default = None;
    let found = status(&world);
    assert_eq!(says(&found, ConditionType::Ready), ("False", "TemplateNotFound"));
    assert_eq!(says(&found, ConditionType::ResolvedRefs), ("False", "TemplateNotFound"));
    assert_eq!(found.deployment, None);
}

#[test]
fn what_somebody_else_made_under_the_name_is_not_scaled() {
    let mut world = applied();
    world.deployments.get_mut("release-dispatcher-slow").unwrap().metadata.owner_references = None;
    let plan = plan(&world);
    assert_eq!(plan.scales, []);
    assert!(plan.apply[0].1.deployment.is_some(), "whether it may be applied is found out when it is");
}

#[test]
fn an_empty_pool_is_as_it_should_be() {
    let mut world = world(&json!({"minReplicas": 0}));
    let first = plan(&world);
    carry_out(&mut world, &first);
    let made = world.deployments.get_mut("release-dispatcher-slow").unwrap();
    made.spec.as_mut().unwrap().replicas = Some(0);
    report(&mut world, healthy(0));
    let found = status(&world);
    assert_eq!(says(&found, ConditionType::Ready), ("True", "PoolAtZero"));
    assert_eq!((found.replicas.as_deref(), found.wanted_replicas), (Some("0/0"), Some(0)));
    world.loads.insert("slow".into(), PoolLoad { held: 1, ..load("slow") });
    assert_eq!(plan(&world).scales[0].replicas, 1, "something came");
}

#[test]
fn in_mode_external_nobody_is_scaled_and_autoscalers_are_told() {
    let mut world = world(&json!({"scaling": {"mode": "External"}}));
    let first = plan(&world);
    carry_out(&mut world, &first);
    report(&mut world, healthy(1));
    world.loads.insert("slow".into(), PoolLoad { due: 7, accepted_per_second: 2.0, ..load("slow") });
    let plan = plan(&world);
    assert_eq!(plan.scales, []);
    let metric = plan.metrics.iter().find(|metric| metric.pool == "slow").unwrap();
    assert_eq!((metric.backlog, metric.wanted_replicas), (7, 2), "the lower bound");
    assert_eq!(says(&status(&world), ConditionType::Scaling), ("True", "External"));
}

#[test]
fn an_unknown_load_changes_no_number_and_is_told() {
    let mut world = applied();
    report(&mut world, healthy(2));
    world.loads.clear();
    let plan = plan(&world);
    assert!(plan.scales.is_empty() && plan.metrics.is_empty(), "{plan:?}");
    assert_eq!(says(&status(&world), ConditionType::Scaling), ("Unknown", "NotMeasured"));
}

#[test]
fn facts_change_at_most_once_in_their_interval_and_conditions_at_once() {
    let mut world = applied();
    report(&mut world, healthy(2));
    let settled = plan(&world);
    carry_out(&mut world, &settled);
    world.loads.insert("slow".into(), PoolLoad { due: 3, ..load("slow") });
    let at = |world: &PoolWorld, now| plan_pools(world, &mut PoolMemory::default(), now, 0);
    let early = at(&world, NOW + 1_000);
    assert!(early.statuses.is_empty(), "{early:?}");
    assert!(early.next_look_in.is_some());
    let later = at(&world, NOW + u64::try_from(FACTS_INTERVAL.as_millis()).unwrap());
    assert!(matches!(later.statuses[0].change, StatusChange::Facts { steps: 1.. }), "{later:?}");
    report(&mut world, json!({"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2}));
    let down = at(&world, NOW + 1_000);
    assert_eq!(down.statuses[0].change, StatusChange::Conditions);
}

fn pods(pods: Value) -> Vec<Pod> {
    serde_json::from_value(pods).unwrap()
}

#[test]
fn pods_say_why_they_do_not_start() {
    let seconds = i64::try_from(NOW / 1000).unwrap();
    let condition = |age: i64| {
        let at = k8s_openapi::jiff::Timestamp::from_second(seconds - age).unwrap();
        json!({"status": {"conditions": [{
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes",
            "lastTransitionTime": at.to_string(),
        }]}})
    };
    let waiting = |reason: &str| {
        json!({"metadata": {"name": "a"}, "status": {"containerStatuses": [{
            "name": "dispatcher", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"waiting": {"reason": reason, "message": "why"}},
        }]}})
    };
    let failing = PodTrouble::Failing("container dispatcher of pod a: ImagePullBackOff: why".into());
    for (list, expected) in [
        (json!([]), None),
        (json!([condition(5)]), None),
        (json!([condition(60)]), Some(PodTrouble::Unschedulable("0/1 nodes".into()))),
        (json!([waiting("ContainerCreating")]), None),
        (json!([waiting("ImagePullBackOff")]), Some(failing)),
    ] {
        assert_eq!(trouble_of(&pods(list.clone()), NOW), expected, "{list}");
    }
}
