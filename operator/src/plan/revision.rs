//! What tells whether an endpoint has changed in anything that could heal it: its spec, its Secrets, the annotation that
//! asks.
//!
//! A revision has two halves. The first is a digest of spec and annotation. The second is one of the Secrets as they are
//! sealed: a digest of the values themselves would let guesses be tried. It is made when the Secrets change and kept while
//! they stay, so that another sealing key, under which they look different, changes no revision.

use crds::{Endpoint, REQUESTED_AT_ANNOTATION};
use dispatcher_core::id::EndpointId;
use dispatcher_core::table::{EndpointSecrets, SigningKey};
use sha2::{Digest, Sha256};

use super::PlanContext;

/// Bytes of a digest that are kept: enough to tell changes of one endpoint apart.
const DIGEST_BYTES: usize = 8;

/// What was published of an endpoint: its revision, and its secrets if they could be opened.
pub(super) struct Before<'a> {
    pub(super) revision: &'a str,
    pub(super) secrets: &'a EndpointSecrets,
}

/// The revision of an endpoint with these current secrets, without keys that only go on signing.
pub(super) fn revision(
    resource: &Endpoint,
    id: EndpointId,
    current: &EndpointSecrets,
    before: Option<Before<'_>>,
    context: &PlanContext<'_>,
) -> String {
    let spec = serde_json::to_vec(&resource.spec).unwrap_or_default();
    let annotations = resource.metadata.annotations.as_ref();
    let requested_at = annotations.and_then(|annotations| annotations.get(REQUESTED_AT_ANNOTATION));
    let of_spec = digest([&spec, requested_at.map_or(&[][..], String::as_bytes)]);
    let kept = before.filter(|before| is_same(before.secrets, current)).and_then(|before| {
        let (_, of_secrets) = before.revision.split_once('-')?;
        Some(of_secrets.to_owned())
    });
    let of_secrets = kept.unwrap_or_else(|| digest([context.sealing_key.seal(id, current).0.as_bytes()]));
    format!("{of_spec}-{of_secrets}")
}

/// Whether the published secrets are the current ones, whatever old keys go on signing beside them.
fn is_same(published: &EndpointSecrets, current: &EndpointSecrets) -> bool {
    let is_current = |key: &&SigningKey| key.retires_at_unix_ms.is_none();
    let EndpointSecrets { url, keys, headers, tls, token } = published;
    (url, headers, tls, token) == (&current.url, &current.headers, &current.tls, &current.token)
        && keys.iter().filter(is_current).eq(&current.keys)
}

fn digest<const N: usize>(parts: [&[u8]; N]) -> String {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    hex::encode(&digest.finalize()[..DIGEST_BYTES])
}
