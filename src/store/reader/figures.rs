//! Figures: what `status`, `count`, `incidents` and `definitions` tell. All from what is kept with each turn; nothing scans.

use std::path::{Path, PathBuf};

use rusqlite::OptionalExtension;

use super::Reader;
use crate::saga::ids::{InstanceId, InstanceNo};
use crate::saga::incident::IncidentKind;
use crate::saga::instance::{DefinitionNo, Marks, Status};
use crate::saga::machine::Digest;
use crate::saga::time::Timestamp;
use crate::store::codes::{self, unsigned};
use crate::store::error::StoreError;

/// How many instances of one sort there are.
#[derive(Clone, Debug, PartialEq)]
pub struct Count {
    pub saga: String,
    pub definition: DefinitionNo,
    pub status: Status,
    pub state: String,
    pub marks: Marks,
    pub incident: Option<IncidentKind>,
    pub count: u64,
}

/// What the database knows for `status`.
#[derive(Clone, Debug, PartialEq)]
pub struct Figures {
    pub path: Option<PathBuf>,
    pub bytes: u64,
    pub wal_bytes: u64,
    /// By status, those that there are none of too.
    pub counts: [(Status, u64); 5],
    pub stuck: u64,
    pub paused: u64,
    pub settling: u64,
    pub oldest_stuck_at: Option<Timestamp>,
    pub outbox: u64,
    pub foreign: u64,
    pub dropped: u64,
    pub dead: u64,
    pub unmatched: u64,
    /// The listening clock of each saga.
    pub listening: Vec<(String, u64)>,
}

/// A definition that is kept, and how many instances it has.
#[derive(Clone, Debug, PartialEq)]
pub struct DefinitionRow {
    pub no: DefinitionNo,
    pub saga: String,
    pub digest: Digest,
    pub file: String,
    pub loaded_at: Timestamp,
    pub newest: bool,
    pub live: u64,
    pub ended: u64,
}

/// Open incidents that look alike.
#[derive(Clone, Debug, PartialEq)]
pub struct IncidentGroup {
    pub saga: String,
    pub state: String,
    pub kind: IncidentKind,
    /// Normalized.
    pub error: String,
    pub count: u64,
    pub first_at: Timestamp,
    pub last_at: Timestamp,
    /// Instances that have one, the oldest first.
    pub sample: Vec<InstanceId>,
}

impl Reader {
    /// How many instances there are of each sort, in no order that means anything.
    pub fn counts(&self) -> Result<Vec<Count>, StoreError> {
        self.begin();
        let mut statement = self.connection.prepare_cached(
            "SELECT s.name, t.definition, t.status, n.name, t.marks, t.incident, t.n
             FROM tally t JOIN definition d ON d.no = t.definition JOIN saga s ON s.no = d.saga
             JOIN state n ON n.no = t.state WHERE t.n <> 0",
        )?;
        let mut rows = statement.query(())?;
        let mut counts = Vec::new();
        while let Some(row) = rows.next()? {
            let incident: i64 = row.get(5)?;
            counts.push(Count {
                saga: row.get(0)?,
                definition: DefinitionNo(row.get(1)?),
                status: codes::status_of(row.get(2)?)?,
                state: row.get(3)?,
                marks: codes::marks_of(row.get(4)?),
                incident: if incident == 0 { None } else { Some(codes::incident_of(incident)?) },
                count: unsigned(row.get(6)?, "count")?,
            });
        }
        Ok(counts)
    }

    pub fn figures(&self) -> Result<Figures, StoreError> {
        self.snapshot(|reader| {
            let counts = reader.counts()?;
            let sum = |wanted: &dyn Fn(&Count) -> bool| {
                counts.iter().filter(|count| wanted(count)).map(|count| count.count).sum()
            };
            let of_kind = |kind| -> Result<u64, StoreError> {
                let count = reader
                    .connection
                    .prepare_cached("SELECT count(*) FROM aside WHERE kind = ?1")?
                    .query_row((codes::aside(kind),), |row| row.get(0))?;
                unsigned(count, "count")
            };
            Ok(Figures {
                path: reader.path.clone(),
                bytes: reader.bytes()?,
                wal_bytes: reader.path.as_deref().map_or(0, wal_bytes),
                counts: Status::ALL.map(|status| (status, sum(&|count| count.status == status))),
                stuck: sum(&|count| count.marks.stuck),
                paused: sum(&|count| count.marks.paused),
                settling: sum(&|count| count.marks.settling),
                oldest_stuck_at: reader.oldest_stuck()?,
                outbox: reader.count_outbox()?,
                foreign: unsigned(reader.number("foreign")?, "count")?,
                dropped: unsigned(reader.number("dropped")?, "count")?,
                dead: of_kind(crate::store::aside::AsideKind::Dead)?,
                unmatched: of_kind(crate::store::aside::AsideKind::Unmatched)?,
                listening: reader.listening()?,
            })
        })
    }

