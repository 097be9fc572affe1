//! What the broker does not have yet. The log is the outbox: a cursor tells how far the broker has it, and what fell behind
//! (nacked, returned, rejected) has a row of its own.

use std::collections::BTreeSet;

use rusqlite::{OptionalExtension, Row};

use super::batch::Batch;
use super::codes::{self, count, signed, small, unsigned};
use super::error::StoreError;
use super::open::Store;
use crate::saga::effect::{Outgoing, Stamp};
use crate::saga::event::Subject;
use crate::saga::ids::{DatabaseId, InstanceId, InstanceNo};
use crate::saga::time::Timestamp;

/// A message of a committed turn: the journal row, and its place among the row's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageRef {
    pub seq: i64,
    pub place: u32,
}

/// What is known of a message that fell behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StragglerOutcome {
    /// It was handed out again and nothing has been heard since.
    UnderWay,
    /// The connection went before it was told.
    Unknown,
    Nacked,
    /// No queue takes it.
    Returned,
    /// The broker closes the channel over it.
    Rejected,
}

impl StragglerOutcome {
    pub const ALL: [StragglerOutcome; 5] = [
        StragglerOutcome::UnderWay,
        StragglerOutcome::Unknown,
        StragglerOutcome::Nacked,
        StragglerOutcome::Returned,
        StragglerOutcome::Rejected,
    ];
}

/// What became of a message that fell behind, to be noted.
#[derive(Clone, Copy, Debug)]
pub struct Straggle<'a> {
    pub at: MessageRef,
    /// Whose message it is, and which question it carries; noted the first time.
    pub instance: Option<InstanceNo>,
    pub subject: Option<Subject>,
    pub outcome: StragglerOutcome,
    pub reason: Option<&'a str>,
    /// Somebody may have it: of one of its publishes it is not known that it was returned. Once so, always so.
    pub maybe_taken: bool,
    /// When it fell behind; noted the first time.
    pub since: Timestamp,
    /// When it is to be published again, on a clock of the engine's that begins anew with each opening of the database
    /// (when all that fell behind is due at once). `None`: not by itself.
    pub next_at: Option<u64>,
}

/// A message that fell behind, as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Straggler {
    pub outcome: StragglerOutcome,
    pub reason: Option<String>,
    /// How often its publishing failed.
    pub tries: u32,
    pub maybe_taken: bool,
    pub since: Timestamp,
}

/// A straggler that is to be published again.
#[derive(Clone, Debug, PartialEq)]
pub struct DueStraggler {
    pub at: MessageRef,
    pub message: Outgoing,
    pub maybe_taken: bool,
}

/// A piece of what has to go out.
#[derive(Clone, Debug, PartialEq)]
pub struct Unsent {
    /// In order of the commits, whole rows.
    pub messages: Vec<(MessageRef, Outgoing)>,
    /// Everything up to here is among them, or is a straggler.
    pub reached: i64,
    /// There is nothing behind it.
    pub whole: bool,
}

impl Store {
    /// Every message up to this row is with the broker, or a straggler.
    pub fn cursor(&self) -> i64 {
        self.scalars.cursor
    }

    /// The last row of the log when the database was opened: what stands up to here may have been published before.
    pub fn opened_at_seq(&self) -> i64 {
        self.opened_at_seq
    }

    /// Messages of rows behind `after` that are no stragglers: `room` of them, or more where one row has more.
    pub fn unsent(&self, after: i64, room: usize) -> Result<Unsent, StoreError> {
        unsent(&self.connection, self.database, after.max(self.scalars.cursor), room)
    }

    pub fn message(&self, message: MessageRef) -> Result<Option<Outgoing>, StoreError> {
        one_message(&self.connection, self.database, message)
    }

    pub fn count_stragglers(&self) -> Result<u64, StoreError> {
        let count = self
            .connection
            .prepare_cached("SELECT count(*) FROM straggler WHERE outcome <> 9")?
            .query_row((), |row| row.get(0))?;
        unsigned(count, "count")
    }

    /// How often a message failed; 0 for one that did not fall behind.
    pub fn straggler_tries(&self, at: MessageRef) -> Result<u32, StoreError> {
        let tries: Option<i64> = self
            .connection
            .prepare_cached("SELECT tries FROM straggler WHERE seq = ?1 AND place = ?2 AND outcome <> 9")?
            .query_row((at.seq, at.place), |row| row.get(0))
            .optional()?;
        tries.map_or(Ok(0), |tries| small(tries, "count"))
    }

