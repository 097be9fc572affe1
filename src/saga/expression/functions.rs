//! The functions of the language: their names, how they are written, and what they do.
//!
//! All of them are pure. What is paid for with the size of a text or a list is charged before it is done.

use std::cmp::Ordering;
use std::ops::RangeInclusive;
use std::rc::Rc;

use regex::{Regex, RegexBuilder};

use super::arithmetic::{add, as_double, compare, in_range};
use super::eval::Work;
use super::tree::{MacroKind, Pattern};
use super::value::{Num, Outcome, Text, Val, failed, span_text};
use crate::saga::duration::Span;
use crate::saga::json::KEY_LIMIT;
use crate::saga::number::Decimal;
use crate::saga::time::Timestamp;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    Size,
    Contains,
    StartsWith,
    EndsWith,
    Matches,
    LowerAscii,
    UpperAscii,
    Trim,
    Split,
    Join,
    Replace,
    Int,
    Double,
    String,
    Timestamp,
    Duration,
    Min,
    Max,
    Sum,
    Abs,
    Round,
}

/// How a call is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    /// `f(x)`
    Function,
    /// `x.f()`
    Method,
    Both,
}

struct Signature {
    function: Function,
    name: &'static str,
    style: Style,
    /// The value in front counts.
    takes: RangeInclusive<usize>,
    usage: &'static str,
}

const fn signature(
    function: Function,
    name: &'static str,
    style: Style,
    takes: RangeInclusive<usize>,
    usage: &'static str,
) -> Signature {
    Signature { function, name, style, takes, usage }
}

/// `min` and `max` of more values than that are written as a list.
const MOST: usize = 32;

const SIGNATURES: [Signature; 21] = [
    signature(Function::Size, "size", Style::Both, 1..=1, "size(x) or x.size()"),
    signature(Function::Contains, "contains", Style::Method, 2..=2, "text.contains(\"part\")"),
    signature(Function::StartsWith, "startsWith", Style::Method, 2..=2, "text.startsWith(\"part\")"),
    signature(Function::EndsWith, "endsWith", Style::Method, 2..=2, "text.endsWith(\"part\")"),
    signature(Function::Matches, "matches", Style::Both, 2..=2, "text.matches(\"pattern\")"),
    signature(Function::LowerAscii, "lowerAscii", Style::Method, 1..=1, "text.lowerAscii()"),
    signature(Function::UpperAscii, "upperAscii", Style::Method, 1..=1, "text.upperAscii()"),
    signature(Function::Trim, "trim", Style::Method, 1..=1, "text.trim()"),
    signature(Function::Split, "split", Style::Method, 2..=3, "text.split(\",\") or text.split(\",\", 2)"),
    signature(Function::Join, "join", Style::Method, 1..=2, "list.join() or list.join(\",\")"),
    signature(
        Function::Replace,
        "replace",
        Style::Method,
        3..=4,
        "text.replace(\"old\", \"new\") or text.replace(\"old\", \"new\", 1)",
    ),
    signature(Function::Int, "int", Style::Function, 1..=1, "int(x)"),
    signature(Function::Double, "double", Style::Function, 1..=1, "double(x)"),
    signature(Function::String, "string", Style::Function, 1..=1, "string(x)"),
    signature(Function::Timestamp, "timestamp", Style::Function, 1..=1, "timestamp(\"2030-01-31T12:00:00Z\")"),
    signature(Function::Duration, "duration", Style::Function, 1..=1, "duration(\"1h30m\")"),
    signature(Function::Min, "min", Style::Both, 1..=MOST, "min(a, b) or min(list)"),
    signature(Function::Max, "max", Style::Both, 1..=MOST, "max(a, b) or max(list)"),
    signature(Function::Sum, "sum", Style::Both, 1..=1, "sum(list)"),
    signature(Function::Abs, "abs", Style::Function, 1..=1, "abs(x)"),
    signature(Function::Round, "round", Style::Function, 1..=1, "round(x)"),
];

