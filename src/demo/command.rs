//! What a participant is asked and what it answers: the part of `wire.md` that a participant needs, and nothing of AMQP.

use serde_json::{Map, Value};

/// A command or an undo, as it came.
#[derive(Clone, Debug, PartialEq)]
pub struct Command {
    /// Who is asked: the first word of the routing key.
    pub address: String,
    /// Property `type`.
    pub name: String,
    /// Property `correlation_id`: the same for each repetition and attempt. The answer carries it back.
    pub id: String,
    /// Property `message_id`: another one for each attempt.
    pub message_id: String,
    /// Header `saga-undoes`: which command is to be taken back. Absent in a command that asks for something.
    pub undoes: Option<String>,
    /// Header `saga-key`: on whose behalf.
    pub key: String,
    pub body: Value,
}

impl Command {
    /// A text in the body; `None` where it is missing or something else.
    pub fn text(&self, field: &str) -> Option<&str> {
        self.body.get(field)?.as_str()
    }
}

/// An event that answers a command; its `correlation_id` is the command's id.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub kind: String,
    pub body: Value,
}

impl Answer {
    pub fn new(kind: &str, body: Value) -> Answer {
        Answer { kind: kind.to_owned(), body }
    }

    /// A refusal that says why.
    pub fn refusal(kind: &str, reason: &str) -> Answer {
        let mut body = Map::new();
        body.insert("reason".to_owned(), Value::from(reason));
        Answer::new(kind, Value::Object(body))
    }
}
