//! Which of a platform's customers an event or an endpoint belongs to.

use serde::{Deserialize, Serialize};

/// Whose events an endpoint receives. Equality, fail closed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub enum RecipientRule {
    /// Only events that name no recipient.
    #[default]
    Unaddressed,
    /// Only events that name exactly this recipient.
    Exactly(String),
    /// All events, whatever recipient they name: a platform's own audit sink (`"*"`).
    Any,
}

impl RecipientRule {
    /// Reads `Endpoint.spec.recipient`.
    pub fn from_spec(recipient: Option<&str>) -> Self {
        match recipient {
            None => Self::Unaddressed,
            Some("*") => Self::Any,
            Some(name) => Self::Exactly(name.to_owned()),
        }
    }

    /// Whether an event with this recipient may reach the endpoint.
    pub fn admits(&self, event_recipient: Option<&str>) -> bool {
        match self {
            Self::Any => true,
            Self::Unaddressed => event_recipient.is_none(),
            Self::Exactly(name) => event_recipient == Some(name.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipients_fail_closed() {
        for (rule, event, admitted) in [
            (None, None, true),
            (None, Some("acme"), false),
            (Some("acme"), None, false),
            (Some("acme"), Some("acme"), true),
            (Some("acme"), Some("Acme"), false),
            (Some("*"), None, true),
            (Some("*"), Some("acme"), true),
        ] {
            assert_eq!(RecipientRule::from_spec(rule).admits(event), admitted, "{rule:?} {event:?}");
        }
    }
}
