//! A plan that would remove much at once: routes are dropped only after somebody has confirmed it.
//!
//! Resources that disappear together are more often a mistake (a definition deleted, a folder emptied in a repository)
//! than a wish. What is put goes on meanwhile.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;
use std::time::Instant;

use dispatcher_core::limits::{REMOVAL_PERCENT_MAX, REMOVAL_ROUTES_MAX, REMOVAL_WINDOW};
use dispatcher_core::table::{Row, RowKey, TableChange, TableVersion};
use sha2::{Digest, Sha256};

/// Annotation of the operator's Lease that confirms a removal; its value is the [`Withheld::digest`].
pub const CONFIRM_REMOVAL_ANNOTATION: &str = "harborhook.dev/confirm-removal";

/// Bytes of a digest that are kept: enough to tell removals apart, and short enough to copy.
const DIGEST_BYTES: usize = 8;

/// A removal that waits for a confirmation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Withheld {
    /// Endpoints and subscriptions that would go.
    pub routes: usize,
    /// Of how many.
    pub of: usize,
    /// Which they are; a removal of others is another one, and so is one of the same after they came back.
    pub digest: String,
}

impl Withheld {
    /// What is the matter and what to do, in one line.
    pub fn message(&self, namespace: &str, lease: &str) -> String {
        let Self { routes, of, digest } = self;
        format!(
            "{routes} of {of} endpoints and subscriptions are gone at once; their routes stay until that is confirmed: \
             kubectl -n {namespace} annotate --overwrite lease {lease} {CONFIRM_REMOVAL_ANNOTATION}={digest}"
        )
    }
}

/// What was removed lately, within [`REMOVAL_WINDOW`]. While a removal waits, what came before it counts on: a large one
/// that came in small steps does not become a small one by waiting.
#[derive(Debug, Default)]
pub struct RemovedLately {
    removals: VecDeque<(Instant, usize)>,
    is_one_waiting: bool,
}

impl RemovedLately {
    /// How many routes.
    pub fn routes(&mut self, now: Instant) -> usize {
        while !self.is_one_waiting
            && self.removals.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) > REMOVAL_WINDOW)
        {
            self.removals.pop_front();
        }
        self.removals.iter().map(|(_, routes)| routes).sum()
    }

    /// Whether a removal waits by now.
    pub fn set_waiting(&mut self, is_one_waiting: bool) {
        self.is_one_waiting = is_one_waiting;
    }

    /// These rows were removed.
    pub fn add(&mut self, dropped: &[RowKey], now: Instant) {
        let routes = dropped.iter().filter(|key| is_route(key)).count();
        if routes > 0 {
            self.removals.push_back((now, routes));
        }
    }
}

fn is_route(key: &RowKey) -> bool {
    matches!(key, RowKey::Endpoint(_) | RowKey::Subscription(_))
}

/// Takes the removals out of a change, if they are too many and not confirmed. `published` is the table, with the versions
/// of its rows; `lately` is how many routes were removed a short while before: many small removals in a row are a large
/// one.
pub fn withhold<S: BuildHasher>(
    change: TableChange,
    (published, versions): (&[Row], &HashMap<RowKey, TableVersion, S>),
    lately: usize,
    confirmed: Option<&str>,
) -> (TableChange, Option<Withheld>) {
    let routes = change.drop.iter().filter(|key| is_route(key)).count();
    let of = published.iter().filter(|row| is_route(&row.key())).count();
    let (removed, total) = (routes + lately, of + lately);
    if routes == 0 || removed <= REMOVAL_ROUTES_MAX || removed * 100 <= total * REMOVAL_PERCENT_MAX {
        return (change, None);
    }
    let digest = digest(&change.drop, versions);
    if confirmed == Some(digest.as_str()) {
        return (change, None);
    }
    let withheld = Withheld { routes, of, digest };
    (TableChange { drop: Vec::new(), ..change }, Some(withheld))
}

/// Of rows, whatever their order, as they were published: what was confirmed once is not confirmed for ever.
fn digest<S: BuildHasher>(keys: &[RowKey], versions: &HashMap<RowKey, TableVersion, S>) -> String {
    let version = |key| versions.get(key).map_or(0, |version| version.0);
    let mut rows: Vec<String> = keys.iter().map(|key| format!("{key:?} {}", version(key))).collect();
    rows.sort_unstable();
    hex::encode(&Sha256::digest(rows.join("\n"))[..DIGEST_BYTES])
}

