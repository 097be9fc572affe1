//! One input of one instance: load, step, save. Here the pure core and the store meet; neither knows of the other.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::MessageRef;
use super::batch::Work;
use super::catalog::{Catalog, Loaded};
use crate::saga::effect::{Effect, Outgoing, Unmatched};
use crate::saga::event::{Fault, Given, Input, Message, Subject, Verb};
use crate::saga::ids::{InstanceId, InstanceNo};
use crate::saga::incident::IncidentKind;
use crate::saga::instance::{DefinitionNo, Instance};
use crate::saga::machine::Machine;
use crate::saga::step::{Outcome, Refusal, Turn, step};
use crate::store::{Near, StoreError, Stored, TurnRow, Weight};

/// Parked inputs of one instance handled in a piece, so that one that was held for long does not hold up a batch.
const PARKED_PIECE: usize = 100;

/// The note of a start event whose key is alive already.
pub(super) const STARTED_ALREADY: &str = "started-already";

/// What became of an input.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Came {
    /// Handled: it moved the instance, is a note, or changed nothing.
    Taken,
    /// Kept until the instance goes on.
    Parked,
    /// The event is not handled here.
    Missed(Unmatched),
    Refused {
        code: Refusal,
        message: String,
    },
    /// There is no such instance.
    Gone,
}

impl Work<'_, '_> {
    /// Reads an instance, from memory where it was handled lately.
    pub(super) fn load(&mut self, no: InstanceNo) -> Result<Option<Arc<Stored>>, StoreError> {
        if let Some(stored) = self.core.cache.get(no) {
            return Ok(Some(stored));
        }
        let Some(stored) = self.tx.instance(no)? else { return Ok(None) };
        let stored = Arc::new(stored);
        self.core.cache.insert(no, Arc::clone(&stored));
        Ok(Some(stored))
    }

    /// Gives an input to an instance; where that is held, or still has older inputs waiting, it waits in line.
    pub(super) fn give(&mut self, no: InstanceNo, input: Input) -> Result<Came, StoreError> {
        let Some(stored) = self.load(no)? else { return Ok(Came::Gone) };
        let waits = stored.instance.is_held() || self.core.draining.contains(&no);
        if waits && !matches!(input, Input::Order(_) | Input::Fault { .. }) {
            self.tx.park(no, &input)?;
            return Ok(Came::Parked);
        }
        self.take(&stored, input).map(|(came, _)| came)
    }

    /// Starts an instance with its first turn.
    pub(super) fn start(
        &mut self,
        definition: DefinitionNo,
        machine: &Arc<Machine>,
        key: String,
        data: serde_json::Value,
        message: Message,
    ) -> Result<(), StoreError> {
        let at = self.now.wall;
        let id = InstanceId::new(self.tx.next_instance_no(at)?, self.core.database);
        let instance = Instance::fresh(machine, id, definition, key, data, &message, at);
        let given = Given { at, input: Input::Start(message), unreached: Vec::new() };
        let (turn, given) = decide(machine, &instance, given);
        self.save(None, &turn, &given)
    }

    /// One turn. Returns what was asked to go out, too.
    pub(super) fn take(&mut self, stored: &Stored, input: Input) -> Result<(Came, Option<Turn>), StoreError> {
        let (turn, given) = match self.turn(stored, input)? {
            Ok(decided) => decided,
            Err(refused) => return Ok((refused, None)),
        };
        if matches!(turn.outcome, Outcome::Moved | Outcome::Noted) {
            self.save(Some(stored), &turn, &given)?;
        }
        Ok((came(&turn.outcome), Some(turn)))
    }

    /// The same, and nothing is written.
    pub(super) fn rehearse(&mut self, stored: &Stored, input: Input) -> Result<(Came, Option<Turn>), StoreError> {
        Ok(match self.turn(stored, input)? {
            Ok((turn, _)) => (came(&turn.outcome), Some(turn)),
            Err(refused) => (refused, None),
        })
    }

    fn turn(&mut self, stored: &Stored, input: Input) -> Result<Result<(Turn, Given), Came>, StoreError> {
        let (machine, input) = match self.machine_for(stored, input)? {
            Ok(found) => found,
            Err(refused) => return Ok(Err(refused)),
        };
        let unreached = self.unreached(stored.instance.id.no())?;
        let given = Given { at: self.now.wall, input, unreached };
        Ok(Ok(decide(&machine, &stored.instance, given)))
    }