/// What is written like a function and is part of the grammar.
const FORMS: [(&str, &str); 7] = [
    ("has", "has(data.field)"),
    ("default", "default(data.field, 0)"),
    ("all", "list.all(x, x > 0)"),
    ("exists", "list.exists(x, x > 0)"),
    ("exists_one", "list.exists_one(x, x > 0)"),
    ("map", "list.map(x, x + 1)"),
    ("filter", "list.filter(x, x > 0)"),
];

impl Function {
    pub fn named(name: &str) -> Option<Self> {
        SIGNATURES.iter().find(|signature| signature.name == name).map(|signature| signature.function)
    }

    fn signature(self) -> &'static Signature {
        SIGNATURES.iter().find(|signature| signature.function == self).expect("every function has its signature")
    }

    pub fn name(self) -> &'static str {
        self.signature().name
    }

    pub fn usage(self) -> &'static str {
        self.signature().usage
    }

    pub fn takes(self) -> RangeInclusive<usize> {
        self.signature().takes.clone()
    }

    pub fn is_method_only(self) -> bool {
        self.signature().style == Style::Method
    }

    pub fn is_function_only(self) -> bool {
        self.signature().style == Style::Function
    }
}

/// All names that stand before a parenthesis.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    FORMS.iter().map(|(name, _)| *name).chain(SIGNATURES.iter().map(|signature| signature.name))
}

pub(super) fn is_name(name: &str) -> bool {
    names().any(|known| known == name) || MacroKind::named(name).is_some()
}

/// How a function or macro is written; for names of which there is one.
pub(super) fn usage(name: &str) -> &'static str {
    let form = FORMS.iter().find(|(form, _)| *form == name).map(|(_, usage)| *usage);
    form.or_else(|| Function::named(name).map(Function::usage)).unwrap_or("f(x)")
}

// --- Regular expressions

/// A constant pattern, compiled while the file is loaded.
pub(super) fn constant_pattern(pattern: &str) -> Result<Pattern, String> {
    compile_pattern(pattern, &PATTERN_SIZES)
}

/// How large a compiled pattern may be (as the regex crate counts), and what 32 bytes of text then cost in steps.
/// Measured at worst: 0.1, 0.7 and 3.3 microseconds for each byte, so that all steps together take a sixth of a second.
const PATTERN_SIZES: [(usize, usize); 3] = [(16 * 1024, 2), (128 * 1024, 16), (1024 * 1024, 64)];

/// A pattern out of data is compiled at each evaluation.
const DATA_PATTERN_SIZES: [(usize, usize); 2] = [PATTERN_SIZES[0], PATTERN_SIZES[1]];
const DATA_PATTERN_LENGTH: usize = 1_000;
const COMPILE_STEPS: usize = 5_000;

fn compile_pattern(pattern: &str, sizes: &[(usize, usize)]) -> Result<Pattern, String> {
    let mut reason = String::new();
    for (size, weight) in sizes {
        match RegexBuilder::new(pattern).size_limit(*size).build() {
            Ok(regex) => return Ok(Pattern { regex, weight: *weight }),
            Err(regex::Error::CompiledTooBig(_)) => "it is too large".clone_into(&mut reason),
            // The last line says what is wrong; those before draw the pattern.
            Err(error) => return Err(error.to_string().lines().last().unwrap_or_default().to_owned()),
        }
    }
    Err(reason)
}

pub(super) fn matches(work: &mut Work<'_>, text: &Val<'_>, pattern: &Pattern) -> Outcome<bool> {
    let text = text_of(text, "matches")?;
    work.charge_bytes(text.len().saturating_mul(pattern.weight))?;
    Ok(Regex::is_match(&pattern.regex, text))
}

// --- Calls

