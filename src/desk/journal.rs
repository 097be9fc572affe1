//! The turns of an instance as they are shown, and the replay that proves that they made it what it is.

use std::collections::HashMap;

use super::case::timer_name;
use super::words::{DeskError, Select};
use super::{Looker, Scene, messages};
use crate::api::{self, Format, Time};
use crate::engine::verify;
use crate::saga::correlate;
use crate::saga::event::{Given, Input, Message, Subject};
use crate::saga::instance::{Instance, Step};
use crate::saga::machine::Machine;
use crate::saga::step::step;
use crate::store::{JournalOrder, JournalRow, Stand, StoreError};

/// Turns of one read.
const PAGE: usize = 1_000;

impl Looker {
    pub(super) fn journal(
        &mut self,
        scene: &Scene,
        id: &str,
        reverse: bool,
        after: Option<u64>,
        limit: Option<u64>,
    ) -> Result<api::Turns, DeskError> {
        let (row, instance) = self.instance(id)?;
        let order = if reverse { JournalOrder::NewestFirst } else { JournalOrder::OldestFirst };
        let limit = limit.map_or(PAGE, |limit| usize::try_from(limit).unwrap_or(PAGE).min(PAGE));
        let rows = self.reader.journal(row.no, order, after, limit)?;
        let fired = rows.iter().any(|row| row.given().is_ok_and(|given| matches!(given.input, Input::Timer { .. })));
        let timers = if fired { self.timer_names(&instance)? } else { HashMap::new() };
        let turns = rows.iter().map(|row| turn(row, &instance, &timers, scene)).collect::<Result<_, _>>()?;
        Ok(api::Turns { format: Format, turns })
    }

    /// The names of timers that have fired are no longer in the instance: its turns are taken again to tell them.
    fn timer_names(&mut self, last: &Instance) -> Result<HashMap<u32, String>, DeskError> {
        let mut names = HashMap::new();
        let Some(machine) = self.machine(last.definition)? else { return Ok(names) };
        let Some((_, rows)) = self.reader.whole_journal(last.id.no())? else { return Ok(names) };
        let mut instance: Option<Instance> = None;
        for row in rows {
            let given = row.given()?;
            let before = instance.take().or_else(|| unborn(&machine, last, &given));
            let Some(before) = before else { break };
            let turn = step(&machine, &before, &given);
            for timer in &turn.instance.timers {
                names.entry(timer.serial).or_insert_with(|| timer_name(&timer.what, &turn.instance));
            }
            instance = Some(turn.instance);
        }
        Ok(names)
    }

    pub(super) fn verify(&self, scene: &Scene, select: &Select) -> Result<api::Verified, DeskError> {
        // A name that names nothing would otherwise look like a journal that holds.
        for id in &select.ids {
            self.find(id)?;
        }
        let mut wanted = Vec::new();
        self.all(scene, select, |row| {
            wanted.push(row.no);
            Ok(())
        })?;
        let mut verified = api::Verified { format: Format, checked: 0, other_version: 0, broken: Vec::new() };
        for no in wanted {
            let Some(row) = self.reader.instance_row(no)? else { continue };
            verified.checked += 1;
            let broken = |turn, what: String| api::Broken { id: row.id.to_string(), turn, what };
            match verify(&self.reader, no) {
                Ok(None) => {}
                Ok(Some(found)) => {
                    verified.other_version += u64::from(found.other_version > 0);
                    verified.broken.extend(found.broken.into_iter().map(|row| broken(Some(row.turn), row.what)));
                }
                // Damage is what is looked for; it is told like the rest.
                Err(error @ StoreError::Corrupt { .. }) => verified.broken.push(broken(None, error.to_string())),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(verified)
    }
}

/// The instance before its first turn.
fn unborn(machine: &Machine, last: &Instance, given: &Given) -> Option<Instance> {
    let Input::Start(message) = &given.input else { return None };
    let data = correlate::first_data(machine, message, given.at).ok()?;
    Some(Instance::fresh(machine, last.id, last.definition, last.key.clone(), data, message, given.at))
}

fn turn(
    row: &JournalRow,
    instance: &Instance,
    timers: &HashMap<u32, String>,
    scene: &Scene,
) -> Result<api::Turn, DeskError> {
    let given = row.given()?;
    let position = |stand: &Stand| api::Position { status: stand.status.name().to_owned(), state: stand.state.clone() };
    let nowhere = || api::Position { status: String::new(), state: String::new() };
    Ok(api::Turn {
        turn: row.turn,
        at: Time(row.at),
        cause: cause(&given.input, instance, timers),
        from: row.from.as_ref().map(position),
        to: row.to.as_ref().map_or_else(nowhere, position),
        changed: row.changed()?,
        notes: row.notes()?,
        messages: messages::views(&row.messages()?, Some(&instance.stamp()), &scene.addresses),
    })
}

fn cause(input: &Input, instance: &Instance, timers: &HashMap<u32, String>) -> api::Cause {
    let mut cause = api::Cause {
        kind: String::new(),
        event: None,
        body: None,
        message_id: None,
        command_id: None,
        timer: None,
        verb: None,
        by: None,
        reason: None,
        request_id: None,
    };
    let of = |index: u32| instance.steps.get(index as usize);
    match input {
        Input::Start(message) | Input::Event(message) => {
            "event".clone_into(&mut cause.kind);
            of_message(&mut cause, message);
        }
        Input::Answer { command, message } => {
            "reply".clone_into(&mut cause.kind);
            of_message(&mut cause, message);
            cause.command_id = Some(command.to_string());
        }
        Input::Timer { serial } => {
            "timer".clone_into(&mut cause.kind);
            cause.timer = Some(timers.get(serial).cloned().unwrap_or_else(|| serial.to_string()));
        }
        Input::Confirmed(subject) => {
            "confirm".clone_into(&mut cause.kind);
            cause.command_id = command_id(*subject, instance, of);
        }
        Input::Returned { subject, reason } => {
            "return".clone_into(&mut cause.kind);
            cause.command_id = command_id(*subject, instance, of);
            cause.reason = Some(reason.clone());
        }
        Input::Order(order) => {
            "order".clone_into(&mut cause.kind);
            cause.verb = Some(order.verb.name().to_owned());
            cause.by = Some(order.by.clone());
            cause.reason.clone_from(&order.reason);
            cause.request_id.clone_from(&order.request_id);
        }
        Input::Fault { fault, kept } => {
            cause = self::cause(kept, instance, timers);
            "fault".clone_into(&mut cause.kind);
            cause.reason = Some(format!("{}: {}", fault.kind.name(), fault.error));
        }
        Input::Stalled => "sweep".clone_into(&mut cause.kind),
    }
    cause
}

fn of_message(cause: &mut api::Cause, message: &Message) {
    cause.event = Some(message.kind.clone());
    cause.body = Some(message.body.clone());
    cause.message_id.clone_from(&message.id);
}

fn command_id<'a>(subject: Subject, instance: &Instance, step: impl Fn(u32) -> Option<&'a Step>) -> Option<String> {
    match subject {
        Subject::Step { index, .. } => step(index).map(|step| instance.command_id(step).to_string()),
        Subject::Undo { index, question, .. } => {
            step(index).map(|step| instance.undo_command_id(step, question).to_string())
        }
        Subject::Loose { .. } => None,
    }
}
