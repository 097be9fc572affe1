//! From text to tree: CEL's grammar, with names, functions and numbers of arguments checked on the way.
//!
//! Only the first mistake is reported: what follows it is mostly its consequence.

use std::ops::Range;

use super::lexer::{Lexer, Token};
use super::scope::{FAILURE_FIELDS, Scope, closest};
use super::tree::{Literal, Node, Operator};
use super::{ExpressionError, Read};

/// Parsing and evaluation are recursive: this bounds the stack. Nobody reads an expression half as deep.
const DEPTH_LIMIT: usize = 64;

/// An expression longer than this belongs into a service.
const LENGTH_LIMIT: usize = 16 * 1024;

pub(super) type Parse<T> = Result<T, ExpressionError>;

/// A parsed expression, and where it ends.
pub(super) struct Parsed {
    pub root: Node,
    pub reads: Vec<Read>,
    /// Of the first token after it.
    pub next: Range<usize>,
    pub next_token: Token,
}

/// Parses one expression that begins at `from`; what comes after it is up to the caller.
pub(super) fn parse(text: &str, from: usize, scope: &Scope) -> Parse<Parsed> {
    let mut lexer = Lexer::new(text, from);
    let (token, at) = lexer.next()?;
    let mut parser = Parser {
        lexer,
        text,
        from,
        token,
        at,
        scope,
        locals: Vec::new(),
        reads: Vec::new(),
        tested: Vec::new(),
        nesting: 0,
    };
    let part = parser.expression()?;
    let mut reads = parser.reads;
    for read in &mut reads {
        read.guarded |= parser.tested.iter().any(|tested| read.path.starts_with(tested));
    }
    Ok(Parsed { root: part.node, reads, next: parser.at, next_token: parser.token })
}

/// A piece of the tree while it grows.
pub(super) struct Part {
    pub node: Node,
    /// Height of the tree, for the limit.
    pub depth: usize,
    pub at: Range<usize>,
    /// The entry in `reads` that a further field would extend.
    pub read: Option<usize>,
}

impl Part {
    /// A node above others of that height.
    pub fn new(node: Node, below: usize, at: Range<usize>) -> Parse<Self> {
        let depth = below + 1;
        if depth > DEPTH_LIMIT {
            return Err(too_deep(at));
        }
        Ok(Self { node, depth, at, read: None })
    }
}

pub(super) struct Parser<'s> {
    lexer: Lexer<'s>,
    pub(super) text: &'s str,
    from: usize,
    token: Token,
    at: Range<usize>,
    scope: &'s Scope,
    /// Names of the variables of enclosing macros, the outermost first.
    pub(super) locals: Vec<String>,
    pub(super) reads: Vec<Read>,
    /// What `has()` asks for.
    pub(super) tested: Vec<Vec<String>>,
    nesting: usize,
}

