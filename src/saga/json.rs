//! JSON as it comes in from outside: read with limits, compared by value, written as text.
//!
//! The parser is our own, for three things that `serde_json` does not do: numbers keep their digits to the letter
//! (it writes `1E5` as `1e+5`), the number of values is bounded while reading (4 MiB of `[0,0,…]` would become
//! 233 MiB of heap), and no field name has a meaning (with `arbitrary_precision` and `raw_value` it takes an object
//! with the field `$serde_json::private::RawValue` for JSON inside a string, past every limit). What is stored and
//! read again goes through here too. Nothing in this file looks at what a body means.

use std::fmt::Write as _;

use serde_json::{Map, Number};

use super::number::{self, Decimal};

pub type Value = serde_json::Value;

/// The deepest nesting any limit allows: reading, comparing and dropping are recursive.
const DEPTH_LIMIT: usize = 256;

/// The longest key of an instance, in bytes.
pub const KEY_LIMIT: usize = 512;

/// What a body may be at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub bytes: usize,
    /// Lists and objects inside one another.
    pub depth: usize,
    /// Scalars, lists and objects, all counted; what stands in the heap is many times what stands in the body.
    pub values: usize,
}

impl Limits {
    /// For what was accepted once and is read again.
    pub const STORED: Self = Self { bytes: usize::MAX, depth: DEPTH_LIMIT, values: usize::MAX };
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 1024 * 1024, depth: 64, values: 100_000 }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    #[error("not JSON: {0}")]
    NotJson(String),
    #[error("too large: {0}")]
    TooLarge(String),
    #[error("too deep: {0}")]
    TooDeep(String),
}

/// Reads one JSON value and nothing after it. Of duplicate fields the last counts, in the place of the first.
pub fn parse(bytes: &[u8], limits: &Limits) -> Result<Value, BodyError> {
    if bytes.len() > limits.bytes {
        return Err(BodyError::TooLarge(format!("{} bytes, at most {}", bytes.len(), limits.bytes)));
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|error| BodyError::NotJson(format!("invalid UTF-8 at byte {}", error.valid_up_to())))?;
    let mut reader = Reader { text, at: 0, depth: 0, values: 0, limits: *limits };
    reader.skip_space();
    if reader.at == text.len() {
        return Err(BodyError::NotJson("the body is empty".to_owned()));
    }
    let value = reader.value()?;
    reader.skip_space();
    if reader.at < text.len() {
        return Err(reader.unexpected("the end"));
    }
    Ok(value)
}

/// Whether two JSON values are the same: numbers by value (`1` equals `1.0`), objects whatever the order of fields.
pub fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => number::compare(left.as_str(), right.as_str()).is_eq(),
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| equal(left, right))
        }
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len()
                && left.iter().all(|(name, left)| right.get(name).is_some_and(|right| equal(left, right)))
        }
        (Value::Null, Value::Null) => true,
        (Value::Bool(left), Value::Bool(right)) => left == right,
        (Value::String(left), Value::String(right)) => left == right,
        _ => false,
    }
}

/// The text that all equal values share, and no others: for hashing and for indexes.
pub fn canonical(value: &Value) -> String {
    let mut out = String::new();
    write_canonical(value, &mut out);
    out
}

/// A value inside a longer text: as JSON without quotes; null is empty.
pub fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The key of an instance: a text as it is, an integer (also one written `10.0`) in plain digits. `None` for
/// anything else, and for what is longer than [`KEY_LIMIT`].
pub fn key(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => (text.len() <= KEY_LIMIT).then(|| text.clone()),
        Value::Number(number) => Decimal::read(number.as_str()).plain(KEY_LIMIT),
        _ => None,
    }
}

/// What a value is, in the words of messages.
pub fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if Decimal::read(number.as_str()).is_integer() => "integer",
        Value::Number(_) => "decimal",
        Value::String(_) => "text",
        Value::Array(_) => "list",
        Value::Object(_) => "object",
    }
}

/// A JSON number with exactly these digits. `text` must be one by JSON's grammar.
fn number_of(text: &str) -> Number {
    // The only constructor that keeps the spelling of an exponent; a test below holds it to that.
    Number::from_string_unchecked(text.to_owned())
}

