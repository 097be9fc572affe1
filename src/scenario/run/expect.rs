//! What a scenario says must hold, held against what is.

use serde_json::Value;

use crate::saga::effect::{Destination, Outgoing};
use crate::saga::json;

use super::super::file::{Expected, ExpectedKind};
use super::stage::{Stage, own_id, shown};

/// The exact list of messages since the last `expect`; lifecycle events only where they are named.
pub fn messages(stage: &mut Stage, expected: &[Expected], any_order: bool) -> Result<(), String> {
    let named = |message: &Outgoing| expected.iter().any(|expected| expected.name == message.kind);
    let found: Vec<Outgoing> = stage.sent[stage.expected..]
        .iter()
        .filter(|message| message.to != Destination::Lifecycle || named(message))
        .cloned()
        .collect();
    stage.expected = stage.sent.len();
    let matches = if any_order {
        let mut left: Vec<&Outgoing> = found.iter().collect();
        expected.len() == found.len()
            && expected.iter().all(|expected| {
                let place = left.iter().position(|message| fits(expected, message));
                place.map(|place| left.remove(place)).is_some()
            })
    } else {
        expected.len() == found.len() && expected.iter().zip(&found).all(|(expected, message)| fits(expected, message))
    };
    if matches { Ok(()) } else { Err(difference(expected, &found)) }
}

fn fits(expected: &Expected, message: &Outgoing) -> bool {
    let (kind, name) = match &message.to {
        Destination::Command { address } => (ExpectedKind::Send, format!("{address}.{}", message.kind)),
        Destination::Queue { .. } => (ExpectedKind::Reply, message.kind.clone()),
        Destination::Event if message.correlation_id != own_id(message) => (ExpectedKind::Reply, message.kind.clone()),
        Destination::Event | Destination::Lifecycle => (ExpectedKind::Publish, message.kind.clone()),
    };
    expected.kind == kind
        && expected.name == name
        && expected.with.as_ref().is_none_or(|with| includes(&message.body.value(), with))
}

/// Bodies are compared by the fields that are given.
fn includes(found: &Value, expected: &Value) -> bool {
    match (found, expected) {
        (Value::Object(found), Value::Object(expected)) => {
            expected.iter().all(|(name, value)| found.get(name).is_some_and(|found| includes(found, value)))
        }
        _ => json::equal(found, expected),
    }
}

fn difference(expected: &[Expected], found: &[Outgoing]) -> String {
    let mut out = String::from("the messages are not the expected ones (- expected, + found):");
    let rows = expected.len().max(found.len());
    for row in 0..rows {
        match (expected.get(row), found.get(row)) {
            (Some(expected), Some(message)) if fits(expected, message) => {
                out.push_str(&format!("\n    {}", shown(message)));
            }
            (expected, message) => {
                if let Some(expected) = expected {
                    out.push_str(&format!("\n  - {}", wanted(expected)));
                }
                if let Some(message) = message {
                    out.push_str(&format!("\n  + {}", shown(message)));
                }
            }
        }
    }
    out
}

fn wanted(expected: &Expected) -> String {
    let word = match expected.kind {
        ExpectedKind::Send => "send",
        ExpectedKind::Publish => "publish",
        ExpectedKind::Reply => "reply",
    };
    match &expected.with {
        Some(with) => format!("{word}: {}, with: {with}", expected.name),
        None => format!("{word}: {}", expected.name),
    }
}

pub fn status(stage: &Stage, of: Option<&str>, expected: &str) -> Result<(), String> {
    let instance = stage.instance(of)?;
    let marks = instance.marks();
    let holds = match expected {
        "stuck" => marks.stuck,
        "paused" => marks.paused,
        "settling" => marks.settling,
        status => instance.status.name() == status,
    };
    let found = || {
        let marks = [("stuck", marks.stuck), ("paused", marks.paused), ("settling", marks.settling)];
        let marks: Vec<&str> = marks.iter().filter(|(_, set)| *set).map(|(name, _)| *name).collect();
        format!("{} {}", instance.status.name(), marks.join(" "))
    };
    if holds { Ok(()) } else { Err(format!("the status is {}, expected {expected}", found().trim_end())) }
}

pub fn state(stage: &Stage, of: Option<&str>, expected: &str) -> Result<(), String> {
    let found = stage.instance(of)?.state;
    same("state", expected, &found)
}

pub fn outcome(stage: &Stage, of: Option<&str>, expected: &str) -> Result<(), String> {
    let found = stage.instance(of)?.outcome.unwrap_or_else(|| "none".to_owned());
    same("outcome", expected, &found)
}

pub fn data(stage: &Stage, of: Option<&str>, expected: &Value) -> Result<(), String> {
    let found = stage.instance(of)?.data;
    if includes(&found, expected) {
        return Ok(());
    }
    Err(format!("the data are not the expected ones:\n  - {expected}\n  + {found}"))
}

pub fn incident(stage: &Stage, of: Option<&str>, expected: Option<&str>) -> Result<(), String> {
    let instance = stage.instance(of)?;
    let open: Vec<&str> = instance.incidents.iter().map(|incident| incident.kind.name()).collect();
    let holds = match expected {
        Some(kind) => open.contains(&kind),
        None => open.is_empty(),
    };
    if holds {
        return Ok(());
    }
    let found = if open.is_empty() { "none".to_owned() } else { open.join(", ") };
    Err(format!("the open incident is {found}, expected {}", expected.unwrap_or("none")))
}

pub fn unmatched(stage: &Stage, expected: &str) -> Result<(), String> {
    let found = stage.last_unmatched()?;
    if found.iter().any(|reason| reason == expected) {
        return Ok(());
    }
    let found = if found.is_empty() { "nothing".to_owned() } else { found.join(", ") };
    Err(format!("unmatched is {found}, expected {expected}"))
}

fn same(what: &str, expected: &str, found: &str) -> Result<(), String> {
    if expected == found { Ok(()) } else { Err(format!("the {what} is {found}, expected {expected}")) }
}