    /// A row that moves nothing and says why.
    pub(super) fn note(&mut self, no: InstanceNo, input: Input, text: &str) -> Result<(), StoreError> {
        let Some(stored) = self.load(no)? else { return Ok(()) };
        let given = Given { at: self.now.wall, input, unreached: Vec::new() };
        self.save(Some(&stored), &noted(&stored.instance, text), &given)
    }

    /// Handles what waited for instances that go on, a piece of each.
    pub(super) fn drain(&mut self) -> Result<(), StoreError> {
        let draining: Vec<InstanceNo> = self.core.draining.iter().copied().collect();
        draining.into_iter().try_for_each(|no| self.drain_one(no))
    }

    fn drain_one(&mut self, no: InstanceNo) -> Result<(), StoreError> {
        for _ in 0..PARKED_PIECE {
            let waiting = self.tx.first_parked(no)?;
            let stored = self.load(no)?;
            let (Some(waiting), Some(stored)) = (waiting, stored) else {
                self.core.draining.remove(&no);
                return Ok(());
            };
            if stored.instance.is_held() {
                self.core.draining.remove(&no);
                return Ok(());
            }
            self.tx.unpark(no, waiting.n)?;
            let event = match &waiting.input {
                Input::Event(message) | Input::Answer { message, .. } => Some(message.clone()),
                _ => None,
            };
            let (came, _) = self.take(&stored, waiting.input)?;
            if let (Came::Missed(reason), Some(message)) = (came, event) {
                self.missed_late(&stored, reason, message)?;
            }
        }
        Ok(())
    }

    /// An event that had waited finds that the instance does not handle it any more.
    fn missed_late(&mut self, stored: &Stored, reason: Unmatched, message: Message) -> Result<(), StoreError> {
        let no = stored.instance.id.no();
        let starts = self
            .core
            .catalog
            .machine(stored.instance.definition)
            .is_some_and(|machine| machine.starts.contains_key(&message.kind));
        if starts && !stored.instance.status.is_end() {
            return self.note(no, Input::Event(message), STARTED_ALREADY);
        }
        let near = Near { id: stored.instance.id, why: reason.name().to_owned() };
        self.set_aside_message(reason, &message, &[near])
    }

    /// The definition of an instance. Where it cannot be loaded, the turn is the fault that says so; an order that
    /// would need it is refused.
    fn machine_for(
        &mut self,
        stored: &Stored,
        input: Input,
    ) -> Result<Result<(Arc<Machine>, Input), Came>, StoreError> {
        let no = stored.instance.definition;
        let (saga, error) = match self.definition(no)? {
            Loaded::Machine(machine) => return Ok(Ok((machine, input))),
            Loaded::Broken { saga, error } => (saga, error),
        };
        let machine = Arc::new(Catalog::blank(&saga));
        match &input {
            Input::Fault { .. } => Ok(Ok((machine, input))),
            Input::Order(order) => match order.verb {
                Verb::Pause | Verb::Resume | Verb::Abandon => Ok(Ok((machine, input))),
                _ => Ok(Err(Came::Refused {
                    code: Refusal::Conflict,
                    message: format!("its definition cannot be loaded: {error}"),
                })),
            },
            _ => {
                let fault = Fault { kind: IncidentKind::Definition, error, place: None };
                Ok(Ok((machine, Input::Fault { fault, kept: Box::new(input) })))
            }
        }
    }

    /// Commands of the instance of which every publish was returned.
    fn unreached(&mut self, no: InstanceNo) -> Result<Vec<Subject>, StoreError> {
        if self.core.stragglers == 0 { Ok(Vec::new()) } else { self.tx.unreached(no) }
    }

