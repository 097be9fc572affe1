//! One transaction: what a batch of inputs writes, all of it or nothing.
//!
//! SQLite itself may take a transaction back when the disk is full or fails. From then on a statement would be a
//! transaction of its own; so every write asks first whether the transaction still stands, and none is made after one
//! that failed.

use std::cell::Cell;
use std::ops::Deref;

use rusqlite::Params;

use super::codes::signed;
use super::error::StoreError;
use super::open::{Scalars, Store};
use super::tally::Delta;
use crate::saga::ids::InstanceNo;
use crate::saga::time::Timestamp;

/// A transaction under way. What reads is on [`Store`]; dropping it takes everything back.
#[derive(Debug)]
pub struct Batch<'store> {
    pub(super) store: &'store mut Store,
    pub(super) tally: Delta,
    before: Scalars,
    /// A write failed: nothing more is written, and nothing is kept.
    failed: Cell<bool>,
    over: bool,
}

/// A point within a batch to which it can go back.
#[derive(Debug)]
#[must_use = "a savepoint is for going back to, or for release"]
pub struct Savepoint {
    depth: usize,
    tally: Delta,
    scalars: Scalars,
    names: usize,
}

impl Deref for Batch<'_> {
    type Target = Store;

    fn deref(&self) -> &Store {
        self.store
    }
}

impl Store {
    /// Begins a transaction. It takes the write lock at once: a read that turns into a write later would fail.
    pub fn batch(&mut self) -> Result<Batch<'_>, StoreError> {
        self.help_checkpointer()?;
        self.connection.prepare_cached("BEGIN IMMEDIATE")?.execute(())?;
        let before = self.scalars;
        Ok(Batch { store: self, tally: Delta::default(), before, failed: Cell::new(false), over: false })
    }
}

