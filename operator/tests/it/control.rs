//! What a cluster does to a world: processes that are behind, objects that are not understood, Secrets that nobody has
//! read yet, namespaces that are late.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crds::Kind;
use crds::condition::{ConditionType, Reason};
use dispatcher::ledger::{DispatcherRecord, DispatcherRole};
use dispatcher_core::address::AddressPolicy;
use dispatcher_core::seal::SealingKey;
use dispatcher_core::table::{EndpointState, TableVersion};
use operator::plan::{Memory, PlanContext, plan, plan_again};
use operator::world::resource::read_text;
use operator::world::store::FileStore;
use operator::world::{Malformed, Pool, SecretState, named_secrets};
use uuid::Uuid;

use crate::fixtures::{Harness, KEY, NOW, endpoint, good, secret, subscription, word};

const ROUTE: &str = "endpointRef: {name: e}\neventTypes: ['order.*']";

fn loaded(versions: &[u64]) -> Pool {
    Pool { loaded: versions.iter().copied().map(TableVersion).collect() }
}

#[test]
fn a_resource_is_programmed_by_the_version_that_changed_it_whatever_others_edit() {
    let mut harness = Harness::of(&format!("{}{}", good(""), subscription(ROUTE)));
    harness.world.pools.insert("default".to_owned(), loaded(&[0]));
    harness.world.ingest = loaded(&[0, 0]);
    harness.settle();
    let version = harness.world.row_versions.values().max().copied().unwrap();
    let endpoint = |harness: &Harness| harness.endpoint_condition("e", ConditionType::Programmed).clone();
    let subscription = |harness: &Harness| harness.subscription_condition("s", ConditionType::Programmed).clone();
    assert_eq!(endpoint(&harness).message, "0/1 dispatchers have loaded this generation");
    assert!(harness.plan().next_look_in.is_some(), "somebody has to look again");

    // The table has gone on, and the dispatchers are behind it, but not behind these rows.
    harness.world.pools.insert("default".to_owned(), loaded(&[version.0]));
    harness.world.ingest = loaded(&[version.0 + 7, 0]);
    harness.settle();
    assert_eq!(endpoint(&harness).reason, word(Reason::Programmed));
    assert_eq!(subscription(&harness).message, "1/2 dispatchers have loaded this generation");
    harness.world.ingest = loaded(&[version.0 + 7, version.0]);
    harness.settle();
    assert_eq!(subscription(&harness).reason, word(Reason::Programmed));
}

#[test]
fn processes_count_for_what_they_do() {
    let mut harness = Harness::of(&good(""));
    let process = |role, pool: Option<&str>, version| DispatcherRecord {
        instance: Uuid::nil(),
        role,
        pool: pool.map(ToOwned::to_owned),
        table_version: TableVersion(version),
        seen_ago: Duration::ZERO,
    };
    harness.world.set_dispatchers(
        ["slow".to_owned()],
        &[
            process(DispatcherRole::Ingest, None, 1),
            process(DispatcherRole::Deliver, Some("slow"), 2),
            process(DispatcherRole::All, Some("default"), 3),
            process(DispatcherRole::Deliver, Some("gone"), 4),
        ],
    );
    assert_eq!(harness.world.ingest, loaded(&[1, 3]));
    assert_eq!(harness.world.pools["slow"], loaded(&[2]));
    assert_eq!(harness.world.pools["default"], loaded(&[3]));
    assert_eq!(harness.world.pools.len(), 2, "a pool is there because somebody declares it");
}

fn malformed(kind: Kind, name: &str) -> Malformed {
    let message = "spec.timeoutSeconds: must be an integer".to_owned();
    Malformed { kind, namespace: "shop".to_owned(), name: name.to_owned(), message }
}

#[test]
fn what_is_not_understood_counts_as_there_and_says_so() {
    let mut harness = Harness::of(&format!("{}{}", good(""), subscription(ROUTE)));
    harness.settle();
    harness.world.malformed = vec![malformed(Kind::Endpoint, "e"), malformed(Kind::Subscription, "s")];
    for endpoint in &mut harness.world.endpoints {
        Arc::make_mut(endpoint).spec = crds::EndpointSpec::default();
    }
    let plan = harness.settle();
    assert!(plan.table.drop.is_empty(), "{:?}", plan.table);
    assert!(matches!(harness.row("e").unwrap().state, EndpointState::Held { .. }), "an endpoint holds");
    assert_eq!(harness.route("s").unwrap().event_types, ["order.*"], "a route stays");
    let ready = harness.endpoint_condition("e", ConditionType::Ready);
    assert_eq!((ready.reason.as_str(), ready.message.contains("must be an integer")), ("InvalidSpec", true));
    assert_eq!(harness.subscription_condition("s", ConditionType::Stalled).reason, "InvalidSpec");
    Arc::make_mut(&mut harness.world.endpoints[0]).spec.suspend = true;
    harness.settle();
    assert_eq!(harness.row("e").unwrap().state, EndpointState::Suspended, "to suspend always takes effect");
}

