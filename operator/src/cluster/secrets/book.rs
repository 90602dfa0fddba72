//! Which Secret is read when: pure, with the time as argument.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use dispatcher_core::limits::{SECRET_LOOK_INTERVAL, SECRET_RETRY_PAUSES};
use tokio::time::Instant;

use crate::world::{SecretData, SecretState, Secrets, Unmade};

/// Namespace and name of a Secret.
pub(super) type Place = (String, String);

/// What is wanted of a Secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) keys: BTreeSet<String>,
    /// Whether a spec names it, so that somebody makes it whom nobody here hears of. Any other is made here, which is told
    /// by [`Book::made`].
    pub(super) is_referenced: bool,
    /// UID of the endpoint for which it is made here: what was made for another of the same name is about to go with it.
    pub(super) owner: Option<String>,
}

impl Wanted {
    /// What is wanted of these values: less than was asked for, if less is wanted by now.
    fn of(&self, mut data: SecretData) -> SecretData {
        data.retain(|key, _| self.keys.contains(key));
        data
    }
}

/// How a read ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// With the values of the keys that were asked for.
    Present(SecretData),
    /// The same, but it goes with an endpoint that is gone.
    Former(SecretData),
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
    wanted: Wanted,
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
        for (place, wanted) in wanted {
            if let Some(entry) = self.entries.get_mut(&place) {
                let before = std::mem::replace(&mut entry.wanted, wanted);
                let wants_more = !entry.wanted.keys.is_subset(&before.keys) || entry.wanted.owner != before.owner;
                let is_newly_missed = entry.wanted.is_referenced && !before.is_referenced && entry.state.is_none();
                // Of new keys, and for another endpoint, nothing is known where the Secret is there.
                if wants_more && matches!(entry.state.as_deref(), Some(SecretState::Present(_))) {
                    entry.state = Some(Arc::new(SecretState::Unread));
                }
                if wants_more || is_newly_missed {
                    self.look_again(&place, now);
                }
                continue;
            }
            let state = Some(Arc::new(SecretState::Unread));
            let due = Some(now);
            let entry = Entry { wanted, state, due, misses: 0, is_tried: false, is_outdated: false };
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

    /// The next Secret to read, with what is wanted of it.
    pub(super) fn next(&mut self, now: Instant) -> Option<(Place, Wanted)> {
        let (due, place) = self.due.first().filter(|(due, _)| *due <= now)?.clone();
        self.due.remove(&(due, place.clone()));
        let entry = self.entries.get_mut(&place)?;
        entry.due = None;
        Some((place, entry.wanted.clone()))
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
            Read::Present(data) => Some(Some(SecretState::Present(entry.wanted.of(data)))),
            Read::Former(data) => {
                let present = Some(Arc::new(SecretState::Present(entry.wanted.of(data))));
                Some(Some(SecretState::Unmade { why: Unmade::Former, present }))
            }
            Read::Missing => Some(None),
            Read::Forbidden => Some(Some(SecretState::Forbidden)),
            Read::Failed => None,
        };
        let can_wait = match &new {
            Some(Some(SecretState::Present(data))) => entry.wanted.keys.iter().all(|key| data.contains_key(key)),
            // Whoever makes it tells.
            Some(None) => !entry.wanted.is_referenced,
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
mod tests;
