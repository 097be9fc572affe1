//! What an unknown key was meant to be, told by the shape of its value: so that one mistake is not told a second time
//! as something that is missing.

use std::collections::BTreeSet;

use crate::saga::definition::{Kind, Node, ScalarValue};
use crate::saga::duration::Span;

/// Keys whose values hardly look like those of others.
const DISTINCT: [&str; 17] = [
    "all",
    "choices",
    "decide",
    "defaults",
    "each",
    "events",
    "exchange",
    "find",
    "needs",
    "pivot",
    "routing_key",
    "send",
    "start",
    "states",
    "timeout",
    "undo",
    "when",
];

/// The one of these keys that the value fits; `None` where it fits several, or none.
pub(super) fn only_one(node: &Node, absent: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    let mut fitting = absent.filter(|key| DISTINCT.contains(key) && has_shape(node, key));
    let first = fitting.next()?;
    fitting.next().is_none().then_some(first)
}

/// Whether a value looks like that of a key.
pub(super) fn has_shape(node: &Node, key: &str) -> bool {
    match &node.kind {
        Kind::Scalar(scalar) => match key {
            "send" => is_command(&scalar.text),
            "undo" => is_command(&scalar.text) || scalar.text == "none",
            "each" => scalar.text.starts_with("data.") || scalar.text.starts_with("event."),
            "timeout" | "after" => Span::parse(&scalar.text).is_ok(),
            "pivot" => scalar.value == ScalarValue::Bool(true),
            "when" => scalar.text.contains(['=', '<', '>', '&', '|', '(']) && !scalar.text.contains('$'),
            "about" | "exchange" | "routing_key" | "deliver" => node.text().is_some(),
            "then" | "next" | "key" | "success" | "event" | "command" | "ask" | "saga" => !node.is_empty(),
            _ => false,
        },
        Kind::List(_) => matches!(key, "needs" | "success"),
        Kind::Map(entries) => {
            let has = |keys: &[&str]| entries.iter().any(|entry| keys.contains(&entry.key.as_str()));
            let within = |keys: &[&str]| {
                !entries.is_empty() && entries.iter().all(|entry| keys.iter().any(|key| entry.value.get(key).is_some()))
            };
            let are_scalars = !entries.is_empty() && entries.iter().all(|entry| entry.value.scalar().is_some());
            match key {
                "undo" => has(&["send"]) && !has(&["undo", "pivot"]),
                "timeout" => has(&["after"]),
                "defaults" => has(&["timeout", "retry", "undo"]),
                "decide" => has(&["choices", "ask"]),
                "start" => within(&["key"]) && !within(&["find", "instance"]),
                "events" => within(&["key", "find", "instance"]) && !within(&["data"]),
                "all" => within(&["send"]),
                "states" => within(&[
                    "send", "on", "timers", "all", "each", "choose", "decide", "publish", "set", "next", "end",
                ]),
                "choices" => {
                    let leads =
                        |node: &Node| ["then", "fail", "end", "needs"].iter().any(|key| node.get(key).is_some());
                    entries.iter().any(|entry| leads(&entry.value))
                }
                "find" => are_scalars && !has(&["exchange", "routing_key"]),
                "needs" => are_scalars,
                "success" | "set" => true,
                _ => false,
            }
        }
        Kind::Broken => false,
    }
}

fn is_command(text: &str) -> bool {
    text.contains('.') && !text.contains([' ', '$', '('])
}

/// All names that stand somewhere in there: keys, and single words.
pub(super) fn note_names(node: &Node, names: &mut BTreeSet<String>) {
    match &node.kind {
        Kind::Scalar(scalar) => {
            names.insert(scalar.text.clone());
        }
        Kind::List(items) => items.iter().for_each(|item| note_names(item, names)),
        Kind::Map(entries) => {
            for entry in entries {
                names.extend(entry.key.split('.').next().map(str::to_owned));
                note_names(&entry.value, names);
            }
        }
        Kind::Broken => {}
    }
}
