//! `Endpoint`: where to deliver, and how deliveries behave there.
#![expect(unreachable_pub, reason = "the schema derive repeats every struct inside a function")]
#![expect(clippy::duplicated_attributes, reason = "every printed column has a type")]

mod policy;
mod request;
mod status;
mod tls;

pub use policy::{BodyFormat, CircuitBreaker, RateLimit, Retry, RetryType};
pub use request::{Auth, AuthType, Header, ObjectRef, SecretKeyRef, Signing, SigningScheme, ValueFrom};
pub use status::{DeliveryStatus, EndpointStatus};
pub use tls::Tls;

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::limits;

/// Where to deliver, and how deliveries behave there.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "harborhook.dev",
    version = "v1alpha1",
    kind = "Endpoint",
    plural = "hookendpoints",
    singular = "hookendpoint",
    shortname = "hep",
    category = "hooks",
    namespaced,
    status = "EndpointStatus",
    derive = "PartialEq",
    doc = "An HTTP endpoint that signed events are delivered to.",
    selectable = ".spec.recipient",
    selectable = ".status.delivery.state",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(
        name = "Delivery",
        type_ = "string",
        json_path = ".status.delivery.state",
        description = "Reason of the Delivering condition"
    ),
    printcolumn(
        name = "Success",
        type_ = "string",
        json_path = ".status.delivery.success",
        description = "Attempts that succeeded in the last 5 minutes"
    ),
    printcolumn(
        name = "P95",
        type_ = "string",
        json_path = ".status.delivery.p95",
        description = "95th percentile of the duration of an attempt"
    ),
    printcolumn(
        name = "Pending",
        type_ = "string",
        json_path = ".status.delivery.pending",
        description = "Deliveries that wait, rounded"
    ),
    printcolumn(
        name = "Oldest",
        type_ = "date",
        json_path = ".status.delivery.oldestTime",
        description = "Age of the oldest delivery that waits"
    ),
    printcolumn(
        name = "Last-Code",
        type_ = "integer",
        json_path = ".status.delivery.lastCode",
        description = "Status code of the last response"
    ),
    printcolumn(name = "Host", type_ = "string", json_path = ".status.host"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(
    validation = Rule::new("has(self.url) != has(self.urlFrom)").message("set exactly one of url and urlFrom"),
    validation = Rule::new("!has(self.auth) || !has(self.headers) || !self.headers.exists(header, header.name.lowerAscii() == 'authorization')")
        .message("a header named Authorization cannot be combined with auth, which sets it"),
    validation = Rule::new("!has(self.tls) || !has(self.url) || self.url.startsWith('https://')")
        .message("must begin with https:// for tls to have an effect").field_path(".url")
)]
#[serde(rename_all = "camelCase")]
pub struct EndpointSpec {
    /// Absolute `http` or `https` URL that receives `POST` requests; the installation's policy usually allows `https`
    /// only. Default: none; set either this or `urlFrom`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = limits::URL_LENGTH_MAX))]
    #[x_kube(
        validation = Rule::new("self.matches('^https?://[^/?#]') && self.matches('^[\\\\x21-\\\\x7e]+$') && isURL(self)")
            .message("must be an absolute URL in ASCII that begins with https:// or http://"),
        validation = Rule::new("!self.matches('^[A-Za-z]+://[^/?#]*@')")
            .message("must not contain a user name or password; use auth"),
        validation = Rule::new("!self.contains('#')").message("must not contain a fragment")
    )]
    pub url: Option<String>,
    /// The URL from a Secret, for URLs that are themselves a secret. Default: none; set either this or `url`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url_from: Option<ValueFrom>,
    /// Whose events the endpoint receives: exactly the events that name this recipient, or with `*` all events. Default:
    /// none, the endpoint receives the events that name no recipient.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = limits::RECIPIENT_LENGTH_MAX))]
    #[x_kube(validation = Rule::new("self.matches('^[\\\\x21-\\\\x7e]*$')")
        .message("must be printable ASCII without spaces"))]
    pub recipient: Option<String>,
    /// For people: what the endpoint is, who runs it. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::DESCRIPTION_LENGTH_MAX))]
    pub description: Option<String>,
    /// How requests are signed. Default: scheme `StandardWebhooks` with a key that the controller makes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signing: Option<Signing>,
    /// Further headers of every request. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limits::HEADERS_MAX), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    #[x_kube(validation = Rule::new("self.all(one, self.exists_one(other, other.name.lowerAscii() == one.name.lowerAscii()))")
        .message("header names must be unique; upper and lower case are the same"))]
    pub headers: Vec<Header>,
    /// Credentials sent in the `Authorization` header. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<Auth>,
    /// Whom to trust and who to be in TLS. Default: the system's authorities, and no client certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// Seconds that a whole exchange may take: connecting, the request and the response with its body. Default: 15.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = limits::TIMEOUT_SECONDS_MAX))]
    pub timeout_seconds: Option<i32>,
    /// When a failed delivery is tried again. Default: see its fields.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// Most attempts in a time. A delivery above the rate waits; that is not an attempt. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
    /// Most requests in flight at once. Default: 32.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = limits::MAX_IN_FLIGHT_MAX))]
    pub max_in_flight: Option<i32>,
    /// When to stop trying for a while. Default: see its fields.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub circuit_breaker: Option<CircuitBreaker>,
    /// Seconds of nothing but failures after which the endpoint is disabled. Default: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = limits::DISABLE_AFTER_SECONDS_MIN, max = limits::DISABLE_AFTER_SECONDS_MAX))]
    pub disable_after_failing_for_seconds: Option<i32>,
    /// What the request body is. Default: `Payload`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<BodyFormat>,
    /// The pool whose dispatchers deliver to this endpoint. Default: the pool named `default`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool_ref: Option<ObjectRef>,
    /// Holds what waits, and what comes, until it is false again. Takes effect even while the rest of the spec is
    /// invalid. Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspend: bool,
}
