//! What the broker does not have yet. The log is the outbox: a cursor tells how far the broker has it, and what fell behind
//! (nacked, returned, rejected) has a row of its own.

use rusqlite::{OptionalExtension, Row};

use super::batch::Batch;
use super::codes::{self, signed, small, unsigned};
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

/// A message that fell behind.
#[derive(Clone, Debug, PartialEq)]
pub struct Straggler {
    pub outcome: StragglerOutcome,
    pub reason: Option<String>,
    /// How often it has been published.
    pub tries: u32,
    /// Somebody may have it: of one of its publishes it is not known that it was returned. Once so, always so.
    pub maybe_taken: bool,
    /// When it fell behind; kept from the first time.
    pub since: Timestamp,
    /// When it is to be published again; `None`: not by itself.
    pub next_at: Option<Timestamp>,
}

/// A piece of what has to go out.
#[derive(Clone, Debug, PartialEq)]
pub struct Unsent {
    /// In order of the commits.
    pub messages: Vec<(MessageRef, Outgoing)>,
    /// Where the next piece begins; `None`: that was all.
    pub upto: Option<i64>,
}

impl Store {
    /// Every message up to this row is with the broker, or a straggler.
    pub fn cursor(&self) -> i64 {
        self.scalars.cursor
    }

    /// Messages of rows behind `after` that are no stragglers, from at most `limit` rows.
    pub fn unsent(&self, after: i64, limit: u32) -> Result<Unsent, StoreError> {
        unsent(&self.connection, self.database, after.max(self.scalars.cursor), limit)
    }

    pub fn message(&self, message: MessageRef) -> Result<Option<Outgoing>, StoreError> {
        one_message(&self.connection, self.database, message)
    }

    pub fn straggler(&self, message: MessageRef) -> Result<Option<Straggler>, StoreError> {
        let row = self
            .connection
            .prepare_cached(
                "SELECT seq, place, outcome, reason, tries, maybe_taken, since, next_at FROM straggler
                 WHERE seq = ?1 AND place = ?2 AND outcome <> 9",
            )?
            .query_row((message.seq, message.place), |row| Ok(straggler(row)))
            .optional()?;
        row.transpose().map(|found| found.map(|(_, straggler)| straggler))
    }

    /// Stragglers whose time to be published again has come, in order of it.
    pub fn stragglers_due(&self, now: Timestamp, limit: u32) -> Result<Vec<(MessageRef, Straggler)>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT seq, place, outcome, reason, tries, maybe_taken, since, next_at FROM straggler
             WHERE next_at IS NOT NULL AND next_at <= ?1 ORDER BY next_at, seq, place LIMIT ?2",
        )?;
        let mut rows = statement.query((now.0, limit))?;
        let mut due = Vec::new();
        while let Some(row) = rows.next()? {
            due.push(straggler(row)?);
        }
        Ok(due)
    }

    pub fn next_straggler(&self) -> Result<Option<Timestamp>, StoreError> {
        Ok(self
            .connection
            .prepare_cached("SELECT next_at FROM straggler WHERE next_at IS NOT NULL ORDER BY next_at LIMIT 1")?
            .query_row((), |row| row.get(0))
            .optional()?
            .map(Timestamp))
    }

    /// The straggler that carries this question of an instance.
    pub fn straggler_of(&self, instance: InstanceNo, subject: Subject) -> Result<Option<MessageRef>, StoreError> {
        self.connection
            .prepare_cached(
                "SELECT seq, place FROM straggler WHERE instance = ?1 AND subject = ?2 AND outcome <> 9
                 ORDER BY seq DESC LIMIT 1",
            )?
            .query_row((signed(instance.0, "instance number")?, subject_text(subject)), |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .optional()?
            .map(|(seq, place)| Ok(MessageRef { seq, place: small(place, "place")? }))
            .transpose()
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
    pub fn instances_unsent(&self) -> Result<std::collections::BTreeSet<InstanceNo>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT instance FROM log WHERE seq > ?1 AND outgoing > 0 AND instance IS NOT NULL
             UNION SELECT instance FROM straggler WHERE outcome <> 9 AND instance IS NOT NULL",
        )?;
        let mut rows = statement.query((self.scalars.cursor,))?;
        let mut instances = std::collections::BTreeSet::new();
        while let Some(row) = rows.next()? {
            instances.insert(InstanceNo(unsigned(row.get(0)?, "instance number")?));
        }
        Ok(instances)
    }

    /// What was under way when the last process ended may have arrived, or not; it goes out again at once.
    pub(super) fn recover_stragglers(&mut self) -> Result<(), StoreError> {
        let under_way = codes::outcome(StragglerOutcome::UnderWay);
        let any: bool = self.connection.query_row(
            "SELECT EXISTS (SELECT 1 FROM straggler WHERE outcome = ?1)",
            (under_way,),
            |row| row.get(0),
        )?;
        if any {
            self.connection.execute(
                "UPDATE straggler SET outcome = ?2, maybe_taken = 1, next_at = coalesce(next_at, since) WHERE outcome = ?1",
                (under_way, codes::outcome(StragglerOutcome::Unknown)),
            )?;
        }
        Ok(())
    }
}

