//! What is new in a status: how soon it must be written, and how much it tells.

use crds::endpoint::{DeliveryStatus, EndpointStatus};
use crds::pool::{DispatcherPoolStatus, PoolLoadStatus};

use crate::facts;

/// How urgent a status is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusChange {
    /// Conditions, or what follows from the spec: written at once.
    Conditions,
    /// The first conditions of an object that is about to be in effect: written if that takes longer than usual. Until
    /// then it says by its definition that it is pending.
    Beginning,
    /// Nothing but facts: written when the budget allows.
    Facts {
        /// By how many steps of their rounding the facts changed, in all.
        steps: u16,
    },
}

impl StatusChange {
    /// The stable name of the class.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Conditions | Self::Beginning => "conditions",
            Self::Facts { .. } => "facts",
        }
    }

    /// Whether it is more than facts.
    pub(crate) const fn is_of_conditions(self) -> bool {
        !matches!(self, Self::Facts { .. })
    }

    /// What is new in an endpoint's status.
    pub(super) fn of_endpoint(present: Option<&EndpointStatus>, new: &EndpointStatus) -> Self {
        match present {
            Some(present) if (EndpointStatus { delivery: new.delivery.clone(), ..present.clone() }) == *new => {
                Self::Facts { steps: steps_between(present.delivery.as_ref(), new.delivery.as_ref()) }
            }
            _ => Self::Conditions,
        }
    }

    /// What is new in a pool's status.
    pub(super) fn of_pool(present: Option<&DispatcherPoolStatus>, new: &DispatcherPoolStatus) -> Self {
        match present {
            Some(present) if (DispatcherPoolStatus { load: new.load.clone(), ..present.clone() }) == *new => {
                Self::Facts { steps: load_steps(present.load.as_ref(), new.load.as_ref()) }
            }
            _ => Self::Conditions,
        }
    }
}

fn load_steps(present: Option<&PoolLoadStatus>, new: Option<&PoolLoadStatus>) -> u16 {
    let (Some(present), Some(new)) = (present, new) else { return APPEARANCE_STEPS };
    let rate_rank = |text: &str| facts::count_rank(text.strip_suffix("/s")?);
    [
        text_steps(present.backlog.as_deref(), new.backlog.as_deref(), facts::count_rank),
        text_steps(present.open.as_deref(), new.open.as_deref(), facts::count_rank),
        text_steps(present.arriving.as_deref(), new.arriving.as_deref(), rate_rank),
        text_steps(present.delivering.as_deref(), new.delivering.as_deref(), rate_rank),
        text_steps(present.per_dispatcher.as_deref(), new.per_dispatcher.as_deref(), rate_rank),
    ]
    .into_iter()
    .fold(0, u16::saturating_add)
}

/// A fact that appears or vanishes counts as so many steps.
const APPEARANCE_STEPS: u16 = 3;
/// A status code of another hundred counts as so many steps: success became failure, or the reverse.
const OTHER_HUNDRED_STEPS: u16 = 6;

fn steps_between(present: Option<&DeliveryStatus>, new: Option<&DeliveryStatus>) -> u16 {
    let (Some(present), Some(new)) = (present, new) else { return APPEARANCE_STEPS };
    let codes = match (present.last_code, new.last_code) {
        (Some(old), Some(new)) if old == new => 0,
        (Some(old), Some(new)) if old / 100 == new / 100 => 1,
        (None, None) => 0,
        _ => OTHER_HUNDRED_STEPS,
    };
    [
        text_steps(present.success.as_deref(), new.success.as_deref(), facts::success_rank),
        text_steps(present.p95.as_deref(), new.p95.as_deref(), facts::duration_rank),
        text_steps(present.pending.as_deref(), new.pending.as_deref(), facts::count_rank),
        codes,
        u16::from(present.oldest_time != new.oldest_time),
    ]
    .into_iter()
    .fold(0, u16::saturating_add)
}

fn text_steps(present: Option<&str>, new: Option<&str>, rank: impl Fn(&str) -> Option<u16>) -> u16 {
    match (present, new) {
        (None, None) => 0,
        (Some(present), Some(new)) if present == new => 0,
        (Some(present), Some(new)) => match (rank(present), rank(new)) {
            (Some(present), Some(new)) => present.abs_diff(new).max(1),
            // A text of another release.
            _ => APPEARANCE_STEPS,
        },
        _ => APPEARANCE_STEPS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(success: &str, p95: &str, pending: &str, last_code: i32) -> EndpointStatus {
        let delivery = DeliveryStatus {
            state: Some("Delivering".into()),
            success: Some(success.into()),
            p95: Some(p95.into()),
            pending: Some(pending.into()),
            last_code: Some(last_code),
            ..DeliveryStatus::default()
        };
        EndpointStatus { observed_generation: Some(1), delivery: Some(delivery), ..EndpointStatus::default() }
    }

    #[test]
    fn facts_alone_count_their_steps() {
        let present = delivery("100%", "200ms", "~10k", 200);
        for (new, steps) in [
            (delivery("99.9%", "200ms", "~10k", 200), 1),
            (delivery("99%", "200ms", "~10k", 200), 3),
            (delivery("100%", "500ms", "~10k", 200), 1),
            (delivery("100%", "2s", "~10k", 200), 3),
            (delivery("100%", "200ms", "9", 200), 10),
            (delivery("100%", "200ms", "~10k", 204), 1),
            (delivery("0%", "200ms", "~10k", 503), 24),
            (delivery("?", "200ms", "~10k", 200), 3),
        ] {
            let change = StatusChange::of_endpoint(Some(&present), &new);
            assert_eq!(change, StatusChange::Facts { steps }, "{:?}", new.delivery);
        }
    }

    #[test]
    fn anything_else_is_written_at_once() {
        let present = delivery("100%", "200ms", "~10k", 200);
        let other = EndpointStatus { host: Some("example.com".into()), ..delivery("99%", "200ms", "~10k", 200) };
        assert_eq!(StatusChange::of_endpoint(Some(&present), &other), StatusChange::Conditions);
        assert_eq!(StatusChange::of_endpoint(None, &present), StatusChange::Conditions);
    }
}
