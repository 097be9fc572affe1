//! A scenario file as it is written. Knows the words of scenarios, not what they do.

use serde_json::{Map, Value};

use crate::saga::definition::{Entry, Kind, Node, ScalarValue, read};
use crate::saga::diagnostic::{Diagnostic, Problem};
use crate::saga::duration::Span;
use crate::saga::event::{Verb, Verdict};
use crate::saga::machine::Place;
use crate::saga::time::Timestamp;

#[derive(Clone, Debug)]
pub struct ScenarioFile {
    pub saga: String,
    pub saga_place: Place,
    pub scenarios: Vec<Scenario>,
}

#[derive(Clone, Debug)]
pub struct Scenario {
    pub name: String,
    pub place: Place,
    pub steps: Vec<Step>,
}

#[derive(Clone, Debug)]
pub struct Step {
    pub place: Place,
    /// `for`: `<key>`, or `<saga>/<key>`.
    pub instance: Option<String>,
    pub action: Action,
}

#[derive(Clone, Debug)]
pub enum Action {
    Receive { event: String, body: Value, id: Option<String>, correlation: Option<String>, headers: Map<String, Value> },
    Reply { event: String, to: Option<String>, body: Value, id: Option<String> },
    Again,
    Advance(Span),
    Clock(Timestamp),
    Broker { away: bool },
    Decide { choice: String, fields: Map<String, Value> },
    Operator(Verb),
    Restart,
    Expect { messages: Vec<Expected>, any_order: bool },
    Status(String),
    State(String),
    Data(Value),
    Outcome(String),
    Incident(Option<String>),
    Unmatched(String),
}

