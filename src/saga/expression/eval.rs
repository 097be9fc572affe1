//! Evaluation: a walk over the tree and borrowed JSON, with a limit on work.

use std::rc::Rc;

use super::tree::{Literal, Macro, MacroKind, Node};
use super::value::{Fault, Outcome, Text, Val, failed};
use super::{Env, Variable, arithmetic, functions};
use crate::saga::time::Timestamp;

/// Steps of one evaluation. A step is a node of the tree or an element of a list; a thousand take some ten
/// microseconds, so that no expression holds up the others for long.
const STEPS: usize = 100_000;

/// So many bytes of text cost a step.
const BYTES_PER_STEP: usize = 32;

/// One evaluation: the values of the names, and what work is left.
pub(super) struct Work<'a> {
    env: &'a Env<'a>,
    /// Elements that the enclosing macros are at.
    locals: Vec<Val<'a>>,
    steps_left: usize,
}

impl<'a> Work<'a> {
    pub fn new(env: &'a Env<'a>) -> Self {
        Self { env, locals: Vec::new(), steps_left: STEPS }
    }

    pub fn charge(&mut self, steps: usize) -> Outcome<()> {
        let left = self.steps_left.checked_sub(steps);
        self.steps_left = left.unwrap_or(0);
        match left {
            Some(_) => Ok(()),
            None => Err(Fault::Exhausted(format!("the expression takes more than {STEPS} steps"))),
        }
    }

    pub fn charge_bytes(&mut self, bytes: usize) -> Outcome<()> {
        self.charge(bytes / BYTES_PER_STEP)
    }