impl Parser<'_> {
    // --- Tokens

    /// The current token and its place; the next one becomes current.
    pub(super) fn advance(&mut self) -> Parse<(Token, Range<usize>)> {
        let (token, at) = self.lexer.next()?;
        if at.end - self.from > LENGTH_LIMIT {
            return Err(error(at, "the expression is too long", format!("at most {LENGTH_LIMIT} bytes")));
        }
        Ok((std::mem::replace(&mut self.token, token), std::mem::replace(&mut self.at, at)))
    }

    pub(super) fn is(&self, symbol: &str) -> bool {
        matches!(self.token, Token::Symbol(found) if found == symbol)
    }

    pub(super) fn take(&mut self, symbol: &str) -> Parse<bool> {
        let found = self.is(symbol);
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    pub(super) fn expect(&mut self, symbol: &str, why: &str) -> Parse<Range<usize>> {
        if !self.is(symbol) {
            return Err(self.unexpected(&format!("'{symbol}' {why}")));
        }
        self.advance().map(|(_, at)| at)
    }

    fn unexpected(&self, wanted: &str) -> ExpressionError {
        unexpected(self.text, &self.token, &self.at, wanted)
    }

    // --- Grammar, from what binds loosest

    pub(super) fn expression(&mut self) -> Parse<Part> {
        self.nesting += 1;
        if self.nesting > DEPTH_LIMIT {
            return Err(too_deep(self.at.clone()));
        }
        let condition = self.or()?;
        let part = if self.take("?")? {
            let yes = self.or()?;
            self.expect(":", "between the two values of '? :'")?;
            let no = self.expression()?;
            let below = condition.depth.max(yes.depth).max(no.depth);
            let at = condition.at.start..no.at.end;
            let node = Node::Conditional { condition: boxed(condition), yes: boxed(yes), no: boxed(no) };
            Part::new(node, below, at)?
        } else {
            condition
        };
        self.nesting -= 1;
        Ok(part)
    }

    fn or(&mut self) -> Parse<Part> {
        let first = self.and()?;
        self.chain(first, "||", Self::and, Node::Or)
    }

    fn and(&mut self) -> Parse<Part> {
        let first = self.binary(1)?;
        self.chain(first, "&&", |parser| parser.binary(1), Node::And)
    }

    /// `a && b && c` is one node, however long.
    fn chain(
        &mut self,
        first: Part,
        symbol: &str,
        next: fn(&mut Self) -> Parse<Part>,
        node: fn(Vec<Node>) -> Node,
    ) -> Parse<Part> {
        if !self.is(symbol) {
            return Ok(first);
        }
        let (mut below, mut at) = (first.depth, first.at);
        let mut nodes = vec![first.node];
        while self.take(symbol)? {
            let part = next(self)?;
            below = below.max(part.depth);
            at.end = part.at.end;
            nodes.push(part.node);
        }
        Part::new(node(nodes), below, at)
    }

    /// Comparisons, sums and products: left to right, the tighter first.
    fn binary(&mut self, loosest: u8) -> Parse<Part> {
        let mut left = self.unary()?;
        loop {
            let Token::Symbol(symbol) = self.token else { return Ok(left) };
            let Some((operator, binding)) = Operator::of(symbol).filter(|(_, binding)| *binding >= loosest) else {
                return Ok(left);
            };
            self.advance()?;
            let right = self.binary(binding + 1)?;
            let (below, at) = (left.depth.max(right.depth), left.at.start..right.at.end);
            left = Part::new(Node::Binary { operator, left: boxed(left), right: boxed(right) }, below, at)?;
        }
    }

    fn unary(&mut self) -> Parse<Part> {
        let mut prefixes = Vec::new();
        let first = loop {
            if self.is("!") {
                prefixes.push((Node::Not as fn(Box<Node>) -> Node, self.advance()?.1));
            } else if self.is("-") {
                let (_, at) = self.advance()?;
                // The lowest integer has no positive counterpart: sign and digits are read together.
                if let Token::Int(digits) = self.token {
                    let (_, digits_at) = self.advance()?;
                    break Some(integer(0i64.checked_sub_unsigned(digits), at.start..digits_at.end)?);
                }
                prefixes.push((Node::Negate as fn(Box<Node>) -> Node, at));
            } else {
                break None;
            }
        };
        let first = match first {
            Some(part) => part,
            None => self.primary()?,
        };
        let mut part = self.postfix(first)?;
        for (wrap, at) in prefixes.into_iter().rev() {
            let (below, at) = (part.depth, at.start..part.at.end);
            part = Part::new(wrap(boxed(part)), below, at)?;
        }
        Ok(part)
    }

    fn postfix(&mut self, mut part: Part) -> Parse<Part> {
        loop {
            if self.take(".")? {
                let (name, at) = self.field_name()?;
                part = if self.is("(") { self.method(part, &name, at)? } else { self.select(part, name, at)? };
            } else if self.take("[")? {
                let index = self.expression()?;
                let end = self.expect("]", "after the index")?.end;
                part = match index.node {
                    Node::Literal(Literal::Text(field)) => self.select(part, field, index.at.start..end)?,
                    node => {
                        let (below, at) = (part.depth.max(index.depth), part.at.start..end);
                        Part::new(Node::Index { operand: boxed(part), index: Box::new(node) }, below, at)?
                    }
                };
            } else {
                return Ok(part);
            }
        }
    }

    fn field_name(&mut self) -> Parse<(String, Range<usize>)> {
        match self.advance()? {
            (Token::Name(name), at) => Ok((name, at)),
            // A field may be called like a word of the language.
            (Token::Symbol(word @ ("in" | "true" | "false" | "null")), at) => Ok((word.to_owned(), at)),
            (token, at) => Err(unexpected(self.text, &token, &at, "the name of a field after '.'")),
        }
    }

    fn select(&mut self, operand: Part, field: String, field_at: Range<usize>) -> Parse<Part> {
        let read = operand.read;
        let mut time = false;
        if let Some(index) = read {
            let entry = &mut self.reads[index];
            entry.path.push(field.clone());
            entry.at.end = field_at.end;
            if let Node::Variable { variable, .. } = &operand.node {
                let known = variable.fields();
                check_field(known, variable.name(), &field, &field_at)?;
                time = variable.time_field() == Some(field.as_str());
            } else if entry.path.len() == 3 && entry.path[0] == "saga" && entry.path[1] == "failure" {
                check_field(Some(FAILURE_FIELDS), "saga.failure", &field, &field_at)?;
            }
        }
        let (below, at) = (operand.depth, operand.at.start..field_at.end);
        let node = Node::Select { operand: boxed(operand), field };
        let node = if time { Node::Time(Box::new(node)) } else { node };
        Ok(Part { read, ..Part::new(node, below, at)? })
    }

    fn primary(&mut self) -> Parse<Part> {
        let (token, at) = self.advance()?;
        let literal = match token {
            Token::Int(digits) => return integer(i64::try_from(digits).ok(), at),
            Token::Double(value) => Literal::of_double(value),
            Token::Text(text) => Literal::Text(text),
            Token::Symbol("true") => Literal::Bool(true),
            Token::Symbol("false") => Literal::Bool(false),
            Token::Symbol("null") => Literal::Null,
            Token::Name(name) => return if self.is("(") { self.function(&name, at) } else { self.name(name, at) },
            Token::Symbol("(") => {
                let inner = self.expression()?;
                let end = self.expect(")", "to close '('")?.end;
                return Ok(Part { at: at.start..end, read: None, ..inner });
            }
            Token::Symbol("[") => return self.list(at.start),
            Token::Symbol("{") => return self.map(at.start),
            token => return Err(unexpected(self.text, &token, &at, "a value")),
        };
        Part::new(Node::Literal(literal), 0, at)
    }

    fn name(&mut self, name: String, at: Range<usize>) -> Parse<Part> {
        if let Some(slot) = self.locals.iter().rposition(|local| *local == name) {
            return Part::new(Node::Local { slot, name }, 0, at);
        }
        let Some(variable) = self.scope.find(&name) else {
            let (message, hint) = self.scope.unknown(&name, &self.locals);
            let hint = self.hyphen_hint(&at).unwrap_or(hint);
            return Err(ExpressionError { at, message, hint });
        };
        let read = Some(self.reads.len());
        self.reads.push(Read { path: vec![name.clone()], guarded: false, at: at.clone() });
        Ok(Part { read, ..Part::new(Node::Variable { variable, name }, 0, at)? })
    }

    /// `event.order-id` is a difference; what was meant is told.
    fn hyphen_hint(&self, at: &Range<usize>) -> Option<String> {
        let before = self.text[..at.start].strip_suffix('-')?;
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let (operand, field) =
            before.rsplit_once('.').filter(|(_, field)| !field.is_empty() && field.chars().all(word))?;
        let operand = operand.rsplit(|c: char| !word(c) && c != '.').next().unwrap_or_default();
        let name = &self.text[at.clone()];
        Some(format!("for a field with a hyphen write {operand}[\"{field}-{name}\"]"))
    }

    fn list(&mut self, start: usize) -> Parse<Part> {
        let mut below = 0;
        let mut nodes = Vec::new();
        while !self.is("]") {
            let part = self.expression()?;
            below = below.max(part.depth);
            nodes.push(part.node);
            if !self.take(",")? {
                break;
            }
        }
        let end = self.expect("]", "to close '['")?.end;
        Part::new(Node::List(nodes), below, start..end)
    }

    fn map(&mut self, start: usize) -> Parse<Part> {
        let mut below = 0;
        let mut entries = Vec::new();
        while !self.is("}") {
            let key = self.expression()?;
            self.expect(":", "after a key of '{'")?;
            let value = self.expression()?;
            below = below.max(key.depth).max(value.depth);
            entries.push((key.node, value.node));
            if !self.take(",")? {
                break;
            }
        }
        let end = self.expect("}", "to close '{'")?.end;
        Part::new(Node::Map(entries), below, start..end)
    }
}

