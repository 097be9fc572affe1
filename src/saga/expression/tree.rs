//! An expression, parsed: what evaluation walks over. Names are resolved, constants are read.

use regex::Regex;

use super::functions::Function;
use super::scope::Variable;
use crate::saga::json::Value;
use crate::saga::time::Timestamp;

#[derive(Clone, Debug)]
pub(super) enum Node {
    Literal(Literal),
    Variable {
        variable: Variable,
        name: String,
    },
    /// The variable of an enclosing macro; slots count from the outermost macro.
    Local {
        slot: usize,
        name: String,
    },
    Select {
        operand: Box<Node>,
        field: String,
    },
    Index {
        operand: Box<Node>,
        index: Box<Node>,
    },
    /// A field that stands in JSON as text and is a time by the contract (`saga.started_at`).
    Time(Box<Node>),
    Has {
        operand: Box<Node>,
        field: String,
    },
    Default {
        value: Box<Node>,
        otherwise: Box<Node>,
    },
    Not(Box<Node>),
    Negate(Box<Node>),
    And(Vec<Node>),
    Or(Vec<Node>),
    Binary {
        operator: Operator,
        left: Box<Node>,
        right: Box<Node>,
    },
    Conditional {
        condition: Box<Node>,
        yes: Box<Node>,
        no: Box<Node>,
    },
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
    Call {
        function: Function,
        arguments: Vec<Node>,
    },
    /// `matches` with a constant pattern.
    Matches {
        text: Box<Node>,
        pattern: Pattern,
    },
    Macro(Box<Macro>),
}

#[derive(Clone, Debug)]
pub(super) enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    /// Always with a fraction: one without is an integer.
    Double(f64),
    Text(String),
    Time(Timestamp),
    /// Milliseconds; the difference of two times may be negative.
    Span(i64),
    Json(Value),
}

/// A compiled regular expression, and what a text of some length costs with it.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    pub regex: Regex,
    /// Its cost for each byte of text, as a multiple of reading it.
    pub weight: usize,
}

#[derive(Clone, Debug)]
pub(super) struct Macro {
    pub kind: MacroKind,
    pub over: Node,
    /// Where the element is while the rest is evaluated.
    pub slot: usize,
    /// `map(x, condition, value)` only.
    pub filter: Option<Node>,
    pub body: Node,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MacroKind {
    All,
    Exists,
    ExistsOne,
    Map,
    Filter,
}

impl MacroKind {
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "all" => Self::All,
            "exists" => Self::Exists,
            "exists_one" => Self::ExistsOne,
            "map" => Self::Map,
            "filter" => Self::Filter,
            _ => return None,
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

impl Operator {
    /// The operator a token is, and how tightly it binds.
    pub fn of(token: &str) -> Option<(Self, u8)> {
        Some(match token {
            "==" => (Self::Equal, 1),
            "!=" => (Self::NotEqual, 1),
            "<" => (Self::Less, 1),
            "<=" => (Self::LessOrEqual, 1),
            ">" => (Self::Greater, 1),
            ">=" => (Self::GreaterOrEqual, 1),
            "in" => (Self::In, 1),
            "+" => (Self::Add, 2),
            "-" => (Self::Subtract, 2),
            "*" => (Self::Multiply, 3),
            "/" => (Self::Divide, 3),
            "%" => (Self::Remainder, 3),
            _ => return None,
        })
    }
}

impl Node {
    /// How messages call it, if it is a name or a field.
    pub fn path(&self) -> Option<String> {
        match self {
            Self::Variable { name, .. } | Self::Local { name, .. } => Some(name.clone()),
            Self::Select { operand, field } => operand.path().map(|path| format!("{path}.{field}")),
            Self::Index { operand, index } => {
                let index = match &**index {
                    Self::Literal(Literal::Int(n)) => n.to_string(),
                    Self::Literal(Literal::Text(text)) => format!("{text:?}"),
                    other => other.path()?,
                };
                operand.path().map(|path| format!("{path}[{index}]"))
            }
            Self::Time(inner) => inner.path(),
            _ => None,
        }
    }
}

impl Literal {
    /// A decimal without fraction is an integer. `value` is within 64 bits.
    pub fn of_double(value: f64) -> Self {
        match super::value::whole(value) {
            Some(integer) => Self::Int(integer),
            None => Self::Double(value),
        }
    }
}
