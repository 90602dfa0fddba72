//! `Subscription`: what to deliver, and to which endpoints.
#![expect(unreachable_pub, reason = "the schema derive repeats every struct inside a function")]
#![expect(clippy::duplicated_attributes, reason = "every printed column has a type")]

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{endpoint::ObjectRef, limits, schema};

/// Which events go to which endpoints.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "harborhook.dev",
    version = "v1alpha1",
    kind = "Subscription",
    plural = "hooksubscriptions",
    singular = "hooksubscription",
    shortname = "hsub",
    category = "hooks",
    namespaced,
    status = "SubscriptionStatus",
    derive = "PartialEq",
    doc = "Which events go to which endpoints of the same namespace.",
    selectable = ".spec.endpointRef.name",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(
        name = "Endpoints",
        type_ = "integer",
        json_path = ".status.endpoints",
        description = "Endpoints that it resolves to"
    ),
    printcolumn(name = "Types", type_ = "string", json_path = ".spec.eventTypes"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(validation = Rule::new("has(self.endpointRef) != has(self.endpointSelector)")
    .message("set exactly one of endpointRef and endpointSelector"))]
#[serde(rename_all = "camelCase")]
pub struct SubscriptionSpec {
    /// The endpoint that receives the events, by name. Default: none; set either this or `endpointSelector`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint_ref: Option<ObjectRef>,
    /// The endpoints that receive the events, by label; endpoints that come later are included. Default: none; set
    /// either this or `endpointRef`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint_selector: Option<EndpointSelector>,
    /// Types of the events, of which one must match: a type such as `order.created`, or a pattern: `order.*` (exactly one
    /// more segment), `order.**` (one or more), `**` (all). Required.
    #[schemars(schema_with = "schema::event_types")]
    pub event_types: Vec<String>,
    /// CEL expression over `event` (`event.type`, `event.source`, `event.subject`, `event.recipient`, `event.id`,
    /// `event.time`, `event.data`) that must be true. Default: none, every event of the types matches.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = limits::FILTER_LENGTH_MAX))]
    pub filter: Option<String>,
    /// CEL expression over `event`, as for `filter`, whose value is sent as JSON instead of the payload, for example
    /// `{"order": event.data.id, "total": event.data.total}`. It applies when something is sent: a change of it applies to
    /// what waits. An event for which it has no value is tried again by the endpoint's retry policy. Default: none, the
    /// payload is sent as it came.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = limits::TRANSFORM_LENGTH_MAX))]
    pub transform: Option<String>,
    /// Stops matching: events that come while it is true are not delivered by this subscription, then or later. Takes
    /// effect even while the rest of the spec is invalid. Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspend: bool,
}

/// Selects endpoints of the same namespace by their labels.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointSelector {
    /// Labels that an endpoint must all have, with these values. Required.
    #[schemars(schema_with = "schema::match_labels")]
    pub match_labels: BTreeMap<String, String>,
}

/// What the controller knows about a subscription.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SubscriptionStatus {
    /// Generation of the spec that this status describes; -1 before a controller has seen the resource.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Conditions, one of each type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// How many endpoints it resolves to.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub endpoints: Option<i32>,
}
