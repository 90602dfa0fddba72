use std::collections::BTreeSet;

use super::*;
use crate::access::AccessError;

/// Metrics with every label value that there can be.
fn all_used() -> Metrics {
    let metrics = Metrics::new();
    metrics.event_accepted(3);
    metrics.event_repeated();
    metrics.accept_committed(2);
    metrics.record_committed(5, 1);
    metrics.due_claimed(4);
    metrics.set_backlog(7);
    metrics.set_table(TableVersion(9), 0);
    metrics.set_clock_offset(-250);
    for returned in [1, 3] {
        metrics.set_queue_counts(QueueCounts { returned, ..QueueCounts::default() });
    }
    for reason in ExpressionErrorReason::ALL {
        metrics.filter_failed(reason);
    }
    for kind in ProblemKind::ALL {
        metrics.request_rejected(kind);
    }
    for outcome in Outcome::ALL {
        metrics.attempt_ended(outcome, Duration::from_millis(20));
    }
    for reason in AccessError::ALL {
        metrics.token_refused(reason);
    }
    for role in Role::ALL {
        metrics.publish_failed(role);
        metrics.ledger_failed(role);
    }
    metrics
}

#[test]
fn every_metric_is_documented() {
    let documentation = include_str!("../../../docs/api.md");
    let text = all_used().render().unwrap();
    let names: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_whitespace().next()).collect();
    assert!(names.len() >= 15, "{names:?}");
    for name in names {
        assert!(documentation.contains(&format!("`{name}")), "docs/api.md does not describe {name}");
    }
}

#[test]
fn no_label_is_unbounded() {
    let text = all_used().render().unwrap();
    let allowed: BTreeSet<&str> = ProblemKind::ALL
        .iter()
        .map(|kind| kind.as_str())
        .chain(Outcome::ALL.iter().map(|outcome| outcome.as_str()))
        .chain(AccessError::ALL.iter().map(|reason| reason.as_str()))
        .chain(Role::ALL.iter().map(|role| role.as_str()))
        .chain(QueueCounts::default().by_name().map(|(name, _)| name))
        .chain(ExpressionErrorReason::ALL.iter().map(|reason| reason.as_str()))
        .collect();
    let mut seen = 0;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((labels, _)) = line.split_once('{').and_then(|(_, rest)| rest.split_once('}')) else { continue };
        for label in labels.split(',') {
            let (name, value) = label.split_once('=').unwrap();
            if name == "le" {
                continue;
            }
            assert!(["reason", "outcome", "role"].contains(&name), "{line}");
            assert!(allowed.contains(value.trim_matches('"')), "{line}");
            seen += 1;
        }
    }
    assert!(seen >= ProblemKind::ALL.len() + Outcome::ALL.len(), "{seen} labels");
}

#[test]
fn counters_count_and_histograms_observe() {
    let text = all_used().render().unwrap();
    // A failed transform takes no time of an exchange.
    let exchanges = Outcome::ALL.iter().filter(|outcome| outcome.is_about_endpoint()).count();
    let exchanges = format!("harborhook_attempt_duration_seconds_count {exchanges}");
    for line in [
        "harborhook_accepted_events_total 1",
        "harborhook_accepted_deliveries_total 3",
        "harborhook_rejected_requests_total{reason=\"not-found\"} 1",
        "harborhook_attempts_total{outcome=\"http_5xx\"} 1",
        exchanges.as_str(),
        "harborhook_table_version 9",
        "harborhook_backlog_deliveries 7",
        "harborhook_clock_offset_seconds -0.25",
        "harborhook_queue_failures_total{reason=\"returned\"} 3",
        "harborhook_queue_failures_total{reason=\"refused\"} 0",
        "harborhook_due_claimed_deliveries_total 4",
        "harborhook_recorded_changes_total 5",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in:\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
}
