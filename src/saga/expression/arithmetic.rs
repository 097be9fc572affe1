//! What the operators do: numbers, texts, lists, times and durations. Leaving 64 bits is an error, never a wrap.

use std::cmp::Ordering;

use super::eval::Work;
use super::tree::Operator;
use super::value::{Fault, Num, Outcome, Val, compare_numbers, failed};
use crate::saga::time::Timestamp;

/// 0001-01-01T00:00:00Z: times go from the year 1 to the year 9999, as CEL has it.
const FIRST_YEAR_MS: i64 = -62_135_596_800_000;

pub(super) fn apply<'a>(work: &mut Work<'a>, operator: Operator, left: &Val<'a>, right: &Val<'a>) -> Outcome<Val<'a>> {
    Ok(match operator {
        Operator::Equal => Val::Bool(equal(work, left, right)?),
        Operator::NotEqual => Val::Bool(!equal(work, left, right)?),
        Operator::Less => Val::Bool(compare(work, left, right)?.is_lt()),
        Operator::LessOrEqual => Val::Bool(compare(work, left, right)?.is_le()),
        Operator::Greater => Val::Bool(compare(work, left, right)?.is_gt()),
        Operator::GreaterOrEqual => Val::Bool(compare(work, left, right)?.is_ge()),
        Operator::In => Val::Bool(contains(work, left, right)?),
        Operator::Add => return add(work, left, right),
        Operator::Subtract => return subtract(left, right),
        Operator::Multiply => return multiply(left, right),
        Operator::Divide => return divide(left, right),
        Operator::Remainder => return remainder(left, right),
    })
}

/// Whether two values are the same; values of different types are not.
pub(super) fn equal<'a>(work: &mut Work<'a>, left: &Val<'a>, right: &Val<'a>) -> Outcome<bool> {
    work.charge(1)?;
    if let Some(order) = compare_numbers(left, right) {
        return Ok(order.is_eq());
    }
    Ok(match (left, right) {
        (Val::Null, Val::Null) => true,
        (Val::Bool(left), Val::Bool(right)) => left == right,
        (Val::Time(left), Val::Time(right)) => left == right,
        (Val::Span(left), Val::Span(right)) => left == right,
        (Val::Text(left), Val::Text(right)) => {
            let (left, right) = (left.as_str(), right.as_str());
            left.len() == right.len() && {
                work.charge_bytes(left.len())?;
                left == right
            }
        }
        _ if left.is_list() && right.is_list() => equal_lists(work, left, right)?,
        _ if left.is_object() && right.is_object() => equal_objects(work, left, right)?,
        _ => false,
    })
}

