//! From text to tree: CEL's grammar, with names, functions and numbers of arguments checked on the way.
//!
//! Only the first mistake is reported: what follows it is mostly its consequence.

use std::ops::Range;

use super::functions::{self, Function};
use super::lexer::{Lexer, Token};
use super::scope::{FAILURE_FIELDS, Scope, closest};
use super::tree::{Literal, Macro, MacroKind, Node, Operator};
use super::{ExpressionError, Read, Span};
use crate::saga::time::Timestamp;

/// Parsing and evaluation are recursive: this bounds the stack. Nobody reads an expression half as deep.
const DEPTH_LIMIT: usize = 64;

/// An expression longer than this belongs into a service.
const LENGTH_LIMIT: usize = 16 * 1024;

type Parse<T> = Result<T, ExpressionError>;

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
    let mut parser = Parser { lexer, text, from, token, at, scope, locals: Vec::new(), reads: Vec::new(), tested: Vec::new(), nesting: 0 };
    let part = parser.expression()?;
    let mut reads = parser.reads;
    for read in &mut reads {
        read.guarded |= parser.tested.iter().any(|tested| read.path.starts_with(tested));
    }
    Ok(Parsed { root: part.node, reads, next: parser.at, next_token: parser.token })
}

/// A piece of the tree while it grows.
struct Part {
    node: Node,
    /// Height of the tree, for the limit.
    depth: usize,
    at: Range<usize>,
    /// The entry in `reads` that a further field would extend.
    read: Option<usize>,
}

struct Parser<'s> {
    lexer: Lexer<'s>,
    text: &'s str,
    from: usize,
    token: Token,
    at: Range<usize>,
    scope: &'s Scope,
    /// Names of the variables of enclosing macros, the outermost first.
    locals: Vec<String>,
    reads: Vec<Read>,
    /// What `has()` asks for.
    tested: Vec<Vec<String>>,
    nesting: usize,
}

