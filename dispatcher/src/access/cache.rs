//! Tokens that were verified: a client sends the same one with every request, and a signature costs far more than a
//! digest.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest, Sha256};

use super::principal::Principal;

/// SHA-256 of a token: the token itself is not kept.
pub(super) type TokenDigest = [u8; 32];

/// What is remembered, bounded. Of two halves the younger takes what is new; when it is full, the older is dropped and
/// the younger takes its place, so that what is in use stays.
pub(super) struct VerifiedTokens {
    half_max: usize,
    halves: Mutex<Halves>,
}

#[derive(Default)]
struct Halves {
    younger: HashMap<TokenDigest, Verified>,
    older: HashMap<TokenDigest, Verified>,
}

#[derive(Clone)]
struct Verified {
    principal: Arc<Principal>,
    /// What was trusted then.
    epoch: u64,
}

/// The digest of a token.
pub(super) fn digest(token: &str) -> TokenDigest {
    Sha256::digest(token).into()
}

impl VerifiedTokens {
    /// Remembers at most so many.
    pub(super) fn new(tokens_max: usize) -> Self {
        Self { half_max: (tokens_max / 2).max(1), halves: Mutex::default() }
    }

    /// Whose token it is, if it was verified, has not ended, and the same is trusted as then.
    pub(super) fn get(&self, digest: &TokenDigest, epoch: u64, now_unix_seconds: u64) -> Option<Arc<Principal>> {
        let mut halves = self.halves.lock().unwrap_or_else(PoisonError::into_inner);
        let is_valid =
            |verified: &Verified| verified.epoch == epoch && now_unix_seconds < verified.principal.expires_unix_seconds;
        if let Some(verified) = halves.younger.get(digest) {
            return is_valid(verified).then(|| Arc::clone(&verified.principal));
        }
        let verified = halves.older.remove(digest).filter(is_valid)?;
        let principal = Arc::clone(&verified.principal);
        self.put(&mut halves, *digest, verified);
        Some(principal)
    }

    /// Remembers a token that was verified by what was trusted at `epoch`.
    pub(super) fn insert(&self, digest: TokenDigest, principal: Arc<Principal>, epoch: u64) {
        let mut halves = self.halves.lock().unwrap_or_else(PoisonError::into_inner);
        self.put(&mut halves, digest, Verified { principal, epoch });
    }

    fn put(&self, halves: &mut Halves, digest: TokenDigest, verified: Verified) {
        if halves.younger.len() >= self.half_max && !halves.younger.contains_key(&digest) {
            halves.older = std::mem::take(&mut halves.younger);
        }
        halves.younger.insert(digest, verified);
    }
}

#[cfg(test)]
mod tests {
    use dispatcher_core::scope::Scopes;

    use super::super::principal::Tenants;
    use super::*;

    fn principal(expires_unix_seconds: u64) -> Arc<Principal> {
        let (tenants, scopes) = (Tenants::Any, Scopes::NONE);
        Arc::new(Principal { subject: "a".to_owned(), tenants, scopes, expires_unix_seconds })
    }

    #[test]
    fn a_token_is_remembered_until_it_ends_or_something_else_is_trusted() {
        let tokens = VerifiedTokens::new(10);
        tokens.insert(digest("a"), principal(100), 7);
        assert!(tokens.get(&digest("a"), 7, 99).is_some());
        assert!(tokens.get(&digest("a"), 7, 100).is_none());
        assert!(tokens.get(&digest("a"), 8, 99).is_none());
        assert!(tokens.get(&digest("b"), 7, 99).is_none());
        tokens.insert(digest("a"), principal(100), 8);
        assert!(tokens.get(&digest("a"), 8, 99).is_some());
    }

    #[test]
    fn no_more_is_kept_than_may_be_and_what_is_used_stays() {
        let tokens = VerifiedTokens::new(20);
        tokens.insert(digest("used"), principal(100), 0);
        for number in 0..1000 {
            tokens.insert(digest(&number.to_string()), principal(100), 0);
            assert!(tokens.get(&digest("used"), 0, 0).is_some(), "{number}");
            let halves = tokens.halves.lock().unwrap();
            assert!(halves.younger.len() + halves.older.len() <= 20, "{number}");
        }
        assert!(tokens.get(&digest("1"), 0, 0).is_none());
    }
}
