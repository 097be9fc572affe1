//! `journal --verify`: tries the chain of a journal, and replays it through the core, byte for byte.

use super::turn::{STARTED_ALREADY, noted};
use crate::saga::compile::compile_stored;
use crate::saga::correlate::first_data;
use crate::saga::effect::{Effect, Outgoing};
use crate::saga::event::{Given, Input};
use crate::saga::ids::InstanceNo;
use crate::saga::incident::IncidentKind;
use crate::saga::instance::Instance;
use crate::saga::machine::Machine;
use crate::saga::step::{Outcome, RULES, Turn, step};
use crate::store::{JournalRow, Reader, StoreError, verify_chain};

/// What the verification of one instance's journal found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Turns that were replayed.
    pub checked: u64,
    /// Turns of an older version of the rules that come out differently today.
    pub other_version: u64,
    pub broken: Vec<BrokenTurn>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokenTurn {
    pub turn: u64,
    pub what: String,
}

/// Tries one instance; `None` where there is none.
pub fn verify(reader: &Reader, no: InstanceNo) -> Result<Option<Verified>, StoreError> {
    let mut verified = Verified::default();
    let Some((stored, rows)) = reader.whole_journal(no)? else { return Ok(None) };
    let body = serde_json::to_vec(&stored.instance).expect("an instance always serialises");
    if let Some(broken) = verify_chain(&rows, stored.head, &body) {
        verified.broken.push(BrokenTurn { turn: broken.turn, what: broken.what.to_string() });
        // What stands after a broken link proves nothing.
        return Ok(Some(verified));
    }
    let machine = match machine_of(reader, &stored.instance)? {
        Ok(machine) => machine,
        Err(what) => {
            verified.broken.push(BrokenTurn { turn: 0, what });
            return Ok(Some(verified));
        }
    };
    replay(&machine, &stored.instance, &rows, &mut verified)?;
    Ok(Some(verified))
}

fn machine_of(reader: &Reader, instance: &Instance) -> Result<Result<Machine, String>, StoreError> {
    let Some(source) = reader.definition_source(instance.definition)? else {
        return Ok(Err("its definition is not kept".to_owned()));
    };
    Ok(compile_stored(&source, &instance.saga).map_err(|problems| {
        let why = problems.first().map_or("", |problem| problem.message.as_str());
        format!("its definition cannot be loaded: {why}")
    }))
}

/// Walks the journal again from turn 1, and holds each row against what comes out today.
fn replay(machine: &Machine, last: &Instance, rows: &[JournalRow], verified: &mut Verified) -> Result<(), StoreError> {
    let mut before: Option<Instance> = None;
    for row in rows {
        let given = row.given()?;
        if is_panic(&given) {
            // What a defect left cannot be made again; nor what follows it, for the instance in between is not kept.
            return Ok(());
        }
        let instance = match (&before, &given.input) {
            (Some(instance), _) => instance.clone(),
            (None, input) => match born(machine, last, input, &given) {
                Ok(instance) => instance,
                Err(what) => {
                    verified.broken.push(BrokenTurn { turn: row.turn, what });
                    return Ok(());
                }
            },
        };
        let turn = again(machine, &instance, &given, row)?;
        verified.checked += 1;
        if let Some(what) = difference(&turn, row)? {
            if row.rules == RULES {
                verified.broken.push(BrokenTurn { turn: row.turn, what });
            } else {
                verified.other_version += 1;
            }
            return Ok(());
        }
        before = Some(turn.instance);
    }
    Ok(())
}

fn is_panic(given: &Given) -> bool {
    matches!(&given.input, Input::Fault { fault, .. } if fault.kind == IncidentKind::Panic)
}

/// The instance before its first turn.
fn born(machine: &Machine, last: &Instance, input: &Input, given: &Given) -> Result<Instance, String> {
    let message = match input {
        Input::Start(message) => message,
        Input::Fault { kept, .. } => match kept.as_ref() {
            Input::Start(message) => message,
            _ => return Err("the first turn is no start".to_owned()),
        },
        _ => return Err("the first turn is no start".to_owned()),
    };
    let data = first_data(machine, message, given.at).map_err(|error| error.to_string())?;
    Ok(Instance::fresh(machine, last.id, last.definition, last.key.clone(), data, message, given.at))
}

fn again(machine: &Machine, instance: &Instance, given: &Given, row: &JournalRow) -> Result<Turn, StoreError> {
    let turn = step(machine, instance, given);
    // The one note that is not the core's: it says that an event found its instance and moved nothing.
    if matches!(turn.outcome, Outcome::Unhandled(_)) && row.notes()? == [STARTED_ALREADY] {
        return Ok(noted(instance, STARTED_ALREADY));
    }
    Ok(turn)
}

fn difference(turn: &Turn, row: &JournalRow) -> Result<Option<String>, StoreError> {
    if !matches!(turn.outcome, Outcome::Moved | Outcome::Noted) {
        return Ok(Some(format!("replayed, it makes no row: {:?}", turn.outcome)));
    }
    let body = serde_json::to_vec(&turn.instance).expect("an instance always serialises");
    if !row.left(&body) {
        return Ok(Some("replayed, it leaves another instance".to_owned()));
    }
    let sent: Vec<&Outgoing> = turn
        .effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Send(message) => Some(message),
            _ => None,
        })
        .collect();
    let kept = row.messages()?;
    let text = |message: &Outgoing| serde_json::to_string(message).expect("messages always serialise");
    let same = sent.len() == kept.len() && sent.iter().zip(&kept).all(|(sent, kept)| text(sent) == text(kept));
    if !same {
        return Ok(Some("replayed, it sends other messages".to_owned()));
    }
    if turn.notes != row.notes()? || turn.changed != row.changed()? {
        return Ok(Some("replayed, it tells something else".to_owned()));
    }
    Ok(None)
}
