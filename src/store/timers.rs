//! Timers: a row each, beside the instance, because a limit begins only when the broker has the message.

use rusqlite::OptionalExtension;

use super::batch::Batch;
use super::codes::{count, signed, small, unsigned};
use super::error::StoreError;
use super::open::Store;
use super::rows::{Clock, DueTimer, SagaNo, TimerRow, TurnRow};
use crate::saga::ids::InstanceNo;
use crate::saga::instance::{Timer, TimerStart};

/// The lane of wall time; a saga's listening clock has the saga's number.
const WALL: i64 = 0;
/// What `remaining` says of a held timer that had not begun.
const NOT_BEGUN: i64 = -1;

impl Store {
    /// What is due on a clock, in order of due time.
    pub fn due_timers(&self, clock: Clock, upto: i64, limit: usize) -> Result<Vec<DueTimer>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT instance, serial, due FROM timer
             WHERE lane = ?1 AND due <= ?2 AND due IS NOT NULL ORDER BY due, instance, serial LIMIT ?3",
        )?;
        let mut rows = statement.query((lane(clock), upto, count(limit)))?;
        let mut due = Vec::new();
        while let Some(row) = rows.next()? {
            due.push(DueTimer {
                instance: InstanceNo(unsigned(row.get(0)?, "instance number")?),
                serial: small(row.get(1)?, "serial")?,
                due: row.get(2)?,
            });
        }
        Ok(due)
    }

    /// When the next timer of a clock is due.
    pub fn next_due(&self, clock: Clock) -> Result<Option<i64>, StoreError> {
        Ok(self
            .connection
            .prepare_cached("SELECT due FROM timer WHERE lane = ?1 AND due IS NOT NULL ORDER BY due LIMIT 1")?
            .query_row((lane(clock),), |row| row.get(0))
            .optional()?)
    }

    pub fn timers_of(&self, instance: InstanceNo) -> Result<Vec<TimerRow>, StoreError> {
        timers_of(&self.connection, instance)
    }

    /// The listening clocks as they were last written.
    pub fn listening(&self) -> Result<Vec<(SagaNo, u64)>, StoreError> {
        let mut statement = self.connection.prepare_cached("SELECT no, listening_ms FROM saga ORDER BY no")?;
        let mut rows = statement.query(())?;
        let mut clocks = Vec::new();
        while let Some(row) = rows.next()? {
            clocks.push((SagaNo(row.get(0)?), unsigned(row.get(1)?, "clock")?));
        }
        Ok(clocks)
    }
}

pub(super) fn timers_of(connection: &rusqlite::Connection, instance: InstanceNo) -> Result<Vec<TimerRow>, StoreError> {
    let mut statement = connection
        .prepare_cached("SELECT serial, lane, due, remaining FROM timer WHERE instance = ?1 ORDER BY serial")?;
    let mut rows = statement.query((signed(instance.0, "instance number")?,))?;
    let mut timers = Vec::new();
    while let Some(row) = rows.next()? {
        let remaining: Option<i64> = row.get(3)?;
        timers.push(TimerRow {
            serial: small(row.get(0)?, "serial")?,
            clock: match row.get(1)? {
                WALL => Clock::Wall,
                saga => Clock::Listening(SagaNo(saga)),
            },
            due: row.get(2)?,
            left_ms: remaining.and_then(|left| u64::try_from(left).ok()),
        });
    }
    Ok(timers)
}

fn lane(clock: Clock) -> i64 {
    match clock {
        Clock::Wall => WALL,
        Clock::Listening(saga) => saga.0,
    }
}

