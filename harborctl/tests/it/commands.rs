//! Commands against a running server, and how they end.

use std::path::Path;

use serde_json::Value;

use crate::support::{Running, run, told};

fn quickstart() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/quickstart"))
}

#[test]
fn a_second_terminal_publishes_reads_and_replays() {
    let data = tempfile::tempdir().unwrap();
    let mut dev = Running::dev(quickstart(), data.path());
    // What to try next is said as it can be typed, with the address of this very server.
    dev.notice(&format!("harborctl --server http://{} event publish", dev.address.clone()));

    let event = dev.publish("order.created", "{\"order\": \"A-1\"}");
    let attempt = dev.attempt_of(&event);
    let delivery = attempt["delivery"].as_str().unwrap().to_owned();
    assert_eq!((&attempt["verified"], &attempt["state"]), (&true.into(), &"delivered".into()), "{attempt}");

    let shown = dev.ask(&["event", "show", &event], 0);
    assert_eq!(shown["event_type"], "order.created", "{shown}");
    let listed = dev.ask(&["event", "list", "--type", "order.created", "--limit", "1"], 0);
    assert_eq!(listed["items"].as_array().unwrap().len(), 1, "{listed}");
    assert!(listed["next_cursor"].is_string(), "{listed}");

    let deliveries = dev.ask(&["delivery", "list", "--event", &event], 0);
    assert_eq!(deliveries["items"][0]["delivery_id"], delivery.as_str(), "{deliveries}");
    let replayed = dev.ask(&["delivery", "replay", &delivery], 0);
    assert_eq!(replayed["run"], 2, "{replayed}");
    assert_eq!(dev.attempt_of(&event)["delivery"], delivery.as_str());
    let shown = dev.ask(&["delivery", "show", &delivery], 0);
    assert_eq!(shown["attempts"].as_array().unwrap().len(), 2, "{shown}");

    let endpoints = dev.ask(&["endpoint", "list"], 0);
    assert_eq!(endpoints["items"].as_array().unwrap().len(), 2, "{endpoints}");
    let endpoint = dev.ask(&["endpoint", "show", "orders"], 0);
    assert!(endpoint.to_string().contains("\"timeout_seconds\":15"), "no effective policy: {endpoint}");
    let subscriptions = dev.ask(&["subscription", "list"], 0);
    assert_eq!(subscriptions["items"].as_array().unwrap().len(), 3, "{subscriptions}");
    dev.stop();
}

#[test]
fn a_dry_run_says_who_gets_it_and_why_the_others_do_not() {
    let data = tempfile::tempdir().unwrap();
    let dev = Running::dev(quickstart(), data.path());
    let refund = |cents: u32| format!("{{\"amount_cents\": {cents}}}");

    let answer = dev.ask(&["route", "--type", "refund.created", "--data", &refund(20_000)], 0);
    assert_eq!(answer["matched"][0]["subscription"], "large-refunds", "{answer}");
    assert_eq!(answer["not_matched"].as_array().unwrap().len(), 2, "{answer}");

    let answer = dev.ask(&["route", "--type", "refund.created", "--data", &refund(5)], 1);
    assert_eq!(answer["matched"].as_array().unwrap().len(), 0, "{answer}");
    let by_filter = answer["not_matched"].as_array().unwrap().iter().find(|row| row["subscription"] == "large-refunds");
    assert_eq!(by_filter.unwrap()["reason"], "filter_false", "{answer}");

    let table = run(&["--server", &format!("http://{}", dev.address), "route", "--type", "a.b", "--data", "1"]);
    let (code, stdout, _) = told(&table);
    assert_eq!(code, 1);
    assert!(stdout.starts_with("ENDPOINT "), "{stdout}");
}

