//! What plans do with resources that change.

use std::sync::Arc;
use std::time::Duration;

use crds::condition::{ConditionType, Reason};
use dispatcher::ledger::{DisableReason, Disabled, EndpointFacts};
use dispatcher_core::delivery::Outcome;
use dispatcher_core::id::EndpointId;
use dispatcher_core::table::{EndpointState, RowKey};
use operator::generate::{GENERATED_KEY, secret_name, signing_key};
use operator::world::{SecretData, SecretState, Unmade};

use crate::fixtures::{Harness, KEY, NOW, SIGNING, endpoint, good, pool, secret, subscription, word};

const ROUTE: &str = "endpointRef: {name: e}\neventTypes: ['order.*']";
const SECOND_KEY: &str = "second-key-second-key-second";

fn keys(harness: &Harness) -> Vec<(String, Option<u64>)> {
    let secrets = harness.secrets("e");
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    secrets.keys.iter().map(|key| (text(&key.bytes.expose().0), key.retires_at_unix_ms)).collect()
}

fn facts(id: EndpointId) -> EndpointFacts {
    EndpointFacts {
        endpoint: id,
        attempts: 100,
        succeeded: 100,
        p95: Some(Duration::from_millis(130)),
        pending: 12_345,
        oldest_unix_ms: Some(NOW),
        last_status_code: Some(200),
        last_outcome: Some(Outcome::Delivered),
        gate_closed_for: None,
    }
}

#[test]
fn a_good_endpoint_and_subscription_are_routed() {
    let mut harness = Harness::of(&format!("{}{}", good("headers: [{name: X-Team, value: a}]"), subscription(ROUTE)));
    assert_eq!(harness.ready(), word(Reason::Programmed));
    let row = harness.row("e").unwrap();
    assert_eq!((row.host.as_str(), &row.state), ("example.com", &EndpointState::Active));
    assert_eq!(harness.secrets("e").headers[0].1.expose(), "a");
    assert_eq!(harness.route("s").unwrap().endpoints, [row.id]);
    assert_eq!(harness.subscription_condition("s", ConditionType::Ready).reason, word(Reason::Programmed));
    assert_eq!(harness.world.published.len(), 3);
}

#[test]
fn every_reason_of_an_invalid_endpoint_is_reached() {
    let signed = |spec: &str| format!("{}{}", secret(KEY), endpoint(&format!("{spec}\n{SIGNING}")));
    for (text, reason) in [
        (signed("url: https://127.0.0.1/"), Reason::AddressBlocked),
        (signed("url: http://example.com/"), Reason::AddressBlocked),
        (signed("urlFrom: {secretKeyRef: {name: absent, key: url}}"), Reason::SecretNotFound),
        (signed("urlFrom: {secretKeyRef: {name: keys, key: url}}"), Reason::SecretKeyMissing),
        (signed("urlFrom: {secretKeyRef: {name: keys, key: key}}"), Reason::SecretKeyMissing),
        (
            signed("url: https://example.com/\nauth: {type: Bearer, tokenSecretKeyRef: {name: absent, key: x}}"),
            Reason::SecretNotFound,
        ),
        (signed("url: https://example.com/\npoolRef: {name: absent}"), Reason::PoolNotFound),
        (good("").replace(KEY, "short"), Reason::SecretKeyMissing),
        (
            good("").replace(SIGNING, &SIGNING.replace("signing: {", "signing: {scheme: StandardWebhooksEd25519, ")),
            Reason::SecretKeyMissing,
        ),
        (
            good("headers: [{name: X, valueFrom: {secretKeyRef: {name: keys, key: key}}}]")
                .replace(KEY, "line\\nbreak-line-break"),
            Reason::SecretKeyMissing,
        ),
    ] {
        let mut harness = Harness::of(&text);
        assert_eq!(harness.ready(), word(reason), "{text}");
        assert!(harness.row("e").is_none(), "{text}");
        assert_eq!(harness.endpoint_condition("e", ConditionType::Delivering).reason, word(Reason::NotRouted));
        let terminal = ConditionType::Stalled.reasons(crds::Kind::Endpoint).contains(&reason);
        let end = if terminal { ConditionType::Stalled } else { ConditionType::Reconciling };
        assert_eq!(harness.endpoint_condition("e", end).status, "True");
    }
    let mut harness = Harness::of(&good(""));
    harness.world.secrets.insert("shop", "keys", SecretState::Forbidden);
    assert_eq!(harness.ready(), word(Reason::SecretForbidden));
    // A spec that the schema of another release admitted.
    Arc::make_mut(&mut harness.world.endpoints[0]).spec.timeout_seconds = Some(0);
    assert_eq!(harness.ready(), word(Reason::InvalidSpec));
}

