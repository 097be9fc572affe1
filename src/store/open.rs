//! Opening a database, and the writer that holds it open.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags, OptionalExtension};
use uuid::Uuid;

use super::checkpoint::Checkpointer;
use super::codes::{signed, unsigned};
use super::error::StoreError;
use super::names::Names;
use super::schema::{self, Origin};
use crate::saga::ids::{DatabaseId, InstanceNo};
use crate::saga::time::Timestamp;

/// How long a statement waits for another writer (a migration of an offline verb, say) before it gives up.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Statements kept prepared: all that the writer knows, with room.
const STATEMENTS: usize = 128;
/// Pages kept in memory, in KiB: with this the writer's working set of a million instances stays in reach.
const CACHE_KIB: i64 = 16 * 1024;
/// A WAL that a long reader made larger than this is cut back.
const WAL_LIMIT_BYTES: i64 = 128 * 1024 * 1024;

/// The writer. One thread owns it; see the module's comment.
#[derive(Debug)]
pub struct Store {
    /// Before the connection: its own has to be closed first, so that the last one out folds the WAL in.
    pub(super) checkpointer: Option<Checkpointer>,
    pub(super) connection: Connection,
    pub(super) names: Names,
    pub(super) scalars: Scalars,
    pub(super) savepoints: usize,
    pub(super) database: DatabaseId,
    /// The last row of the log when the database was opened: what stands up to here may have been published before.
    pub(super) opened_at_seq: i64,
    path: Option<PathBuf>,
}

/// Single values that change with the batches, and are taken back with them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Scalars {
    pub(super) last_no: Option<InstanceNo>,
    pub(super) cursor: i64,
    pub(super) foreign: u64,
    pub(super) dropped: u64,
    /// Which of the inbox's two tables takes new rows, and since when.
    pub(super) generation: u8,
    pub(super) generation_since: Option<Timestamp>,
}

/// A database without a file. It lasts as long as this does, whatever becomes of the stores and readers on it.
#[derive(Debug)]
pub struct Memory {
    uri: String,
    database: DatabaseId,
    _keeps_it: Connection,
}

impl Memory {
    /// `database` is given, for a seeded world derives every id from it.
    pub fn new(database: DatabaseId) -> Result<Memory, StoreError> {
        static MADE: AtomicU64 = AtomicU64::new(0);
        let uri = format!("file:/sagad-{}?vfs=memdb", MADE.fetch_add(1, Ordering::Relaxed));
        let keeps_it = Connection::open_with_flags(&uri, memory_flags() | OpenFlags::SQLITE_OPEN_CREATE)?;
        Ok(Memory { uri, database, _keeps_it: keeps_it })
    }

    pub(super) fn uri(&self) -> &str {
        &self.uri
    }
}

impl Store {
    /// Opens the database, making it where there is none (its folder must be there), and brings its schema up to date.
    /// The caller holds the [`super::Lock`].
    pub fn create_or_open(path: &Path) -> Result<Store, StoreError> {
        let failed = |reason: String| StoreError::Open { path: path.to_owned(), reason };
        make_file(path).map_err(|error| failed(error.to_string()))?;
        let mut connection = Connection::open_with_flags(path, writer_flags())?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        let origin = schema::origin(&connection).map_err(|error| not_a_database(error, path))?;
        let from = match origin {
            Origin::Foreign => return Err(StoreError::Foreign { path: path.to_owned() }),
            Origin::Ours(version) if version > schema::known_version() => {
                return Err(StoreError::Newer { found: version, known: schema::known_version() });
            }
            Origin::Ours(version) => version,
            Origin::Empty => {
                // Has to stand before the first table; later it would need a VACUUM.
                connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
                0
            }
        };
        let mode: String = connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
        if mode != "wal" {
            return Err(failed(format!("its file system allows no write-ahead log (journal mode {mode})")));
        }
        connection.pragma_update(None, "wal_autocheckpoint", 0)?;
        connection.pragma_update(None, "journal_size_limit", WAL_LIMIT_BYTES)?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        schema::migrate(&mut connection, from, random_database()?)?;
        if from == 0 {
            sync_folder(path).map_err(|error| failed(error.to_string()))?;
        }
        let mut store = Store::on(connection, Some(path.to_owned()))?;
        store.checkpointer = Some(Checkpointer::start(path, &mut store.connection)?);
        Ok(store)
    }

    /// A store on a database without a file: for worlds and tests.
    pub fn open_in(memory: &Memory) -> Result<Store, StoreError> {
        let mut connection = Connection::open_with_flags(memory.uri(), memory_flags())?;
        let from = match schema::origin(&connection)? {
            Origin::Ours(version) => version,
            Origin::Empty | Origin::Foreign => 0,
        };
        schema::migrate(&mut connection, from, memory.database)?;
        Store::on(connection, None)
    }

