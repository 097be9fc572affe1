//! What goes when its time is over, in bounded pieces, so that a purge never holds up the inputs behind it; and what the
//! sweep asks for.

use super::batch::Batch;
use super::codes::{self, signed, unsigned};
use super::error::StoreError;
use super::open::Store;
use crate::saga::ids::InstanceNo;
use crate::saga::time::Timestamp;

/// What a piece of purging removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    /// Instances, orders or messages.
    pub items: u64,
    /// Rows of the journal with them.
    pub rows: u64,
    /// The piece was full: there may be more.
    pub more: bool,
}

/// What must hold for an instance to go: a proper end, nothing open, nothing that the broker does not have.
const PURGEABLE: &str = "ended_at IS NOT NULL AND status <> 5 AND marks = 0 AND seq <= ?3
     AND NOT EXISTS (SELECT 1 FROM straggler WHERE straggler.instance = instance.no AND straggler.outcome <> 9)
     AND NOT EXISTS (SELECT 1 FROM parked WHERE parked.instance = instance.no)";

impl Store {
    /// Live, settling, stuck or paused instances with numbers after `after`, in order: a page of the sweep.
    pub fn live_after(&self, after: Option<InstanceNo>, limit: usize) -> Result<Vec<InstanceNo>, StoreError> {
        let after = after.map_or(Ok(-1), |no| signed(no.0, "instance number"))?;
        let mut statement = self.connection.prepare_cached(
            "SELECT no FROM instance INDEXED BY instance_live
             WHERE no > ?1 AND (ended_at IS NULL OR marks <> 0) ORDER BY no LIMIT ?2",
        )?;
        let mut rows = statement.query((after, codes::count(limit)))?;
        let mut live = Vec::new();
        while let Some(row) = rows.next()? {
            live.push(InstanceNo(unsigned(row.get(0)?, "instance number")?));
        }
        Ok(live)
    }
}

