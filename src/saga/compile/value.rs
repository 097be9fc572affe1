//! Single values: names, types, durations, numbers, and words to choose from.

use std::ops::RangeInclusive;

use super::context::{Context, quoted};
use crate::saga::definition::{Entry, Node, ScalarValue};
use crate::saga::duration::Span;
use crate::saga::expression::closest;
use crate::saga::machine::Place;

/// A routing key of AMQP has at most 255 bytes; a type is one.
const MAX_TYPE: usize = 255;
/// The longest routing key made of a saga's name is `sagad.<name>.decision-needed`.
const MAX_NAME: usize = 128;
/// A century: more is a slip, and times beyond it leave what a calendar can hold.
const MAX_SPAN: Span = Span(100 * 366 * 86_400_000);

/// What may be no name of a state: each is a transition.
const SHORT_TRANSITIONS: [&str; 5] = ["next", "stay", "fail", "retry", "ignore"];

/// Whether a duration of nothing makes sense.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Least {
    Zero,
    Positive,
}

impl Context<'_> {
    pub fn text<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n str> {
        if node.is_broken() {
            return None;
        }
        let text = node.text();
        if text.is_none() {
            let hint = if node.scalar().is_some() && !node.is_empty() { "put it in quotes" } else { "write a text" };
            self.report("wrong-type", node.place, format!("{what} is a text, and this is {}", node.describe()), hint);
        }
        text
    }

    pub fn boolean(&mut self, node: &Node, what: &str) -> Option<bool> {
        if node.is_broken() {
            return None;
        }
        if let Some(ScalarValue::Bool(value)) = node.scalar().map(|scalar| &scalar.value) {
            return Some(*value);
        }
        let message = format!("{what} is `true` or `false`, and this is {}", node.describe());
        self.report("wrong-type", node.place, message, "write `true`, or leave the key out");
        None
    }

    /// Lower-case words joined by hyphens.
    pub fn kebab(&mut self, name: &str, place: Place, what: &str) -> bool {
        if is_kebab(name) && name.len() <= MAX_NAME {
            return true;
        }
        let hint = match to_kebab(name) {
            Some(better) if name.len() <= MAX_NAME => format!("write `{better}`"),
            _ => format!("lower-case words joined by hyphens, such as `reserve-slot`, at most {MAX_NAME} characters"),
        };
        self.report("bad-name", place, format!("`{name}` is no name for {what}"), hint);
        false
    }

    pub fn state_name(&mut self, entry: &Entry) {
        if SHORT_TRANSITIONS.contains(&entry.key.as_str()) {
            let message = format!("`{}` is a transition and cannot be the name of a state", entry.key);
            self.report("reserved-name", entry.key_place, message, "give the state another name");
            return;
        }
        self.kebab(&entry.key, entry.key_place, "a state");
    }

    /// A name of words, digits, `-` and `_` that begins with a letter.
    pub fn label(&mut self, name: &str, place: Place, what: &str) -> bool {
        let begins = name.starts_with(|first: char| first.is_ascii_alphabetic());
        let holds = name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '-' || letter == '_');
        if begins && holds && name.len() <= MAX_NAME {
            return true;
        }
        let hint = format!("letters, digits, `-` and `_`, a letter first, at most {MAX_NAME} characters");
        self.report("bad-name", place, format!("`{name}` is no name for {what}"), hint);
        false
    }

    /// A name as expressions have it.
    pub fn identifier(&mut self, name: &str, place: Place, what: &str) -> bool {
        let begins = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
        let holds = name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_');
        if begins && holds {
            return true;
        }
        let message = format!("`{name}` is no name for {what}");
        self.report(
            "bad-name",
            place,
            message,
            "letters, digits and `_`, no digit first, so that expressions can name it",
        );
        false
    }

    pub fn event_type(&mut self, name: &str, place: Place) -> bool {
        let holds = name.chars().all(|letter| letter.is_ascii_alphanumeric() || "._-:/".contains(letter));
        if !name.is_empty() && holds && name.len() <= MAX_TYPE {
            return true;
        }
        let hint = format!("letters, digits and `._-:/`, such as `SlotReserved`, at most {MAX_TYPE} characters");
        self.report("bad-name", place, format!("`{name}` is no type of an event"), hint);
        false
    }

    /// An event's type as a value.
    pub fn event_value(&mut self, node: &Node, what: &str) -> Option<String> {
        let name = self.text(node, what)?;
        self.event_type(name, node.place).then(|| name.to_owned())
    }

    /// `<address>.<Command>`.
    pub fn command(&mut self, node: &Node, what: &str) -> Option<(String, String)> {
        let text = self.text(node, what)?;
        let is_word = |word: &str| {
            !word.is_empty()
                && word.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '-' || letter == '_')
        };
        let parts = text.rsplit_once('.');
        if let Some((address, command)) = parts
            && text.len() <= MAX_TYPE
            && address.split('.').all(is_word)
            && is_word(command)
        {
            return Some((address.to_owned(), command.to_owned()));
        }
        let hint = match parts {
            None if is_word(text) => format!("write the address in front, such as `groups.{text}`"),
            _ => "write `<address>.<Command>`, such as `groups.ReserveSlot`".to_owned(),
        };
        self.report("bad-name", node.place, format!("`{text}` is no command"), hint);
        None
    }

    pub fn span(&mut self, node: &Node, what: &str, least: Least) -> Option<Span> {
        if node.is_broken() {
            return None;
        }
        let Some(scalar) = node.scalar().filter(|scalar| !scalar.text.is_empty()) else {
            let message = format!("{what} is a duration, and this is {}", node.describe());
            self.report("bad-duration", node.place, message, "write a duration, such as 30s, 15m or 1h30m");
            return None;
        };
        let span = match Span::parse(&scalar.text) {
            Ok(span) => span,
            Err(error) => {
                self.report("bad-duration", node.place, error.message, error.hint);
                return None;
            }
        };
        if span.0 == 0 && least == Least::Positive {
            self.report("out-of-range", node.place, format!("{what} cannot be nothing"), "write at least 1ms");
            return None;
        }
        if span > MAX_SPAN {
            self.report(
                "out-of-range",
                node.place,
                format!("{what} is longer than a hundred years"),
                "write at most 36500d",
            );
            return None;
        }
        Some(span)
    }

    pub fn integer(&mut self, node: &Node, what: &str, range: RangeInclusive<u32>) -> Option<u32> {
        if node.is_broken() {
            return None;
        }
        let hint = format!("write a whole number from {} to {}", range.start(), range.end());
        let Some(ScalarValue::Number(number)) = node.scalar().map(|scalar| &scalar.value) else {
            let message = format!("{what} is a whole number, and this is {}", node.describe());
            self.report("wrong-type", node.place, message, hint);
            return None;
        };
        let value = number.parse::<u32>().ok().filter(|value| range.contains(value));
        if value.is_none() {
            self.report("out-of-range", node.place, format!("{what} cannot be {number}"), hint);
        }
        value
    }

    pub fn decimal(&mut self, node: &Node, what: &str, range: RangeInclusive<f64>) -> Option<f64> {
        if node.is_broken() {
            return None;
        }
        let hint = format!("write a number from {} to {}", range.start(), range.end());
        let Some(ScalarValue::Number(number)) = node.scalar().map(|scalar| &scalar.value) else {
            self.report("wrong-type", node.place, format!("{what} is a number, and this is {}", node.describe()), hint);
            return None;
        };
        let value = number.parse::<f64>().ok().filter(|value| range.contains(value));
        if value.is_none() {
            self.report("out-of-range", node.place, format!("{what} cannot be {number}"), hint);
        }
        value
    }

    /// One of a few words.
    pub fn word<T: Copy>(&mut self, node: &Node, what: &str, words: &[(&str, T)]) -> Option<T> {
        if node.is_broken() {
            return None;
        }
        let names: Vec<&str> = words.iter().map(|(name, _)| *name).collect();
        let written = node.scalar().map_or("", |scalar| scalar.text.as_str());
        if let Some((_, value)) = words.iter().find(|(name, _)| *name == written) {
            return Some(*value);
        }
        let message = if node.scalar().is_some() && !node.is_empty() {
            format!("{what} cannot be `{written}`")
        } else {
            format!("{what} is one of {}, and this is {}", quoted(&names), node.describe())
        };
        let meant = closest(written, names.iter().copied());
        let hint = meant
            .map_or_else(|| format!("write one of {}", quoted(&names)), |meant| format!("did you mean `{meant}`?"));
        self.report("bad-value", node.place, message, hint);
        meant.and_then(|meant| words.iter().find(|(name, _)| *name == meant)).map(|(_, value)| *value)
    }
}

fn is_kebab(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.split('-').all(|word| {
            !word.is_empty() && word.chars().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit())
        })
}

/// The name as it should be written, if it can be told: `ReserveSlot` and `reserve_slot` are `reserve-slot`.
fn to_kebab(name: &str) -> Option<String> {
    let mut out = String::new();
    let mut before_lower = false;
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && before_lower {
            out.push('-');
        }
        before_lower = letter.is_ascii_lowercase() || letter.is_ascii_digit();
        out.push(if letter == '_' || letter == ' ' || letter == '.' { '-' } else { letter.to_ascii_lowercase() });
    }
    is_kebab(&out).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_told_in_its_right_form() {
        assert_eq!(to_kebab("ReserveSlot").as_deref(), Some("reserve-slot"));
        assert_eq!(to_kebab("reserve_slot").as_deref(), Some("reserve-slot"));
        assert_eq!(to_kebab("7up"), None);
        assert!(is_kebab("a1-b2") && !is_kebab("a--b") && !is_kebab("-a") && !is_kebab("A"));
    }
}
