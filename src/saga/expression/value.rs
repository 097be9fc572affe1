//! Values during evaluation: borrowed from the JSON they come from as long as possible.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::rc::Rc;

use serde_json::{Map, Number};

use super::tree::Literal;
use crate::saga::duration::Span;
use crate::saga::json::Value;
use crate::saga::number::Decimal;
use crate::saga::time::Timestamp;

/// 2^63: the first integer that does not fit into 64 bits.
pub(super) const INT_END: f64 = 9_223_372_036_854_775_808.0;

/// Up to so many digits a decimal is the same as the nearest double, and its text can be had back.
const EXACT_DIGITS: usize = 15;

#[derive(Clone, Debug)]
pub(super) enum Val<'a> {
    Null,
    Bool(bool),
    Int(i64),
    /// Finite, and always with a fraction: one without is an integer.
    Double(f64),
    /// A number as it came in; its digits are kept if it is only copied.
    Number(&'a Number),
    Text(Text<'a>),
    Time(Timestamp),
    /// Milliseconds; the difference of two times may be negative.
    Span(i64),
    Array(&'a [Value]),
    Object(&'a Map<String, Value>),
    /// A list made by the expression.
    List(Rc<Vec<Val<'a>>>),
    /// An object made by the expression, in the order in which it is written.
    Fields(Rc<Vec<(Text<'a>, Val<'a>)>>),
}

#[derive(Clone, Debug)]
pub(super) enum Text<'a> {
    Borrowed(&'a str),
    Made(Rc<str>),
}

/// Why there is no value.
#[derive(Debug)]
pub(in crate::saga) enum Fault {
    /// A field or an element that is not there: what `default` and `has` take care of.
    Missing(String),
    Failed(String),
    /// The limit on work: nothing takes care of that.
    Exhausted(String),
}

pub(in crate::saga) type Outcome<T> = Result<T, Fault>;

/// A number, read for arithmetic.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Num {
    Int(i64),
    /// With a fraction.
    Double(f64),
}

impl Text<'_> {
    pub fn as_str(&self) -> &str {
        match self {
            Self::Borrowed(text) => text,
            Self::Made(text) => text,
        }
    }
}

pub(super) fn failed<T>(message: impl Into<String>) -> Outcome<T> {
    Err(Fault::Failed(message.into()))
}

/// The double as an integer, if it has no fraction and fits.
#[expect(clippy::cast_possible_truncation, reason = "the range is checked before, and there is no fraction")]
pub(super) fn whole(value: f64) -> Option<i64> {
    (value.fract() == 0.0 && (-INT_END..INT_END).contains(&value)).then_some(value as i64)
}

impl<'a> Val<'a> {
    pub fn of_json(value: &'a Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(truth) => Self::Bool(*truth),
            Value::Number(number) => Self::Number(number),
            Value::String(text) => Self::Text(Text::Borrowed(text)),
            Value::Array(items) => Self::Array(items),
            Value::Object(fields) => Self::Object(fields),
        }
    }

    pub fn of_literal(literal: &'a Literal) -> Self {
        match literal {
            Literal::Null => Self::Null,
            Literal::Bool(truth) => Self::Bool(*truth),
            Literal::Int(value) => Self::Int(*value),
            Literal::Double(value) => Self::Double(*value),
            Literal::Text(text) => Self::Text(Text::Borrowed(text)),
            Literal::Time(time) => Self::Time(*time),
            Literal::Span(ms) => Self::Span(*ms),
            Literal::Json(value) => Self::of_json(value),
        }
    }

    pub fn text(text: impl Into<Rc<str>>) -> Self {
        Self::Text(Text::Made(text.into()))
    }

    pub fn list(items: Vec<Self>) -> Self {
        Self::List(Rc::new(items))
    }

    /// The result of arithmetic with decimals.
    pub fn of_double(value: f64) -> Outcome<Self> {
        if value.is_nan() {
            return failed("the result is not a number");
        }
        if value.abs() >= INT_END {
            return failed("the number leaves 64 bits");
        }
        Ok(whole(value).map_or(Self::Double(value), Self::Int))
    }

    pub fn of_num(number: Num) -> Self {
        match number {
            Num::Int(value) => Self::Int(value),
            Num::Double(value) => Self::Double(value),
        }
    }

    /// What it is, in the words of messages.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "boolean",
            Self::Int(_) => "integer",
            Self::Double(_) => "decimal",
            Self::Number(number) => match quick(number.as_str()) {
                Some(Num::Int(_)) => "integer",
                None if Decimal::read(number.as_str()).is_integer() => "integer",
                Some(Num::Double(_)) | None => "decimal",
            },
            Self::Text(_) => "text",
            Self::Time(_) => "time",
            Self::Span(_) => "duration",
            Self::Array(_) | Self::List(_) => "list",
            Self::Object(_) | Self::Fields(_) => "object",
        }
    }

    /// What it is, behind "is" and "not".
    pub fn described(&self) -> String {
        match self.type_name() {
            "null" => "null".to_owned(),
            name @ ("integer" | "object") => format!("an {name}"),
            name => format!("a {name}"),
        }
    }

    /// The number it is, for arithmetic; `None` for anything else.
    pub fn num(&self) -> Outcome<Option<Num>> {
        Ok(Some(match self {
            Self::Int(value) => Num::Int(*value),
            Self::Double(value) => Num::Double(*value),
            Self::Number(number) => read_number(number.as_str())?,
            _ => return Ok(None),
        }))
    }

    pub fn is_number(&self) -> bool {
        matches!(self, Self::Int(_) | Self::Double(_) | Self::Number(_))
    }

    /// Elements of a list; the keys of an object; `None` for anything else.
    pub fn sequence(&self) -> Option<Sequence<'a>> {
        Some(match self {
            Self::Array(items) => Sequence::Json(items),
            Self::List(items) => Sequence::Made(Rc::clone(items)),
            Self::Object(fields) => Sequence::Keys(fields.keys().map(|key| Self::Text(Text::Borrowed(key))).collect()),
            Self::Fields(fields) => Sequence::Keys(fields.iter().map(|(key, _)| Self::Text(key.clone())).collect()),
            _ => return None,
        })
    }

    /// How many elements or fields it has; `None` for what has neither.
    pub fn len(&self) -> Option<usize> {
        Some(match self {
            Self::Array(items) => items.len(),
            Self::List(items) => items.len(),
            Self::Object(fields) => fields.len(),
            Self::Fields(fields) => fields.len(),
            _ => return None,
        })
    }

    pub fn is_list(&self) -> bool {
        matches!(self, Self::Array(_) | Self::List(_))
    }

    pub fn is_object(&self) -> bool {
        matches!(self, Self::Object(_) | Self::Fields(_))
    }

    /// A field of an object.
    pub fn field(&self, name: &str) -> Option<Self> {
        match self {
            Self::Object(fields) => fields.get(name).map(Val::of_json),
            Self::Fields(fields) => fields.iter().find(|(key, _)| key.as_str() == name).map(|(_, value)| value.clone()),
            _ => None,
        }
    }

    /// The name of a field that a value stands for: texts, and integers in their digits.
    pub fn field_name(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Text(text) => Some(Cow::Borrowed(text.as_str())),
            Self::Int(value) => Some(Cow::Owned(value.to_string())),
            Self::Number(number) => Decimal::read(number.as_str()).plain(crate::saga::json::KEY_LIMIT).map(Cow::Owned),
            _ => None,
        }
    }
}