pub(super) fn call<'a>(work: &mut Work<'a>, function: Function, arguments: &[Val<'a>]) -> Outcome<Val<'a>> {
    let name = function.name();
    let first = &arguments[0];
    match function {
        Function::Size => size(work, first),
        Function::Contains | Function::StartsWith | Function::EndsWith => {
            let (text, part) = (text_of(first, name)?, text_of(&arguments[1], name)?);
            work.charge_bytes(text.len())?;
            Ok(Val::Bool(match function {
                Function::StartsWith => text.starts_with(part),
                Function::EndsWith => text.ends_with(part),
                _ => text.contains(part),
            }))
        }
        Function::Matches => {
            work.charge(COMPILE_STEPS)?;
            let source = text_of(&arguments[1], name)?;
            if source.len() > DATA_PATTERN_LENGTH {
                return failed(format!("the pattern of matches is longer than {DATA_PATTERN_LENGTH} bytes"));
            }
            match compile_pattern(source, &DATA_PATTERN_SIZES) {
                Ok(pattern) => matches(work, first, &pattern).map(Val::Bool),
                Err(reason) => failed(format!("the pattern of matches is not a regular expression: {reason}")),
            }
        }
        Function::LowerAscii | Function::UpperAscii => {
            let text = text_of(first, name)?;
            work.charge_bytes(text.len())?;
            let lower = function == Function::LowerAscii;
            Ok(Val::text(if lower { text.to_ascii_lowercase() } else { text.to_ascii_uppercase() }))
        }
        Function::Trim => {
            let text = text_of(first, name)?;
            work.charge_bytes(text.len())?;
            Ok(Val::text(text.trim()))
        }
        Function::Split => split(work, first, &arguments[1], arguments.get(2)),
        Function::Join => join(work, first, arguments.get(1)),
        Function::Replace => replace(work, arguments),
        Function::Int => int(first),
        Function::Double => double(first),
        Function::String => string(work, first),
        Function::Timestamp => timestamp(first),
        Function::Duration => duration(first),
        Function::Min => extreme(work, arguments, Ordering::Less, name),
        Function::Max => extreme(work, arguments, Ordering::Greater, name),
        Function::Sum => sum(work, first),
        Function::Abs => abs(first),
        Function::Round => match first.num()? {
            Some(Num::Int(_)) => Ok(first.clone()),
            Some(Num::Double(value)) => Val::of_double(value.round()),
            None => wrong(name, "a number", first),
        },
    }
}

fn wrong<T>(name: &str, wanted: &str, found: &Val<'_>) -> Outcome<T> {
    failed(format!("{name} needs {wanted}, not {}", found.described()))
}

fn text_of<'v>(value: &'v Val<'_>, name: &str) -> Outcome<&'v str> {
    match value {
        Val::Text(text) => Ok(text.as_str()),
        other => wrong(name, "a text", other),
    }
}

/// How many parts or replacements; below zero: all.
fn count_of(value: Option<&Val<'_>>, name: &str) -> Outcome<Option<usize>> {
    let Some(value) = value else { return Ok(None) };
    match value.num()? {
        Some(Num::Int(count)) => Ok(usize::try_from(count).ok()),
        _ => wrong(name, "an integer as its last argument", value),
    }
}

fn integer<'a>(count: usize) -> Val<'a> {
    Val::Int(i64::try_from(count).unwrap_or(i64::MAX))
}

fn size<'a>(work: &mut Work<'a>, value: &Val<'a>) -> Outcome<Val<'a>> {
    if let Val::Text(text) = value {
        work.charge_bytes(text.as_str().len())?;
        return Ok(integer(text.as_str().chars().count()));
    }
    match value.len() {
        Some(length) => Ok(integer(length)),
        None => wrong("size", "a text, a list or an object", value),
    }
}

fn split<'a>(work: &mut Work<'a>, value: &Val<'a>, by: &Val<'a>, most: Option<&Val<'a>>) -> Outcome<Val<'a>> {
    let Val::Text(text) = value else { return wrong("split", "a text", value) };
    let by = text_of(by, "split")?;
    let most = count_of(most, "split")?.unwrap_or(usize::MAX);
    work.charge_bytes(text.as_str().len())?;
    let parts = match text {
        Text::Borrowed(text) => {
            split_text(work, text, by, most)?.into_iter().map(|part| Val::Text(Text::Borrowed(part))).collect()
        }
        Text::Made(text) => split_text(work, text, by, most)?.into_iter().map(Val::text).collect(),
    };
    Ok(Val::list(parts))
}

fn split_text<'t>(work: &mut Work<'_>, text: &'t str, by: &str, most: usize) -> Outcome<Vec<&'t str>> {
    let mut parts = Vec::new();
    if most == 0 {
        return Ok(parts);
    }
    let mut rest = text;
    // Where nothing separates, every character is a part.
    let next = |rest: &str| match by {
        "" => rest.chars().next().map(char::len_utf8).filter(|length| *length < rest.len()),
        _ => rest.find(by),
    };
    while parts.len() + 1 < most
        && let Some(end) = next(rest)
    {
        work.charge(1)?;
        parts.push(&rest[..end]);
        rest = &rest[end + by.len()..];
    }
    if !(by.is_empty() && text.is_empty()) {
        parts.push(rest);
    }
    Ok(parts)
}

fn join<'a>(work: &mut Work<'a>, list: &Val<'a>, by: Option<&Val<'a>>) -> Outcome<Val<'a>> {
    let by = by.map_or(Ok(""), |by| text_of(by, "join"))?;
    let Some(items) = list.sequence().filter(|_| list.is_list()) else { return wrong("join", "a list of texts", list) };
    let mut out = String::new();
    for (i, item) in items.iter().enumerate() {
        let Val::Text(text) = &item else {
            return failed(format!("join needs a list of texts, and one is {}", item.described()));
        };
        work.charge(1)?;
        work.charge_bytes(by.len() + text.as_str().len())?;
        if i > 0 {
            out.push_str(by);
        }
        out.push_str(text.as_str());
    }
    Ok(Val::text(out))
}

