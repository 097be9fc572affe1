//! The backward path: giving steps up, making and sending what takes them back, and the end of a compensation.

use serde_json::Value;

use super::effect::{Effect, Json};
use super::event::Subject;
use super::incident::IncidentKind;
use super::instance::{NextUndo, Status, StepEffect, TimerKind, TimerStart, Undo, UndoPhase};
use super::machine::{self, Body, InDoubt, Place, UndoRule};
use super::walk::{Result, Vars, Walk, place};

impl<'a> Walk<'a> {
    pub fn undo_rule(&self, index: u32) -> Option<&'a machine::Undo> {
        match &self.rule_at(index)?.undo {
            UndoRule::Send(undo) => Some(undo),
            UndoRule::Absent | UndoRule::Nothing => None,
        }
    }

    /// Its state is left without its answer. True where it is now in doubt and has an undo to be sent.
    pub fn give_up(&mut self, index: u32) -> Result<bool> {
        let step = self.step(index);
        let (effect, attempt) = (step.effect, step.attempt);
        if effect == StepEffect::Refused {
            self.close_step(index, StepEffect::Refused);
            return Ok(false);
        }
        if self.unreached.contains(&Subject::Step { index, attempt }) {
            self.note(format!("{} was never taken by any queue: withdrawn", self.step(index).name()));
            self.effects.push(Effect::Withdraw(Subject::Step { index, attempt }));
            self.close_incidents(|incident| incident.kind == IncidentKind::Unroutable && incident.step == Some(index));
            self.close_step(index, StepEffect::Refused);
            return Ok(false);
        }
        self.close_step(index, StepEffect::InDoubt);
        if self.undo_rule(index).is_some_and(|rule| rule.in_doubt == InDoubt::Leave) {
            return Ok(false);
        }
        self.make_undo(index, None)?;
        Ok(self.step(index).undo.as_ref().is_some_and(|undo| undo.phase == UndoPhase::Ready))
    }

    /// Makes the undo's body, and whether there is anything to take back, out of the data as they are now.
    /// `reply` is the success's type and body, `None` for a step in doubt.
    pub fn make_undo(&mut self, index: u32, reply: Option<(&str, &Value)>) -> Result<()> {
        let Some(rule) = self.undo_rule(index) else { return Ok(()) };
        let step = self.step(index);
        let item = step.item.clone();
        let null = Value::Null;
        let vars = Vars {
            item: item.as_ref(),
            reply: Some(reply.map_or(&null, |(_, body)| body)),
            reply_type: reply.map(|(kind, _)| kind),
            ..Vars::default()
        };
        let needed = self.holds(rule.when.as_ref(), vars, rule.place)?;
        let body = match &rule.with {
            Some(template) if needed => Some(Json::of(&self.render(template, vars, rule.place)?)),
            _ => None,
        };
        let undo = self.step_mut(index).undo.get_or_insert(Undo {
            phase: UndoPhase::Ready,
            body: None,
            question: 0,
            attempt: 0,
            tries: 0,
            refused: false,
            in_turn: false,
            next: None,
            sent_at: None,
        });
        if matches!(undo.phase, UndoPhase::Open | UndoPhase::Failed) {
            undo.next = needed.then_some(NextUndo { body });
        } else {
            undo.phase = if needed { UndoPhase::Ready } else { UndoPhase::Needless };
            undo.body = body;
        }
        Ok(())
    }

    /// Sends the undo as a new command.
    pub fn start_undo(&mut self, index: u32) -> Result<()> {
        let at = self.at;
        let step = self.step_mut(index);
        step.effect = StepEffect::Undoing;
        if let Some(undo) = &mut step.undo {
            undo.phase = UndoPhase::Open;
            undo.question += 1;
            undo.attempt = 1;
            undo.tries = 1;
            undo.in_turn = false;
            undo.refused = false;
            if let Some(next) = undo.next.take() {
                undo.body = next.body;
            }
            undo.sent_at = Some(at);
        }
        self.stop_undo_timers(index);
        self.send_undo(index)
    }

    /// Sends the undo whose turn it is: what comes before it on the list waits.
    fn start_undo_in_turn(&mut self, index: u32) -> Result<()> {
        self.start_undo(index)?;
        if let Some(undo) = &mut self.step_mut(index).undo {
            undo.in_turn = true;
        }
        Ok(())
    }

    /// The same undo command once more.
    pub fn repeat_undo(&mut self, index: u32, tries: u32) -> Result<()> {
        let at = self.at;
        if let Some(undo) = &mut self.step_mut(index).undo {
            undo.phase = UndoPhase::Open;
            undo.attempt += 1;
            undo.tries = tries;
            undo.sent_at = Some(at);
        }
        self.stop_undo_timers(index);
        self.send_undo(index)
    }

    /// The participant (or the broker, where none answers) has taken it back.
    pub fn undone(&mut self, index: u32) -> Result<()> {
        self.close_undo(index, UndoPhase::Done);
        self.step_mut(index).effect = StepEffect::Undone;
        let again = self.step(index).undo.as_ref().is_some_and(|undo| undo.next.is_some());
        if again {
            self.start_undo(index)?;
        }
        self.go_on_back()
    }

    pub fn close_undo(&mut self, index: u32, phase: UndoPhase) {
        self.stop_undo_timers(index);
        if self.has_incident(IncidentKind::Unroutable, index)
            && let Some(subject) = self.undo_subject(index)
        {
            self.effects.push(Effect::Withdraw(subject));
        }
        if let Some(undo) = &mut self.step_mut(index).undo {
            undo.phase = phase;
        }
        self.close_incidents(|incident| {
            incident.step == Some(index) && matches!(incident.kind, IncidentKind::UndoFailed | IncidentKind::Unroutable)
        });
    }

    pub fn undo_subject(&self, index: u32) -> Option<Subject> {
        let undo = self.step(index).undo.as_ref()?;
        Some(Subject::Undo { index, question: undo.question, attempt: undo.attempt })
    }

    /// It was refused, or its retries are used up: a person is told, and an answer still counts.
    pub fn undo_failed(&mut self, index: u32, error: String, refused: bool) {
        self.stop_undo_timers(index);
        if let Some(undo) = &mut self.step_mut(index).undo {
            undo.phase = UndoPhase::Failed;
            undo.refused = refused;
        }
        self.close_incidents(|incident| incident.kind == IncidentKind::Unroutable && incident.step == Some(index));
        self.open_incident(IncidentKind::UndoFailed, Some(index), error);
    }

    /// The limit of an undo has passed.
    pub fn undo_silent(&mut self, index: u32) {
        let Some(rule) = self.undo_rule(index) else { return };
        let step = self.step(index);
        let Some(undo) = step.undo.as_ref().filter(|undo| undo.phase == UndoPhase::Open) else { return };
        if rule.retry.allows_more(undo.tries) {
            let seed = self.it.undo_command_id(step, undo.question).message_id(undo.attempt);
            let after_ms = rule.retry.delay_after(undo.tries, seed).0;
            self.start_timer(TimerKind::UndoDelay { index }, TimerStart::Listening { after_ms });
        } else {
            let error = silence(rule.success.iter().map(String::as_str), undo.attempt);
            self.undo_failed(index, error, false);
        }
    }

    /// Turns the instance back.
    pub fn compensate(&mut self) -> Result<()> {
        self.it.status = Status::Compensating;
        self.it.deadline_noted = false;
        self.close_state();
        self.stop_timers(|what| matches!(what, TimerKind::Deadline));
        let open: Vec<u32> = self.it.open_steps().collect();
        for index in open {
            self.give_up(index)?;
        }
        self.tell("compensating");
        self.unwind()
    }

    /// While compensating: what comes next, after something was settled.
    pub fn go_on_back(&mut self) -> Result<()> {
        if self.it.status == Status::Compensating { self.unwind() } else { Ok(()) }
    }

    /// The undo list in reverse order of sending, one after the other; branches and items of one entry together.
    fn unwind(&mut self) -> Result<()> {
        for index in (0..u32::try_from(self.it.steps.len()).unwrap_or(u32::MAX)).rev() {
            match self.progress(index) {
                Progress::Settled => {}
                Progress::Needed if self.waits_for_another(index) => return Ok(()),
                Progress::Waiting | Progress::Needed if !self.step(index).part.is_whole() => {
                    return self.unwind_parts(index);
                }
                Progress::Waiting => return Ok(()),
                Progress::Needed => return self.start_undo_in_turn(index),
            }
        }
        if self.it.incident_of(IncidentKind::LateSuccess).is_some() {
            return Ok(());
        }
        self.it.status = Status::Compensated;
        self.it.ended_at = Some(self.at);
        let machine = self.machine;
        self.act(&machine.compensated, Place::default())?;
        self.tell("compensated");
        Ok(())
    }

    /// Branches or items that were sent together, `at_once` at a time.
    fn unwind_parts(&mut self, of: u32) -> Result<()> {
        let (entry, state) = (self.step(of).entry, self.step(of).state.clone());
        let at_once = match self.machine.state(&state).map(|state| &state.body) {
            Some(Body::Each(each)) => each.at_once.unwrap_or(u32::MAX),
            _ => u32::MAX,
        };
        let together: Vec<u32> = (0..=of).rev().filter(|index| self.it.steps[place(*index)].entry == entry).collect();
        let mut open = 0;
        for index in &together {
            open += u32::from(self.progress(*index) == Progress::Waiting);
        }
        for index in together {
            if open < at_once && self.progress(index) == Progress::Needed {
                self.start_undo_in_turn(index)?;
                open += 1;
            }
        }
        Ok(())
    }

    /// An undo whose turn it is stands open, for a step that was not sent together with this one.
    fn waits_for_another(&self, index: u32) -> bool {
        let entry = self.step(index).entry;
        let together = !self.step(index).part.is_whole();
        self.it.steps.iter().any(|step| {
            step.effect == StepEffect::Undoing
                && step.undo.as_ref().is_some_and(|undo| undo.in_turn)
                && !(together && step.entry == entry)
        })
    }

    fn progress(&self, index: u32) -> Progress {
        let step = self.step(index);
        let phase = step.undo.as_ref().map(|undo| undo.phase);
        match step.effect {
            _ if step.kept => Progress::Settled,
            StepEffect::Undoing => Progress::Waiting,
            StepEffect::Done | StepEffect::InDoubt | StepEffect::Skipped
                if phase == Some(UndoPhase::Ready) && !self.has_incident(IncidentKind::LateSuccess, index) =>
            {
                Progress::Needed
            }
            _ => Progress::Settled,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// Nothing is to be taken back, or it has been.
    Settled,
    /// Its undo is under way.
    Waiting,
    Needed,
}

/// The error of an incident of silence: `no <Event> after <n> attempts`.
pub(super) fn silence<'e>(events: impl Iterator<Item = &'e str>, attempts: u32) -> String {
    let events: Vec<&str> = events.collect();
    format!("no {} after {attempts} attempts", events.join(" or "))
}
