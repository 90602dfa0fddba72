//! Which Secret is read when: pure, with the time as argument.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use dispatcher_core::limits::{SECRET_LOOK_INTERVAL, SECRET_RETRY_PAUSES};
use tokio::time::Instant;

use crate::world::{SecretData, SecretState, Secrets};

/// Namespace and name of a Secret.
pub(super) type Place = (String, String);

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
    pub(super) fn want(&mut self, wanted: HashMap<Place, BTreeSet<String>>, now: Instant) {
        let gone: Vec<Place> = self.entries.keys().filter(|place| !wanted.contains_key(*place)).cloned().collect();
        for place in gone {
            if let Some(entry) = self.entries.remove(&place) {
                self.untried -= usize::from(!entry.is_tried);
                if let Some(due) = entry.due {
                    self.due.remove(&(due, place));
                }
            }
        }
        for (place, keys) in wanted {
            match self.entries.get_mut(&place) {
                Some(entry) if keys.is_subset(&entry.keys) => entry.keys = keys,
                Some(entry) => {
                    entry.keys = keys;
                    // Of the new keys nothing is known, where the Secret is there.
                    if matches!(entry.state.as_deref(), Some(SecretState::Present(_))) {
                        entry.state = Some(Arc::new(SecretState::Unread));
                    }
                    self.look_again(&place, now);
                }
                None => {
                    let state = Some(Arc::new(SecretState::Unread));
                    let entry = Entry { keys, state, due: Some(now), misses: 0, is_tried: false, is_outdated: false };
                    self.untried += 1;
                    self.due.insert((now, place.clone()));
                    self.entries.insert(place, entry);
                }
            }
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
        let is_found = matches!(&new, Some(Some(SecretState::Present(data)))
            if entry.keys.iter().all(|key| data.contains_key(key)));
        let mut changed = is_first;
        // What was read while more was wanted says nothing of the rest.
        if let Some(new) = new.filter(|_| !is_outdated)
            && entry.state.as_deref() != new.as_ref()
        {
            entry.state = new.map(Arc::new);
            changed = true;
        }
        let pause = if is_found {
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

    fn wanted(secrets: &[(&str, &[&str])]) -> HashMap<Place, BTreeSet<String>> {
        let keys = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect();
        secrets.iter().map(|(name, of)| (place(name), keys(of))).collect()
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
}
