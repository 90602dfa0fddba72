use std::time::Duration;

use dispatcher_core::redacted::Redacted;

use super::*;

fn place(name: &str) -> Place {
    ("shop".to_owned(), name.to_owned())
}

fn wanted(secrets: &[(&str, &[&str])]) -> HashMap<Place, Wanted> {
    let keys = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect();
    secrets
        .iter()
        .map(|(name, of)| (place(name), Wanted { keys: keys(of), is_referenced: true, owner: None }))
        .collect()
}

/// A Secret that is made here.
fn generated(name: &str) -> HashMap<Place, Wanted> {
    let keys = BTreeSet::from(["key".to_owned()]);
    HashMap::from([(place(name), Wanted { keys, is_referenced: false, owner: Some("uid".to_owned()) })])
}

/// Reads the one that is due now.
fn read(book: &mut Book, read: Read, now: Instant) -> bool {
    let (place, _) = book.next(now).unwrap();
    book.record(&place, read, now)
}

fn present(keys: &[&str]) -> Read {
    Read::Present(keys.iter().map(|key| ((*key).to_owned(), Redacted::new(b"value".to_vec()))).collect())
}

fn state(book: &Book, name: &str) -> Option<SecretState> {
    book.secrets().get("shop", name).cloned()
}

#[tokio::test]
async fn a_missing_secret_is_looked_for_soon_and_then_less_often() {
    let (mut book, mut now) = (Book::default(), Instant::now());
    book.want(wanted(&[("a", &["k"])]), now);
    assert!(!book.all_tried() && state(&book, "a") == Some(SecretState::Unread));
    for seconds in [1, 2, 5, 10, 20, 30, 30] {
        assert_eq!(book.next(now).unwrap().0, place("a"));
        assert_eq!(book.next(now), None, "it is being read");
        book.record(&place("a"), Read::Missing, now);
        assert!(book.all_tried() && state(&book, "a").is_none());
        assert_eq!(book.next_due(), Some(now + Duration::from_secs(seconds)));
        now += Duration::from_secs(seconds);
    }
    book.next(now).unwrap();
    assert!(book.record(&place("a"), present(&["k", "other"]), now));
    let Some(SecretState::Present(data)) = state(&book, "a") else { panic!("it is there") };
    assert_eq!(data.into_keys().collect::<Vec<_>>(), ["k"], "nothing is kept that nobody names");
    assert_eq!(book.next_due(), Some(now + SECRET_LOOK_INTERVAL));
}

#[tokio::test]
async fn a_secret_without_a_key_that_is_named_is_looked_at_as_one_that_is_missing() {
    let (mut book, now) = (Book::default(), Instant::now());
    book.want(wanted(&[("a", &["k", "l"])]), now);
    for pause in &SECRET_RETRY_PAUSES[..2] {
        book.look_again(&place("a"), now);
        book.next(now).unwrap();
        book.record(&place("a"), present(&["k"]), now);
        assert_eq!(book.next_due(), Some(now + *pause));
    }
    book.look_again(&place("a"), now);
    book.next(now).unwrap();
    book.record(&place("a"), present(&["k", "l"]), now);
    assert_eq!(book.next_due(), Some(now + SECRET_LOOK_INTERVAL));
}

#[tokio::test]
async fn what_the_api_server_does_not_say_changes_nothing() {
    let (mut book, now) = (Book::default(), Instant::now());
    book.want(wanted(&[("a", &["k"]), ("b", &["k"])]), now);
    while let Some((place, _)) = book.next(now) {
        book.record(&place, if place.1 == "a" { present(&["k"]) } else { Read::Failed }, now);
    }
    assert!(book.all_tried());
    assert_eq!(state(&book, "b"), Some(SecretState::Unread));
    book.look_again(&place("a"), now);
    book.next(now).unwrap();
    assert!(!book.record(&place("a"), Read::Failed, now));
    assert!(matches!(state(&book, "a"), Some(SecretState::Present(_))));
    assert_eq!(book.next_due(), Some(now + SECRET_RETRY_PAUSES[0]));
    book.look_again(&place("a"), now);
    book.next(now).unwrap();
    assert!(book.record(&place("a"), Read::Forbidden, now));
    assert_eq!(state(&book, "a"), Some(SecretState::Forbidden));
}

#[tokio::test]
async fn another_key_of_a_secret_is_unknown_until_it_is_read() {
    let (mut book, now) = (Book::default(), Instant::now());
    book.want(wanted(&[("a", &["k"])]), now);
    book.next(now).unwrap();
    // While it is read, another endpoint names another key.
    book.want(wanted(&[("a", &["k", "l"])]), now);
    book.record(&place("a"), present(&["k"]), now);
    assert_eq!(state(&book, "a"), Some(SecretState::Unread));
    assert_eq!(book.next(now).unwrap().1.keys.len(), 2, "it is read again at once");
    book.record(&place("a"), present(&["k", "l"]), now);
    book.want(wanted(&[("a", &["l"])]), now);
    assert!(matches!(state(&book, "a"), Some(SecretState::Present(_))), "fewer keys need no read");
    book.want(HashMap::new(), now);
    assert!(book.next_due().is_none() && state(&book, "a").is_none() && book.all_tried());
}

