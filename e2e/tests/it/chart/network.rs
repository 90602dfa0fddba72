//! Which connections are let through, and how the API is reached.

use std::net::IpAddr;

use dispatcher_core::address::AddressPolicy;
use serde_json::{Value, json};

use super::support::{Helm, Objects, RELEASE, distributed};

fn egress_ports(objects: &Objects, name: &str) -> Vec<u64> {
    let rules = objects.one("NetworkPolicy", name)["spec"]["egress"].as_array().unwrap();
    let ports = rules.iter().flat_map(|rule| rule["ports"].as_array().cloned().unwrap_or_default());
    let mut ports: Vec<u64> = ports.map(|port| port["port"].as_u64().unwrap()).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

#[test]
fn every_part_reaches_what_it_needs_and_nothing_else() {
    let Some(helm) = Helm::find() else { return };
    let objects = helm.render(&distributed(&json!({})));
    for (name, expected) in [
        ("harborhook-operator", vec![53, 443, 5432, 6443]),
        ("harborhook-ingest", vec![53, 5432, 5671, 5672]),
        ("harborhook-dispatcher", vec![53, 443, 5432, 5671, 5672, 8443]),
    ] {
        assert_eq!(egress_ports(&objects, name), expected, "{name}");
    }
    let issuer = json!({"issuer": "https://login.example.com", "jwks": {}, "audiences": ["hooks"]});
    let with_issuer = helm.render(&distributed(&json!({"access": {"issuers": [issuer]}})));
    assert_eq!(egress_ports(&with_issuer, "harborhook-ingest"), [53, 443, 5432, 5671, 5672]);
    assert_eq!(egress_ports(&helm.render(&json!({})), "harborhook-embedded"), [53, 443, 6443, 8443]);
    assert!(helm.render(&json!({"networkPolicy": {"enabled": false}})).of("NetworkPolicy").next().is_none());
}

#[test]
fn deliveries_go_to_public_addresses_and_to_what_is_allowed() {
    let Some(helm) = Helm::find() else { return };
    let policy = json!({"addressPolicy": {
        "allowHttp": true, "allowAddresses": ["10.7.0.0/16"], "allowPorts": [9443], "clusterCidrs": ["10.96.0.0/12"],
        "denyAddresses": ["203.0.113.0/24", "2001:db8::/32"],
    }});
    let objects = helm.render(&distributed(&policy));
    let rules = objects.one("NetworkPolicy", "harborhook-dispatcher")["spec"]["egress"].as_array().unwrap();
    let rule = rules.iter().find(|rule| rule["to"].is_array()).unwrap();
    let block = |cidr: &str| {
        let blocks = rule["to"].as_array().unwrap().iter().map(|to| &to["ipBlock"]);
        blocks.clone().find(|block| block["cidr"] == cidr).unwrap_or_else(|| panic!("no {cidr}: {rule}")).clone()
    };
    for (cidr, excepted) in [
        ("0.0.0.0/0", "10.0.0.0/8"),
        ("0.0.0.0/0", "169.254.0.0/16"),
        ("0.0.0.0/0", "203.0.113.0/24"),
        ("0.0.0.0/0", "10.96.0.0/12"),
        ("::/0", "fc00::/7"),
        ("::/0", "2001:db8::/32"),
    ] {
        assert!(block(cidr)["except"].as_array().unwrap().contains(&json!(excepted)), "{cidr} {excepted}");
    }
    block("10.7.0.0/16");
    let ports: Vec<&Value> = rule["ports"].as_array().unwrap().iter().map(|port| &port["port"]).collect();
    assert_eq!(ports, [443, 8443, 9443, 80, 8080]);
    let any = helm.render(&distributed(&json!({"addressPolicy": {"allowPorts": ["any"]}})));
    let rules = any.one("NetworkPolicy", "harborhook-dispatcher")["spec"]["egress"].as_array().unwrap();
    assert!(rules.iter().any(|rule| rule["to"].is_array() && rule["ports"].is_null()));
}

/// The ranges that the dispatchers' deliveries may go to, each with those that are kept out of it.
fn delivery_blocks(objects: &Objects) -> Vec<(String, Vec<String>)> {
    let rules = objects.one("NetworkPolicy", "harborhook-dispatcher")["spec"]["egress"].as_array().unwrap();
    let rule = rules.iter().find(|rule| rule["to"].is_array()).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let block = |to: &Value| {
        let except = to["ipBlock"]["except"].as_array().map(Vec::as_slice).unwrap_or_default();
        (text(&to["ipBlock"]["cidr"]), except.iter().map(text).collect())
    };
    rule["to"].as_array().unwrap().iter().map(block).collect()
}

fn contains(range: &str, address: IpAddr) -> bool {
    let (network, bits) = range.split_once('/').unwrap();
    let bits: u32 = bits.parse().unwrap();
    match (network.parse().unwrap(), address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            let first = |address| u32::from(address).checked_shr(32 - bits).unwrap_or_default();
            first(network) == first(address)
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => {
            let first = |address| u128::from(address).checked_shr(128 - bits).unwrap_or_default();
            first(network) == first(address)
        }
        _ => false,
    }
}

#[test]
fn without_more_words_deliveries_go_where_the_guard_lets_them_go() {
    let Some(helm) = Helm::find() else { return };
    let guard = AddressPolicy::public_https();
    let blocks = delivery_blocks(&helm.render(&distributed(&json!({}))));
    for range in blocks.iter().flat_map(|(_, except)| except) {
        let first: IpAddr = range.split_once('/').unwrap().0.parse().unwrap();
        assert!(guard.check_address(first).is_err(), "{range}");
    }
    for address in [
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",
        "127.0.0.1",
        "168.63.129.16",
        "169.254.169.254",
        "172.31.0.1",
        "192.0.0.192",
        "192.0.2.1",
        "192.31.196.1",
        "192.52.193.1",
        "192.88.99.1",
        "192.168.1.1",
        "192.175.48.1",
        "198.19.0.1",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "250.1.1.1",
        "255.255.255.255",
        "64:ff9b:1::1",
        "2001::1",
        "2001:db8::1",
        "2002:808:808::1",
        "2620:4f:8000::1",
        "3fff::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fec0::1",
        "ff02::1",
        "1.1.1.1",
        "8.8.8.8",
        "168.63.129.17",
        "172.32.0.1",
        "198.20.0.1",
        "64:ff9b::808:808",
        "2606:4700::1",
        "2a00:1450::1",
    ] {
        let address: IpAddr = address.parse().unwrap();
        let is_let_through = blocks
            .iter()
            .any(|(range, except)| contains(range, address) && !except.iter().any(|range| contains(range, address)));
        assert_eq!(is_let_through, guard.check_address(address).is_ok(), "{address}");
    }
}

#[test]
fn what_is_denied_stays_so_within_what_is_allowed() {
    let Some(helm) = Helm::find() else { return };
    let policy = json!({"addressPolicy": {
        "allowAddresses": ["10.0.0.0/8", "10.96.7.0/24", "100.100.0.0/16", "169.254.170.2/32", "fd12::/16"],
        "clusterCidrs": ["10.96.0.0/12"], "denyAddresses": ["10.7.0.0/16", "11.0.0.0/8"],
    }});
    let blocks = delivery_blocks(&helm.render(&distributed(&policy)));
    let allowed: Vec<_> = blocks.iter().filter(|(range, _)| !range.ends_with("/0")).cloned().collect();
    let expected = [
        ("10.0.0.0/8", vec!["10.96.0.0/12", "10.7.0.0/16"]),
        ("100.100.0.0/16", vec!["100.100.100.200/32"]),
        ("169.254.170.2/32", vec![]),
        ("fd12::/16", vec![]),
    ];
    let expected = expected.map(|(range, except)| (range.to_owned(), except.into_iter().map(str::to_owned).collect()));
    assert_eq!(allowed, expected);
}

#[test]
fn the_address_policy_reaches_all_that_plan_or_deliver_and_the_clusters_own_ranges_are_denied() {
    let Some(helm) = Helm::find() else { return };
    let policy = json!({"addressPolicy": {
        "allowAddresses": ["10.7.0.0/16"], "clusterCidrs": ["10.96.0.0/12"], "denyAddresses": ["203.0.113.0/24"],
        "allowHosts": ["a.internal", "svc"], "allowPorts": [9443, 9444],
    }});
    let objects = helm.render(&distributed(&policy));
    for (name, has_policy) in
        [("harborhook-operator", true), ("harborhook-dispatcher-default", true), ("harborhook-ingest", false)]
    {
        let container = &objects.one("Deployment", name)["spec"]["template"]["spec"]["containers"][0];
        let environment = container["env"].as_array().unwrap();
        for (variable, value) in [
            ("HARBORHOOK_ALLOW_HTTP", "false"),
            ("HARBORHOOK_ALLOW_ADDRESS", "10.7.0.0/16"),
            ("HARBORHOOK_DENY_ADDRESS", "10.96.0.0/12,203.0.113.0/24"),
            ("HARBORHOOK_ALLOW_HOST", "a.internal,svc"),
            ("HARBORHOOK_ALLOW_PORT", "9443,9444"),
        ] {
            assert_eq!(
                environment.contains(&json!({"name": variable, "value": value})),
                has_policy,
                "{name} {variable}"
            );
        }
    }
    // Whoever opens private ranges says which are the cluster's own.
    let refusal = helm.refuse(&json!({"addressPolicy": {"allowAddresses": ["10.0.0.0/8"]}}));
    assert!(refusal.contains("/addressPolicy/clusterCidrs"), "{refusal}");
}

#[test]
fn a_route_leads_to_the_api_alone() {
    let Some(helm) = Helm::find() else { return };
    assert!(helm.render(&json!({})).of("HTTPRoute").next().is_none());
    let gateway = json!({"enabled": true, "parentRefs": [{"name": "gateway"}], "hostnames": ["hooks.example.com"]});
    let objects = helm.render(&json!({"gateway": gateway, "service": {"port": 8080}}));
    let route = &objects.one("HTTPRoute", RELEASE)["spec"];
    assert_eq!(route["rules"][0]["matches"][0]["path"], json!({"type": "PathPrefix", "value": "/v1/"}));
    assert_eq!(route["rules"][0]["backendRefs"], json!([{"name": RELEASE, "port": 8080}]));
    assert_eq!(objects.one("Service", RELEASE)["spec"]["ports"][0]["targetPort"], "api");
    let refusal = helm.refuse(&json!({"gateway": {"enabled": true}}));
    assert!(refusal.contains("/gateway/parentRefs"), "{refusal}");
}

#[test]
fn metrics_are_scraped_from_every_pod_once_asked_for() {
    let Some(helm) = Helm::find() else { return };
    assert!(helm.render(&json!({})).of("PodMonitor").next().is_none());
    let objects = helm.render(&distributed(&json!({"podMonitor": {"enabled": true, "labels": {"release": "p"}}})));
    let monitor = objects.one("PodMonitor", RELEASE);
    assert_eq!(monitor["metadata"]["labels"]["release"], "p");
    let wanted = monitor["spec"]["selector"]["matchLabels"].as_object().unwrap();
    let scraped: Vec<&Value> =
        monitor["spec"]["podMetricsEndpoints"].as_array().unwrap().iter().map(|endpoint| &endpoint["port"]).collect();
    for (object, template) in objects.workloads() {
        assert!(wanted.iter().all(|(name, value)| template["metadata"]["labels"][name.as_str()] == *value), "{object}");
        let ports = template["spec"]["containers"][0]["ports"].as_array().unwrap();
        assert_eq!(ports.iter().filter(|port| scraped.contains(&&port["name"])).count(), 1, "{object}");
    }
}
