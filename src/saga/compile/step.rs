//! A step: a command, its answers, its time limit, its retries, and what takes it back.

use indexmap::IndexMap;

use super::context::{Context, Fields};
use super::facts::{Goes, Spot, StepFact};
use super::scope::Here;
use super::transition::{At, transition_keys};
use super::value::Least;
use crate::saga::definition::{Entry, Kind, Node, ScalarValue};
use crate::saga::duration::Span;
use crate::saga::expression::Read;
use crate::saga::machine::{InDoubt, LateSuccess, Place, Retry, StateNo, Step, Timeout, Transition, Undo, UndoRule};

/// The keys of a step beside `send`.
pub(super) const STEP: [&str; 9] =
    ["with", "headers", "success", "failure", "timeout", "retry", "undo", "pivot", "late_success"];

/// More attempts than this are no number but `always`.
const MAX_ATTEMPTS: u32 = 1_000_000;
/// A delay that grows faster reaches any limit at once.
const MAX_FACTOR: f64 = 100.0;

/// What holds for steps that do not say their own.
#[derive(Default)]
pub(super) struct Defaults<'n> {
    pub timeout: Option<&'n Node>,
    pub retry: Option<Retry>,
    pub undo_timeout: Option<Span>,
    pub undo_retry: Option<Retry>,
}

/// Which step, and what is special about it.
#[derive(Clone, Copy)]
pub(super) struct Whose<'n> {
    pub state: StateNo,
    /// Key of the state or branch.
    pub owner: Place,
    pub branch: Option<&'n str>,
    /// Name of the element, in an `each`.
    pub item: Option<&'n str>,
    /// An `each` that does not send all at once.
    pub later: bool,
}

impl Whose<'_> {
    fn is_part(&self) -> bool {
        self.branch.is_some() || self.item.is_some()
    }
}

pub(super) fn command_retry() -> Retry {
    Retry { attempts: Some(1), delay: Span(1_000), factor: 2.0, max_delay: Span(60_000), jitter: 0.1 }
}

pub(super) fn undo_retry() -> Retry {
    Retry { attempts: Some(20), max_delay: Span(600_000), ..command_retry() }
}

const UNDO_TIMEOUT: Span = Span(30_000);

