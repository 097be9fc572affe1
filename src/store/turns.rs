//! Turns: loading an instance, and writing what a turn made of it.

use rusqlite::{OptionalExtension, Row};
use xxhash_rust::xxh3::Xxh3;

use super::batch::Batch;
use super::chain::{Link, body_digest, link_digest};
use super::codes::{self, signed, unsigned};
use super::error::StoreError;
use super::open::Store;
use super::rows::{ChainDigest, Head, Stand, Stored, TurnRow, Weight};
use crate::saga::effect::Outgoing;
use crate::saga::ids::InstanceNo;
use crate::saga::instance::Instance;
use crate::saga::step::RULES;
use crate::saga::time::Timestamp;

/// What an instance's row says of it besides the body. All of it, and the body, is under the row's checksum.
#[derive(Debug, PartialEq)]
pub(super) struct Columns {
    pub(super) no: i64,
    pub(super) saga: i64,
    pub(super) key: String,
    pub(super) definition: i64,
    pub(super) status: i64,
    pub(super) marks: i64,
    pub(super) state: i64,
    pub(super) incident: Option<i64>,
    pub(super) outcome: Option<String>,
    pub(super) turn: i64,
    pub(super) moved: i64,
    pub(super) started_at: i64,
    pub(super) updated_at: i64,
    pub(super) ended_at: Option<i64>,
    pub(super) seq: i64,
    pub(super) digest: [u8; 16],
}

macro_rules! columns {
    () => {
        "no, saga, key, definition, status, marks, state, incident, outcome, turn, moved, started_at, updated_at, \
         ended_at, seq, digest, checksum, body"
    };
}

impl Columns {
    fn read(row: &Row<'_>) -> rusqlite::Result<(Columns, i64, Vec<u8>)> {
        let columns = Columns {
            no: row.get(0)?,
            saga: row.get(1)?,
            key: row.get(2)?,
            definition: row.get(3)?,
            status: row.get(4)?,
            marks: row.get(5)?,
            state: row.get(6)?,
            incident: row.get(7)?,
            outcome: row.get(8)?,
            turn: row.get(9)?,
            moved: row.get(10)?,
            started_at: row.get(11)?,
            updated_at: row.get(12)?,
            ended_at: row.get(13)?,
            seq: row.get(14)?,
            digest: row.get(15)?,
        };
        Ok((columns, row.get(16)?, row.get(17)?))
    }

    fn checksum(&self, body: &[u8]) -> i64 {
        let mut hash = Xxh3::new();
        for number in [
            self.no,
            self.saga,
            self.definition,
            self.status,
            self.marks,
            self.state,
            self.incident.unwrap_or(-1),
            self.turn,
            self.moved,
            self.started_at,
            self.updated_at,
            self.ended_at.unwrap_or(i64::MIN),
            self.seq,
        ] {
            hash.update(&number.to_le_bytes());
        }
        for text in [self.key.as_bytes(), self.outcome.as_deref().unwrap_or("\0").as_bytes(), &self.digest, body] {
            hash.update(&text.len().to_le_bytes());
            hash.update(text);
        }
        hash.digest().cast_signed()
    }
}

/// An instance's row, whole and checked, with the body as it is stored.
pub(super) struct CheckedRow {
    pub(super) head: Head,
    pub(super) body: Vec<u8>,
}

impl CheckedRow {
    pub(super) fn instance(&self, no: InstanceNo) -> Result<Instance, StoreError> {
        serde_json::from_slice(&self.body)
            .map_err(|error| StoreError::corrupt(format!("instance {} cannot be read: {error}", no.0)))
    }
}

pub(super) fn checked_row(connection: &rusqlite::Connection, no: InstanceNo) -> Result<Option<CheckedRow>, StoreError> {
    let row = connection
        .prepare_cached(concat!("SELECT ", columns!(), " FROM instance WHERE no = ?1"))?
        .query_row((signed(no.0, "instance number")?,), Columns::read)
        .optional()?;
    let Some((columns, checksum, body)) = row else { return Ok(None) };
    if columns.checksum(&body) != checksum {
        return Err(StoreError::corrupt(format!("the row of instance {} fails its checksum", no.0)));
    }
    Ok(Some(CheckedRow { head: Head { seq: columns.seq, digest: ChainDigest(columns.digest) }, body }))
}

