//! Between the plan and the ledger: the one place of the control plane that talks to it.

use dispatcher::ledger::{Disabled, EndpointFacts, Ledger, LedgerError, TableLoad};
use dispatcher_core::limits::FACTS_WINDOW;
use dispatcher_core::table::{Row, TableVersion};

use crate::plan::Plan;
use crate::world::World;

/// What the ledger knows.
#[derive(Clone, Debug, Default)]
pub struct LedgerState {
    /// The whole routing table.
    pub table: TableLoad,
    /// Endpoints that are disabled.
    pub disabled: Vec<Disabled>,
    /// What endpoints did in the last [`FACTS_WINDOW`].
    pub facts: Vec<EndpointFacts>,
}

impl LedgerState {
    /// Puts it into a world.
    pub fn fill(self, world: &mut World) {
        world.load(self.table);
        world.disabled = self.disabled;
        world.facts = self.facts;
    }
}

/// Publishes a plan's table, as a whole or not at all, alone or as the leader of an epoch. Answers the table's version.
///
/// # Errors
/// The ledger's. Whatever the error, planning again from the ledger's state is right.
pub async fn publish(ledger: &dyn Ledger, plan: &Plan, epoch: Option<u64>) -> Result<TableVersion, LedgerError> {
    ledger.publish_table(plan.table.clone(), epoch).await
}

/// Reads what the ledger knows that plans need.
///
/// # Errors
/// The ledger's.
pub async fn load_world_state(ledger: &dyn Ledger) -> Result<LedgerState, LedgerError> {
    let table = ledger.load_table(None).await?;
    let disabled = ledger.disabled().await?;
    let facts = load_facts(ledger, &table.rows).await?;
    Ok(LedgerState { table, disabled, facts })
}

/// Reads what the endpoints of all tenants of a table did lately.
///
/// # Errors
/// The ledger's.
pub async fn load_facts(ledger: &dyn Ledger, table: &[Row]) -> Result<Vec<EndpointFacts>, LedgerError> {
    let tenants = table.iter().filter_map(|row| if let Row::Tenant(tenant) = row { Some(tenant.id) } else { None });
    let mut facts = Vec::new();
    for tenant in tenants {
        facts.extend(ledger.endpoint_facts(tenant, FACTS_WINDOW).await?);
    }
    Ok(facts)
}
