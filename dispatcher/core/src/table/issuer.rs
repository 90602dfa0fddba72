//! Whose tokens are accepted.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::id::IssuerId;
use crate::scope::{Scope, Scopes};

/// An issuer of tokens, with the keys that its tokens are verified by. Holds nothing that is secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IssuerRow {
    /// Its identity.
    pub id: IssuerId,
    /// The claim `iss` of its tokens, exactly.
    pub issuer: String,
    /// One of these must stand in the claim `aud`.
    pub audiences: Vec<String>,
    /// Its public keys, a JSON Web Key Set (RFC 7517, 5).
    pub jwks: String,
    /// What its tokens are.
    pub tokens: TokenKind,
}

/// What an issuer's tokens are, and so what their claims mean.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all_fields = "camelCase")]
pub enum TokenKind {
    /// Tokens of Kubernetes ServiceAccounts: the tenant is the account's namespace.
    Kubernetes(ServiceAccountRules),
}

/// What the ServiceAccounts of a cluster may do, each in its own namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAccountRules {
    /// What every account may.
    pub scopes: Scopes,
    /// What some may beside that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grants: Vec<ServiceAccountGrant>,
}

/// What one ServiceAccount may, or all of that name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAccountGrant {
    /// Its namespace; absent: any, so whoever makes accounts in a namespace decides who has the name there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// What it may.
    pub scopes: Scopes,
}

impl Default for ServiceAccountRules {
    /// Every account may publish, and nothing else.
    fn default() -> Self {
        Self { scopes: Scopes::NONE.with(Scope::Publish), grants: Vec::new() }
    }
}

impl ServiceAccountRules {
    /// What an account may do in its namespace.
    pub fn scopes_of(&self, namespace: &str, name: &str) -> Scopes {
        let applies = |grant: &&ServiceAccountGrant| {
            grant.name == name && grant.namespace.as_deref().is_none_or(|granted| granted == namespace)
        };
        self.grants.iter().filter(applies).fold(self.scopes, |scopes, grant| scopes.and(grant.scopes))
    }
}

/// Why a grant cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "write NAMESPACE/NAME=SCOPE, several scopes with `+` between them, NAMESPACE may be `*`: shop/reader=read+replay"
)]
pub struct InvalidGrant;

/// `NAMESPACE/NAME=SCOPE+SCOPE`, with `*` for every namespace.
impl FromStr for ServiceAccountGrant {
    type Err = InvalidGrant;

    fn from_str(text: &str) -> Result<Self, InvalidGrant> {
        let (account, scopes) = text.split_once('=').ok_or(InvalidGrant)?;
        let (namespace, name) = account.split_once('/').ok_or(InvalidGrant)?;
        let is_name = |text: &str| {
            !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte))
        };
        if !is_name(name) || !(namespace == "*" || is_name(namespace)) {
            return Err(InvalidGrant);
        }
        let scopes: Result<Scopes, _> = scopes.split('+').map(str::parse::<Scope>).collect();
        Ok(Self {
            namespace: (namespace != "*").then(|| namespace.to_owned()),
            name: name.to_owned(),
            scopes: scopes.map_err(|_| InvalidGrant)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{Row, RowKey};

    #[test]
    fn an_account_may_what_all_may_and_what_it_is_granted() {
        let grant = |text: &str| text.parse::<ServiceAccountGrant>().unwrap();
        let grants = vec![grant("shop/reader=read"), grant("*/support=read+replay"), grant("shop/support=admin")];
        let rules = ServiceAccountRules { grants, ..ServiceAccountRules::default() };
        for (namespace, name, expected) in [
            ("shop", "producer", "publish"),
            ("shop", "reader", "publish,read"),
            ("bank", "reader", "publish"),
            ("bank", "support", "publish,read,replay"),
            ("shop", "support", "publish,read,replay,admin"),
        ] {
            assert_eq!(rules.scopes_of(namespace, name), expected.parse().unwrap(), "{namespace}/{name}");
        }
    }

    #[test]
    fn a_grant_is_read_or_refused() {
        for text in ["", "reader=read", "/reader=read", "shop/=read", "shop/reader", "shop/reader=", "shop/a b=read"] {
            assert_eq!(text.parse::<ServiceAccountGrant>(), Err(InvalidGrant), "{text}");
        }
        assert_eq!("a/*=read".parse::<ServiceAccountGrant>(), Err(InvalidGrant));
    }

    #[test]
    fn a_row_is_read_as_it_was_written() {
        let issuer = "https://kubernetes.default.svc.cluster.local".to_owned();
        let row = Row::Issuer(IssuerRow {
            id: IssuerId::of_issuer(&issuer),
            issuer,
            audiences: vec!["harborhook".to_owned()],
            jwks: r#"{"keys":[]}"#.to_owned(),
            tokens: TokenKind::Kubernetes(ServiceAccountRules {
                grants: vec!["*/support=read".parse().unwrap()],
                ..ServiceAccountRules::default()
            }),
        });
        let text = serde_json::to_string(&row).unwrap();
        assert!(text.contains(r#""kind":"Issuer""#) && text.contains(r#""type":"Kubernetes""#), "{text}");
        assert_eq!(serde_json::from_str::<Row>(&text).unwrap(), row);
        assert!(matches!(row.key(), RowKey::Issuer(_)));
    }
}