#[test]
fn every_reason_of_an_invalid_subscription_is_reached() {
    for (spec, reason) in [
        ("endpointRef: {name: e}\neventTypes: ['**']\nfilter: 'event.'", Reason::InvalidFilter),
        ("endpointRef: {name: e}\neventTypes: ['**']\ntransform: 'event.'", Reason::InvalidTransform),
        ("endpointRef: {name: absent}\neventTypes: ['**']\ntransform: 'now()'", Reason::InvalidTransform),
        ("endpointRef: {name: e}\neventTypes: ['**']\ntransform: '{\"type\": event.type}'", Reason::Programmed),
        ("endpointRef: {name: absent}\neventTypes: ['**']", Reason::EndpointNotFound),
        ("endpointSelector: {matchLabels: {team: b}}\neventTypes: ['**']", Reason::EndpointNotFound),
        ("endpointSelector: {matchLabels: {team: a}}\neventTypes: ['**']", Reason::Programmed),
        ("endpointRef: {name: e}\neventTypes: ['**']\nsuspend: true", Reason::Suspended),
    ] {
        let mut harness = Harness::of(&format!("{}{}", good(""), subscription(spec)));
        harness.settle();
        assert_eq!(harness.subscription_condition("s", ConditionType::Ready).reason, word(reason), "{spec}");
    }
    let mut harness = Harness::of(&format!("{}{}", good(""), subscription(ROUTE)));
    Arc::make_mut(&mut harness.world.subscriptions[0]).spec.event_types = Vec::new();
    harness.settle();
    assert_eq!(harness.subscription_condition("s", ConditionType::Ready).reason, word(Reason::InvalidSpec));
}

#[test]
fn an_endpoint_that_becomes_invalid_is_held_and_comes_back() {
    let mut harness = Harness::of(&good(""));
    harness.settle();
    let before = harness.row("e").unwrap().clone();
    harness.change(&good("").replace("example.com", "10.0.0.1"));
    assert_eq!(harness.ready(), word(Reason::AddressBlocked));
    let held = harness.row("e").unwrap();
    assert_eq!(held.state, EndpointState::Held { reason: word(Reason::AddressBlocked) });
    assert_eq!((&held.sealed, &held.revision), (&before.sealed, &before.revision));
    let delivering = harness.endpoint_condition("e", ConditionType::Delivering);
    assert_eq!((delivering.status.as_str(), &delivering.reason), ("False", &word(Reason::Suspended)));
    assert!(delivering.message.contains("until the endpoint is valid again"), "{}", delivering.message);
    assert_eq!(harness.endpoint_condition("e", ConditionType::Programmed).reason, word(Reason::Waiting));
    harness.change(&good(""));
    assert_eq!(harness.ready(), word(Reason::Programmed));
    assert_eq!(harness.row("e"), Some(&before));
}

#[test]
fn suspend_takes_effect_on_an_invalid_object_too() {
    let good_pair = format!("{}{}", good(""), subscription(ROUTE));
    let mut harness = Harness::of(&good_pair);
    harness.settle();
    let bad = format!(
        "{}{}",
        good("suspend: true").replace("example.com", "10.0.0.1"),
        subscription("endpointRef: {name: e}\neventTypes: ['**']\nfilter: '('\nsuspend: true"),
    );
    harness.change(&bad);
    assert_eq!(harness.ready(), word(Reason::AddressBlocked));
    assert_eq!(harness.row("e").unwrap().state, EndpointState::Suspended);
    let route = harness.route("s").unwrap();
    assert!(route.suspended);
    assert_eq!(route.event_types, ["order.*"]);
    harness.change(&good("suspend: true"));
    assert_eq!(harness.ready(), word(Reason::Suspended));
}

