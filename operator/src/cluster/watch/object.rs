//! From what an API server sends to what we understand. An object that is not understood still counts.

use kube::core::DynamicObject;
use serde_json::{Map, Value, json};

use super::WatchedResource;

/// Annotation in which `kubectl apply` keeps a second copy of an object.
const LAST_APPLIED_ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Longest text about what is wrong with an object.
const MESSAGE_CHARACTERS_MAX: usize = 1024;

/// An object, and what is wrong with it if its own `spec` is not understood.
pub(super) struct Understood<K> {
    pub(super) object: K,
    pub(super) malformed: Option<String>,
}

/// Reads an object. What nobody here looks at is left out: the fields' managers, and the copy that `kubectl` keeps.
pub(super) fn understand<K: WatchedResource>(object: DynamicObject) -> Option<Understood<K>> {
    let DynamicObject { mut metadata, data, .. } = object;
    metadata.managed_fields = None;
    if let Some(annotations) = &mut metadata.annotations {
        annotations.remove(LAST_APPLIED_ANNOTATION);
    }
    let Value::Object(mut fields) = data else { return None };
    fields.insert("apiVersion".to_owned(), K::api_version(&()).into());
    fields.insert("kind".to_owned(), K::kind(&()).into());
    fields.insert("metadata".to_owned(), serde_json::to_value(metadata).ok()?);
    let read = |fields: &Map<String, Value>| serde_json::from_value::<K>(Value::Object(fields.clone()));
    let error = match read(&fields) {
        Ok(object) => return Some(Understood { object, malformed: None }),
        Err(error) => error,
    };
    // A status that is not understood is written anew.
    let status = fields.remove("status");
    if let Ok(object) = read(&fields) {
        return Some(Understood { object, malformed: None });
    }
    let message = what_is_wrong(&fields, &error);
    let suspend = fields.get("spec").and_then(|spec| spec.get("suspend")).and_then(Value::as_bool);
    let mut least = K::least_spec();
    if let Some(suspend) = suspend {
        least["suspend"] = json!(suspend);
    }
    fields.insert("spec".to_owned(), least);
    let without_status = read(&fields).ok()?;
    fields.extend(status.map(|status| ("status".to_owned(), status)));
    let object = read(&fields).unwrap_or(without_status);
    Some(Understood { object, malformed: Some(message) })
}

/// All that is wrong with an object, by its fields, as admission would say it today.
fn what_is_wrong(fields: &Map<String, Value>, error: &serde_json::Error) -> String {
    let problems = crds::admission::admit(&Value::Object(fields.clone())).err().unwrap_or_default();
    let mut message =
        problems.iter().map(|problem| format!("{}: {}", problem.field, problem.message)).collect::<Vec<_>>().join("; ");
    if message.is_empty() {
        message = format!("the object is not understood: {error}");
    }
    message.chars().take(MESSAGE_CHARACTERS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use crds::{DispatcherPool, Endpoint, Replay, Subscription};

    use super::*;

    fn read<K: WatchedResource>(object: Value) -> Understood<K> {
        understand(serde_json::from_value(object).unwrap()).unwrap()
    }

    fn endpoint(spec: Value) -> Value {
        json!({
            "apiVersion": "harborhook.dev/v1alpha1", "kind": "Endpoint", "spec": spec,
            "metadata": {"name": "e", "namespace": "shop", "labels": {"team": "a"}, "generation": 3,
                "managedFields": [{"manager": "kubectl"}],
                "annotations": {LAST_APPLIED_ANNOTATION: "{}", "note": "kept"}},
            "status": {"observedGeneration": 2, "host": "example.com"},
        })
    }

    #[test]
    fn what_is_right_is_read_without_what_nobody_looks_at() {
        let Understood { object, malformed } = read::<Endpoint>(endpoint(json!({"url": "https://example.com/"})));
        assert_eq!((malformed, object.spec.url.as_deref()), (None, Some("https://example.com/")));
        assert!(object.metadata.managed_fields.is_none());
        assert_eq!(object.metadata.annotations.unwrap().into_keys().collect::<Vec<_>>(), ["note"]);
        assert_eq!(object.status.unwrap().host.as_deref(), Some("example.com"));
    }

    #[test]
    fn what_is_not_understood_is_there_all_the_same_and_says_what_is_wrong() {
        let spec = json!({"url": "https://example.com/", "timeoutSeconds": "soon", "suspend": true});
        let Understood { object, malformed } = read::<Endpoint>(endpoint(spec));
        let message = malformed.unwrap();
        assert!(message.contains("spec.timeoutSeconds"), "{message}");
        assert!(object.spec.suspend && object.spec.url.is_none());
        assert_eq!(object.metadata.generation, Some(3));
        assert_eq!(object.status.unwrap().host.as_deref(), Some("example.com"));
        for spec in [json!(null), json!([]), json!("text"), json!({"headers": {}})] {
            assert!(read::<Endpoint>(endpoint(spec.clone())).malformed.is_some(), "{spec}");
        }
    }

    #[test]
    fn a_status_that_is_not_understood_is_no_fault_of_the_spec() {
        let mut object = endpoint(json!({"url": "https://example.com/"}));
        object["status"] = json!({"conditions": "none"});
        let Understood { object, malformed } = read::<Endpoint>(object);
        assert!(malformed.is_none() && object.status.is_none());
    }

    #[test]
    fn every_kind_has_a_least_spec() {
        let object = |kind: &str| {
            json!({"apiVersion": "harborhook.dev/v1alpha1", "kind": kind, "spec": 7,
                "metadata": {"name": "x", "namespace": "shop"}})
        };
        assert!(read::<Endpoint>(object("Endpoint")).malformed.is_some());
        assert!(read::<Subscription>(object("Subscription")).malformed.is_some());
        assert!(read::<Replay>(object("Replay")).malformed.is_some());
        assert!(read::<DispatcherPool>(object("DispatcherPool")).malformed.is_some());
    }
}