#[derive(Clone, Debug)]
pub struct Expected {
    pub place: Place,
    pub kind: ExpectedKind,
    /// `<address>.<Command>` of a `send`, else the type.
    pub name: String,
    /// The fields that are compared; `None`: the body is not looked at.
    pub with: Option<Value>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpectedKind {
    Send,
    Publish,
    Reply,
}

/// The words of a step, each of which says what the step is.
const ACTIONS: [&str; 16] = [
    "receive",
    "reply",
    "again",
    "advance",
    "clock",
    "broker",
    "decide",
    "operator",
    "restart",
    "expect",
    "status",
    "state",
    "data",
    "outcome",
    "incident",
    "unmatched",
];
/// The words that stand beside them.
const BESIDE: [&str; 8] = ["for", "body", "id", "correlation", "headers", "to", "any_order", "with"];

type Read<T> = Result<T, Problem>;

/// Reads a scenario file; all its mistakes at once.
pub fn parse(file: &str, text: &str) -> Result<ScenarioFile, Vec<Diagnostic>> {
    let located = |problems: Vec<Problem>| problems.into_iter().map(|problem| problem.in_file(file)).collect();
    let (root, problems) = read(text).map_err(|problem| located(vec![problem]))?;
    if !problems.is_empty() {
        return Err(located(problems));
    }
    let mut problems = Vec::new();
    let file = read_file(&root, &mut problems);
    match file {
        Some(file) if problems.is_empty() => Ok(file),
        _ => Err(located(problems)),
    }
}

fn read_file(root: &Node, problems: &mut Vec<Problem>) -> Option<ScenarioFile> {
    let entries = entries(root, "a scenario file").map_err(|problem| problems.push(problem)).ok()?;
    for entry in entries {
        if !["saga", "scenarios"].contains(&entry.key.as_str()) {
            problems.push(unknown(entry, &["saga", "scenarios"]));
        }
    }
    let saga = root.get("saga").or_else(|| {
        problems.push(missing(root.place, "saga", "a scenario file names its saga: write `saga: <name>`"));
        None
    })?;
    let scenarios = root.get("scenarios").or_else(|| {
        problems.push(missing(root.place, "scenarios", "write `scenarios:` with one entry for each scenario"));
        None
    })?;
    let name = text(&saga.value).map_err(|problem| problems.push(problem)).ok()?;
    let list = self::entries(&scenarios.value, "scenarios").map_err(|problem| problems.push(problem)).ok()?;
    let scenarios = list.iter().map(|entry| read_scenario(entry, problems)).collect();
    Some(ScenarioFile { saga: name, saga_place: saga.value.place, scenarios })
}

fn read_scenario(entry: &Entry, problems: &mut Vec<Problem>) -> Scenario {
    let mut steps = Vec::new();
    match &entry.value.kind {
        Kind::List(nodes) => {
            for node in nodes {
                match read_step(node) {
                    Ok(step) => steps.push(step),
                    Err(problem) => problems.push(problem),
                }
            }
        }
        _ => problems.push(wrong(&entry.value, "a list of steps")),
    }
    let looks = steps.iter().any(|step| {
        matches!(
            step.action,
            Action::Expect { .. }
                | Action::Status(_)
                | Action::State(_)
                | Action::Data(_)
                | Action::Outcome(_)
                | Action::Incident(_)
                | Action::Unmatched(_)
        )
    });
    if !looks && problems.is_empty() {
        problems.push(Problem::new(
            "scenario-without-expectation",
            entry.key_place,
            format!("the scenario '{}' expects nothing", entry.key),
            "say what must hold: `expect`, `status`, `state`, `data`, `outcome`, `incident` or `unmatched`",
        ));
    }
    Scenario { name: entry.key.clone(), place: entry.key_place, steps }
}

fn read_step(node: &Node) -> Read<Step> {
    if let Some(word) = node.text() {
        let action = match word {
            "again" => Action::Again,
            "restart" => Action::Restart,
            _ => return Err(wrong(node, "a step such as `receive: <Event>`")),
        };
        return Ok(Step { place: node.place, instance: None, action });
    }
    let entries = entries(node, "a step")?;
    let mut words = entries.iter().filter(|entry| ACTIONS.contains(&entry.key.as_str()));
    let Some(main) = words.next() else {
        return Err(Problem::new(
            "scenario-step",
            node.place,
            "a step without a word that says what it is",
            format!("one of {}", ACTIONS.join(", ")),
        ));
    };
    if let Some(second) = words.next() {
        return Err(Problem::new(
            "scenario-step",
            second.key_place,
            format!("'{}' beside '{}' in one step", second.key, main.key),
            "make two steps of it",
        ));
    }
    for entry in entries {
        let key = entry.key.as_str();
        if key != main.key && !allowed_beside(&main.key).contains(&key) {
            return Err(unknown(entry, &[allowed_beside(&main.key), &ACTIONS].concat()));
        }
    }
    let instance = node.get("for").map(|entry| scalar_text(&entry.value)).transpose()?;
    Ok(Step { place: node.place, instance, action: read_action(node, main)? })
}

fn allowed_beside(word: &str) -> &'static [&'static str] {
    match word {
        "receive" => &["for", "body", "id", "correlation", "headers"],
        "reply" => &["for", "to", "body", "id"],
        "expect" => &["for", "any_order"],
        _ => &BESIDE[..1],
    }
}

