//! Tests of the language as a whole: the examples of its documentation, its mistakes and hints, its limits, and the
//! `cel` crate as an oracle.

use std::collections::BTreeSet;

use serde_json::json;

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
        let (found, expected) = if let Some((source, expected)) = line.rsplit_once(" → ") {
            (outcome(source, &values), Ok(read(expected).to_string()))
        } else {
            let (source, message) = line.rsplit_once(" ✗ ").expect("every example says what comes of it");
            (outcome(source, &values), Err(message.to_owned()))
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
        Node::Macro(inner) => {
            [Some(&inner.over), inner.filter.as_ref(), Some(&inner.body)].into_iter().flatten().collect()
        }
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
                "Equal",
                "NotEqual",
                "Less",
                "LessOrEqual",
                "Greater",
                "GreaterOrEqual",
                "In",
                "Add",
                "Subtract",
                "Multiply",
                "Divide",
                "Remainder",
                "And",
                "Or",
                "Not",
                "Negate",
                "Conditional",
                "Select",
                "Index",
                "List",
                "Map",
                "Time",
            ]
            .map(str::to_owned),
        )
        .collect();
    missing.retain(|name| !used.contains(name));
    assert!(missing.is_empty(), "no example for {missing:?}");
}

// --- Mistakes found while parsing

#[test]
fn a_mistake_has_its_place_its_reason_and_a_hint() {
    let table = [
        // source, what is marked, message, part of the hint
        ("dta.limit > 1", "dta", "unknown name 'dta'", "did you mean 'data'?"),
        ("event.amount > limit", "limit", "unknown name 'limit'", "here there are: event, message, data"),
        ("event.order-id == 1", "id", "unknown name 'id'", "write event[\"order-id\"]"),
        ("size", "size", "unknown name 'size'", "write size(x) or x.size()"),
        ("not data.x", "not", "unknown name 'not'", "write ! for 'not'"),
        ("True", "True", "unknown name 'True'", "write true"),
        ("saga.kye", "kye", "unknown field 'kye' of saga", "did you mean 'key'?"),
        ("saga.failure.resaon", "resaon", "unknown field 'resaon' of saga.failure", "did you mean 'reason'?"),
        ("message[\"body\"]", "\"body\"]", "unknown field 'body' of message", "message has: id, type"),
        ("sizes(data.x)", "sizes", "unknown function 'sizes'", "did you mean 'size'?"),
        ("data.x.foo()", "foo", "unknown function 'foo'", "there are: has, default"),
        ("contains(data.x, \"a\")", "contains", "'contains' belongs behind what it is about", "text.contains("),
        ("data.x.int()", "int", "'int' is not written behind a value", "write int(x)"),
        ("data.x.has()", "has", "'has' is not written behind a value", "write has(data.field)"),
        ("size()", "size", "'size' has the wrong number of arguments", "write size(x)"),
        ("data.x.contains()", "contains", "'contains' has the wrong number of arguments", "text.contains("),
        ("default(data.x)", "default", "'default' has the wrong number of arguments", "default(data.field, 0)"),
        ("default(data.x, 1, 2)", "default", "'default' has the wrong number of arguments", "default(data.field, 0)"),
        ("default()", "default", "'default' has the wrong number of arguments", "default(data.field, 0)"),
        ("has(data)", "data", "'has' asks for a field", "write has(data.field)"),
        ("has()", "has", "'has' has the wrong number of arguments", "write has(data.field)"),
        ("data.l.all(x)", "all", "'all' has the wrong arguments", "list.all(x, x > 0)"),
        ("data.l.map(1, x)", "map", "'map' has the wrong arguments", "list.map(x, x + 1)"),
        ("data.l.filter(x, x, x)", "filter", "'filter' has the wrong arguments", "list.filter(x, x > 0)"),
        ("all(data.l, x)", "all", "unknown function 'all'", "list.all(x, x > 0)"),
        ("duration(\"1:30\")", "\"1:30\"", "'1:30' is not a duration", "write 1h30m or 1m30s"),
        ("timestamp(\"today\")", "\"today\"", "'today' is not a time", "2030-01-31T12:00:00Z"),
        ("data.x.matches(\"(\")", "\"(\"", "the pattern is not a regular expression", "unclosed group"),
        ("data.x.matches(r\"\\pL{9999}\")", "r\"\\pL{9999}\"", "the pattern is not a regular expression", "too large"),
        ("data.x = 1", "=", "unexpected '='", "write =="),
        ("data.x === 1", "=", "unexpected '='", "write =="),
        ("data.x & true", "&", "unexpected '&'", "write &&"),
        ("data.x and true", "and", "expected the end of the expression, found 'and'", "write &&"),
        ("data.x is 1", "is", "expected the end of the expression, found 'is'", "write =="),
        ("${data.x}", "$", "unexpected '$'", "without ${ }"),
        ("data.x == “a”", "“", "unexpected '“'", "straight quotes"),
        ("30s", "30s", "'30s' is no number", "duration(\"30s\")"),
        ("5u", "5u", "numbers have no suffix", "write 5"),
        ("9223372036854775808", "9223372036854775808", "the number leaves 64 bits", "9223372036854775807"),
        ("1e19", "1e19", "the number leaves 64 bits", "9223372036854775807"),
        ("\"abc", "\"abc", "the text has no end", "close it with \""),
        ("\"\\q\"", "\\q", "unknown escape '\\q'", "raw text"),
        ("b\"abc\"", "b", "there are no bytes here", "without the prefix"),
        ("", "", "the expression is empty", "write a value"),
        ("1 +", "", "expected a value, found the end", "not complete"),
        ("(1 + 2", "", "expected ')' to close '(', found the end", "not complete"),
        ("[1, 2", "", "expected ']' to close '[', found the end", "not complete"),
        ("1 + 2)", ")", "expected the end of the expression, found ')'", "brackets"),
        ("data.x ? 1", "", "expected ':' between the two values of '? :', found the end", "not complete"),
        ("data..x", ".", "expected the name of a field after '.', found '.'", "missing before it"),
        ("data.x \"a\"", "\"a\"", "expected the end of the expression, found '\"a\"'", "join texts with +"),
        ("1 2", "2", "expected the end of the expression, found '2'", "operator is missing"),
    ];
    for (source, marked, message, hint) in table {
        let found = mistake(source);
        assert_eq!(found.message, message, "{source}");
        assert_eq!(&source[found.at.clone()], marked, "{source}");
        assert!(found.hint.contains(hint), "{source}: {}", found.hint);
    }
}

