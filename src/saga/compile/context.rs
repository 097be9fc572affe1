//! What all parts of the compiler share: the problems found so far, and mappings whose keys are known.
//!
//! Every reader reports what it finds wrong and gives back the best that can be made of it, so that one mistake hides
//! no other and causes no other.

use super::facts::Facts;
use super::meant;
use crate::saga::definition::{Entry, Kind, Node};
use crate::saga::diagnostic::Problem;
use crate::saga::expression::closest;
use crate::saga::machine::{Place, StateNo};

/// Stands for a state that does not exist; a machine with it is never handed out, for it has been reported.
pub(in crate::saga) const NOWHERE: StateNo = usize::MAX;

pub(super) struct Context<'a> {
    pub source: &'a str,
    pub problems: Vec<Problem>,
    pub facts: Facts,
    /// The names of all states, in order: known before the first is read.
    pub states: Vec<String>,
    /// Names of states that were reported as unknown already.
    unknown_states: Vec<String>,
}

/// A mapping whose keys are all known.
pub(super) struct Fields<'n> {
    entries: Vec<(&'static str, &'n Entry)>,
    /// Entries with unknown keys that nothing like them is known for.
    strays: Vec<&'n Entry>,
}

impl<'n> Fields<'n> {
    pub fn get(&self, key: &str) -> Option<&'n Entry> {
        self.entries.iter().find(|(name, _)| *name == key).map(|(_, entry)| *entry)
    }

    pub fn value(&self, key: &str) -> Option<&'n Node> {
        self.get(key).map(|entry| &entry.value)
    }

    pub fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// The same without one key, which is read apart.
    pub fn without(&self, key: &str) -> Fields<'n> {
        let entries = self.entries.iter().copied().filter(|(name, _)| *name != key).collect();
        Fields { entries, strays: self.strays.clone() }
    }

    /// Whether an unknown key was probably meant to be this one: its value has the shape. It has been reported, and
    /// that this key is missing is no second mistake.
    pub fn is_meant(&self, key: &str) -> bool {
        self.meant(key).is_some()
    }

    pub fn meant(&self, key: &str) -> Option<&'n Entry> {
        self.strays.iter().copied().find(|stray| meant::has_shape(&stray.value, key))
    }

    /// Those of `keys` that are there, in the order of `keys`.
    pub fn among(&self, keys: &[&'static str]) -> Vec<(&'static str, &'n Entry)> {
        keys.iter().filter_map(|key| self.get(key).map(|entry| (*key, entry))).collect()
    }
}

