//! The rows of issuers.

use dispatcher_core::table::Row;

use crate::world::World;

/// The rows of those whose tokens are to be accepted. As long as nobody knows, the published ones: an API server that does
/// not answer locks nobody out.
pub(super) fn wanted(world: &World) -> impl Iterator<Item = Row> {
    let known = world.issuers.iter().flatten().cloned().map(Row::Issuer);
    let is_unknown = world.issuers.is_none();
    let published = world.published.iter().filter(move |row| is_unknown && matches!(row, Row::Issuer(_)));
    known.chain(published.cloned())
}
