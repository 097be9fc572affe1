//! The schema and how an older file is brought up to it: numbered, forward only, one transaction each. A step that was
//! released is never changed; the next version is a step of its own, with a fixture of the one before it under
//! `tests/cases/databases`.

use rusqlite::{Connection, TransactionBehavior};

use super::error::StoreError;
use crate::saga::ids::DatabaseId;

/// `sagd`: tells this program's files from others.
pub(super) const APPLICATION_ID: i64 = 0x7361_6764;

/// Step n brings the schema from version n to n + 1.
const STEPS: [&str; 1] = [include_str!("schema.sql")];

/// The version that this program reads and writes.
pub(super) fn known_version() -> i64 {
    i64::try_from(STEPS.len()).expect("a handful of steps")
}

/// What a file says of itself, before anything is written to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// Nothing in it yet.
    Empty,
    /// Of this program, with this version.
    Ours(i64),
    /// Somebody else's.
    Foreign,
}

pub(super) fn origin(connection: &Connection) -> Result<Origin, StoreError> {
    let application: i64 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if application == APPLICATION_ID {
        return Ok(Origin::Ours(version));
    }
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", (), |row| row.get(0))?;
    Ok(if tables == 0 && application == 0 && version == 0 { Origin::Empty } else { Origin::Foreign })
}

/// Brings the file to the known version from an older one; a fresh one gets `database` as its identity.
pub(super) fn migrate(connection: &mut Connection, from: i64, database: DatabaseId) -> Result<(), StoreError> {
    for (version, step) in (0..).zip(STEPS).filter(|(version, _)| *version >= from) {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(step)?;
        if version == 0 {
            transaction.execute("INSERT INTO meta (name, value) VALUES ('database', ?1)", (database.0.as_bytes(),))?;
            transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        }
        transaction.pragma_update(None, "user_version", version + 1)?;
        transaction.commit()?;
    }
    Ok(())
}
