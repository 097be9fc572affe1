//! Random expressions: none makes the parser or the evaluation panic, and where the `cel` crate has a value too, it
//! is the same.

use proptest::prelude::*;
use serde_json::{Map, json};

use super::*;
use crate::saga::json;

/// Where expressions mean the same here and in CEL: integers divide evenly only here, so that a quotient is made of a
/// product.
fn number(depth: u32) -> BoxedStrategy<String> {
    let leaf = prop_oneof![
        (-9i64..10).prop_map(|n| if n < 0 { format!("({n})") } else { n.to_string() }),
        (-9i64..10).prop_map(|n| format!("({n}.5)")),
        Just("9223372036854775807".to_owned()),
        Just("x".to_owned()),
        Just("m.a".to_owned()),
        Just("m.none".to_owned()),
    ];
    if depth == 0 {
        return leaf.boxed();
    }
    let inner = || number(depth - 1);
    prop_oneof![
        2 => leaf,
        1 => (inner(), prop_oneof![Just("+"), Just("-"), Just("*")], inner()).prop_map(|(a, o, b)| format!("({a} {o} {b})")),
        1 => (inner(), 1i64..5).prop_map(|(a, b)| format!("({a} * {b} / {b})")),
        1 => (inner(), -5i64..5).prop_map(|(a, b)| format!("({a} % ({b}))")),
        1 => (condition(depth - 1), inner(), inner()).prop_map(|(c, a, b)| format!("({c} ? {a} : {b})")),
        1 => text(depth - 1).prop_map(|t| format!("size({t})")),
        1 => list(depth - 1).prop_map(|l| format!("{l}.size()")),
        1 => (list(depth - 1), 0i64..3).prop_map(|(l, i)| format!("{l}[{i}]")),
        1 => inner().prop_map(|a| format!("-{a}")),
        1 => inner().prop_map(|a| format!("int({a})")),
        1 => inner().prop_map(|a| format!("int(string({a}))")),
        // A large integer is exact here and rounded there.
        1 => (-9i64..10).prop_map(|n| format!("double({n})")),
    ]
    .boxed()
}

fn text(depth: u32) -> BoxedStrategy<String> {
    let leaf = prop_oneof![
        "[abé]{0,3}".prop_map(|text| format!("{text:?}")),
        Just("r'\\n'".to_owned()),
        Just("'\\u00e9\\x41\\n'".to_owned()),
        Just("m.s".to_owned()),
    ];
    if depth == 0 {
        return leaf.boxed();
    }
    let inner = || text(depth - 1);
    prop_oneof![
        2 => leaf,
        1 => (inner(), inner()).prop_map(|(a, b)| format!("({a} + {b})")),
        1 => (condition(depth - 1), inner(), inner()).prop_map(|(c, a, b)| format!("({c} ? {a} : {b})")),
        1 => (-9i64..10).prop_map(|n| format!("string({n})")),
    ]
    .boxed()
}

fn list(depth: u32) -> BoxedStrategy<String> {
    let leaf = prop_oneof![Just("[]".to_owned()), Just("m.l".to_owned()), Just("[1, 2, 3]".to_owned())];
    if depth == 0 {
        return leaf.boxed();
    }
    let inner = || list(depth - 1);
    prop_oneof![
        1 => leaf,
        2 => prop::collection::vec(number(depth - 1), 0..3).prop_map(|items| format!("[{}]", items.join(", "))),
        1 => (inner(), inner()).prop_map(|(a, b)| format!("({a} + {b})")),
        1 => (inner(), number(depth - 1)).prop_map(|(l, n)| format!("{l}.map(x, {n})")),
        1 => (inner(), condition(depth - 1)).prop_map(|(l, c)| format!("{l}.filter(x, {c})")),
        1 => (inner(), condition(depth - 1), number(depth - 1)).prop_map(|(l, c, n)| format!("{l}.map(x, {c}, {n})")),
    ]
    .boxed()
}

fn condition(depth: u32) -> BoxedStrategy<String> {
    let leaf = prop_oneof![
        Just("true".to_owned()),
        Just("false".to_owned()),
        Just("m.b".to_owned()),
        Just("has(m.a)".to_owned()),
        Just("has(m.none)".to_owned())
    ];
    if depth == 0 {
        return leaf.boxed();
    }
    let inner = || condition(depth - 1);
    let order = || prop_oneof![Just("=="), Just("!="), Just("<"), Just("<="), Just(">"), Just(">=")];
    prop_oneof![
        1 => leaf,
        3 => (number(depth - 1), order(), number(depth - 1)).prop_map(|(a, o, b)| format!("({a} {o} {b})")),
        1 => (text(depth - 1), order(), text(depth - 1)).prop_map(|(a, o, b)| format!("({a} {o} {b})")),
        1 => (list(depth - 1), list(depth - 1)).prop_map(|(a, b)| format!("({a} == {b})")),
        1 => (inner(), inner()).prop_map(|(a, b)| format!("({a} && {b})")),
        1 => (inner(), inner(), inner()).prop_map(|(a, b, c)| format!("({a} || {b} || {c})")),
        1 => inner().prop_map(|a| format!("!{a}")),
        1 => (number(depth - 1), list(depth - 1)).prop_map(|(a, l)| format!("({a} in {l})")),
        1 => (list(depth - 1), prop_oneof![Just("all"), Just("exists"), Just("exists_one")], inner())
            .prop_map(|(l, m, c)| format!("{l}.{m}(x, {c})")),
        1 => (text(depth - 1), prop_oneof![Just("contains"), Just("startsWith"), Just("endsWith")], text(depth - 1))
            .prop_map(|(a, m, b)| format!("{a}.{m}({b})")),
        1 => text(depth - 1).prop_map(|t| format!("{t}.matches('^[a-b]+$')")),
        1 => (number(depth - 1), text(depth - 1)).prop_map(|(a, b)| format!("({a} == {b})")),
        1 => text(depth - 1).prop_map(|t| format!("({t} in m)")),
    ]
    .boxed()
}

