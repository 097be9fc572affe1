//! A definition, compiled: what the core walks over. Immutable; made by `compile`, shared by reference.
//!
//! Everything that can be decided when a file is loaded is decided here already: names are resolved, defaults are
//! filled in, expressions are parsed. Nothing in this file evaluates anything.

use std::collections::BTreeSet;
use std::sync::Arc;

use indexmap::IndexMap;

use super::duration::Span;
use super::expression::Expression;
use super::template::Template;

/// SHA-256 over the canonical JSON of the parsed file: what makes two files one definition.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// Where something stands in its file: lines and columns from 1, columns in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Place {
    pub line: u32,
    pub column: u32,
    pub end_line: u32,
    pub end_column: u32,
}

/// Position of a state in [`Machine::states`]. Never stored: a state is known by its name.
pub type StateNo = usize;

#[derive(Debug)]
pub struct Machine {
    pub name: String,
    pub digest: Digest,
    /// The file as it was read, so that places can be shown.
    pub source: Arc<str>,
    /// The file's path as it was given, for messages only.
    pub file: String,
    pub about: Option<String>,
    pub starts: IndexMap<String, Start>,
    pub events: IndexMap<String, EventRule>,
    pub on: IndexMap<String, Vec<Transition>>,
    /// `pivot: start`: nothing is ever taken back.
    pub pivot_at_start: bool,
    pub deadline: Option<Deadline>,
    pub states: IndexMap<String, State>,
    pub sensitive: Vec<String>,
    pub completed: Actions,
    pub compensated: Actions,
}

#[derive(Debug)]
pub struct Start {
    pub key: Expression,
    pub data: Template,
    pub when: Option<Expression>,
    pub from: Option<Origin>,
    pub again: bool,
    pub unmatched: Option<Unhandled>,
    pub place: Place,
}

#[derive(Debug)]
pub struct EventRule {
    pub route: Route,
    pub hold: Option<Hold>,
    pub from: Option<Origin>,
    pub unmatched: Option<Unhandled>,
    pub place: Place,
}

#[derive(Debug)]
pub enum Route {
    /// Only `from` was said: such an event reaches an instance as a reply alone.
    ReplyOnly,
    Key(Expression),
    /// The message's correlation id is the instance's id.
    Instance,
    Find {
        fields: Vec<(String, Expression)>,
        deliver: Deliver,
        by: Option<Expression>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deliver {
    One,
    Oldest,
    All,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    For(Span),
    Always,
}

/// What becomes of an event that nobody takes, where the entry says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unhandled {
    Record,
    Count,
}

/// Where an event type comes in, when that is not the exchange `events` with its type as routing key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    pub exchange: String,
    pub routing_key: String,
}

#[derive(Debug)]
pub struct Deadline {
    pub after: Span,
    pub ways: Vec<Transition>,
    pub place: Place,
}

#[derive(Debug)]
pub struct State {
    pub name: String,
    pub about: Option<String>,
    pub entry: Actions,
    pub body: Body,
    pub on: IndexMap<String, Vec<Transition>>,
    pub timers: Vec<Timer>,
    /// What the transition `next` means here.
    pub next: Next,
    /// Every way to this state passes a pivot's success.
    pub past_pivot: bool,
    pub place: Place,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    State(StateNo),
    /// Completed, with the label as outcome where there is one.
    End(Option<String>),
}

#[derive(Debug)]
pub enum Body {
    /// Waits for `on` or `timers`.
    Wait,
    /// Only actions, or nothing: goes on at once by `next`.
    Pass,
    Send(Step),
    All(All),
    Each(Each),
    Decide(Decision),
    Choose(Vec<Transition>),
}

#[derive(Debug)]
pub struct All {
    pub branches: IndexMap<String, Step>,
    /// `until: any`.
    pub any: bool,
    pub collect: Option<String>,
}

#[derive(Debug)]
pub struct Each {
    pub list: Expression,
    /// Name of the element in expressions (`as`, default `item`).
    pub bind: String,
    pub at_once: Option<u32>,
    pub step: Step,
    pub collect: Option<String>,
}

#[derive(Debug)]
pub struct Step {
    pub address: String,
    pub command: String,
    /// `None`: all of `data`.
    pub with: Option<Template>,
    pub headers: Vec<(String, Template)>,
    /// Empty: nobody answers; the state is left when the broker has the command.
    pub success: IndexMap<String, Vec<Transition>>,
    pub failure: IndexMap<String, Vec<Transition>>,
    /// There whenever `success` is.
    pub timeout: Option<Timeout>,
    pub retry: Retry,
    pub undo: UndoRule,
    pub pivot: bool,
    pub late_success: LateSuccess,
    pub place: Place,
}

