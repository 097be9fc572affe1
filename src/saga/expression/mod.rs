//! Expressions: CEL, parsed and checked once, evaluated over borrowed JSON with a limit on work.
//!
//! `lexer` and `parse` make a `tree` and refuse what names something unknown; `eval` walks over it. Evaluation is
//! pure: it reads nothing but its [`Env`], and it always ends. What the language has is in `docs/expressions.md`,
//! whose examples are run as tests.

mod arithmetic;
mod calls;
mod eval;
mod functions;
mod lexer;
mod parse;
mod room;
mod scope;
mod tree;
mod value;

use std::ops::Range;
use std::sync::Arc;

use super::duration::Span;
use super::json::Value;
use super::time::Timestamp;
use lexer::Token;
use tree::Node;
use value::{Fault, Val};

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;

pub(super) use room::Room;
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
#[derive(Debug, Default, Clone)]
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
    /// `has()` or `default()` in the same expression takes care of its absence.
    pub guarded: bool,
    /// Byte offsets in the text that was parsed.
    pub at: Range<usize>,
}

/// An expression that was checked. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Expression {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    source: String,
    root: Node,
    reads: Vec<Read>,
}

impl Expression {
    pub fn parse(source: &str, scope: &Scope) -> Result<Self, ExpressionError> {
        let parsed = parse::parse(source, 0, scope)?;
        if parsed.next_token != Token::End {
            return Err(parse::unexpected(source, &parsed.next_token, &parsed.next, "the end of the expression"));
        }
        Ok(Self::new(source.trim(), parsed.root, parsed.reads))
    }

    /// Parses the expression of a `${ … }` whose first byte is at `from`. Gives it and the offset behind the `}`,
    /// which is found by the grammar: the expression may hold braces and texts.
    pub(super) fn parse_braced(text: &str, from: usize, scope: &Scope) -> Result<(Self, usize), ExpressionError> {
        let start = from + "${".len();
        let braces = |message: &str, hint: &str| ExpressionError {
            at: from..start,
            message: message.to_owned(),
            hint: hint.to_owned(),
        };
        if text[start..].trim_start().starts_with('}') {
            return Err(braces(
                "there is no expression in '${}'",
                "write what is meant between the braces, or $${} for the text",
            ));
        }
        if text[start..].trim().is_empty() {
            return Err(braces("'${' is not closed", "write } at its end, or $${ for the text"));
        }
        let parsed = parse::parse(text, start, scope)?;
        match parsed.next_token {
            Token::Symbol("}") => {
                let source = text[start..parsed.next.start].trim();
                Ok((Self::new(source, parsed.root, parsed.reads), parsed.next.end))
            }
            Token::End => Err(braces("'${' is not closed", "write } at its end, or $${ for the text")),
            other => Err(parse::unexpected(text, &other, &parsed.next, "'}' at the end of '${'")),
        }
    }

    /// A scalar of YAML, such as `true` or `5`.
    pub fn constant(value: Value) -> Self {
        let source = value.to_string();
        Self::new(&source, eval::constant(value), Vec::new())
    }

    fn new(source: &str, root: Node, reads: Vec<Read>) -> Self {
        Self { inner: Arc::new(Inner { source: source.to_owned(), root, reads }) }
    }

    pub fn source(&self) -> &str {
        &self.inner.source
    }

    pub fn eval(&self, env: &Env<'_>) -> Result<Value, EvalError> {
        self.eval_into(env, &mut Room::default())
    }

    /// Whether it holds; anything but true or false is an error.
    pub fn holds(&self, env: &Env<'_>) -> Result<bool, EvalError> {
        match self.value(env)? {
            Val::Bool(truth) => Ok(truth),
            other => Err(EvalError { message: format!("the condition is {}, not true or false", other.described()) }),
        }
    }

    /// The value as JSON, within what room is left.
    pub(super) fn eval_into(&self, env: &Env<'_>, room: &mut Room) -> Result<Value, EvalError> {
        Ok(room.json(&self.value(env)?)?)
    }

    /// The paths it reads.
    pub fn reads(&self) -> Vec<Vec<String>> {
        self.inner.reads.iter().map(|read| read.path.clone()).collect()
    }

    /// Whether it reads this variable.
    pub fn mentions(&self, variable: &str) -> bool {
        self.inner.reads.iter().any(|read| read.path.first().is_some_and(|name| name == variable))
    }

    /// The same, with what is known about each.
    pub fn read_places(&self) -> &[Read] {
        &self.inner.reads
    }

    /// The value of an expression that is the same wherever it is evaluated, if it is written as such.
    pub fn as_constant(&self) -> Option<Value> {
        match &self.inner.root {
            Node::Literal(literal) => Room::default().json(&Val::of_literal(literal)).ok(),
            _ => None,
        }
    }

    fn value<'a>(&'a self, env: &'a Env<'a>) -> Result<Val<'a>, EvalError> {
        Ok(eval::Work::new(env).eval(&self.inner.root)?)
    }
}

impl From<Fault> for EvalError {
    fn from(fault: Fault) -> Self {
        let (Fault::Missing(message) | Fault::Failed(message) | Fault::Exhausted(message)) = fault;
        Self { message }
    }
}
