//! A plan that would remove much at once: routes are dropped only after somebody has confirmed it.
//!
//! Resources that disappear together are more often a mistake (a definition deleted, a folder emptied in a repository)
//! than a wish. What is put goes on meanwhile.

use dispatcher_core::limits::{REMOVAL_PERCENT_MAX, REMOVAL_ROUTES_MAX};
use dispatcher_core::table::{Row, RowKey, TableChange};
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
    /// Which they are; a removal of others is another one.
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

/// Takes the removals out of a change, if they are too many and not confirmed. `lately` is how many routes were removed
/// a short while before: many small removals in a row are a large one.
pub fn withhold(
    change: TableChange,
    published: &[Row],
    lately: usize,
    confirmed: Option<&str>,
) -> (TableChange, Option<Withheld>) {
    let is_route = |key: &RowKey| matches!(key, RowKey::Endpoint(_) | RowKey::Subscription(_));
    let routes = change.drop.iter().filter(|key| is_route(key)).count();
    let of = published.iter().filter(|row| is_route(&row.key())).count();
    let (removed, total) = (routes + lately, of + lately);
    if routes == 0 || removed <= REMOVAL_ROUTES_MAX || removed * 100 <= total * REMOVAL_PERCENT_MAX {
        return (change, None);
    }
    let digest = digest(&change.drop);
    if confirmed == Some(digest.as_str()) {
        return (change, None);
    }
    let withheld = Withheld { routes, of, digest };
    (TableChange { drop: Vec::new(), ..change }, Some(withheld))
}

/// Of the keys of rows, whatever their order.
fn digest(keys: &[RowKey]) -> String {
    let mut keys: Vec<String> = keys.iter().map(|key| format!("{key:?}")).collect();
    keys.sort_unstable();
    hex::encode(&Sha256::digest(keys.join("\n"))[..DIGEST_BYTES])
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
            let (left, withheld) = withhold(change.clone(), &table, lately, None);
            assert_eq!(withheld.is_some(), waits, "{removed} of {total} after {lately}");
            assert_eq!(left.put, change.put, "what is put goes on");
            assert_eq!(left.drop.is_empty(), waits || removed == 0);
        }
    }

    #[test]
    fn a_confirmation_is_for_one_removal_alone() {
        let (table, change) = removal(100, 60);
        let (_, withheld) = withhold(change.clone(), &table, 0, Some("yes"));
        let withheld = withheld.expect("it says nothing of this removal");
        assert_eq!((withheld.routes, withheld.of), (60, 100));
        assert!(withheld.message("harborhook", "lease").contains(&withheld.digest));
        let mut reordered = change.clone();
        reordered.drop.reverse();
        let (confirmed, none) = withhold(reordered, &table, 0, Some(&withheld.digest));
        assert!(none.is_none() && confirmed.drop.len() == 60);
        let (table, larger) = removal(100, 61);
        assert!(withhold(larger, &table, 0, Some(&withheld.digest)).1.is_some());
    }
}
