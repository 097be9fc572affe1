//! Expressions: CEL, parsed and checked once, evaluated over borrowed JSON with a limit on work.

pub mod functions;
mod scope;

use std::ops::Range;

use super::json::Value;
use super::time::Timestamp;

pub use scope::{Scope, Variable, closest};

/// What is wrong with an expression as it is written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ExpressionError {
    /// Byte offsets in the text that was parsed.
    pub at: Range<usize>,
    pub message: String,
    pub hint: String,
}

/// Why an expression has no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct EvalError {
    pub message: String,
}

/// The values of the variables. One that the scope allows and that is `None` here reads as null.
#[derive(Default, Clone)]
pub struct Env<'a> {
    pub event: Option<&'a Value>,
    pub message: Option<&'a Value>,
    pub data: Option<&'a Value>,
    pub saga: Option<&'a Value>,
    pub now: Option<Timestamp>,
    /// Bound under the name that the expression's scope gives the element.
    pub item: Option<&'a Value>,
    pub attempt: Option<u32>,
    pub choice: Option<&'a Value>,
    pub reply: Option<&'a Value>,
    pub reply_type: Option<&'a str>,
}

/// A field that an expression reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// The variable and the names of fields, as far as they are known before evaluation.
    pub path: Vec<String>,
    /// `has()` or `default()` takes care of its absence.
    pub guarded: bool,
    /// Byte offsets in the text that was parsed.
    pub at: Range<usize>,
}

/// An expression that was checked.
#[derive(Clone, Debug)]
pub struct Expression {
    source: String,
}

impl Expression {
    pub fn parse(source: &str, _scope: &Scope) -> Result<Self, ExpressionError> {
        Ok(Self { source: source.to_owned() })
    }

    /// A scalar of YAML, such as `true` or `5`.
    pub fn constant(value: Value) -> Self {
        Self { source: value.to_string() }
    }

    pub fn source(&self) -> &str {
        &self.source
    }

    pub fn eval(&self, _env: &Env<'_>) -> Result<Value, EvalError> {
        Err(EvalError { message: "expressions are not evaluated yet".to_owned() })
    }

    pub fn holds(&self, env: &Env<'_>) -> Result<bool, EvalError> {
        self.eval(env).map(|value| value == Value::Bool(true))
    }

    /// The paths it reads.
    pub fn reads(&self) -> Vec<Vec<String>> {
        self.read_places().iter().map(|read| read.path.clone()).collect()
    }

    /// The same, with what is known about each.
    pub fn read_places(&self) -> &[Read] {
        &[]
    }
}