#[test]
fn what_names_a_secret_that_nobody_has_read_stays_as_it_is() {
    let mut harness = Harness::of(&good(""));
    harness.settle();
    harness.world.secrets.insert("shop", "keys", SecretState::Unread);
    let plan = harness.plan();
    assert!(plan.is_empty(), "{plan:?}");
    Arc::make_mut(&mut harness.world.endpoints[0]).spec.suspend = true;
    harness.settle();
    assert_eq!(harness.row("e").unwrap().state, EndpointState::Suspended);
    let mut new = Harness::of(&good(""));
    new.world.secrets.insert("shop", "keys", SecretState::Unread);
    let plan = new.plan();
    assert_eq!(plan.table.put.len(), 1, "nothing but its tenant: {plan:?}");
    assert!(plan.statuses.is_empty(), "nothing is said of it before that is known");
}

#[test]
fn a_namespace_that_is_not_known_yet_keeps_its_routes() {
    let mut harness = Harness::of(&format!("{}{}", good(""), subscription(ROUTE)));
    harness.settle();
    let tenants = std::mem::take(&mut harness.world.tenants);
    assert!(harness.plan().is_empty(), "its resources are there, so it is");
    let resources = (std::mem::take(&mut harness.world.endpoints), std::mem::take(&mut harness.world.subscriptions));
    assert_eq!(harness.plan().table.drop.len(), 3, "without any it is gone");
    (harness.world.endpoints, harness.world.subscriptions) = resources;
    harness.world.tenants = tenants;
    assert!(harness.plan().is_empty());
}

#[test]
fn every_secret_that_is_asked_for_is_named() {
    let full = "urlFrom: {secretKeyRef: {name: s-url, key: k}}
signing: {secretKeyRef: {name: s-sign, key: k}}
headers: [{name: A, value: a}, {name: B, valueFrom: {secretKeyRef: {name: s-header, key: k}}}]
tls: {caSecretKeyRef: {name: s-ca, key: k}, clientCertificateSecretRef: {name: s-client}}
auth: ";
    let oauth2 =
        "{type: OAuth2, oauth2: {tokenUrl: 'https://t.example.com/', clientIdSecretKeyRef: {name: s-id, key: k},
    clientSecretSecretKeyRef: {name: s-secret, key: k}}}";
    for auth in [
        "{type: Basic, username: u, passwordSecretKeyRef: {name: s-password, key: k}}",
        "{type: Bearer, tokenSecretKeyRef: {name: s-token, key: k}}",
        oauth2,
    ] {
        let harness = Harness::of(&endpoint(&format!("{full}{auth}")));
        let resource = &harness.world.endpoints[0];
        let named: BTreeSet<String> = named_secrets(resource).into_iter().map(|(name, _)| name).collect();
        let text = serde_json::to_string(&resource.spec).unwrap();
        let written: BTreeSet<String> =
            text.split("\"name\":\"s-").skip(1).map(|rest| format!("s-{}", rest.split('"').next().unwrap())).collect();
        assert!(written.len() >= 6, "{written:?}");
        assert_eq!(named, written);
    }
    let generated = Harness::of(&endpoint("url: https://example.com/"));
    assert_eq!(named_secrets(&generated.world.endpoints[0]).len(), 1, "that of the key which is made");
}

/// Prints how long plans of many resources take; run it in release for figures.
#[test]
#[ignore = "a measurement"]
#[expect(clippy::print_stderr, reason = "a measurement is printed")]
fn plans_of_ten_thousand_endpoints_and_as_many_subscriptions() {
    let mut text = String::from(&secret(KEY));
    let mut files = Vec::new();
    for number in 0..10_000 {
        let (endpoint, subscription) = (format!("e{number}"), format!("s{number}"));
        text.push_str(&good("").replace(&secret(KEY), "").replace("name: e,", &format!("name: {endpoint},")));
        let route = crate::fixtures::subscription(&format!(
            "endpointRef: {{name: {endpoint}}}\neventTypes: ['order.*']\nfilter: \"event.data.total > {number}\""
        ));
        text.push_str(&route.replace("name: s,", &format!("name: {subscription},")));
        if number % 1000 == 999 {
            files.push(read_text(&format!("{number}.yaml"), &std::mem::take(&mut text)));
        }
    }
    let mut store = FileStore::default();
    let problems = store.update(operator::world::files::Loaded { files, problems: Vec::new(), complete: true });
    assert!(problems.is_empty(), "{problems:?}");
    let mut world = store.world();
    let (key, policy) = (SealingKey::from_bytes(&[7; 32]), AddressPolicy::public_https());
    let context = PlanContext { sealing_key: &key, address_policy: &policy };
    let mut memory = Memory::default();
    for what in ["from nothing", "published", "settled", "unchanged", "unchanged"] {
        let began = Instant::now();
        let plan = plan_again(&world, &context, NOW, &mut memory);
        eprintln!("{what}: {:?}, {} rows, {} statuses", began.elapsed(), plan.table.put.len(), plan.statuses.len());
        world.apply(&plan);
    }
    let began = Instant::now();
    assert!(plan(&world, &context, NOW).is_empty());
    eprintln!("unchanged, without memory: {:?}", began.elapsed());
}