    fn on(connection: Connection, path: Option<PathBuf>) -> Result<Store, StoreError> {
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
        connection.pragma_update(None, "temp_store", "MEMORY")?;
        connection.pragma_update(None, "trusted_schema", false)?;
        let database = database_id(&connection)?;
        let names = Names::load(&connection)?;
        let scalars = Scalars::load(&connection)?;
        let opened_at_seq = connection.query_row("SELECT coalesce(max(seq), 0) FROM log", (), |row| row.get(0))?;
        let mut store =
            Store { checkpointer: None, connection, names, scalars, savepoints: 0, database, opened_at_seq, path };
        store.recover_stragglers()?;
        Ok(store)
    }

    pub fn database(&self) -> DatabaseId {
        self.database
    }

    /// `None`: it is in memory.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Messages of other daemons, counted since the database was made.
    pub fn foreign(&self) -> u64 {
        self.scalars.foreign
    }

    /// What was set aside and had to be dropped again, counted likewise.
    pub fn dropped(&self) -> u64 {
        self.scalars.dropped
    }
}

impl Scalars {
    fn load(connection: &Connection) -> Result<Scalars, StoreError> {
        let number = |name: &str| -> Result<Option<i64>, StoreError> {
            Ok(connection.query_row("SELECT value FROM meta WHERE name = ?1", (name,), |row| row.get(0)).optional()?)
        };
        // A row could outlive its counter only by damage; the larger of the two is safe in any case.
        let newest: Option<i64> = connection.query_row("SELECT max(no) FROM instance", (), |row| row.get(0))?;
        let last_no = match number("last_no")?.max(newest) {
            Some(no) => Some(InstanceNo(unsigned(no, "instance number")?)),
            None => None,
        };
        Ok(Scalars {
            last_no,
            cursor: number("cursor")?.unwrap_or(0),
            foreign: unsigned(number("foreign")?.unwrap_or(0), "count")?,
            dropped: unsigned(number("dropped")?.unwrap_or(0), "count")?,
            generation: u8::from(number("generation")?.unwrap_or(0) != 0),
            generation_since: number("generation_since")?.map(Timestamp),
        })
    }

    /// The values to be written, by name.
    pub(super) fn changed_since(self, before: Scalars) -> Result<Vec<(&'static str, Value)>, StoreError> {
        let mut changed = Vec::new();
        let mut note = |name: &'static str, now: Option<i64>, then: Option<i64>| {
            if let Some(value) = now.filter(|_| now != then) {
                changed.push((name, Value::Integer(value)));
            }
        };
        let last = |scalars: Scalars| scalars.last_no.map(|no| signed(no.0, "instance number")).transpose();
        note("last_no", last(self)?, last(before)?);
        note("cursor", Some(self.cursor), Some(before.cursor));
        note("foreign", Some(signed(self.foreign, "count")?), Some(signed(before.foreign, "count")?));
        note("dropped", Some(signed(self.dropped, "count")?), Some(signed(before.dropped, "count")?));
        note("generation", Some(self.generation.into()), Some(before.generation.into()));
        note("generation_since", self.generation_since.map(|at| at.0), before.generation_since.map(|at| at.0));
        Ok(changed)
    }
}

pub(super) fn database_id(connection: &Connection) -> Result<DatabaseId, StoreError> {
    let bytes: [u8; 16] =
        connection.query_row("SELECT value FROM meta WHERE name = 'database'", (), |row| row.get(0))?;
    Ok(DatabaseId(Uuid::from_bytes(bytes)))
}

/// An error that means the file is something else altogether says so.
pub(super) fn not_a_database(error: StoreError, path: &Path) -> StoreError {
    match error {
        StoreError::Corrupt { what } if what.contains("not a database") => {
            StoreError::Foreign { path: path.to_owned() }
        }
        other => other,
    }
}

fn writer_flags() -> OpenFlags {
    // Without the URI flag: a file name is a file name, whatever characters it has.
    OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX
}

pub(super) fn memory_flags() -> OpenFlags {
    writer_flags() | OpenFlags::SQLITE_OPEN_URI
}

/// For the daemon's user alone; the WAL inherits the mode.
fn make_file(path: &Path) -> std::io::Result<()> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path).map(drop)
}

/// A file's name is durable only when its folder is.
fn sync_folder(path: &Path) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

fn random_database() -> Result<DatabaseId, StoreError> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes).map_err(|error| StoreError::Other { reason: format!("no randomness: {error}") })?;
    Ok(DatabaseId(uuid::Builder::from_random_bytes(bytes).into_uuid()))
}