fn replace<'a>(work: &mut Work<'a>, arguments: &[Val<'a>]) -> Outcome<Val<'a>> {
    let name = "replace";
    let (text, old, new) =
        (text_of(&arguments[0], name)?, text_of(&arguments[1], name)?, text_of(&arguments[2], name)?);
    let most = count_of(arguments.get(3), name)?.unwrap_or(usize::MAX);
    work.charge_bytes(text.len())?;
    let found = text.matches(old).take(most).count();
    work.charge_bytes(found.saturating_mul(new.len().max(1)))?;
    Ok(Val::text(text.replacen(old, new, most)))
}

fn int<'a>(value: &Val<'a>) -> Outcome<Val<'a>> {
    match value {
        Val::Text(text) => match text.as_str().parse::<i64>() {
            Ok(value) if !text.as_str().starts_with('+') => Ok(Val::Int(value)),
            _ => failed(format!("int cannot read '{}'", shortened(text.as_str()))),
        },
        Val::Time(time) => Ok(Val::Int(time.as_ms().div_euclid(1_000))),
        other => match other.num()? {
            Some(Num::Int(value)) => Ok(Val::Int(value)),
            Some(Num::Double(value)) => Val::of_double(value.trunc()),
            None => wrong("int", "a number, a text or a time", value),
        },
    }
}

fn double<'a>(value: &Val<'a>) -> Outcome<Val<'a>> {
    match value {
        Val::Text(text) => {
            let text = text.as_str();
            // What Rust reads beyond that (`inf`, `nan`, a leading `+`) is no number here.
            let plain =
                text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte)) && !text.starts_with('+');
            match text.parse::<f64>() {
                Ok(value) if plain => Val::of_double(value),
                _ => failed(format!("double cannot read '{}'", shortened(text))),
            }
        }
        other => match other.num()? {
            Some(number) => Ok(Val::of_num(number)),
            None => wrong("double", "a number or a text", value),
        },
    }
}

