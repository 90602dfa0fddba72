//! Which Secret is read when: pure, with the time as argument.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use dispatcher_core::limits::{SECRET_LOOK_INTERVAL, SECRET_RETRY_PAUSES};
use tokio::time::Instant;

use crate::world::{SecretData, SecretState, Secrets};

/// Namespace and name of a Secret.
pub(super) type Place = (String, String);

/// What is wanted of a Secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) keys: BTreeSet<String>,
    /// Whether a spec names it, so that somebody makes it whom nobody here hears of. Any other is made here, which is told
    /// by [`Book::made`].
    pub(super) is_referenced: bool,
}

/// How a read ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// With the values of the keys that were asked for.
    Present(SecretData),
    /// There is no such Secret.
    Missing,
    /// It may not be read.
    Forbidden,
    /// The API server did not say; what was known stays.
    Failed,
}

/// The Secrets that are wanted, and what is known of them.
#[derive(Debug, Default)]
pub(super) struct Book {
    entries: HashMap<Place, Entry>,
    due: BTreeSet<(Instant, Place)>,
    untried: usize,
}

#[derive(Debug)]
struct Entry {
    keys: BTreeSet<String>,
    is_referenced: bool,
    /// `None`: it does not exist.
    state: Option<Arc<SecretState>>,
    /// When it is read next; `None` while it is read.
    due: Option<Instant>,
    /// Reads in a row that did not find all that is wanted.
    misses: usize,
    is_tried: bool,
    /// Whether it must be read again although a read is on its way.
    is_outdated: bool,
}

impl Book {
    /// Wants these Secrets with these keys, and no others.
    pub(super) fn want(&mut self, wanted: HashMap<Place, Wanted>, now: Instant) {
        let gone: Vec<Place> = self.entries.keys().filter(|place| !wanted.contains_key(*place)).cloned().collect();
        for place in gone {
            if let Some(entry) = self.entries.remove(&place) {
                self.untried -= usize::from(!entry.is_tried);
                if let Some(due) = entry.due {
                    self.due.remove(&(due, place));
                }
            }
        }
        for (place, Wanted { keys, is_referenced }) in wanted {
            if let Some(entry) = self.entries.get_mut(&place) {
                let has_new_keys = !keys.is_subset(&entry.keys);
                let is_newly_missed = is_referenced && !entry.is_referenced && entry.state.is_none();
                (entry.keys, entry.is_referenced) = (keys, is_referenced);
                // Of new keys nothing is known, where the Secret is there.
                if has_new_keys && matches!(entry.state.as_deref(), Some(SecretState::Present(_))) {
                    entry.state = Some(Arc::new(SecretState::Unread));
                }
                if has_new_keys || is_newly_missed {
                    self.look_again(&place, now);
                }
                continue;
            }
            let state = Some(Arc::new(SecretState::Unread));
            let due = Some(now);
            let entry = Entry { keys, is_referenced, state, due, misses: 0, is_tried: false, is_outdated: false };
            self.untried += 1;
            self.due.insert((now, place.clone()));
            self.entries.insert(place, entry);
        }
    }

    /// A Secret was made after all that is known of it: nothing is known until it is read. Of one that was there already what
    /// was read before holds.
    pub(super) fn made(&mut self, place: &Place, is_new: bool, now: Instant) {
        if let Some(entry) = self.entries.get_mut(place) {
            if is_new || entry.state.is_none() {
                entry.state = Some(Arc::new(SecretState::Unread));
            }
            self.look_again(place, now);
        }
    }

    /// Somebody else may have made what was not there: nothing is known of it until it is read again. What is being read may
    /// be about to say so too.
    pub(super) fn doubt_absent(&mut self, now: Instant) {
        let mut doubtful = Vec::new();
        for (place, entry) in &mut self.entries {
            if entry.state.is_none() || entry.due.is_none() {
                entry.state.get_or_insert_with(|| Arc::new(SecretState::Unread));
                doubtful.push(place.clone());
            }
        }
        for place in doubtful {
            self.look_again(&place, now);
        }
    }

