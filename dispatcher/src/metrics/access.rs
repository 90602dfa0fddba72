//! Counts of tokens and of their issuers.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::ReasonLabels;
use crate::access::AccessError;

/// The metrics of access.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    refused: Family<ReasonLabels, Counter>,
    verified: Counter,
    key_fetches: Counter,
    key_fetch_failures: Counter,
    issuers: Gauge,
    file_invalid: Gauge,
    sealed_by_others: Gauge,
}

impl Tokens {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("refused_tokens", "Requests without access", self.refused.clone());
        registry.register("verified_tokens", "Signatures of tokens verified", self.verified.clone());
        registry.register("issuer_key_fetches", "Fetches of issuers' keys", self.key_fetches.clone());
        registry.register("issuer_key_fetch_failures", "Fetches that brought none", self.key_fetch_failures.clone());
        registry.register("issuers", "Issuers whose tokens are accepted", self.issuers.clone());
        registry.register("issuers_file_invalid", "Whether the file cannot be used", self.file_invalid.clone());
        registry.register("rows_sealed_by_other_keys", "Rows that need an old key", self.sealed_by_others.clone());
    }
}

impl super::Metrics {
    /// A request had no access.
    pub fn token_refused(&self, reason: AccessError) {
        self.tokens.refused.get_or_create(&ReasonLabels { reason: reason.as_str() }).inc();
    }

    /// A token was verified that was not remembered.
    pub fn token_verified(&self) {
        self.tokens.verified.inc();
    }

    /// An issuer's keys were fetched, or not.
    pub fn keys_fetched(&self, is_ok: bool) {
        self.tokens.key_fetches.inc();
        self.tokens.key_fetch_failures.inc_by(u64::from(!is_ok));
    }

    /// How many issuers' tokens are accepted.
    pub fn set_issuers(&self, count: usize) {
        self.tokens.issuers.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Whether the file of issuers can be used as it stands.
    pub fn set_issuers_file_ok(&self, is_ok: bool) {
        self.tokens.file_invalid.set(i64::from(!is_ok));
    }

    /// Rows of the table that were sealed by another key than the first.
    pub fn set_sealed_by_others(&self, rows: usize) {
        self.tokens.sealed_by_others.set(i64::try_from(rows).unwrap_or(i64::MAX));
    }
}