impl Batch<'_> {
    /// Moves the cursor forward: everything up to `seq` is with the broker, or a straggler.
    pub fn advance_cursor(&mut self, seq: i64) -> Result<(), StoreError> {
        if seq <= self.store.scalars.cursor {
            return Ok(());
        }
        self.run("DELETE FROM straggler WHERE seq > ?1 AND seq <= ?2 AND outcome = 9", (self.store.scalars.cursor, seq))?;
        self.store.scalars.cursor = seq;
        Ok(())
    }

    /// Notes that a message fell behind, or what became of it since.
    pub fn straggle(&mut self, message: MessageRef, straggler: &Straggler) -> Result<(), StoreError> {
        let known = self.store.straggler(message)?;
        // What stood in the log when the database was opened may have gone out in the process before.
        let maybe_taken = straggler.maybe_taken
            || !matches!(straggler.outcome, StragglerOutcome::Returned | StragglerOutcome::UnderWay)
            || known.as_ref().map_or(message.seq <= self.store.opened_at_seq, |known| known.maybe_taken);
        let (instance, subject) = match known {
            Some(_) => (None, None),
            None => self.store.owner(message)?,
        };
        self.run(
            "INSERT INTO straggler (seq, place, instance, subject, outcome, reason, tries, maybe_taken, since, next_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
             ON CONFLICT DO UPDATE SET outcome = excluded.outcome, reason = excluded.reason, tries = excluded.tries,
                    maybe_taken = excluded.maybe_taken, next_at = excluded.next_at",
            (
                message.seq,
                message.place,
                instance,
                subject,
                codes::outcome(straggler.outcome),
                &straggler.reason,
                straggler.tries,
                maybe_taken,
                straggler.since.0,
                straggler.next_at.map(|at| at.0),
            ),
        )?;
        Ok(())
    }

    /// A straggler is confirmed, or withdrawn: it is not published again. One that the cursor has not passed keeps a mark,
    /// so that a restart does not take it for unsent. Nothing to do for a message that is no straggler.
    pub fn settle(&mut self, message: MessageRef) -> Result<(), StoreError> {
        if message.seq <= self.store.scalars.cursor {
            self.run("DELETE FROM straggler WHERE seq = ?1 AND place = ?2", (message.seq, message.place))?;
        } else {
            self.run(
                "UPDATE straggler SET outcome = 9, next_at = NULL WHERE seq = ?1 AND place = ?2",
                (message.seq, message.place),
            )?;
        }
        Ok(())
    }
}

impl Store {
    /// Whose message it is, and which question it carries.
    fn owner(&self, message: MessageRef) -> Result<(Option<i64>, Option<String>), StoreError> {
        let Some(outgoing) = self.message(message)? else {
            return Err(StoreError::defect(format!("there is no message {} in row {}", message.place, message.seq)));
        };
        let instance = outgoing.stamp.map(|stamp| signed(stamp.id.no().0, "instance number")).transpose()?;
        Ok((instance, outgoing.command.map(|command| subject_text(command.subject))))
    }
}

pub(super) fn unsent(
    connection: &rusqlite::Connection,
    database: DatabaseId,
    after: i64,
    limit: u32,
) -> Result<Unsent, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT l.seq, l.messages, l.instance, i.key, s.name FROM log l
         LEFT JOIN instance i ON i.no = l.instance LEFT JOIN saga s ON s.no = i.saga
         WHERE l.seq > ?1 AND l.outgoing > 0 ORDER BY l.seq LIMIT ?2",
    )?;
    let mut behind =
        connection.prepare_cached("SELECT EXISTS (SELECT 1 FROM straggler WHERE seq = ?1 AND place = ?2)")?;
    let mut rows = statement.query((after, limit))?;
    let mut piece = Unsent { messages: Vec::new(), upto: None };
    let mut count = 0;
    while let Some(row) = rows.next()? {
        let seq: i64 = row.get(0)?;
        count += 1;
        piece.upto = Some(seq);
        for (place, outgoing) in (0_u32..).zip(messages_of(row, database)?) {
            let is_straggler: bool = behind.query_row((seq, place), |row| row.get(0))?;
            if !is_straggler {
                piece.messages.push((MessageRef { seq, place }, outgoing));
            }
        }
    }
    if count < limit {
        piece.upto = None;
    }
    Ok(piece)
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

/// Of a row `(seq, place, outcome, reason, tries, maybe_taken, since, next_at)`.
pub(super) fn straggler(row: &Row<'_>) -> Result<(MessageRef, Straggler), StoreError> {
    Ok((
        MessageRef { seq: row.get(0)?, place: small(row.get(1)?, "place")? },
        Straggler {
            outcome: codes::outcome_of(row.get(2)?)?,
            reason: row.get(3)?,
            tries: small(row.get(4)?, "count")?,
            maybe_taken: row.get(5)?,
            since: Timestamp(row.get(6)?),
            next_at: row.get::<_, Option<i64>>(7)?.map(Timestamp),
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
