//! A whole file: the keys at its top.

use indexmap::IndexMap;

use super::context::{Context, Fields};
use super::facts::Spot;
use super::message::LooseSend;
use super::scope::Here;
use super::step::{Defaults, command_retry, undo_retry};
use super::transition::{At, transition_keys};
use super::value::Least;
use crate::saga::definition::{Entry, Kind, Node};
use crate::saga::machine::{Actions, Deadline, Machine, Place};

const TOP: [&str; 12] = [
    "saga",
    "about",
    "start",
    "events",
    "on",
    "pivot",
    "defaults",
    "deadline",
    "states",
    "sensitive",
    "completed",
    "compensated",
];

/// What the file is called, beside its tree.
pub(super) struct Named<'a> {
    pub file: &'a str,
    pub source: &'a str,
}

impl Context<'_> {
    /// The machine as far as it can be made; whether it may be used is for the problems to say.
    pub fn file(&mut self, root: &Node, named: &Named<'_>) -> Option<Machine> {
        let top = Place { end_line: root.place.line, end_column: root.place.column + 1, ..root.place };
        if root.is_empty() {
            let hint = "begin with `saga: <name>`, then `start` and `states`";
            self.report("missing-key", top, "the file is empty", hint);
            return None;
        }
        let fields = self.fields(root, "a saga", &TOP)?;
        let owner = fields.get("saga").map_or(top, |entry| entry.key_place);
        for (key, hint) in [
            ("saga", "give the saga its name: `saga: <name>`"),
            ("start", "name the event that starts an instance, with its `key`"),
            ("states", "name the states, each with what it does"),
        ] {
            if !fields.has(key) {
                self.missing(&fields, owner, "the saga", key, hint);
            }
        }
        let name = fields.value("saga").map(|node| self.saga_name(node)).unwrap_or_default();
        let about = fields.get("about").or_else(|| fields.meant("about"));
        let about = about.and_then(|entry| self.text(&entry.value, "`about`")).map(str::to_owned);
        let defaults = self.defaults(&fields);
        // States first: transitions elsewhere name them.
        let states = fields.get("states").map(|entry| self.read_states(entry, &defaults)).unwrap_or_default();
        self.facts.graph_broken |= !fields.has("states");
        self.check_default_timeout(&defaults);
        self.told_timeouts(&fields);
        let starts = fields.get("start").map(|entry| self.starts(entry)).unwrap_or_default();
        if !fields.has("start") {
            self.facts.routes_broken = true;
            self.facts.open_data = true;
        }
        let events = fields.get("events").map(|entry| self.events(entry)).unwrap_or_default();
        let on = fields.get("on").map(|entry| self.top_on(entry)).unwrap_or_default();
        let pivot_at_start =
            fields.value("pivot").is_some_and(|node| self.word(node, "`pivot`", &[("start", ())]).is_some());
        let deadline = fields.get("deadline").and_then(|entry| self.deadline(entry));
        let sensitive = fields.value("sensitive").map(|node| self.sensitive(node)).unwrap_or_default();
        let completed = self.end(&fields, "completed", &Here::completed());
        let compensated = self.end(&fields, "compensated", &Here::clock(None));
        Some(Machine {
            name,
            digest: root.digest(),
            source: named.source.into(),
            file: named.file.to_owned(),
            about,
            starts,
            events,
            on,
            pivot_at_start,
            deadline,
            states,
            sensitive,
            completed,
            compensated,
        })
    }

    fn saga_name(&mut self, node: &Node) -> String {
        self.facts.name = node.place;
        let Some(name) = self.text(node, "the name of the saga") else { return String::new() };
        // An empty one stands for one that was reported.
        if self.kebab(name, node.place, "a saga") { name.to_owned() } else { String::new() }
    }

    fn defaults<'n>(&mut self, fields: &Fields<'n>) -> Defaults<'n> {
        let mut defaults = Defaults::default();
        let Some(node) = fields.get("defaults").or_else(|| fields.meant("defaults")).map(|entry| &entry.value) else {
            return defaults;
        };
        let Some(fields) = self.fields(node, "`defaults`", &["timeout", "retry", "undo"]) else { return defaults };
        defaults.timeout = fields.value("timeout");
        defaults.retry = fields.value("retry").map(|node| self.retry(node, &command_retry()));
        if let Some(node) = fields.value("undo")
            && let Some(undo) = self.fields(node, "`defaults.undo`", &["timeout", "retry"])
        {
            defaults.undo_timeout =
                undo.value("timeout").and_then(|node| self.span(node, "a time limit", Least::Positive));
            defaults.undo_retry = undo.value("retry").map(|node| self.retry(node, &undo_retry()));
        }
        defaults
    }

    /// Each step reads it again for itself, silently; here it tells its mistakes, once.
    fn check_default_timeout(&mut self, defaults: &Defaults<'_>) {
        let Some(node) = defaults.timeout else { return };
        let ways = self.facts.ways.len();
        self.timeout_value(node, node.place, None);
        self.facts.ways.truncate(ways);
    }

    /// Steps that await an answer for ever. Where no step has a `timeout` of its own, one is missing, in `defaults`.
    fn told_timeouts(&mut self, fields: &Fields<'_>) {
        let defaults = fields.value("defaults");
        let is_unread = |node: &Node| match &node.kind {
            Kind::Map(entries) => entries.iter().any(|entry| !["retry", "undo"].contains(&entry.key.as_str())),
            Kind::Scalar(_) | Kind::List(_) | Kind::Broken => true,
        };
        if defaults.is_some_and(is_unread) {
            return;
        }
        let steps = std::mem::take(&mut self.facts.without_timeout);
        let hint = "add `timeout: 30s`, here or in `defaults`: how long an answer is awaited";
        if let ([first, _, ..], 0) = (steps.as_slice(), self.facts.own_timeouts) {
            let message =
                format!("an answer is awaited here without a `timeout`, and in {} more steps", steps.len() - 1);
            self.report("missing-timeout", *first, message, hint);
            return;
        }
        for step in steps {
            self.report("missing-timeout", step, "an answer is awaited here without a `timeout`", hint);
        }
    }

    fn top_on(&mut self, entry: &Entry) -> IndexMap<String, Vec<crate::saga::machine::Transition>> {
        let here = Here::event(None);
        let at = At { spot: Spot::TopOn, state: None, event: None, owner: entry.key_place, here };
        self.handlers(entry, None, &at)
    }

    fn deadline(&mut self, entry: &Entry) -> Option<Deadline> {
        let node = &entry.value;
        let place = entry.key_place;
        if !matches!(node.kind, Kind::Map(_)) {
            let after = self.span(node, "a deadline", Least::Positive)?;
            return Some(Deadline { after, ways: Vec::new(), place });
        }
        let fields = self.fields(node, "a deadline", &transition_keys(&["after"]))?;
        let after = self.after(&fields, place, "a deadline");
        let at = At { spot: Spot::Deadline, state: None, event: None, owner: place, here: Here::clock(None) };
        let way = self.long(&fields, node.place, &at);
        Some(Deadline { after: after?, ways: vec![way], place })
    }

    fn sensitive(&mut self, node: &Node) -> Vec<String> {
        let mut names = Vec::new();
        for item in self.list(node, "`sensitive`").unwrap_or_default() {
            let Some(name) = self.text(item, "a field of `data`") else { continue };
            if names.iter().any(|other| other == name) {
                self.report("duplicate-name", item.place, format!("`{name}` stands here twice"), "remove one");
            } else if self.identifier(name, item.place, "a field of `data`") {
                self.read_field(name, item.place, None);
                names.push(name.to_owned());
            }
        }
        names
    }

    fn end(&mut self, fields: &Fields<'_>, key: &str, here: &Here) -> Actions {
        let Some(node) = fields.value(key) else { return Actions::default() };
        let what = format!("`{key}`");
        let Some(fields) = self.fields(node, &what, &["set", "publish", "reply", "send"]) else {
            return Actions::default();
        };
        self.actions(&fields, here, LooseSend::Taken)
    }
}
