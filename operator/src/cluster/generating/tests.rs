use super::*;
use crate::generate::{GENERATED_KEY, signing_key};
use crate::world::SecretData;

fn wanted(names: &[&str]) -> Vec<(GenerateSecret, String)> {
    let secret = |name: &&str| GenerateSecret {
        namespace: "shop".to_owned(),
        name: (*name).to_owned(),
        endpoint: "e".to_owned(),
        scheme: SigningScheme::StandardWebhooks,
    };
    names.iter().map(|name| (secret(name), "uid".to_owned())).collect()
}

fn place_of(name: &str) -> Place {
    ("shop".to_owned(), name.to_owned())
}

fn next(wishes: &mut Wishes, now: Instant) -> Option<String> {
    wishes.next(now).map(|(secret, _)| secret.name)
}

fn failure() -> ApiFailure {
    ApiFailure { class: FailureClass::Forbidden, message: "no".to_owned() }
}

#[tokio::test]
async fn what_is_being_made_and_what_failed_lately_is_passed_over() {
    let (mut wishes, now) = (Wishes::default(), Instant::now());
    wishes.want(wanted(&["a", "b"]), 0, now);
    assert_eq!(next(&mut wishes, now).as_deref(), Some("a"));
    wishes.want(wanted(&["a", "b"]), 0, now);
    assert_eq!(next(&mut wishes, now).as_deref(), Some("b"), "the first one is being made");
    wishes.record(&place_of("b"), Err(failure()), now);
    wishes.want(wanted(&["b"]), 0, now);
    assert_eq!(next(&mut wishes, now), None);
    let later = now + SECRET_RETRY_PAUSES[0];
    wishes.want(wanted(&["b"]), 0, later);
    assert_eq!(next(&mut wishes, later).as_deref(), Some("b"));
    wishes.record(&place_of("b"), Err(failure()), later);
    wishes.want(wanted(&["b"]), 0, later + SECRET_RETRY_PAUSES[0]);
    assert_eq!(next(&mut wishes, later + SECRET_RETRY_PAUSES[0]), None, "pauses grow");
}

#[tokio::test]
async fn what_was_made_is_made_again_only_for_a_plan_that_knew() {
    let (mut wishes, now) = (Wishes::default(), Instant::now());
    wishes.want(wanted(&["a", "b"]), 3, now);
    assert_eq!(next(&mut wishes, now).as_deref(), Some("a"));
    wishes.record(&place_of("a"), Ok((Made::Created, 5)), now);
    // Plans that began before take however long they take.
    let later = now + Duration::from_secs(100);
    for known in [3, 4] {
        wishes.want(wanted(&["a"]), known, later);
        assert_eq!(next(&mut wishes, later), None, "it is there, and the world of the plan did not know");
    }
    wishes.want(wanted(&["a"]), 5, later);
    assert_eq!(next(&mut wishes, later).as_deref(), Some("a"), "it was read, and is not there");
}

#[tokio::test]
async fn a_plan_that_waited_in_line_asks_no_second_time_for_what_was_made_meanwhile() {
    let (mut wishes, now) = (Wishes::default(), Instant::now());
    wishes.want(wanted(&["a"]), 3, now);
    assert_eq!(next(&mut wishes, now).as_deref(), Some("a"));
    // While it is made, another plan asks for it.
    wishes.want(wanted(&["b", "a"]), 3, now);
    assert_eq!(next(&mut wishes, now).as_deref(), Some("b"));
    wishes.record(&place_of("a"), Ok((Made::Created, 5)), now);
    assert_eq!(next(&mut wishes, now + Duration::from_secs(100)), None);
}

#[tokio::test]
async fn what_was_never_tried_comes_before_what_failed() {
    let (mut wishes, now) = (Wishes::default(), Instant::now());
    wishes.want(wanted(&["a"]), 0, now);
    assert_eq!(next(&mut wishes, now).as_deref(), Some("a"));
    wishes.record(&place_of("a"), Err(failure()), now);
    let later = now + SECRET_RETRY_PAUSES[0];
    wishes.want(wanted(&["a", "b", "c"]), 0, later);
    let order: Vec<String> = std::iter::from_fn(|| next(&mut wishes, later)).collect();
    assert_eq!(order, ["b", "c", "a"]);
}