impl<'a> Context<'a> {
    pub fn new(source: &'a str, problems: Vec<Problem>) -> Context<'a> {
        Context { source, problems, facts: Facts::default(), states: Vec::new(), unknown_states: Vec::new() }
    }

    pub fn report(&mut self, code: &'static str, place: Place, message: impl Into<String>, hint: impl Into<String>) {
        self.problems.push(Problem::new(code, place, message, hint));
    }

    /// Reads something a second time without telling its mistakes again.
    pub fn silently<T>(&mut self, read: impl FnOnce(&mut Self) -> T) -> T {
        let told = (self.problems.len(), self.unknown_states.len());
        let value = read(self);
        self.problems.truncate(told.0);
        self.unknown_states.truncate(told.1);
        value
    }

    /// The mapping that stands here. `what` names it in messages (`a state`), `allowed` are its keys.
    ///
    /// An unknown key that was probably meant to be one that is missing is taken for it.
    pub fn fields<'n>(&mut self, node: &'n Node, what: &str, allowed: &[&'static str]) -> Option<Fields<'n>> {
        let entries = self.mapping(node, what)?;
        let mut known: Vec<(&'static str, &'n Entry)> = Vec::new();
        let mut unknown = Vec::new();
        let mut strays = Vec::new();
        for entry in entries {
            match allowed.iter().find(|key| **key == entry.key) {
                Some(key) => known.push((key, entry)),
                None => unknown.push(entry),
            }
        }
        for entry in unknown {
            let message = format!("{what} has no key `{}`", entry.key);
            let absent = allowed.iter().copied().filter(|key| known.iter().all(|(name, _)| name != key));
            // `sed` is as near to `set` as to `send`: what stands behind it tells.
            let fitting = absent.clone().filter(|key| meant::has_shape(&entry.value, key));
            let near = closest(&entry.key, fitting).or_else(|| closest(&entry.key, absent.clone()));
            if let Some(meant) = near.or_else(|| meant::only_one(&entry.value, absent)) {
                self.report("unknown-key", entry.key_place, message, format!("did you mean `{meant}`?"));
                known.push((meant, entry));
            } else {
                self.report("unknown-key", entry.key_place, message, key_hint(&entry.key, allowed));
                strays.push(entry);
                // What stands behind it may set fields: they are not called unknown then.
                meant::note_names(&entry.value, &mut self.facts.set);
            }
        }
        Some(Fields { entries: known, strays })
    }

    /// A key that must be there. `owner` is the key of what lacks it.
    pub fn missing(&mut self, fields: &Fields<'_>, owner: Place, what: &str, key: &str, hint: impl Into<String>) {
        if !fields.is_meant(key) {
            self.report("missing-key", owner, format!("{what} lacks `{key}`"), hint);
        }
    }

    /// The entries of a mapping whose keys are names of the author's.
    pub fn mapping<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n [Entry]> {
        match &node.kind {
            Kind::Map(entries) => Some(entries),
            Kind::Broken => None,
            Kind::Scalar(_) | Kind::List(_) => {
                let message = format!("{what} is a mapping, and this is {}", node.describe());
                self.report("wrong-type", node.place, message, "write `key: value`, one a line, or `{ key: value }`");
                None
            }
        }
    }

    pub fn list<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n [Node]> {
        match &node.kind {
            Kind::List(items) => Some(items),
            Kind::Broken => None,
            Kind::Scalar(_) | Kind::Map(_) => {
                let message = format!("{what} is a list, and this is {}", node.describe());
                self.report(
                    "wrong-type",
                    node.place,
                    message,
                    "write `[a, b]`, or each on a line of its own after `- `",
                );
                None
            }
        }
    }

    /// One of several keys that exclude each other; reports all but the first.
    pub fn at_most_one<'n>(&mut self, fields: &Fields<'n>, keys: &[&'static str]) -> Option<(&'static str, &'n Entry)> {
        let mut there = fields.among(keys);
        there.sort_by_key(|(_, entry)| (entry.key_place.line, entry.key_place.column));
        let (first, rest) = there.split_first()?;
        for (key, entry) in rest {
            let message = format!("`{key}` and `{}` exclude each other", first.0);
            self.report("exclusive-keys", entry.key_place, message, format!("keep one of the two: {}", quoted(keys)));
        }
        Some(*first)
    }

    /// The state of that name; an unknown one is told once, for all places that name it.
    pub fn state(&mut self, name: &str, place: Place, words: &[&str]) -> Option<StateNo> {
        if let Some(number) = self.states.iter().position(|state| state == name) {
            return Some(number);
        }
        let meant =
            closest(name, self.states.iter().map(String::as_str).chain(words.iter().copied())).map(str::to_owned);
        if !self.unknown_states.iter().any(|told| told == name) {
            self.unknown_states.push(name.to_owned());
            let hint = match (&meant, name) {
                (_, "end") => "write `end: <label>` in the place of `then`, or `next` after the last state".to_owned(),
                (_, "incident") => "write `incident: <text>` in the place of `then`".to_owned(),
                (Some(meant), _) => format!("did you mean `{meant}`?"),
                (None, _) => format!("the states are {}", quoted(&self.states)),
            };
            self.report("unknown-state", place, format!("there is no state `{name}`"), hint);
        }
        meant.and_then(|meant| self.states.iter().position(|state| *state == meant))
    }
}

/// `a`, `b` and `c`, for messages; a long list is cut.
pub(in crate::saga) fn quoted<T: AsRef<str>>(names: &[T]) -> String {
    const SHOWN: usize = 12;
    let mut out: Vec<String> = names.iter().take(SHOWN).map(|name| format!("`{}`", name.as_ref())).collect();
    if names.len() > SHOWN {
        out.push("…".to_owned());
    }
    out.join(", ")
}

fn key_hint(key: &str, allowed: &[&'static str]) -> String {
    match key {
        "start" if allowed.contains(&"send") => {
            "`start` is kept for sagas that start others; rename or remove it".to_owned()
        }
        "then" if allowed.contains(&"next") => "write `next: <state>` for what follows this state".to_owned(),
        _ => format!("the keys here are {}", all_quoted(allowed)),
    }
}

fn all_quoted(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
