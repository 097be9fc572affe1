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

    /// Whether any expression in it reads this variable: a value that nobody reads need not be made.
    pub fn mentions(&self, variable: &str) -> bool {
        match self {
            Self::Literal(_) => false,
            Self::Data | Self::Fields(_) => variable == "data",
            Self::Expression(expression) => expression.mentions(variable),
            Self::Text(pieces) => pieces.iter().any(|piece| match piece {
                Piece::Text(_) => false,
                Piece::Expression(expression) => expression.mentions(variable),
            }),
            Self::List(items) => items.iter().any(|item| item.mentions(variable)),
            Self::Object(fields) => fields.iter().any(|(_, field)| field.mentions(variable)),
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::saga::expression::Variable;

    fn scope() -> Scope {
        Scope::new(&[Variable::Event, Variable::Data])
    }

    fn template(text: &str) -> Template {
        Template::parse_text(text, &scope()).unwrap_or_else(|error| panic!("{text}: {error:?}"))
    }

    fn render(text: &str) -> Value {
        let data = json!({"n": 5, "s": "text", "none": null, "list": ["a", 1], "object": {"k": "v"}});
        template(text).render(&Env { data: Some(&data), ..Env::default() }).unwrap()
    }

    #[test]
    fn an_expression_alone_keeps_its_type_and_in_a_text_becomes_text() {
        for (text, expected) in [
            ("${data.n}", json!(5)),
            ("${ data.n }", json!(5)),
            (" ${data.n}", json!(" 5")),
            ("${data.n}${data.n}", json!("55")),
            ("${data.none}", Value::Null),
            ("<${data.none}>", json!("<>")),
            ("<${data.s}>", json!("<text>")),
            ("<${data.list} ${data.object}>", json!("<[\"a\",1] {\"k\":\"v\"}>")),
            ("<${data.n > 1}>", json!("<true>")),
            ("", json!("")),
            ("plain", json!("plain")),
            ("grün ${data.n} – ${data.s}", json!("grün 5 – text")),
        ] {
            assert_eq!(render(text), expected, "{text}");
        }
    }

    #[test]
    fn a_dollar_is_a_dollar_unless_a_brace_follows() {
        for (text, expected) in [
            ("$", "$"),
            ("$5 {n} }", "$5 {n} }"),
            ("$${data.n}", "${data.n}"),
            ("$$${data.n}", "$${data.n}"),
            ("$$", "$$"),
            ("$${", "${"),
            ("$${data.n} ${data.n}", "${data.n} 5"),
        ] {
            assert_eq!(render(text), json!(expected), "{text}");
        }
    }

    #[test]
    fn the_end_is_found_by_the_grammar() {
        assert_eq!(render("${ {\"a\": {\"b\": 1}}.a.b }"), json!(1));
        assert_eq!(render("<${\"}\"}${'${'}${{}}>"), json!("<}${{}>"));
        assert_eq!(render("${[\"a}\", r'}'].join(\"{\")} }"), json!("a}{} }"));
        // What comes behind is no part of an expression, whatever it looks like.
        assert_eq!(render("${data.n} \" § ' \\"), json!("5 \" § ' \\"));
    }

    #[test]
    fn a_mistake_is_placed_in_the_text_that_it_stands_in() {
        for (text, marked, message) in [
            ("é ${data.n} ${dta.n}", "dta", "unknown name 'dta'"),
            ("a ${data.n", "${", "'${' is not closed"),
            ("a ${", "${", "'${' is not closed"),
            ("a ${ } b", "${", "there is no expression in '${}'"),
            ("a ${data.n b} c", "b", "expected '}' at the end of '${', found 'b'"),
            ("a ${data.n + } c", "}", "expected a value, found '}'"),
        ] {
            let error = Template::parse_text(text, &scope()).expect_err(text);
            assert_eq!(error.message, message, "{text}");
            assert_eq!(&text[error.at.clone()], marked, "{text}");
            assert!(!error.hint.is_empty(), "{text}");
        }
    }

    #[test]
    fn a_template_knows_what_it_reads() {
        let text = "é ${data.a} and ${default(event.b, 1)}";
        let reads = template(text).read_places();
        let found: Vec<(&str, bool)> = reads.iter().map(|read| (&text[read.at.clone()], read.guarded)).collect();
        assert_eq!(found, [("data.a", false), ("event.b", true)]);
        assert_eq!(Template::Data.reads(), [["data"]]);
        assert_eq!(Template::Fields(vec!["a".to_owned()]).reads(), [["data", "a"]]);
        let list = Template::List(vec![
            template("${data.x}"),
            Template::Object(vec![("k".to_owned(), template("${event.y}"))]),
        ]);
        assert_eq!(list.reads(), [["data", "x"], ["event", "y"]]);
    }

    #[test]
    fn fields_of_data_are_there_or_it_is_an_error() {
        let data = json!({"b": 1, "a": 2, "c": null});
        let env = Env { data: Some(&data), ..Env::default() };
        let fields = |names: &[&str]| Template::Fields(names.iter().map(|name| (*name).to_owned()).collect());
        assert_eq!(fields(&["a", "c"]).render(&env).unwrap().to_string(), r#"{"a":2,"c":null}"#);
        assert_eq!(fields(&["a", "d"]).render(&env).unwrap_err().message, "no field 'd' in data");
        assert_eq!(Template::Data.render(&env).unwrap(), data);
    }

    #[test]
    fn literals_lists_and_objects_keep_what_is_written() {
        let made = Template::Object(vec![
            ("z".to_owned(), Template::Literal(json!(1))),
            ("a".to_owned(), Template::List(vec![template("${data.n}"), template("x")])),
        ]);
        let data = json!({"n": 5});
        let env = Env { data: Some(&data), ..Env::default() };
        assert_eq!(made.render(&env).unwrap().to_string(), r#"{"z":1,"a":[5,"x"]}"#);
        assert_eq!(template("${data.m}").render(&env).unwrap_err().message, "no field 'm' in data");
    }

    proptest! {
        #[test]
        fn a_text_without_dollars_stays_as_it_is(text in "[^$]{0,24}") {
            prop_assert_eq!(template(&text).render(&Env::default()).unwrap(), json!(text));
        }

        #[test]
        fn any_text_is_read_or_refused_at_a_place_in_it(text in "([$]{0,3}[{}]|[a-z.\"' ()]|data|é){0,24}") {
            match Template::parse_text(&text, &scope()) {
                Ok(template) => drop(template.render(&Env::default())),
                Err(error) => prop_assert!(text.get(error.at).is_some()),
            }
        }
    }
}