    /// Stragglers whose time to be published again has come, in order of it.
    pub fn due_stragglers(&self, now: u64, limit: usize) -> Result<Vec<DueStraggler>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT seq, place, maybe_taken FROM straggler
             WHERE next_at IS NOT NULL AND next_at <= ?1 ORDER BY next_at, seq, place LIMIT ?2",
        )?;
        let mut rows = statement.query((signed(now, "time")?, count(limit)))?;
        let mut due = Vec::new();
        while let Some(row) = rows.next()? {
            let at = MessageRef { seq: row.get(0)?, place: small(row.get(1)?, "place")? };
            let message = self
                .message(at)?
                .ok_or_else(|| StoreError::corrupt(format!("row {} has no message {}", at.seq, at.place)))?;
            due.push(DueStraggler { at, message, maybe_taken: row.get(2)? });
        }
        Ok(due)
    }

    /// When the next straggler is to be published again.
    pub fn next_straggler(&self) -> Result<Option<u64>, StoreError> {
        self.connection
            .prepare_cached("SELECT next_at FROM straggler WHERE next_at IS NOT NULL ORDER BY next_at LIMIT 1")?
            .query_row((), |row| row.get(0))
            .optional()?
            .map(|at| unsigned(at, "time"))
            .transpose()
    }

    /// The stragglers that carry this question of an instance.
    pub fn stragglers_of(&self, instance: InstanceNo, subject: Subject) -> Result<Vec<MessageRef>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT seq, place FROM straggler WHERE instance = ?1 AND subject = ?2 AND outcome <> 9 ORDER BY seq, place",
        )?;
        let mut rows = statement.query((signed(instance.0, "instance number")?, subject_text(subject)))?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.push(MessageRef { seq: row.get(0)?, place: small(row.get(1)?, "place")? });
        }
        Ok(found)
    }

    /// Questions of an instance that nobody can have acted on: of each attempt every publish was returned.
    pub fn unreached(&self, instance: InstanceNo) -> Result<Vec<Subject>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT subject FROM straggler
             WHERE instance = ?1 AND outcome = 4 AND maybe_taken = 0 AND subject IS NOT NULL ORDER BY seq, place",
        )?;
        let mut rows = statement.query((signed(instance.0, "instance number")?,))?;
        let mut returned: Vec<Subject> = Vec::new();
        while let Some(row) = rows.next()? {
            let text: String = row.get(0)?;
            returned.push(read_subject(&text)?);
        }
        let all_attempts = |subject: &Subject| earlier_attempts(*subject).all(|earlier| returned.contains(&earlier));
        Ok(returned.iter().copied().filter(all_attempts).collect())
    }

    /// Instances with a message that the broker does not have.
    pub fn instances_unsent(&self) -> Result<BTreeSet<InstanceNo>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT instance FROM log WHERE seq > ?1 AND outgoing > 0 AND instance IS NOT NULL
             UNION SELECT instance FROM straggler WHERE outcome <> 9 AND instance IS NOT NULL",
        )?;
        let mut rows = statement.query((self.scalars.cursor,))?;
        let mut instances = BTreeSet::new();
        while let Some(row) = rows.next()? {
            instances.insert(InstanceNo(unsigned(row.get(0)?, "instance number")?));
        }
        Ok(instances)
    }

    /// What was under way when the last process ended may have arrived, or not. All that fell behind is due at once.
    pub(super) fn recover_stragglers(&mut self) -> Result<(), StoreError> {
        if self.count_stragglers()? == 0 {
            return Ok(());
        }
        self.connection.execute(
            "UPDATE straggler SET next_at = 0, maybe_taken = max(maybe_taken, outcome = ?1),
                    outcome = CASE outcome WHEN ?1 THEN ?2 ELSE outcome END
             WHERE outcome <> 9",
            (codes::outcome(StragglerOutcome::UnderWay), codes::outcome(StragglerOutcome::Unknown)),
        )?;
        Ok(())
    }
}