#[test]
fn a_name_that_exists_elsewhere_is_told_apart_from_one_that_exists_nowhere() {
    let scope = Scope::new(&[Variable::Data, Variable::Saga, Variable::Now]).with_item("program");
    let found = Expression::parse("event.x == 1", &scope).unwrap_err();
    assert_eq!(found.message, "'event' does not exist here");
    assert_eq!(found.hint, "here there are: data, saga, now, program");
    let found = Expression::parse("item.x", &scope).unwrap_err();
    assert_eq!(found.message, "'item' does not exist here");
    let found = Expression::parse("data.l.all(line, lin.x)", &scope).unwrap_err();
    assert!(found.hint.starts_with("did you mean 'line'? here there are: line, data"), "{}", found.hint);
    assert!(Expression::parse("program.x == data.x", &scope).is_ok());
    assert_eq!(
        Expression::parse("x", &Scope::new(&[])).unwrap_err().hint,
        "no names exist here, only constants; a text stands in quotes"
    );
}

#[test]
fn an_expression_knows_what_it_reads() {
    let expression =
        parse("data.user.name == event[\"who\"] && data.lines.all(l, l.x > saga.failure.state) && data[event.k]");
    let reads = expression.reads();
    let joined: Vec<String> = reads.iter().map(|path| path.join(".")).collect();
    assert_eq!(joined, ["data.user.name", "event.who", "data.lines", "saga.failure.state", "data", "event.k"]);
    let places: Vec<&str> = expression.read_places().iter().map(|read| &expression.source()[read.at.clone()]).collect();
    assert_eq!(places, ["data.user.name", "event[\"who\"]", "data.lines", "saga.failure.state", "data", "event.k"]);
}