#[test]
fn a_subscription_that_becomes_invalid_keeps_its_last_good_route_and_says_so() {
    let mut harness = Harness::of(&format!("{}{}", good(""), subscription(ROUTE)));
    harness.settle();
    let before = harness.route("s").unwrap().clone();
    harness.change(&format!(
        "{}{}",
        good(""),
        subscription("endpointRef: {name: e}\neventTypes: ['other.*']\nfilter: '('")
    ));
    harness.settle();
    assert_eq!(harness.route("s"), Some(&before));
    assert!(harness.subscription_condition("s", ConditionType::Ready).message.contains("last good route"));
}

#[test]
fn a_transform_reaches_the_route_and_a_broken_one_leaves_the_last_good_one() {
    let shaped =
        |transform: &str| format!("{}{}", good(""), subscription(&format!("{ROUTE}\ntransform: '{transform}'")));
    let mut harness = Harness::of(&shaped("{\"type\": event.type}"));
    harness.settle();
    let before = harness.route("s").unwrap().clone();
    assert_eq!(before.transform.as_deref(), Some("{\"type\": event.type}"));

    harness.change(&shaped("event.type +"));
    harness.settle();
    assert_eq!(harness.route("s"), Some(&before));
    let ready = harness.subscription_condition("s", ConditionType::Ready);
    assert_eq!((ready.status.as_str(), &ready.reason), ("False", &word(Reason::InvalidTransform)));
    assert!(ready.message.starts_with("spec.transform: "), "{}", ready.message);
    assert!(ready.message.contains("last good route"), "{}", ready.message);
    let stalled = harness.subscription_condition("s", ConditionType::Stalled);
    assert_eq!(stalled.reason, word(Reason::InvalidTransform));

    harness.change(&format!("{}{}", good(""), subscription(ROUTE)));
    harness.settle();
    assert_eq!(harness.route("s").unwrap().transform, None, "a transform that is taken out is gone");
}

#[test]
fn a_subscription_to_a_deleted_endpoint_counts_none_and_says_that_nothing_is_delivered() {
    let mut harness = Harness::of(&format!("{}{}", good(""), subscription(ROUTE)));
    harness.settle();
    let count = |harness: &Harness| harness.world.subscriptions[0].status.as_ref().unwrap().endpoints;
    assert_eq!(count(&harness), Some(1));

    // Another name in the spec: the last good route still leads to an endpoint.
    harness.change(&format!("{}{}", good(""), subscription(&ROUTE.replace("name: e", "name: absent"))));
    harness.settle();
    assert_eq!(count(&harness), Some(1));
    assert!(harness.subscription_condition("s", ConditionType::Ready).message.contains("last good route"));

    harness.change(&format!("{}{}", secret(KEY), subscription(ROUTE)));
    harness.settle();
    assert_eq!(count(&harness), Some(0));
    let ready = harness.subscription_condition("s", ConditionType::Ready);
    assert_eq!(ready.reason, word(Reason::EndpointNotFound));
    assert!(ready.message.contains("are not delivered") && !ready.message.contains("last good"), "{}", ready.message);
}

#[test]
fn a_selector_that_matches_nothing_any_more_takes_effect() {
    let selector = "endpointSelector: {matchLabels: {team: a}}\neventTypes: ['**']";
    let mut harness = Harness::of(&format!("{}{}", good(""), subscription(selector)));
    harness.settle();
    assert_eq!(harness.route("s").unwrap().endpoints.len(), 1);
    harness.change(&format!("{}{}", good("").replace("team: a", "team: b"), subscription(selector)));
    harness.settle();
    assert!(harness.route("s").unwrap().endpoints.is_empty());
    assert!(harness.subscription_condition("s", ConditionType::Ready).message.contains("are not delivered"));
}

#[test]
fn a_rotated_key_signs_beside_the_new_one_until_it_retires() {
    let rotating = |key: &str, seconds: u32| {
        good("").replace(KEY, key).replace("signing: {", &format!("signing: {{rotationOverlapSeconds: {seconds}, "))
    };
    let mut harness = Harness::of(&rotating(KEY, 60));
    harness.settle();
    let revision = harness.row("e").unwrap().revision.clone();
    harness.change(&rotating(SECOND_KEY, 60));
    let plan = harness.settle();
    assert_eq!(plan.next_look_in, Some(Duration::from_mins(1)));
    assert_eq!(keys(&harness), [(SECOND_KEY.to_owned(), None), (KEY.to_owned(), Some(NOW + 60_000))]);
    let rotated = harness.row("e").unwrap().revision.clone();
    assert_ne!(rotated, revision);

    harness.now += 20_000;
    harness.change(&rotating(SECOND_KEY, 30));
    harness.settle();
    assert_eq!(keys(&harness)[1].1, Some(NOW + 50_000), "a shorter overlap counts from now on");
    harness.now = NOW + 50_000;
    let revision = harness.row("e").unwrap().revision.clone();
    assert_eq!(harness.settle().next_look_in, None);
    assert_eq!(keys(&harness), [(SECOND_KEY.to_owned(), None)]);
    assert_eq!(harness.row("e").unwrap().revision, revision, "a key that retires opens no gate");

    harness.change(&rotating(KEY, 0));
    harness.settle();
    assert_eq!(keys(&harness), [(KEY.to_owned(), None)], "without overlap the old key is gone at once");
}