impl Context<'_> {
    /// The step among these keys; `send` is known to be there.
    pub fn step(&mut self, fields: &Fields<'_>, whose: Whose<'_>, defaults: &Defaults<'_>) -> Step {
        let send = fields.value("send").and_then(|send| self.command(send, "a command"));
        let (address, command) = send.unwrap_or_default();
        let body = if whose.later { Here::later_command(whose.state) } else { Here::command(whose.state) };
        let body = body.in_each(whose.item);
        let with = fields.value("with").map(|with| self.body(with, &body));
        let headers = fields.value("headers").map(|headers| self.headers(headers, &body)).unwrap_or_default();
        let success = self.answers(fields, "success", whose);
        let failure = self.answers(fields, "failure", whose);
        if let Some(entry) = fields.get("failure")
            && !fields.has("success")
        {
            let hint = "name the event that says it was done, or leave `failure` out if nobody answers";
            self.missing(fields, entry.key_place, "a step with `failure`", "success", hint);
        }
        if !fields.has("success") && !whose.is_part() {
            let at = At { spot: Spot::Confirm, state: Some(whose.state), event: None, owner: whose.owner, here: body };
            self.note_way(&at, None, Goes::Next, false, whose.owner);
        }
        let timeout = self.timeout(fields, whose, defaults);
        let retry = match fields.value("retry") {
            Some(node) => self.retry(node, &command_retry()),
            None => defaults.retry.clone().unwrap_or_else(command_retry),
        };
        let is_said = fields.value("pivot").and_then(|node| self.boolean(node, "`pivot`")).unwrap_or(false);
        let pivot = is_pivot(fields);
        if let Some(entry) = fields.get("pivot").filter(|_| pivot && whose.is_part()) {
            let message = "a pivot cannot be a branch or an item: there is one way back, or none";
            self.report("pivot-in-part", entry.key_place, message, "make the pivot a state of its own, after this one");
        }
        let undo = match fields.get("undo") {
            Some(entry) if is_said && !whose.is_part() => {
                let message = "a pivot takes no `undo`: once it has succeeded there is no way back";
                self.report("pivot-undo", entry.key_place, message, "remove `undo`, or `pivot`");
                UndoRule::Absent
            }
            Some(entry) => self.undo(entry, whose, defaults),
            None => UndoRule::Absent,
        };
        let late = [("undo", LateSuccess::Undo), ("incident", LateSuccess::Incident)];
        let late_success = fields.value("late_success").and_then(|node| self.word(node, "`late_success`", &late));
        let undo_broken = fields.is_meant("undo")
            || (fields.has("undo") && matches!(undo, UndoRule::Absent))
            || (pivot && whose.is_part());
        self.facts.steps.push(StepFact {
            state: whose.state,
            part: whose.branch.map(str::to_owned),
            at: whose.owner,
            undo_broken,
        });
        Step {
            address,
            command,
            with,
            headers,
            success,
            failure,
            timeout,
            retry,
            undo,
            pivot: pivot && !whose.is_part(),
            late_success: late_success.unwrap_or(LateSuccess::Undo),
            place: whose.owner,
        }
    }

    fn answers(&mut self, fields: &Fields<'_>, key: &str, whose: Whose<'_>) -> IndexMap<String, Vec<Transition>> {
        let Some(entry) = fields.get(key) else { return IndexMap::new() };
        let spot = match (key == "success", whose.is_part()) {
            (true, false) => Spot::Success,
            (true, true) => Spot::PartSuccess,
            (false, false) => Spot::Failure,
            (false, true) => Spot::PartFailure,
        };
        let here = Here::answer(whose.state).in_each(whose.item);
        let at = At { spot, state: Some(whose.state), event: None, owner: entry.key_place, here };
        self.handlers(entry, whose.branch, &at)
    }

    fn timeout(&mut self, fields: &Fields<'_>, whose: Whose<'_>, defaults: &Defaults<'_>) -> Option<Timeout> {
        let owned = fields.get("timeout");
        let awaits = fields.has("success");
        if let Some(entry) = owned {
            self.facts.own_timeouts += 1;
            return self.timeout_value(&entry.value, entry.key_place, Some(whose));
        }
        let Some(node) = defaults.timeout else {
            if awaits && !fields.is_meant("timeout") {
                self.facts.without_timeout.push(whose.owner);
            }
            return None;
        };
        if !awaits {
            return None;
        }
        let ways = self.facts.ways.len();
        let timeout = self.silently(|context| context.timeout_value(node, whose.owner, Some(whose)));
        if !is_pivot(fields) {
            return timeout;
        }
        // Where a pivot's silence leads is not for a default to say.
        self.facts.ways.truncate(ways);
        timeout.map(|timeout| Timeout { ways: Vec::new(), ..timeout })
    }

    /// A duration, or one with a transition. `whose` is `None` in `defaults`.
    pub fn timeout_value(&mut self, node: &Node, owner: Place, whose: Option<Whose<'_>>) -> Option<Timeout> {
        if !matches!(node.kind, Kind::Map(_)) {
            let after = self.span(node, "a time limit", Least::Positive)?;
            return Some(Timeout { after, ways: Vec::new() });
        }
        let fields = self.fields(node, "a time limit", &transition_keys(&["after"]))?;
        let after = self.after(&fields, owner, "a time limit");
        let state = whose.map(|whose| whose.state);
        let here = Here::silence(state).in_each(whose.and_then(|whose| whose.item));
        let at = At { spot: Spot::Timeout, state, event: None, owner, here };
        let way = self.long(&fields, node.place, &at);
        Some(Timeout { after: after?, ways: vec![way] })
    }

    /// The duration beside a transition.
    pub fn after(&mut self, fields: &Fields<'_>, owner: Place, what: &str) -> Option<Span> {
        let Some(node) = fields.value("after") else {
            self.missing(fields, owner, what, "after", "say how long, such as `after: 30s`");
            return None;
        };
        self.span(node, "`after`", Least::Positive)
    }

    /// `rest` gives what is not said.
    pub fn retry(&mut self, node: &Node, rest: &Retry) -> Retry {
        let mut retry = rest.clone();
        if let Kind::Scalar(scalar) = &node.kind {
            if scalar.text == "always" {
                let hint = "write `retry: { attempts: always }`";
                self.report("wrong-type", node.place, "`retry` is a number of attempts or a mapping", hint);
            } else if let Some(attempts) = self.integer(node, "the number of attempts", 1..=MAX_ATTEMPTS) {
                retry.attempts = Some(attempts);
            }
            return retry;
        }
        let keys = ["attempts", "delay", "factor", "max_delay", "jitter"];
        let Some(fields) = self.fields(node, "`retry`", &keys) else { return retry };
        if let Some(node) = fields.value("attempts") {
            if node.text() == Some("always") {
                retry.attempts = None;
            } else if let Some(attempts) = self.integer(node, "the number of attempts", 1..=MAX_ATTEMPTS) {
                retry.attempts = Some(attempts);
            }
        }
        let delay = fields.value("delay").and_then(|node| self.span(node, "`delay`", Least::Zero));
        let max_delay = fields.value("max_delay").and_then(|node| self.span(node, "`max_delay`", Least::Zero));
        if let Some(node) = fields.value("factor") {
            retry.factor = self.decimal(node, "`factor`", 1.0..=MAX_FACTOR).unwrap_or(retry.factor);
        }
        if let Some(node) = fields.value("jitter") {
            retry.jitter = self.decimal(node, "`jitter`", 0.0..=1.0).unwrap_or(retry.jitter);
        }
        self.delays(&fields, delay, max_delay, &mut retry);
        retry
    }

    /// A delay that grows cannot begin beyond its own limit; the limit that was not said gives way.
    fn delays(&mut self, fields: &Fields<'_>, delay: Option<Span>, max_delay: Option<Span>, retry: &mut Retry) {
        match (delay, max_delay) {
            (Some(delay), Some(max_delay)) if delay > max_delay => {
                if let Some(entry) = fields.get("delay") {
                    let message = "`delay` is longer than `max_delay`";
                    let hint = "begin with a shorter delay, or raise `max_delay`";
                    self.report("out-of-range", entry.value.place, message, hint);
                }
            }
            (Some(delay), None) => {
                retry.delay = delay;
                retry.max_delay = retry.max_delay.max(delay);
            }
            (None, Some(max_delay)) => {
                retry.max_delay = max_delay;
                retry.delay = retry.delay.min(max_delay);
            }
            (Some(delay), Some(max_delay)) => (retry.delay, retry.max_delay) = (delay, max_delay),
            (None, None) => {}
        }
    }

    fn undo(&mut self, entry: &Entry, whose: Whose<'_>, defaults: &Defaults<'_>) -> UndoRule {
        let node = &entry.value;
        let timeout = defaults.undo_timeout.unwrap_or(UNDO_TIMEOUT);
        let retry = defaults.undo_retry.clone().unwrap_or_else(undo_retry);
        match &node.kind {
            Kind::Broken => UndoRule::Absent,
            Kind::Scalar(scalar) if scalar.text == "none" => UndoRule::Nothing,
            Kind::Scalar(_) | Kind::List(_) => {
                let Some((address, command)) = self.command(node, "the command that takes it back") else {
                    return UndoRule::Absent;
                };
                UndoRule::Send(Undo {
                    address,
                    command,
                    with: None,
                    success: Vec::new(),
                    failure: Vec::new(),
                    timeout,
                    retry,
                    when: None,
                    in_doubt: InDoubt::Undo,
                    place: entry.key_place,
                })
            }
            Kind::Map(_) => self.long_undo(entry, whose, (timeout, retry)),
        }
    }

    fn long_undo(&mut self, entry: &Entry, whose: Whose<'_>, (timeout, retry): (Span, Retry)) -> UndoRule {
        let keys = ["send", "with", "success", "failure", "timeout", "retry", "when", "in_doubt"];
        let Some(fields) = self.fields(&entry.value, "an undo", &keys) else { return UndoRule::Absent };
        let here = Here::undo(whose.state).in_each(whose.item);
        let reads = self.facts.reply_reads.len();
        let with = fields.value("with").map(|with| self.body(with, &here));
        let when = fields.value("when").and_then(|when| self.expression(when, &here));
        let asks = |read: &Read| read.path.first().is_some_and(|name| name == "reply" || name == "reply_type");
        if when.as_ref().is_some_and(|when| when.read_places().iter().any(asks)) {
            // Whether there is a reply is asked before the body is made.
            self.facts.reply_reads.truncate(reads);
        }
        let success = self.undo_answers(&fields, "success");
        let failure = self.undo_answers(&fields, "failure");
        for (event, place) in &failure {
            if success.iter().any(|(other, _)| other == event) {
                let message = format!("`{event}` is named in `success` and in `failure` of this undo");
                self.report(
                    "overlapping-handlers",
                    *place,
                    message,
                    "an answer means one of the two; remove it here or there",
                );
            }
        }
        if let Some(entry) = fields.get("failure")
            && !fields.has("success")
        {
            let hint = "name the event that says it was taken back";
            self.missing(&fields, entry.key_place, "an undo with `failure`", "success", hint);
        }
        let timeout = fields
            .value("timeout")
            .and_then(|node| self.span(node, "a time limit", Least::Positive))
            .unwrap_or(timeout);
        let retry = fields.value("retry").map_or(retry, |node| self.retry(node, &undo_retry()));
        let in_doubt = [("undo", InDoubt::Undo), ("leave", InDoubt::Leave)];
        let in_doubt = fields.value("in_doubt").and_then(|node| self.word(node, "`in_doubt`", &in_doubt));
        if fields.is_meant("success") {
            self.facts.doubtful_undos.push(entry.key_place);
        }
        let Some(send) = fields.value("send") else {
            self.missing(
                &fields,
                entry.key_place,
                "an undo",
                "send",
                "name the command that takes it back: `send: <address>.<Command>`",
            );
            return UndoRule::Absent;
        };
        let Some((address, command)) = self.command(send, "the command that takes it back") else {
            return UndoRule::Absent;
        };
        let names = |answers: Vec<(String, Place)>| answers.into_iter().map(|(event, _)| event).collect();
        UndoRule::Send(Undo {
            address,
            command,
            with,
            success: names(success),
            failure: names(failure),
            timeout,
            retry,
            when,
            in_doubt: in_doubt.unwrap_or(InDoubt::Undo),
            place: entry.key_place,
        })
    }

    /// An event's type or a list of them: an undo's answers lead nowhere else.
    fn undo_answers(&mut self, fields: &Fields<'_>, key: &str) -> Vec<(String, Place)> {
        let Some(node) = fields.value(key) else { return Vec::new() };
        let nodes = match &node.kind {
            Kind::List(items) => items.as_slice(),
            Kind::Scalar(_) | Kind::Map(_) | Kind::Broken => std::slice::from_ref(node),
        };
        nodes.iter().filter_map(|node| Some((self.event_value(node, "an event")?, node.place))).collect()
    }
}

/// Whether these keys are those of a pivot; one that says so in a wrong way, or under a misspelt key, counts as one.
fn is_pivot(fields: &Fields<'_>) -> bool {
    let is_false = |node: &Node| node.scalar().is_some_and(|scalar| scalar.value == ScalarValue::Bool(false));
    fields.value("pivot").is_some_and(|node| !is_false(node)) || fields.is_meant("pivot")
}
