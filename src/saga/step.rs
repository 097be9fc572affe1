//! The forward path: what an instance does next. A pure function of machine, instance, input and time: no clock, no
//! randomness, no logging, no I/O.

use super::effect::{Effect, Unmatched};
use super::event::Given;
use super::instance::Instance;
use super::machine::Machine;

/// Version of the rules in `step` and `unwind`: a journal row names the one that made it.
pub const RULES: u16 = 1;

/// What one input made of an instance.
#[derive(Clone, Debug, PartialEq)]
pub struct Turn {
    /// As it is afterwards; the one before where nothing came of it.
    pub instance: Instance,
    pub effects: Vec<Effect>,
    pub notes: Vec<String>,
    /// Paths of `data` that changed.
    pub changed: Vec<String>,
    pub outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// A row of the journal that moved the instance.
    Moved,
    /// A row of the journal that moved nothing.
    Noted,
    /// Nothing at all, no row: a stale timer, a repetition, a confirm that only starts a limit.
    Nothing,
    /// The event is not handled here: held, or recorded as unmatched with this reason.
    Unhandled(Unmatched),
    /// The order does not fit.
    Refused { code: Refusal, message: String },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Exit code 4.
    Conflict,
    /// Exit code 2.
    Usage,
}

/// Handles one input. Never fails: what goes wrong in it is an incident of the instance.
pub fn step(_machine: &Machine, instance: &Instance, _given: &Given) -> Turn {
    Turn {
        instance: instance.clone(),
        effects: Vec::new(),
        notes: Vec::new(),
        changed: Vec::new(),
        outcome: Outcome::Nothing,
    }
}