/// What is said of a token that does not belong where it stands.
pub(super) fn unexpected(text: &str, token: &Token, at: &Range<usize>, wanted: &str) -> ExpressionError {
    let (message, hint) = match token {
        Token::End if text.trim().is_empty() => ("the expression is empty".to_owned(), format!("write {wanted}")),
        Token::End => (format!("expected {wanted}, found the end"), "the expression is not complete".to_owned()),
        found => {
            let shown = &text[at.clone()];
            let hint = match (found, shown) {
                (Token::Name(_), "and") => "write && for 'and'",
                (Token::Name(_), "or") => "write || for 'or'",
                (Token::Name(_), "not") => "write ! for 'not'",
                (Token::Name(_), "is") => "write == for 'is'",
                (Token::Name(_) | Token::Text(_), _) => "join texts with +; a text stands in quotes",
                (Token::Int(_) | Token::Double(_), _) => "an operator is missing before it",
                (_, ")" | "]" | "}") => "the brackets do not match",
                _ => "take it out, or write what is missing before it",
            };
            (format!("expected {wanted}, found '{shown}'"), hint.to_owned())
        }
    };
    ExpressionError { at: at.clone(), message, hint }
}

fn check_field(known: Option<&[&str]>, of: &str, field: &str, at: &Range<usize>) -> Parse<()> {
    let Some(known) = known.filter(|known| !known.contains(&field)) else { return Ok(()) };
    let there = format!("{of} has: {}", known.join(", "));
    let hint = match closest(field, known.iter().copied()) {
        Some(near) => format!("did you mean '{near}'? {there}"),
        None => there,
    };
    Err(error(at.clone(), format!("unknown field '{field}' of {of}"), hint))
}

fn too_deep(at: Range<usize>) -> ExpressionError {
    error(at, "the expression is nested too deeply", format!("at most {DEPTH_LIMIT} operations inside one another"))
}

fn integer(value: Option<i64>, at: Range<usize>) -> Parse<Part> {
    match value {
        Some(value) => Part::new(Node::Literal(Literal::Int(value)), 0, at),
        None => {
            Err(error(at, "the number leaves 64 bits", "numbers go from -9223372036854775808 to 9223372036854775807"))
        }
    }
}

pub(super) fn boxed(part: Part) -> Box<Node> {
    Box::new(part.node)
}

pub(super) fn error(at: Range<usize>, message: impl Into<String>, hint: impl Into<String>) -> ExpressionError {
    ExpressionError { at, message: message.into(), hint: hint.into() }
}
