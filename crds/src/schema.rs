//! Schemas that a derive cannot express: limits and rules on the items of lists and the values of maps.

use schemars::{Schema, SchemaGenerator, json_schema};

use crate::limits;

/// `meta/v1` conditions, one of each type, with the bounds that Kubernetes gives them.
pub(crate) fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": limits::CONDITIONS_MAX,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["lastTransitionTime", "message", "reason", "status", "type"],
            "properties": {
                "type": {"type": "string", "minLength": 1, "maxLength": 316},
                "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
                "observedGeneration": {"type": "integer", "format": "int64", "minimum": -1},
                "lastTransitionTime": {"type": "string", "format": "date-time"},
                "reason": {"type": "string", "minLength": 1, "maxLength": 1024},
                "message": {"type": "string", "maxLength": 32768},
            },
        },
    })
}

/// Event types or patterns, each checked on its own, so that a problem names the one that is wrong.
pub(crate) fn event_types(_: &mut SchemaGenerator) -> Schema {
    let more_segments = limits::EVENT_TYPE_SEGMENTS_MAX - 1;
    let rule = format!(
        "self == '**' || self.matches('^[A-Za-z0-9_/:-]+([.][A-Za-z0-9_/:-]+){{0,{more_segments}}}$') || \
         self.matches('^([A-Za-z0-9_/:-]+[.]){{1,{more_segments}}}[*][*]?$')"
    );
    json_schema!({
        "type": "array",
        "minItems": 1,
        "maxItems": limits::EVENT_TYPES_MAX,
        "x-kubernetes-list-type": "set",
        "items": {
            "type": "string",
            "minLength": 1,
            "maxLength": limits::EVENT_TYPE_LENGTH_MAX,
            "x-kubernetes-validations": [{
                "rule": rule,
                "message": "must be an event type such as order.created, or a pattern: order.* (exactly one more \
                            segment), order.** (one or more) or ** (all); at most 16 segments of \
                            letters, digits, _, -, / and :",
            }],
        },
    })
}

/// Labels that must all be equal. Empty is refused: it would select everything.
pub(crate) fn match_labels(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "minProperties": 1,
        "maxProperties": limits::SELECTOR_LABELS_MAX,
        "additionalProperties": {"type": "string", "maxLength": limits::LABEL_VALUE_LENGTH_MAX},
    })
}

/// Labels that a node must have. None may be asked for: that replaces what the default pool asks for.
pub(crate) fn node_selector(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": limits::NODE_SELECTOR_LABELS_MAX,
        "additionalProperties": {"type": "string", "maxLength": limits::LABEL_VALUE_LENGTH_MAX},
    })
}

/// Quantities by the name of their resource, each as Kubernetes writes them.
pub(crate) fn quantities(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": limits::QUANTITIES_MAX,
        "additionalProperties": {
            "type": "string",
            "minLength": 1,
            "maxLength": limits::QUANTITY_LENGTH_MAX,
            "x-kubernetes-validations": [{
                "rule": "self.matches('^([0-9]+([.][0-9]*)?|[.][0-9]+)([numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]+)?$')",
                "message": "must be a quantity such as 500m, 2 or 256Mi",
            }],
        },
    })
}

/// Scopes of an access token, each a scope-token of RFC 6749, 3.3.
pub(crate) fn scopes(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": limits::SCOPES_MAX,
        "x-kubernetes-list-type": "set",
        "items": {
            "type": "string",
            "minLength": 1,
            "maxLength": limits::SCOPE_LENGTH_MAX,
            "x-kubernetes-validations": [{
                "rule": "self.matches('^[\\\\x21\\\\x23-\\\\x5b\\\\x5d-\\\\x7e]*$')",
                "message": "must be one scope: printable ASCII without spaces, quotation marks and backslashes",
            }],
        },
    })
}

/// Explicit retry delays.
pub(crate) fn schedule_seconds(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "minItems": 1,
        "maxItems": limits::RETRY_SCHEDULE_ENTRIES_MAX,
        "x-kubernetes-list-type": "atomic",
        "items": {
            "type": "integer",
            "format": "int32",
            "minimum": 1,
            "maximum": limits::RETRY_DELAY_SECONDS_MAX,
        },
    })
}
