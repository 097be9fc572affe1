//! YAML text to a tree: YAML 1.2, core schema, one document, no anchors, merge keys, tags or directives.
//!
//! What is YAML but not allowed is reported and read on; what is no YAML ends the reading with one problem. The parser
//! is the event parser inside `serde-saphyr`: only there do the style of a scalar and the place of a tag exist.

use serde_saphyr::granit_parser::{Event, Marker, Options, Parser, ScalarStyle, ScanError, Span, options};

use super::{Entry, Kind, MAX_BYTES, MAX_DEPTH, MAX_NODES, Node, Scalar, ScalarValue, Style};
use crate::saga::diagnostic::Problem;
use crate::saga::machine::Place;

mod trap;

const ONE_DOCUMENT: &str = "write each saga in a file of its own, without `---`";
const QUOTES: &str = "put it in quotes";

/// Reads a text. `Err` where it is no YAML: the one problem at the place where reading stopped; else the tree and what
/// it holds that is not allowed.
pub fn read(text: &str) -> Result<(Node, Vec<Problem>), Problem> {
    if text.len() > MAX_BYTES {
        let hint = format!("a saga file has at most {MAX_BYTES} bytes; split the process into several sagas");
        return Err(Problem::new("too-large", start(), format!("the file has {} bytes", text.len()), hint));
    }
    let mut reader = Reader::new(text);
    let read = reader.document();
    match read {
        Ok(node) => Ok((node, reader.problems)),
        Err(Stop::Scan(error)) => Err(trap::explain(&error, text)),
        Err(Stop::Limit(problem)) => Err(problem),
    }
}

/// Why reading stopped before the end.
enum Stop {
    Scan(Box<ScanError>),
    Limit(Problem),
}

impl From<ScanError> for Stop {
    fn from(error: ScanError) -> Stop {
        Stop::Scan(Box::new(error))
    }
}

struct Reader<'text> {
    parser: Parser<'text, serde_saphyr::granit_parser::StrInput<'text>>,
    text: &'text str,
    nodes: usize,
    problems: Vec<Problem>,
    /// Where reading stands, for limits.
    at: Place,
}

fn settings() -> Options {
    options! { emit_unresolved_aliases: true, emit_anchor_events: true, disallow_directives: true }
}