#[tokio::test]
async fn what_fails_or_vanishes_each_time_is_told_of_and_forgotten_with_the_lead() {
    let (mut wishes, now) = (Wishes::default(), Instant::now());
    let unmade = |wishes: &Wishes, name| wishes.places.get(&place_of(name)).and_then(|attempt| attempt.unmade(None));
    wishes.want(wanted(&["a", "b", "c"]), 0, now);
    while next(&mut wishes, now).is_some() {}
    wishes.record(&place_of("a"), Err(failure()), now);
    wishes.record(&place_of("b"), Ok((Made::Created, 1)), now);
    assert_eq!(unmade(&wishes, "a"), Some(Unmade::Forbidden));
    assert_eq!(unmade(&wishes, "b"), None, "it may be read in a moment");
    let later = now + SECRET_RETRY_PAUSES[0];
    wishes.want(wanted(&["b"]), 1, later);
    assert_eq!(next(&mut wishes, later).as_deref(), Some("b"), "it was read, and is not there");
    wishes.record(&place_of("b"), Ok((Made::Created, 2)), later);
    assert_eq!(unmade(&wishes, "b"), Some(Unmade::Removed));
    wishes.clear();
    assert_eq!((unmade(&wishes, "a"), unmade(&wishes, "b")), (None, None));
    assert!(wishes.places.contains_key(&place_of("c")), "it is being made still");
}

#[tokio::test]
async fn what_is_there_and_does_not_help_is_made_again_ever_less() {
    let (mut wishes, mut now, mut known) = (Wishes::default(), Instant::now(), 0);
    for pause in SECRET_RETRY_PAUSES {
        wishes.want(wanted(&["a"]), known, now);
        assert_eq!(next(&mut wishes, now).as_deref(), Some("a"));
        known += 1;
        wishes.record(&place_of("a"), Ok((Made::Created, known)), now);
        // Until it is read nobody asks for it.
        wishes.want(Vec::new(), known, now);
        wishes.want(wanted(&["a"]), known, now);
        assert_eq!(next(&mut wishes, now), None);
        now += pause;
    }
    wishes.want(Vec::new(), known, now);
    assert!(wishes.places.is_empty(), "what helped is forgotten");
}

#[tokio::test]
async fn a_key_of_the_other_kind_that_is_not_ours_is_told_of_until_it_is_gone() {
    let (mut wishes, now) = (Wishes::default(), Instant::now());
    let key_for = |scheme| {
        let data: SecretData = [(GENERATED_KEY.to_owned(), signing_key(scheme, &[7; 32]))].into();
        SecretState::Present(data)
    };
    let (ours, other) = (key_for(SigningScheme::StandardWebhooks), key_for(SigningScheme::StandardWebhooksEd25519));
    let unmade = |wishes: &Wishes, present: &SecretState| wishes.places[&place_of("a")].unmade(Some(present));
    let mut later = now;
    for (known, expected) in [(0, None), (1, Some(Unmade::Foreign))] {
        wishes.want(wanted(&["a"]), known, later);
        assert_eq!(next(&mut wishes, later).as_deref(), Some("a"));
        wishes.record(&place_of("a"), Ok((Made::Kept, known + 1)), later);
        assert_eq!((unmade(&wishes, &other), unmade(&wishes, &ours)), (expected, None));
        later += SECRET_RETRY_PAUSES[0];
    }
    let again = later + SECRET_RETRY_PAUSES[1];
    wishes.want(wanted(&["a"]), 2, again);
    assert_eq!(next(&mut wishes, again).as_deref(), Some("a"));
    wishes.record(&place_of("a"), Err(failure()), again);
    assert_eq!(unmade(&wishes, &other), Some(Unmade::Forbidden), "ours, and it may not be written anew");
    let mut of_other_scheme = wanted(&["a"]);
    of_other_scheme[0].0.scheme = SigningScheme::StandardWebhooksEd25519;
    wishes.want(of_other_scheme, 2, again);
    assert_eq!(unmade(&wishes, &other), None, "the scheme has changed back");
}

#[tokio::test]
async fn what_became_of_the_secret_of_an_endpoint_before_says_nothing() {
    let (mut wishes, now) = (Wishes::default(), Instant::now());
    wishes.want(wanted(&["a"]), 0, now);
    assert_eq!(next(&mut wishes, now).as_deref(), Some("a"));
    wishes.record(&place_of("a"), Err(failure()), now);
    wishes.want(wanted(&["a"]), 0, now);
    assert_eq!(next(&mut wishes, now), None, "it failed just now");
    let mut of_another = wanted(&["a"]);
    of_another[0].1 = "another".to_owned();
    wishes.want(of_another, 0, now);
    assert_eq!(next(&mut wishes, now).as_deref(), Some("a"));
}