#[test]
fn an_endpoint_without_a_key_waits_for_one_that_is_made() {
    let mut harness = Harness::of(&endpoint("url: https://example.com/"));
    let plan = harness.settle();
    assert_eq!(plan.generate_secrets.len(), 1);
    let wanted = &plan.generate_secrets[0];
    assert_eq!((wanted.name.as_str(), wanted.endpoint.as_str()), ("e-signing-key", "e"));
    assert!(plan.statuses.is_empty(), "nothing is said of a new one that has a key in a moment");
    for (why, reason) in [
        (Unmade::Failed, Reason::Pending),
        (Unmade::Removed, Reason::Pending),
        (Unmade::Former, Reason::Pending),
        (Unmade::Forbidden, Reason::SecretForbidden),
        (Unmade::Foreign, Reason::SecretKeyMissing),
    ] {
        let mut failing = Harness::of(&endpoint("url: https://example.com/"));
        failing.world.secrets.insert("shop", &secret_name("e"), SecretState::Unmade { why, present: None });
        assert_eq!(failing.settle().generate_secrets.len(), 1, "it is tried again");
        assert_eq!(failing.endpoint_condition("e", ConditionType::Ready).reason, word(reason));
        assert!(failing.endpoint_condition("e", ConditionType::Ready).message.contains("Secret e-signing-key"));
    }
    // Who names that Secret takes what is there.
    let mut naming = Harness::of(&good("").replace("keys", "e-signing-key"));
    let data: SecretData = [("key".to_owned(), signing_key(wanted.scheme, &[9; 32]))].into_iter().collect();
    for (present, reason) in
        [(None, Reason::SecretNotFound), (Some(SecretState::Present(data).into()), Reason::Programmed)]
    {
        let state = SecretState::Unmade { why: Unmade::Foreign, present };
        naming.world.secrets.insert("shop", &secret_name("e"), state);
        assert_eq!(naming.ready(), word(reason));
    }
    let mut wrong = Harness::of(&endpoint("url: http://example.com/"));
    assert_eq!(wrong.ready(), word(Reason::AddressBlocked), "what else is wrong is said");
    let value = signing_key(wanted.scheme, &[9; 32]);
    let data = [(GENERATED_KEY.to_owned(), value)].into_iter().collect();
    harness.world.secrets.insert("shop", &secret_name("e"), SecretState::Present(data));
    let plan = harness.settle();
    assert!(plan.generate_secrets.is_empty());
    assert_eq!(harness.secrets("e").keys[0].bytes.expose().0, [9; 32]);
}

#[test]
fn a_key_of_the_other_kind_is_refused() {
    let encoded = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";
    for (scheme, prefix, reason, word_of_message) in [
        ("StandardWebhooks", "whsec_", Reason::Programmed, ""),
        ("StandardWebhooks", "whsk_", Reason::SecretKeyMissing, "private key"),
        ("HarborHook", "whsk_", Reason::SecretKeyMissing, "private key"),
        ("GitHub", "whsk_", Reason::SecretKeyMissing, "private key"),
        ("Stripe", "whsk_", Reason::SecretKeyMissing, "private key"),
        ("StandardWebhooksEd25519", "whsk_", Reason::Programmed, ""),
        ("StandardWebhooksEd25519", "whsec_", Reason::SecretKeyMissing, "whsk_"),
    ] {
        let text = good("").replace(KEY, &format!("{prefix}{encoded}"));
        let mut harness = Harness::of(&text.replace("signing: {", &format!("signing: {{scheme: {scheme}, ")));
        assert_eq!(harness.ready(), word(reason), "{scheme} {prefix}");
        let message = &harness.endpoint_condition("e", ConditionType::Ready).message;
        assert!(message.contains(word_of_message) && !message.contains(encoded), "{message}");
    }
    // 32 bytes of text could be a seed, but nothing says that receivers do not know them.
    let text = good("").replace(KEY, &"k".repeat(32));
    let mut harness = Harness::of(&text.replace("signing: {", "signing: {scheme: StandardWebhooksEd25519, "));
    assert_eq!(harness.ready(), word(Reason::SecretKeyMissing));
}