impl Store {
    pub fn instance(&self, no: InstanceNo) -> Result<Option<Stored>, StoreError> {
        let Some(row) = checked_row(&self.connection, no)? else { return Ok(None) };
        Ok(Some(Stored { instance: row.instance(no)?, head: row.head }))
    }

    /// The newest instance of a saga with this key, whatever its status.
    pub fn newest_by_key(&self, saga: &str, key: &str) -> Result<Option<InstanceNo>, StoreError> {
        self.by_key("SELECT no FROM instance WHERE saga = ?1 AND key = ?2 ORDER BY no DESC LIMIT 1", saga, key)
    }

    /// The newest one that has not ended.
    pub fn live_by_key(&self, saga: &str, key: &str) -> Result<Option<InstanceNo>, StoreError> {
        self.by_key(
            "SELECT no FROM instance WHERE saga = ?1 AND key = ?2 AND +ended_at IS NULL ORDER BY no DESC LIMIT 1",
            saga,
            key,
        )
    }

    fn by_key(&self, sql: &'static str, saga: &str, key: &str) -> Result<Option<InstanceNo>, StoreError> {
        let Some(saga) = self.saga_no(saga) else { return Ok(None) };
        let no: Option<i64> =
            self.connection.prepare_cached(sql)?.query_row((saga.0, key), |row| row.get(0)).optional()?;
        no.map(|no| Ok(InstanceNo(unsigned(no, "instance number")?))).transpose()
    }
}

