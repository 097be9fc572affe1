//! Transitions: short, long, and lists of them; what each place allows and what holds there without `then`.

use indexmap::IndexMap;
use serde_json::Value;

use super::context::{Context, Fields, NOWHERE, quoted};
use super::facts::{Goes, Handler, Spot, Way};
use super::message::LooseSend;
use super::scope::Here;
use crate::saga::definition::{Entry, Kind, Node};
use crate::saga::machine::{Place, StateNo, Then, Transition};
use crate::saga::template::Template;

/// The keys of a transition.
const TRANSITION: [&str; 9] = ["when", "set", "publish", "reply", "send", "then", "fail", "end", "incident"];
const TARGETS: [&str; 4] = ["then", "fail", "end", "incident"];

/// Where a transition stands, and for whom.
#[derive(Clone)]
pub(super) struct At<'n> {
    pub spot: Spot,
    pub state: Option<StateNo>,
    pub event: Option<&'n str>,
    /// What lacks a `then`, if it lacks one.
    pub owner: Place,
    pub here: Here,
}

impl Spot {
    /// The words beside the name of a state that may stand here.
    fn allowed(self) -> &'static [&'static str] {
        match self {
            Spot::Success | Spot::Timeout | Spot::Choice | Spot::Choose => &["next", "fail", "end", "incident"],
            Spot::PartSuccess | Spot::Confirm => &["next"],
            Spot::Failure => &["next", "fail", "end", "incident", "retry"],
            Spot::PartFailure => &["next", "fail", "end", "incident", "retry", "ignore"],
            Spot::On | Spot::TopOn => &["next", "stay", "ignore", "fail", "end", "incident"],
            Spot::Timer => &["next", "stay", "fail", "end", "incident"],
            Spot::Deadline => &["fail", "end", "incident"],
        }
    }

    fn takes_states(self) -> bool {
        !matches!(self, Spot::PartSuccess | Spot::Confirm)
    }

    /// What holds without `then`; `None` where it must be given.
    fn default(self) -> Option<(Then, Goes)> {
        let fail = |reason: &str| (Then::Fail(Some(Template::Literal(Value::String(reason.to_owned())))), Goes::Fail);
        match self {
            Spot::Success | Spot::PartSuccess | Spot::Choose | Spot::Confirm => Some((Then::Next, Goes::Next)),
            Spot::Failure | Spot::PartFailure => Some((Then::Fail(None), Goes::Fail)),
            Spot::Timeout => Some(fail("timeout")),
            Spot::Deadline => Some(fail("deadline")),
            Spot::On | Spot::TopOn | Spot::Timer | Spot::Choice => None,
        }
    }
}

