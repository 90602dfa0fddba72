//! helm and kubectl, and what they print.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

/// Namespace of the rendered release.
pub(crate) const NAMESPACE: &str = "hooks";
/// Name of the rendered release, and so of everything in it.
pub(crate) const RELEASE: &str = "harborhook";

/// Folder of the repository.
pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Folder of the chart.
pub(crate) fn chart() -> PathBuf {
    repository().join("charts/harborhook")
}

/// A program that a variable names, or that is on the path. Where it is missing and servers are not required, says so and
/// answers `None`: the test then returns early.
pub(crate) fn program(variable: &str, name: &str, arguments: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os(variable).filter(|value| !value.is_empty()).map_or_else(|| name.into(), PathBuf::from);
    let found =
        Command::new(&path).args(arguments).stdin(Stdio::null()).output().is_ok_and(|output| output.status.success());
    if found {
        return Some(path);
    }
    let required = std::env::var_os("HARBORHOOK_REQUIRE_SERVERS").is_some_and(|value| value == "1");
    assert!(!required, "{} does not run: name it in {variable}", path.display());
    // Past the capture of the test that passes.
    let _ = writeln!(std::io::stderr(), "skipped: {name} is not there; name it in {variable}");
    None
}

/// The program `helm`.
pub(crate) struct Helm(PathBuf);

impl Helm {
    /// The one that `HARBORHOOK_HELM` names, or that is on the path.
    pub(crate) fn find() -> Option<Self> {
        program("HARBORHOOK_HELM", "helm", &["version"]).map(Self)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Renders the chart with these values, which must be right.
    pub(crate) fn render(&self, values: &Value) -> Objects {
        self.render_as(RELEASE, NAMESPACE, values)
    }

    /// The same as another release in another namespace.
    pub(crate) fn render_as(&self, release: &str, namespace: &str, values: &Value) -> Objects {
        let output = self.run(&["template", release, "--namespace", namespace, "--values", "-"], values);
        Objects::parse(&succeeded(&output))
    }

    /// What NOTES.txt says.
    pub(crate) fn notes(&self, values: &Value) -> String {
        let arguments = ["install", RELEASE, "--dry-run=client", "--namespace", NAMESPACE, "--values", "-"];
        let text = succeeded(&self.run(&arguments, values));
        text.split_once("NOTES:\n").map(|(_, notes)| notes.to_owned()).unwrap_or_default()
    }

    /// What `helm lint` finds.
    pub(crate) fn lint(&self, values: &Value) -> String {
        succeeded(&self.run(&["lint", "--strict", "--namespace", NAMESPACE, "--values", "-"], values))
    }

    /// Why helm refuses these values, which it must.
    pub(crate) fn refuse(&self, values: &Value) -> String {
        let output = self.run(&["template", RELEASE, "--namespace", NAMESPACE, "--values", "-"], values);
        assert!(!output.status.success(), "{values} is not refused");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Runs helm; the chart comes after the first arguments' command and name.
    fn run(&self, arguments: &[&str], values: &Value) -> Output {
        let split = if arguments[0] == "lint" { 1 } else { 2 };
        let mut command = Command::new(&self.0);
        command.args(&arguments[..split]).arg(chart()).args(&arguments[split..]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(values.to_string().as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }
}

/// What a command printed, which must have succeeded.
pub(crate) fn succeeded(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Values of the distributed installation, with others on top.
pub(crate) fn distributed(more: &Value) -> Value {
    let mut values = json!({"postgres": {"existingSecret": "pg"}, "rabbitmq": {"existingSecret": "mq"}});
    merge(&mut values, more);
    values
}

/// Values of the embedded installation with everything that can be turned on.
pub(crate) fn everything() -> Value {
    json!({
        "tlsFiles": {"existingSecret": "tls"},
        "imagePullSecrets": [{"name": "pull"}],
        "addressPolicy": {
            "allowAddresses": ["10.0.0.0/8"], "allowHosts": ["payments.internal"], "allowPorts": [9443],
            "denyAddresses": ["2001:db8::/32", "203.0.113.0/24"], "clusterCidrs": ["10.96.0.0/12"],
        },
        "access": {"serviceAccountGrants": ["shop/support=read+replay"], "issuers": [{
            "issuer": "https://login.example.com", "jwksUrl": "https://login.example.com/keys", "audiences": ["hooks"],
            "tenantClaim": "namespace", "scopeClaim": "scope",
        }]},
        "tenants": [
            {"namespace": "shop", "secretNames": ["billing-hook"]},
            {"namespace": "bank", "allSecrets": true},
            {"namespace": "club", "generateSecrets": true},
        ],
        "operator": {"resyncSeconds": 60, "podLabels": {"a": "b"}, "tolerations": [{"operator": "Exists"}]},
        "priorityClassName": "high",
        "gateway": {"enabled": true, "parentRefs": [{"name": "gateway"}], "hostnames": ["hooks.example.com"]},
        "networkPolicy": {"ingestFrom": [{"namespaceSelector": {}}], "metricsFrom": [{"podSelector": {}}]},
        "podMonitor": {"enabled": true, "labels": {"release": "prometheus"}},
    })
}

/// The values that most is asserted of: each installation, plain and with everything.
pub(crate) fn matrix() -> Vec<Value> {
    let namespaced = json!({"watchNamespaces": ["shop", "bank"], "addressPolicy": {"allowHttp": true}});
    vec![json!({}), everything(), distributed(&json!({})), distributed(&everything()), distributed(&namespaced)]
}

fn merge(into: &mut Value, more: &Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (key, value) in more {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, more) => *into = more.clone(),
    }
}

/// Objects as YAML documents.
pub(crate) struct Objects(pub(crate) Vec<Value>);

impl Objects {
    pub(crate) fn parse(text: &str) -> Self {
        let documents: Vec<Value> = serde_saphyr::from_multiple(text).unwrap();
        Self(documents.into_iter().filter(|document| !document.is_null()).collect())
    }

    /// All as one manifest.
    pub(crate) fn manifest(&self) -> String {
        json!({"apiVersion": "v1", "kind": "List", "items": self.0}).to_string()
    }

    /// All of a kind.
    pub(crate) fn of(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.0.iter().filter(move |object| object["kind"] == kind)
    }

    /// The names of all of a kind, in order.
    pub(crate) fn names(&self, kind: &str) -> Vec<&str> {
        let mut names: Vec<&str> = self.of(kind).map(|object| object["metadata"]["name"].as_str().unwrap()).collect();
        names.sort_unstable();
        names
    }

    /// The one of a kind and a name.
    pub(crate) fn one(&self, kind: &str, name: &str) -> &Value {
        let mut found = self.of(kind).filter(|object| object["metadata"]["name"] == name);
        let one = found.next().unwrap_or_else(|| panic!("no {kind} {name}, but {:?}", self.names(kind)));
        assert!(found.next().is_none(), "{kind} {name} stands twice");
        one
    }

    /// What runs pods, each with the template of its pods.
    pub(crate) fn workloads(&self) -> impl Iterator<Item = (&Value, &Value)> {
        let runs = |object: &&Value| ["Deployment", "StatefulSet"].iter().any(|kind| object["kind"] == *kind);
        self.0.iter().filter(runs).map(|object| (object, &object["spec"]["template"]))
    }
}

/// Every container of a pod's template.
pub(crate) fn containers(template: &Value) -> &[Value] {
    assert_eq!(template["spec"]["initContainers"], Value::Null, "whoever adds one has it tested here");
    template["spec"]["containers"].as_array().unwrap()
}
