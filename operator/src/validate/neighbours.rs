//! The endpoints of one namespace, as its subscriptions see them.

use std::cell::OnceCell;
use std::collections::{BTreeMap, HashMap, HashSet};

use crds::Endpoint;
use dispatcher_core::id::{EndpointId, TenantId};

/// Endpoints of one namespace, found by name, by label and by identity.
#[derive(Debug, Default)]
pub struct Neighbours<'a> {
    by_name: BTreeMap<&'a str, (EndpointId, &'a Endpoint)>,
    identities: HashSet<EndpointId>,
    by_label: OnceCell<HashMap<(&'a str, &'a str), HashSet<EndpointId>>>,
}

impl<'a> Neighbours<'a> {
    /// Adds an endpoint of the namespace; of the same name the last one counts.
    pub fn add(&mut self, tenant: TenantId, name: &'a str, endpoint: &'a Endpoint) {
        let id = EndpointId::derive(tenant, name);
        self.by_name.insert(name, (id, endpoint));
        self.identities.insert(id);
    }

    /// All, in the order of their names.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'a str, EndpointId, &'a Endpoint)> {
        self.by_name.iter().map(|(name, (id, endpoint))| (*name, *id, *endpoint))
    }

    /// Whether an endpoint is one of them.
    pub(crate) fn contains(&self, endpoint: EndpointId) -> bool {
        self.identities.contains(&endpoint)
    }

    /// The endpoint of a name.
    pub(crate) fn named(&self, name: &str) -> Option<EndpointId> {
        self.by_name.get(name).map(|(id, _)| *id)
    }

    /// The endpoints that have all of these labels, sorted by identity; all of them if none is asked for.
    pub(crate) fn selected(&self, labels: &BTreeMap<String, String>) -> Vec<EndpointId> {
        let mut found: Vec<EndpointId> = if labels.is_empty() {
            self.identities.iter().copied().collect()
        } else {
            let by_label = self.by_label.get_or_init(|| self.index_labels());
            let having = labels.iter().map(|(key, value)| by_label.get(&(key.as_str(), value.as_str())));
            let Some(mut having) = having.collect::<Option<Vec<_>>>() else { return Vec::new() };
            having.sort_unstable_by_key(|endpoints| endpoints.len());
            let (fewest, others) =
                having.split_first().map_or((None, &[][..]), |(first, others)| (Some(first), others));
            let has_all = |id: &&EndpointId| others.iter().all(|endpoints| endpoints.contains(*id));
            fewest.into_iter().flat_map(|endpoints| endpoints.iter()).filter(has_all).copied().collect()
        };
        found.sort_unstable();
        found
    }

    fn index_labels(&self) -> HashMap<(&'a str, &'a str), HashSet<EndpointId>> {
        let mut by_label: HashMap<_, HashSet<EndpointId>> = HashMap::new();
        for (_, id, endpoint) in self.iter() {
            for (key, value) in endpoint.metadata.labels.iter().flatten() {
                by_label.entry((key.as_str(), value.as_str())).or_default().insert(id);
            }
        }
        by_label
    }
}