#[derive(Debug)]
pub struct Timeout {
    /// Of each attempt.
    pub after: Span,
    /// Empty: the default, `fail: "timeout"`.
    pub ways: Vec<Transition>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Retry {
    /// `None`: always.
    pub attempts: Option<u32>,
    pub delay: Span,
    pub factor: f64,
    pub max_delay: Span,
    pub jitter: f64,
}

#[derive(Debug)]
pub enum UndoRule {
    /// None was written, where none is required.
    Absent,
    /// `undo: none`: there is never anything to take back.
    Nothing,
    Send(Undo),
}

#[derive(Debug)]
pub struct Undo {
    pub address: String,
    pub command: String,
    /// `None`: the body of the command it undoes, byte for byte.
    pub with: Option<Template>,
    /// Empty: done when the broker has it.
    pub success: Vec<String>,
    pub failure: Vec<String>,
    pub timeout: Span,
    pub retry: Retry,
    pub when: Option<Expression>,
    pub in_doubt: InDoubt,
    pub place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InDoubt {
    Undo,
    Leave,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LateSuccess {
    Undo,
    Incident,
}

#[derive(Debug)]
pub struct Decision {
    pub ask: Template,
    pub choices: IndexMap<String, Choice>,
}

#[derive(Debug)]
pub struct Choice {
    /// Field, and the question it answers where one is written.
    pub needs: IndexMap<String, Option<String>>,
    pub way: Transition,
}

#[derive(Debug)]
pub struct Timer {
    /// The given one, or its number in the list, from 1.
    pub name: String,
    pub due: Due,
    pub ways: Vec<Transition>,
    pub place: Place,
}

#[derive(Debug)]
pub enum Due {
    /// From the entry into the state.
    After(Span),
    /// `from: start`: from the instance's start.
    AfterStart(Span),
    At(Expression),
    Every {
        span: Span,
        times: Option<u32>,
    },
}

#[derive(Debug)]
pub struct Transition {
    pub when: Option<Expression>,
    /// Dotted path into `data`, and the value.
    pub set: Vec<(Vec<String>, Template)>,
    /// In the order in which they go out: `publish`, `reply`, `send`.
    pub messages: Vec<MessageRule>,
    pub then: Then,
    pub place: Place,
}

#[derive(Debug)]
pub enum Then {
    State(StateNo),
    Next,
    Stay,
    Ignore,
    Retry,
    /// `None`: the event's `reason`, else its type, or the timer's or choice's name.
    Fail(Option<Template>),
    End(String),
    Incident(Template),
}

/// `set`, and messages in the order in which they go out.
#[derive(Debug, Default)]
pub struct Actions {
    pub set: Vec<(Vec<String>, Template)>,
    pub messages: Vec<MessageRule>,
}

#[derive(Debug)]
pub struct MessageRule {
    pub to: Recipient,
    /// `None`: all of `data`.
    pub with: Option<Template>,
    pub headers: Vec<(String, Template)>,
    pub when: Option<Expression>,
    pub place: Place,
}

#[derive(Debug)]
pub enum Recipient {
    Publish {
        event: String,
    },
    /// To whoever started the instance, or (`to: event`) sent the event in hand.
    Reply {
        event: String,
        to_event: bool,
    },
    Send {
        address: String,
        command: String,
    },
}

impl Machine {
    pub fn state(&self, name: &str) -> Option<&State> {
        self.states.get(name)
    }

    /// All steps, with the name of their state.
    pub fn steps(&self) -> impl Iterator<Item = (&State, &Step)> {
        self.states.values().flat_map(|state| state.steps().map(move |step| (state, step)))
    }

    /// The event types that a daemon with this definition consumes.
    pub fn consumed(&self) -> BTreeSet<&str> {
        let mut types: BTreeSet<&str> = BTreeSet::new();
        types.extend(self.starts.keys().map(String::as_str));
        types.extend(self.events.keys().map(String::as_str));
        types.extend(self.on.keys().map(String::as_str));
        for state in self.states.values() {
            types.extend(state.on.keys().map(String::as_str));
            for step in state.steps() {
                types.extend(step.success.keys().map(String::as_str));
                types.extend(step.failure.keys().map(String::as_str));
                if let UndoRule::Send(undo) = &step.undo {
                    types.extend(undo.success.iter().map(String::as_str));
                    types.extend(undo.failure.iter().map(String::as_str));
                }
            }
        }
        types
    }

    /// Where a type comes in, if the definition says so.
    pub fn origin(&self, event: &str) -> Option<&Origin> {
        self.starts
            .get(event)
            .and_then(|start| start.from.as_ref())
            .or_else(|| self.events.get(event).and_then(|rule| rule.from.as_ref()))
    }
}

impl State {
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        let (one, branches) = match &self.body {
            Body::Send(step) => (Some(step), None),
            Body::Each(each) => (Some(&each.step), None),
            Body::All(all) => (None, Some(all.branches.values())),
            Body::Wait | Body::Pass | Body::Decide(_) | Body::Choose(_) => (None, None),
        };
        one.into_iter().chain(branches.into_iter().flatten())
    }
}
