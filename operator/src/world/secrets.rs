//! Secrets that endpoints may name.

use std::collections::BTreeMap;
use std::sync::Arc;

use dispatcher_core::redacted::Redacted;

/// Secrets by namespace and name.
#[derive(Clone, Debug, Default)]
pub struct Secrets(BTreeMap<String, BTreeMap<String, Arc<SecretState>>>);

/// What is known of a Secret that is not missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretState {
    /// Its values by key.
    Present(SecretData),
    /// It may not be read.
    Forbidden,
    /// It does not exist, was to be made, and could not be made.
    Unmade {
        /// Whether it may not be made. What else failed is tried again, and may be over soon.
        is_forbidden: bool,
    },
    /// It was not read yet, so that nobody knows whether it exists. Whatever names it stays as it is.
    Unread,
}

/// A Secret's values by key.
pub type SecretData = BTreeMap<String, Redacted<Vec<u8>>>;

impl Secrets {
    /// Adds a Secret, or replaces it.
    pub fn insert(&mut self, namespace: &str, name: &str, state: impl Into<Arc<SecretState>>) {
        self.0.entry(namespace.to_owned()).or_default().insert(name.to_owned(), state.into());
    }

    /// A Secret that does not exist any more.
    pub fn remove(&mut self, namespace: &str, name: &str) {
        if let Some(secrets) = self.0.get_mut(namespace) {
            secrets.remove(name);
        }
    }

    /// What is known of a Secret; `None` if it does not exist.
    pub fn get(&self, namespace: &str, name: &str) -> Option<&SecretState> {
        self.shared(namespace, name).map(|state| &**state)
    }

    /// The same, to keep.
    pub(crate) fn shared(&self, namespace: &str, name: &str) -> Option<&Arc<SecretState>> {
        self.0.get(namespace)?.get(name)
    }
}