impl<'text> Reader<'text> {
    fn new(text: &'text str) -> Reader<'text> {
        let parser = Parser::new_from_str_with_options(text, settings());
        Reader { parser, text, nodes: 0, problems: Vec::new(), at: start() }
    }

    fn document(&mut self) -> Result<Node, Stop> {
        let mut root = None;
        while let Some((event, span)) = self.next()? {
            match event {
                Event::DocumentStart(..) if root.is_some() => {
                    let place = place_of(&span);
                    self.problems.push(Problem::new(
                        "yaml-feature",
                        place,
                        "a second document begins here",
                        ONE_DOCUMENT,
                    ));
                    break;
                }
                Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => {}
                Event::StreamEnd => break,
                event => root = Some(self.node(event, &span, 0)?),
            }
        }
        Ok(root.unwrap_or_else(|| nothing(start())))
    }

    fn next(&mut self) -> Result<Option<(Event<'text>, Span)>, Stop> {
        match self.parser.next() {
            None => Ok(None),
            Some(Err(error)) => Err(error.into()),
            Some(Ok((event, span))) => {
                self.at = place_of(&span);
                Ok(Some((event, span)))
            }
        }
    }

    /// The next event that belongs to the tree.
    fn next_in_tree(&mut self) -> Result<(Event<'text>, Span), Stop> {
        self.next()?.ok_or_else(|| Stop::Limit(self.limit("the file ends within a mapping or a list")))
    }

    fn node(&mut self, event: Event<'text>, span: &Span, depth: usize) -> Result<Node, Stop> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(Stop::Limit(self.limit(&format!("the file has more than {MAX_NODES} keys and values"))));
        }
        if depth > MAX_DEPTH {
            return Err(Stop::Limit(self.limit(&format!("mappings and lists are nested deeper than {MAX_DEPTH}"))));
        }
        let place = place_of(span);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.forbid_anchor(anchor)?;
                if tag.is_some() {
                    return Ok(self.tagged(span));
                }
                Ok(self.scalar(text.into_owned(), style, span))
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.forbid_anchor(anchor)?;
                let list = self.list(place, depth)?;
                Ok(if tag.is_some() { self.tagged(span) } else { list })
            }
            Event::MappingStart(_, anchor, tag) => {
                self.forbid_anchor(anchor)?;
                let map = self.map(place, depth)?;
                Ok(if tag.is_some() { self.tagged(span) } else { map })
            }
            Event::UnresolvedAlias(name) => {
                let message = format!("YAML reads `*{name}` as a reference to an anchor");
                self.problems.push(Problem::new("yaml-feature", place, message, QUOTES));
                Ok(Node { place, kind: Kind::Broken })
            }
            // Of an anchor and what refers to it, the anchor has been reported.
            _ => Ok(Node { place, kind: Kind::Broken }),
        }
    }

    fn list(&mut self, start: Place, depth: usize) -> Result<Node, Stop> {
        let mut items = Vec::new();
        let mut place = start;
        loop {
            let (event, span) = self.next_in_tree()?;
            if event == Event::SequenceEnd {
                extend(&mut place, place_of(&span), items.last().map(|item: &Node| item.place));
                return Ok(Node { place, kind: Kind::List(items) });
            }
            items.push(self.node(event, &span, depth + 1)?);
        }
    }

    fn map(&mut self, start: Place, depth: usize) -> Result<Node, Stop> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut is_repeating = false;
        let mut place = start;
        loop {
            let (event, span) = self.next_in_tree()?;
            if event == Event::MappingEnd {
                extend(&mut place, place_of(&span), entries.last().map(|entry| entry.value.place));
                return Ok(Node { place, kind: Kind::Map(entries) });
            }
            let key = self.node(event, &span, depth + 1)?;
            let before = self.problems.len();
            let (event, span) = self.next_in_tree()?;
            let is_reference = matches!(event, Event::Alias(_) | Event::UnresolvedAlias(_));
            let value = self.node(event, &span, depth + 1)?;
            let Some(name) = self.key(&key) else { continue };
            if name == "<<" {
                self.problems.truncate(if is_reference { before } else { self.problems.len() });
                let hint = "write the keys out where they are needed, or use `defaults`";
                self.problems.push(Problem::new("yaml-feature", key.place, "merge keys are not read", hint));
                continue;
            }
            if let Some(first) = entries.iter().find(|entry| entry.key == name) {
                // Several one after the other are one mistake: the key above them is missing.
                if std::mem::replace(&mut is_repeating, true) {
                    continue;
                }
                let message = format!("`{name}` stands here twice; the first is in line {}", first.key_place.line);
                self.problems.push(Problem::new(
                    "duplicate-key",
                    key.place,
                    message,
                    "remove one, or give it another name",
                ));
                continue;
            }
            is_repeating = false;
            entries.push(Entry { key: name, key_place: key.place, value });
        }
    }

    /// A key's text; reports what can be no key.
    fn key(&mut self, key: &Node) -> Option<String> {
        match &key.kind {
            Kind::Scalar(scalar) => Some(scalar.text.clone()),
            Kind::Broken => None,
            Kind::List(_) | Kind::Map(_) => {
                let message = format!("a key is a text, and this is {}", key.describe());
                let hint = "put it in quotes, or write `key: value`";
                self.problems.push(Problem::new("wrong-type", key.place, message, hint));
                None
            }
        }
    }

    fn scalar(&mut self, text: String, style: ScalarStyle, span: &Span) -> Node {
        let place = place_of(span);
        let style = match style {
            ScalarStyle::Plain => Style::Plain,
            ScalarStyle::SingleQuoted => Style::SingleQuoted,
            ScalarStyle::DoubleQuoted => Style::DoubleQuoted,
            ScalarStyle::Literal | ScalarStyle::Folded => Style::Block,
        };
        let value = if style == Style::Plain { core_schema(&text) } else { Some(ScalarValue::Text) };
        let Some(value) = value else {
            let message = format!("`{text}` is a number that JSON does not have");
            self.problems.push(Problem::new("yaml-feature", place, message, "put it in quotes if a text is meant"));
            return Node { place, kind: Kind::Broken };
        };
        let bytes = span.byte_range().unwrap_or(0..0);
        Node { place, kind: Kind::Scalar(Scalar { text, style, value, bytes }) }
    }

    fn tagged(&mut self, span: &Span) -> Node {
        let at = span.tag_span().unwrap_or(*span);
        let tag = at.slice(self.text).unwrap_or("!");
        let message = format!("YAML reads `{tag}` as a tag");
        self.problems.push(Problem::new("yaml-feature", place_of(&at), message, QUOTES));
        Node { place: place_of(span), kind: Kind::Broken }
    }

    /// The event of an anchor follows that of its node.
    fn forbid_anchor(&mut self, anchor: usize) -> Result<(), Stop> {
        if anchor == 0 {
            return Ok(());
        }
        let (event, span) = self.next_in_tree()?;
        if let Event::Anchor(_, name) = event {
            let message = format!("YAML reads `&{name}` as an anchor, and anchors are not read");
            let hint = "put it in quotes if a text is meant; else write the value out, or use `defaults`";
            self.problems.push(Problem::new("yaml-feature", place_of(&span), message, hint));
        }
        Ok(())
    }

    fn limit(&self, message: &str) -> Problem {
        Problem::new("too-large", self.at, message, "split the process into several sagas")
    }
}