#[test]
fn a_dry_run_shows_what_a_transform_makes_of_the_event() {
    let data = tempfile::tempdir().unwrap();
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/transform"));
    let dev = Running::dev(folder, data.path());
    let order = r#"{"order": "A-7", "total_cents": 900, "items": [{"sku": "mug", "quantity": 2, "price_cents": 450}]}"#;
    let answer = dev.ask(&["route", "--type", "order.created", "--data", order], 0);
    let of = |name: &str| answer["matched"].as_array().unwrap().iter().find(|row| row["subscription"] == name).unwrap();
    let text = serde_json::json!({"text": "New order A-7", "link": "https://shop.example/orders/A-7"});
    assert_eq!(of("chat")["transformed"], text, "{answer}");
    let pieces = serde_json::json!({"order": "A-7", "pieces": [{"sku": "mug", "quantity": 2}], "gift": false});
    assert_eq!(of("warehouse")["transformed"], pieces, "{answer}");

    // The warehouse's transform needs items.
    let command = ["--server", &format!("http://{}", dev.address), "route", "--type", "order.created", "--data"];
    let (code, stdout, _) = told(&run(&[&command[..], &[r#"{"order": "A-8"}"#]].concat()));
    assert_eq!(code, 0, "{stdout}");
    let line = |name: &str| stdout.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
    assert!(line("chat").contains("It gets {\"link\":"), "{stdout}");
    assert!(line("warehouse").contains("Nothing is sent: a field is missing in this event"), "{stdout}");
}

#[test]
fn exit_codes_tell_who_is_to_blame() {
    let data = tempfile::tempdir().unwrap();
    let dev = Running::dev(quickstart(), data.path());
    let server = format!("http://{}", dev.address);
    let nobody = "00000000-0000-7000-8000-000000000000";
    for (command, exit, advice) in [
        (vec!["event", "list"], 0, ""),
        (vec!["route", "--type", "nobody.wants.it", "--data", "{}"], 1, ""),
        (vec!["event", "publish", "--type", "a.b", "--data", "{oops"], 2, "--data is not JSON"),
        (vec!["event", "publish", "--type", "a.b", "--data", "@/nowhere"], 2, "/nowhere"),
        (vec!["delivery", "show", "not-an-id"], 2, "not-an-id"),
        (vec!["event", "show", nobody], 4, ""),
        (vec!["endpoint", "show", "nobody"], 4, ""),
        (vec!["--tenant", "nobody", "event", "list"], 4, "field tenant"),
        (vec!["event", "publish", "--type", "no spaces", "--data", "{}"], 4, "event_type"),
        (vec!["delivery", "replay", nobody], 4, ""),
    ] {
        let (code, stdout, stderr) = told(&run(&[&["--server", &server][..], &command].concat()));
        assert_eq!(code, exit, "{command:?}: {stdout}{stderr}");
        assert!(stderr.contains(advice), "{command:?}: {stderr}");
        // Only an answer is data: what went wrong is said on stderr.
        assert_eq!(stdout.is_empty(), exit > 1, "{command:?}: {stdout}");
    }
}

#[test]
fn a_server_that_is_not_there_is_told_from_one_that_refuses() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (code, stdout, stderr) = told(&run(&["--server", &format!("http://{free}"), "event", "list"]));
    assert_eq!((code, stdout.as_str()), (3, ""), "{stderr}");
    assert!(stderr.contains("harborctl dev"), "{stderr}");

    let (code, _, stderr) = told(&run(&["--server", "ftp://127.0.0.1", "event", "list"]));
    assert_eq!(code, 2, "{stderr}");
}

#[test]
fn every_format_holds_the_same_answer() {
    let data = tempfile::tempdir().unwrap();
    let dev = Running::dev(quickstart(), data.path());
    let server = format!("http://{}", dev.address);
    let list = |format: &str| told(&run(&["--server", &server, "--output", format, "endpoint", "list"])).1;
    let json: Value = serde_json::from_str(&list("json")).unwrap();
    assert_eq!(json["items"][0]["name"], "acme", "{json}");
    assert!(list("yaml").contains("name: acme"), "{}", list("yaml"));
    let table = list("table");
    let first_words: Vec<_> = table.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(first_words, ["NAME", "acme", "orders"]);
}

#[test]
fn completions_are_there_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (code, stdout, stderr) = told(&run(&["completions", shell]));
        assert_eq!((code, stderr.as_str()), (0, ""), "{shell}");
        assert!(stdout.contains("harborctl") && stdout.contains("subscription"), "{shell}: {stdout}");
    }
}