/// The keys of a transition beside those in `more`.
pub(super) fn transition_keys(more: &[&'static str]) -> Vec<&'static str> {
    more.iter().copied().chain(TRANSITION).collect()
}

impl Context<'_> {
    /// Event type → transition, as under `success`, `failure` and `on`. A single event has the default transition.
    pub fn handlers(&mut self, entry: &Entry, part: Option<&str>, at: &At<'_>) -> IndexMap<String, Vec<Transition>> {
        let mut handlers = IndexMap::new();
        let what = format!("`{}`", at.spot.key());
        if entry.value.text().is_some() && at.spot.default().is_some() {
            if let Some(event) = self.event_value(&entry.value, "an event") {
                self.note_handler(&event, entry.value.place, part, at, false);
                self.note_way(
                    at,
                    Some(&event),
                    at.spot.default().map_or(Goes::Next, |(_, goes)| goes),
                    false,
                    entry.value.place,
                );
                handlers.insert(event, Vec::new());
            } else {
                self.facts.graph_broken = true;
            }
            return handlers;
        }
        let Some(entries) = self.mapping(&entry.value, &what) else {
            self.facts.graph_broken = true;
            return handlers;
        };
        if entries.is_empty() && at.spot.default().is_some() {
            self.report(
                "wrong-type",
                entry.value.place,
                format!("{what} names no event"),
                "name the event, or leave the key out",
            );
        }
        for handler in entries {
            self.event_type(&handler.key, handler.key_place);
            let at = At { event: Some(&handler.key), owner: handler.key_place, ..at.clone() };
            let transitions = self.transitions(&handler.value, &at);
            let guarded = !transitions.is_empty() && transitions.iter().all(|transition| transition.when.is_some());
            let broken = handler.value.is_broken() || transitions.is_empty();
            self.note_handler(&handler.key, handler.key_place, part, &at, guarded || broken);
            handlers.insert(handler.key.clone(), transitions);
        }
        handlers
    }

    /// One transition or a list that is tried in order.
    pub fn transitions(&mut self, node: &Node, at: &At<'_>) -> Vec<Transition> {
        let Kind::List(items) = &node.kind else {
            return self.transition(node, at).into_iter().collect();
        };
        if items.is_empty() {
            self.report(
                "wrong-type",
                node.place,
                "a list of transitions is empty",
                "name a state, or `next`, `stay`, `fail`",
            );
            self.note_way(at, at.event, Goes::Nowhere, true, node.place);
        }
        let transitions: Vec<Transition> = items.iter().filter_map(|item| self.transition(item, at)).collect();
        let last_but_one = transitions.len().saturating_sub(1);
        if let Some(first) = transitions[..last_but_one].iter().position(|transition| transition.when.is_none()) {
            let after = transitions[first + 1].place;
            let line = transitions[first].place.line;
            let message = format!("this is never reached: the transition in line {line} has no `when`");
            self.report("overlapping-handlers", after, message, "give the one before it a `when`, or put it last");
        }
        transitions
    }

    fn transition(&mut self, node: &Node, at: &At<'_>) -> Option<Transition> {
        if let Kind::Scalar(scalar) = &node.kind
            && !node.is_empty()
        {
            let (then, goes) = self.short(&scalar.text, node.place, at);
            self.note_way(at, at.event, goes, true, node.place);
            return Some(Transition { when: None, set: Vec::new(), messages: Vec::new(), then, place: node.place });
        }
        if node.is_empty() {
            let hint = format!("name a state, or one of {}", quoted(at.spot.allowed()));
            self.report("wrong-type", node.place, "a transition is missing here", hint);
            self.note_way(at, at.event, Goes::Nowhere, true, node.place);
            return None;
        }
        let allowed: Vec<&'static str> = match at.spot {
            Spot::PartSuccess => vec!["when", "set", "publish", "then"],
            _ => transition_keys(&[]),
        };
        let Some(fields) = self.fields(node, "a transition", &allowed) else {
            self.note_way(at, at.event, Goes::Nowhere, true, node.place);
            return None;
        };
        Some(self.long(&fields, node.place, at))
    }

    /// The transition that stands among these keys, of which there may be others beside.
    pub fn long(&mut self, fields: &Fields<'_>, place: Place, at: &At<'_>) -> Transition {
        let when = fields.get("when").map(|entry| match self.expression(&entry.value, &at.here) {
            Some(expression) => expression,
            // It has been reported, and whatever holds the transition still counts as guarded.
            None => crate::saga::expression::Expression::constant(Value::Bool(true)),
        });
        let actions = self.actions(fields, &at.here, LooseSend::Taken);
        let (then, goes, written, target) = self.target(fields, place, at);
        self.note_way(at, at.event, goes, written, target);
        Transition { when, set: actions.set, messages: actions.messages, then, place }
    }

    fn target(&mut self, fields: &Fields<'_>, place: Place, at: &At<'_>) -> (Then, Goes, bool, Place) {
        let Some((key, entry)) = self.at_most_one(fields, &TARGETS) else {
            if let Some((then, goes)) = at.spot.default() {
                if fields.is_meant("then") {
                    self.note_way(at, at.event, Goes::Nowhere, true, place);
                }
                return (then, goes, false, place);
            }
            let what = match at.event {
                Some(event) => format!("the transition for `{event}`"),
                None => "this transition".to_owned(),
            };
            let hint = format!("say where it leads: a state, or one of {}", quoted(at.spot.allowed()));
            self.missing(fields, at.owner, &what, "then", hint);
            return (Then::State(NOWHERE), Goes::Nowhere, true, place);
        };
        let value = &entry.value;
        let target = value.place;
        if key != "then" && !at.spot.allowed().contains(&key) {
            self.not_allowed(key, entry.key_place, at.spot);
            return (Then::State(NOWHERE), Goes::Nowhere, true, target);
        }
        match key {
            "then" => {
                let (then, goes) = match value.scalar() {
                    Some(scalar) if !value.is_empty() => self.short(&scalar.text, target, at),
                    _ => {
                        if !value.is_broken() {
                            let message =
                                format!("`then` names a state or a short transition, and this is {}", value.describe());
                            let hint = "write `fail: <reason>`, `end: <label>` or `incident: <text>` in its place";
                            self.report("wrong-type", target, message, hint);
                        }
                        (Then::State(NOWHERE), Goes::Nowhere)
                    }
                };
                (then, goes, true, target)
            }
            "end" => {
                let label = self.text(value, "the label of `end`").unwrap_or_default().to_owned();
                if !label.is_empty() {
                    self.kebab(&label, target, "an end");
                }
                (Then::End(label), Goes::End, true, target)
            }
            "fail" => (Then::Fail(Some(self.told(value, "a reason", &at.here))), Goes::Fail, true, entry.key_place),
            _ => (Then::Incident(self.told(value, "a text", &at.here)), Goes::Incident, true, entry.key_place),
        }
    }

    /// The reason of a `fail`, the text of an `incident`.
    fn told(&mut self, node: &Node, what: &str, here: &Here) -> Template {
        if node.is_empty() || matches!(node.kind, Kind::List(_) | Kind::Map(_)) {
            let message = format!("{what} is expected here, and this is {}", node.describe());
            self.report("wrong-type", node.place, message, "write a text, such as `out of stock`");
            return Template::Literal(Value::Null);
        }
        self.template(node, here)
    }

    /// A short transition: a word, or the name of a state.
    fn short(&mut self, word: &str, place: Place, at: &At<'_>) -> (Then, Goes) {
        let (then, goes) = match word {
            "next" => (Then::Next, Goes::Next),
            "stay" => (Then::Stay, Goes::Stay),
            "ignore" => (Then::Ignore, Goes::Ignore),
            "retry" => (Then::Retry, Goes::Retry),
            "fail" => (Then::Fail(None), Goes::Fail),
            name => {
                if !at.spot.takes_states() && self.states.iter().any(|state| state == name) {
                    self.not_allowed(name, place, at.spot);
                    return (Then::Next, Goes::Next);
                }
                let words: Vec<&str> = at.spot.allowed().iter().copied().filter(|word| *word != "end").collect();
                let known = self.state(name, place, &words);
                return known
                    .map_or((Then::State(NOWHERE), Goes::Nowhere), |state| (Then::State(state), Goes::State(state)));
            }
        };
        if !at.spot.allowed().contains(&word) {
            self.not_allowed(word, place, at.spot);
            // Something else was meant, perhaps what holds without it.
            self.note_way(at, at.event, Goes::Nowhere, true, place);
            let default = at.spot.default().filter(|(_, goes)| *goes == Goes::Next);
            return default.unwrap_or((Then::State(NOWHERE), Goes::Nowhere));
        }
        (then, goes)
    }

    fn not_allowed(&mut self, word: &str, place: Place, spot: Spot) {
        let where_ = match spot {
            Spot::PartSuccess => "the `success` of a branch or item".to_owned(),
            Spot::PartFailure => "the `failure` of a branch or item".to_owned(),
            Spot::Choice => "a choice of `decide`".to_owned(),
            Spot::Timer => "a timer".to_owned(),
            _ => format!("`{}`", spot.key()),
        };
        let states = if spot.takes_states() { "a state, " } else { "" };
        let hint = format!("allowed are {states}{}", quoted(spot.allowed()));
        self.report("transition-not-allowed", place, format!("`{word}` is not allowed in {where_}"), hint);
    }

    fn note_handler(&mut self, event: &str, place: Place, part: Option<&str>, at: &At<'_>, guarded: bool) {
        self.facts.handlers.push(Handler {
            state: at.state,
            part: part.map(str::to_owned),
            spot: at.spot,
            event: event.to_owned(),
            at: place,
            guarded,
        });
    }

    pub fn note_way(&mut self, at: &At<'_>, event: Option<&str>, goes: Goes, written: bool, place: Place) {
        let event = event.map(str::to_owned);
        self.facts.ways.push(Way { state: at.state, spot: at.spot, event, goes, written, at: place });
    }
}
