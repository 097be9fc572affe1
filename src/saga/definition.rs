//! A file exactly as written: a tree of nodes, each with its place. Knows YAML, knows nothing of sagas.
//!
//! Nothing here decides what a key means; that is the business of `compile`.

mod yaml;

use std::ops::Range;

use sha2::{Digest as _, Sha256};

use super::machine::{Digest, Place};

pub use yaml::read;

/// A file is a page of text for people; more than this is no saga (1 MiB, as for a message).
pub const MAX_BYTES: usize = 1 << 20;
/// How many keys and values a file may hold; the largest real ones have some hundreds.
pub const MAX_NODES: usize = 100_000;
/// How deep mappings and lists may be nested, as for a message.
pub const MAX_DEPTH: usize = 64;

#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub place: Place,
    pub kind: Kind,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<Entry>),
    /// Something was reported here already: whoever reads it takes it as it comes and stays silent.
    Broken,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub key: String,
    pub key_place: Place,
    pub value: Node,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Scalar {
    /// The text after escapes and folding.
    pub text: String,
    pub style: Style,
    pub value: ScalarValue,
    /// Where it stands in the source, quotes included.
    pub bytes: Range<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    Plain,
    SingleQuoted,
    DoubleQuoted,
    Block,
}

/// What the core schema of YAML 1.2 makes of a scalar.
#[derive(Clone, Debug, PartialEq)]
pub enum ScalarValue {
    Null,
    Bool(bool),
    /// In JSON's notation, digits as written.
    Number(String),
    Text,
}

impl Node {
    pub fn scalar(&self) -> Option<&Scalar> {
        match &self.kind {
            Kind::Scalar(scalar) => Some(scalar),
            Kind::List(_) | Kind::Map(_) | Kind::Broken => None,
        }
    }

    /// Its text, if it is a text by the core schema.
    pub fn text(&self) -> Option<&str> {
        self.scalar().filter(|scalar| scalar.value == ScalarValue::Text).map(|scalar| scalar.text.as_str())
    }

    pub fn is_broken(&self) -> bool {
        self.kind == Kind::Broken
    }

    /// Nothing at all stands here: `key:` and no more.
    pub fn is_empty(&self) -> bool {
        self.scalar().is_some_and(|scalar| scalar.text.is_empty() && scalar.value == ScalarValue::Null)
    }

    pub fn get(&self, key: &str) -> Option<&Entry> {
        match &self.kind {
            Kind::Map(entries) => entries.iter().find(|entry| entry.key == key),
            Kind::Scalar(_) | Kind::List(_) | Kind::Broken => None,
        }
    }

    /// How a message calls what stands here.
    pub fn describe(&self) -> &'static str {
        match &self.kind {
            Kind::List(_) => "a list",
            Kind::Map(_) => "a mapping",
            Kind::Broken => "something unreadable",
            Kind::Scalar(scalar) => match scalar.value {
                ScalarValue::Null => "nothing",
                ScalarValue::Bool(_) => "true or false",
                ScalarValue::Number(_) => "a number",
                ScalarValue::Text => "a text",
            },
        }
    }

    /// What makes two files one definition: states in their order, all other keys sorted, scalars as written.
    pub fn digest(&self) -> Digest {
        let mut canonical = String::new();
        self.write_canonical(Order::Top, &mut canonical);
        Digest(Sha256::digest(canonical.as_bytes()).into())
    }

    fn write_canonical(&self, order: Order, out: &mut String) {
        match &self.kind {
            Kind::Broken => out.push_str("null"),
            Kind::Scalar(scalar) => match &scalar.value {
                ScalarValue::Null => out.push_str("null"),
                ScalarValue::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
                ScalarValue::Number(number) => out.push_str(number),
                ScalarValue::Text => write_text(&scalar.text, out),
            },
            Kind::List(items) => {
                out.push('[');
                for (place, item) in items.iter().enumerate() {
                    if place > 0 {
                        out.push(',');
                    }
                    item.write_canonical(Order::Sorted, out);
                }
                out.push(']');
            }
            Kind::Map(entries) => {
                let mut entries: Vec<&Entry> = entries.iter().collect();
                if order != Order::AsWritten {
                    entries.sort_by(|left, right| left.key.cmp(&right.key));
                }
                out.push('{');
                for (place, entry) in entries.iter().enumerate() {
                    if place > 0 {
                        out.push(',');
                    }
                    write_text(&entry.key, out);
                    out.push(':');
                    let inner = match order {
                        Order::Top if entry.key == "states" => Order::AsWritten,
                        Order::Top | Order::AsWritten | Order::Sorted => Order::Sorted,
                    };
                    entry.value.write_canonical(inner, out);
                }
                out.push('}');
            }
        }
    }
}

