//! What the operator's account may, asked of a real authorizer.

use serde_json::json;
use testbed::{Kubectl, TestNamespace};

use super::installed::Setting;

const ROLES: [&str; 5] = ["Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding", "ServiceAccount"];

/// Asks whether somebody may.
async fn can(kubectl: &Kubectl, who: &str, what: &str) -> bool {
    let arguments = ["auth", "can-i", "--quiet", "--as", who].into_iter().chain(what.split(' '));
    kubectl.output(arguments).await.unwrap().status.success()
}

#[tokio::test]
async fn the_operators_account_may_what_it_does_and_nothing_else() {
    let Some(setting) = Setting::start(&[]).await else { return };
    let tenant = setting.cluster.kubectl().namespace("chart-tenant").await.unwrap();
    let other = setting.cluster.kubectl().namespace("chart-other").await.unwrap();
    let values = json!({
        "postgres": {"existingSecret": "pg"}, "rabbitmq": {"existingSecret": "mq"},
        "tenants": [{"namespace": tenant.name(), "secretNames": ["billing-hook"]}],
    });
    let _installed = setting.install(&values, &ROLES).await;
    let account =
        |name: &str| format!("system:serviceaccount:{}:{}-{name}", setting.namespace.name(), setting.release());
    let operator = account("operator");
    let lease = format!("{}-operator", setting.release());
    let [own, tenant, other] = [&setting.namespace, &tenant, &other].map(TestNamespace::kubectl);
    for (kubectl, allowed) in [
        (
            other,
            vec![
                "list hookendpoints.harborhook.dev".to_owned(),
                "watch hooksubscriptions.harborhook.dev".to_owned(),
                "patch hookendpoints.harborhook.dev --subresource=status".to_owned(),
                "create events.events.k8s.io".to_owned(),
                "watch namespaces".to_owned(),
            ],
        ),
        (tenant, vec!["get secrets/billing-hook".to_owned()]),
        (
            own,
            vec![
                format!("update leases.coordination.k8s.io/{lease}"),
                "patch deployments.apps".to_owned(),
                "patch deployments.apps --subresource=scale".to_owned(),
                "create poddisruptionbudgets.policy".to_owned(),
            ],
        ),
    ] {
        for what in allowed {
            assert!(can(kubectl, &operator, &what).await, "it may not {what}");
        }
    }
    for (kubectl, refused) in [
        (other, vec!["get secrets/billing-hook", "list secrets", "patch deployments.apps"]),
        (tenant, vec!["get secrets/another", "list secrets", "create secrets", "update hookendpoints.harborhook.dev"]),
        (
            own,
            vec![
                "get secrets/pg",
                "update leases.coordination.k8s.io/another",
                "delete deployments.apps",
                "create pods",
            ],
        ),
    ] {
        for what in refused {
            assert!(!can(kubectl, &operator, what).await, "it may {what}");
        }
    }
    for name in ["ingest", "dispatcher"] {
        for what in ["list hookendpoints.harborhook.dev", "get secrets/pg", "get pods"] {
            assert!(!can(own, &account(name), what).await, "{name} may {what}");
        }
    }
}

#[tokio::test]
async fn a_secret_of_another_namespace_is_refused_to_the_operators_account() {
    let Some(setting) = Setting::start(&[]).await else { return };
    let tenant = setting.cluster.kubectl().namespace("chart-tenant").await.unwrap();
    let other = setting.cluster.kubectl().namespace("chart-other").await.unwrap();
    let values = json!({"tenants": [{"namespace": tenant.name(), "secretNames": ["hook"]}]});
    let _installed = setting.install(&values, &ROLES).await;
    let operator = format!("system:serviceaccount:{}:{}-operator", setting.namespace.name(), setting.release());
    for namespace in [&tenant, &other] {
        namespace.kubectl().run(["create", "secret", "generic", "hook", "--from-literal=key=value"]).await.unwrap();
    }
    let read = |kubectl: &Kubectl| kubectl.command(["get", "secret", "hook", "--as", operator.as_str()]).output();
    let (own, foreign) = (read(tenant.kubectl()).await.unwrap(), read(other.kubectl()).await.unwrap());
    assert!(own.status.success(), "{}", String::from_utf8_lossy(&own.stderr));
    let told = String::from_utf8_lossy(&foreign.stderr).into_owned();
    assert!(
        !foreign.status.success() && told.contains("(Forbidden)") && told.contains("cannot get resource"),
        "{told}"
    );
}