    /// A Secret may have changed: it is read at once.
    pub(super) fn look_again(&mut self, place: &Place, now: Instant) {
        let Some(entry) = self.entries.get_mut(place) else { return };
        match entry.due {
            None => entry.is_outdated = true,
            Some(due) => {
                self.due.remove(&(due, place.clone()));
                entry.due = Some(now);
                self.due.insert((now, place.clone()));
            }
        }
    }

    /// The next Secret to read, with the keys that are wanted.
    pub(super) fn next(&mut self, now: Instant) -> Option<(Place, BTreeSet<String>)> {
        let (due, place) = self.due.first().filter(|(due, _)| *due <= now)?.clone();
        self.due.remove(&(due, place.clone()));
        let entry = self.entries.get_mut(&place)?;
        entry.due = None;
        Some((place, entry.keys.clone()))
    }

    /// When the next Secret is to be read.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// A read has ended. Answers whether anything is known now that was not before.
    pub(super) fn record(&mut self, place: &Place, read: Read, now: Instant) -> bool {
        let Some(entry) = self.entries.get_mut(place) else { return false };
        self.untried -= usize::from(!entry.is_tried);
        let is_first = !std::mem::replace(&mut entry.is_tried, true);
        let is_outdated = std::mem::take(&mut entry.is_outdated);
        let new = match read {
            Read::Present(data) if data.keys().any(|key| !entry.keys.contains(key)) => {
                let wanted = data.into_iter().filter(|(key, _)| entry.keys.contains(key)).collect();
                Some(Some(SecretState::Present(wanted)))
            }
            Read::Present(data) => Some(Some(SecretState::Present(data))),
            Read::Missing => Some(None),
            Read::Forbidden => Some(Some(SecretState::Forbidden)),
            Read::Failed => None,
        };
        let can_wait = match &new {
            Some(Some(SecretState::Present(data))) => entry.keys.iter().all(|key| data.contains_key(key)),
            // Whoever makes it tells.
            Some(None) => !entry.is_referenced,
            _ => false,
        };
        let mut changed = is_first;
        // What was read while more was wanted says nothing of the rest.
        if let Some(new) = new.filter(|_| !is_outdated)
            && entry.state.as_deref() != new.as_ref()
        {
            entry.state = new.map(Arc::new);
            changed = true;
        }
        let pause = if can_wait {
            entry.misses = 0;
            SECRET_LOOK_INTERVAL
        } else {
            let pause = SECRET_RETRY_PAUSES[entry.misses.min(SECRET_RETRY_PAUSES.len() - 1)];
            entry.misses += 1;
            pause
        };
        let due = if is_outdated { now } else { now + pause };
        entry.due = Some(due);
        self.due.insert((due, place.clone()));
        changed
    }

    /// Whether every Secret has been asked for once.
    pub(super) fn all_tried(&self) -> bool {
        self.untried == 0
    }

    /// What is known.
    pub(super) fn secrets(&self) -> Secrets {
        let mut secrets = Secrets::default();
        for ((namespace, name), entry) in &self.entries {
            if let Some(state) = &entry.state {
                secrets.insert(namespace, name, Arc::clone(state));
            }
        }
        secrets
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use dispatcher_core::redacted::Redacted;

    use super::*;

    fn place(name: &str) -> Place {
        ("shop".to_owned(), name.to_owned())
    }

    fn wanted(secrets: &[(&str, &[&str])]) -> HashMap<Place, Wanted> {
        let keys = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect();
        secrets.iter().map(|(name, of)| (place(name), Wanted { keys: keys(of), is_referenced: true })).collect()
    }

    /// A Secret that is made here.
    fn generated(name: &str) -> HashMap<Place, Wanted> {
        let keys = BTreeSet::from(["key".to_owned()]);
        HashMap::from([(place(name), Wanted { keys, is_referenced: false })])
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
        assert_eq!(book.next(now).unwrap().1.len(), 2, "it is read again at once");
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
        book.want(wanted(&[("a", &["key"])]), now);
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
}
