//! From values to JSON, within a limit: an expression can share a value many times that a result holds as often.

use serde_json::Map;

use super::value::{Fault, Outcome, Val, span_text};
use crate::saga::json::Value;

/// What may still be put into results.
#[derive(Debug)]
pub(in crate::saga) struct Room {
    values: usize,
    bytes: usize,
}

impl Default for Room {
    /// Some times what a message may be.
    fn default() -> Self {
        Self { values: 400_000, bytes: 8 * 1024 * 1024 }
    }
}

impl Room {
    pub fn take(&mut self, values: usize, bytes: usize) -> Outcome<()> {
        match (self.values.checked_sub(values), self.bytes.checked_sub(bytes)) {
            (Some(values), Some(bytes)) => {
                *self = Self { values, bytes };
                Ok(())
            }
            _ => Err(Fault::Exhausted("the result is too large".to_owned())),
        }
    }

    /// A copy of a value.
    pub fn copy(&mut self, value: &Value) -> Outcome<Value> {
        Ok(match value {
            Value::Array(items) => {
                self.take(1, 0)?;
                Value::Array(items.iter().map(|item| self.copy(item)).collect::<Outcome<_>>()?)
            }
            Value::Object(fields) => {
                self.take(1, 0)?;
                let mut copied = Map::with_capacity(fields.len());
                for (name, field) in fields {
                    self.take(0, name.len())?;
                    copied.insert(name.clone(), self.copy(field)?);
                }
                Value::Object(copied)
            }
            Value::String(text) => {
                self.take(1, text.len())?;
                Value::String(text.clone())
            }
            Value::Number(number) => {
                self.take(1, number.as_str().len())?;
                Value::Number(number.clone())
            }
            Value::Null | Value::Bool(_) => {
                self.take(1, 0)?;
                value.clone()
            }
        })
    }

    /// A value as JSON: times and durations become text.
    pub(super) fn json(&mut self, value: &Val<'_>) -> Outcome<Value> {
        let scalar = match value {
            Val::Array(items) => {
                self.take(1, 0)?;
                return Ok(Value::Array(items.iter().map(|item| self.copy(item)).collect::<Outcome<_>>()?));
            }
            Val::Object(fields) => {
                self.take(1, 0)?;
                let mut copied = Map::with_capacity(fields.len());
                for (name, field) in *fields {
                    self.take(0, name.len())?;
                    copied.insert(name.clone(), self.copy(field)?);
                }
                return Ok(Value::Object(copied));
            }
            Val::List(items) => {
                self.take(1, 0)?;
                return Ok(Value::Array(items.iter().map(|item| self.json(item)).collect::<Outcome<_>>()?));
            }
            Val::Fields(fields) => {
                self.take(1, 0)?;
                let mut made = Map::with_capacity(fields.len());
                for (name, field) in fields.iter() {
                    self.take(0, name.as_str().len())?;
                    made.insert(name.as_str().to_owned(), self.json(field)?);
                }
                return Ok(Value::Object(made));
            }
            Val::Text(text) => {
                self.take(1, text.as_str().len())?;
                return Ok(Value::String(text.as_str().to_owned()));
            }
            Val::Null => Value::Null,
            Val::Bool(truth) => Value::Bool(*truth),
            Val::Int(value) => Value::from(*value),
            Val::Double(value) => Value::from(*value),
            Val::Number(number) => Value::Number((*number).clone()),
            Val::Time(time) => Value::String(time.to_string()),
            Val::Span(ms) => Value::String(span_text(*ms)?),
        };
        self.take(1, 0)?;
        Ok(scalar)
    }
}
