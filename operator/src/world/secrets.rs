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
    /// It is to hold a signing key that the controller makes, and the endpoint has none that it can use.
    Unmade {
        /// What keeps it so.
        why: Unmade,
        /// What is there instead. Others may name it.
        present: Option<Arc<SecretState>>,
    },
    /// It was not read yet, so that nobody knows whether it exists. Whatever names it stays as it is.
    Unread,
}

/// Why a signing key that is to be made is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmade {
    /// The Secret may not be made, or not be written anew.
    Forbidden,
    /// It did not work. It is tried again, and may be over soon.
    Failed,
    /// It was made, and taken away again.
    Removed,
    /// The Secret goes with an endpoint of the same name that was deleted, and is not gone yet.
    Former,
    /// Somebody else has made the Secret, and its key is of the kind that the scheme does not take.
    Foreign,
}

/// A Secret's values by key.
pub type SecretData = BTreeMap<String, Redacted<Vec<u8>>>;

impl SecretState {
    /// What is there, whether or not it is what the controller would make.
    pub(crate) fn present(&self) -> Option<&Self> {
        match self {
            Self::Unmade { present, .. } => present.as_deref(),
            other => Some(other),
        }
    }
}

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