#[test]
fn a_generated_key_is_made_anew_when_the_scheme_takes_another_kind() {
    let with_scheme = |scheme: &str| endpoint(&format!("url: https://example.com/\nsigning: {{scheme: {scheme}}}"));
    let make = |harness: &mut Harness, byte: u8| {
        let plan = harness.settle();
        let [wanted] = &plan.generate_secrets[..] else { panic!("one Secret is wanted: {plan:?}") };
        let data =
            [(GENERATED_KEY.to_owned(), signing_key(wanted.scheme, &[byte; 32]))].into_iter().collect::<SecretData>();
        harness.world.secrets.insert("shop", &secret_name("e"), SecretState::Present(data.clone()));
        assert_eq!(harness.ready(), word(Reason::Programmed));
        assert!(harness.plan().generate_secrets.is_empty());
        data
    };
    let mut harness = Harness::of(&with_scheme("StandardWebhooks"));
    let shared = make(&mut harness, 1);
    harness.change(&with_scheme("GitHub"));
    harness.world.secrets.insert("shop", &secret_name("e"), SecretState::Present(shared.clone()));
    assert!(harness.settle().generate_secrets.is_empty(), "the kind is the same");

    harness.change(&with_scheme("StandardWebhooksEd25519"));
    harness.world.secrets.insert("shop", &secret_name("e"), SecretState::Present(shared));
    assert_eq!(harness.ready(), word(Reason::Pending));
    make(&mut harness, 2);
    let secrets = harness.secrets("e");
    assert_eq!(secrets.keys.len(), 1, "no key of the other kind signs on");
    assert_eq!(secrets.keys[0].bytes.expose().0, [2; 32]);
}

#[test]
fn deletions_become_drops_and_the_last_one_drops_the_tenant() {
    let mut harness = Harness::of(&format!("{}{}", good(""), subscription(ROUTE)));
    harness.settle();
    let id = harness.row("e").unwrap().id;
    harness.change(&subscription(ROUTE));
    let plan = harness.settle();
    assert_eq!(plan.table.drop, [RowKey::Endpoint(id)]);
    assert_eq!(harness.subscription_condition("s", ConditionType::Ready).reason, word(Reason::EndpointNotFound));
    harness.change(&secret(KEY));
    harness.settle();
    assert!(harness.world.published.is_empty());
}

#[test]
fn credentials_become_headers() {
    for (auth, expected) in [
        (
            "auth: {type: Basic, username: ada, passwordSecretKeyRef: {name: keys, key: key}}",
            "Basic YWRhOmZpcnN0LWtleS1maXJzdC1rZXktZmlyc3Qta2V5".to_owned(),
        ),
        ("auth: {type: Bearer, tokenSecretKeyRef: {name: keys, key: key}}", format!("Bearer {KEY}")),
    ] {
        let mut harness = Harness::of(&good(auth));
        harness.settle();
        let secrets = harness.secrets("e");
        assert_eq!((secrets.headers[0].0.as_str(), secrets.headers[0].1.expose()), ("Authorization", &expected));
    }
}