#[test]
fn what_has_and_default_ask_for_is_guarded() {
    let guarded = |source: &str| -> Vec<(String, bool)> {
        parse(source).read_places().iter().map(|read| (read.path.join("."), read.guarded)).collect()
    };
    let pair = |path: &str, guarded| (path.to_owned(), guarded);
    assert_eq!(guarded("default(data.x, data.y)"), [pair("data.x", true), pair("data.y", false)]);
    assert_eq!(
        guarded("has(data.x) && data.x.a > data.z"),
        [pair("data.x", true), pair("data.x.a", true), pair("data.z", false)]
    );
    assert_eq!(guarded("data.x > 1 || !has(data.xy)"), [pair("data.x", false), pair("data.xy", true)]);
    assert_eq!(guarded("has(saga.started_at)"), [pair("saga.started_at", true)]);
}

// --- Evaluation

#[test]
fn one_side_decides_though_the_other_fails() {
    for (source, expected) in [
        ("event.none && false", Ok(json!(false))),
        ("true || event.none", Ok(json!(true))),
        ("event.none || event.other || true", Ok(json!(true))),
        ("1 && false", Ok(json!(false))),
        ("event.none && true", Err("no field 'none' in event")),
        ("false || event.none", Err("no field 'none' in event")),
        ("event.none && event.other", Err("no field 'none' in event")),
        ("[1, 2].all(x, x > 1 && event.none)", Ok(json!(false))),
        ("[1, 2].exists(x, x == 2 || event.none)", Ok(json!(true))),
        ("[1, 2].all(x, x == 1 || event.none)", Err("no field 'none' in event")),
        ("[1, 2].exists_one(x, x == 2 || event.none)", Err("no field 'none' in event")),
    ] {
        assert_eq!(eval(source), expected.map_err(str::to_owned), "{source}");
    }
}

#[test]
fn macros_see_the_variables_of_those_around_them() {
    for (source, expected) in [
        ("[1, 2].map(x, [10, 20].map(y, x + y))", json!([[11, 21], [12, 22]])),
        ("[[1, 2], [3]].map(x, x.map(x, x * 2))", json!([[2, 4], [6]])),
        ("[1, 2, 3].filter(x, [2, 3].exists(y, y == x)).map(z, z * 10)", json!([20, 30])),
        ("[1, 2].map(x, [3].all(y, y > x) && x < 2)", json!([true, false])),
        ("[3].map(event, event + 1)", json!([4])),
        ("[1].all(x, [2].all(y, [1, 2] == [x, y])) && [5].all(x, x == 5)", json!(true)),
    ] {
        assert_eq!(eval(source), Ok(expected), "{source}");
    }
}

#[test]
fn operators_bind_as_in_cel() {
    for (source, expected) in [
        ("1 + 2 * 3", json!(7)),
        ("(1 + 2) * 3", json!(9)),
        ("10 - 3 - 2", json!(5)),
        ("100 / 10 / 5", json!(2)),
        ("-2 * -3", json!(6)),
        ("--2", json!(2)),
        ("!!true", json!(true)),
        ("1 + 1 == 2 && 2 in [1 + 1]", json!(true)),
        ("true || false && false", json!(true)),
        ("false ? 1 : true ? 2 : 3", json!(2)),
        ("1 < 2 == true", json!(true)),
        ("-9223372036854775808", json!(i64::MIN)),
        ("[1, 2,][0]", json!(1)),
        ("{\"a\": {\"b\": 1},}.a.b", json!(1)),
        ("-[1][0]", json!(-1)),
    ] {
        assert_eq!(eval(source), Ok(expected), "{source}");
    }
}

