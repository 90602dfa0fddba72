//! The rows of issuers.

use std::collections::HashMap;

use dispatcher_core::table::{Row, RowKey};

use super::Wanted;
use crate::world::World;

impl Wanted {
    /// Wants the rows of those whose tokens are to be accepted. As long as nobody knows, the published ones: an API server
    /// that does not answer locks nobody out.
    pub(super) fn issuers(&mut self, world: &World) {
        let published: HashMap<RowKey, &Row> =
            world.published.iter().filter(|row| matches!(row, Row::Issuer(_))).map(|row| (row.key(), row)).collect();
        let Some(issuers) = &world.issuers else {
            self.kept.extend(published.into_keys());
            return;
        };
        for row in issuers.iter().cloned().map(Row::Issuer) {
            let key = row.key();
            if published.get(&key) == Some(&&row) {
                self.kept.insert(key);
            } else {
                self.put.insert(key, row);
            }
        }
    }
}
