//! Why pods do not start, from their own statuses.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodCondition};

use super::PodTrouble;

/// For how long no node must have taken a pod before it is told: an autoscaler of nodes needs its time, and a pod that was
/// made this moment has not been looked at.
const UNSCHEDULABLE_TOLD_AFTER: Duration = Duration::from_secs(15);
/// Why a container waits, when it will go on waiting.
const FAILING: [&str; 7] = [
    "CrashLoopBackOff",
    "ImagePullBackOff",
    "ErrImagePull",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
];

/// What keeps pods from starting: that no node takes them, or else an error that they run into. `now_unix_ms` is the time
/// in milliseconds since the Unix epoch.
pub fn trouble_of(pods: &[Pod], now_unix_ms: u64) -> Option<PodTrouble> {
    let present = || pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
    let unschedulable = present().find_map(|pod| unschedulable(pod, now_unix_ms));
    unschedulable.map(PodTrouble::Unschedulable).or_else(|| present().find_map(failing).map(PodTrouble::Failing))
}

fn unschedulable(pod: &Pod, now_unix_ms: u64) -> Option<String> {
    let conditions = pod.status.as_ref()?.conditions.as_deref()?;
    let is_refused = |condition: &&PodCondition| {
        condition.type_ == "PodScheduled"
            && condition.status == "False"
            && condition.reason.as_deref() == Some("Unschedulable")
    };
    let condition = conditions.iter().find(is_refused)?;
    let since_ms = condition.last_transition_time.as_ref().map_or(0, |time| time.0.as_millisecond());
    let age = Duration::from_millis(now_unix_ms.saturating_sub(u64::try_from(since_ms).unwrap_or_default()));
    (age >= UNSCHEDULABLE_TOLD_AFTER).then(|| condition.message.clone().unwrap_or_default())
}

fn failing(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let containers = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    containers.into_iter().find_map(|container| {
        let waiting = container.state.as_ref()?.waiting.as_ref()?;
        let reason = waiting.reason.as_deref().filter(|reason| FAILING.contains(reason))?;
        let pod = pod.metadata.name.as_deref().unwrap_or_default();
        let message = waiting.message.as_deref().unwrap_or("see its log");
        Some(format!("container {} of pod {pod}: {reason}: {message}", container.name))
    })
}
