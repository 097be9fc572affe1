//! Which variables exist at which place, and reading expressions and templates there.

use serde_json::Value;

use super::context::Context;
use super::facts::{Entered, EntryRead, FieldRead};
use crate::saga::definition::{Kind, Node, Scalar, ScalarValue, Style};
use crate::saga::expression::{Expression, ExpressionError, Read, Scope, Variable, closest};
use crate::saga::machine::{Place, StateNo};
use crate::saga::template::Template;

/// The place of an expression.
#[derive(Clone, Debug)]
pub(super) struct Here {
    scope: Scope,
    pub state: Option<StateNo>,
    /// `event` is there only if every way to what is entered brings a message; `lint` sees to that.
    entered: Option<Entered>,
    /// The fields that a choice asks for.
    needs: Option<Vec<String>>,
}

const INSTANCE: [Variable; 3] = [Variable::Data, Variable::Saga, Variable::Now];

impl Here {
    fn with(variables: &[Variable], state: Option<StateNo>) -> Here {
        let all: Vec<Variable> = INSTANCE.iter().chain(variables).copied().collect();
        Here { scope: Scope::new(&all), state, entered: None, needs: None }
    }

    /// Before an instance is found: only the message is there.
    pub fn message() -> Here {
        let scope = Scope::new(&[Variable::Event, Variable::Message, Variable::Now]);
        Here { scope, state: None, entered: None, needs: None }
    }

    /// The order of a waiting list.
    pub fn waiting() -> Here {
        Here { scope: Scope::new(&[Variable::Data, Variable::Saga]), state: None, entered: None, needs: None }
    }

    /// What is done when a state is entered.
    pub fn entry(state: StateNo) -> Here {
        let here = Here::with(&[Variable::Event, Variable::Message], Some(state));
        Here { entered: Some(Entered::State(state)), ..here }
    }

    pub fn command(state: StateNo) -> Here {
        let here = Here::with(&[Variable::Event, Variable::Message, Variable::Attempt], Some(state));
        Here { entered: Some(Entered::Command(state)), ..here }
    }

    /// A command that may go out long after its state was entered: an item of an `each` with `at_once`.
    pub fn later_command(state: StateNo) -> Here {
        Here::with(&[Variable::Attempt], Some(state))
    }

    pub fn answer(state: StateNo) -> Here {
        Here::with(&[Variable::Event, Variable::Message, Variable::Attempt], Some(state))
    }

    pub fn silence(state: Option<StateNo>) -> Here {
        Here::with(&[Variable::Attempt], state)
    }

    pub fn undo(state: StateNo) -> Here {
        Here::with(&[Variable::Reply, Variable::ReplyType], Some(state))
    }

    pub fn event(state: Option<StateNo>) -> Here {
        Here::with(&[Variable::Event, Variable::Message], state)
    }

    /// A timer, a deadline, the end of compensation: no message is in hand.
    pub fn clock(state: Option<StateNo>) -> Here {
        Here::with(&[], state)
    }

    pub fn choice(state: StateNo, needs: Vec<String>) -> Here {
        Here { needs: Some(needs), ..Here::with(&[Variable::Choice], Some(state)) }
    }

    pub fn completed() -> Here {
        Here { entered: Some(Entered::Completed), ..Here::event(None) }
    }

    /// The same place in an `each`, where the element has this name.
    pub fn in_each(self, name: Option<&str>) -> Here {
        match name {
            Some(name) => Here { scope: self.scope.with_item(name), ..self },
            None => self,
        }
    }

    pub fn has_event(&self) -> bool {
        self.scope.has(Variable::Event)
    }

    pub fn entered(&self) -> Option<Entered> {
        self.entered
    }
}