    /// Writes a turn and what it asked for.
    fn save(&mut self, before: Option<&Stored>, turn: &Turn, given: &Given) -> Result<(), StoreError> {
        let after = &turn.instance;
        let no = after.id.no();
        let messages: Vec<Outgoing> = turn.effects.iter().filter_map(sent).cloned().collect();
        let saga = self.tx.name_saga(&after.saga)?;
        let head = self.tx.save_turn(&TurnRow {
            before,
            after,
            given,
            messages: &messages,
            weight: if turn.outcome == Outcome::Moved { Weight::Moved } else { Weight::Noted },
            changed: &turn.changed,
            notes: &turn.notes,
            listening_ms: self.core.clocks.listening_ms(saga),
        })?;
        self.touched.insert(saga);
        self.last_seq = Some(head.seq);
        self.core.report.turns += 1;
        for (place, message) in (0_u32..).zip(messages) {
            self.fresh.push((MessageRef { seq: head.seq, place }, message));
        }
        for effect in &turn.effects {
            self.carry_out(no, effect)?;
        }
        if before.is_some_and(|before| before.instance.is_held()) && !after.is_held() {
            self.core.draining.insert(no);
        }
        self.core.cache.insert(no, Arc::new(Stored { instance: after.clone(), head }));
        Ok(())
    }

    fn carry_out(&mut self, no: InstanceNo, effect: &Effect) -> Result<(), StoreError> {
        match effect {
            Effect::Send(_) => Ok(()),
            Effect::Withdraw(subject) => self.withdraw(no, *subject),
            Effect::Republish(subject) => self.republish(no, *subject),
            Effect::SetAside { reason, message } => self.set_aside_message(*reason, message, &[]),
        }
    }
}

fn came(outcome: &Outcome) -> Came {
    match outcome {
        Outcome::Nothing | Outcome::Moved | Outcome::Noted => Came::Taken,
        Outcome::Unhandled(reason) => Came::Missed(*reason),
        Outcome::Refused { code, message } => Came::Refused { code: *code, message: message.clone() },
    }
}

/// Decides; a panic in it is this instance's fault alone.
pub(super) fn decide(machine: &Machine, instance: &Instance, given: Given) -> (Turn, Given) {
    guarded(given, |given| step(machine, instance, given))
}

fn guarded(given: Given, decide: impl Fn(&Given) -> Turn) -> (Turn, Given) {
    let panic = match catch_unwind(AssertUnwindSafe(|| decide(&given))) {
        Ok(turn) => return (turn, given),
        Err(panic) => panic,
    };
    let fault = Fault { kind: IncidentKind::Panic, error: panic_text(panic.as_ref()), place: None };
    let given = Given { input: Input::Fault { fault, kept: Box::new(given.input) }, ..given };
    // What opens an incident touches no definition; should even that panic, it is a defect to stop for.
    let turn = decide(&given);
    (turn, given)
}

/// A row that moves nothing.
pub(super) fn noted(instance: &Instance, text: &str) -> Turn {
    let mut after = instance.clone();
    after.turn += 1;
    Turn {
        instance: after,
        effects: Vec::new(),
        notes: vec![text.to_owned()],
        changed: Vec::new(),
        outcome: Outcome::Noted,
    }
}

fn sent(effect: &Effect) -> Option<&Outgoing> {
    match effect {
        Effect::Send(message) => Some(message),
        Effect::Withdraw(_) | Effect::Republish(_) | Effect::SetAside { .. } => None,
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without a message".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::saga::ids::{DatabaseId, InstanceNo};
    use crate::saga::time::Timestamp;

    #[test]
    fn a_panic_in_a_turn_is_an_input_of_its_own_that_keeps_what_was_handled() {
        let machine = Catalog::blank("hire");
        let id = InstanceId::new(InstanceNo(1), DatabaseId(uuid::Uuid::from_u128(1)));
        let message = Message {
            kind: "HireRequested".to_owned(),
            id: None,
            source: String::new(),
            correlation_id: None,
            reply_to: None,
            time: Timestamp(0),
            traceparent: None,
            headers: serde_json::Map::new(),
            routing_key: String::new(),
            body: serde_json::Value::Null,
        };
        let (key, data) = ("k".to_owned(), message.body.clone());
        let fresh = Instance::fresh(&machine, id, DefinitionNo(1), key, data, &message, message.time);
        let given = Given { at: Timestamp(5), input: Input::Start(message), unreached: Vec::new() };
        let kept = given.input.clone();
        let (turn, given) = guarded(given, |given| match &given.input {
            Input::Start(_) => panic!("a defect"),
            _ => step(&machine, &fresh, given),
        });
        let fault = Fault { kind: IncidentKind::Panic, error: "a defect".to_owned(), place: None };
        assert_eq!(given.input, Input::Fault { fault, kept: Box::new(kept) });
        assert!(turn.instance.is_stopped());
    }
}
