//! The turns of an instance as they are shown, and the replay that proves that they made it what it is.

use super::case::timer_name;
use super::words::{DeskError, Select};
use super::{Looker, Scene, messages};
use crate::api::{self, Format, Time};
use crate::engine::verify;
use crate::saga::event::{Input, Message, Subject};
use crate::saga::instance::{Instance, Step};
use crate::store::{JournalOrder, JournalRow, Stand, StoreError};

/// Turns of one read.
const PAGE: usize = 1_000;

impl Looker {
    pub(super) fn journal(
        &self,
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
        let turns = rows.iter().map(|row| turn(row, &instance, scene)).collect::<Result<_, _>>()?;
        Ok(api::Turns { format: Format, turns })
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

fn turn(row: &JournalRow, instance: &Instance, scene: &Scene) -> Result<api::Turn, DeskError> {
    let given = row.given()?;
    let position = |stand: &Stand| api::Position { status: stand.status.name().to_owned(), state: stand.state.clone() };
    let nowhere = || api::Position { status: String::new(), state: String::new() };
    Ok(api::Turn {
        turn: row.turn,
        at: Time(row.at),
        cause: cause(&given.input, instance),
        from: row.from.as_ref().map(position),
        to: row.to.as_ref().map_or_else(nowhere, position),
        changed: row.changed()?,
        notes: row.notes()?,
        messages: messages::views(&row.messages()?, Some(&instance.stamp()), &scene.addresses),
    })
}

fn cause(input: &Input, instance: &Instance) -> api::Cause {
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
    let step = |index: u32| instance.steps.get(index as usize);
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
            // A timer that has fired is gone from the instance: then its number is all that is left of it.
            let known = instance.timers.iter().find(|timer| timer.serial == *serial);
            cause.timer = Some(known.map_or_else(|| serial.to_string(), |timer| timer_name(&timer.what, instance)));
        }
        Input::Confirmed(subject) => {
            "confirm".clone_into(&mut cause.kind);
            cause.command_id = command_id(*subject, instance, step);
        }
        Input::Returned { subject, reason } => {
            "return".clone_into(&mut cause.kind);
            cause.command_id = command_id(*subject, instance, step);
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
            cause = self::cause(kept, instance);
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
