//! The file of issuers: whose tokens an installation accepts beside those of its cluster.
//!
//! JSON, so that every generator of configuration can write it, and so that an error has a line and a column.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use dispatcher_core::limits::{
    CERTIFICATE_FILE_BYTES_MAX, ISSUER_AUDIENCES_MAX, ISSUER_SCOPES_MAX, ISSUER_URL_BYTES_MAX, ISSUERS_FILE_BYTES_MAX,
    ISSUERS_MAX,
};
use dispatcher_core::redacted::Redacted;
use dispatcher_core::scope::{Scope, Scopes};
use dispatcher_core::table::TlsIdentity;
use serde::Deserialize;
use serde_json::Value;
use url::Url;

use super::keys::KeySet;
use super::verify::{ClaimName, Grant, Rules, ScopeSource, TenantSource};
use crate::http::identity::check_authorities;

/// What stands in the place of a tenant that is any.
const ANY_TENANT: &str = "*";

/// An issuer of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfiguredIssuer {
    /// What its tokens mean.
    pub rules: Rules,
    /// Where its keys come from.
    pub keys: KeySource,
}

/// Where an issuer's keys come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// They stand in the file.
    Inline(KeySet),
    /// They are fetched.
    Remote(RemoteSource),
}

/// Where keys are fetched from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteSource {
    /// The URL of the key set.
    pub url: Url,
    /// Whether it may be in the cluster: http, private addresses, and any port and name.
    pub internal: bool,
    /// The only authorities to trust; `None`: those of the system.
    pub authorities: Option<TlsIdentity>,
}