fn read_action(node: &Node, main: &Entry) -> Read<Action> {
    let value = &main.value;
    let body = || node.get("body").map(|entry| json(&entry.value)).transpose();
    let id = || node.get("id").map(|entry| scalar_text(&entry.value)).transpose();
    Ok(match main.key.as_str() {
        "receive" => Action::Receive {
            event: text(value)?,
            body: body()?.unwrap_or_else(|| Value::Object(Map::new())),
            id: id()?,
            correlation: node.get("correlation").map(|entry| scalar_text(&entry.value)).transpose()?,
            headers: node.get("headers").map(|entry| object(&entry.value)).transpose()?.unwrap_or_default(),
        },
        "reply" => Action::Reply {
            event: text(value)?,
            to: node.get("to").map(|entry| scalar_text(&entry.value)).transpose()?,
            body: body()?.unwrap_or_else(|| Value::Object(Map::new())),
            id: id()?,
        },
        "again" => Action::Again,
        "restart" => Action::Restart,
        "advance" => {
            let text = scalar_text(value)?;
            Action::Advance(Span::parse(&text).map_err(|error| {
                Problem::new("bad-duration", value.place, error.message.clone(), error.hint.clone())
            })?)
        }
        "clock" => {
            let text = scalar_text(value)?;
            Action::Clock(Timestamp::parse(&text).map_err(|error| {
                let hint = "write a time such as 2030-01-01T00:00:00Z";
                Problem::new("bad-time", value.place, error.to_string(), hint)
            })?)
        }
        "broker" => match value.text() {
            Some("away") => Action::Broker { away: true },
            Some("back") => Action::Broker { away: false },
            _ => return Err(wrong(value, "`away` or `back`")),
        },
        "decide" => read_decide(value)?,
        "operator" => Action::Operator(read_order(value)?),
        "expect" => {
            let Kind::List(messages) = &value.kind else { return Err(wrong(value, "a list of messages")) };
            let any_order = node.get("any_order").is_some_and(|entry| json(&entry.value) == Ok(Value::Bool(true)));
            Action::Expect { messages: messages.iter().map(read_expected).collect::<Read<_>>()?, any_order }
        }
        "status" => Action::Status(text(value)?),
        "state" => Action::State(text(value)?),
        "data" => Action::Data(json(value)?),
        "outcome" => Action::Outcome(text(value)?),
        "incident" => {
            let kind = scalar_text(value)?;
            Action::Incident((!["none", "null", ""].contains(&kind.as_str())).then_some(kind))
        }
        _ => Action::Unmatched(text(value)?),
    })
}

fn read_expected(node: &Node) -> Read<Expected> {
    let entries = entries(node, "a message")?;
    let mut found = None;
    let mut with = None;
    for entry in entries {
        let kind = match entry.key.as_str() {
            "send" => ExpectedKind::Send,
            "publish" => ExpectedKind::Publish,
            "reply" => ExpectedKind::Reply,
            "with" => {
                with = Some(json(&entry.value)?);
                continue;
            }
            _ => return Err(unknown(entry, &["send", "publish", "reply", "with"])),
        };
        found = Some((kind, text(&entry.value)?));
    }
    let Some((kind, name)) = found else {
        return Err(missing(
            node.place,
            "send",
            "write `send: <address>.<Command>`, `publish: <Event>` or `reply: <Event>`",
        ));
    };
    Ok(Expected { place: node.place, kind, name, with })
}

fn read_decide(node: &Node) -> Read<Action> {
    if let Some(choice) = node.text() {
        return Ok(Action::Decide { choice: choice.to_owned(), fields: Map::new() });
    }
    let choice = node.get("choice").ok_or_else(|| missing(node.place, "choice", "write `choice: <name>`"))?;
    let fields = node.get("with").map(|entry| object(&entry.value)).transpose()?.unwrap_or_default();
    Ok(Action::Decide { choice: text(&choice.value)?, fields })
}

/// `operator: { <verb>: … }`, or the verb alone.
fn read_order(node: &Node) -> Read<Verb> {
    const VERBS: [&str; 10] =
        ["retry", "skip", "compensate", "resolve", "goto", "set", "fire", "pause", "resume", "abandon"];
    let (verb, place, value) = match node.text() {
        Some(verb) => (verb, node.place, None),
        None => {
            let [entry] = entries(node, "an order")? else {
                return Err(wrong(node, "one order, such as `{ retry: }`"));
            };
            (entry.key.as_str(), entry.key_place, Some(&entry.value))
        }
    };
    let needed = || value.filter(|value| !says_nothing(value)).ok_or_else(|| missing(place, verb, "say which"));
    Ok(match verb {
        "retry" => {
            let step = value.filter(|value| !says_nothing(value)).map(step_name).transpose()?;
            Verb::Retry { step }
        }
        "skip" => Verb::Skip,
        "compensate" => Verb::Compensate,
        "pause" => Verb::Pause,
        "resume" => Verb::Resume,
        "abandon" => Verb::Abandon,
        "goto" => Verb::Goto { state: text(needed()?)? },
        "fire" => Verb::Fire { timer: scalar_text(needed()?)? },
        "set" => {
            let values = object(needed()?)?;
            let path =
                |name: String| name.strip_prefix("data.").unwrap_or(&name).split('.').map(str::to_owned).collect();
            Verb::Set { values: values.into_iter().map(|(name, value)| (path(name), value)).collect() }
        }
        "resolve" => read_resolve(needed()?)?,
        _ => {
            let hint = format!("one of {}", VERBS.join(", "));
            return Err(Problem::new("unknown-name", place, format!("there is no order '{verb}'"), hint));
        }
    })
}

