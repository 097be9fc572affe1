//! Tests of the language as a whole: the examples of its documentation, its mistakes and hints, its limits, and the
//! `cel` crate as an oracle.

use std::collections::BTreeSet;

use super::tree::{Literal, MacroKind, Node};
use super::*;
use crate::saga::json::{self, Limits};
use crate::saga::template::Template;

const DOCUMENTATION: &str = include_str!("../../../docs/expressions.md");

fn everywhere() -> Scope {
    Scope::new(&Variable::ALL)
}

fn parse(source: &str) -> Expression {
    Expression::parse(source, &everywhere()).unwrap_or_else(|error| panic!("{source}: {error:?}"))
}

fn mistake(source: &str) -> ExpressionError {
    Expression::parse(source, &everywhere()).expect_err(source)
}

fn read(text: &str) -> Value {
    json::parse(text.as_bytes(), &Limits::default()).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn blocks<'t>(kind: &str) -> Vec<&'t str> {
    let start = format!("```{kind}\n");
    DOCUMENTATION.split(&start).skip(1).map(|rest| rest.split("\n```").next().unwrap()).collect()
}

/// The values that the documentation's examples use.
struct Values(Value);

impl Values {
    fn documented() -> Self {
        Self(read(blocks("json")[0]))
    }

    fn env(&self) -> Env<'_> {
        let values = &self.0;
        Env {
            event: values.get("event"),
            data: values.get("data"),
            saga: values.get("saga"),
            now: values["now"].as_str().map(|text| Timestamp::parse(text).unwrap()),
            attempt: Some(2),
            reply: values.get("reply"),
            ..Env::default()
        }
    }
}

fn eval(source: &str) -> Result<Value, String> {
    parse(source).eval(&Values::documented().env()).map_err(|error| error.message)
}

/// A mistake found while parsing counts as one of evaluation.
fn outcome(source: &str, values: &Values) -> Result<Value, String> {
    let expression = Expression::parse(source, &everywhere()).map_err(|error| error.message)?;
    expression.eval(&values.env()).map_err(|error| error.message)
}

#[test]
fn the_documentation_says_what_expressions_give() {
    let values = Values::documented();
    let mut wrong = Vec::new();
    let mut count = 0;
    for line in blocks("examples").iter().flat_map(|block| block.lines()) {
        count += 1;
        let (found, expected) = match line.rsplit_once(" → ") {
            Some((source, expected)) => (outcome(source, &values), Ok(read(expected).to_string())),
            None => {
                let (source, message) = line.rsplit_once(" ✗ ").expect("every example says what comes of it");
                (outcome(source, &values), Err(message.to_owned()))
            }
        };
        let found = found.map(|value| value.to_string());
        if found != expected {
            wrong.push(format!("{line}\n    gives {found:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 100, "the examples were not found");
}

#[test]
fn the_documentation_says_what_templates_give() {
    let values = Values::documented();
    let mut count = 0;
    for line in blocks("templates").iter().flat_map(|block| block.lines()) {
        count += 1;
        let (source, expected) = line.rsplit_once(" → ").expect("every example says what comes of it");
        let template = Template::parse_text(source, &everywhere()).unwrap_or_else(|error| panic!("{line}: {error:?}"));
        assert_eq!(template.render(&values.env()).unwrap().to_string(), read(expected).to_string(), "{line}");
    }
    assert!(count > 5, "the examples were not found");
}

/// Functions, macros and operators that occur in a tree.
fn collect_names(node: &Node, names: &mut BTreeSet<String>) {
    let name = match node {
        Node::Has { .. } => "has".to_owned(),
        Node::Default { .. } => "default".to_owned(),
        Node::Call { function, .. } => function.name().to_owned(),
        Node::Matches { .. } => "matches".to_owned(),
        Node::Literal(Literal::Time(_)) => "timestamp".to_owned(),
        Node::Literal(Literal::Span(_)) => "duration".to_owned(),
        Node::Macro(inner) => format!("{:?}", inner.kind),
        Node::Binary { operator, .. } => format!("{operator:?}"),
        Node::Literal(_) => "literal".to_owned(),
        other => format!("{other:?}").split([' ', '(']).next().unwrap().to_owned(),
    };
    names.insert(name);
    for child in children(node) {
        collect_names(child, names);
    }
}

fn children(node: &Node) -> Vec<&Node> {
    match node {
        Node::Literal(_) | Node::Variable { .. } | Node::Local { .. } => Vec::new(),
        Node::Select { operand, .. } | Node::Has { operand, .. } => vec![operand],
        Node::Time(inner) | Node::Not(inner) | Node::Negate(inner) => vec![inner],
        Node::Index { operand, index } => vec![operand, index],
        Node::Default { value, otherwise } => vec![value, otherwise],
        Node::And(nodes) | Node::Or(nodes) | Node::List(nodes) => nodes.iter().collect(),
        Node::Binary { left, right, .. } => vec![left, right],
        Node::Conditional { condition, yes, no } => vec![condition, yes, no],
        Node::Map(entries) => entries.iter().flat_map(|(key, value)| [key, value]).collect(),
        Node::Call { arguments, .. } => arguments.iter().collect(),
        Node::Matches { text, .. } => vec![text],
        Node::Macro(inner) => [Some(&inner.over), inner.filter.as_ref(), Some(&inner.body)].into_iter().flatten().collect(),
    }
}

#[test]
fn every_operator_macro_and_function_has_an_example() {
    let mut used = BTreeSet::new();
    for line in blocks("examples").iter().flat_map(|block| block.lines()) {
        if let Some((source, _)) = line.rsplit_once(" → ") {
            collect_names(&parse(source).inner.root, &mut used);
        }
    }
    let mut missing: Vec<String> = functions::names()
        .map(|name| MacroKind::named(name).map_or(name.to_owned(), |kind| format!("{kind:?}")))
        .chain(
            [
                "Equal", "NotEqual", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "In", "Add", "Subtract",
                "Multiply", "Divide", "Remainder", "And", "Or", "Not", "Negate", "Conditional", "Select", "Index",
                "List", "Map", "Time",
            ]
            .map(str::to_owned),
        )
        .collect();
    missing.retain(|name| !used.contains(name));
    assert!(missing.is_empty(), "no example for {missing:?}");
}
