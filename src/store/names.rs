//! Sagas, states and definitions by number. What is known is kept in memory; what a transaction that was taken back had
//! added is forgotten again.

use std::collections::{HashMap, HashSet};

use rusqlite::OptionalExtension;

use super::batch::Batch;
use super::error::StoreError;
use super::open::Store;
use super::rows::SagaNo;
use crate::saga::instance::DefinitionNo;
use crate::saga::machine::Digest;
use crate::saga::time::Timestamp;

/// A definition as it is loaded: what the store needs to keep it.
#[derive(Clone, Copy, Debug)]
pub struct DefinitionText<'a> {
    pub saga: &'a str,
    pub digest: Digest,
    pub source: &'a str,
    pub file: &'a str,
    pub loaded_at: Timestamp,
}

/// A definition as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredDefinition {
    pub no: DefinitionNo,
    pub saga: String,
    pub digest: Digest,
    pub source: String,
    pub file: String,
    pub loaded_at: Timestamp,
    /// New instances of its saga take this one.
    pub newest: bool,
}

#[derive(Debug, Default)]
pub(super) struct Names {
    sagas: HashMap<String, i64>,
    states: HashMap<String, i64>,
    /// What the present transaction added, in order.
    added: Vec<Added>,
}

#[derive(Debug)]
enum Added {
    Saga(String),
    State(String),
}

impl Names {
    pub(super) fn load(connection: &rusqlite::Connection) -> Result<Names, StoreError> {
        let mut names = Names::default();
        let mut sagas = connection.prepare("SELECT name, no FROM saga")?;
        for row in sagas.query_map((), |row| Ok((row.get(0)?, row.get(1)?)))? {
            let (name, no) = row?;
            names.sagas.insert(name, no);
        }
        let mut states = connection.prepare("SELECT name, no FROM state")?;
        for row in states.query_map((), |row| Ok((row.get(0)?, row.get(1)?)))? {
            let (name, no) = row?;
            names.states.insert(name, no);
        }
        Ok(names)
    }

    pub(super) fn mark(&self) -> usize {
        self.added.len()
    }

    /// Forgets what was added since `mark`: its transaction was taken back.
    pub(super) fn forget(&mut self, mark: usize) {
        for added in self.added.drain(mark..) {
            match added {
                Added::Saga(name) => self.sagas.remove(&name),
                Added::State(name) => self.states.remove(&name),
            };
        }
    }

    pub(super) fn keep(&mut self) {
        self.added.clear();
    }
}

impl Store {
    /// The number of a saga that is known; `None`: nothing of it was ever stored.
    pub fn saga_no(&self, saga: &str) -> Option<SagaNo> {
        self.names.sagas.get(saga).copied().map(SagaNo)
    }

    /// All definitions that are kept, older ones that instances still need too, in order of their numbers.
    pub fn definitions(&self) -> Result<Vec<StoredDefinition>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT d.no, s.name, d.digest, d.source, d.file, d.loaded_at, s.newest IS d.no
             FROM definition d JOIN saga s ON s.no = d.saga ORDER BY d.no",
        )?;
        let rows = statement.query_map((), |row| {
            Ok(StoredDefinition {
                no: DefinitionNo(row.get(0)?),
                saga: row.get(1)?,
                digest: Digest(row.get(2)?),
                source: row.get(3)?,
                file: row.get(4)?,
                loaded_at: Timestamp(row.get(5)?),
                newest: row.get(6)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

impl Batch<'_> {
    /// Definitions with live instances, or with ended ones that something may still happen to. As of the last commit.
    pub fn live_definitions(&self) -> Result<HashSet<DefinitionNo>, StoreError> {
        let mut statement = self.store.connection.prepare_cached(
            "SELECT DISTINCT definition FROM tally WHERE n <> 0 AND (status IN (1, 2) OR marks <> 0)",
        )?;
        let numbers = statement.query_map((), |row| row.get(0).map(DefinitionNo))?;
        Ok(numbers.collect::<Result<_, _>>()?)
    }

    /// The number of a saga; it gets one where it has none.
    pub fn name_saga(&mut self, saga: &str) -> Result<SagaNo, StoreError> {
        if let Some(no) = self.store.names.sagas.get(saga) {
            return Ok(SagaNo(*no));
        }
        self.run("INSERT INTO saga (name) VALUES (?1)", (saga,))?;
        let no = self.store.connection.last_insert_rowid();
        self.store.names.sagas.insert(saga.to_owned(), no);
        self.store.names.added.push(Added::Saga(saga.to_owned()));
        Ok(SagaNo(no))
    }

    pub(super) fn name_state(&mut self, state: &str) -> Result<i64, StoreError> {
        if let Some(no) = self.store.names.states.get(state) {
            return Ok(*no);
        }
        self.run("INSERT INTO state (name) VALUES (?1)", (state,))?;
        let no = self.store.connection.last_insert_rowid();
        self.store.names.states.insert(state.to_owned(), no);
        self.store.names.added.push(Added::State(state.to_owned()));
        Ok(no)
    }

    /// Keeps a definition under its digest and makes it the newest of its saga.
    pub fn definition_no(&mut self, text: &DefinitionText<'_>) -> Result<DefinitionNo, StoreError> {
        let saga = self.name_saga(text.saga)?.0;
        let known: Option<i64> = self
            .store
            .connection
            .prepare_cached("SELECT no FROM definition WHERE digest = ?1")?
            .query_row((text.digest.0,), |row| row.get(0))
            .optional()?;
        let no = if let Some(no) = known {
            self.run(
                "UPDATE definition SET loaded_at = ?2, file = ?3 WHERE no = ?1",
                (no, text.loaded_at.0, text.file),
            )?;
            no
        } else {
            self.run(
                "INSERT INTO definition (saga, digest, source, file, loaded_at) VALUES (?1, ?2, ?3, ?4, ?5)",
                (saga, text.digest.0, text.source, text.file, text.loaded_at.0),
            )?;
            self.store.connection.last_insert_rowid()
        };
        self.run("UPDATE saga SET newest = ?2 WHERE no = ?1", (saga, no))?;
        Ok(DefinitionNo(no))
    }

    /// A saga whose file is gone: its instances live on, new ones do not start.
    pub fn retire_saga(&mut self, saga: &str) -> Result<(), StoreError> {
        self.run("UPDATE saga SET newest = NULL WHERE name = ?1", (saga,))?;
        Ok(())
    }
}