    /// A field of an object; looking for it in one that the expression made takes as long as that has fields.
    pub fn field(&mut self, object: &Val<'a>, name: &str) -> Outcome<Option<Val<'a>>> {
        if let Val::Fields(fields) = object {
            self.charge(fields.len())?;
        }
        self.charge_bytes(name.len())?;
        Ok(object.field(name))
    }

    pub fn eval(&mut self, node: &'a Node) -> Outcome<Val<'a>> {
        self.charge(1)?;
        match node {
            Node::Literal(literal) => Ok(Val::of_literal(literal)),
            Node::Variable { variable, .. } => Ok(self.variable(*variable)),
            Node::Local { slot, .. } => Ok(self.locals[*slot].clone()),
            Node::Select { operand, field } => self.select(operand, field),
            Node::Binary { operator, left, right } => {
                let left = self.eval(left)?;
                let right = self.eval(right)?;
                arithmetic::apply(self, *operator, &left, &right)
            }
            Node::And(nodes) => self.decide(nodes, false, "&&"),
            Node::Or(nodes) => self.decide(nodes, true, "||"),
            Node::Not(inner) => match self.eval(inner)? {
                Val::Bool(truth) => Ok(Val::Bool(!truth)),
                other => failed(format!("'!' needs true or false, not {}", other.described())),
            },
            Node::Negate(inner) => {
                let value = self.eval(inner)?;
                arithmetic::negate(&value)
            }
            Node::Conditional { condition, yes, no } => match self.eval(condition)? {
                Val::Bool(true) => self.eval(yes),
                Val::Bool(false) => self.eval(no),
                other => failed(format!("the condition before '?' is {}, not true or false", other.described())),
            },
            Node::Index { operand, index } => self.index(operand, index),
            Node::Time(inner) => Ok(match self.eval(inner)? {
                Val::Text(text) => Timestamp::parse(text.as_str()).map_or(Val::Text(text), Val::Time),
                other => other,
            }),
            Node::Has { operand, field } => self.has(operand, field),
            Node::Default { value, otherwise } => match self.eval(value) {
                Err(Fault::Missing(_)) => self.eval(otherwise),
                other => other,
            },
            Node::List(nodes) => {
                let items: Vec<Val<'a>> = nodes.iter().map(|node| self.eval(node)).collect::<Outcome<_>>()?;
                Ok(Val::list(items))
            }
            Node::Map(entries) => self.object(entries),
            Node::Call { function, arguments } => {
                let arguments: Vec<Val<'a>> = arguments.iter().map(|node| self.eval(node)).collect::<Outcome<_>>()?;
                functions::call(self, *function, &arguments)
            }
            Node::Matches { text, pattern } => {
                let text = self.eval(text)?;
                functions::matches(self, &text, pattern).map(Val::Bool)
            }
            Node::Macro(inner) => self.comprehension(inner),
        }
    }

    fn variable(&self, variable: Variable) -> Val<'a> {
        let json = match variable {
            Variable::Event => self.env.event,
            Variable::Message => self.env.message,
            Variable::Data => self.env.data,
            Variable::Saga => self.env.saga,
            Variable::Item => self.env.item,
            Variable::Choice => self.env.choice,
            Variable::Reply => self.env.reply,
            Variable::Now => return self.env.now.map_or(Val::Null, Val::Time),
            Variable::Attempt => return self.env.attempt.map_or(Val::Null, |number| Val::Int(i64::from(number))),
            Variable::ReplyType => {
                return self.env.reply_type.map_or(Val::Null, |name| Val::Text(Text::Borrowed(name)));
            }
        };
        json.map_or(Val::Null, Val::of_json)
    }

    fn select(&mut self, operand: &'a Node, field: &str) -> Outcome<Val<'a>> {
        let value = self.eval(operand)?;
        match self.field(&value, field)? {
            Some(found) => Ok(found),
            None => Err(missing_field(operand, &value, field)),
        }
    }

    fn index(&mut self, operand: &'a Node, index: &'a Node) -> Outcome<Val<'a>> {
        let value = self.eval(operand)?;
        let index = self.eval(index)?;
        if value.is_object() {
            let Some(name) = index.field_name() else {
                return failed(format!("a field has a text or an integer as its name, not {}", index.described()));
            };
            return match self.field(&value, &name)? {
                Some(found) => Ok(found),
                None => Err(missing_field(operand, &value, &name)),
            };
        }
        let Some(items) = value.sequence() else {
            let what = operand.path().unwrap_or_else(|| "the value".to_owned());
            return Err(Fault::Missing(format!("{what} is {}: it has no elements", value.described())));
        };
        match index.num()? {
            Some(super::value::Num::Int(number)) => {
                usize::try_from(number).ok().and_then(|position| items.get(position)).ok_or_else(|| {
                    let what = operand.path().unwrap_or_else(|| "the list".to_owned());
                    Fault::Missing(format!("no element {number} in {what}, which has {}", items.len()))
                })
            }
            _ => failed(format!("a list has integers as its index, not {}", index.described())),
        }
    }

    /// Whether there is such a field; where there is nothing that could have it, there is not.
    fn has(&mut self, operand: &'a Node, field: &str) -> Outcome<Val<'a>> {
        match self.eval(operand) {
            Ok(value) => Ok(Val::Bool(self.field(&value, field)?.is_some())),
            Err(Fault::Missing(_)) => Ok(Val::Bool(false)),
            Err(other) => Err(other),
        }
    }

    /// `&&` and `||`: one side may decide what the other cannot say.
    fn decide(&mut self, nodes: &'a [Node], deciding: bool, operator: &str) -> Outcome<Val<'a>> {
        let mut undecided = None;
        for node in nodes {
            match self.truth(node, |found| format!("'{operator}' needs true or false, not {found}")) {
                Ok(truth) if truth == deciding => return Ok(Val::Bool(deciding)),
                Ok(_) => {}
                Err(Fault::Exhausted(message)) => return Err(Fault::Exhausted(message)),
                Err(fault) => undecided = undecided.or(Some(fault)),
            }
        }
        undecided.map_or(Ok(Val::Bool(!deciding)), Err)
    }

    fn truth(&mut self, node: &'a Node, message: impl Fn(&str) -> String) -> Outcome<bool> {
        match self.eval(node)? {
            Val::Bool(truth) => Ok(truth),
            other => failed(message(&other.described())),
        }
    }

    fn object(&mut self, entries: &'a [(Node, Node)]) -> Outcome<Val<'a>> {
        let mut fields: Vec<(Text<'a>, Val<'a>)> = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            let name = match self.eval(key)? {
                Val::Text(text) => text,
                other => match other.field_name() {
                    Some(name) => Text::Made(name.as_ref().into()),
                    None => {
                        return failed(format!(
                            "a field has a text or an integer as its name, not {}",
                            other.described()
                        ));
                    }
                },
            };
            self.charge(fields.len())?;
            if fields.iter().any(|(known, _)| known.as_str() == name.as_str()) {
                return failed(format!("the field '{}' is there twice", name.as_str()));
            }
            fields.push((name, self.eval(value)?));
        }
        Ok(Val::Fields(Rc::new(fields)))
    }

    fn comprehension(&mut self, inner: &'a Macro) -> Outcome<Val<'a>> {
        let over = self.eval(&inner.over)?;
        if over.is_object() {
            // All keys are listed first.
            self.charge(over.len().unwrap_or(0))?;
        }
        let Some(items) = over.sequence() else {
            let what = inner.over.path().unwrap_or_else(|| "the value".to_owned());
            return failed(format!("{what} is {}, not a list", over.described()));
        };
        self.locals.truncate(inner.slot);
        self.locals.push(Val::Null);
        let result = match inner.kind {
            MacroKind::All => self.quantify(inner, items.iter(), false),
            MacroKind::Exists => self.quantify(inner, items.iter(), true),
            MacroKind::ExistsOne => self.count(inner, items.iter()).map(|found| Val::Bool(found == 1)),
            MacroKind::Map | MacroKind::Filter => self.collect(inner, items.iter()),
        };
        self.locals.truncate(inner.slot);
        result
    }

    /// `all` and `exists`: one element may decide, even if another cannot say.
    fn quantify(&mut self, inner: &'a Macro, items: impl Iterator<Item = Val<'a>>, deciding: bool) -> Outcome<Val<'a>> {
        let mut undecided = None;
        for item in items {
            match self.condition(inner, &inner.body, item) {
                Ok(truth) if truth == deciding => return Ok(Val::Bool(deciding)),
                Ok(_) => {}
                Err(Fault::Exhausted(message)) => return Err(Fault::Exhausted(message)),
                Err(fault) => undecided = undecided.or(Some(fault)),
            }
        }
        undecided.map_or(Ok(Val::Bool(!deciding)), Err)
    }

    fn count(&mut self, inner: &'a Macro, items: impl Iterator<Item = Val<'a>>) -> Outcome<usize> {
        let mut found = 0;
        for item in items {
            found += usize::from(self.condition(inner, &inner.body, item)?);
        }
        Ok(found)
    }

    fn collect(&mut self, inner: &'a Macro, items: impl Iterator<Item = Val<'a>>) -> Outcome<Val<'a>> {
        let mut out = Vec::new();
        for item in items {
            if inner.kind == MacroKind::Filter {
                if self.condition(inner, &inner.body, item.clone())? {
                    out.push(item);
                }
                continue;
            }
            if let Some(filter) = &inner.filter
                && !self.condition(inner, filter, item.clone())?
            {
                continue;
            }
            self.locals[inner.slot] = item;
            out.push(self.eval(&inner.body)?);
        }
        Ok(Val::list(out))
    }

    fn condition(&mut self, inner: &'a Macro, condition: &'a Node, item: Val<'a>) -> Outcome<bool> {
        self.charge(1)?;
        self.locals[inner.slot] = item;
        self.truth(condition, |found| format!("the condition for each element is {found}, not true or false"))
    }
}

fn missing_field(operand: &Node, value: &Val<'_>, field: &str) -> Fault {
    let what = operand.path();
    let message = match (what, value.is_object()) {
        (Some(what), true) => format!("no field '{field}' in {what}"),
        (Some(what), false) => format!("no field '{field}' in {what}, which is {}", value.described()),
        (None, _) => format!("no field '{field}' in {}", value.described()),
    };
    Fault::Missing(message)
}

/// A constant stands for itself, with its digits.
pub(super) fn constant(value: crate::saga::json::Value) -> Node {
    Node::Literal(Literal::Json(value))
}