impl Batch<'_> {
    /// Moves the cursor forward: everything up to `seq` is with the broker, or a straggler.
    pub fn keep_cursor(&mut self, seq: i64) -> Result<(), StoreError> {
        if seq <= self.store.scalars.cursor {
            return Ok(());
        }
        self.run(
            "DELETE FROM straggler WHERE seq > ?1 AND seq <= ?2 AND outcome = 9",
            (self.store.scalars.cursor, seq),
        )?;
        self.store.scalars.cursor = seq;
        Ok(())
    }

    /// Notes that a message fell behind, or what became of it since; says whether it is the first time.
    pub fn straggle(&mut self, straggle: &Straggle<'_>) -> Result<bool, StoreError> {
        let at = straggle.at;
        let maybe_taken = straggle.maybe_taken || straggle.outcome != StragglerOutcome::Returned;
        let again = self.run(
            "UPDATE straggler SET outcome = ?3, reason = ?4, tries = tries + 1, maybe_taken = max(maybe_taken, ?5),
                    next_at = ?6
             WHERE seq = ?1 AND place = ?2 AND outcome <> 9",
            (
                at.seq,
                at.place,
                codes::outcome(straggle.outcome),
                straggle.reason,
                maybe_taken,
                next_at(straggle.next_at)?,
            ),
        )?;
        if again == 1 {
            return Ok(false);
        }
        // What stood in the log when the database was opened may have gone out in the process before.
        let maybe_taken = maybe_taken || at.seq <= self.store.opened_at_seq;
        self.run(
            "INSERT INTO straggler (seq, place, instance, subject, outcome, reason, tries, maybe_taken, since, next_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, 1, ?7, ?8, ?9)
             ON CONFLICT DO UPDATE SET outcome = excluded.outcome, reason = excluded.reason, tries = excluded.tries,
                    maybe_taken = excluded.maybe_taken, since = excluded.since, next_at = excluded.next_at",
            (
                at.seq,
                at.place,
                straggle.instance.map(|no| signed(no.0, "instance number")).transpose()?,
                straggle.subject.map(subject_text),
                codes::outcome(straggle.outcome),
                straggle.reason,
                maybe_taken,
                straggle.since.0,
                next_at(straggle.next_at)?,
            ),
        )?;
        Ok(true)
    }

    /// A straggler is handed out again. On record before it goes: after a crash nobody knows whether it went.
    pub fn straggler_under_way(&mut self, at: MessageRef) -> Result<(), StoreError> {
        self.run(
            "UPDATE straggler SET outcome = ?3, next_at = NULL WHERE seq = ?1 AND place = ?2 AND outcome <> 9",
            (at.seq, at.place, codes::outcome(StragglerOutcome::UnderWay)),
        )?;
        Ok(())
    }

    /// A straggler is to be published again at `now`, whatever pause it was given. One that is under way stays so.
    pub fn straggler_due(&mut self, at: MessageRef, now: u64) -> Result<(), StoreError> {
        self.run(
            "UPDATE straggler SET next_at = ?3 WHERE seq = ?1 AND place = ?2 AND outcome NOT IN (1, 9)",
            (at.seq, at.place, signed(now, "time")?),
        )?;
        Ok(())
    }

    /// All stragglers are to be published again at `now`: the connection is new. What was under way on the old one may
    /// have arrived, or not. What the broker closes the channel over stays where it is, or no connection would last.
    pub fn stragglers_due(&mut self, now: u64) -> Result<(), StoreError> {
        self.run(
            "UPDATE straggler SET next_at = ?1, maybe_taken = max(maybe_taken, outcome = 1),
                    outcome = CASE outcome WHEN 1 THEN 2 ELSE outcome END
             WHERE outcome NOT IN (5, 9)",
            (signed(now, "time")?,),
        )?;
        Ok(())
    }

    /// A straggler is confirmed, or withdrawn: it is not published again. One that the cursor has not passed keeps a mark,
    /// so that a restart does not take it for unsent. Says whether it was one.
    pub fn settle(&mut self, at: MessageRef) -> Result<bool, StoreError> {
        let sql = if at.seq <= self.store.scalars.cursor {
            "DELETE FROM straggler WHERE seq = ?1 AND place = ?2 AND outcome <> 9"
        } else {
            "UPDATE straggler SET outcome = 9, next_at = NULL WHERE seq = ?1 AND place = ?2 AND outcome <> 9"
        };
        Ok(self.run(sql, (at.seq, at.place))? == 1)
    }
}

fn next_at(at: Option<u64>) -> Result<Option<i64>, StoreError> {
    at.map(|at| signed(at, "time")).transpose()
}

