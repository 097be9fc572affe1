//! Message → address: what a definition says about a message before an instance is at hand. Pure: which instances
//! there are, the engine asks the store; in which order definitions are asked, it decides.

use serde_json::Value;

use super::event::Message;
use super::expression::{Env, EvalError, Expression};
use super::ids::InstanceId;
use super::json;
use super::machine::{Machine, Place, Route, Unhandled};
use super::time::Timestamp;
use super::walk::message_value;

/// An expression failed before an instance was found, or a key is no key: the message is set aside.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{}:{}: {error}", place.line, place.column)]
pub struct AddressError {
    pub file: String,
    pub place: Place,
    pub error: String,
}

/// What a definition's `start` says to a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opening {
    /// Its type starts nothing here.
    NoEntry,
    /// Its `when` does not hold: counted, and nothing else.
    Declined,
    /// It is about the instance with this key: starts it, or reaches it where it lives.
    Key(String),
}

/// Which instance a definition's `events` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// The type has no entry.
    NoEntry,
    Key(String),
    Instance(InstanceId),
    /// There is an entry and no way: only `from` was said, or no instance's id came along.
    Nobody,
}

pub fn opening(machine: &Machine, message: &Message, now: Timestamp) -> Result<Opening, AddressError> {
    let Some(start) = machine.starts.get(&message.kind) else { return Ok(Opening::NoEntry) };
    if let Some(when) = &start.when
        && !with_env(message, now, |env| when.holds(env)).map_err(|error| failed(machine, start.place, when, &error))?
    {
        return Ok(Opening::Declined);
    }
    key(machine, &start.key, start.place, message, now).map(Opening::Key)
}

/// The data that an instance started by this message begins with.
pub fn first_data(machine: &Machine, message: &Message, now: Timestamp) -> Result<Value, AddressError> {
    let Some(start) = machine.starts.get(&message.kind) else { return Ok(Value::Object(serde_json::Map::new())) };
    with_env(message, now, |env| start.data.render(env)).map_err(|error| AddressError {
        file: machine.file.clone(),
        place: start.place,
        error: error.to_string(),
    })
}

pub fn address(machine: &Machine, message: &Message, now: Timestamp) -> Result<Address, AddressError> {
    let Some(entry) = machine.events.get(&message.kind) else { return Ok(Address::NoEntry) };
    match &entry.route {
        Route::Key(expression) => key(machine, expression, entry.place, message, now).map(Address::Key),
        Route::Instance => Ok(instance_id(message).map_or(Address::Nobody, Address::Instance)),
        Route::ReplyOnly | Route::Find { .. } => Ok(Address::Nobody),
    }
}

/// Whether a message that nobody takes is recorded or only counted; `otherwise` where no entry says so.
pub fn unhandled(machine: &Machine, kind: &str, otherwise: Unhandled) -> Unhandled {
    let by_start = machine.starts.get(kind).and_then(|start| start.unmatched);
    let by_event = machine.events.get(kind).and_then(|entry| entry.unmatched);
    by_start.or(by_event).unwrap_or(otherwise)
}

fn key(
    machine: &Machine,
    expression: &Expression,
    place: Place,
    message: &Message,
    now: Timestamp,
) -> Result<String, AddressError> {
    let value = with_env(message, now, |env| expression.eval(env))
        .map_err(|error| failed(machine, place, expression, &error))?;
    json::key(&value).ok_or_else(|| AddressError {
        file: machine.file.clone(),
        place,
        error: format!(
            "`{}` gives {}, but a key is a text or an integer of at most {} bytes",
            expression.source(),
            json::type_name(&value),
            json::KEY_LIMIT
        ),
    })
}

fn failed(machine: &Machine, place: Place, expression: &Expression, error: &EvalError) -> AddressError {
    AddressError { file: machine.file.clone(), place, error: format!("{error} in `{}`", expression.source()) }
}

fn with_env<T>(message: &Message, now: Timestamp, evaluate: impl FnOnce(&Env<'_>) -> T) -> T {
    let about = message_value(message);
    evaluate(&Env { event: Some(&message.body), message: Some(&about), now: Some(now), ..Env::default() })
}

fn instance_id(message: &Message) -> Option<InstanceId> {
    let id = uuid::Uuid::try_parse(message.correlation_id.as_deref()?).ok()?;
    (id.get_version_num() == 7).then_some(InstanceId(id))
}