impl Batch<'_> {
    /// Removes instances that ended, completed or compensated, before `before` and are settled, with their journals.
    /// Abandoned ones stay until somebody purges them.
    pub fn purge_ended(&mut self, before: Timestamp, limit: usize) -> Result<Purged, StoreError> {
        let sql = format!(
            "SELECT no, seq FROM instance INDEXED BY instance_ended WHERE ended_at < ?1 AND {PURGEABLE}
             ORDER BY ended_at LIMIT ?2"
        );
        let found: Vec<(i64, i64)> = {
            let mut statement = self.store.connection.prepare_cached(&sql)?;
            let rows = statement.query_map((before.0, codes::count(limit), self.store.scalars.cursor), |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?;
            rows.collect::<Result<_, _>>()?
        };
        let mut purged = Purged { more: found.len() == limit, ..Purged::default() };
        for (no, seq) in found {
            purged.rows += self.remove_instance(no, seq)?;
            purged.items += 1;
        }
        Ok(purged)
    }

    /// Removes one instance that has ended (abandoned ones too) and is settled; says whether it could go.
    pub fn purge_instance(&mut self, no: InstanceNo) -> Result<bool, StoreError> {
        let Some(stored) = self.store.instance(no)? else { return Ok(false) };
        let marks = stored.instance.marks();
        let number = signed(no.0, "instance number")?;
        let busy: bool = self
            .store
            .connection
            .prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM straggler WHERE instance = ?1 AND outcome <> 9)
                 OR EXISTS (SELECT 1 FROM parked WHERE instance = ?1)",
            )?
            .query_row((number,), |row| row.get(0))?;
        if !stored.instance.status.is_end()
            || marks.settling
            || marks.stuck
            || busy
            || stored.head.seq > self.store.scalars.cursor
        {
            return Ok(false);
        }
        self.remove_instance(number, stored.head.seq)?;
        Ok(true)
    }

    fn remove_instance(&mut self, no: i64, head: i64) -> Result<u64, StoreError> {
        let instance = self
            .store
            .instance(InstanceNo(unsigned(no, "instance number")?))?
            .ok_or_else(|| StoreError::corrupt(format!("instance {no} is listed and not there")))?
            .instance;
        let mut rows = 0;
        let mut seq = Some(head);
        while let Some(at) = seq {
            seq = self
                .store
                .connection
                .prepare_cached("SELECT prev FROM log WHERE seq = ?1 AND instance = ?2")?
                .query_row((at, no), |row| row.get(0))
                .map_err(|_| StoreError::corrupt(format!("row {at} of instance {no}'s journal is missing")))?;
            self.run("DELETE FROM log WHERE seq = ?1", (at,))?;
            rows += 1;
        }
        self.run("DELETE FROM timer WHERE instance = ?1", (no,))?;
        self.run("DELETE FROM straggler WHERE instance = ?1", (no,))?;
        // All of them closed: one that is stuck does not go.
        self.run("DELETE FROM incident WHERE instance = ?1", (no,))?;
        self.run("DELETE FROM instance WHERE no = ?1", (no,))?;
        self.tally(&instance, -1)?;
        Ok(rows)
    }

    /// Removes published messages of no instance that went out before `before`.
    pub fn purge_loose(&mut self, before: Timestamp, limit: usize) -> Result<Purged, StoreError> {
        let items = self.run(
            "DELETE FROM log WHERE seq IN (
                 SELECT seq FROM log WHERE instance IS NULL AND seq <= ?2 AND at < ?1
                 AND NOT EXISTS (SELECT 1 FROM straggler WHERE straggler.seq = log.seq AND straggler.outcome <> 9)
                 ORDER BY seq LIMIT ?3)",
            (before.0, self.store.scalars.cursor, codes::count(limit)),
        )?;
        Ok(piece(items, limit))
    }

    pub fn purge_orders(&mut self, before: Timestamp, limit: usize) -> Result<Purged, StoreError> {
        let items = self.run(
            "DELETE FROM orders WHERE at < ?1 AND n IN (SELECT n FROM orders ORDER BY n LIMIT ?2)",
            (before.0, codes::count(limit)),
        )?;
        Ok(piece(items, limit))
    }

    /// Removes what was set aside before `before`, and the oldest of what is more than `most` rows. The latter is lost
    /// before its time, and so it is counted.
    pub fn purge_aside(&mut self, before: Timestamp, most: u64, limit: usize) -> Result<Purged, StoreError> {
        let old = self.run(
            "DELETE FROM aside WHERE received_at < ?1 AND n IN (SELECT n FROM aside ORDER BY n LIMIT ?2)",
            (before.0, codes::count(limit)),
        )?;
        let count: i64 =
            self.store.connection.prepare_cached("SELECT count(*) FROM aside")?.query_row((), |row| row.get(0))?;
        let excess = unsigned(count, "count")?.saturating_sub(most);
        let dropped = if excess == 0 {
            0
        } else {
            let piece = excess.min(u64::from(codes::count(limit)));
            self.run(
                "DELETE FROM aside WHERE n IN (SELECT n FROM aside ORDER BY n LIMIT ?1)",
                (signed(piece, "count")?,),
            )?
        };
        let dropped = u64::try_from(dropped).unwrap_or(u64::MAX);
        self.store.scalars.dropped = self.store.scalars.dropped.saturating_add(dropped);
        let old = piece(old, limit);
        Ok(Purged { items: old.items + dropped, rows: 0, more: old.more || dropped < excess })
    }

    /// Removes a row that was set aside: replayed, or discarded by a person.
    pub fn remove_aside(&mut self, n: u64) -> Result<bool, StoreError> {
        Ok(self.run("DELETE FROM aside WHERE n = ?1", (signed(n, "number")?,))? == 1)
    }

    /// Gives freed pages back to the file system, at most so many.
    pub fn give_back_pages(&mut self, pages: u32) -> Result<(), StoreError> {
        self.store.connection.execute_batch(&format!("PRAGMA incremental_vacuum({pages})"))?;
        Ok(())
    }
}

fn piece(items: usize, limit: usize) -> Purged {
    Purged { items: u64::try_from(items).unwrap_or(u64::MAX), rows: 0, more: items == limit }
}