fn equal_lists<'a>(work: &mut Work<'a>, left: &Val<'a>, right: &Val<'a>) -> Outcome<bool> {
    let (Some(left), Some(right)) = (left.sequence(), right.sequence()) else { return Ok(false) };
    if left.len() != right.len() {
        return Ok(false);
    }
    for (left, right) in left.iter().zip(right.iter()) {
        if !equal(work, &left, &right)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn equal_objects<'a>(work: &mut Work<'a>, left: &Val<'a>, right: &Val<'a>) -> Outcome<bool> {
    if left.len() != right.len() {
        return Ok(false);
    }
    let Some(names) = left.sequence() else { return Ok(false) };
    work.charge(names.len())?;
    for name in names.iter() {
        let Val::Text(name) = &name else { return Ok(false) };
        let (Some(left), Some(right)) = (work.field(left, name.as_str())?, work.field(right, name.as_str())?) else {
            return Ok(false);
        };
        if !equal(work, &left, &right)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Which of two values comes first; only values of one type can be compared, all numbers being of one.
pub(super) fn compare<'a>(work: &mut Work<'a>, left: &Val<'a>, right: &Val<'a>) -> Outcome<Ordering> {
    if let Some(order) = compare_numbers(left, right) {
        return Ok(order);
    }
    match (left, right) {
        (Val::Bool(left), Val::Bool(right)) => Ok(left.cmp(right)),
        (Val::Time(left), Val::Time(right)) => Ok(left.cmp(right)),
        (Val::Span(left), Val::Span(right)) => Ok(left.cmp(right)),
        (Val::Text(left), Val::Text(right)) => {
            work.charge_bytes(left.as_str().len().min(right.as_str().len()))?;
            Ok(left.as_str().cmp(right.as_str()))
        }
        _ => {
            failed(format!("cannot compare {} with {}{}", left.type_name(), right.type_name(), time_help(left, right)))
        }
    }
}

fn contains<'a>(work: &mut Work<'a>, needle: &Val<'a>, hay: &Val<'a>) -> Outcome<bool> {
    if hay.is_object() {
        let Some(name) = needle.field_name() else { return Ok(false) };
        return Ok(work.field(hay, &name)?.is_some());
    }
    match hay.sequence() {
        Some(items) => {
            for item in items.iter() {
                if equal(work, needle, &item)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        None if matches!(hay, Val::Text(_)) => {
            failed("'in' looks into lists and objects; for texts there is contains()")
        }
        None => failed(format!("'in' looks into lists and objects, not into {}", hay.described())),
    }
}

pub(super) fn add<'a>(work: &mut Work<'a>, left: &Val<'a>, right: &Val<'a>) -> Outcome<Val<'a>> {
    if left.is_number() && right.is_number() {
        return numbers(left, right, i64::checked_add, |left, right| left + right);
    }
    match (left, right) {
        (Val::Text(left), Val::Text(right)) => {
            work.charge_bytes(left.as_str().len() + right.as_str().len())?;
            Ok(Val::text([left.as_str(), right.as_str()].concat()))
        }
        (Val::Time(time), Val::Span(ms)) | (Val::Span(ms), Val::Time(time)) => moved(*time, Some(*ms)),
        (Val::Span(left), Val::Span(right)) => span(left.checked_add(*right)),
        _ if left.is_list() && right.is_list() => {
            let (left, right) = (left.sequence(), right.sequence());
            let lists = [left, right];
            work.charge(lists.iter().flatten().map(super::value::Sequence::len).sum())?;
            Ok(Val::list(lists.iter().flatten().flat_map(super::value::Sequence::iter).collect()))
        }
        _ => failed(format!("cannot add {} and {}{}", left.type_name(), right.type_name(), time_help(left, right))),
    }
}

fn subtract<'a>(left: &Val<'a>, right: &Val<'a>) -> Outcome<Val<'a>> {
    if left.is_number() && right.is_number() {
        return numbers(left, right, i64::checked_sub, |left, right| left - right);
    }
    match (left, right) {
        (Val::Time(left), Val::Time(right)) => span(left.as_ms().checked_sub(right.as_ms())),
        (Val::Time(time), Val::Span(ms)) => moved(*time, ms.checked_neg()),
        (Val::Span(left), Val::Span(right)) => span(left.checked_sub(*right)),
        _ => {
            failed(format!("cannot subtract {} from {}{}", right.type_name(), left.type_name(), time_help(left, right)))
        }
    }
}

fn multiply<'a>(left: &Val<'a>, right: &Val<'a>) -> Outcome<Val<'a>> {
    if left.is_number() && right.is_number() {
        return numbers(left, right, i64::checked_mul, |left, right| left * right);
    }
    failed(format!("cannot multiply {} with {}", left.type_name(), right.type_name()))
}

/// Integers that do not divide evenly give a decimal.
fn divide<'a>(left: &Val<'a>, right: &Val<'a>) -> Outcome<Val<'a>> {
    let (Some(dividend), Some(divisor)) = (left.num()?, right.num()?) else {
        return failed(format!("cannot divide {} by {}", left.type_name(), right.type_name()));
    };
    match (dividend, divisor) {
        // A decimal always has a fraction: zero is an integer.
        (_, Num::Int(0)) => failed("division by zero"),
        (Num::Int(dividend), Num::Int(divisor)) => match dividend.checked_rem(divisor) {
            Some(0) => Ok(Val::Int(dividend / divisor)),
            Some(_) => Val::of_double(as_double(Num::Int(dividend)) / as_double(Num::Int(divisor))),
            None => failed("the number leaves 64 bits"),
        },
        (dividend, divisor) => Val::of_double(as_double(dividend) / as_double(divisor)),
    }
}

fn remainder<'a>(left: &Val<'a>, right: &Val<'a>) -> Outcome<Val<'a>> {
    match (left.num()?, right.num()?) {
        (Some(Num::Int(_)), Some(Num::Int(0))) => failed("division by zero"),
        (Some(Num::Int(left)), Some(Num::Int(right))) => match left.checked_rem(right) {
            Some(rest) => Ok(Val::Int(rest)),
            None => failed("the number leaves 64 bits"),
        },
        _ => failed(format!("% needs two integers, not {} and {}", left.described(), right.described())),
    }
}

pub(super) fn negate<'a>(value: &Val<'a>) -> Outcome<Val<'a>> {
    match value.num()? {
        Some(Num::Int(value)) => match value.checked_neg() {
            Some(negative) => Ok(Val::Int(negative)),
            None => failed("the number leaves 64 bits"),
        },
        Some(Num::Double(value)) => Ok(Val::Double(-value)),
        None => failed(format!("'-' needs a number, not {}", value.described())),
    }
}

fn numbers<'a>(
    left: &Val<'a>,
    right: &Val<'a>,
    integers: fn(i64, i64) -> Option<i64>,
    doubles: fn(f64, f64) -> f64,
) -> Outcome<Val<'a>> {
    let (Some(left), Some(right)) = (left.num()?, right.num()?) else { return failed("numbers are needed here") };
    if let (Num::Int(left), Num::Int(right)) = (left, right) {
        return integers(left, right)
            .map(Val::Int)
            .ok_or_else(|| Fault::Failed("the number leaves 64 bits".to_owned()));
    }
    Val::of_double(doubles(as_double(left), as_double(right)))
}

#[expect(clippy::cast_precision_loss, reason = "where a decimal takes part, the result has a decimal's precision")]
pub(super) fn as_double(number: Num) -> f64 {
    match number {
        Num::Int(value) => value as f64,
        Num::Double(value) => value,
    }
}

fn span<'a>(ms: Option<i64>) -> Outcome<Val<'a>> {
    ms.map(Val::Span).ok_or_else(|| Fault::Failed("the duration is too long".to_owned()))
}

fn moved<'a>(time: Timestamp, by: Option<i64>) -> Outcome<Val<'a>> {
    in_range(by.and_then(|by| time.as_ms().checked_add(by)))
}

/// A time, if it is one that can be written down.
pub(super) fn in_range<'a>(ms: Option<i64>) -> Outcome<Val<'a>> {
    match ms.map(Timestamp) {
        Some(time) if time.is_writable() && time.as_ms() >= FIRST_YEAR_MS => Ok(Val::Time(time)),
        _ => failed("the time is outside the years 1 to 9999"),
    }
}

/// Times and durations that are stored are text, and are easily taken for what they are not.
fn time_help(left: &Val<'_>, right: &Val<'_>) -> &'static str {
    let is = |value: &Val<'_>, name: &str| value.type_name() == name;
    let with_text = |name| (is(left, name) && is(right, "text")) || (is(left, "text") && is(right, name));
    if with_text("time") {
        "; timestamp() makes a time of a text, duration() a duration"
    } else if with_text("duration") {
        "; duration() makes a duration of a text"
    } else {
        ""
    }
}