/// What macros and functions go through.
pub(super) enum Sequence<'a> {
    Json(&'a [Value]),
    Made(Rc<Vec<Val<'a>>>),
    Keys(Vec<Val<'a>>),
}

impl<'a> Sequence<'a> {
    pub fn len(&self) -> usize {
        match self {
            Self::Json(items) => items.len(),
            Self::Made(items) => items.len(),
            Self::Keys(keys) => keys.len(),
        }
    }

    pub fn get(&self, index: usize) -> Option<Val<'a>> {
        match self {
            Self::Json(items) => items.get(index).map(Val::of_json),
            Self::Made(items) => items.get(index).cloned(),
            Self::Keys(keys) => keys.get(index).cloned(),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = Val<'a>> + '_ {
        (0..self.len()).map_while(|index| self.get(index))
    }
}

/// A number whose value is clear without looking at more than a few digits: an integer of 64 bits, or a decimal so
/// short that the nearest double says the same.
fn quick(text: &str) -> Option<Num> {
    if let Ok(value) = text.parse::<i64>() {
        return Some(Num::Int(value));
    }
    if text.len() > EXACT_DIGITS || text.contains(['e', 'E']) {
        return None;
    }
    let value: f64 = text.parse().ok()?;
    Some(whole(value).map_or(Num::Double(value), Num::Int))
}

/// Reads a number for arithmetic: exactly if it is an integer, otherwise as the nearest double.
fn read_number(text: &str) -> Outcome<Num> {
    if let Some(number) = quick(text) {
        return Ok(number);
    }
    let exact = Decimal::read(text);
    if exact.is_integer() {
        return exact.as_i64().map(Num::Int).ok_or_else(|| Fault::Failed("the number leaves 64 bits".to_owned()));
    }
    let value: f64 = text.parse().map_err(|_| Fault::Failed(format!("'{text}' is not a number")))?;
    if value.abs() >= INT_END {
        return failed("the number leaves 64 bits");
    }
    // Rounding may have taken the fraction away.
    Ok(whole(value).map_or(Num::Double(value), Num::Int))
}

/// Compares two numbers exactly, whatever their length; `None` if one of them is none.
pub(super) fn compare_numbers(left: &Val<'_>, right: &Val<'_>) -> Option<Ordering> {
    let short = |value: &Val<'_>| match value {
        Val::Int(value) => Some(Num::Int(*value)),
        Val::Double(value) => Some(Num::Double(*value)),
        Val::Number(number) => quick(number.as_str()),
        _ => None,
    };
    match (short(left), short(right)) {
        (Some(left), Some(right)) => Some(compare_num(left, right)),
        _ => Some(exact(left)?.cmp(&exact(right)?)),
    }
}

fn compare_num(left: Num, right: Num) -> Ordering {
    match (left, right) {
        (Num::Int(left), Num::Int(right)) => left.cmp(&right),
        (Num::Double(left), Num::Double(right)) => left.total_cmp(&right),
        (Num::Int(left), Num::Double(right)) => compare_with_double(left, right),
        (Num::Double(left), Num::Int(right)) => compare_with_double(right, left).reverse(),
    }
}

/// A double with a fraction lies between two integers, which fit into 64 bits.
fn compare_with_double(integer: i64, double: f64) -> Ordering {
    match whole(double.floor()) {
        Some(below) if integer <= below => Ordering::Less,
        _ => Ordering::Greater,
    }
}

fn exact(value: &Val<'_>) -> Option<Decimal> {
    Some(match value {
        Val::Int(value) => Decimal::read(&value.to_string()),
        Val::Double(value) => Decimal::read(&format!("{value:e}")),
        Val::Number(number) => Decimal::read(number.as_str()),
        _ => return None,
    })
}

/// A duration in the language's spelling, which has none for what is below zero.
pub(super) fn span_text(ms: i64) -> Outcome<String> {
    match u64::try_from(ms) {
        Ok(ms) => Ok(Span(ms).to_string()),
        Err(_) => failed("a duration below zero has no text"),
    }
}