#[test]
fn every_reason_of_delivering_is_reached() {
    let mut harness = Harness::of(&format!("{}{}", good(""), subscription(ROUTE)));
    assert_eq!(harness.delivering(), word(Reason::NoTraffic));
    let (id, revision) = harness.row("e").map(|row| (row.id, row.revision.clone())).unwrap();
    harness.world.facts = vec![facts(id)];
    assert_eq!(harness.delivering(), word(Reason::Delivering));
    let delivery = harness.world.endpoints[0].status.clone().unwrap().delivery.unwrap();
    assert_eq!(
        (delivery.success.as_deref(), delivery.p95.as_deref(), delivery.pending.as_deref()),
        (Some("100%"), Some("200ms"), Some("~10k"))
    );
    let failing =
        EndpointFacts { succeeded: 0, last_outcome: Some(Outcome::Http5xx), last_status_code: Some(503), ..facts(id) };
    harness.world.facts = vec![failing.clone()];
    assert_eq!(harness.delivering(), word(Reason::Failing));
    harness.world.facts = vec![EndpointFacts { gate_closed_for: Some(Duration::from_secs(9)), ..failing }];
    assert_eq!(harness.delivering(), word(Reason::CircuitOpen));
    for (reason, expected) in
        [(DisableReason::Gone, Reason::Gone), (DisableReason::DisabledAfterFailures, Reason::DisabledAfterFailures)]
    {
        harness.world.disabled = vec![Disabled { endpoint: id, revision: revision.clone(), reason }];
        assert_eq!(harness.delivering(), word(expected));
        assert_eq!(harness.endpoint_condition("e", ConditionType::Ready).status, "True");
    }
    // The annotation asks to try again: the revision is another one.
    let annotations = [(crds::REQUESTED_AT_ANNOTATION.to_owned(), "now".to_owned())].into_iter().collect();
    Arc::make_mut(&mut harness.world.endpoints[0]).metadata.annotations = Some(annotations);
    assert_eq!(harness.delivering(), word(Reason::CircuitOpen));
    Arc::make_mut(&mut harness.world.endpoints[0]).spec.suspend = true;
    assert_eq!(harness.delivering(), word(Reason::Suspended));
    let mut harness = Harness::of(&good(""));
    assert_eq!(harness.delivering(), word(Reason::NotRouted));
}

#[test]
fn a_pause_of_a_rate_limited_endpoint_is_no_open_circuit() {
    let rate_limited = good("rateLimit: {perSecond: 1}");
    let mut harness = Harness::of(&format!("{rate_limited}{}", subscription(ROUTE)));
    harness.settle();
    let id = harness.row("e").unwrap().id;
    let paused = EndpointFacts {
        succeeded: 99,
        last_outcome: Some(Outcome::Http5xx),
        gate_closed_for: Some(Duration::from_secs(1)),
        ..facts(id)
    };
    harness.world.facts = vec![paused.clone()];
    assert_eq!(harness.delivering(), word(Reason::Delivering), "one failure of many, and the rate pauses");
    harness.world.facts = vec![EndpointFacts { succeeded: 1, ..paused }];
    assert_eq!(harness.delivering(), word(Reason::Failing));
}

#[test]
fn programmed_counts_dispatchers_until_all_have_loaded_it_once() {
    let mut harness = Harness::of(&good(""));
    let set = |harness: &mut Harness, running, up_to_date| {
        harness.world.pools.insert("default".to_owned(), pool(running, up_to_date));
        harness.settle();
        harness.endpoint_condition("e", ConditionType::Programmed).clone()
    };
    let waiting = set(&mut harness, 3, 2);
    assert_eq!((waiting.reason, waiting.message.contains("2/3")), (word(Reason::Waiting), true));
    assert_eq!(harness.endpoint_condition("e", ConditionType::Reconciling).reason, word(Reason::Progressing));
    assert_eq!(set(&mut harness, 3, 3).reason, word(Reason::Programmed));
    assert_eq!(set(&mut harness, 4, 3).reason, word(Reason::Programmed), "it stays True");
    assert_eq!(set(&mut harness, 0, 0).reason, word(Reason::Programmed), "whoever starts loads it first");

    let mut harness = Harness::of(&good(""));
    let at_zero = set(&mut harness, 0, 0);
    assert_eq!((at_zero.reason, at_zero.status.as_str()), (word(Reason::PoolAtZero), "True"));
    assert_eq!(set(&mut harness, 2, 2).reason, word(Reason::Programmed));
}

#[test]
fn facts_change_at_most_once_in_their_interval() {
    let mut harness = Harness::of(&format!("{}{}", good(""), subscription(ROUTE)));
    harness.settle();
    let id = harness.row("e").unwrap().id;
    harness.world.facts = vec![facts(id)];
    harness.settle();
    harness.now += 10_000;
    harness.world.facts[0].pending = 3;
    let plan = harness.plan();
    assert!(plan.is_empty(), "{plan:?}");
    assert_eq!(plan.next_look_in, Some(Duration::from_secs(20)));
    harness.now += 20_000;
    assert_eq!(harness.plan().statuses.len(), 1);
    harness.world.facts[0].pending = 12_000;
    assert!(harness.plan().is_empty(), "the same when rounded");
}
