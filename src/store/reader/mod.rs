//! Looking: a connection of its own, read-only, in short reads. A read that would take too much work ends with
//! [`StoreError::TooMuch`]: a long one would keep the WAL from being folded in, and it grows meanwhile.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::error::StoreError;
use super::open::{Memory, database_id, memory_flags, not_a_database};
use super::orders::{self, OrderRow};
use super::schema::{self, Origin};
use crate::saga::ids::DatabaseId;

mod aside;
mod figures;
mod instances;
mod journal;
mod outbox;

pub use aside::{AsideFilter, AsideRow};
pub use figures::{Count, DefinitionRow, Figures, IncidentGroup};
pub use instances::{IncidentRow, InstanceRow, Page, Selector, TimerView, Wanted};
pub use journal::{JournalOrder, JournalRow};
pub use outbox::OutboxRow;

/// How often the work of a read is counted, in steps of SQLite's machine.
const COUNT_EVERY: i32 = 10_000;
/// Work of one read: 50 million steps, a second or so.
const MOST_COUNTS: u32 = 5_000;
/// A backup reads everything.
const WITHOUT_LIMIT: u32 = u32::MAX;
/// Readers wait for the writer only in a database without a file; and there for a moment.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);
const STATEMENTS: usize = 64;

/// Answers questions about the database. Each method is a read of its own; [`Reader::snapshot`] makes one of several.
#[derive(Debug)]
pub struct Reader {
    pub(super) connection: Connection,
    pub(super) database: DatabaseId,
    path: Option<PathBuf>,
    /// Counts that are left for the present read.
    left: Arc<AtomicU32>,
}

impl Reader {
    pub fn open(path: &Path) -> Result<Reader, StoreError> {
        if !path.exists() {
            return Err(StoreError::Missing { path: path.to_owned() });
        }
        // Never `immutable`: that ignores the WAL.
        let connection =
            Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        let origin = schema::origin(&connection).map_err(|error| not_a_database(error, path))?;
        let known = schema::known_version();
        match origin {
            Origin::Ours(found) if found == known => Reader::on(connection, Some(path.to_owned())),
            Origin::Ours(found) if found > known => Err(StoreError::Newer { found, known }),
            Origin::Ours(found) => Err(StoreError::Older { found, known }),
            Origin::Empty => Err(StoreError::Older { found: 0, known }),
            Origin::Foreign => Err(StoreError::Foreign { path: path.to_owned() }),
        }
    }

    /// On a database without a file that a [`super::Store`] has made its tables in.
    pub fn open_in(memory: &Memory) -> Result<Reader, StoreError> {
        Reader::on(Connection::open_with_flags(memory.uri(), memory_flags())?, None)
    }

    fn on(mut connection: Connection, path: Option<PathBuf>) -> Result<Reader, StoreError> {
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        connection.pragma_update(None, "query_only", true)?;
        connection.pragma_update(None, "trusted_schema", false)?;
        let left = Arc::new(AtomicU32::new(MOST_COUNTS));
        let counted = Arc::clone(&left);
        connection.progress_handler(
            COUNT_EVERY,
            Some(move || {
                let left = counted.load(Ordering::Relaxed);
                counted.store(left.saturating_sub(u32::from(left != WITHOUT_LIMIT)), Ordering::Relaxed);
                left == 0
            }),
        )?;
        let database = database_id(&connection)?;
        Ok(Reader { connection, database, path, left })
    }

    /// Which database this is.
    pub fn database(&self) -> DatabaseId {
        self.database
    }

    /// Several questions about one state of the database. Keep it short.
    pub fn snapshot<T>(&self, questions: impl FnOnce(&Reader) -> Result<T, StoreError>) -> Result<T, StoreError> {
        if !self.connection.is_autocommit() {
            // Part of a larger one already.
            return questions(self);
        }
        let transaction = self.connection.unchecked_transaction()?;
        let answers = questions(self);
        // Nothing was written; however it ends.
        let _ = transaction.rollback();
        answers
    }

    /// Orders on record, newest first.
    pub fn orders(&self, before: Option<u64>, limit: usize) -> Result<Vec<OrderRow>, StoreError> {
        self.begin();
        orders::newest(&self.connection, before, limit)
    }

    pub(super) fn snapshot_without_limit<T>(
        &self,
        questions: impl FnOnce(&Reader) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.left.store(WITHOUT_LIMIT, Ordering::Relaxed);
        let answers = self.snapshot(questions);
        self.begin();
        answers
    }

    /// A new read: its work is counted from nothing.
    fn begin(&self) {
        self.left.store(MOST_COUNTS, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    #[test]
    fn a_read_that_takes_too_much_work_ends_and_the_next_one_begins_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sagad.db");
        let _store = Store::create_or_open(&path).unwrap();
        let reader = Reader::open(&path).unwrap();
        let endless = "WITH RECURSIVE c (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT count(*) FROM c";
        reader.left.store(3, Ordering::Relaxed);
        let error = StoreError::from(reader.connection.query_row(endless, (), |_| Ok(())).unwrap_err());
        assert!(matches!(error, StoreError::TooMuch) && !error.is_fatal(), "{error}");
        assert!(reader.counts().is_ok());
    }

    #[test]
    fn a_reader_cannot_write() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sagad.db");
        let _store = Store::create_or_open(&path).unwrap();
        let reader = Reader::open(&path).unwrap();
        let error = StoreError::from(reader.connection.execute("DELETE FROM log", ()).unwrap_err());
        assert!(matches!(error, StoreError::ReadOnly { .. }), "{error}");
    }
}
