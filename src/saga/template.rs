//! Templates: values with expressions in them.
//!
//! A string that is exactly `${ expr }` becomes the value with its type; inside a longer string `${ expr }` becomes
//! text; `$${` is a literal `${`; anything else stays as it is written.

use serde_json::Map;

use super::expression::{Env, EvalError, Expression, ExpressionError, Read, Room, Scope};
use super::json::{self, Value};

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
    /// Reads one string. Places in errors count from the string's start.
    pub fn parse_text(text: &str, scope: &Scope) -> Result<Self, ExpressionError> {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut at = 0;
        while let Some(found) = text[at..].find('$') {
            let dollar = at + found;
            plain.push_str(&text[at..dollar]);
            let rest = &text[dollar..];
            if rest.starts_with("$${") {
                plain.push_str("${");
                at = dollar + "$${".len();
            } else if rest.starts_with("${") {
                let (expression, end) = Expression::parse_braced(text, dollar, scope)?;
                if dollar == 0 && end == text.len() {
                    return Ok(Self::Expression(expression));
                }
                if !plain.is_empty() {
                    pieces.push(Piece::Text(std::mem::take(&mut plain)));
                }
                pieces.push(Piece::Expression(expression));
                at = end;
            } else {
                plain.push('$');
                at = dollar + 1;
            }
        }
        plain.push_str(&text[at..]);
        if pieces.is_empty() {
            return Ok(Self::Literal(Value::String(plain)));
        }
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        Ok(Self::Text(pieces))
    }

    pub fn render(&self, env: &Env<'_>) -> Result<Value, EvalError> {
        self.render_into(env, &mut Room::default())
    }

    fn render_into(&self, env: &Env<'_>, room: &mut Room) -> Result<Value, EvalError> {
        match self {
            Self::Literal(value) => Ok(room.copy(value)?),
            Self::Expression(expression) => expression.eval_into(env, room),
            Self::Text(pieces) => {
                let mut out = String::new();
                for piece in pieces {
                    match piece {
                        Piece::Text(text) => out.push_str(text),
                        Piece::Expression(expression) => out.push_str(&json::text(&expression.eval_into(env, room)?)),
                    }
                }
                Ok(Value::String(out))
            }
            Self::List(items) => {
                Ok(Value::Array(items.iter().map(|item| item.render_into(env, room)).collect::<Result<_, _>>()?))
            }
            Self::Object(fields) => {
                let mut out = Map::with_capacity(fields.len());
                for (name, field) in fields {
                    out.insert(name.clone(), field.render_into(env, room)?);
                }
                Ok(Value::Object(out))
            }
            Self::Data => Ok(room.copy(env.data.unwrap_or(&Value::Null))?),
            Self::Fields(names) => {
                let mut out = Map::with_capacity(names.len());
                for name in names {
                    let field = env.data.and_then(|data| data.get(name));
                    let field = field.ok_or_else(|| EvalError { message: format!("no field '{name}' in data") })?;
                    out.insert(name.clone(), room.copy(field)?);
                }
                Ok(Value::Object(out))
            }
        }
    }

    /// The paths it reads.
    pub fn reads(&self) -> Vec<Vec<String>> {
        self.read_places().into_iter().map(|read| read.path).collect()
    }

    /// The same, with what is known about each. Places count from the start of the string that the expression stands
    /// in; `Data` and `Fields` have none.
    pub fn read_places(&self) -> Vec<Read> {
        let of_data = |field: Option<&String>| Read {
            path: std::iter::once("data".to_owned()).chain(field.cloned()).collect(),
            guarded: false,
            at: 0..0,
        };
        match self {
            Self::Literal(_) => Vec::new(),
            Self::Expression(expression) => expression.read_places().to_vec(),
            Self::Text(pieces) => pieces
                .iter()
                .filter_map(|piece| match piece {
                    Piece::Text(_) => None,
                    Piece::Expression(expression) => Some(expression.read_places()),
                })
                .flatten()
                .cloned()
                .collect(),
            Self::List(items) => items.iter().flat_map(Self::read_places).collect(),
            Self::Object(fields) => fields.iter().flat_map(|(_, field)| field.read_places()).collect(),
            Self::Data => vec![of_data(None)],
            Self::Fields(names) => names.iter().map(|name| of_data(Some(name))).collect(),
        }
    }
}
