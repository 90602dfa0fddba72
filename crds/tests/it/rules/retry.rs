//! Rules of how an endpoint's deliveries are retried.

use serde_json::{Value, json};

use super::{Row, endpoint};

/// All of them.
pub(super) fn rows() -> Vec<Row> {
    let exponential = json!({"retry": {"type": "Exponential", "initialDelaySeconds": 5, "maxDelaySeconds": 60}});
    let linear =
        json!({"retry": {"type": "Linear", "initialDelaySeconds": 5, "stepSeconds": 5, "maxDelaySeconds": 60}});
    let fixed = json!({"retry": {"type": "Fixed", "delaySeconds": 5}});
    let schedule = json!({"retry": {"scheduleSeconds": [1, 2, 3]}});
    let growing = "belongs to the types Exponential and Linear";
    let retry = |field: &str, message, accepted: &Value, refused| {
        endpoint(&format!("spec.retry{field}"), message, accepted.clone(), json!({"retry": refused}))
    };
    vec![
        retry(
            "",
            "type Exponential needs initialDelaySeconds and maxDelaySeconds",
            &exponential,
            json!({"type": "Exponential", "initialDelaySeconds": 5}),
        ),
        retry(
            "",
            "type Linear needs initialDelaySeconds, stepSeconds and maxDelaySeconds",
            &linear,
            json!({"type": "Linear", "initialDelaySeconds": 5, "maxDelaySeconds": 60}),
        ),
        retry("", "type Fixed needs delaySeconds", &fixed, json!({"type": "Fixed"})),
        retry(".initialDelaySeconds", growing, &linear, json!({"initialDelaySeconds": 5})),
        retry(
            ".maxDelaySeconds",
            growing,
            &exponential,
            json!({"type": "Fixed", "delaySeconds": 5, "maxDelaySeconds": 60}),
        ),
        retry(
            ".stepSeconds",
            "belongs to type Linear",
            &linear,
            json!({"type": "Exponential", "initialDelaySeconds": 5, "stepSeconds": 5, "maxDelaySeconds": 60}),
        ),
        retry(".delaySeconds", "belongs to type Fixed", &fixed, json!({"type": "Schedule", "delaySeconds": 5})),
        retry(
            ".scheduleSeconds",
            "belongs to type Schedule",
            &schedule,
            json!({"type": "Fixed", "delaySeconds": 5, "scheduleSeconds": [1]}),
        ),
        retry(
            ".maxDelaySeconds",
            "must not be smaller than initialDelaySeconds",
            &exponential,
            json!({"type": "Exponential", "initialDelaySeconds": 61, "maxDelaySeconds": 60}),
        ),
    ]
}
