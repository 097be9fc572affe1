//! Journals, row by row. A row is handed out as it is stored, so that its digest can be tried before it is read.

use rusqlite::{OptionalExtension, Row};

use super::Reader;
use crate::saga::effect::Outgoing;
use crate::saga::event::Given;
use crate::saga::ids::InstanceNo;
use crate::saga::time::Timestamp;
use crate::store::chain::{Broken, Link, verify_chain};
use crate::store::codes::{self, signed, unsigned};
use crate::store::error::StoreError;
use crate::store::rows::{ChainDigest, Stand, Stored, Weight};
use crate::store::turns::checked_row;

/// One turn, as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct JournalRow {
    pub seq: i64,
    pub instance: InstanceNo,
    pub turn: u64,
    /// The row before it of the same instance.
    pub prev: Option<i64>,
    pub at: Timestamp,
    /// The version of the turn's rules.
    pub rules: u16,
    pub weight: Weight,
    /// `None` for the first turn.
    pub from: Option<Stand>,
    pub to: Option<Stand>,
    /// [`Given`] as JSON.
    pub given_text: String,
    /// The messages as JSON; empty for none. So are the next two.
    pub messages_text: String,
    pub changed_text: String,
    pub notes_text: String,
    /// Digest of the instance after it.
    pub after: Option<ChainDigest>,
    pub digest: ChainDigest,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JournalOrder {
    OldestFirst,
    NewestFirst,
}

impl JournalRow {
    pub fn given(&self) -> Result<Given, StoreError> {
        self.read(&self.given_text)
    }

    /// Without their stamps.
    pub fn messages(&self) -> Result<Vec<Outgoing>, StoreError> {
        if self.messages_text.is_empty() { Ok(Vec::new()) } else { self.read(&self.messages_text) }
    }

    pub fn changed(&self) -> Result<Vec<String>, StoreError> {
        if self.changed_text.is_empty() { Ok(Vec::new()) } else { self.read(&self.changed_text) }
    }

    pub fn notes(&self) -> Result<Vec<String>, StoreError> {
        if self.notes_text.is_empty() { Ok(Vec::new()) } else { self.read(&self.notes_text) }
    }

    /// Whether an instance in its stored form is what this turn left.
    pub fn left(&self, body: &[u8]) -> bool {
        self.after == Some(crate::store::chain::body_digest(body))
    }

    pub(in crate::store) fn link(&self) -> Link<'_> {
        Link {
            instance: self.instance.0,
            turn: self.turn,
            at: self.at.0,
            rules: self.rules,
            weight: self.weight,
            from: self.from.as_ref(),
            to: self.to.as_ref(),
            given: &self.given_text,
            messages: &self.messages_text,
            changed: &self.changed_text,
            notes: &self.notes_text,
            after: self.after,
        }
    }

    fn read<T: serde::de::DeserializeOwned>(&self, text: &str) -> Result<T, StoreError> {
        serde_json::from_str(text)
            .map_err(|error| StoreError::corrupt(format!("turn {} in row {}: {error}", self.turn, self.seq)))
    }
}

const ROW: &str = "SELECT l.seq, l.instance, l.turn, l.prev, l.at, l.rules, l.weight,
        l.from_status, (SELECT name FROM state WHERE no = l.from_state),
        l.to_status, (SELECT name FROM state WHERE no = l.to_state),
        l.given, l.messages, l.changed, l.notes, l.after, l.digest
    FROM log l WHERE l.seq = ?1";

impl Reader {
    /// An instance, checked, with the end of its journal.
    pub fn instance(&self, no: InstanceNo) -> Result<Option<Stored>, StoreError> {
        self.begin();
        let Some(row) = checked_row(&self.connection, no)? else { return Ok(None) };
        Ok(Some(Stored { instance: row.instance(no)?, head: row.head }))
    }

    /// Turns of an instance: at most `limit`, after (or, newest first, before) the turn `from`.
    pub fn journal(
        &self,
        no: InstanceNo,
        order: JournalOrder,
        from: Option<u64>,
        limit: usize,
    ) -> Result<Vec<JournalRow>, StoreError> {
        self.begin();
        self.snapshot(|reader| {
            let mut wanted = Vec::new();
            let mut link = reader.head_of(no)?;
            while let Some(seq) = link {
                let (turn, prev) = reader.turn_and_prev(no, seq)?;
                let (in_range, passed) = match (order, from) {
                    (JournalOrder::NewestFirst, from) => (from.is_none_or(|from| turn < from), wanted.len() == limit),
                    (JournalOrder::OldestFirst, from) => (true, from.is_some_and(|from| turn <= from)),
                };
                if passed {
                    break;
                }
                if in_range {
                    wanted.push(seq);
                }
                link = prev;
            }
            if order == JournalOrder::OldestFirst {
                wanted.reverse();
            }
            wanted.truncate(limit);
            wanted.into_iter().map(|seq| reader.journal_row(seq)).collect()
        })
    }

