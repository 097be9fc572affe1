//! Every command message that ever came, so that a test can hold it against the journal: nothing may have been seen that
//! no committed turn sent, and what was published twice must be the same both times.

use std::collections::BTreeMap;

use sagad::demo::command::Command;
use serde::Serialize;

#[derive(Default)]
pub struct Seen {
    messages: BTreeMap<String, Message>,
    altered: Vec<String>,
    malformed: Vec<String>,
}

#[derive(Serialize)]
pub struct Message {
    #[serde(rename = "message_id")]
    id: String,
    command_id: String,
    address: String,
    #[serde(rename = "type")]
    kind: String,
    /// `do` or `undo`.
    op: String,
    undoes: Option<String>,
    key: String,
    body: String,
    /// Everything else that must not change when it is published again.
    #[serde(skip)]
    properties: String,
    times: u32,
}

impl Seen {
    pub fn note(&mut self, command: &Command, body: &[u8], properties: &str) {
        let body = String::from_utf8_lossy(body).into_owned();
        let message = self.messages.entry(command.message_id.clone()).or_insert_with(|| Message {
            id: command.message_id.clone(),
            command_id: command.id.clone(),
            address: command.address.clone(),
            kind: command.name.clone(),
            op: if command.undoes.is_some() { "undo" } else { "do" }.to_owned(),
            undoes: command.undoes.clone(),
            key: command.key.clone(),
            body: body.clone(),
            properties: properties.to_owned(),
            times: 0,
        });
        message.times += 1;
        if message.body != body || message.properties != properties {
            self.altered.push(command.message_id.clone());
        }
    }

    /// A command that lacks what each must have.
    pub fn note_malformed(&mut self, error: String) {
        self.malformed.push(error);
    }

    pub fn messages(&self) -> impl Iterator<Item = &Message> {
        self.messages.values()
    }

    /// Ids of messages that came twice and were not the same.
    pub fn altered(&self) -> &[String] {
        &self.altered
    }

    pub fn malformed(&self) -> &[String] {
        &self.malformed
    }
}
