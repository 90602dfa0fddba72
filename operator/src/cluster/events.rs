//! Tells of transitions as Kubernetes Events (`events.k8s.io/v1`), which `kubectl describe` shows.
//!
//! They are for people and best effort: one that is refused is counted, and nothing else happens. Needs `create` and
//! `patch` on Events.

mod bounded;
mod queue;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crds::API_VERSION;
use dispatcher::clock::now_unix_ms;
use dispatcher_core::limits::{API_CALL_DEADLINE, EVENT_INSTANCE_BYTES_MAX, EVENT_NOTE_BYTES_MAX};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::{Event, EventSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::core::ObjectMeta;
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::queue::{Next, Queue, Telling};
use super::FIELD_MANAGER;
use super::failure::{ApiFailure, FailureClass, cut, within};
use super::metrics::{EventResult, OperatorMetrics};
use crate::plan::events::PlannedEvent;

/// Who reports.
const REPORTING_CONTROLLER: &str = "harborhook.dev/operator";
/// What was done when it happened.
const ACTION: &str = "Reconcile";
/// Bytes of an Event's name beyond its object's: a dot, and two numbers in hexadecimal.
const NAME_SUFFIX_BYTES_MAX: usize = 1 + 16 + 16;

/// Tells Events. Clones share what waits; one of them runs.
#[derive(Clone)]
pub struct EventWriter {
    shared: Arc<Shared>,
}

struct Shared {
    client: kube::Client,
    instance: String,
    metrics: Arc<OperatorMetrics>,
    queue: Mutex<Queue>,
    changed: Notify,
    start: Instant,
    start_unix_ms: u64,
}

impl EventWriter {
    /// Tells once it runs. `instance` is the name of this process's pod.
    pub fn new(client: kube::Client, instance: String, metrics: Arc<OperatorMetrics>) -> Self {
        let shared = Shared {
            client,
            instance: cut(instance, EVENT_INSTANCE_BYTES_MAX),
            metrics,
            queue: Mutex::new(Queue::new()),
            changed: Notify::new(),
            start: Instant::now(),
            start_unix_ms: now_unix_ms(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Takes on Events. Never blocks: too many are dropped and counted.
    pub fn tell(&self, events: Vec<PlannedEvent>) {
        if events.is_empty() {
            return;
        }
        let (now, now_unix_ms) = (self.shared.now(), now_unix_ms());
        let mut queue = self.shared.queue();
        for event in events {
            queue.tell(event, now, now_unix_ms);
        }
        drop(queue);
        self.shared.changed.notify_one();
    }

    /// Tells until it is told to stop. What waits then is not told.
    pub async fn run(self, shutdown: CancellationToken) {
        let shared = &self.shared;
        let mut troubled = false;
        loop {
            let (next, dropped) = {
                let mut queue = shared.queue();
                (queue.next(shared.now()), queue.take_dropped())
            };
            if dropped > 0 {
                shared.metrics.events_ended(EventResult::Dropped, dropped);
            }
            let work = async {
                match next {
                    Next::Tell(telling) => shared.tell(&telling, &mut troubled).await,
                    Next::Wait(until) => shared.wait(Some(until)).await,
                    Next::Idle => shared.wait(None).await,
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = work => {}
            }
        }
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    async fn wait(&self, until: Option<Duration>) {
        match until {
            Some(until) => tokio::select! {
                () = self.changed.notified() => {}
                () = tokio::time::sleep_until(self.start + until) => {}
            },
            None => self.changed.notified().await,
        }
    }

    async fn tell(&self, telling: &Telling, troubled: &mut bool) {
        let api: Api<Event> = Api::namespaced(self.client.clone(), &telling.event.namespace);
        let name = name(telling, self.start_unix_ms);
        let told = if telling.is_known {
            let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
            within(API_CALL_DEADLINE, api.patch(&name, &params, &Patch::Merge(json!({"series": series(telling)}))))
                .await
        } else {
            let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
            within(API_CALL_DEADLINE, api.create(&params, &event(telling, name, &self.instance))).await
        };
        let told = told.map(drop);
        self.queue().ended(telling, told.as_ref().copied().map_err(|failure| failure.class));
        let result = match told {
            Ok(()) if telling.is_known => EventResult::Repeated,
            Ok(()) => EventResult::Told,
            Err(failure) => {
                tell_trouble(&failure, troubled);
                EventResult::Refused
            }
        };
        self.metrics.events_ended(result, 1);
    }
}

/// Events are not worth more than a line: only a missing permission is told, once.
fn tell_trouble(failure: &ApiFailure, troubled: &mut bool) {
    let class = failure.class.as_str();
    if failure.class == FailureClass::Forbidden && !std::mem::replace(troubled, true) {
        tracing::warn!(class, "an Event was refused: {failure}; grant create and patch on events.events.k8s.io");
    } else {
        tracing::debug!(class, "an Event was refused: {failure}");
    }
}

/// The object's name, cut if need be, with a number of its own.
fn name(telling: &Telling, start_unix_ms: u64) -> String {
    let object = cut(telling.event.name.clone(), crds::limits::OBJECT_NAME_LENGTH_MAX - NAME_SUFFIX_BYTES_MAX);
    format!("{}.{start_unix_ms:x}{:04x}", object.trim_end_matches(['.', '-']), telling.number)
}

fn event(telling: &Telling, name: String, instance: &str) -> Event {
    let PlannedEvent { kind, namespace, name: object, uid, type_, reason, note } = &*telling.event;
    Event {
        metadata: ObjectMeta { name: Some(name), namespace: Some(namespace.clone()), ..ObjectMeta::default() },
        event_time: Some(micro_time(telling.last_unix_ms)),
        reporting_controller: Some(REPORTING_CONTROLLER.to_owned()),
        reporting_instance: Some(instance.to_owned()),
        action: Some(ACTION.to_owned()),
        type_: Some(type_.as_str().to_owned()),
        reason: Some(reason.as_str().to_owned()),
        note: Some(cut(note.clone(), EVENT_NOTE_BYTES_MAX)),
        regarding: Some(ObjectReference {
            api_version: Some(API_VERSION.to_owned()),
            kind: Some(kind.as_str().to_owned()),
            namespace: Some(namespace.clone()),
            name: Some(object.clone()),
            uid: Some(uid.clone()),
            ..ObjectReference::default()
        }),
        ..Event::default()
    }
}

fn series(telling: &Telling) -> EventSeries {
    EventSeries {
        count: i32::try_from(telling.count).unwrap_or(i32::MAX),
        last_observed_time: micro_time(telling.last_unix_ms),
    }
}

fn micro_time(unix_ms: u64) -> MicroTime {
    let time = i64::try_from(unix_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    MicroTime(time.unwrap_or(Timestamp::MAX))
}

#[cfg(test)]
mod tests {
    use crds::Kind;
    use crds::condition::Reason;

    use super::*;
    use crate::plan::events::EventType;

    fn telling(name: &str, note: &str) -> Telling {
        let event = PlannedEvent {
            kind: Kind::Endpoint,
            namespace: "shop".into(),
            name: name.into(),
            uid: "u-1".into(),
            type_: EventType::Warning,
            reason: Reason::SecretNotFound,
            note: note.into(),
        };
        Telling { event: event.into(), number: 3, count: 2, is_known: false, last_unix_ms: 1_700_000_000_123 }
    }

    #[test]
    fn an_event_names_its_object_so_that_describe_finds_it() {
        let telling = telling("billing", &"ö".repeat(1000));
        let event = event(&telling, name(&telling, 0x18b), "pod-a");
        assert_eq!(event.metadata.name.as_deref(), Some("billing.18b0003"));
        let note = event.note.clone().unwrap_or_default();
        assert_eq!(note.len(), EVENT_NOTE_BYTES_MAX);
        let mut json = serde_json::to_value(&event).unwrap();
        json["note"] = json!("");
        let expected = json!({
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": "billing.18b0003", "namespace": "shop"},
            "eventTime": "2023-11-14T22:13:20.123000Z",
            "reportingController": "harborhook.dev/operator",
            "reportingInstance": "pod-a",
            "action": "Reconcile",
            "type": "Warning",
            "reason": "SecretNotFound",
            "note": "",
            "regarding": {
                "apiVersion": "harborhook.dev/v1alpha1", "kind": "Endpoint",
                "namespace": "shop", "name": "billing", "uid": "u-1",
            },
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn a_long_name_leaves_room_for_the_number() {
        let telling = telling(&"a.".repeat(126), "");
        let name = name(&telling, u64::MAX);
        assert!(name.len() <= crds::limits::OBJECT_NAME_LENGTH_MAX && !name.contains(".."), "{name}");
    }
}