fn nothing(place: Place) -> Node {
    let scalar = Scalar { text: String::new(), style: Style::Plain, value: ScalarValue::Null, bytes: 0..0 };
    Node { place, kind: Kind::Scalar(scalar) }
}

fn start() -> Place {
    Place { line: 1, column: 1, end_line: 1, end_column: 2 }
}

fn place_of(span: &Span) -> Place {
    let (line, column) = position(&span.start);
    let (end_line, end_column) = position(&span.end);
    if (end_line, end_column) <= (line, column) {
        return Place { line, column, end_line: line, end_column: column + 1 };
    }
    Place { line, column, end_line, end_column }
}

fn position(marker: &Marker) -> (u32, u32) {
    let narrow = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    (narrow(marker.line()).max(1), narrow(marker.col()).saturating_add(1))
}

/// A block collection ends where its last child does; one in brackets, with its bracket.
fn extend(place: &mut Place, end: Place, last: Option<Place>) {
    let last = last.map_or((place.end_line, place.end_column), |last| (last.end_line, last.end_column));
    let bracket = (end.end_line, end.end_column);
    let end = if end.line == last.0 && bracket > last { bracket } else { last.max((place.end_line, place.end_column)) };
    (place.end_line, place.end_column) = end;
}

/// The core schema of YAML 1.2 for a plain scalar; `None` for infinities and what is no number, which JSON lacks.
fn core_schema(text: &str) -> Option<ScalarValue> {
    Some(match text {
        "" | "~" | "null" | "Null" | "NULL" => ScalarValue::Null,
        "true" | "True" | "TRUE" => ScalarValue::Bool(true),
        "false" | "False" | "FALSE" => ScalarValue::Bool(false),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" | "-.inf" | "-.Inf" | "-.INF" | ".nan" | ".NaN"
        | ".NAN" => {
            return None;
        }
        other => number(other).map_or(ScalarValue::Text, ScalarValue::Number),
    })
}

