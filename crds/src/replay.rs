//! `Replay`: what to deliver again.
#![expect(unreachable_pub, reason = "the schema derive repeats every struct inside a function")]
#![expect(clippy::duplicated_attributes, reason = "every printed column has a type")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{endpoint::ObjectRef, limits, schema};

/// Which deliveries of which time to make again, and how fast.
///
/// What it asks for is fixed once it exists: a replay that has begun cannot be told what it should have been.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "harborhook.dev",
    version = "v1alpha1",
    kind = "Replay",
    plural = "hookreplays",
    singular = "hookreplay",
    shortname = "hreplay",
    category = "hooks",
    namespaced,
    status = "ReplayStatus",
    derive = "PartialEq",
    doc = "Deliveries of a past time that are made again.",
    printcolumn(
        name = "State",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason",
        description = "Reason of the Ready condition"
    ),
    printcolumn(
        name = "Matched",
        type_ = "integer",
        json_path = ".status.matched",
        description = "Deliveries found so far that are to be made again"
    ),
    printcolumn(
        name = "Queued",
        type_ = "integer",
        json_path = ".status.queued",
        description = "Of these, the ones that were started"
    ),
    printcolumn(
        name = "Delivered",
        type_ = "integer",
        json_path = ".status.delivered",
        description = "Of these, the ones that arrived"
    ),
    printcolumn(
        name = "Failed",
        type_ = "integer",
        json_path = ".status.failed",
        description = "Of these, the ones that were given up"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(
    validation = Rule::new("has(self.endpointRef) || has(self.subscriptionRef) || has(self.eventTypes)")
        .message("set at least one of endpointRef, subscriptionRef and eventTypes; eventTypes: [\"**\"] is everything"),
    validation = Rule::new("self.sinceTime < self.untilTime")
        .message("must be later than sinceTime").field_path(".untilTime"),
    validation = Rule::new("has(self.endpointRef) == has(oldSelf.endpointRef) && (!has(self.endpointRef) || self.endpointRef == oldSelf.endpointRef)")
        .message("cannot be changed; delete the replay and create another").field_path(".endpointRef"),
    validation = Rule::new("has(self.subscriptionRef) == has(oldSelf.subscriptionRef) && (!has(self.subscriptionRef) || self.subscriptionRef == oldSelf.subscriptionRef)")
        .message("cannot be changed; delete the replay and create another").field_path(".subscriptionRef"),
    validation = Rule::new("has(self.eventTypes) == has(oldSelf.eventTypes) && (!has(self.eventTypes) || self.eventTypes == oldSelf.eventTypes)")
        .message("cannot be changed; delete the replay and create another").field_path(".eventTypes"),
    validation = Rule::new("self.sinceTime == oldSelf.sinceTime")
        .message("cannot be changed; delete the replay and create another").field_path(".sinceTime"),
    validation = Rule::new("self.untilTime == oldSelf.untilTime")
        .message("cannot be changed; delete the replay and create another").field_path(".untilTime"),
    validation = Rule::new("has(self.states) == has(oldSelf.states) && (!has(self.states) || self.states == oldSelf.states)")
        .message("cannot be changed; delete the replay and create another").field_path(".states"),
    validation = Rule::new("has(self.filter) == has(oldSelf.filter) && (!has(self.filter) || self.filter == oldSelf.filter)")
        .message("cannot be changed; delete the replay and create another").field_path(".filter"),
    validation = Rule::new("(has(self.dryRun) && self.dryRun) == (has(oldSelf.dryRun) && oldSelf.dryRun)")
        .message("cannot be changed; delete the replay and create another").field_path(".dryRun")
)]
#[serde(rename_all = "camelCase")]
pub struct ReplaySpec {
    /// Only deliveries to this endpoint. Default: none; set at least one of this, `subscriptionRef` and `eventTypes`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint_ref: Option<ObjectRef>,
    /// Only deliveries by this subscription. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscription_ref: Option<ObjectRef>,
    /// Only deliveries of events of these types, of which one must match: types or patterns, as those of a Subscription.
    /// Default: none, every type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::event_types")]
    pub event_types: Vec<String>,
    /// Only events that were accepted at this time or later, in RFC 3339. Required.
    pub since_time: Time,
    /// Only events that were accepted before this time, in RFC 3339, and in any case before the replay began. Required.
    pub until_time: Time,
    /// What to make again: `Dead`, deliveries that were given up; `Delivered`, deliveries that arrived; `Missing`, events
    /// that match a subscription now and were not to be delivered for it then. Default: `Dead` alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = limits::REPLAY_STATES_MAX), extend("x-kubernetes-list-type" = "set"))]
    pub states: Vec<ReplayedState>,
    /// CEL expression over `event`, as the filter of a Subscription, that must be true too. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = limits::FILTER_LENGTH_MAX))]
    pub filter: Option<String>,
    /// Most deliveries a second that are started. May be changed while it runs. Default: 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = limits::RATE_MAX))]
    pub per_second: Option<i32>,
    /// Only counts what would be made again. Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// Starts nothing more until it is false again; what was started goes on. May be changed while it runs. Takes effect
    /// even while the rest of the spec is invalid. Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspend: bool,
}

/// What became of a delivery that is to be made again.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[schemars(inline)]
pub enum ReplayedState {
    /// It was given up.
    Dead,
    /// It arrived.
    Delivered,
    /// There never was one, although the event matches now.
    Missing,
}

/// What the controller knows about a replay. Counts are exact when they are written, and are written again when they have
/// grown enough to tell something new.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplayStatus {
    /// Generation of the spec that this status describes; -1 before a controller has seen the resource.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Conditions, one of each type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// Deliveries found so far that are to be made again.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub matched: Option<i64>,
    /// Of the matched ones, those that were started.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub queued: Option<i64>,
    /// Of the queued ones, those that arrived.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub delivered: Option<i64>,
    /// Of the queued ones, those that were given up or cancelled.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub failed: Option<i64>,
    /// How far it has come, for support: opaque. The ledger holds the place from which it goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::CURSOR_LENGTH_MAX))]
    pub cursor: Option<String>,
    /// When it began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_time: Option<Time>,
    /// When the last delivery that it started was finished.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_time: Option<Time>,
    /// When the counts were taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measured_time: Option<Time>,
}