fn any_expression() -> BoxedStrategy<String> {
    prop_oneof![number(3), text(2), list(2), condition(3)].boxed()
}

fn data() -> Value {
    json!({"a": 7, "b": true, "s": "ab", "l": [1, 2.5, 7]})
}

/// The same names for both: `m` and `x`.
fn ours(source: &str) -> Result<Value, String> {
    let (data, item) = (data(), json!(3));
    // The element of `each` is the one variable that can be called anything; `m` is a macro's.
    let whole = format!("[data].map(m, {source})[0]");
    let scope = Scope::new(&[Variable::Data]).with_item("x");
    let env = Env { data: Some(&data), item: Some(&item), ..Env::default() };
    let expression = Expression::parse(&whole, &scope).map_err(|error| format!("{error:?}"))?;
    expression.eval(&env).map_err(|error| error.message)
}

fn theirs(source: &str) -> Option<Value> {
    let mut context = cel::Context::default();
    let fields: std::collections::HashMap<String, cel::Value> = [
        ("a".to_owned(), cel::Value::Int(7)),
        ("b".to_owned(), cel::Value::Bool(true)),
        ("s".to_owned(), cel::Value::String(std::sync::Arc::new("ab".to_owned()))),
        (
            "l".to_owned(),
            cel::Value::List(std::sync::Arc::new(vec![cel::Value::Int(1), cel::Value::Float(2.5), cel::Value::Int(7)])),
        ),
    ]
    .into();
    context.add_variable_from_value("m", fields);
    context.add_variable_from_value("x", cel::Value::Int(3));
    from_cel(&cel::Program::compile(source).ok()?.execute(&context).ok()?)
}

fn from_cel(value: &cel::Value) -> Option<Value> {
    Some(match value {
        cel::Value::Null => Value::Null,
        cel::Value::Bool(truth) => json!(truth),
        cel::Value::Int(value) => json!(value),
        cel::Value::UInt(value) => json!(value),
        cel::Value::Float(value) if value.is_finite() => json!(value),
        cel::Value::String(text) => json!(text.as_str()),
        cel::Value::List(items) => Value::Array(items.iter().map(from_cel).collect::<Option<_>>()?),
        cel::Value::Map(map) => {
            let mut fields = Map::new();
            for (key, value) in map.map.iter() {
                fields.insert(key.to_string(), from_cel(value)?);
            }
            Value::Object(fields)
        }
        _ => return None,
    })
}

#[test]
fn random_expressions_have_the_value_that_the_cel_crate_gives() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut compared = 0;
    // A strategy is a tree of all it could do: made once.
    let expressions = any_expression();
    for _ in 0..2_000 {
        use proptest::strategy::ValueTree;
        let source = expressions.new_tree(&mut runner).unwrap().current();
        let Some(theirs) = theirs(&source) else { continue };
        let ours = ours(&source).unwrap_or_else(|error| panic!("{source}\n  ours   {error}\n  theirs {theirs}"));
        assert!(json::equal(&ours, &theirs), "{source}\n  ours   {ours}\n  theirs {theirs}");
        compared += 1;
    }
    assert!(compared > 1_000, "{compared}");
}

proptest! {
    #[test]
    fn any_expression_has_a_value_or_says_why_not(source in any_expression()) {
        if let Err(error) = ours(&source) {
            prop_assert!(!error.is_empty());
        }
    }

    #[test]
    fn any_text_is_parsed_or_refused_at_a_place_in_it(source in "([-+*/%!<>=&|?:.,()\\[\\]{}\"'\\\\ ]|data|event|[0-9]|x|in|null|map\\(x,|has\\(|size|r|é|\n){0,20}") {
        let scope = Scope::new(&Variable::ALL);
        match Expression::parse(&source, &scope) {
            Ok(expression) => drop(expression.eval(&Env::default())),
            Err(error) => {
                prop_assert!(source.get(error.at.clone()).is_some(), "{:?}", error);
                prop_assert!(!error.message.is_empty() && !error.hint.is_empty());
            }
        }
    }

    #[test]
    fn any_characters_are_parsed_or_refused(source in "\\PC{0,40}") {
        drop(Expression::parse(&source, &Scope::new(&Variable::ALL)));
    }
}