impl Batch<'_> {
    /// Appends the turn to the log and writes the instance, its timers and its incidents.
    pub fn save_turn(&mut self, row: &TurnRow<'_>) -> Result<Head, StoreError> {
        let after = row.after;
        let expected = row.before.map_or(0, |before| before.instance.turn) + 1;
        if after.turn != expected || row.before.is_some_and(|before| before.instance.id != after.id) {
            return Err(StoreError::defect(format!(
                "turn {} of instance {} does not follow turn {}",
                after.turn,
                after.id,
                expected - 1
            )));
        }
        let body = serde_json::to_vec(after).expect("an instance always serialises");
        let head = self.append_turn(row, &body)?;
        self.write_instance(row.before.map(|before| &before.instance), after, head, &body)?;
        self.write_timers(row)?;
        self.write_incidents(row)?;
        if let Some(before) = row.before {
            self.tally(&before.instance, -1)?;
        }
        self.tally(after, 1)?;
        Ok(head)
    }

    /// Messages of no instance: what a person publishes. They go out like any others.
    pub fn append_loose(&mut self, at: Timestamp, messages: &[Outgoing]) -> Result<i64, StoreError> {
        let text = messages_text(messages).unwrap_or_default();
        let link = Link {
            instance: 0,
            turn: 0,
            at: at.0,
            rules: RULES,
            weight: Weight::Noted,
            from: None,
            to: None,
            given: "",
            messages: &text,
            changed: "",
            notes: "",
            after: None,
        };
        self.run(
            "INSERT INTO log (instance, turn, at, rules, weight, outgoing, messages, digest)
             VALUES (NULL, 0, ?1, ?2, 0, ?3, ?4, ?5)",
            (at.0, RULES, codes::count(messages.len()), &text, link_digest(None, &link).0),
        )?;
        Ok(self.store.connection.last_insert_rowid())
    }

    fn append_turn(&mut self, row: &TurnRow<'_>, body: &[u8]) -> Result<Head, StoreError> {
        let from = row.before.map(|before| Stand::of(&before.instance));
        let to = Stand::of(row.after);
        let given = serde_json::to_string(row.given).expect("an input always serialises");
        let messages = messages_text(row.messages);
        let changed = list_text(row.changed);
        let notes = list_text(row.notes);
        let after = body_digest(body);
        let link = Link {
            instance: row.after.id.no().0,
            turn: row.after.turn,
            at: row.given.at.0,
            rules: RULES,
            weight: row.weight,
            from: from.as_ref(),
            to: Some(&to),
            given: &given,
            messages: messages.as_deref().unwrap_or_default(),
            changed: changed.as_deref().unwrap_or_default(),
            notes: notes.as_deref().unwrap_or_default(),
            after: Some(after),
        };
        let digest = link_digest(row.before.map(|before| before.head.digest), &link);
        let from_state = from.as_ref().map(|from| self.name_state(&from.state)).transpose()?;
        let to_state = self.name_state(&to.state)?;
        self.run(
            "INSERT INTO log (instance, turn, prev, at, rules, weight, from_status, from_state, to_status, to_state,
                              outgoing, given, messages, changed, notes, after, digest)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)",
            rusqlite::params![
                signed(link.instance, "instance number")?,
                signed(link.turn, "turn")?,
                row.before.map(|before| before.head.seq),
                link.at,
                RULES,
                codes::weight(row.weight),
                from.as_ref().map(|from| codes::status(from.status)),
                from_state,
                codes::status(to.status),
                to_state,
                codes::count(row.messages.len()),
                given,
                messages,
                changed,
                notes,
                after.0,
                digest.0,
            ],
        )?;
        Ok(Head { seq: self.store.connection.last_insert_rowid(), digest })
    }

    fn write_instance(
        &mut self,
        before: Option<&Instance>,
        after: &Instance,
        head: Head,
        body: &[u8],
    ) -> Result<(), StoreError> {
        let columns = Columns {
            no: signed(after.id.no().0, "instance number")?,
            saga: self.name_saga(&after.saga)?.0,
            key: after.key.clone(),
            definition: after.definition.0,
            status: codes::status(after.status),
            marks: codes::marks(after.marks()),
            state: self.name_state(&after.state)?,
            incident: after.incidents.first().map(|incident| codes::incident(incident.kind)),
            outcome: after.outcome.clone(),
            turn: signed(after.turn, "turn")?,
            moved: signed(after.moved, "turn")?,
            started_at: after.started_at.0,
            updated_at: after.updated_at.0,
            ended_at: after.ended_at.map(|at| at.0),
            seq: head.seq,
            digest: head.digest.0,
        };
        let checksum = columns.checksum(body);
        // A statement that names an indexed column rewrites its index, changed or not: so the common case has one of its own.
        let same_indexes = before.is_some_and(|before| {
            before.ended_at == after.ended_at
                && before.status == after.status
                && codes::marks(before.marks()) == columns.marks
                && before.saga == after.saga
                && before.key == after.key
        });
        let written = if same_indexes {
            self.update_unindexed(&columns, checksum, body)?
        } else {
            self.replace_row(before.is_some(), &columns, checksum, body)?
        };
        if written == 1 {
            Ok(())
        } else {
            Err(StoreError::corrupt(format!("the row of instance {} is not there to be written", columns.no)))
        }
    }

    fn update_unindexed(&self, columns: &Columns, checksum: i64, body: &[u8]) -> Result<usize, StoreError> {
        self.run(
            "UPDATE instance SET definition = ?2, state = ?3, incident = ?4, outcome = ?5, turn = ?6, moved = ?7,
                    updated_at = ?8, seq = ?9, digest = ?10, checksum = ?11, body = ?12 WHERE no = ?1",
            rusqlite::params![
                columns.no,
                columns.definition,
                columns.state,
                columns.incident,
                columns.outcome,
                columns.turn,
                columns.moved,
                columns.updated_at,
                columns.seq,
                columns.digest,
                checksum,
                body,
            ],
        )
    }

    fn replace_row(&self, there: bool, columns: &Columns, checksum: i64, body: &[u8]) -> Result<usize, StoreError> {
        let sql = if there {
            "UPDATE instance SET saga = ?2, key = ?3, definition = ?4, status = ?5, marks = ?6, state = ?7, incident = ?8,
                    outcome = ?9, turn = ?10, moved = ?11, started_at = ?12, updated_at = ?13, ended_at = ?14, seq = ?15,
                    digest = ?16, checksum = ?17, body = ?18 WHERE no = ?1"
        } else {
            concat!(
                "INSERT INTO instance (",
                columns!(),
                ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)"
            )
        };
        self.run(
            sql,
            rusqlite::params![
                columns.no,
                columns.saga,
                columns.key,
                columns.definition,
                columns.status,
                columns.marks,
                columns.state,
                columns.incident,
                columns.outcome,
                columns.turn,
                columns.moved,
                columns.started_at,
                columns.updated_at,
                columns.ended_at,
                columns.seq,
                columns.digest,
                checksum,
                body,
            ],
        )
    }
}

/// `None` where there are none.
fn messages_text(messages: &[Outgoing]) -> Option<String> {
    (!messages.is_empty()).then(|| serde_json::to_string(messages).expect("messages always serialise"))
}

fn list_text(list: &[String]) -> Option<String> {
    (!list.is_empty()).then(|| serde_json::to_string(list).expect("texts always serialise"))
}
