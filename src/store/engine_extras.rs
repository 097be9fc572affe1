//! What the engine asks beside turns: which definitions are still needed, what waits after a start, and stragglers as a
//! whole when a connection comes or goes.

use std::collections::BTreeSet;

use super::batch::Batch;
use super::codes::{self, unsigned};
use super::error::StoreError;
use super::open::Store;
use super::outbox::StragglerOutcome;
use crate::saga::ids::InstanceNo;
use crate::saga::instance::DefinitionNo;
use crate::saga::time::Timestamp;

impl Store {
    /// The last row of the log when the database was opened.
    pub fn opened_at_seq(&self) -> i64 {
        self.opened_at_seq
    }

    /// The last row of the log.
    pub fn last_seq(&self) -> Result<i64, StoreError> {
        Ok(self.connection.prepare_cached("SELECT coalesce(max(seq), 0) FROM log")?.query_row((), |row| row.get(0))?)
    }

    /// Definitions with live, settling, stuck or paused instances.
    pub fn live_definitions(&self) -> Result<BTreeSet<DefinitionNo>, StoreError> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT DISTINCT definition FROM tally WHERE n > 0 AND (status IN (1, 2) OR marks <> 0)")?;
        let rows = statement.query_map((), |row| row.get(0).map(DefinitionNo))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Instances for which inputs wait.
    pub fn instances_with_parked(&self) -> Result<Vec<InstanceNo>, StoreError> {
        let mut statement = self.connection.prepare_cached("SELECT DISTINCT instance FROM parked ORDER BY instance")?;
        let mut rows = statement.query(())?;
        let mut instances = Vec::new();
        while let Some(row) = rows.next()? {
            instances.push(InstanceNo(unsigned(row.get(0)?, "instance number")?));
        }
        Ok(instances)
    }

    /// How many messages fell behind and are not settled.
    pub fn count_stragglers(&self) -> Result<u64, StoreError> {
        let count = self
            .connection
            .prepare_cached("SELECT count(*) FROM straggler WHERE outcome <> 9")?
            .query_row((), |row| row.get(0))?;
        unsigned(count, "count")
    }
}

impl Batch<'_> {
    /// The connection went with what was under way: it may have arrived, or not.
    pub fn forget_under_way(&mut self) -> Result<(), StoreError> {
        let (under_way, unknown) =
            (codes::outcome(StragglerOutcome::UnderWay), codes::outcome(StragglerOutcome::Unknown));
        self.run("UPDATE straggler SET outcome = ?2, maybe_taken = 1 WHERE outcome = ?1", (under_way, unknown))?;
        Ok(())
    }

    /// Whatever fell behind is to be published again now.
    pub fn hurry_stragglers(&mut self, now: Timestamp) -> Result<(), StoreError> {
        self.run("UPDATE straggler SET next_at = ?1 WHERE outcome IN (2, 3, 4, 5)", (now.0,))?;
        Ok(())
    }
}
