//! Between a `coordination/v1` Lease and what the protocol knows of it.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::core::ObjectMeta;

use super::state::{Holder, Observed, Record};

/// Annotation that tells one run of a process from another under the same name.
const INSTANCE_ANNOTATION: &str = "harborhook.dev/instance";

/// What a Lease says. Whatever is wrong with it, it has a holder unless it clearly has none.
pub(super) fn observed(lease: Option<&Lease>) -> Observed {
    let Some(lease) = lease else { return Observed::Absent };
    let spec = lease.spec.as_ref();
    let identity = spec.and_then(|spec| spec.holder_identity.clone()).filter(|identity| !identity.is_empty());
    let annotations = lease.metadata.annotations.as_ref();
    let instance = annotations.and_then(|annotations| annotations.get(INSTANCE_ANNOTATION)).cloned();
    let number = |number: Option<i32>| number.and_then(|number| u64::try_from(number).ok()).unwrap_or_default();
    Observed::Present {
        version: lease.metadata.resource_version.clone().unwrap_or_default(),
        record: Record {
            holder: identity.map(|identity| Holder { identity, instance: instance.unwrap_or_default() }),
            duration: Duration::from_secs(number(spec.and_then(|spec| spec.lease_duration_seconds))),
            transitions: number(spec.and_then(|spec| spec.lease_transitions)),
        },
    }
}

/// The Lease that a record makes of the present one, with all that others put into it. `now_unix_ms` is for people: no
/// elector compares it.
pub(super) fn lease(
    present: Option<&Lease>,
    name: &str,
    version: Option<&str>,
    record: &Record,
    now_unix_ms: u64,
) -> Lease {
    let mut lease = present.cloned().unwrap_or_default();
    let metadata = std::mem::take(&mut lease.metadata);
    let mut annotations = metadata.annotations.unwrap_or_default();
    match &record.holder {
        Some(holder) => drop(annotations.insert(INSTANCE_ANNOTATION.to_owned(), holder.instance.clone())),
        None => drop(annotations.remove(INSTANCE_ANNOTATION)),
    }
    lease.metadata = ObjectMeta {
        name: Some(name.to_owned()),
        resource_version: version.map(str::to_owned),
        annotations: Some(annotations),
        managed_fields: None,
        ..metadata
    };
    let spec = lease.spec.take().unwrap_or_default();
    let now = MicroTime(milliseconds(now_unix_ms));
    let transitions = i32::try_from(record.transitions).unwrap_or(i32::MAX);
    let is_same_term = spec.lease_transitions == Some(transitions) && present.is_some();
    lease.spec = Some(LeaseSpec {
        holder_identity: Some(record.holder.as_ref().map_or_else(String::new, |holder| holder.identity.clone())),
        lease_duration_seconds: Some(whole_seconds(record.duration)),
        lease_transitions: Some(transitions),
        acquire_time: spec.acquire_time.clone().filter(|_| is_same_term).or_else(|| Some(now.clone())),
        renew_time: Some(now),
        ..spec
    });
    lease
}

/// Rounded up, and at least one: an API server takes no other.
fn whole_seconds(duration: Duration) -> i32 {
    let seconds = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    i32::try_from(seconds.max(1)).unwrap_or(i32::MAX)
}

fn milliseconds(unix_ms: u64) -> Timestamp {
    i64::try_from(unix_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok()).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(holder: Option<(&str, &str)>) -> Record {
        let holder = holder.map(|(identity, instance)| Holder { identity: identity.into(), instance: instance.into() });
        Record { holder, duration: Duration::from_secs(15), transitions: 3 }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for record in [record(Some(("pod-a", "run-1"))), record(None)] {
            let mut written = lease(None, "harborhook-operator", None, &record, 1_700_000_000_123);
            assert_eq!(written.metadata.resource_version, None);
            written.metadata.resource_version = Some("7".into());
            assert_eq!(observed(Some(&written)), Observed::Present { version: "7".into(), record });
        }
        assert_eq!(observed(None), Observed::Absent);
    }

    #[test]
    fn what_others_put_into_it_stays_and_a_term_keeps_its_beginning() {
        let mut present = lease(None, "l", None, &record(Some(("pod-a", "run-1"))), 1_000);
        present.metadata.labels = Some([("team".to_owned(), "a".to_owned())].into());
        let renewed = lease(Some(&present), "l", Some("7"), &record(Some(("pod-a", "run-1"))), 2_000);
        assert_eq!(renewed.metadata.labels, present.metadata.labels);
        assert_eq!(renewed.metadata.resource_version.as_deref(), Some("7"));
        let (before, after) = (present.spec.clone().unwrap(), renewed.spec.unwrap());
        assert_eq!(after.acquire_time, before.acquire_time);
        assert_ne!(after.renew_time, before.renew_time);
        let taken = Record { transitions: 4, ..record(Some(("pod-b", "run-2"))) };
        let taken = lease(Some(&present), "l", Some("8"), &taken, 3_000).spec.unwrap();
        assert_ne!(taken.acquire_time, before.acquire_time);
    }

    #[test]
    fn a_lease_that_says_nothing_is_free() {
        let Observed::Present { record, .. } = observed(Some(&Lease::default())) else { panic!("it is there") };
        assert_eq!(record, Record { holder: None, duration: Duration::ZERO, transitions: 0 });
    }

    #[test]
    fn durations_are_rounded_up_to_whole_seconds() {
        for (milliseconds, seconds) in [(0, 1), (1, 1), (1_000, 1), (1_001, 2), (15_000, 15)] {
            assert_eq!(whole_seconds(Duration::from_millis(milliseconds)), seconds);
        }
    }
}
