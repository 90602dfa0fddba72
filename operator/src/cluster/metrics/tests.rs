use super::*;

/// Every metric with a value: one without is not rendered.
fn all_metrics() -> OperatorMetrics {
    let metrics = OperatorMetrics::new();
    metrics.set_leadership(Leadership::Leader { epoch: 7 });
    metrics.set_leadership(Leadership::Follower);
    metrics.set_objects(Kind::Endpoint, 3);
    metrics.planned(Duration::from_millis(3));
    metrics.publication_ended(Publication::Superseded);
    metrics.set_table_version(9);
    metrics.set_pending_removal(51);
    metrics.status_written(StatusChange::Conditions);
    metrics.status_failed(FailureClass::Forbidden);
    metrics.set_statuses_waiting(1, 2);
    metrics.events_ended(EventResult::Dropped, 4);
    metrics.secret_asked(SecretResult::Made);
    metrics.watch_restarted(Watched::Resources(Kind::Endpoint), WatchFailure::Missing);
    metrics.set_troubles(TroubledPart::Ledger, 1);
    let gauges = PoolGauges {
        pool: "gone".into(),
        late: 5,
        accepted_per_second: 1.5,
        delivered_per_second: 0.5,
        running: 2,
        wanted: 3,
    };
    metrics.set_pools(std::slice::from_ref(&gauges));
    metrics.set_pools(&[PoolGauges { pool: "default".into(), ..gauges }]);
    metrics
}

#[test]
fn every_metric_renders_under_its_documented_name() {
    let text = all_metrics().render().unwrap();
    assert!(!text.contains("gone"), "{text}");
    for line in [
        "harborhook_operator_leader 0",
        "harborhook_operator_epoch 7",
        "harborhook_operator_objects{kind=\"Endpoint\"} 3",
        "harborhook_operator_plan_duration_seconds_count 1",
        "harborhook_operator_table_publications_total{result=\"superseded\"} 1",
        "harborhook_operator_table_version 9",
        "harborhook_operator_pending_removal_routes 51",
        "harborhook_operator_status_writes_total{change=\"conditions\"} 1",
        "harborhook_operator_status_failures_total{class=\"forbidden\"} 1",
        "harborhook_operator_statuses_waiting{change=\"facts\"} 2",
        "harborhook_operator_events_total{result=\"dropped\"} 4",
        "harborhook_operator_secret_requests_total{result=\"made\"} 1",
        "harborhook_operator_pool_late_deliveries{pool=\"default\"} 5",
        "harborhook_operator_pool_accepted_per_second{pool=\"default\"} 1.5",
        "harborhook_operator_pool_delivered_per_second{pool=\"default\"} 0.5",
        "harborhook_operator_pool_dispatchers{pool=\"default\"} 2",
        "harborhook_operator_pool_wanted_dispatchers{pool=\"default\"} 3",
        "harborhook_operator_watch_restarts_total{resource=\"hookendpoints\",reason=\"missing\"} 1",
        "harborhook_operator_troubles{part=\"ledger\"} 1",
    ] {
        assert!(text.lines().any(|present| present == line), "{line} is not in\n{text}");
    }
}

#[test]
fn the_page_has_every_metric_with_its_labels_and_no_other() {
    let page = include_str!("../../../../docs/operator.md");
    let rows = page.lines().filter(|line| line.starts_with("| `harborhook_operator_"));
    let names = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let mut documented: Vec<(String, Vec<String>)> = rows
        .map(|row| row.split('|').collect::<Vec<_>>())
        .map(|cells| (names(cells[1]).remove(0), names(cells[2])))
        .collect();
    let text = all_metrics().render().unwrap();
    let mut found: Vec<(String, Vec<String>)> = samples(&text).collect();
    documented.sort();
    found.sort();
    found.dedup();
    let registered = include_str!("../metrics.rs").matches("registry.register").count();
    assert_eq!(found.len(), registered, "a metric has no value here, so it is not rendered");
    assert_eq!(found, documented);
}

/// Names and labels of what is rendered, a histogram by the name of its family.
fn samples(text: &str) -> impl Iterator<Item = (String, Vec<String>)> {
    text.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let (name, rest) = line.split_at(line.find([' ', '{']).unwrap());
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
        let labels = rest.split_once('}').map_or("", |(labels, _)| labels);
        let keys = labels.split(['{', ',']).filter_map(|label| label.split_once('=')).map(|(key, _)| key);
        (family.unwrap_or(name).to_owned(), keys.filter(|key| *key != "le").map(str::to_owned).collect())
    })
}
