//! The routes of tenants whose events are looked at, as they stand in the ledger now.

use std::collections::HashMap;
use std::sync::Arc;

use dispatcher::ledger::{Ledger, LedgerError};
use dispatcher_core::id::TenantId;
use dispatcher_core::route::RoutingIndex;
use dispatcher_core::table::{Row, TableVersion};

/// Compiled routes of one version of the table.
#[derive(Default)]
pub(super) struct Routes {
    /// History and version of the table.
    of: Option<(String, TableVersion)>,
    by_tenant: HashMap<TenantId, Arc<RoutingIndex>>,
}

impl Routes {
    /// The present routes of a tenant. What was compiled is kept as long as the table does not change.
    pub(super) async fn of(&mut self, ledger: &dyn Ledger, tenant: TenantId) -> Result<Arc<RoutingIndex>, LedgerError> {
        let since = self.of.as_ref().map(|(_, version)| *version);
        let mut load = ledger.load_table(since).await?;
        let present = (load.history.clone(), load.version);
        if self.of.as_ref() != Some(&present) {
            self.by_tenant.clear();
        }
        if let Some(index) = self.by_tenant.get(&tenant) {
            return Ok(Arc::clone(index));
        }
        if !load.complete {
            load = ledger.load_table(None).await?;
        }
        if self.of.as_ref() != Some(&(load.history.clone(), load.version)) {
            self.by_tenant.clear();
        }
        self.of = Some((load.history, load.version));
        let (index, problems) = RoutingIndex::build(load.rows.into_iter().filter(|row| tenant_of(row) == Some(tenant)));
        for problem in problems {
            tracing::warn!(
                name = problem.name,
                message = problem.message,
                "a row of the routing table does not compile"
            );
        }
        let index = Arc::new(index);
        self.by_tenant.insert(tenant, Arc::clone(&index));
        Ok(index)
    }
}

/// Whose row it is, if it is one of a tenant's.
fn tenant_of(row: &Row) -> Option<TenantId> {
    match row {
        Row::Tenant(row) => Some(row.id),
        Row::Endpoint(row) => Some(row.tenant),
        Row::Subscription(row) => Some(row.tenant),
        Row::Issuer(_) => None,
    }
}