#[test]
fn numbers_are_exact_or_refused() {
    let event = read(
        r#"{"a": 0.1, "b": 9007199254740993, "c": 9007199254740993.0, "d": 9007199254740992, "e": 1E400,
        "f": 10.0, "g": 1.00000000000000000001, "h": -0.0, "n": 123456789012345678901234567890, "l": [10, 11]}"#,
    );
    let eval = |source: &str| {
        let env = Env { event: Some(&event), ..Env::default() };
        parse(source).eval(&env).map(|value| value.to_string()).map_err(|error| error.message)
    };
    let out_of_range = Err("the number leaves 64 bits".to_owned());
    for (source, expected) in [
        ("event.b == event.c", "true"),
        ("event.b > event.d", "true"),
        ("event.b * 1.0", "9007199254740993"),
        ("event.c + 0", "9007199254740993"),
        ("event.e > event.n", "true"),
        ("event.e", "1E400"),
        ("event.g > 1", "true"),
        ("event.h == 0", "true"),
        ("event.h + 0", "0"),
        ("event.l[event.f - 9]", "11"),
        ("{\"10\": 1}[event.f]", "1"),
        ("{event.f: 1}", "{\"10\":1}"),
        ("event.f in {\"10\": 1}", "true"),
        ("0.1 + 0.2", "0.30000000000000004"),
        ("event.a + event.a == 0.2", "true"),
        ("1.5 * 2", "3"),
        ("5 / 2.5", "2"),
        ("-7 % 3", "-1"),
        ("-7 / 7", "-1"),
        ("max(event.f, 3)", "10.0"),
        ("[event.f, 1.50]", "[10.0,1.5]"),
        ("string(event.n)", "\"123456789012345678901234567890\""),
        ("string(event.f) + string(event.a)", "\"100.1\""),
        ("round(event.f)", "10.0"),
        ("double(event.f)", "10"),
        ("2.5 > 2 && 2 < 2.5 && 3 > 2.5 && -2.5 < -2 && !(2.5 == 2)", "true"),
    ] {
        assert_eq!(eval(source), Ok(expected.to_owned()), "{source}");
    }
    for source in [
        "event.e + 1",
        "event.n - 1",
        "-event.n",
        "9223372036854775807 * 2",
        "-9223372036854775808 - 1",
        "-9223372036854775808 / -1",
        "-9223372036854775808 % -1",
        "-(-9223372036854775808)",
        "abs(-9223372036854775808)",
        "9223372036854775807 * 1.5",
        "double(\"1e300\")",
        "int(event.e)",
    ] {
        assert_eq!(eval(source), out_of_range, "{source}");
    }
    assert_eq!(eval("1 / 0.0"), Err("division by zero".to_owned()));
    assert_eq!(eval("1 % 0"), Err("division by zero".to_owned()));
    assert_eq!(eval("double(\"inf\")"), Err("double cannot read 'inf'".to_owned()));
    assert_eq!(eval("double(\"NaN\")"), Err("double cannot read 'NaN'".to_owned()));
}

#[test]
fn a_constant_of_yaml_stands_for_itself() {
    let constant = Expression::constant(read("1.50"));
    assert_eq!(constant.eval(&Env::default()).unwrap().to_string(), "1.50");
    assert_eq!(constant.as_constant(), Some(read("1.50")));
    assert_eq!(constant.source(), "1.50");
    assert_eq!(Expression::constant(json!(true)).holds(&Env::default()), Ok(true));
    assert_eq!(parse("data.x").as_constant(), None);
}

#[test]
fn only_true_and_false_hold() {
    let holds = |source: &str| parse(source).holds(&Env::default()).map_err(|error| error.message);
    assert_eq!(holds("1 < 2"), Ok(true));
    assert_eq!(holds("1 > 2"), Ok(false));
    assert_eq!(holds("\"true\""), Err("the condition is a text, not true or false".to_owned()));
    assert_eq!(holds("null"), Err("the condition is null, not true or false".to_owned()));
}

#[test]
fn a_name_without_a_value_reads_as_null() {
    for name in everywhere().names() {
        assert_eq!(parse(name).eval(&Env::default()), Ok(Value::Null), "{name}");
    }
}

#[test]
fn the_element_has_its_name() {
    let scope = Scope::new(&[Variable::Data]).with_item("program");
    let item = json!({"id": 7});
    let env = Env { item: Some(&item), ..Env::default() };
    assert_eq!(Expression::parse("program.id", &scope).unwrap().eval(&env), Ok(json!(7)));
}

