use serde_json::json;

use super::{BILLING, ORDERS, plan_of, rows_of};

const OUTAGE: &str = "apiVersion: harborhook.dev/v1alpha1
kind: Replay
metadata: {name: outage, namespace: shop}
spec:
  endpointRef: {name: billing}
  eventTypes: [\"order.*\"]
  sinceTime: \"2026-01-31T09:00:00Z\"
  untilTime: \"2026-01-31T13:30:00+01:00\"
";

#[test]
fn one_that_would_begin_is_told_with_all_that_it_asks_for() {
    let answer = plan_of(&[("a.yaml", BILLING)], &[("a.yaml", BILLING), ("r.yaml", OUTAGE)], 1);
    let expected = json!([{
        "change": "added", "kind": "Replay", "namespace": "shop", "name": "outage", "effect": "delivers",
        "endpoint": "billing", "subscription": null, "event_types": ["order.*"], "states": ["Dead"],
        "since": "2026-01-31T09:00:00Z", "until": "2026-01-31T12:30:00Z", "per_second": 100, "fields": [],
    }]);
    assert_eq!((&answer["changes"], &answer["not_ready"]), (&expected, &json!([])), "{answer}");

    let before = [("a.yaml", BILLING), ("b.yaml", ORDERS)];
    let by = OUTAGE.replace("endpointRef: {name: billing}", "subscriptionRef: {name: orders}");
    let by = by.replace("  eventTypes: [\"order.*\"]\n", "");
    let times = "2026-01-31T09:00:00Z to 2026-01-31T12:30:00Z";
    let scope = format!("of order.* to billing, {times}");
    for (replay, words) in [
        (OUTAGE.to_owned(), format!("begins: Dead {scope}, at most 100/s")),
        (
            format!("{OUTAGE}  states: [Delivered, Missing]\n  perSecond: 7\n"),
            format!("begins: Delivered,Missing {scope}, at most 7/s"),
        ),
        (by, format!("begins: Dead by orders, {times}, at most 100/s")),
        (format!("{OUTAGE}  dryRun: true\n"), format!("only counts: Dead {scope}")),
        (format!("{OUTAGE}  suspend: true\n"), format!("is suspended: Dead {scope}")),
    ] {
        let after = [&before[..], &[("r.yaml", &replay)]].concat();
        assert_eq!(rows_of(&before, &after, 1), [format!("added Replay shop outage {words}")]);
    }
}

#[test]
fn its_rate_and_its_suspension_may_change() {
    let rows = |old: &str, new: &str| {
        rows_of(&[("a.yaml", BILLING), ("r.yaml", old)], &[("a.yaml", BILLING), ("r.yaml", new)], 1)
    };
    let suspended = format!("{OUTAGE}  suspend: true\n");
    let slower = format!("{OUTAGE}  perSecond: 5\n");
    assert_eq!(rows(OUTAGE, &suspended), ["changed Replay shop outage spec.suspend; starts nothing more"]);
    assert_eq!(rows(&suspended, OUTAGE), ["changed Replay shop outage spec.suspend; goes on, at most 100/s"]);
    assert_eq!(rows(OUTAGE, &slower), ["changed Replay shop outage spec.perSecond; goes on, at most 5/s"]);
    let removed = rows_of(&[("a.yaml", BILLING), ("r.yaml", OUTAGE)], &[("a.yaml", BILLING)], 1);
    assert_eq!(removed, ["removed Replay shop outage starts nothing more"]);
}

#[test]
fn what_an_api_server_would_not_let_change_is_refused() {
    let later = OUTAGE.replace("T09:00", "T10:00").replace("spec:\n", "spec:\n  dryRun: true\n");
    let answer = plan_of(&[("a.yaml", BILLING), ("r.yaml", OUTAGE)], &[("a.yaml", BILLING), ("r.yaml", &later)], 2);
    assert_eq!(answer["changes"], json!([]), "{answer}");
    let refused = answer["refused"].as_array().unwrap();
    let fields: Vec<_> = refused.iter().map(|problem| problem["field"].as_str().unwrap()).collect();
    assert_eq!(fields, ["spec.dryRun", "spec.sinceTime"], "{answer}");
    for problem in refused {
        assert!(problem["file"].as_str().unwrap().ends_with("r.yaml"), "{answer}");
        assert_eq!((&problem["object"], &problem["line"]), (&json!("Replay shop/outage"), &json!(1)), "{answer}");
        assert_eq!(problem["reason"], "cannot be changed; delete the replay and create another");
    }
}

#[test]
fn one_that_names_what_is_not_there_does_not_begin() {
    let broken = OUTAGE.replace("name: outage", "name: broken") + "  filter: event.data.total >\n";
    let not_ready = |from: &[(&str, &str)], to: &[(&str, &str)], exit| {
        let mut rows = rows_of(from, to, exit);
        rows.retain(|row| row.starts_with("not ready"));
        rows
    };
    let missing = "EndpointNotFound: spec.endpointRef.name: the endpoint \"billing\" does not exist in this namespace, or is \
                   not in effect yet";
    assert_eq!(
        not_ready(&[], &[("r.yaml", OUTAGE)], 2),
        [format!("not ready Replay shop outage {missing}; it does not begin")]
    );
    // The endpoint goes, the replay stays.
    let both = [("a.yaml", BILLING), ("r.yaml", OUTAGE)];
    assert_eq!(
        not_ready(&both, &[("r.yaml", OUTAGE)], 2),
        [format!("not ready Replay shop outage {missing}; it starts nothing more, unless it is complete")]
    );
    let rows = not_ready(&both, &[&both[..], &[("b.yaml", &broken)]].concat(), 2);
    assert!(matches!(&rows[..], [row] if row.starts_with("not ready Replay shop broken InvalidFilter: ")), "{rows:?}");
}
