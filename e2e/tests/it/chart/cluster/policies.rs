//! Admission policies, tried by people who may and who may not.

use std::process::Output;
use std::time::{Duration, Instant};

use crds::limits::HEADERS_MAX;
use serde_json::{Value, json};
use testbed::Kubectl;

use super::installed::{Setting, apply};
use crate::chart::support::Objects;

const POLICIES: [&str; 2] = ["ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"];
/// Longest time until a policy is in effect.
const IN_EFFECT_MAX: Duration = Duration::from_mins(1);

/// People who may edit endpoints: one reads no Secret, one reads `named`, one reads all.
const NOBODY: &str = "edits-only";
const OF_ONE: &str = "reads-one";
const OF_ALL: &str = "reads-all";

fn people(namespace: &str) -> Objects {
    let metadata = |name: &str| json!({"name": name, "namespace": namespace});
    let group = "rbac.authorization.k8s.io";
    let role = |name: &str, rules: Value| json!({"apiVersion": format!("{group}/v1"), "kind": "Role", "metadata": metadata(name), "rules": rules});
    let binding = |name: &str, users: &[&str]| {
        let subjects: Vec<_> =
            users.iter().map(|user| json!({"apiGroup": group, "kind": "User", "name": user})).collect();
        json!({
            "apiVersion": format!("{group}/v1"), "kind": "RoleBinding", "metadata": metadata(name),
            "roleRef": {"apiGroup": group, "kind": "Role", "name": name}, "subjects": subjects,
        })
    };
    let endpoints = json!([{
        "apiGroups": ["harborhook.dev"], "resources": ["hookendpoints"], "verbs": ["create", "get", "patch", "update"],
    }]);
    let one = json!([{"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["named"], "verbs": ["get"]}]);
    let all = json!([{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]);
    Objects(vec![
        role("edit", endpoints),
        role("one", one),
        role("all", all),
        binding("edit", &[NOBODY, OF_ONE, OF_ALL]),
        binding("one", &[OF_ONE]),
        binding("all", &[OF_ALL]),
    ])
}

/// Applies endpoints as somebody else.
struct Person<'a> {
    kubectl: &'a Kubectl,
    name: &'a str,
}

impl Person<'_> {
    async fn apply(&self, endpoints: &[(&str, &Value)], more: &[&str]) -> Output {
        let object = |(name, spec): &(&str, &Value)| json!({"apiVersion": "harborhook.dev/v1alpha1", "kind": "Endpoint", "metadata": {"name": name}, "spec": spec});
        let arguments = [&["--as", self.name, "apply", "--filename", "-"], more].concat();
        apply(self.kubectl, &arguments, &Objects(endpoints.iter().map(object).collect())).await
    }

    /// Tries each without storing anything.
    async fn tries(&self, specs: &[Value]) -> Output {
        let names: Vec<String> = (0..specs.len()).map(|index| format!("tried-{index}")).collect();
        let endpoints: Vec<_> = names.iter().map(String::as_str).zip(specs).collect();
        self.apply(&endpoints, &["--dry-run=server"]).await
    }

    async fn is_refused(&self, specs: &[Value], sentence: &str) {
        let told = String::from_utf8_lossy(&self.tries(specs).await.stderr).into_owned();
        assert_eq!(told.matches(sentence).count(), specs.len(), "{} may some of {specs:?}: {told}", self.name);
    }

    async fn may(&self, specs: &[Value]) {
        let output = self.tries(specs).await;
        assert!(output.status.success(), "{} may not: {}", self.name, String::from_utf8_lossy(&output.stderr));
    }
}

/// A cluster with the policies in effect in one namespace.
async fn policies() -> Option<(Setting, super::installed::Installed)> {
    let setting = Setting::start(&[]).await?;
    // Nobody else's namespace is looked at.
    let values = json!({"watchNamespaces": [setting.namespace.name()]});
    let installed = setting.install(&values, &POLICIES).await;
    let output =
        apply(setting.namespace.kubectl(), &["apply", "--filename", "-"], &people(setting.namespace.name())).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let both = [json!({"url": "http://a.example.com"}), spec(json!({"signing": secret("other")}))];
    let start = Instant::now();
    // Rights and policies take effect one after the other.
    for (name, refused) in [(NOBODY, 2), (OF_ONE, 2), (OF_ALL, 1)] {
        let person = Person { kubectl: setting.namespace.kubectl(), name };
        loop {
            let told = String::from_utf8_lossy(&person.tries(&both).await.stderr).into_owned();
            if told.matches("denied request").count() == refused && !told.contains("cannot") {
                break;
            }
            assert!(start.elapsed() < IN_EFFECT_MAX, "the policies do not take effect for {name}: {told}");
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }
    Some((setting, installed))
}

fn secret(name: &str) -> Value {
    json!({"secretKeyRef": {"name": name, "key": "key"}})
}

/// An endpoint's spec that is right, with more.
fn spec(more: Value) -> Value {
    let mut spec = json!({"url": "https://a.example.com"});
    if let (Some(fields), Value::Object(more)) = (spec.as_object_mut(), more) {
        fields.extend(more);
    }
    spec
}

#[tokio::test]
async fn http_is_refused_with_a_sentence_and_https_is_not() {
    let Some((setting, _installed)) = policies().await else { return };
    let person = Person { kubectl: setting.namespace.kubectl(), name: OF_ONE };
    let url = |url: &str| json!({ "url": url });
    let sentence = "spec.url must begin with https://: this installation delivers over https only";
    person.is_refused(&[url("http://a.example.com")], sentence).await;
    let oauth2 = |token_url: &str| {
        spec(json!({"auth": {"type": "OAuth2", "oauth2": {
            "tokenUrl": token_url, "clientId": "a", "clientSecretSecretKeyRef": {"name": "named", "key": "key"},
        }}}))
    };
    let sentence = "spec.auth.oauth2.tokenUrl must begin with https://";
    person.is_refused(&[oauth2("http://a.example.com")], sentence).await;
    person.may(&[url("https://a.example.com"), oauth2("https://a.example.com")]).await;
}

/// Endpoints that name a Secret, one in each place where they can.
fn in_all_places(name: &str) -> Vec<Value> {
    let key = |name: &str| json!({"name": name, "key": "key"});
    let oauth2 = |client_id: Value, client_secret: Value| {
        let mut oauth2 = json!({"tokenUrl": "https://a.example.com", "clientSecretSecretKeyRef": client_secret});
        oauth2.as_object_mut().unwrap().extend(client_id.as_object().unwrap().clone());
        spec(json!({"auth": {"type": "OAuth2", "oauth2": oauth2}}))
    };
    vec![
        json!({"urlFrom": secret(name)}),
        spec(json!({"signing": secret(name)})),
        spec(json!({"headers": [{"name": "A", "value": "b"}, {"name": "X-Key", "valueFrom": secret(name)}]})),
        spec(json!({"auth": {"type": "Basic", "username": "u", "passwordSecretKeyRef": key(name)}})),
        spec(json!({"auth": {"type": "Bearer", "tokenSecretKeyRef": key(name)}})),
        oauth2(json!({"clientIdSecretKeyRef": key(name)}), key("named")),
        oauth2(json!({"clientId": "a"}), key(name)),
        spec(json!({"tls": {"caSecretKeyRef": key(name)}})),
        spec(json!({"tls": {"clientCertificateSecretRef": {"name": name}}})),
    ]
}

#[tokio::test]
async fn whoever_names_a_secret_anywhere_must_be_allowed_to_read_it() {
    let Some((setting, _installed)) = policies().await else { return };
    let kubectl = setting.namespace.kubectl();
    let [nobody, one, all] = [NOBODY, OF_ONE, OF_ALL].map(|name| Person { kubectl, name });
    let sentence = |user: &str, name: &str| {
        format!(
            "names Secret {name}, which {user} may not get: whoever has a Secret sent out must be allowed to read it"
        )
    };
    nobody.is_refused(&in_all_places("named"), &sentence(NOBODY, "named")).await;
    nobody.may(&[spec(json!({}))]).await;
    one.may(&in_all_places("named")).await;
    one.is_refused(&in_all_places("other"), &sentence(OF_ONE, "other")).await;
    all.may(&in_all_places("other")).await;
}

#[tokio::test]
async fn a_change_of_what_is_sent_or_where_takes_the_right_and_a_pause_does_not() {
    let Some((setting, _installed)) = policies().await else { return };
    let kubectl = setting.namespace.kubectl();
    let [nobody, all] = [NOBODY, OF_ALL].map(|name| Person { kubectl, name });
    let signed = |more: Value| {
        let mut signed = spec(json!({"signing": secret("other")}));
        signed.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        signed
    };
    let made = all.apply(&[("made", &signed(json!({})))], &[]).await;
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    // Who suspends it reads nothing and sends nothing anywhere else.
    let paused = nobody.apply(&[("made", &signed(json!({"suspend": true})))], &[]).await;
    assert!(paused.status.success(), "{}", String::from_utf8_lossy(&paused.stderr));
    for change in [json!({"url": "https://b.example.com"}), json!({"headers": [{"name": "A", "value": "b"}]})] {
        let refused = nobody.apply(&[("made", &signed(change))], &[]).await;
        let told = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && told.contains("which edits-only may not get"), "{told}");
    }
}

#[tokio::test]
async fn as_many_secrets_as_an_endpoint_may_name_cost_no_more_than_a_policy_may() {
    let Some((setting, _installed)) = policies().await else { return };
    let kubectl = setting.namespace.kubectl();
    let [one, all] = [OF_ONE, OF_ALL].map(|name| Person { kubectl, name });
    let headers = |count: usize, name: &dyn Fn(usize) -> String| {
        let header = |index: usize| json!({"name": format!("X-{index}"), "valueFrom": secret(&name(index))});
        spec(json!({"headers": (0..count).map(header).collect::<Vec<_>>()}))
    };
    let numbered = |index: usize| format!("s{index}");
    all.may(&[headers(HEADERS_MAX, &numbered)]).await;
    // One Secret that is named often counts once.
    one.may(&[headers(HEADERS_MAX, &|_| "named".to_owned())]).await;
    one.is_refused(&[headers(17, &numbered)], "names more than 16 Secrets").await;
    // Sixteen questions are within the budget.
    one.is_refused(&[headers(16, &numbered)], "names Secret s0, which reads-one may not get").await;
    let last_is_foreign = |index: usize| if index == 15 { "other".to_owned() } else { "named".to_owned() };
    one.is_refused(&[headers(16, &last_is_foreign)], "names Secret other").await;
}