#[test]
fn what_cannot_be_done_is_said_in_plain_words() {
    for (source, message) in [
        ("1 - \"a\"", "cannot subtract text from integer"),
        ("2.5 * []", "cannot multiply decimal with list"),
        ("true / 2", "cannot divide boolean by integer"),
        ("{} < {}", "cannot compare object with object"),
        ("null < 1", "cannot compare null with integer"),
        ("\"a\" in \"abc\"", "'in' looks into lists and objects; for texts there is contains()"),
        ("1 in 2", "'in' looks into lists and objects, not into an integer"),
        ("!1", "'!' needs true or false, not an integer"),
        ("-true", "'-' needs a number, not a boolean"),
        ("1 ? 2 : 3", "the condition before '?' is an integer, not true or false"),
        ("event.amount.all(x, true)", "event.amount is an integer, not a list"),
        ("[1].filter(x, x)", "the condition for each element is an integer, not true or false"),
        ("event.tags[\"a\"]", "no field 'a' in event.tags, which is a list"),
        ("event.tags[event.order_id]", "a list has integers as its index, not a text"),
        ("event.amount[0]", "event.amount is an integer: it has no elements"),
        ("event.tags[-1]", "no element -1 in event.tags, which has 2"),
        ("event[1.5]", "a field has a text or an integer as its name, not a decimal"),
        ("{\"a\": 1, \"a\": 2}", "the field 'a' is there twice"),
        ("event.amount.contains(\"1\")", "contains needs a text, not an integer"),
        ("size(5)", "size needs a text, a list or an object, not an integer"),
        ("[1].join()", "join needs a list of texts, and one is an integer"),
        ("sum([1, \"a\"])", "sum needs a list of numbers, and one is a text"),
        ("min(1, \"a\")", "cannot compare text with integer"),
        ("max([null])", "cannot compare null with null"),
        ("string(null)", "string needs a text, a number, a boolean, a time or a duration, not null"),
        ("timestamp(\"x\" + \"y\")", "timestamp cannot read 'xy'"),
        ("duration(\"1\" + \"5\")", "'15' is not a duration; write 15s or 15ms"),
        ("saga.started_at - now", "a duration below zero has no text"),
        ("timestamp(253402300800)", "the time is outside the years 1 to 9999"),
        ("now + duration(\"9000000d\")", "the time is outside the years 1 to 9999"),
        ("\"a\".matches(\"(\" + \"\")", "the pattern of matches is not a regular expression: error: unclosed group"),
    ] {
        assert_eq!(eval(source), Err(message.to_owned()), "{source}");
    }
}

#[test]
fn times_that_stand_in_json_as_text_are_times() {
    let message = json!({"time": "2030-01-01T01:00:00+01:00", "id": null});
    let env = Env { message: Some(&message), now: Some(Timestamp(1_893_456_000_000)), ..Env::default() };
    assert_eq!(parse("message.time == now").eval(&env), Ok(json!(true)));
    assert_eq!(parse("message[\"time\"]").eval(&env), Ok(json!("2030-01-01T00:00:00Z")));
    assert_eq!(parse("message.id").eval(&env), Ok(Value::Null));
    let absent = json!({"time": null});
    assert_eq!(parse("message.time").eval(&Env { message: Some(&absent), ..Env::default() }), Ok(Value::Null));
}

// --- Limits

/// Many values, a long text, and text for a pattern that is slow.
fn heavy() -> Value {
    json!({
        "many": (0..300).collect::<Vec<i32>>(),
        "all": (0..60_000).collect::<Vec<i32>>(),
        "long": "ab".repeat(500_000),
        "pattern": "(a|b)*".repeat(150),
    })
}