/// Why the file cannot be used. Says where in the file, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{}: {what}", .path.display())]
pub struct IssuersFileError {
    path: PathBuf,
    what: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    issuers: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Entry {
    issuer: String,
    jwks_url: Option<String>,
    jwks: Option<Value>,
    audiences: Vec<String>,
    tenant: Option<String>,
    tenant_claim: Option<String>,
    scopes: Option<Vec<String>>,
    scope_claim: Option<String>,
    scope_map: Option<BTreeMap<String, Vec<String>>>,
    #[serde(default)]
    internal: bool,
    ca_file: Option<PathBuf>,
}

/// Reads a file of issuers.
///
/// # Errors
/// [`IssuersFileError`] with the first thing that is wrong.
pub fn read_file(path: &Path) -> Result<Vec<ConfiguredIssuer>, IssuersFileError> {
    let failed = |what: String| IssuersFileError { path: path.to_owned(), what };
    let text = read_bounded(path, ISSUERS_FILE_BYTES_MAX).map_err(failed)?;
    read(&text, &|path| read_bounded(path, CERTIFICATE_FILE_BYTES_MAX)).map_err(failed)
}

/// The bytes of a file that is not too large.
pub(super) fn read_bounded(path: &Path, bytes_max: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > bytes_max { Err(format!("it has more than {bytes_max} bytes")) } else { Ok(bytes) }
}

/// Reads the text of a file. Files that it names are read by the function.
pub(super) fn read(
    text: &[u8],
    read_file: &dyn Fn(&Path) -> Result<Vec<u8>, String>,
) -> Result<Vec<ConfiguredIssuer>, String> {
    let document: Document = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    if document.issuers.len() > ISSUERS_MAX {
        return Err(format!("issuers: there are more than {ISSUERS_MAX}"));
    }
    let mut known = BTreeSet::new();
    let mut issuers = Vec::with_capacity(document.issuers.len());
    for (position, entry) in document.issuers.into_iter().enumerate() {
        let at = |(field, what): (&str, String)| format!("issuers[{position}].{field}: {what}");
        if !known.insert(entry.issuer.clone()) {
            return Err(at(("issuer", "it stands there twice: one entry has all audiences of an issuer".to_owned())));
        }
        issuers.push(entry.check(read_file).map_err(at)?);
    }
    Ok(issuers)
}

type Wrong = (&'static str, String);

fn wrong<T>(field: &'static str, what: impl Into<String>) -> Result<T, Wrong> {
    Err((field, what.into()))
}

impl Entry {
    fn check(self, read_file: &dyn Fn(&Path) -> Result<Vec<u8>, String>) -> Result<ConfiguredIssuer, Wrong> {
        let keys = self.key_source(read_file)?;
        let Self { issuer, audiences, tenant, tenant_claim, scopes, scope_claim, scope_map, .. } = self;
        if issuer.is_empty() || issuer.len() > ISSUER_URL_BYTES_MAX {
            return wrong(
                "issuer",
                format!("it has 1 to {ISSUER_URL_BYTES_MAX} bytes, exactly those of the claim `iss`"),
            );
        }
        if audiences.is_empty() || audiences.len() > ISSUER_AUDIENCES_MAX || audiences.iter().any(String::is_empty) {
            let what = format!("name 1 to {ISSUER_AUDIENCES_MAX}: a token for somebody else must not give access here");
            return wrong("audiences", what);
        }
        let grant = Grant::Configured {
            tenants: tenant_source(tenant, tenant_claim)?,
            scopes: scope_source(scopes, scope_claim, scope_map)?,
        };
        Ok(ConfiguredIssuer { rules: Rules { issuer, audiences, grant }, keys })
    }

    fn key_source(&self, read_file: &dyn Fn(&Path) -> Result<Vec<u8>, String>) -> Result<KeySource, Wrong> {
        let url = match (&self.jwks_url, &self.jwks) {
            (None, Some(_)) if self.internal || self.ca_file.is_some() => {
                return wrong("jwks", "keys that stand here are not fetched: leave out `internal` and `caFile`");
            }
            (None, Some(jwks)) => {
                let keys = KeySet::read(jwks.to_string().as_bytes());
                return keys.map(KeySource::Inline).or_else(|error| wrong("jwks", error.to_string()));
            }
            (Some(url), None) => url,
            _ => return wrong("jwksUrl", "give one of `jwksUrl` and `jwks`"),
        };
        // The parser's message does not quote the URL.
        let url = Url::parse(url).or_else(|error| wrong("jwksUrl", error.to_string()))?;
        match url.scheme() {
            "https" => {}
            "http" if self.internal => {}
            "http" => return wrong("jwksUrl", "keys are fetched over https; only `internal` ones may come over http"),
            _ => return wrong("jwksUrl", "it is no https URL"),
        }
        if url.host().is_none() || !url.username().is_empty() || url.password().is_some() {
            return wrong("jwksUrl", "it has a host, and no user and password");
        }
        let authorities = self.ca_file.as_deref().map(|path| authorities(path, read_file)).transpose()?;
        Ok(KeySource::Remote(RemoteSource { url, internal: self.internal, authorities }))
    }
}

fn authorities(path: &Path, read_file: &dyn Fn(&Path) -> Result<Vec<u8>, String>) -> Result<TlsIdentity, Wrong> {
    let failed = |what: String| ("caFile", format!("{}: {what}", path.display()));
    let pem = String::from_utf8(read_file(path).map_err(failed)?).map_err(|_| failed("it is not text".to_owned()))?;
    check_authorities(&pem).map_err(|error| failed(error.to_string()))?;
    Ok(TlsIdentity { authorities: Some(Redacted::new(pem)), client: None })
}

fn tenant_source(tenant: Option<String>, claim: Option<String>) -> Result<TenantSource, Wrong> {
    match (tenant, claim) {
        (Some(tenant), None) if tenant == ANY_TENANT => Ok(TenantSource::Any),
        (Some(tenant), None) if !tenant.is_empty() => Ok(TenantSource::Named(tenant)),
        (None, Some(claim)) => Ok(TenantSource::Claim(claim_name("tenantClaim", claim)?)),
        _ => wrong(
            "tenant",
            "give one of `tenantClaim`, the claim that names a namespace, and `tenant`, a namespace or `*` for all",
        ),
    }
}

fn scope_source(
    scopes: Option<Vec<String>>,
    claim: Option<String>,
    map: Option<BTreeMap<String, Vec<String>>>,
) -> Result<ScopeSource, Wrong> {
    match (scopes, claim, map) {
        (Some(scopes), None, None) => Ok(ScopeSource::Fixed(parsed("scopes", &scopes)?)),
        (None, Some(claim), map) => {
            if map.as_ref().is_some_and(|map| map.len() > ISSUER_SCOPES_MAX) {
                return wrong("scopeMap", format!("it has more than {ISSUER_SCOPES_MAX} entries"));
            }
            let meaning =
                map.map(|map| map.into_iter().map(|(name, scopes)| Ok((name, parsed("scopeMap", &scopes)?))).collect());
            let name = claim_name("scopeClaim", claim)?;
            Ok(ScopeSource::Claim { name, meaning: meaning.transpose()? })
        }
        _ => wrong(
            "scopes",
            "give one of `scopeClaim` (with or without `scopeMap`), the claim that lists scopes, and `scopes`, those that \
             every token of the issuer has",
        ),
    }
}

fn claim_name(field: &'static str, name: String) -> Result<ClaimName, Wrong> {
    if name.is_empty() { wrong(field, "it is empty") } else { Ok(ClaimName(name)) }
}

fn parsed(field: &'static str, names: &[String]) -> Result<Scopes, Wrong> {
    let scopes: Result<Scopes, _> = names.iter().map(|name| name.parse::<Scope>()).collect();
    scopes.or_else(|error| wrong(field, error.to_string()))
}

#[cfg(test)]
mod tests;
