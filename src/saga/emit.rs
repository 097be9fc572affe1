//! Messages out of a turn: commands, undos, events, replies, and what is told of the instance's life.

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::effect::{CommandPart, Destination, Effect, Json, Limit, Outgoing};
use super::event::{Fault, Message, Subject};
use super::ids::{CommandId, event_message_id};
use super::incident::IncidentKind;
use super::instance::{Sender, TimerKind, TimerStart};
use super::machine::{Actions, MessageRule, Place, Recipient};
use super::template::Template;
use super::walk::{Result, Vars, Walk};

/// Body of an outgoing message.
pub const MAX_MESSAGE_BYTES: usize = 1024 * 1024;
/// What AMQP allows for a routing key and for an id.
pub const MAX_NAME_BYTES: usize = 255;
/// All headers of a message together: a header frame must fit into 128 KiB.
pub const MAX_HEADER_BYTES: usize = 64 * 1024;

impl Walk<'_> {
    /// `set`, then the messages, of an entry into a state or of an end.
    pub fn act(&mut self, actions: &Actions, place: Place) -> Result<()> {
        self.set(&actions.set, Vars::default(), place)?;
        self.send_all(&actions.messages, Vars::default())
    }

    pub fn send_all(&mut self, messages: &[MessageRule], vars: Vars<'_>) -> Result<()> {
        messages.iter().try_for_each(|message| self.send_one(message, vars))
    }

    fn send_one(&mut self, rule: &MessageRule, vars: Vars<'_>) -> Result<()> {
        if !self.holds(rule.when.as_ref(), vars, rule.place)? {
            return Ok(());
        }
        let body = self.body(rule.with.as_ref(), vars, rule.place)?;
        let headers = self.headers(&rule.headers, vars, rule.place)?;
        match &rule.to {
            Recipient::Publish { event } => {
                let correlation = self.it.id.to_string();
                self.send_event(Destination::Event, event, correlation, body, headers)
            }
            Recipient::Reply { event, to_event } => self.reply(event, *to_event, body, headers),
            Recipient::Send { address, command } => self.loose_command(address, command, body, headers),
        }
    }

    fn reply(&mut self, event: &str, to_event: bool, body: Json, headers: Map<String, Value>) -> Result<()> {
        let sender = match self.message {
            Some(message) if to_event => sender_of(message),
            _ => self.it.origin.clone(),
        };
        let correlation = sender.correlation_id.or(sender.message_id).unwrap_or_else(|| self.it.id.to_string());
        let to = sender.reply_to.map_or(Destination::Event, |name| Destination::Queue { name });
        self.send_event(to, event, correlation, body, headers)
    }

    fn send_event(
        &mut self,
        to: Destination,
        kind: &str,
        correlation_id: String,
        body: Json,
        headers: Map<String, Value>,
    ) -> Result<()> {
        let message_id = event_message_id(self.it.id, self.it.turn, self.sent());
        self.push(Outgoing {
            to,
            kind: kind.to_owned(),
            message_id,
            correlation_id,
            at: self.at,
            body,
            headers,
            trace: self.it.origin.trace.clone(),
            command: None,
            chosen: None,
            stamp: Some(self.it.stamp()),
        })
    }

    /// A command that nobody waits for and nothing takes back.
    fn loose_command(&mut self, address: &str, command: &str, body: Json, headers: Map<String, Value>) -> Result<()> {
        let turn = self.it.turn;
        let place = u32::try_from(self.sent()).unwrap_or(u32::MAX);
        let id = CommandId::new(self.it.id, &format!("{turn}/send/{place}"));
        let part = CommandPart {
            subject: Subject::Loose { turn, place },
            state: self.it.state.clone(),
            attempt: 1,
            undoes: None,
            limit: None,
            awaits: false,
        };
        self.command(address, command, id, id.message_id(1), body, headers, part)
    }

    /// Sends the command of a step, for the first time or again; its limit begins with the broker's confirm.
    pub fn send_step(&mut self, index: u32) -> Result<()> {
        let Some(rule) = self.rule_at(index) else { return Ok(()) };
        let at = self.at;
        let step = self.step_mut(index);
        step.attempt += 1;
        step.sent_at = at;
        let (attempt, body, headers, name) = (step.attempt, step.body.clone(), step.headers.clone(), step.name());
        let id = self.it.command_id(self.step(index));
        let limit = rule.timeout.as_ref().filter(|_| !rule.success.is_empty()).map(|timeout| {
            let after_ms = timeout.after.0;
            let serial = self.start_timer(TimerKind::StepLimit { index }, TimerStart::Confirm { after_ms });
            Limit { serial, after_ms }
        });
        let part = CommandPart {
            subject: Subject::Step { index, attempt },
            state: name,
            attempt,
            undoes: None,
            limit,
            awaits: !rule.success.is_empty(),
        };
        self.command(&rule.address, &rule.command, id, id.message_id(attempt), body, headers, part)
    }

    /// Sends what takes a step back: the same command again, or the next question.
    pub fn send_undo(&mut self, index: u32) -> Result<()> {
        let Some(rule) = self.undo_rule(index) else { return Ok(()) };
        let step = self.step(index);
        let Some(undo) = &step.undo else { return Ok(()) };
        let (question, attempt) = (undo.question, undo.attempt);
        let id = self.it.undo_command_id(step, question);
        let undoes = self.it.command_id(step).to_string();
        let (body, name) = (undo.body.clone().unwrap_or_else(|| step.body.clone()), step.name());
        let limit = (!rule.success.is_empty()).then(|| {
            let after_ms = rule.timeout.0;
            let serial = self.start_timer(TimerKind::UndoLimit { index }, TimerStart::Confirm { after_ms });
            Limit { serial, after_ms }
        });
        let part = CommandPart {
            subject: Subject::Undo { index, question, attempt },
            state: name,
            attempt,
            undoes: Some(undoes),
            limit,
            awaits: !rule.success.is_empty(),
        };
        self.command(&rule.address, &rule.command, id, id.message_id(attempt), body, Map::new(), part)
    }

    #[expect(clippy::too_many_arguments, reason = "one place where a command's parts come together")]
    fn command(
        &mut self,
        address: &str,
        command: &str,
        id: CommandId,
        message_id: Uuid,
        body: Json,
        headers: Map<String, Value>,
        part: CommandPart,
    ) -> Result<()> {
        self.push(Outgoing {
            to: Destination::Command { address: address.to_owned() },
            kind: command.to_owned(),
            message_id,
            correlation_id: id.to_string(),
            at: self.at,
            body,
            headers,
            trace: self.it.origin.trace.clone(),
            command: Some(part),
            chosen: None,
            stamp: Some(self.it.stamp()),
        })
    }

    /// Tells of the instance's life: `sagad.<saga>.<what>`.
    pub fn tell(&mut self, what: &str) {
        let it = &self.it;
        let data = json!({
            "id": it.id.to_string(),
            "saga": it.saga,
            "key": it.key,
            "status": it.status.name(),
            "state": it.state,
            "outcome": it.outcome,
            "failure": self.failure_value(),
            "incident": it.incidents.first().map(|incident| json!({
                "kind": incident.kind.name(), "state": incident.state, "error": incident.error,
            })),
        });
        let kind = format!("sagad.{}.{what}", it.saga);
        let message = Outgoing {
            to: Destination::Lifecycle,
            kind,
            message_id: event_message_id(it.id, it.turn, self.sent()),
            correlation_id: it.id.to_string(),
            at: self.at,
            body: Json::of(&data),
            headers: Map::new(),
            trace: it.origin.trace.clone(),
            command: None,
            chosen: None,
            stamp: Some(it.stamp()),
        };
        self.effects.push(Effect::Send(message));
    }

    /// The body of a message: its template, or all of `data`.
    pub fn body(&self, with: Option<&Template>, vars: Vars<'_>, place: Place) -> Result<Json> {
        match with {
            Some(template) => Ok(Json::of(&self.render(template, vars, place)?)),
            None => Ok(Json::of(&self.it.data)),
        }
    }

    pub fn headers(&self, headers: &[(String, Template)], vars: Vars<'_>, place: Place) -> Result<Map<String, Value>> {
        headers.iter().map(|(name, value)| Ok((name.clone(), self.render(value, vars, place)?))).collect()
    }

    /// How many messages this turn has sent so far: the place of the next.
    fn sent(&self) -> usize {
        self.effects.iter().filter(|effect| matches!(effect, Effect::Send(_))).count()
    }

    /// What AMQP could not carry is found here, before there is a row.
    fn push(&mut self, message: Outgoing) -> Result<()> {
        let too_large = |error: String| Fault { kind: IncidentKind::TooLarge, error, place: None };
        let size = message.body.text().len();
        if size > MAX_MESSAGE_BYTES {
            let error = format!("the body of {} has {size} bytes, more than {MAX_MESSAGE_BYTES}", message.kind);
            return Err(too_large(error));
        }
        let key = match &message.to {
            Destination::Command { address } => format!("{address}.{}", message.kind),
            Destination::Queue { name } => name.clone(),
            Destination::Event | Destination::Lifecycle => message.kind.clone(),
        };
        for (what, text) in [("routing key", &key), ("correlation id", &message.correlation_id)] {
            if text.len() > MAX_NAME_BYTES {
                let error =
                    format!("the {what} of {} has {} bytes, more than {MAX_NAME_BYTES}", message.kind, text.len());
                return Err(too_large(error));
            }
        }
        let headers: usize = message.headers.iter().map(|(name, value)| name.len() + value.to_string().len()).sum();
        let longest = message.headers.keys().map(String::len).max().unwrap_or(0);
        if headers > MAX_HEADER_BYTES || longest > MAX_NAME_BYTES {
            return Err(too_large(format!("the headers of {} are too large ({headers} bytes)", message.kind)));
        }
        self.effects.push(Effect::Send(message));
        Ok(())
    }
}

/// Whom an answer to this message goes to.
pub(super) fn sender_of(message: &Message) -> Sender {
    Sender {
        message_id: message.id.clone(),
        correlation_id: message.correlation_id.clone(),
        reply_to: message.reply_to.clone(),
        trace: message.traceparent.as_deref().and_then(trace_id),
    }
}

/// The trace id of a W3C `traceparent`: `00-<32 hex>-<16 hex>-<flags>`.
fn trace_id(traceparent: &str) -> Option<String> {
    let mut parts = traceparent.split('-');
    let (_version, trace) = (parts.next()?, parts.next()?);
    let valid = trace.len() == 32
        && trace.bytes().all(|byte| byte.is_ascii_hexdigit())
        && trace.bytes().any(|byte| byte != b'0');
    valid.then(|| trace.to_ascii_lowercase())
}