impl Batch<'_> {
    /// Makes everything durable, with one fsync. What follows from it is told to others only after this.
    pub fn commit(mut self) -> Result<(), StoreError> {
        self.write_tally()?;
        self.write_scalars()?;
        self.stands()?;
        self.store.connection.prepare_cached("COMMIT")?.execute(())?;
        self.over = true;
        self.store.names.keep();
        self.store.wake_checkpointer();
        Ok(())
    }

    pub fn savepoint(&mut self) -> Result<Savepoint, StoreError> {
        self.run("SAVEPOINT input", ())?;
        self.store.savepoints += 1;
        Ok(Savepoint {
            depth: self.store.savepoints,
            tally: self.tally.clone(),
            scalars: self.store.scalars,
            names: self.store.names.mark(),
        })
    }

    /// Keeps what was written since. Savepoints end in the reverse order of their making.
    pub fn release(&mut self, savepoint: Savepoint) -> Result<(), StoreError> {
        self.innermost(savepoint.depth)?;
        drop(savepoint);
        self.run("RELEASE input", ())?;
        self.store.savepoints -= 1;
        Ok(())
    }

    /// Takes back what was written since.
    pub fn roll_back(&mut self, savepoint: Savepoint) -> Result<(), StoreError> {
        self.innermost(savepoint.depth)?;
        self.run("ROLLBACK TO input", ())?;
        self.run("RELEASE input", ())?;
        self.store.savepoints -= 1;
        self.tally = savepoint.tally;
        self.store.scalars = savepoint.scalars;
        self.store.names.forget(savepoint.names);
        Ok(())
    }

    /// The number of a new instance: never one that was given before, though the clock go back and rows be purged.
    pub fn next_instance_no(&mut self, at: Timestamp) -> Result<InstanceNo, StoreError> {
        let next = InstanceNo::next(self.store.scalars.last_no, at);
        signed(next.0, "instance number")?;
        self.store.scalars.last_no = Some(next);
        Ok(next)
    }

    /// Counts messages of other daemons.
    pub fn count_foreign(&mut self, more: u64) {
        self.store.scalars.foreign = self.store.scalars.foreign.saturating_add(more);
    }

    pub(super) fn run(&self, sql: &'static str, params: impl Params) -> Result<usize, StoreError> {
        self.stands()?;
        let done = self.store.connection.prepare_cached(sql).and_then(|mut statement| statement.execute(params));
        self.failed.set(done.is_err());
        Ok(done?)
    }

    fn stands(&self) -> Result<(), StoreError> {
        if self.failed.get() || self.store.connection.is_autocommit() { Err(StoreError::Gone) } else { Ok(()) }
    }

    fn innermost(&self, depth: usize) -> Result<(), StoreError> {
        if depth == self.store.savepoints {
            Ok(())
        } else {
            Err(StoreError::defect("a savepoint was ended before the one that was made after it"))
        }
    }

    fn write_scalars(&self) -> Result<(), StoreError> {
        let now = self.store.scalars;
        for (name, value) in now.changed_since(self.before)? {
            self.run(
                "INSERT INTO meta (name, value) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = excluded.value",
                (name, value),
            )?;
        }
        Ok(())
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        self.store.savepoints = 0;
        if self.over {
            return;
        }
        self.store.scalars = self.before;
        self.store.names.forget(0);
        if !self.store.connection.is_autocommit() {
            // A rollback that fails leaves the transaction open, and the next `BEGIN` says so.
            let _ = self.store.connection.execute_batch("ROLLBACK");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{MessageKey, Store};

    #[test]
    fn a_full_disk_takes_the_batch_back_and_with_room_again_it_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sagad.db");
        let mut store = Store::create_or_open(&path).unwrap();
        let key = |n: u32| MessageKey::of("shop", "OrderPlaced", &n.to_string());
        let mut batch = store.batch().unwrap();
        batch.remember(&key(0), 1).unwrap();
        batch.commit().unwrap();
        let pages: i64 = store.connection.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
        store.connection.pragma_update_and_check(None, "max_page_count", pages + 2, |_| Ok(())).unwrap();

        let mut batch = store.batch().unwrap();
        batch.name_saga("never-kept").unwrap();
        let error = (1..100_000).find_map(|n| batch.remember(&key(n), 1).err()).expect("two pages are soon full");
        assert!(matches!(error, StoreError::Full { .. }) && error.is_fatal(), "{error}");
        assert!(error.to_string().starts_with("no space is left"), "{error}");
        // What comes after it must not become a transaction of its own.
        assert!(matches!(batch.remember(&key(0), 1), Err(StoreError::Gone)));
        assert!(matches!(batch.commit(), Err(StoreError::Gone)));
        assert_eq!(store.seen(&key(0)).unwrap(), Some(1));
        assert_eq!(store.seen(&key(1)).unwrap(), None);
        assert_eq!(store.saga_no("never-kept"), None);

        store.connection.pragma_update_and_check(None, "max_page_count", pages + 1000, |_| Ok(())).unwrap();
        let mut batch = store.batch().unwrap();
        batch.remember(&key(1), 1).unwrap();
        batch.commit().unwrap();
        assert_eq!(store.seen(&key(1)).unwrap(), Some(1));
    }

    #[test]
    fn a_transaction_that_sqlite_took_back_is_not_gone_on_with() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::create_or_open(&folder.path().join("sagad.db")).unwrap();
        let batch = store.batch().unwrap();
        batch.store.connection.execute_batch("ROLLBACK").unwrap();
        assert!(matches!(batch.commit(), Err(StoreError::Gone)));
        assert!(store.batch().is_ok());
    }

    #[test]
    fn after_a_write_that_failed_nothing_of_the_batch_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::create_or_open(&folder.path().join("sagad.db")).unwrap();
        let key = MessageKey::of("shop", "OrderPlaced", "1");
        let mut batch = store.batch().unwrap();
        batch.remember(&key, 1).unwrap();
        assert!(batch.run("INSERT INTO saga (no, name) VALUES (1, NULL)", ()).is_err());
        assert!(matches!(batch.remember(&key, 1), Err(StoreError::Gone)));
        assert!(matches!(batch.commit(), Err(StoreError::Gone)));
        assert_eq!(store.seen(&key).unwrap(), None);
    }

    #[test]
    fn every_commit_is_synced_to_a_log_written_ahead() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::create_or_open(&folder.path().join("sagad.db")).unwrap();
        let number = |name: &str| -> i64 { store.connection.pragma_query_value(None, name, |row| row.get(0)).unwrap() };
        let mode: String = store.connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
        // 2 is FULL, of vacuuming 2 is INCREMENTAL.
        assert_eq!((mode.as_str(), number("synchronous"), number("auto_vacuum")), ("wal", 2, 2));
    }
}
