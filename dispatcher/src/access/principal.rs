//! Who makes a request, and what they may.

use dispatcher_core::scope::Scopes;

/// Whoever holds a token that was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The claim `sub`.
    pub subject: String,
    /// Whose events and deliveries it is about.
    pub tenants: Tenants,
    /// What may be done.
    pub scopes: Scopes,
    /// When the token ends, in seconds since the Unix epoch.
    pub expires_unix_seconds: u64,
}

/// Tenants that a token is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tenants {
    /// Every one.
    Any,
    /// These, by the names of their namespaces.
    Named(Vec<String>),
}

impl Tenants {
    /// Whether a tenant is one of them.
    pub fn include(&self, name: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Named(names) => names.iter().any(|known| known == name),
        }
    }
}