pub(super) fn unsent(
    connection: &rusqlite::Connection,
    database: DatabaseId,
    after: i64,
    room: usize,
) -> Result<Unsent, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT l.seq, l.messages, l.instance, i.key, s.name FROM log l
         LEFT JOIN instance i ON i.no = l.instance LEFT JOIN saga s ON s.no = i.saga
         WHERE l.seq > ?1 AND l.outgoing > 0 ORDER BY l.seq",
    )?;
    let mut behind =
        connection.prepare_cached("SELECT EXISTS (SELECT 1 FROM straggler WHERE seq = ?1 AND place = ?2)")?;
    let mut rows = statement.query((after,))?;
    let mut piece = Unsent { messages: Vec::new(), reached: after, whole: true };
    while let Some(row) = rows.next()? {
        let seq: i64 = row.get(0)?;
        let all = messages_of(row, database)?;
        if !piece.messages.is_empty() && piece.messages.len() + all.len() > room {
            piece.whole = false;
            break;
        }
        for (place, outgoing) in (0_u32..).zip(all) {
            let is_straggler: bool = behind.query_row((seq, place), |row| row.get(0))?;
            if !is_straggler {
                piece.messages.push((MessageRef { seq, place }, outgoing));
            }
        }
        piece.reached = seq;
    }
    if piece.whole {
        piece.reached = last_row(connection)?.max(after);
    }
    Ok(piece)
}

/// The last row of the log, with messages or not.
fn last_row(connection: &rusqlite::Connection) -> Result<i64, StoreError> {
    Ok(connection.prepare_cached("SELECT coalesce(max(seq), 0) FROM log")?.query_row((), |row| row.get(0))?)
}

pub(super) fn one_message(
    connection: &rusqlite::Connection,
    database: DatabaseId,
    message: MessageRef,
) -> Result<Option<Outgoing>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT l.seq, l.messages, l.instance, i.key, s.name FROM log l
         LEFT JOIN instance i ON i.no = l.instance LEFT JOIN saga s ON s.no = i.saga
         WHERE l.seq = ?1 AND l.outgoing > 0",
    )?;
    let mut rows = statement.query((message.seq,))?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let place = usize::try_from(message.place).unwrap_or(usize::MAX);
    Ok(messages_of(row, database)?.into_iter().nth(place))
}

/// The messages of a row `(seq, messages, instance, key, saga)`, each with its instance's names.
fn messages_of(row: &Row<'_>, database: DatabaseId) -> Result<Vec<Outgoing>, StoreError> {
    let seq: i64 = row.get(0)?;
    let text: String = row.get(1)?;
    let mut messages: Vec<Outgoing> = serde_json::from_str(&text)
        .map_err(|error| StoreError::corrupt(format!("the messages of row {seq} cannot be read: {error}")))?;
    let instance: Option<i64> = row.get(2)?;
    if let Some(no) = instance {
        let stamp = Stamp {
            id: InstanceId::new(InstanceNo(unsigned(no, "instance number")?), database),
            saga: row.get(4)?,
            key: row.get(3)?,
        };
        for message in &mut messages {
            message.stamp = Some(stamp.clone());
        }
    }
    Ok(messages)
}

/// Of a row `(seq, place, outcome, reason, tries, maybe_taken, since)`.
pub(super) fn straggler(row: &Row<'_>) -> Result<(MessageRef, Straggler), StoreError> {
    Ok((
        MessageRef { seq: row.get(0)?, place: small(row.get(1)?, "place")? },
        Straggler {
            outcome: codes::outcome_of(row.get(2)?)?,
            reason: row.get(3)?,
            tries: small(row.get(4)?, "count")?,
            maybe_taken: row.get(5)?,
            since: Timestamp(row.get(6)?),
        },
    ))
}

fn subject_text(subject: Subject) -> String {
    serde_json::to_string(&subject).expect("a subject always serialises")
}

fn read_subject(text: &str) -> Result<Subject, StoreError> {
    serde_json::from_str(text).map_err(|error| StoreError::corrupt(format!("the subject of a message: {error}")))
}

/// The same question's attempts before this one.
fn earlier_attempts(subject: Subject) -> impl Iterator<Item = Subject> {
    let (last, make): (u32, Box<dyn Fn(u32) -> Subject>) = match subject {
        Subject::Step { index, attempt } => (attempt, Box::new(move |attempt| Subject::Step { index, attempt })),
        Subject::Undo { index, question, attempt } => {
            (attempt, Box::new(move |attempt| Subject::Undo { index, question, attempt }))
        }
        Subject::Loose { .. } => (1, Box::new(move |_| subject)),
    };
    (1..last).map(make)
}