/// Which order the keys of a mapping have in the canonical form.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    /// The file's own mapping: sorted, but for what stands under `states`.
    Top,
    AsWritten,
    Sorted,
}

fn write_text(text: &str, out: &mut String) {
    out.push_str(&serde_json::to_string(text).expect("a text always serialises"));
}

impl Scalar {
    /// The place of a part of [`Scalar::text`] in the file, where the scalar stands on one line as it was written.
    pub fn place_of(&self, part: &Range<usize>, whole: Place, source: &str) -> Place {
        self.columns_of(part, whole, source).unwrap_or(whole)
    }

    fn columns_of(&self, part: &Range<usize>, whole: Place, source: &str) -> Option<Place> {
        if whole.line != whole.end_line || self.style == Style::Block || self.text.is_empty() {
            return None;
        }
        let written = source.get(self.bytes.clone())?;
        let (inner, quote) = match self.style {
            Style::Plain => (written, 0),
            Style::SingleQuoted | Style::DoubleQuoted => (written.get(1..written.len().checked_sub(1)?)?, 1),
            Style::Block => return None,
        };
        let start = self.written_columns(inner, part.start)?;
        let end = self.written_columns(inner, part.end.max(part.start))?;
        let first = whole.column + quote;
        let end_column = (first + end).max(first + start + 1);
        Some(Place { line: whole.line, column: first + start, end_line: whole.line, end_column })
    }

    /// How many characters were written for the first `bytes` of the text.
    fn written_columns(&self, inner: &str, bytes: usize) -> Option<u32> {
        let mut written = inner.chars();
        let mut columns = 0;
        for character in self.text.get(..bytes)?.chars() {
            let first = written.next()?;
            columns += 1;
            let escaped = match self.style {
                Style::SingleQuoted => first == '\'',
                Style::DoubleQuoted => first == '\\',
                Style::Plain | Style::Block => false,
            };
            let second = if escaped {
                columns += 1;
                written.next()?
            } else {
                first
            };
            if second != character {
                // An escape such as \n or \u00e9: the place of the whole is good enough.
                return None;
            }
        }
        Some(columns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(text: &str) -> Node {
        read(text).expect("the text of a test is YAML").0
    }

    #[test]
    fn comments_layout_and_the_order_of_keys_make_no_other_definition() {
        let one = node("saga: a\nstates:\n  x: { send: a.B, success: C }\n  y: {}\n");
        let other = node("# told\nstates:\n  x:\n    success: \"C\" # why\n    send: a.B\n  y: {}\n\nsaga: 'a'\n");
        assert_eq!(one.digest(), other.digest());
    }

    #[test]
    fn the_order_of_states_and_every_scalar_make_another_definition() {
        let one = node("states:\n  x: 1\n  y: 2\n");
        assert_ne!(one.digest(), node("states:\n  y: 2\n  x: 1\n").digest());
        assert_ne!(one.digest(), node("states:\n  x: \"1\"\n  y: 2\n").digest());
        assert_ne!(one.digest(), node("states:\n  x: 1.0\n  y: 2\n").digest());
    }

    #[test]
    fn a_part_of_a_text_is_found_on_its_line() {
        for (source, part, columns) in [
            ("a: one two", 4..7, 8..11),
            ("a: 'one two'", 4..7, 9..12),
            ("a: \"one two\"", 4..7, 9..12),
            ("a: 'it''s two'", 5..8, 11..14),
            (r#"a: "\"x\" two""#, 4..7, 11..14),
            ("ä: ü two", 3..6, 6..9),
        ] {
            let value = &match &node(source).kind {
                Kind::Map(entries) => entries[0].value.clone(),
                other => panic!("{other:?}"),
            };
            let scalar = value.scalar().expect("a scalar");
            let place = scalar.place_of(&part, value.place, source);
            assert_eq!((place.column, place.end_column), (columns.start, columns.end), "{source}");
        }
    }

    #[test]
    fn a_part_of_a_folded_text_is_the_whole() {
        let source = "a: >\n  one\n  two\n";
        let tree = node(source);
        let entry = tree.get("a").expect("there");
        let scalar = entry.value.scalar().expect("a scalar");
        assert_eq!(scalar.place_of(&(4..7), entry.value.place, source), entry.value.place);
    }
}
