//! Changes the objects of pools.

use dispatcher_core::limits::{API_CALL_DEADLINE, POOL_PODS_READ_MAX};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::{NamespaceResourceScope, Resource as K8sResource};
use kube::api::{ListParams, Patch, PatchParams};
use kube::core::ObjectMeta;
use kube::{Api, Client};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::cluster::FIELD_MANAGER;
use crate::cluster::failure::{ApiFailure, FailureClass, within};
use crate::plan::pool::trouble::trouble_of;
use crate::plan::pool::{POOL_LABEL, PodTrouble, PoolChange, Scale};

/// Applies objects, those first without which the others are of no use.
pub(super) async fn apply(client: &Client, namespace: &str, change: &PoolChange) -> Result<(), ApiFailure> {
    apply_object(client, namespace, change.deployment.as_ref()).await?;
    apply_object(client, namespace, change.disruption_budget.as_ref()).await?;
    apply_object(client, namespace, change.service.as_ref()).await
}

/// Applies an object as a whole: fields that we applied before and do not any more are removed, and what somebody else has
/// made of ours is taken back. An object that is somebody else's is left alone.
async fn apply_object<K>(client: &Client, namespace: &str, wanted: Option<&K>) -> Result<(), ApiFailure>
where
    K: K8sResource<Scope = NamespaceResourceScope>
        + kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Serialize
        + DeserializeOwned
        + Clone
        + std::fmt::Debug,
{
    let Some(wanted) = wanted else { return Ok(()) };
    let name = wanted.meta().name.as_deref().unwrap_or_default();
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let present = within(API_CALL_DEADLINE, api.get_metadata_opt(name)).await?;
    if present.is_some_and(|present| !has_same_owner(&present.metadata, wanted.meta())) {
        let kind = K::KIND;
        let message = format!(
            "there is a {kind} named {name} that does not belong to this pool; remove it, or give the pool another name"
        );
        return Err(ApiFailure { class: FailureClass::Exists, message });
    }
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    within(API_CALL_DEADLINE, api.patch(name, &parameters, &Patch::Apply(wanted))).await.map(drop)
}

fn has_same_owner(present: &ObjectMeta, wanted: &ObjectMeta) -> bool {
    let owners = |metadata: &ObjectMeta| -> Vec<String> {
        metadata.owner_references.iter().flatten().map(|owner| owner.uid.clone()).collect()
    };
    let present = owners(present);
    owners(wanted).iter().all(|owner| present.contains(owner))
}

/// Sets a number of replicas.
pub(super) async fn scale(client: &Client, namespace: &str, scale: &Scale) -> Result<(), ApiFailure> {
    let api: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    let patch = Patch::Merge(json!({"spec": {"replicas": scale.replicas}}));
    within(API_CALL_DEADLINE, api.patch_scale(&scale.deployment, &parameters, &patch)).await.map(drop)
}

/// Why pods of a pool do not start; `None` if nothing is wrong with them.
pub(super) async fn pod_trouble(
    client: &Client,
    namespace: &str,
    pool: &str,
    now_unix_ms: u64,
) -> Result<Option<PodTrouble>, ApiFailure> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let parameters = ListParams::default().labels(&format!("{POOL_LABEL}={pool}")).limit(POOL_PODS_READ_MAX);
    let pods = within(API_CALL_DEADLINE, api.list(&parameters)).await?;
    Ok(trouble_of(&pods.items, now_unix_ms))
}
