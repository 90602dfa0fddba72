//! What a token permits its bearer to do.

use std::fmt;
use std::str::FromStr;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Publish events.
    Publish,
    /// Read events, deliveries, endpoints and subscriptions, and try routing out.
    Read,
    /// Deliver once more.
    Replay,
    /// Everything.
    Admin,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 4] = [Self::Publish, Self::Read, Self::Replay, Self::Admin];

    /// The name, as it stands in tokens and in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Read => "read",
            Self::Replay => "replay",
            Self::Admin => "admin",
        }
    }
}

/// A name that is none of a scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a scope is `publish`, `read`, `replay` or `admin`")]
pub struct UnknownScope;

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text).ok_or(UnknownScope)
    }
}

/// A set of scopes. Serialised as the list of their names.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scopes(u8);

impl Scopes {
    /// Nothing.
    pub const NONE: Self = Self(0);

    /// The set with one more.
    #[must_use]
    pub fn with(self, scope: Scope) -> Self {
        Self(self.0 | bit(scope))
    }

    /// What either set has.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether it has the scope, or [`Scope::Admin`], which includes all.
    pub fn permit(self, scope: Scope) -> bool {
        self.0 & (bit(scope) | bit(Scope::Admin)) != 0
    }

    /// The scopes of the set, without what [`Scope::Admin`] includes.
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |scope| self.0 & bit(*scope) != 0)
    }
}

fn bit(scope: Scope) -> u8 {
    1 << scope as u8
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        scopes.into_iter().fold(Self::NONE, Self::with)
    }
}

impl fmt::Debug for Scopes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.iter()).finish()
    }
}

impl Serialize for Scopes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter().map(Scope::as_str))
    }
}

impl<'de> Deserialize<'de> for Scopes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let names = Vec::<String>::deserialize(deserializer)?;
        names.iter().map(|name| name.parse::<Scope>().map_err(D::Error::custom)).collect()
    }
}

/// Scopes with commas between them, as in `publish,read`.
impl FromStr for Scopes {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        text.split(',').map(|name| name.trim().parse()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admin_permits_all_and_every_other_scope_itself_alone() {
        for given in Scope::ALL {
            for asked in Scope::ALL {
                let expected = given == asked || given == Scope::Admin;
                assert_eq!(Scopes::NONE.with(given).permit(asked), expected, "{given:?} {asked:?}");
            }
        }
        assert!(Scope::ALL.into_iter().all(|scope| !Scopes::NONE.permit(scope)));
    }

    #[test]
    fn a_set_is_read_as_it_is_written() {
        for text in ["[]", r#"["publish"]"#, r#"["publish","read","replay","admin"]"#] {
            let scopes: Scopes = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&scopes).unwrap(), text);
        }
        assert_eq!("read, replay".parse(), Ok(Scopes::NONE.with(Scope::Read).with(Scope::Replay)));
        for text in ["", "write", "read;replay", "Read"] {
            assert_eq!(text.parse::<Scopes>(), Err(UnknownScope), "{text}");
        }
        assert!(serde_json::from_str::<Scopes>(r#"["write"]"#).is_err());
    }
}
