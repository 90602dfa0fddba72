//! The request that writes a status.

use std::hash::{DefaultHasher, Hash, Hasher};

use crds::API_VERSION;
use http::header::{ACCEPT, CONTENT_TYPE};
use serde_json::{Value, json};

use crate::cluster::FIELD_MANAGER;
use crate::plan::{ObjectStatus, StatusBody};

/// Asks for the object without its spec and status: nobody reads the answer.
const METADATA_ONLY: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

/// Fields that say when something was found out, not what.
const TIMES: [&str; 2] = ["lastTransitionTime", "measuredTime"];

/// Replaces the whole status, whoever wrote the present one.
///
/// A JSON patch (RFC 6902): unlike a merge patch it removes what is no longer there, and unlike an apply it also removes
/// what another field manager put there.
pub(super) fn request(status: &ObjectStatus) -> Result<http::Request<Vec<u8>>, kube::Error> {
    let ObjectStatus { namespace, name, body, .. } = status;
    let plural = body.kind().plural();
    let uri = format!("/apis/{API_VERSION}/namespaces/{namespace}/{plural}/{name}/status?fieldManager={FIELD_MANAGER}");
    let patch = json!([{"op": "add", "path": "/status", "value": body}]);
    http::Request::patch(uri)
        .header(ACCEPT, METADATA_ONLY)
        .header(CONTENT_TYPE, "application/json-patch+json")
        .body(serde_json::to_vec(&patch).map_err(kube::Error::SerdeError)?)
        .map_err(kube::Error::HttpError)
}

/// Tells statuses apart by what they say. Times do not count: a plan that does not know yet of the last write gives the
/// same conditions later times.
pub(super) fn digest(body: &StatusBody) -> u64 {
    let mut value = serde_json::to_value(body).unwrap_or_default();
    remove_times(&mut value);
    let mut hasher = DefaultHasher::new();
    value.to_string().hash(&mut hasher);
    hasher.finish()
}

fn remove_times(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| !TIMES.contains(&name.as_str()));
            fields.values_mut().for_each(remove_times);
        }
        Value::Array(items) => items.iter_mut().for_each(remove_times),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use crds::Kind;
    use crds::condition::{ConditionStatus, ConditionType, Reason};
    use crds::endpoint::{DeliveryStatus, EndpointStatus};

    use super::*;
    use crate::conditions::{Conditions, time};
    use crate::plan::StatusChange;

    fn body(success: &str, seconds: u64) -> StatusBody {
        let mut conditions = Conditions::new(Kind::Endpoint, &[], 3, seconds * 1000);
        conditions.set(ConditionType::Ready, ConditionStatus::True, Reason::Programmed, "In effect");
        let delivery = DeliveryStatus {
            success: Some(success.into()),
            measured_time: Some(time(seconds * 1000)),
            ..DeliveryStatus::default()
        };
        StatusBody::Endpoint(EndpointStatus {
            observed_generation: Some(3),
            conditions: conditions.finish(),
            delivery: Some(delivery),
            host: None,
        })
    }

    #[test]
    fn the_request_replaces_the_whole_status() {
        let (namespace, name) = ("shop".to_owned(), "e".to_owned());
        let status = ObjectStatus {
            namespace,
            name,
            body: body("100%", 60),
            change: StatusChange::Conditions,
            events: Vec::new(),
        };
        let request = request(&status).unwrap();
        assert_eq!(
            request.uri(),
            "/apis/harborhook.dev/v1alpha1/namespaces/shop/hookendpoints/e/status?fieldManager=harborhook"
        );
        assert_eq!(request.headers()[CONTENT_TYPE], "application/json-patch+json");
        let patch: Value = serde_json::from_slice(request.body()).unwrap();
        let expected = json!([{"op": "add", "path": "/status", "value": {
            "observedGeneration": 3,
            "conditions": [{
                "type": "Ready", "status": "True", "reason": "Programmed", "message": "In effect",
                "observedGeneration": 3, "lastTransitionTime": "1970-01-01T00:01:00Z",
            }],
            "delivery": {"success": "100%", "measuredTime": "1970-01-01T00:01:00Z"},
        }}]);
        assert_eq!(patch, expected);
    }

    #[test]
    fn times_alone_make_no_other_status() {
        assert_eq!(digest(&body("100%", 60)), digest(&body("100%", 61)));
        assert_ne!(digest(&body("100%", 60)), digest(&body("99.9%", 60)));
    }
}
