//! What a tree of resources usually does not hold: Secrets and pools. They are taken to be there and right.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crds::Endpoint;
use crds::endpoint::{Auth, SecretKeyRef};
use dispatcher_core::redacted::Redacted;
use operator::world::{SecretData, SecretState, World};
use operator::{effective, generate};

use super::tree::Place;

/// The URL that stands for one from a Secret that is not there.
const UNKNOWN_URL: &str = "https://from-a-secret.example/";
/// The host of that URL.
pub(super) const UNKNOWN_HOST: &str = "from-a-secret.example";
/// What stands for any other value.
const UNKNOWN_VALUE: &str = "from-a-secret";

/// Puts the Secrets and pools that endpoints name, and that are not there, into the world, but for pools that were there
/// before. Answers the Secrets.
pub(super) fn assume(world: &mut World, pools_before: &BTreeSet<String>) -> BTreeSet<Place> {
    let mut missing: BTreeMap<Place, SecretData> = BTreeMap::new();
    for endpoint in &mut world.endpoints {
        let namespace = endpoint.metadata.namespace.clone().unwrap_or_default();
        let is_missing = |name: &str| world.secrets.get(&namespace, name).is_none();
        for (reference, value) in stand_ins(endpoint).into_iter().filter(|(reference, _)| is_missing(&reference.name)) {
            let secret = missing.entry(Place::new(&namespace, &reference.name)).or_default();
            secret.entry(reference.key.clone()).or_insert_with(|| Redacted::new(value));
        }
        // Nothing stands for a certificate: without one the rest is planned.
        let names = certificates(endpoint).into_iter().filter(|name| is_missing(name)).collect::<Vec<_>>();
        if !names.is_empty() {
            Arc::make_mut(endpoint).spec.tls = None;
        }
        for name in names {
            missing.entry(Place::new(&namespace, &name)).or_default();
        }
        let pool = effective::pool(&endpoint.spec).to_owned();
        if !pools_before.contains(&pool) {
            world.pools.entry(pool).or_insert_with(|| world.ingest.clone());
        }
    }
    let places = missing.keys().cloned().collect();
    for (place, data) in missing {
        world.secrets.insert(&place.namespace, &place.name, SecretState::Present(data));
    }
    places
}

/// The references of an endpoint, each with what may stand for its value.
fn stand_ins(endpoint: &Endpoint) -> Vec<(&SecretKeyRef, Vec<u8>)> {
    let spec = &endpoint.spec;
    let mut found = Vec::new();
    if let Some(from) = &spec.url_from {
        found.push((&from.secret_key_ref, UNKNOWN_URL.as_bytes().to_vec()));
    }
    if let Some(reference) = spec.signing.as_ref().and_then(|signing| signing.secret_key_ref.as_ref()) {
        let key = generate::signing_key(effective::signing_scheme(spec), &[0; 32]);
        found.push((reference, key.expose().clone()));
    }
    let headers = spec.headers.iter().filter_map(|header| header.value_from.as_ref());
    let credentials = spec.auth.as_ref().map(credentials).unwrap_or_default();
    let values = headers.map(|from| &from.secret_key_ref).chain(credentials);
    found.extend(values.map(|reference| (reference, UNKNOWN_VALUE.as_bytes().to_vec())));
    found
}

fn credentials(auth: &Auth) -> Vec<&SecretKeyRef> {
    let oauth2 = auth.oauth2.as_ref();
    let client_id = oauth2.and_then(|oauth2| oauth2.client_id_secret_key_ref.as_ref());
    let client_secret = oauth2.map(|oauth2| &oauth2.client_secret_secret_key_ref);
    let own = [auth.password_secret_key_ref.as_ref(), auth.token_secret_key_ref.as_ref()];
    own.into_iter().chain([client_id, client_secret]).flatten().collect()
}

fn certificates(endpoint: &Endpoint) -> Vec<String> {
    let Some(tls) = &endpoint.spec.tls else { return Vec::new() };
    let authorities = tls.ca_secret_key_ref.as_ref().map(|reference| reference.name.clone());
    let client = tls.client_certificate_secret_ref.as_ref().map(|reference| reference.name.clone());
    authorities.into_iter().chain(client).collect()
}