/// A number in JSON's notation, its digits as written.
fn number(text: &str) -> Option<String> {
    for (prefix, radix) in [("0o", 8), ("0x", 16)] {
        if let Some(digits) = text.strip_prefix(prefix).filter(|digits| !digits.starts_with(['+', '-'])) {
            return u128::from_str_radix(digits, radix).ok().map(|value| value.to_string());
        }
    }
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let (mantissa, exponent) = match rest.find(['e', 'E']) {
        Some(at) => (&rest[..at], Some(&rest[at + 1..])),
        None => (rest, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let unsigned = |text: &str| text.strip_prefix(['+', '-']).unwrap_or(text).to_owned();
    let fraction_digits = fraction.unwrap_or_default();
    if !digits(whole) || !digits(fraction_digits) || (whole.is_empty() && fraction_digits.is_empty()) {
        return None;
    }
    if exponent.is_some_and(|exponent| unsigned(exponent).is_empty() || !digits(&unsigned(exponent))) {
        return None;
    }
    let whole = match whole.trim_start_matches('0') {
        "" => "0",
        trimmed => trimmed,
    };
    let mut out = format!("{sign}{whole}");
    if !fraction_digits.is_empty() {
        out.push('.');
        out.push_str(fraction_digits);
    }
    if let Some(exponent) = exponent {
        out.push('e');
        out.push_str(exponent);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(text: &str) -> Vec<(u32, u32, &'static str)> {
        match read(text) {
            Ok((_, problems)) => {
                problems.iter().map(|problem| (problem.place.line, problem.place.column, problem.code)).collect()
            }
            Err(problem) => vec![(problem.place.line, problem.place.column, problem.code)],
        }
    }

    #[test]
    fn the_core_schema_leaves_times_and_words_as_text() {
        for text in ["on", "no", "yes", "12:30", "2030-01-01", "1_000", "0x", "1e", ".", "-", "+", "e5", "0b1"] {
            assert_eq!(core_schema(text), Some(ScalarValue::Text), "{text}");
        }
        for (text, json) in [
            ("007", "7"),
            ("+5", "5"),
            ("-0", "-0"),
            ("1.50", "1.50"),
            (".5", "0.5"),
            ("1.", "1"),
            ("0x1F", "31"),
            ("1E+3", "1e+3"),
        ] {
            assert_eq!(core_schema(text), Some(ScalarValue::Number(json.to_owned())), "{text}");
            serde_json::from_str::<serde_json::Number>(json).expect("JSON");
        }
    }

    #[test]
    fn what_is_yaml_but_not_allowed_is_reported_and_read_on() {
        assert_eq!(codes("a: &x 1\nb: *x\n"), [(1, 4, "yaml-feature")]);
        assert_eq!(codes("a: *x\nb: !y z\n"), [(1, 4, "yaml-feature"), (2, 4, "yaml-feature")]);
        assert_eq!(codes("a: 1\n---\nb: 2\n"), [(2, 1, "yaml-feature")]);
        assert_eq!(codes("a: 1\nb: 2\na: 3\n"), [(3, 1, "duplicate-key")]);
        assert_eq!(codes("a: &x { b: 1 }\nc:\n  <<: *x\n"), [(1, 4, "yaml-feature"), (3, 3, "yaml-feature")]);
        assert_eq!(codes("{ a: b }: c\n"), [(1, 1, "wrong-type")]);
    }

    #[test]
    fn bombs_end_at_a_limit() {
        assert_eq!(codes(&format!("{}{}", "[".repeat(200), "]".repeat(200)))[0].2, "too-large");
        assert_eq!(codes(&format!("a: [{}]", "0,".repeat(MAX_NODES + 1)))[0].2, "too-large");
        assert_eq!(codes(&"#".repeat(MAX_BYTES + 1))[0].2, "too-large");
    }

    #[test]
    fn places_are_those_of_keys_and_values() {
        let (tree, _) = read("a:\n  bc: [1, 22]\n  d: >\n    x\n    y\ne: 'f'\n").expect("YAML");
        let entry = tree.get("a").expect("a").value.get("bc").expect("bc");
        assert_eq!(entry.key_place, Place { line: 2, column: 3, end_line: 2, end_column: 5 });
        assert_eq!(entry.value.place, Place { line: 2, column: 7, end_line: 2, end_column: 14 });
        let entry = tree.get("e").expect("e");
        assert_eq!(entry.value.place, Place { line: 6, column: 4, end_line: 6, end_column: 7 });
        assert_eq!(tree.get("a").expect("a").value.place.line, 2);
    }
}