fn write_canonical(value: &Value, out: &mut String) {
    match value {
        Value::Number(number) => out.push_str(&Decimal::read(number.as_str()).canonical()),
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_canonical(item, out);
            }
            out.push(']');
        }
        Value::Object(fields) => {
            let mut sorted: Vec<(&String, &Value)> = fields.iter().collect();
            sorted.sort_by_key(|(name, _)| name.as_str());
            out.push('{');
            for (i, (name, field)) in sorted.into_iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_quoted(name, out);
                out.push(':');
                write_canonical(field, out);
            }
            out.push('}');
        }
        Value::String(text) => write_quoted(text, out),
        Value::Null => out.push_str("null"),
        Value::Bool(truth) => out.push_str(if *truth { "true" } else { "false" }),
    }
}

fn write_quoted(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c < ' ' => write!(out, "\\u{:04x}", u32::from(c)).expect("a String takes all that is written to it"),
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Recursive descent over text that is known to be UTF-8.
struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    values: usize,
    limits: Limits,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    /// Takes `byte` if it comes next.
    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn unexpected(&self, wanted: &str) -> BodyError {
        let before = &self.text[..self.at];
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
        let found = match self.text[self.at..].chars().next() {
            Some(c) => format!("{c:?}"),
            None => "the end".to_owned(),
        };
        BodyError::NotJson(format!("line {line} column {column}: expected {wanted}, found {found}"))
    }

    fn value(&mut self) -> Result<Value, BodyError> {
        self.values += 1;
        if self.values > self.limits.values {
            return Err(BodyError::TooLarge(format!("more than {} values", self.limits.values)));
        }
        match self.peek() {
            Some(b'{') => self.nested(Self::object),
            Some(b'[') => self.nested(Self::list),
            Some(b'"') => self.string().map(Value::String),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word("true", Value::Bool(true)),
            Some(b'f') => self.word("false", Value::Bool(false)),
            Some(b'n') => self.word("null", Value::Null),
            _ => Err(self.unexpected("a value")),
        }
    }

    fn nested(&mut self, inner: fn(&mut Self) -> Result<Value, BodyError>) -> Result<Value, BodyError> {
        let limit = self.limits.depth.min(DEPTH_LIMIT);
        if self.depth >= limit {
            return Err(BodyError::TooDeep(format!("nested deeper than {limit}")));
        }
        self.depth += 1;
        self.at += 1;
        let value = inner(self)?;
        self.depth -= 1;
        Ok(value)
    }

    fn object(&mut self) -> Result<Value, BodyError> {
        let mut fields = Map::new();
        self.skip_space();
        if self.take(b'}') {
            return Ok(Value::Object(fields));
        }
        loop {
            self.skip_space();
            if self.peek() != Some(b'"') {
                return Err(self.unexpected("a field's name"));
            }
            let name = self.string()?;
            self.skip_space();
            if !self.take(b':') {
                return Err(self.unexpected("':'"));
            }
            self.skip_space();
            let value = self.value()?;
            fields.insert(name, value);
            self.skip_space();
            if self.take(b'}') {
                return Ok(Value::Object(fields));
            }
            if !self.take(b',') {
                return Err(self.unexpected("',' or '}'"));
            }
        }
    }

    fn list(&mut self) -> Result<Value, BodyError> {
        let mut items = Vec::new();
        self.skip_space();
        if self.take(b']') {
            return Ok(Value::Array(items));
        }
        loop {
            self.skip_space();
            items.push(self.value()?);
            self.skip_space();
            if self.take(b']') {
                return Ok(Value::Array(items));
            }
            if !self.take(b',') {
                return Err(self.unexpected("',' or ']'"));
            }
        }
    }

    fn word(&mut self, word: &str, value: Value) -> Result<Value, BodyError> {
        if self.text[self.at..].starts_with(word) {
            self.at += word.len();
            Ok(value)
        } else {
            Err(self.unexpected("a value"))
        }
    }

    fn number(&mut self) -> Result<Value, BodyError> {
        let start = self.at;
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(Value::Number(number_of(&self.text[start..self.at])))
    }

    fn digits(&mut self) -> Result<(), BodyError> {
        if !self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            return Err(self.unexpected("a digit"));
        }
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        Ok(())
    }

    fn string(&mut self) -> Result<String, BodyError> {
        self.at += 1;
        let mut out = String::new();
        loop {
            let start = self.at;
            while self.peek().is_some_and(|byte| !matches!(byte, b'"' | b'\\' | 0..=0x1f)) {
                self.at += 1;
            }
            out.push_str(&self.text[start..self.at]);
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(out);
                }
                Some(b'\\') => {
                    self.at += 1;
                    out.push(self.escape()?);
                }
                Some(_) => return Err(self.unexpected("no control character inside a text")),
                None => return Err(self.unexpected("'\"'")),
            }
        }
    }

    fn escape(&mut self) -> Result<char, BodyError> {
        let c = match self.peek() {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.at += 1;
                return self.unicode_escape();
            }
            _ => return Err(self.unexpected("an escape")),
        };
        self.at += 1;
        Ok(c)
    }

    fn unicode_escape(&mut self) -> Result<char, BodyError> {
        let first = self.hex()?;
        if !(0xd800..0xdc00).contains(&first) {
            return char::from_u32(first).ok_or_else(|| self.unexpected("a whole surrogate pair before this"));
        }
        if !(self.take(b'\\') && self.take(b'u')) {
            return Err(self.unexpected("the second half of a surrogate pair"));
        }
        let second = self.hex()?;
        if !(0xdc00..0xe000).contains(&second) {
            return Err(self.unexpected("a whole surrogate pair before this"));
        }
        let code = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
        Ok(char::from_u32(code).expect("a surrogate pair is a character"))
    }

    fn hex(&mut self) -> Result<u32, BodyError> {
        let mut code = 0;
        for _ in 0..4 {
            let digit = self.peek().and_then(|byte| char::from(byte).to_digit(16));
            code = code * 16 + digit.ok_or_else(|| self.unexpected("four hexadecimal digits"))?;
            self.at += 1;
        }
        Ok(code)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Result<Value, BodyError> {
        parse(text.as_bytes(), &Limits::default())
    }

    fn value(text: &str) -> Value {
        read(text).unwrap()
    }

    #[test]
    fn every_number_goes_out_as_it_came_in() {
        for text in [
            "0",
            "-0",
            "-0.0",
            "1.0",
            "1.50",
            "1e5",
            "1E5",
            "1e+5",
            "1E-05",
            "1E400",
            "123456789012345678901234567890",
            "-0.1234567890123456789012345678901234567890",
            "9223372036854775808",
        ] {
            assert_eq!(value(text).to_string(), text);
            assert_eq!(value(&format!("{{\"a\":[{text}]}}")).to_string(), format!("{{\"a\":[{text}]}}"));
        }
    }

    #[test]
    fn fields_keep_their_order_and_of_duplicates_the_last_counts() {
        assert_eq!(value(r#"{"b":1,"a":2,"b":3}"#).to_string(), r#"{"b":3,"a":2}"#);
    }

    #[test]
    fn what_is_not_one_json_value_is_refused() {
        for text in [
            "",
            "  \n",
            "{",
            "[1,]",
            "{\"a\":1,}",
            "[1 2]",
            "01",
            "1.",
            ".5",
            "-",
            "1e",
            "+1",
            "NaN",
            "nul",
            "'a'",
            "\"a",
            "\"\u{1}\"",
            "\"\\x\"",
            "\"\\ud800\"",
            "\"\\ud800\\u0041\"",
            "\"\\udc00\"",
            "\"\\u12\"",
            "{a:1}",
            "1 2",
            "{} x",
            "\u{feff}{}",
            "[1]]",
        ] {
            assert!(matches!(read(text), Err(BodyError::NotJson(_))), "{text:?}: {:?}", read(text));
        }
        assert!(matches!(parse(b"\"\xff\"", &Limits::default()), Err(BodyError::NotJson(_))));
        assert_eq!(
            read("[1,\n 2 3]").unwrap_err().to_string(),
            "not JSON: line 2 column 4: expected ',' or ']', found '3'"
        );
    }

    #[test]
    fn texts_are_unescaped() {
        assert_eq!(value(r#""\"\\\/\b\f\n\r\té\u00e9\ud83d\ude00""#), json!("\"\\/\u{8}\u{c}\n\r\téé😀"));
    }

    #[test]
    fn each_limit_holds_to_the_one() {
        let limits = Limits { bytes: 20, depth: 3, values: 5 };
        let read = |text: &str| parse(text.as_bytes(), &limits);
        assert!(read("[[[0,0]]]").is_ok());
        assert!(matches!(read("[[[[]]]]"), Err(BodyError::TooDeep(_))));
        assert!(read("{\"a\":0,\"b\":[1,2]}").is_ok());
        assert!(matches!(read("{\"a\":0,\"b\":[1,2,3]}"), Err(BodyError::TooLarge(_))));
        assert!(read(&format!("\"{}\"", "x".repeat(18))).is_ok());
        assert!(matches!(read(&format!("\"{}\"", "x".repeat(19))), Err(BodyError::TooLarge(_))));
    }

    #[test]
    fn depth_never_exceeds_what_the_stack_bears_whatever_the_limit_says() {
        let deep = "[".repeat(1_000_000);
        let limits = Limits { bytes: usize::MAX, depth: usize::MAX, values: usize::MAX };
        assert!(matches!(parse(deep.as_bytes(), &limits), Err(BodyError::TooDeep(_))));
    }

    #[test]
    fn no_field_name_has_a_meaning_of_its_own() {
        for text in [r#"{"$serde_json::private::Number":"abc"}"#, r#"{"$serde_json::private::RawValue":"[[1,2]]"}"#] {
            assert_eq!(value(text).to_string(), text);
        }
    }

    #[test]
    fn values_are_compared_by_what_they_mean() {
        assert!(equal(&value(r#"{"a":1,"b":[2.0]}"#), &value(r#"{"b":[2],"a":1.0}"#)));
        assert!(equal(&value("1e2"), &value("100")));
        for (left, right) in
            [("1", "\"1\""), ("null", "false"), ("[]", "{}"), ("[1]", "[1,1]"), ("{\"a\":1}", "{\"b\":1}")]
        {
            assert!(!equal(&value(left), &value(right)), "{left} {right}");
        }
    }

    #[test]
    fn a_key_is_a_text_or_an_integer() {
        assert_eq!(key(&value("\"a\"")).as_deref(), Some("a"));
        assert_eq!(key(&value("10.0")).as_deref(), Some("10"));
        assert_eq!(key(&value("123456789012345678901234567890")).as_deref(), Some("123456789012345678901234567890"));
        for text in ["1.5", "null", "true", "[]", "{}", "1e513"] {
            assert_eq!(key(&value(text)), None, "{text}");
        }
        assert!(key(&Value::String("x".repeat(512))).is_some());
        assert_eq!(key(&Value::String("x".repeat(513))), None);
    }

    #[test]
    fn a_value_in_a_text_has_no_quotes_and_null_is_empty() {
        let texts = ["null", "\"a\"", "1.50", "true", "[\"a\"]"].map(|source| text(&value(source)));
        assert_eq!(texts, ["", "a", "1.50", "true", "[\"a\"]"]);
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (-20i32..20).prop_map(Value::from),
            (-20i32..20).prop_map(|n| Value::from(f64::from(n) / 4.0)),
            "[a-c\"\\\\\u{1}]{0,3}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec(("[a-c]", inner), 0..4).prop_map(|fields| fields.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_serde_writes_is_read_back(value in any_json()) {
            prop_assert_eq!(parse(value.to_string().as_bytes(), &Limits::default()), Ok(value));
        }

        #[test]
        fn values_are_equal_exactly_if_their_canonical_texts_are(left in any_json(), right in any_json()) {
            prop_assert_eq!(equal(&left, &right), canonical(&left) == canonical(&right));
            prop_assert!(equal(&left, &left));
            // The canonical text is JSON, and means the same.
            prop_assert!(equal(&left, &value(&canonical(&left))));
        }

        #[test]
        fn we_accept_what_serde_accepts(text in "[\\[\\]{}:,\"\\\\a0-9eE.+\\- tfn]{0,16}") {
            let theirs = serde_json::from_str::<Value>(&text);
            prop_assert_eq!(read(&text).is_ok(), theirs.is_ok(), "{}", text);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            drop(parse(&bytes, &Limits::default()));
        }
    }
}
