//! Inputs of instances that are held: they wait here, in order.

use rusqlite::OptionalExtension;

use super::batch::Batch;
use super::codes::{signed, unsigned};
use super::error::StoreError;
use super::open::Store;
use crate::saga::event::Input;
use crate::saga::ids::InstanceNo;

/// An input that waits, and its number among those of its instance.
#[derive(Clone, Debug, PartialEq)]
pub struct Parked {
    pub n: u64,
    pub input: Input,
}

impl Store {
    /// The input that has waited longest.
    pub fn first_parked(&self, instance: InstanceNo) -> Result<Option<Parked>, StoreError> {
        let row: Option<(i64, String)> = self
            .connection
            .prepare_cached("SELECT n, input FROM parked WHERE instance = ?1 ORDER BY n LIMIT 1")?
            .query_row((signed(instance.0, "instance number")?,), |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let Some((n, text)) = row else { return Ok(None) };
        let input = serde_json::from_str(&text)
            .map_err(|error| StoreError::corrupt(format!("a parked input of instance {}: {error}", instance.0)))?;
        Ok(Some(Parked { n: unsigned(n, "number")?, input }))
    }

    /// Instances for which something waits.
    pub fn instances_with_parked(&self) -> Result<Vec<InstanceNo>, StoreError> {
        let mut statement = self.connection.prepare_cached("SELECT DISTINCT instance FROM parked ORDER BY instance")?;
        let mut rows = statement.query(())?;
        let mut instances = Vec::new();
        while let Some(row) = rows.next()? {
            instances.push(InstanceNo(unsigned(row.get(0)?, "instance number")?));
        }
        Ok(instances)
    }

    pub fn count_parked(&self, instance: InstanceNo) -> Result<u64, StoreError> {
        let count = self
            .connection
            .prepare_cached("SELECT count(*) FROM parked WHERE instance = ?1")?
            .query_row((signed(instance.0, "instance number")?,), |row| row.get(0))?;
        unsigned(count, "count")
    }
}

impl Batch<'_> {
    /// Puts an input behind those that wait already.
    pub fn park(&mut self, instance: InstanceNo, input: &Input) -> Result<(), StoreError> {
        let text = serde_json::to_string(input).expect("an input always serialises");
        self.run(
            "INSERT INTO parked (instance, n, input)
             VALUES (?1, (SELECT coalesce(max(n), 0) + 1 FROM parked WHERE instance = ?1), ?2)",
            (signed(instance.0, "instance number")?, text),
        )?;
        Ok(())
    }

    /// It has been handled, or set aside.
    pub fn unpark(&mut self, instance: InstanceNo, n: u64) -> Result<(), StoreError> {
        self.run(
            "DELETE FROM parked WHERE instance = ?1 AND n = ?2",
            (signed(instance.0, "instance number")?, signed(n, "number")?),
        )?;
        Ok(())
    }
}