#[test]
fn work_has_a_limit_that_nothing_absorbs() {
    let event = heavy();
    let env = Env { event: Some(&event), ..Env::default() };
    let too_much = Err(EvalError { message: "the expression takes more than 100000 steps".to_owned() });
    for source in [
        "event.many.all(a, event.many.all(b, event.many.all(c, a + b + c >= 0)))",
        "event.many.all(a, event.many.all(b, event.many.all(c, a + b + c >= 0))) || true",
        "event.many.exists(a, event.many.exists(b, event.many.exists(c, a + b + c < 0))) || true",
        "default(event.many.map(a, event.many.map(b, event.many.map(c, a))), 1)",
        "event.all.map(x, x + 1)",
        "event.many.map(x, event.long + \"x\")",
        "event.many.map(x, event.long.size())",
        "event.many.map(x, event.long.replace(\"a\", \"b\"))",
        "event.long.replace(\"a\", event.long)",
        "event.many.map(x, event.long).join()",
        "event.many.map(x, event.all + event.all)",
        "event.many.map(x, event.long == event.long + \"\")",
        "event.many.map(x, event.all == event.all)",
        "event.many.map(x, \"a\".matches(event.pattern))",
        "event.long.matches(\"(a.{0,30}b.{0,30}){5}c\")",
        "event.many.map(x, event.long.split(\"a\"))",
    ] {
        assert_eq!(parse(source).eval(&env), too_much, "{source}");
    }
}

#[test]
fn what_a_message_may_be_can_be_worked_with() {
    let event = heavy();
    let env = Env { event: Some(&event), ..Env::default() };
    for (source, expected) in [
        ("event.long.contains(\"ba\") && event.long.size() == 1000000", json!(true)),
        ("event.long.matches(\"^[ab]+$\")", json!(true)),
        ("event.many.filter(x, false) == []", json!(true)),
        ("size(event.all + event.many)", json!(60_300)),
        ("59999 in event.all", json!(true)),
        ("event.many.all(a, event.many.exists(b, b == 10))", json!(true)),
    ] {
        assert_eq!(parse(source).eval(&env), Ok(expected), "{source}");
    }
    assert_eq!(parse("event").eval(&env).as_ref(), Ok(&event));
}

#[test]
fn a_result_that_shares_much_has_a_limit_too() {
    let event = heavy();
    let env = Env { event: Some(&event), ..Env::default() };
    let too_large = Err(EvalError { message: "the result is too large".to_owned() });
    let doubled = format!("[event.long]{}", ".map(x, [x, x])".repeat(40));
    for source in ["event.many.map(x, event)", "event.many.map(x, event.long)", &doubled] {
        assert_eq!(parse(source).eval(&env), too_large, "{source}");
    }
    let template = Template::List(vec![Template::parse_text("${event.long}", &everywhere()).unwrap(); 10]);
    assert_eq!(template.render(&env), too_large);
    let text = Template::parse_text(&"${event.long}".repeat(10), &everywhere()).unwrap();
    assert_eq!(text.render(&env), too_large);
}

#[test]
fn depth_has_a_limit_and_length_has_one() {
    for deep in [
        format!("{}1{}", "(".repeat(10_000), ")".repeat(10_000)),
        "[".repeat(10_000),
        "-".repeat(10_000) + "1",
        "!".repeat(10_000) + "true",
        "1+".repeat(5_000) + "1",
        "data".to_owned() + &".a".repeat(5_000),
        "true ? 1 : ".repeat(1_000) + "1",
        "size(".repeat(3_000),
        "{1:".repeat(3_000),
        "data".to_owned() + &"[0]".repeat(3_000),
        "[1]".to_owned() + &".map(x, x)".repeat(1_000),
    ] {
        assert!(mistake(&deep).message.starts_with("the expression is nested too deeply"), "{deep:.20}");
    }
    assert_eq!(mistake(&format!("\"{}\"", "x".repeat(20_000))).message, "the expression is too long");
    // A long chain of conditions is flat.
    let chain = vec!["data.x == 1"; 1_000].join(" || ");
    assert!(parse(&chain).eval(&Env { data: Some(&json!({"x": 1})), ..Env::default() }).is_ok());
    // The deepest that is allowed is evaluated on a thread's usual stack.
    let deepest = format!("{}1{}", "[".repeat(62), "]".repeat(62));
    let value = parse(&deepest).eval(&Env::default()).unwrap();
    assert_eq!(value.to_string(), deepest);
    let nested = format!("{}x{}", "[1].map(x, ".repeat(30), ")".repeat(30));
    assert!(parse(&nested).eval(&Env::default()).is_ok());
}