impl Parser<'_> {
    // --- Tokens

    /// The current token and its place; the next one becomes current.
    fn advance(&mut self) -> Parse<(Token, Range<usize>)> {
        let (token, at) = self.lexer.next()?;
        if at.end - self.from > LENGTH_LIMIT {
            return Err(error(at, "the expression is too long", format!("at most {LENGTH_LIMIT} bytes")));
        }
        Ok((std::mem::replace(&mut self.token, token), std::mem::replace(&mut self.at, at)))
    }

    fn is(&self, symbol: &str) -> bool {
        matches!(self.token, Token::Symbol(found) if found == symbol)
    }

    fn take(&mut self, symbol: &str) -> Parse<bool> {
        let found = self.is(symbol);
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    fn expect(&mut self, symbol: &str, why: &str) -> Parse<Range<usize>> {
        if !self.is(symbol) {
            return Err(self.unexpected(&format!("'{symbol}' {why}")));
        }
        self.advance().map(|(_, at)| at)
    }

    fn unexpected(&self, wanted: &str) -> ExpressionError {
        unexpected(self.text, &self.token, &self.at, wanted)
    }

    fn part(&self, node: Node, below: usize, at: Range<usize>) -> Parse<Part> {
        let depth = below + 1;
        if depth > DEPTH_LIMIT {
            return Err(self.too_deep(at));
        }
        Ok(Part { node, depth, at, read: None })
    }

    fn too_deep(&self, at: Range<usize>) -> ExpressionError {
        error(at, "the expression is nested too deeply", format!("at most {DEPTH_LIMIT} operations inside one another"))
    }

    // --- Grammar, from what binds loosest

    fn expression(&mut self) -> Parse<Part> {
        self.nesting += 1;
        if self.nesting > DEPTH_LIMIT {
            return Err(self.too_deep(self.at.clone()));
        }
        let condition = self.or()?;
        let part = if self.take("?")? {
            let yes = self.or()?;
            self.expect(":", "between the two values of '? :'")?;
            let no = self.expression()?;
            let below = condition.depth.max(yes.depth).max(no.depth);
            let at = condition.at.start..no.at.end;
            let node = Node::Conditional { condition: boxed(condition), yes: boxed(yes), no: boxed(no) };
            self.part(node, below, at)?
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
    fn chain(&mut self, first: Part, symbol: &str, next: fn(&mut Self) -> Parse<Part>, node: fn(Vec<Node>) -> Node) -> Parse<Part> {
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
        self.part(node(nodes), below, at)
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
            left = self.part(Node::Binary { operator, left: boxed(left), right: boxed(right) }, below, at)?;
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
                    break Some(self.integer(0i64.checked_sub_unsigned(digits), at.start..digits_at.end)?);
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
            part = self.part(wrap(boxed(part)), below, at)?;
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
                        self.part(Node::Index { operand: boxed(part), index: Box::new(node) }, below, at)?
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
        Ok(Part { read, ..self.part(node, below, at)? })
    }

    fn primary(&mut self) -> Parse<Part> {
        let (token, at) = self.advance()?;
        let literal = match token {
            Token::Int(digits) => return self.integer(i64::try_from(digits).ok(), at),
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
        self.part(Node::Literal(literal), 0, at)
    }

    fn integer(&self, value: Option<i64>, at: Range<usize>) -> Parse<Part> {
        match value {
            Some(value) => self.part(Node::Literal(Literal::Int(value)), 0, at),
            None => Err(error(at, "the number leaves 64 bits", "numbers go from -9223372036854775808 to 9223372036854775807")),
        }
    }

    fn name(&mut self, name: String, at: Range<usize>) -> Parse<Part> {
        if let Some(slot) = self.locals.iter().rposition(|local| *local == name) {
            return self.part(Node::Local { slot, name }, 0, at);
        }
        let Some(variable) = self.scope.find(&name) else {
            let (message, hint) = self.scope.unknown(&name, &self.locals);
            let hint = self.hyphen_hint(&at).unwrap_or(hint);
            return Err(ExpressionError { at, message, hint });
        };
        let read = Some(self.reads.len());
        self.reads.push(Read { path: vec![name.clone()], guarded: false, at: at.clone() });
        Ok(Part { read, ..self.part(Node::Variable { variable, name }, 0, at)? })
    }

    /// `event.order-id` is a difference; what was meant is told.
    fn hyphen_hint(&self, at: &Range<usize>) -> Option<String> {
        let before = self.text[..at.start].strip_suffix('-')?;
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let (operand, field) = before.rsplit_once('.').filter(|(_, field)| !field.is_empty() && field.chars().all(word))?;
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
        self.part(Node::List(nodes), below, start..end)
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
        self.part(Node::Map(entries), below, start..end)
    }

    // --- Calls

    fn function(&mut self, name: &str, at: Range<usize>) -> Parse<Part> {
        match name {
            "has" => return self.has(at),
            "default" => return self.default(at),
            _ => {}
        }
        let Some(function) = Function::named(name) else { return Err(unknown_function(name, at)) };
        if function.is_method_only() {
            return Err(error(at, format!("'{name}' belongs behind what it is about"), format!("write {}", function.usage())));
        }
        let (arguments, end) = self.arguments()?;
        self.call(function, arguments, &at, at.start..end)
    }

    fn method(&mut self, receiver: Part, name: &str, at: Range<usize>) -> Parse<Part> {
        if let Some(kind) = MacroKind::named(name) {
            return self.comprehension(receiver, kind, &at);
        }
        let Some(function) = Function::named(name) else {
            if functions::is_name(name) {
                return Err(error(at, format!("'{name}' is not written behind a value"), format!("write {}", functions::usage(name))));
            }
            return Err(unknown_function(name, at));
        };
        if function.is_function_only() {
            return Err(error(at, format!("'{name}' is not written behind a value"), format!("write {}", function.usage())));
        }
        let start = receiver.at.start;
        let (rest, end) = self.arguments()?;
        let mut arguments = vec![receiver];
        arguments.extend(rest);
        self.call(function, arguments, &at, start..end)
    }

    fn arguments(&mut self) -> Parse<(Vec<Part>, usize)> {
        self.expect("(", "before the arguments")?;
        let mut parts = Vec::new();
        while !self.is(")") {
            parts.push(self.expression()?);
            if !self.take(",")? {
                break;
            }
        }
        let end = self.expect(")", "after the arguments")?.end;
        Ok((parts, end))
    }

    fn call(&mut self, function: Function, arguments: Vec<Part>, name_at: &Range<usize>, at: Range<usize>) -> Parse<Part> {
        if !function.takes().contains(&arguments.len()) {
            return Err(error(
                name_at.clone(),
                format!("'{}' has the wrong number of arguments", function.name()),
                format!("write {}", function.usage()),
            ));
        }
        let below = arguments.iter().map(|part| part.depth).max().unwrap_or(0);
        if let Some(folded) = constant_argument(function, &arguments)? {
            return self.part(folded.with_text(arguments), below, at);
        }
        let arguments = arguments.into_iter().map(|part| part.node).collect();
        self.part(Node::Call { function, arguments }, below, at)
    }

    fn has(&mut self, at: Range<usize>) -> Parse<Part> {
        let (mut arguments, end) = self.arguments()?;
        let usage = || format!("write {}", functions::usage("has"));
        let Some(part) = arguments.pop().filter(|_| arguments.is_empty()) else {
            return Err(error(at, "'has' has the wrong number of arguments", usage()));
        };
        let node = match part.node {
            Node::Time(inner) => *inner,
            other => other,
        };
        let Node::Select { operand, field } = node else {
            return Err(error(part.at, "'has' asks for a field", usage()));
        };
        if let Some(read) = part.read {
            self.reads[read].guarded = true;
            self.tested.push(self.reads[read].path.clone());
        }
        self.part(Node::Has { operand, field }, part.depth, at.start..end)
    }

    fn default(&mut self, at: Range<usize>) -> Parse<Part> {
        self.expect("(", "before the arguments")?;
        let usage = || format!("write {}", functions::usage("default"));
        if self.is(")") {
            return Err(error(at, "'default' has the wrong number of arguments", usage()));
        }
        let reads_before = self.reads.len();
        let value = self.expression()?;
        for read in &mut self.reads[reads_before..] {
            read.guarded = true;
        }
        if !self.take(",")? || self.is(")") {
            return Err(error(at, "'default' has the wrong number of arguments", usage()));
        }
        let otherwise = self.expression()?;
        if self.take(",")? && !self.is(")") {
            return Err(error(at, "'default' has the wrong number of arguments", usage()));
        }
        let end = self.expect(")", "after the arguments")?.end;
        let below = value.depth.max(otherwise.depth);
        self.part(Node::Default { value: boxed(value), otherwise: boxed(otherwise) }, below, at.start..end)
    }

    /// `list.all(x, condition)` and its kin: `x` exists in the rest of the parentheses.
    fn comprehension(&mut self, over: Part, kind: MacroKind, name_at: &Range<usize>) -> Parse<Part> {
        let name = &self.text[name_at.clone()];
        let wrong = |at: Range<usize>| error(at, format!("'{name}' has the wrong arguments"), format!("write {}", functions::usage(name)));
        self.expect("(", "before the arguments")?;
        let (token, at) = self.advance()?;
        let Token::Name(variable) = token else { return Err(wrong(at)) };
        if !self.take(",")? || self.is(")") {
            return Err(wrong(at));
        }
        let slot = self.locals.len();
        self.locals.push(variable);
        let first = self.expression()?;
        let mut second = None;
        if self.take(",")? && !self.is(")") {
            if kind != MacroKind::Map {
                return Err(wrong(self.at.clone()));
            }
            second = Some(self.expression()?);
            self.take(",")?;
        }
        let end = self.expect(")", "after the arguments")?.end;
        self.locals.pop();
        let below = second.as_ref().map_or(0, |part| part.depth).max(first.depth).max(over.depth);
        let (filter, body) = match second {
            Some(second) => (Some(first.node), second.node),
            None => (None, first.node),
        };
        let node = Node::Macro(Box::new(Macro { kind, over: over.node, slot, filter, body }));
        self.part(node, below, over.at.start..end)
    }
}

/// A call that can be decided while parsing.
enum Folded {
    Literal(Literal),
    Matches(super::tree::Pattern),
}

impl Folded {
    fn with_text(self, arguments: Vec<Part>) -> Node {
        match self {
            Self::Literal(literal) => Node::Literal(literal),
            Self::Matches(pattern) => {
                let text = arguments.into_iter().next().expect("matches has two arguments");
                Node::Matches { text: boxed(text), pattern }
            }
        }
    }
}

/// Durations, times and patterns that stand in the expression are read while parsing, and refused there.
fn constant_argument(function: Function, arguments: &[Part]) -> Parse<Option<Folded>> {
    let constant = |index: usize| match &arguments[index] {
        Part { node: Node::Literal(Literal::Text(text)), at, .. } => Some((text, at.clone())),
        _ => None,
    };
    match function {
        Function::Duration => {
            let Some((text, at)) = constant(0) else { return Ok(None) };
            let span = Span::parse(text).map_err(|wrong| error(at.clone(), wrong.message, wrong.hint))?;
            let ms = i64::try_from(span.as_ms()).map_err(|_| error(at, "the duration is too long", "write a shorter one"))?;
            Ok(Some(Folded::Literal(Literal::Span(ms))))
        }
        Function::Timestamp => {
            let Some((text, at)) = constant(0) else { return Ok(None) };
            let time = Timestamp::parse(text)
                .map_err(|_| error(at, format!("'{text}' is not a time"), "write it as 2030-01-31T12:00:00Z"))?;
            Ok(Some(Folded::Literal(Literal::Time(time))))
        }
        Function::Matches => {
            let Some((text, at)) = constant(1) else { return Ok(None) };
            match functions::constant_pattern(text) {
                Ok(pattern) => Ok(Some(Folded::Matches(pattern))),
                Err(reason) => Err(error(at, "the pattern is not a regular expression", reason)),
            }
        }
        _ => Ok(None),
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

fn unknown_function(name: &str, at: Range<usize>) -> ExpressionError {
    let hint = match closest(name, functions::names()) {
        Some(near) => format!("did you mean '{near}'? write {}", functions::usage(near)),
        None => format!("there are: {}", functions::names().collect::<Vec<_>>().join(", ")),
    };
    error(at, format!("unknown function '{name}'"), hint)
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

fn boxed(part: Part) -> Box<Node> {
    Box::new(part.node)
}

fn error(at: Range<usize>, message: impl Into<String>, hint: impl Into<String>) -> ExpressionError {
    ExpressionError { at, message: message.into(), hint: hint.into() }
}
