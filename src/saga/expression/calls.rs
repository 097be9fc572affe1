//! Calls: functions, methods, macros, and what can be decided of them while parsing.

use std::ops::Range;

use super::functions::{self, Function};
use super::lexer::Token;
use super::parse::{Parse, Parser, Part, boxed, error};
use super::scope::closest;
use super::tree::{Literal, Macro, MacroKind, Node, Pattern};
use super::{ExpressionError, Span};
use crate::saga::time::Timestamp;

impl Parser<'_> {
    pub(super) fn function(&mut self, name: &str, at: Range<usize>) -> Parse<Part> {
        match name {
            "has" => return self.has(at),
            "default" => return self.default(at),
            _ => {}
        }
        let Some(function) = Function::named(name) else { return Err(unknown_function(name, at)) };
        if function.is_method_only() {
            return Err(error(
                at,
                format!("'{name}' belongs behind what it is about"),
                format!("write {}", function.usage()),
            ));
        }
        let (arguments, end) = self.arguments()?;
        call(function, arguments, &at, at.start..end)
    }

    pub(super) fn method(&mut self, receiver: Part, name: &str, at: Range<usize>) -> Parse<Part> {
        if let Some(kind) = MacroKind::named(name) {
            return self.comprehension(receiver, kind, &at);
        }
        let Some(function) = Function::named(name) else {
            if functions::is_name(name) {
                return Err(error(
                    at,
                    format!("'{name}' is not written behind a value"),
                    format!("write {}", functions::usage(name)),
                ));
            }
            return Err(unknown_function(name, at));
        };
        if function.is_function_only() {
            return Err(error(
                at,
                format!("'{name}' is not written behind a value"),
                format!("write {}", function.usage()),
            ));
        }
        let start = receiver.at.start;
        let (rest, end) = self.arguments()?;
        let mut arguments = vec![receiver];
        arguments.extend(rest);
        call(function, arguments, &at, start..end)
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
        Part::new(Node::Has { operand, field }, part.depth, at.start..end)
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
        Part::new(Node::Default { value: boxed(value), otherwise: boxed(otherwise) }, below, at.start..end)
    }

    /// `list.all(x, condition)` and its kin: `x` exists in the rest of the parentheses.
    fn comprehension(&mut self, over: Part, kind: MacroKind, name_at: &Range<usize>) -> Parse<Part> {
        let name = &self.text[name_at.clone()];
        let wrong = || {
            error(
                name_at.clone(),
                format!("'{name}' has the wrong arguments"),
                format!("write {}", functions::usage(name)),
            )
        };
        self.expect("(", "before the arguments")?;
        let Token::Name(variable) = self.advance()?.0 else { return Err(wrong()) };
        if !self.take(",")? || self.is(")") {
            return Err(wrong());
        }
        let slot = self.locals.len();
        self.locals.push(variable);
        let first = self.expression()?;
        let mut second = None;
        if self.take(",")? && !self.is(")") {
            if kind != MacroKind::Map {
                return Err(wrong());
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
        Part::new(node, below, over.at.start..end)
    }
}

/// A call with its arguments counted.
fn call(function: Function, arguments: Vec<Part>, name_at: &Range<usize>, at: Range<usize>) -> Parse<Part> {
    if !function.takes().contains(&arguments.len()) {
        return Err(error(
            name_at.clone(),
            format!("'{}' has the wrong number of arguments", function.name()),
            format!("write {}", function.usage()),
        ));
    }
    let below = arguments.iter().map(|part| part.depth).max().unwrap_or(0);
    if let Some(folded) = constant_argument(function, &arguments)? {
        return Part::new(folded.with_text(arguments), below, at);
    }
    let arguments = arguments.into_iter().map(|part| part.node).collect();
    Part::new(Node::Call { function, arguments }, below, at)
}

/// A call that can be decided while parsing.
enum Folded {
    Literal(Literal),
    Matches(Pattern),
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
            let ms = i64::try_from(span.as_ms())
                .map_err(|_| error(at, "the duration is too long", "write a shorter one"))?;
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

fn unknown_function(name: &str, at: Range<usize>) -> ExpressionError {
    let hint = match closest(name, functions::names()) {
        Some(near) => format!("did you mean '{near}'? write {}", functions::usage(near)),
        None => format!("there are: {}", functions::names().collect::<Vec<_>>().join(", ")),
    };
    error(at, format!("unknown function '{name}'"), hint)
}
