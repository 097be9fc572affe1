//! What the compiler saw on its way and the machine does not keep: places and mentions, for `lint` to judge.

use std::collections::BTreeSet;

use crate::saga::machine::{Place, StateNo};

#[derive(Debug, Default)]
pub(in crate::saga) struct Facts {
    /// Where the saga's name stands.
    pub name: Place,
    /// Key of each state.
    pub states: Vec<Place>,
    pub ways: Vec<Way>,
    pub handlers: Vec<Handler>,
    pub steps: Vec<StepFact>,
    /// Steps (the key of each) whose answer is awaited for ever, and how many steps have a `timeout` of their own.
    pub without_timeout: Vec<Place>,
    pub own_timeouts: usize,
    /// Undos with an unknown key that may have been meant to be `success`.
    pub doubtful_undos: Vec<Place>,
    /// Fields of `data` that are read, in the order of the file.
    pub reads: Vec<FieldRead>,
    /// Fields of `data` that something sets.
    pub set: BTreeSet<String>,
    /// Something sets fields that are not known before it runs: no read can be called wrong.
    pub open_data: bool,
    /// Fields of `reply` that an undo reads without asking whether there is one.
    pub reply_reads: Vec<(String, Place)>,
    /// `event` and `message` where a state is entered.
    pub entry_reads: Vec<EntryRead>,
    /// `from` of an event: type, exchange, routing key, and where it stands.
    pub origins: Vec<(String, String, String, Place)>,
    /// Types that `start` or `events` name, readable or not.
    pub declared: BTreeSet<String>,
    /// `start` or `events` could not be read at all.
    pub routes_broken: bool,
    /// The states, or a part that leads from one to another, could not be read.
    pub graph_broken: bool,
}

/// Where a transition stands: what it may lead to, and what holds without `then`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::saga) enum Spot {
    Success,
    /// Of a branch or an item.
    PartSuccess,
    Failure,
    PartFailure,
    Timeout,
    On,
    TopOn,
    Timer,
    Choice,
    Choose,
    Deadline,
    /// The broker has a command that nobody answers.
    Confirm,
}

impl Spot {
    pub fn key(self) -> &'static str {
        match self {
            Spot::Success | Spot::PartSuccess => "success",
            Spot::Failure | Spot::PartFailure => "failure",
            Spot::Timeout => "timeout",
            Spot::On | Spot::TopOn => "on",
            Spot::Timer => "timers",
            Spot::Choice => "choices",
            Spot::Choose => "choose",
            Spot::Deadline => "deadline",
            Spot::Confirm => "send",
        }
    }

    /// Whether what is taken from here is taken because of a message.
    pub fn has_message(self) -> bool {
        matches!(self, Spot::Success | Spot::PartSuccess | Spot::Failure | Spot::PartFailure | Spot::On | Spot::TopOn)
    }
}

/// Where a transition leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::saga) enum Goes {
    State(StateNo),
    /// To a state that does not exist, or that could not be read.
    Nowhere,
    Next,
    Stay,
    Ignore,
    Retry,
    Fail,
    End,
    Incident,
}

#[derive(Clone, Debug)]
pub(in crate::saga) struct Way {
    /// `None`: at the top of the file.
    pub state: Option<StateNo>,
    pub spot: Spot,
    pub event: Option<String>,
    pub goes: Goes,
    /// It was written, and is not what holds without `then`.
    pub written: bool,
    /// Where the target is named; else the transition.
    pub at: Place,
}

/// An event that a state (or the whole saga) names as one it handles.
#[derive(Clone, Debug)]
pub(in crate::saga) struct Handler {
    pub state: Option<StateNo>,
    /// Branch, where it is an answer to one.
    pub part: Option<String>,
    pub spot: Spot,
    pub event: String,
    pub at: Place,
    /// Each of its transitions has a `when`.
    pub guarded: bool,
}

#[derive(Clone, Debug)]
pub(in crate::saga) struct StepFact {
    pub state: StateNo,
    pub part: Option<String>,
    /// Key of the state or branch.
    pub at: Place,
    /// The undo could not be read, or should not be there: that it is missing is no second mistake.
    pub undo_broken: bool,
}

#[derive(Clone, Debug)]
pub(in crate::saga) struct FieldRead {
    pub field: String,
    /// Where it is read; `None`: at the top of the file.
    pub state: Option<StateNo>,
    pub guarded: bool,
    pub at: Place,
}

/// What is entered where `event` is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::saga) enum Entered {
    State(StateNo),
    /// Its command, which is made anew when it is asked again after a refusal.
    Command(StateNo),
    Completed,
}

#[derive(Clone, Debug)]
pub(in crate::saga) struct EntryRead {
    pub entered: Entered,
    /// `event`, `message`, or `to: event`.
    pub what: String,
    pub at: Place,
}