impl Batch<'_> {
    /// Writes a listening clock down.
    pub fn keep_listening(&mut self, saga: SagaNo, ms: u64) -> Result<(), StoreError> {
        self.run("UPDATE saga SET listening_ms = ?2 WHERE no = ?1", (saga.0, signed(ms, "clock")?))?;
        Ok(())
    }

    /// Begins a limit, if it is still there and has not begun: `after_ms` from now on the listening clock. Where its
    /// instance is held it begins with all of it left. Says whether there was one to begin.
    pub fn start_limit(
        &mut self,
        instance: InstanceNo,
        serial: u32,
        listening_ms: u64,
        after_ms: u64,
    ) -> Result<bool, StoreError> {
        let due = signed(listening_ms.saturating_add(after_ms), "due time")?;
        let started = self.run(
            "UPDATE timer SET due = CASE WHEN remaining IS NULL THEN ?3 END,
                              remaining = CASE WHEN remaining IS NULL THEN NULL ELSE ?4 END
             WHERE instance = ?1 AND serial = ?2 AND due IS NULL AND (remaining IS NULL OR remaining < 0)",
            (signed(instance.0, "instance number")?, serial, due, signed(after_ms, "duration")?),
        )?;
        Ok(started == 1)
    }

    /// Removes the row of a timer that has fired into a turn that wrote nothing, or into what is parked.
    pub fn spend_timer(&mut self, instance: InstanceNo, serial: u32) -> Result<(), StoreError> {
        self.run(
            "DELETE FROM timer WHERE instance = ?1 AND serial = ?2",
            (signed(instance.0, "instance number")?, serial),
        )?;
        Ok(())
    }

    pub(super) fn write_timers(&mut self, row: &TurnRow<'_>) -> Result<(), StoreError> {
        let empty: &[Timer] = &[];
        let old = row.before.map_or(empty, |before| &before.instance.timers);
        let new = &row.after.timers;
        let held = row.after.is_held();
        let was_held = row.before.is_some_and(|before| before.instance.is_held());
        if old.is_empty() && new.is_empty() {
            return Ok(());
        }
        let instance = signed(row.after.id.no().0, "instance number")?;
        let lane = self.name_saga(&row.after.saga)?.0;
        let now = signed(row.listening_ms, "clock")?;
        for gone in old.iter().filter(|timer| !new.iter().any(|kept| kept.serial == timer.serial)) {
            self.run("DELETE FROM timer WHERE instance = ?1 AND serial = ?2", (instance, gone.serial))?;
        }
        if held != was_held {
            self.turn_limits(held, instance, lane, now)?;
        }
        for timer in new.iter().filter(|timer| !old.iter().any(|known| known.same_row(timer))) {
            let (lane, due, remaining) = match timer.start {
                TimerStart::At(at) => (WALL, Some(at.0), None),
                TimerStart::Listening { after_ms } if held => (lane, None, Some(signed(after_ms, "duration")?)),
                TimerStart::Listening { after_ms } => {
                    (lane, Some(signed(row.listening_ms.saturating_add(after_ms), "due time")?), None)
                }
                TimerStart::Confirm { .. } if held => (lane, None, Some(NOT_BEGUN)),
                TimerStart::Confirm { .. } => (lane, None, None),
            };
            self.run(
                "INSERT INTO timer (instance, serial, lane, due, remaining) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT DO UPDATE SET lane = excluded.lane, due = excluded.due, remaining = excluded.remaining",
                (instance, timer.serial, lane, due, remaining),
            )?;
        }
        Ok(())
    }

    /// Keeps what is left of an instance's listening timers, or starts them again with it.
    fn turn_limits(&self, held: bool, instance: i64, lane: i64, now: i64) -> Result<usize, StoreError> {
        let sql = if held {
            "UPDATE timer SET remaining = CASE WHEN due IS NULL THEN -1 ELSE max(due - ?3, 0) END, due = NULL
             WHERE instance = ?1 AND lane = ?2 AND remaining IS NULL"
        } else {
            "UPDATE timer SET due = CASE WHEN remaining >= 0 THEN ?3 + remaining END, remaining = NULL
             WHERE instance = ?1 AND lane = ?2 AND remaining IS NOT NULL"
        };
        self.run(sql, (instance, lane, now))
    }
}

impl Timer {
    /// Nothing of the row has to be written anew.
    fn same_row(&self, other: &Timer) -> bool {
        self.serial == other.serial && self.start == other.start
    }
}