fn step_name(node: &Node) -> Read<String> {
    match node.get("step") {
        Some(entry) => scalar_text(&entry.value),
        None => scalar_text(node),
    }
}

fn read_resolve(node: &Node) -> Read<Verb> {
    let step = node.get("step").ok_or_else(|| missing(node.place, "step", "name the step: `step: <state>`"))?;
    let settled = node.get("as").ok_or_else(|| missing(node.place, "as", "write `as: done`, `refused` or `undone`"))?;
    let body = node.get("with").map(|entry| json(&entry.value)).transpose()?;
    let verdict = match settled.value.text() {
        Some("done") => Verdict::Done { body: body.unwrap_or_else(|| Value::Object(Map::new())) },
        Some("refused") => Verdict::Refused,
        Some("undone") => Verdict::Undone,
        _ => return Err(wrong(&settled.value, "`done`, `refused` or `undone`")),
    };
    Ok(Verb::Resolve { step: scalar_text(&step.value)?, verdict })
}

// ---- nodes ------------------------------------------------------------------------------------------------------

fn entries<'n>(node: &'n Node, what: &str) -> Read<&'n [Entry]> {
    match &node.kind {
        Kind::Map(entries) => Ok(entries),
        _ => Err(wrong(node, &format!("{what} as a mapping"))),
    }
}

fn text(node: &Node) -> Read<String> {
    node.text().map(str::to_owned).ok_or_else(|| wrong(node, "a name"))
}

/// A scalar as it is written, be it a number or a text.
fn scalar_text(node: &Node) -> Read<String> {
    node.scalar().map(|scalar| scalar.text.clone()).ok_or_else(|| wrong(node, "a single value"))
}

fn says_nothing(node: &Node) -> bool {
    node.scalar().is_some_and(|scalar| scalar.text.is_empty() || scalar.value == ScalarValue::Null)
}

fn object(node: &Node) -> Read<Map<String, Value>> {
    match json(node)? {
        Value::Object(fields) => Ok(fields),
        _ => Err(wrong(node, "a mapping")),
    }
}

fn json(node: &Node) -> Read<Value> {
    Ok(match &node.kind {
        Kind::Broken => Value::Null,
        Kind::List(items) => Value::Array(items.iter().map(json).collect::<Read<_>>()?),
        Kind::Map(entries) => {
            let fields = entries.iter().map(|entry| Ok((entry.key.clone(), json(&entry.value)?)));
            Value::Object(fields.collect::<Read<_>>()?)
        }
        Kind::Scalar(scalar) => match &scalar.value {
            ScalarValue::Null => Value::Null,
            ScalarValue::Bool(value) => Value::Bool(*value),
            ScalarValue::Text => Value::String(scalar.text.clone()),
            ScalarValue::Number(number) => {
                serde_json::from_str(number).map_err(|_| wrong(node, "a number that JSON knows"))?
            }
        },
    })
}

fn wrong(node: &Node, expected: &str) -> Problem {
    let message = format!("expected {expected}, found {}", node.describe());
    Problem::new("wrong-shape", node.place, message, format!("write {expected} here"))
}

fn missing(place: Place, key: &str, hint: &str) -> Problem {
    Problem::new("missing-key", place, format!("'{key}' is missing"), hint)
}

fn unknown(entry: &Entry, known: &[&str]) -> Problem {
    let hint = match crate::saga::expression::closest(&entry.key, known.iter().copied()) {
        Some(near) => format!("did you mean '{near}'?"),
        None => format!("here may stand {}", known.join(", ")),
    };
    Problem::new("unknown-key", entry.key_place, format!("there is no key '{}' here", entry.key), hint)
}