    /// The instance and its whole journal in order, of one state of the database; for `verify`.
    pub fn whole_journal(&self, no: InstanceNo) -> Result<Option<(Stored, Vec<JournalRow>)>, StoreError> {
        self.snapshot(|reader| {
            let Some(stored) = reader.instance(no)? else { return Ok(None) };
            Ok(Some((stored, reader.journal(no, JournalOrder::OldestFirst, None, usize::MAX)?)))
        })
    }

    /// Whether an instance's chain holds, without replaying it; `None`: it does (or there is no such instance).
    pub fn broken_chain(&self, no: InstanceNo) -> Result<Option<Broken>, StoreError> {
        self.snapshot(|reader| {
            reader.begin();
            let Some(row) = checked_row(&reader.connection, no)? else { return Ok(None) };
            let rows = reader.journal(no, JournalOrder::OldestFirst, None, usize::MAX)?;
            Ok(verify_chain(&rows, row.head, &row.body))
        })
    }

    fn head_of(&self, no: InstanceNo) -> Result<Option<i64>, StoreError> {
        Ok(self
            .connection
            .prepare_cached("SELECT seq FROM instance WHERE no = ?1")?
            .query_row((signed(no.0, "instance number")?,), |row| row.get(0))
            .optional()?)
    }

    fn turn_and_prev(&self, no: InstanceNo, seq: i64) -> Result<(u64, Option<i64>), StoreError> {
        let found: Option<(i64, Option<i64>)> = self
            .connection
            .prepare_cached("SELECT turn, prev FROM log WHERE seq = ?1 AND instance = ?2")?
            .query_row((seq, signed(no.0, "instance number")?), |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let (turn, prev) =
            found.ok_or_else(|| StoreError::corrupt(format!("row {seq} of instance {}'s journal is missing", no.0)))?;
        if prev.is_some_and(|prev| prev >= seq) {
            return Err(StoreError::corrupt(format!("row {seq} of instance {}'s journal points forward", no.0)));
        }
        Ok((unsigned(turn, "turn")?, prev))
    }

    fn journal_row(&self, seq: i64) -> Result<JournalRow, StoreError> {
        let row = self.connection.prepare_cached(ROW)?.query_row((seq,), |row| Ok(read_row(row))).optional()?;
        row.ok_or_else(|| StoreError::corrupt(format!("row {seq} of the log is missing")))?
    }
}

fn read_row(row: &Row<'_>) -> Result<JournalRow, StoreError> {
    let instance: Option<i64> = row.get(1)?;
    let rules: i64 = row.get(5)?;
    Ok(JournalRow {
        seq: row.get(0)?,
        instance: InstanceNo(unsigned(instance.unwrap_or(0), "instance number")?),
        turn: unsigned(row.get(2)?, "turn")?,
        prev: row.get(3)?,
        at: Timestamp(row.get(4)?),
        rules: u16::try_from(rules).map_err(|_| StoreError::corrupt(format!("{rules} is no version of the rules")))?,
        weight: codes::weight_of(row.get(6)?)?,
        from: stand(row.get(7)?, row.get(8)?)?,
        to: stand(row.get(9)?, row.get(10)?)?,
        given_text: row.get::<_, Option<String>>(11)?.unwrap_or_default(),
        messages_text: row.get::<_, Option<String>>(12)?.unwrap_or_default(),
        changed_text: row.get::<_, Option<String>>(13)?.unwrap_or_default(),
        notes_text: row.get::<_, Option<String>>(14)?.unwrap_or_default(),
        after: row.get::<_, Option<[u8; 16]>>(15)?.map(ChainDigest),
        digest: ChainDigest(row.get(16)?),
    })
}

/// A name that is not there any more reads as empty: the digest then finds it out.
fn stand(status: Option<i64>, state: Option<String>) -> Result<Option<Stand>, StoreError> {
    status.map(|status| Ok(Stand { status: codes::status_of(status)?, state: state.unwrap_or_default() })).transpose()
}