#[cfg(test)]
mod tests {
    use dispatcher_core::id::{EndpointId, SubscriptionId, TenantId};
    use dispatcher_core::table::{SubscriptionRow, TenantRow};

    use super::*;

    fn route(tenant: TenantId, number: usize) -> Row {
        Row::Subscription(SubscriptionRow {
            id: SubscriptionId::derive(tenant, &number.to_string()),
            tenant,
            name: number.to_string(),
            endpoints: vec![EndpointId::derive(tenant, "e")],
            event_types: vec!["**".to_owned()],
            filter: None,
            transform: None,
            suspended: false,
        })
    }

    /// A table of so many routes and a change that removes the first of them and puts another one.
    fn removal(total: usize, removed: usize) -> (Vec<Row>, TableChange) {
        let tenant = TenantId::of_namespace_name("shop");
        let tenant_row = Row::Tenant(TenantRow { id: tenant, name: "shop".to_owned() });
        let table: Vec<Row> =
            (0..total).map(|number| route(tenant, number)).chain(std::iter::once(tenant_row)).collect();
        let drop = table.iter().take(removed).map(Row::key).collect();
        (table, TableChange { put: vec![route(tenant, total)], drop })
    }

    #[test]
    fn only_a_removal_of_many_and_of_a_large_share_waits() {
        for (total, removed, lately, waits) in [
            (1000, 200, 0, false),
            (1000, 201, 0, true),
            (100, 50, 0, false),
            (100, 51, 0, true),
            (51, 51, 0, true),
            (50, 50, 0, false),
            (10_000, 51, 0, false),
            // The same in small steps.
            (60, 20, 40, true),
            (960, 40, 40, false),
            (100, 0, 90, false),
        ] {
            let (table, change) = removal(total, removed);
            let (left, withheld) = withhold(change.clone(), (&table, &HashMap::new()), lately, None);
            assert_eq!(withheld.is_some(), waits, "{removed} of {total} after {lately}");
            assert_eq!(left.put, change.put, "what is put goes on");
            assert_eq!(left.drop.is_empty(), waits || removed == 0);
        }
    }

    #[test]
    fn a_confirmation_is_for_one_removal_alone() {
        let (table, change) = removal(100, 60);
        let mut versions: HashMap<RowKey, TableVersion> =
            table.iter().map(|row| (row.key(), TableVersion(1))).collect();
        let (_, withheld) = withhold(change.clone(), (&table, &versions), 0, Some("yes"));
        let withheld = withheld.expect("it says nothing of this removal");
        assert_eq!((withheld.routes, withheld.of), (60, 100));
        assert!(withheld.message("harborhook", "lease").contains(&withheld.digest));
        let mut reordered = change.clone();
        reordered.drop.reverse();
        let (confirmed, none) = withhold(reordered, (&table, &versions), 0, Some(&withheld.digest));
        assert!(none.is_none() && confirmed.drop.len() == 60);
        let (_, larger) = removal(100, 61);
        assert!(withhold(larger, (&table, &versions), 0, Some(&withheld.digest)).1.is_some());
        // They came back, and go once more.
        for version in versions.values_mut() {
            version.0 += 1;
        }
        assert!(withhold(change, (&table, &versions), 0, Some(&withheld.digest)).1.is_some());
    }
    #[test]
    fn small_steps_count_together_for_as_long_as_the_rest_waits() {
        let (table, change) = removal(60, 30);
        let (mut lately, began) = (RemovedLately::default(), Instant::now());
        lately.add(&change.drop, began);
        let later = began + REMOVAL_WINDOW * 2;
        assert_eq!(lately.routes(began), 30);
        lately.set_waiting(true);
        assert_eq!(lately.routes(later), 30);
        let (_, withheld) = withhold(change, (&table, &HashMap::new()), lately.routes(later), None);
        assert!(withheld.is_some());
        lately.set_waiting(false);
        assert_eq!(lately.routes(later), 0);
    }
}
