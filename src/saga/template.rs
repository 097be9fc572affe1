//! Templates: values with expressions in them.

use super::expression::{Env, EvalError, Expression, ExpressionError, Read, Scope};
use super::json::Value;

/// How a value is made.
#[derive(Clone, Debug)]
pub enum Template {
    /// As it is written.
    Literal(Value),
    /// `${ expr }` alone: the value with its type.
    Expression(Expression),
    /// `${ expr }` inside a longer text.
    Text(Vec<Piece>),
    List(Vec<Template>),
    Object(Vec<(String, Template)>),
    /// All of `data`.
    Data,
    /// `with: [user, group]`: an object of these fields of `data`.
    Fields(Vec<String>),
}

/// A part of a text.
#[derive(Clone, Debug)]
pub enum Piece {
    Text(String),
    Expression(Expression),
}

impl Template {
    pub fn parse_text(text: &str, _scope: &Scope) -> Result<Self, ExpressionError> {
        Ok(Self::Literal(Value::String(text.to_owned())))
    }

    pub fn render(&self, _env: &Env<'_>) -> Result<Value, EvalError> {
        Err(EvalError { message: "templates are not rendered yet".to_owned() })
    }

    /// The paths it reads.
    pub fn reads(&self) -> Vec<Vec<String>> {
        self.read_places().into_iter().map(|read| read.path).collect()
    }

    /// The same, with what is known about each; places count from the start of the text the expression stands in.
    pub fn read_places(&self) -> Vec<Read> {
        Vec::new()
    }
}