fn string<'a>(work: &mut Work<'a>, value: &Val<'a>) -> Outcome<Val<'a>> {
    Ok(match value {
        Val::Text(_) => value.clone(),
        Val::Bool(truth) => Val::text(truth.to_string()),
        Val::Int(value) => Val::text(value.to_string()),
        Val::Double(value) => Val::text(serde_json::Value::from(*value).to_string()),
        // Equal numbers have the same text, however they came in.
        Val::Number(number) => {
            work.charge_bytes(number.as_str().len())?;
            let exact = Decimal::read(number.as_str());
            Val::text(match exact.plain(KEY_LIMIT) {
                Some(integer) => integer,
                None if exact.is_integer() => exact.canonical(),
                None => match value.num()? {
                    Some(Num::Double(value)) => serde_json::Value::from(value).to_string(),
                    _ => number.to_string(),
                },
            })
        }
        Val::Time(time) => Val::text(time.to_string()),
        Val::Span(ms) => Val::text(span_text(*ms)?),
        other => return wrong("string", "a text, a number, a boolean, a time or a duration", other),
    })
}

fn timestamp<'a>(value: &Val<'a>) -> Outcome<Val<'a>> {
    match value {
        Val::Time(_) => Ok(value.clone()),
        Val::Text(text) => match Timestamp::parse(text.as_str()) {
            Ok(time) => in_range(Some(time.as_ms())),
            Err(_) => failed(format!("timestamp cannot read '{}'", shortened(text.as_str()))),
        },
        other => match other.num()? {
            Some(Num::Int(seconds)) => in_range(seconds.checked_mul(1_000)),
            _ => wrong("timestamp", "a text or whole seconds since 1970", value),
        },
    }
}

fn duration<'a>(value: &Val<'a>) -> Outcome<Val<'a>> {
    match value {
        Val::Span(_) => Ok(value.clone()),
        Val::Text(text) => {
            let text = shortened(text.as_str());
            match Span::parse(&text) {
                Ok(span) => match i64::try_from(span.as_ms()) {
                    Ok(ms) => Ok(Val::Span(ms)),
                    Err(_) => failed("the duration is too long"),
                },
                Err(error) => failed(error.to_string()),
            }
        }
        other => wrong("duration", "a text like \"1h30m\"", other),
    }
}

fn extreme<'a>(work: &mut Work<'a>, arguments: &[Val<'a>], wanted: Ordering, name: &str) -> Outcome<Val<'a>> {
    let items = match arguments {
        [list] if list.is_list() => list.sequence(),
        several => Some(super::value::Sequence::Made(Rc::new(several.to_vec()))),
    };
    let mut best: Option<Val<'a>> = None;
    for item in items.iter().flat_map(super::value::Sequence::iter) {
        work.charge(1)?;
        best = match best {
            Some(best) if compare(work, &item, &best)? != wanted => Some(best),
            Some(_) => Some(item),
            // One value alone is compared with itself, so that what has no order is refused all the same.
            None => compare(work, &item, &item).map(|_| Some(item))?,
        };
    }
    best.map_or_else(|| failed(format!("{name} of an empty list")), Ok)
}

fn sum<'a>(work: &mut Work<'a>, list: &Val<'a>) -> Outcome<Val<'a>> {
    let Some(items) = list.sequence().filter(|_| list.is_list()) else {
        return wrong("sum", "a list of numbers", list);
    };
    let mut total = Val::Int(0);
    for (i, item) in items.iter().enumerate() {
        work.charge(1)?;
        if !(item.is_number() || matches!(item, Val::Span(_))) {
            return failed(format!("sum needs a list of numbers, and one is {}", item.described()));
        }
        total = if i == 0 && matches!(item, Val::Span(_)) { item } else { add(work, &total, &item)? };
    }
    Ok(total)
}

fn abs<'a>(value: &Val<'a>) -> Outcome<Val<'a>> {
    match value.num()? {
        Some(number) if as_double(number) >= 0.0 => Ok(value.clone()),
        Some(_) => super::arithmetic::negate(value),
        None => wrong("abs", "a number", value),
    }
}

/// The beginning of a text, for messages.
fn shortened(text: &str) -> String {
    const SHOWN: usize = 40;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
