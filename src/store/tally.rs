//! How many instances there are of each sort, kept with each turn, so that counting never scans.

use std::collections::BTreeMap;

use super::batch::Batch;
use super::codes;
use super::error::StoreError;
use crate::saga::instance::Instance;

/// What a batch changes: a few sums, written once when it commits.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Delta(BTreeMap<Sort, i64>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Sort {
    definition: i64,
    status: i64,
    state: i64,
    marks: i64,
    /// 0: none.
    incident: i64,
}

impl Batch<'_> {
    /// One instance more of the sort that `instance` is.
    pub(super) fn tally(&mut self, instance: &Instance, by: i64) -> Result<(), StoreError> {
        let sort = Sort {
            definition: instance.definition.0,
            status: codes::status(instance.status),
            state: self.name_state(&instance.state)?,
            marks: codes::marks(instance.marks()),
            incident: instance.incidents.first().map_or(0, |incident| codes::incident(incident.kind)),
        };
        *self.tally.0.entry(sort).or_insert(0) += by;
        Ok(())
    }

    pub(super) fn write_tally(&mut self) -> Result<(), StoreError> {
        for (sort, by) in std::mem::take(&mut self.tally).0 {
            if by != 0 {
                self.run(
                    "INSERT INTO tally (definition, status, state, marks, incident, n) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                     ON CONFLICT DO UPDATE SET n = n + excluded.n",
                    (sort.definition, sort.status, sort.state, sort.marks, sort.incident, by),
                )?;
            }
        }
        Ok(())
    }
}