impl Context<'_> {
    /// An expression as it is: any scalar.
    pub fn expression(&mut self, node: &Node, here: &Here) -> Option<Expression> {
        let scalar = match &node.kind {
            Kind::Broken => return None,
            Kind::Scalar(scalar) if !node.is_empty() => scalar,
            Kind::Scalar(scalar) => {
                let hint =
                    self.comment_hint(scalar, node.place).unwrap_or("write an expression, such as `data.urgent`");
                self.report("bad-expression", node.place, "an expression is missing here", hint);
                return None;
            }
            Kind::List(_) | Kind::Map(_) => {
                let message = format!("YAML reads {} where an expression is expected", node.describe());
                self.report("bad-expression", node.place, message, "put it in quotes");
                return None;
            }
        };
        match Expression::parse(&scalar.text, &here.scope) {
            Ok(expression) => {
                self.note_reads(expression.read_places(), scalar, node.place, here);
                Some(expression)
            }
            Err(error) => {
                self.expression_error(&error, scalar, node.place);
                None
            }
        }
    }

    /// A value with expressions in it.
    pub fn template(&mut self, node: &Node, here: &Here) -> Template {
        match &node.kind {
            Kind::Broken => Template::Literal(Value::Null),
            Kind::List(items) => Template::List(items.iter().map(|item| self.template(item, here)).collect()),
            Kind::Map(entries) => Template::Object(
                entries.iter().map(|entry| (entry.key.clone(), self.template(&entry.value, here))).collect(),
            ),
            Kind::Scalar(scalar) => match &scalar.value {
                ScalarValue::Null => Template::Literal(Value::Null),
                ScalarValue::Bool(value) => Template::Literal(Value::Bool(*value)),
                ScalarValue::Number(number) => {
                    Template::Literal(serde_json::from_str(number).expect("the reader wrote it as JSON has it"))
                }
                ScalarValue::Text => self.text_template(scalar, node.place, here),
            },
        }
    }

    fn text_template(&mut self, scalar: &Scalar, place: Place, here: &Here) -> Template {
        match Template::parse_text(&scalar.text, &here.scope) {
            Ok(template) => {
                self.note_reads(&template.read_places(), scalar, place, here);
                template
            }
            Err(error) => {
                self.expression_error(&error, scalar, place);
                Template::Literal(Value::Null)
            }
        }
    }

    /// A body: a template, or a list of fields of `data`.
    pub fn body(&mut self, node: &Node, here: &Here) -> Template {
        let Kind::List(items) = &node.kind else { return self.template(node, here) };
        let mut fields = Vec::new();
        for item in items {
            let Some(name) = self.text(item, "a field of `data`") else { continue };
            if self.identifier(name, item.place, "a field of `data`") {
                self.read_field(name, item.place, here.state);
                fields.push(name.to_owned());
            }
        }
        Template::Fields(fields)
    }

    pub fn read_field(&mut self, field: &str, at: Place, state: Option<StateNo>) {
        self.facts.reads.push(FieldRead { field: field.to_owned(), state, guarded: false, at });
    }

    fn note_reads(&mut self, reads: &[Read], scalar: &Scalar, place: Place, here: &Here) {
        let asks =
            reads.iter().any(|read| read.path.len() == 1 && matches!(read.path[0].as_str(), "reply" | "reply_type"));
        for read in reads {
            let at = scalar.place_of(&read.at, place, self.source);
            match read.path.iter().map(String::as_str).collect::<Vec<_>>()[..] {
                ["data", field, ..] => {
                    let read = FieldRead { field: field.to_owned(), state: here.state, guarded: read.guarded, at };
                    self.facts.reads.push(read);
                }
                ["reply", field, ..] if !read.guarded && !asks => self.facts.reply_reads.push((field.to_owned(), at)),
                ["choice", field, ..] => self.check_choice(field, at, here),
                [what @ ("event" | "message"), ..] => {
                    if let Some(entered) = here.entered {
                        self.facts.entry_reads.push(EntryRead { entered, what: what.to_owned(), at });
                    }
                }
                _ => {}
            }
        }
    }

    fn check_choice(&mut self, field: &str, at: Place, here: &Here) {
        let Some(needs) = here.needs.as_ref().filter(|needs| needs.iter().all(|need| need != field)) else { return };
        let hint = match closest(field, needs.iter().map(String::as_str)) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("add it: `needs: [{field}]`"),
        };
        self.report("unknown-field", at, format!("this choice does not ask for `{field}`"), hint);
    }

    fn expression_error(&mut self, error: &ExpressionError, scalar: &Scalar, place: Place) {
        let at = scalar.place_of(&error.at, place, self.source);
        let hint = self.comment_hint(scalar, place).unwrap_or(&error.hint).to_owned();
        self.report("bad-expression", at, error.message.clone(), hint);
    }

    /// What follows ` #` is a comment to YAML, though its author may have meant it.
    fn comment_hint(&self, scalar: &Scalar, place: Place) -> Option<&'static str> {
        if scalar.style != Style::Plain {
            return None;
        }
        let line = self.source.lines().nth((place.line as usize).saturating_sub(1))?;
        let columns = if scalar.text.is_empty() { place.column } else { place.end_column };
        let rest: String = line.chars().skip(columns as usize - 1).collect();
        rest.trim_start().starts_with('#').then_some("put it in quotes: YAML reads what follows ` #` as a comment")
    }
}