    pub fn definitions(&self) -> Result<Vec<DefinitionRow>, StoreError> {
        self.begin();
        let mut statement = self.connection.prepare_cached(
            "SELECT d.no, s.name, d.digest, d.file, d.loaded_at, s.newest IS d.no,
                    (SELECT coalesce(sum(n), 0) FROM tally WHERE definition = d.no AND status IN (1, 2)),
                    (SELECT coalesce(sum(n), 0) FROM tally WHERE definition = d.no AND status NOT IN (1, 2))
             FROM definition d JOIN saga s ON s.no = d.saga ORDER BY s.name, d.no",
        )?;
        let mut rows = statement.query(())?;
        let mut definitions = Vec::new();
        while let Some(row) = rows.next()? {
            definitions.push(DefinitionRow {
                no: DefinitionNo(row.get(0)?),
                saga: row.get(1)?,
                digest: Digest(row.get(2)?),
                file: row.get(3)?,
                loaded_at: Timestamp(row.get(4)?),
                newest: row.get(5)?,
                live: unsigned(row.get(6)?, "count")?,
                ended: unsigned(row.get(7)?, "count")?,
            });
        }
        Ok(definitions)
    }

    /// The source text of a definition, for places in it.
    pub fn definition_source(&self, no: DefinitionNo) -> Result<Option<String>, StoreError> {
        self.begin();
        Ok(self
            .connection
            .prepare_cached("SELECT source FROM definition WHERE no = ?1")?
            .query_row((no.0,), |row| row.get(0))
            .optional()?)
    }

    /// Groups of open incidents, the largest first, each with at most `sample` of its instances.
    pub fn incident_groups(&self, limit: usize, sample: usize) -> Result<Vec<IncidentGroup>, StoreError> {
        self.begin();
        self.snapshot(|reader| {
            let mut statement = reader.connection.prepare_cached(
                "SELECT g.no, s.name, n.name, g.kind, g.error, g.open,
                        (SELECT opened_at FROM incident WHERE grouping = g.no AND closed_at IS NULL
                         ORDER BY opened_at LIMIT 1),
                        (SELECT opened_at FROM incident WHERE grouping = g.no AND closed_at IS NULL
                         ORDER BY opened_at DESC LIMIT 1)
                 FROM incident_group g JOIN saga s ON s.no = g.saga JOIN state n ON n.no = g.state
                 WHERE g.open > 0 ORDER BY g.open DESC, g.no LIMIT ?1",
            )?;
            let mut rows = statement.query((codes::count(limit),))?;
            let mut groups = Vec::new();
            while let Some(row) = rows.next()? {
                groups.push(IncidentGroup {
                    saga: row.get(1)?,
                    state: row.get(2)?,
                    kind: codes::incident_of(row.get(3)?)?,
                    error: row.get(4)?,
                    count: unsigned(row.get(5)?, "count")?,
                    first_at: Timestamp(row.get(6)?),
                    last_at: Timestamp(row.get(7)?),
                    sample: reader.sample(row.get(0)?, sample)?,
                });
            }
            Ok(groups)
        })
    }

    fn sample(&self, group: i64, limit: usize) -> Result<Vec<InstanceId>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT instance FROM incident WHERE grouping = ?1 AND closed_at IS NULL ORDER BY opened_at LIMIT ?2",
        )?;
        let mut rows = statement.query((group, codes::count(limit)))?;
        let mut ids = Vec::new();
        while let Some(row) = rows.next()? {
            ids.push(InstanceId::new(InstanceNo(unsigned(row.get(0)?, "instance number")?), self.database));
        }
        Ok(ids)
    }

    /// Since when the instance that has been stuck longest is.
    fn oldest_stuck(&self) -> Result<Option<Timestamp>, StoreError> {
        let oldest: Option<i64> = self
            .connection
            .prepare_cached(
                "SELECT min((SELECT opened_at FROM incident WHERE grouping = g.no AND closed_at IS NULL
                             ORDER BY opened_at LIMIT 1))
                 FROM incident_group g WHERE g.open > 0",
            )?
            .query_row((), |row| row.get(0))?;
        Ok(oldest.map(Timestamp))
    }

    fn listening(&self) -> Result<Vec<(String, u64)>, StoreError> {
        let mut statement = self.connection.prepare_cached("SELECT name, listening_ms FROM saga ORDER BY name")?;
        let mut rows = statement.query(())?;
        let mut clocks = Vec::new();
        while let Some(row) = rows.next()? {
            clocks.push((row.get(0)?, unsigned(row.get(1)?, "clock")?));
        }
        Ok(clocks)
    }

    fn bytes(&self) -> Result<u64, StoreError> {
        let pages: i64 = self.connection.pragma_query_value(None, "page_count", |row| row.get(0))?;
        let size: i64 = self.connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
        unsigned(pages.saturating_mul(size), "size")
    }

    /// A number of `meta`; 0 where it was never written.
    pub(super) fn number(&self, name: &str) -> Result<i64, StoreError> {
        let value: Option<i64> = self
            .connection
            .prepare_cached("SELECT value FROM meta WHERE name = ?1")?
            .query_row((name,), |row| row.get(0))
            .optional()?;
        Ok(value.unwrap_or(0))
    }
}

fn wal_bytes(path: &Path) -> u64 {
    let mut wal = path.as_os_str().to_owned();
    wal.push("-wal");
    std::fs::metadata(PathBuf::from(wal)).map_or(0, |file| file.len())
}
