//! What a transition, an entry or an end does beside leading somewhere: `set`, `publish`, `reply`, `send`.

use super::context::{Context, Fields};
use super::facts::EntryRead;
use super::scope::Here;
use crate::saga::definition::{Entry, Kind, Node};
use crate::saga::machine::{Actions, MessageRule, Recipient};
use crate::saga::template::Template;

/// Headers that every message carries already; a definition cannot say them otherwise.
const RESERVED_HEADERS: [&str; 9] = [
    "saga",
    "saga-id",
    "saga-key",
    "saga-state",
    "saga-op",
    "saga-attempt",
    "saga-undoes",
    "saga-timeout-ms",
    "traceparent",
];

#[derive(Clone, Copy)]
enum Way {
    Publish,
    Reply,
    Send,
}

impl Context<'_> {
    /// The actions among these keys, messages in the order in which they go out: `publish`, `reply`, `send`.
    ///
    /// Where `send` is a step, the caller's mapping has it and `with_send` is false.
    pub fn actions(&mut self, fields: &Fields<'_>, here: &Here, send: LooseSend) -> Actions {
        let set = fields.value("set").map(|node| self.set(node, here)).unwrap_or_default();
        let mut messages = Vec::new();
        for (key, way) in [("publish", Way::Publish), ("reply", Way::Reply), ("send", Way::Send)] {
            let Some(entry) = fields.get(key) else { continue };
            if key != "send" || send == LooseSend::Taken {
                self.messages(entry, way, here, &mut messages);
            }
        }
        Actions { set, messages }
    }

    /// Dotted names, each a path into `data`.
    pub fn set(&mut self, node: &Node, here: &Here) -> Vec<(Vec<String>, Template)> {
        let Some(entries) = self.mapping(node, "`set`") else {
            self.facts.open_data = true;
            return Vec::new();
        };
        let mut set = Vec::new();
        for entry in entries {
            let path: Vec<String> = entry.key.split('.').map(str::to_owned).collect();
            if path.iter().any(String::is_empty) {
                let message = format!("`{}` is no path into `data`", entry.key);
                self.report("bad-name", entry.key_place, message, "join the names of fields with single dots");
                self.facts.open_data = true;
            } else {
                self.facts.set.insert(path[0].clone());
            }
            set.push((path, self.template(&entry.value, here)));
        }
        set
    }

    /// One message or a list of them; `reply` is one.
    fn messages(&mut self, entry: &Entry, way: Way, here: &Here, out: &mut Vec<MessageRule>) {
        match (&entry.value.kind, way) {
            (Kind::List(items), Way::Publish | Way::Send) => {
                out.extend(items.iter().filter_map(|item| self.message(item, way, here)));
            }
            _ => out.extend(self.message(&entry.value, way, here)),
        }
    }

    fn message(&mut self, node: &Node, way: Way, here: &Here) -> Option<MessageRule> {
        let (what, name, allowed): (&str, &str, &[&'static str]) = match way {
            Way::Publish => ("a message to publish", "event", &["event", "with", "headers", "when"]),
            Way::Reply => ("a reply", "event", &["event", "with", "when", "to"]),
            Way::Send => ("a command", "command", &["command", "with", "headers", "when"]),
        };
        if node.text().is_some() {
            let to = self.recipient(node, way, false)?;
            return Some(MessageRule { to, with: None, headers: Vec::new(), when: None, place: node.place });
        }
        let fields = self.fields(node, what, allowed)?;
        let with = fields.value("with").map(|with| self.body(with, here));
        let headers = fields.value("headers").map(|headers| self.headers(headers, here)).unwrap_or_default();
        let when = fields.value("when").and_then(|when| self.expression(when, here));
        let to_event = fields.value("to").is_some_and(|to| self.reply_to_event(to, here));
        let Some(recipient) = fields.value(name) else {
            self.missing(&fields, node.place, what, name, format!("say which: `{name}: …`"));
            return None;
        };
        let to = self.recipient(recipient, way, to_event)?;
        Some(MessageRule { to, with, headers, when, place: node.place })
    }

    fn recipient(&mut self, node: &Node, way: Way, to_event: bool) -> Option<Recipient> {
        match way {
            Way::Publish => self.event_value(node, "an event").map(|event| Recipient::Publish { event }),
            Way::Reply => self.event_value(node, "an event").map(|event| Recipient::Reply { event, to_event }),
            Way::Send => self.command(node, "a command").map(|(address, command)| Recipient::Send { address, command }),
        }
    }

    /// `to: event`: for the sender of the event in hand, so there must be one.
    fn reply_to_event(&mut self, node: &Node, here: &Here) -> bool {
        if self.word(node, "`to`", &[("event", ())]).is_none() {
            return false;
        }
        match here.entered() {
            Some(entered) => {
                self.facts.entry_reads.push(EntryRead { entered, what: "to: event".to_owned(), at: node.place });
            }
            None if here.has_event() => {}
            None => {
                let hint = "leave `to` out: the reply then goes to whoever started the instance";
                self.report("no-event", node.place, "there is no event in hand here to reply to", hint);
            }
        }
        true
    }

    pub fn headers(&mut self, node: &Node, here: &Here) -> Vec<(String, Template)> {
        let mut headers = Vec::new();
        for entry in self.mapping(node, "`headers`").unwrap_or_default() {
            if RESERVED_HEADERS.contains(&entry.key.as_str()) {
                let message = format!("the header `{}` is set by the daemon", entry.key);
                self.report("reserved-name", entry.key_place, message, "give the header another name");
            } else if entry.key.is_empty() || entry.key.len() > 128 {
                let message = format!("`{}` is no name for a header", entry.key);
                self.report("bad-name", entry.key_place, message, "a header's name has 1 to 128 characters");
            }
            if matches!(entry.value.kind, Kind::List(_) | Kind::Map(_)) {
                let message =
                    format!("the value of a header is a text or a number, and this is {}", entry.value.describe());
                self.report("wrong-type", entry.value.place, message, "put what has structure into the body");
                continue;
            }
            headers.push((entry.key.clone(), self.template(&entry.value, here)));
        }
        headers
    }
}

/// Whether `send` among the keys is a command that nobody waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum LooseSend {
    Taken,
    /// It is the state's step.
    Left,
}
