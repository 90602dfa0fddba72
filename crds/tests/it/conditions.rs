use std::collections::BTreeSet;

use crds::Kind;
use crds::condition::{ConditionStatus, ConditionType, Reason};

#[test]
fn every_reason_belongs_to_a_type_and_has_its_own_word() {
    let used: BTreeSet<Reason> = Kind::ALL
        .into_iter()
        .flat_map(|kind| ConditionType::ALL.into_iter().flat_map(move |type_| type_.reasons(kind)))
        .copied()
        .collect();
    assert_eq!(used, BTreeSet::from(Reason::ALL));
    let words: BTreeSet<&str> = Reason::ALL.map(Reason::as_str).into();
    assert_eq!(words.len(), Reason::ALL.len());
}

#[test]
fn words_are_what_kubernetes_accepts() {
    let words =
        Reason::ALL.map(Reason::as_str).into_iter().chain(ConditionType::ALL.map(ConditionType::as_str)).chain(
            [ConditionStatus::True, ConditionStatus::False, ConditionStatus::Unknown].map(ConditionStatus::as_str),
        );
    for word in words {
        assert!(word.starts_with(|first: char| first.is_ascii_uppercase()), "{word}");
        assert!(word.chars().all(|letter| letter.is_ascii_alphanumeric()), "{word}");
    }
}

#[test]
fn a_stalled_resource_is_never_one_that_heals_by_itself() {
    for kind in Kind::ALL {
        let ready = ConditionType::Ready.reasons(kind);
        let stalled = ConditionType::Stalled.reasons(kind);
        assert!(stalled.iter().all(|reason| ready.contains(reason)), "{kind:?}");
        assert!(ConditionType::ResolvedRefs.reasons(kind).iter().all(|reason| !stalled.contains(reason)), "{kind:?}");
    }
}