#[tokio::test]
async fn a_secret_that_is_made_here_is_not_looked_for_until_it_is_made() {
    let (mut book, now) = (Book::default(), Instant::now());
    book.want(generated("a"), now);
    assert!(read(&mut book, Read::Missing, now) && book.all_tried());
    assert_eq!(book.next_due(), Some(now + SECRET_LOOK_INTERVAL));
    book.made(&place("a"), true, now);
    assert_eq!(state(&book, "a"), Some(SecretState::Unread), "nobody asks for it again before it is read");
    // That the API server does not say whether it is there is no answer.
    assert!(!read(&mut book, Read::Failed, now));
    assert_eq!(state(&book, "a"), Some(SecretState::Unread));
    let now = now + SECRET_RETRY_PAUSES[0];
    assert_eq!(book.next_due(), Some(now));
    assert!(read(&mut book, present(&["key"]), now));
    assert!(matches!(state(&book, "a"), Some(SecretState::Present(_))));
    assert_eq!(book.next_due(), Some(now + SECRET_LOOK_INTERVAL));
}

#[tokio::test]
async fn a_secret_that_was_there_already_stays_as_it_was_read() {
    let (mut book, now) = (Book::default(), Instant::now());
    book.want(generated("a"), now);
    assert!(read(&mut book, present(&["key"]), now));
    book.made(&place("a"), false, now);
    assert!(matches!(state(&book, "a"), Some(SecretState::Present(_))));
    assert!(!read(&mut book, present(&["key"]), now), "there is nothing new to plan for");
    assert!(read(&mut book, Read::Missing, now + SECRET_LOOK_INTERVAL));
    book.made(&place("a"), false, now);
    assert_eq!(state(&book, "a"), Some(SecretState::Unread), "somebody else has made it");
}

#[tokio::test]
async fn a_read_that_began_before_a_secret_was_made_says_nothing() {
    let (mut book, now) = (Book::default(), Instant::now());
    book.want(generated("a"), now);
    let (asked, _) = book.next(now).unwrap();
    book.made(&asked, true, now);
    book.record(&asked, Read::Missing, now);
    assert_eq!(state(&book, "a"), Some(SecretState::Unread));
    assert!(read(&mut book, Read::Missing, now), "that it is gone is news");
    assert_eq!(state(&book, "a"), None);
}

#[tokio::test]
async fn a_secret_that_is_made_here_and_named_by_a_spec_too_is_looked_for_as_any_other() {
    let (mut book, now) = (Book::default(), Instant::now());
    book.want(generated("a"), now);
    read(&mut book, Read::Missing, now);
    let mut named_too = generated("a");
    named_too.get_mut(&place("a")).unwrap().is_referenced = true;
    book.want(named_too, now);
    assert_eq!(book.next_due(), Some(now));
    for pause in &SECRET_RETRY_PAUSES[..2] {
        book.look_again(&place("a"), now);
        read(&mut book, Read::Missing, now);
        assert_eq!(book.next_due(), Some(now + *pause));
    }
}

#[tokio::test]
async fn who_begins_to_lead_doubts_that_secrets_are_absent_still() {
    let (mut book, now) = (Book::default(), Instant::now());
    book.want(generated("a").into_iter().chain(wanted(&[("b", &["k"]), ("c", &["k"])])).collect(), now);
    while let Some((place, _)) = book.next(now) {
        book.record(&place, if place.1 == "b" { present(&["k"]) } else { Read::Missing }, now);
    }
    book.doubt_absent(now);
    assert!(book.all_tried(), "what is known of the others can be planned");
    assert_eq!((state(&book, "a"), state(&book, "c")), (Some(SecretState::Unread), Some(SecretState::Unread)));
    assert!(matches!(state(&book, "b"), Some(SecretState::Present(_))));
    let (first, second) = (book.next(now).unwrap().0, book.next(now).unwrap().0);
    assert_eq!((first, second, book.next(now)), (place("a"), place("c"), None));
    // What is read at that moment may have been asked for before.
    book.doubt_absent(now);
    book.record(&place("a"), Read::Missing, now);
    assert_eq!(state(&book, "a"), Some(SecretState::Unread));
}

#[tokio::test]
async fn what_was_made_for_an_endpoint_before_says_nothing_of_the_present_one() {
    let (mut book, now) = (Book::default(), Instant::now());
    book.want(generated("a"), now);
    read(&mut book, present(&["key"]), now);
    book.want(generated("a"), now);
    assert!(matches!(state(&book, "a"), Some(SecretState::Present(_))), "it is the same endpoint");
    let mut of_another = generated("a");
    of_another.get_mut(&place("a")).unwrap().owner = Some("another".to_owned());
    book.want(of_another, now);
    assert_eq!(state(&book, "a"), Some(SecretState::Unread));
    let (asked, of) = book.next(now).unwrap();
    assert_eq!(of.owner.as_deref(), Some("another"), "it is read at once");
    let Read::Present(data) = present(&["key"]) else { unreachable!() };
    book.record(&asked, Read::Former(data), now);
    assert!(matches!(state(&book, "a"), Some(SecretState::Unmade { why: Unmade::Former, present: Some(_) })));
    assert_eq!(book.next_due(), Some(now + SECRET_RETRY_PAUSES[0]), "it is about to go");
}
