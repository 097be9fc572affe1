//! What goes out: a message of a committed turn → properties, headers and bytes. The same message gives the same
//! bytes each time, but for where it goes, which the configuration decides when it is published.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

use super::{APP_ID, CLOUD_EVENT, SHORT_STRING_LIMIT, cloudevent};
use crate::bus::{Address, BusConfig};
use crate::engine::Raw;
use crate::saga::effect::{CommandPart, Destination, Outgoing};

/// All headers of a message together, by a generous estimate: a header frame has 128 KiB, and a larger one closes the
/// channel.
const HEADERS_LIMIT: usize = 96 * 1024;

/// What the configuration says about where messages go.
#[derive(Clone, Debug)]
pub struct Addresses {
    pub queue: String,
    pub events_exchange: String,
    pub commands_exchange: String,
    pub led: BTreeMap<String, Address>,
}

impl From<&BusConfig> for Addresses {
    fn from(config: &BusConfig) -> Addresses {
        Addresses {
            queue: config.queue.clone(),
            events_exchange: config.events_exchange.clone(),
            commands_exchange: config.commands_exchange.clone(),
            led: config.addresses.clone(),
        }
    }
}

/// A message as it is published.
#[derive(Clone, Debug, PartialEq)]
pub struct Wire {
    pub exchange: String,
    pub routing_key: String,
    /// It is returned if no queue takes it.
    pub mandatory: bool,
    pub properties: Properties,
    pub headers: Map<String, Value>,
    pub body: Vec<u8>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Properties {
    pub kind: String,
    pub message_id: String,
    /// Empty: none.
    pub correlation_id: String,
    pub reply_to: Option<String>,
    pub content_type: String,
    /// Seconds since 1970.
    pub timestamp: Option<u64>,
    pub app_id: String,
}

/// A message that AMQP cannot carry. What commits a turn looks first, so this is the last line of defence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("{name} has {bytes} bytes, at most {SHORT_STRING_LIMIT}")]
    TooLong { name: &'static str, bytes: usize },
    #[error("the headers have some {bytes} bytes, at most {HEADERS_LIMIT}")]
    HeadersTooLarge { bytes: usize },
}

pub fn encode(message: &Outgoing, addresses: &Addresses) -> Result<Wire, WireError> {
    let id = message.id();
    let (content_type, body) = match (&message.to, &message.stamp) {
        (Destination::Lifecycle, stamp) => {
            let subject = stamp.as_ref().map(|stamp| format!("{}/{}", stamp.saga, stamp.key)).unwrap_or_default();
            let text = cloudevent::structured(&id, &message.kind, &subject, message.at, message.body.text());
            (CLOUD_EVENT, text.into_bytes())
        }
        _ => ("application/json", message.body.text().as_bytes().to_vec()),
    };
    let (exchange, routing_key, mandatory) = route(message, addresses);
    let awaits = message.command.as_ref().is_some_and(|command| command.awaits);
    let wire = Wire {
        exchange,
        routing_key,
        mandatory,
        properties: Properties {
            kind: message.kind.clone(),
            message_id: id,
            correlation_id: message.correlation_id.clone(),
            reply_to: awaits.then(|| addresses.queue.clone()),
            content_type: content_type.to_owned(),
            timestamp: u64::try_from(message.at.0.div_euclid(1000)).ok(),
            app_id: source(message),
        },
        headers: headers(message),
        body,
    };
    wire.check()?;
    Ok(wire)
}

/// The property `app_id`: the daemon's, unless an operator chose another.
fn source(message: &Outgoing) -> String {
    message.chosen.as_ref().and_then(|chosen| chosen.source.as_deref()).unwrap_or(APP_ID).to_owned()
}

/// Exchange, routing key, and whether somebody must take it.
fn route(message: &Outgoing, addresses: &Addresses) -> (String, String, bool) {
    match &message.to {
        Destination::Command { address } => {
            let usual = || format!("{address}.{}", message.kind);
            match addresses.led.get(address) {
                Some(led) => (led.exchange.clone(), led.routing_key.clone().unwrap_or_else(usual), true),
                None => (addresses.commands_exchange.clone(), usual(), true),
            }
        }
        Destination::Event | Destination::Lifecycle => (addresses.events_exchange.clone(), message.kind.clone(), false),
        Destination::Queue { name } => (String::new(), name.clone(), false),
    }
}

fn headers(message: &Outgoing) -> Map<String, Value> {
    let mut headers = Map::new();
    let mut put = |name: &str, value: Value| headers.insert(name.to_owned(), value);
    if let Some(stamp) = &message.stamp {
        put("saga", Value::from(stamp.saga.as_str()));
        put("saga-id", Value::from(stamp.id.to_string()));
        put("saga-key", Value::from(stamp.key.as_str()));
    }
    if let Some(command) = &message.command {
        command_headers(command, &mut put);
    }
    if let Some(trace) = traceparent(message) {
        put("traceparent", Value::from(trace));
    }
    for (name, value) in &message.headers {
        // What the daemon says of itself, a definition cannot say otherwise.
        if !headers.contains_key(name) {
            headers.insert(name.clone(), value.clone());
        }
    }
    headers
}

fn command_headers(command: &CommandPart, put: &mut impl FnMut(&str, Value) -> Option<Value>) {
    put("saga-state", Value::from(command.state.as_str()));
    put("saga-op", Value::from(if command.undoes.is_some() { "undo" } else { "do" }));
    put("saga-attempt", Value::from(command.attempt));
    if let Some(undone) = &command.undoes {
        put("saga-undoes", Value::from(undone.as_str()));
    }
    if let (true, Some(limit)) = (command.awaits, &command.limit) {
        put("saga-timeout-ms", Value::from(limit.after_ms.to_string()));
    }
}

/// The trace that was inherited, else the instance itself is one; each message is a span of its own.
fn traceparent(message: &Outgoing) -> Option<String> {
    let own = || message.stamp.as_ref().map(|stamp| stamp.id.0.simple().to_string());
    let trace = message.trace.clone().or_else(own)?;
    Some(format!("00-{trace}-{:016x}-01", span(message.message_id)))
}

fn span(message_id: Uuid) -> u64 {
    // Zero is no span.
    xxh3_64(message_id.as_bytes()).max(1)
}

impl Wire {
    fn check(&self) -> Result<(), WireError> {
        let properties = &self.properties;
        let short = [
            ("the exchange's name", &self.exchange),
            ("the routing key", &self.routing_key),
            ("the type", &properties.kind),
            ("the message id", &properties.message_id),
            ("the correlation id", &properties.correlation_id),
            ("the source", &properties.app_id),
        ];
        let names = self.headers.keys().map(|name| ("the name of a header", name));
        let too_long = short.into_iter().chain(names).find(|(_, text)| text.len() > SHORT_STRING_LIMIT);
        if let Some((name, text)) = too_long {
            return Err(WireError::TooLong { name, bytes: text.len() });
        }
        let bytes = self.headers.iter().map(|(name, value)| name.len() + size(value)).sum();
        if bytes > HEADERS_LIMIT { Err(WireError::HeadersTooLarge { bytes }) } else { Ok(()) }
    }

    /// The same message as a queue delivers it; for a broker that is none.
    pub fn delivered(self) -> Raw {
        let properties = self.properties;
        let mut map = Map::new();
        let mut put = |name: &str, value: Value| map.insert(name.to_owned(), value);
        for (name, text) in [
            ("content_type", properties.content_type),
            ("correlation_id", properties.correlation_id),
            ("reply_to", properties.reply_to.unwrap_or_default()),
            ("message_id", properties.message_id),
            ("type", properties.kind),
            ("app_id", properties.app_id),
        ] {
            if !text.is_empty() {
                put(name, Value::from(text));
            }
        }
        if let Some(timestamp) = properties.timestamp {
            put("timestamp", Value::from(timestamp));
        }
        put("delivery_mode", Value::from(2));
        Raw {
            exchange: self.exchange,
            routing_key: self.routing_key,
            properties: map,
            headers: self.headers,
            body: self.body,
            redelivered: false,
        }
    }
}

/// Bytes of a value in a header, with its type and length.
fn size(value: &Value) -> usize {
    8 + match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 8,
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(size).sum(),
        Value::Object(fields) => fields.iter().map(|(name, value)| name.len() + size(value)).sum(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::bus::envelope::{Types, decode};
    use crate::saga::effect::{Chosen, Json, Limit, Stamp};
    use crate::saga::event::Subject;
    use crate::saga::ids::{CommandId, DatabaseId, InstanceId, InstanceNo};
    use crate::saga::json::Limits;
    use crate::saga::time::Timestamp;

    const AT: Timestamp = Timestamp(1_893_456_000_250);

    fn instance() -> InstanceId {
        InstanceId::new(InstanceNo::next(None, AT), DatabaseId(Uuid::from_u128(0x8123_4567_89ab_cdef)))
    }

    fn command() -> Outgoing {
        let id = CommandId::new(instance(), "1//do/1");
        Outgoing {
            to: Destination::Command { address: "groups".to_owned() },
            kind: "ReserveSlot".to_owned(),
            message_id: id.message_id(2),
            correlation_id: id.to_string(),
            at: AT,
            body: Json::of(&json!({ "group": "g1", "price": 1 })),
            headers: Map::from_iter([("tenant".to_owned(), json!("t1"))]),
            trace: None,
            chosen: None,
            command: Some(CommandPart {
                subject: Subject::Step { index: 0, attempt: 2 },
                state: "reserve-slot".to_owned(),
                attempt: 2,
                undoes: None,
                limit: Some(Limit { serial: 1, after_ms: 30_000 }),
                awaits: true,
            }),
            stamp: Some(Stamp { id: instance(), saga: "join-group".to_owned(), key: "r1".to_owned() }),
        }
    }

    fn event(to: Destination) -> Outgoing {
        Outgoing { to, kind: "JoinGroupAccepted".to_owned(), headers: Map::new(), command: None, ..command() }
    }

    fn addresses() -> Addresses {
        Addresses::from(&BusConfig::default())
    }

    #[test]
    fn a_command_carries_everything_that_a_participant_needs() {
        let message = command();
        let wire = encode(&message, &addresses()).unwrap();
        assert_eq!((wire.exchange.as_str(), wire.routing_key.as_str()), ("commands", "groups.ReserveSlot"));
        assert!(wire.mandatory);
        assert_eq!(
            wire.properties,
            Properties {
                kind: "ReserveSlot".to_owned(),
                message_id: message.message_id.to_string(),
                correlation_id: message.correlation_id.clone(),
                reply_to: Some("sagad".to_owned()),
                content_type: "application/json".to_owned(),
                timestamp: Some(1_893_456_000),
                app_id: "sagad".to_owned(),
            }
        );
        let trace = wire.headers["traceparent"].as_str().unwrap().to_owned();
        assert_eq!(trace.split('-').nth(1).unwrap(), instance().0.simple().to_string());
        assert_eq!(
            Value::Object(wire.headers),
            json!({
                "saga": "join-group", "saga-id": instance().to_string(), "saga-key": "r1",
                "saga-state": "reserve-slot", "saga-op": "do", "saga-attempt": 2, "saga-timeout-ms": "30000",
                "traceparent": trace, "tenant": "t1"
            })
        );
        assert_eq!(wire.body, br#"{"group":"g1","price":1}"#);
    }

    #[test]
    fn an_undo_says_what_it_undoes() {
        let mut message = command();
        message.command.as_mut().unwrap().undoes = Some("c0".to_owned());
        let headers = encode(&message, &addresses()).unwrap().headers;
        assert_eq!((&headers["saga-op"], &headers["saga-undoes"]), (&json!("undo"), &json!("c0")));
    }

    #[test]
    fn a_command_that_nobody_answers_has_neither_reply_to_nor_time_limit() {
        let mut message = command();
        message.command.as_mut().unwrap().awaits = false;
        let wire = encode(&message, &addresses()).unwrap();
        assert_eq!(wire.properties.reply_to, None);
        assert!(!wire.headers.contains_key("saga-timeout-ms"));
        assert!(wire.mandatory);
    }

    #[test]
    fn an_address_may_be_led_elsewhere() {
        let mut addresses = addresses();
        let led = |exchange: &str, key: Option<&str>| Address {
            exchange: exchange.to_owned(),
            routing_key: key.map(str::to_owned),
        };
        addresses.led.insert("groups".to_owned(), led("", Some("groups.inbox")));
        let wire = encode(&command(), &addresses).unwrap();
        assert_eq!((wire.exchange.as_str(), wire.routing_key.as_str()), ("", "groups.inbox"));
        addresses.led.insert("groups".to_owned(), led("old", None));
        let wire = encode(&command(), &addresses).unwrap();
        assert_eq!((wire.exchange.as_str(), wire.routing_key.as_str()), ("old", "groups.ReserveSlot"));
    }

    #[test]
    fn an_event_goes_to_the_events_exchange_by_its_type() {
        let wire = encode(&event(Destination::Event), &addresses()).unwrap();
        assert_eq!((wire.exchange.as_str(), wire.routing_key.as_str()), ("events", "JoinGroupAccepted"));
        assert!(!wire.mandatory);
        assert_eq!(wire.properties.reply_to, None);
        let names: Vec<&str> = wire.headers.keys().map(String::as_str).collect();
        assert_eq!(names, ["saga", "saga-id", "saga-key", "traceparent"]);
    }

    #[test]
    fn a_reply_goes_to_the_queue_that_was_named() {
        let wire = encode(&event(Destination::Queue { name: "shop.answers".to_owned() }), &addresses()).unwrap();
        assert_eq!((wire.exchange.as_str(), wire.routing_key.as_str()), ("", "shop.answers"));
        assert!(!wire.mandatory);
    }

    #[test]
    fn a_lifecycle_event_is_a_cloud_event_that_we_read_ourselves() {
        let mut message = event(Destination::Lifecycle);
        "sagad.join-group.completed".clone_into(&mut message.kind);
        let wire = encode(&message, &addresses()).unwrap();
        assert_eq!((wire.exchange.as_str(), wire.routing_key.as_str()), ("events", "sagad.join-group.completed"));
        let envelope: Value = serde_json::from_slice(&wire.body).unwrap();
        assert_eq!(envelope["subject"], "join-group/r1");
        assert_eq!(envelope["specversion"], "1.0");
        let read = decode(&wire.delivered(), &Types::default(), &Limits::default(), Timestamp(0)).unwrap();
        assert_eq!((read.kind.as_str(), read.source.as_str()), ("sagad.join-group.completed", "sagad"));
        assert_eq!(read.id, Some(message.message_id.to_string()));
        assert_eq!(read.body, message.body.value());
    }

    #[test]
    fn what_an_operator_chose_goes_out_as_it_is() {
        let mut message = event(Destination::Event);
        message.stamp = None;
        message.chosen = Some(Chosen { message_id: "my-id".to_owned(), source: Some("/hand".to_owned()) });
        let wire = encode(&message, &addresses()).unwrap();
        assert_eq!((wire.properties.message_id.as_str(), wire.properties.app_id.as_str()), ("my-id", "/hand"));
        assert!(wire.headers.is_empty());
        message.chosen = Some(Chosen { message_id: "my-id".to_owned(), source: None });
        assert_eq!(encode(&message, &addresses()).unwrap().properties.app_id, "sagad");
    }

    #[test]
    fn an_inherited_trace_goes_on_and_each_message_is_a_span() {
        let mut message = command();
        message.trace = Some("0af7651916cd43dd8448eb211c80319c".to_owned());
        let parent = |message: &Outgoing| encode(message, &addresses()).unwrap().headers["traceparent"].clone();
        let first = parent(&message);
        assert!(first.as_str().unwrap().starts_with("00-0af7651916cd43dd8448eb211c80319c-"));
        assert_eq!(first, parent(&message));
        message.message_id = Uuid::from_u128(1);
        assert_ne!(first, parent(&message));
    }

    #[test]
    fn a_definition_cannot_speak_for_the_daemon() {
        let mut message = command();
        message.headers.insert("saga-id".to_owned(), json!("forged"));
        let headers = encode(&message, &addresses()).unwrap().headers;
        assert_eq!(headers["saga-id"], json!(instance().to_string()));
    }

    #[test]
    fn what_amqp_cannot_carry_is_refused_before_it_is_tried() {
        let long = "x".repeat(256);
        let mut message = command();
        message.correlation_id.clone_from(&long);
        let error = encode(&message, &addresses()).unwrap_err();
        assert_eq!(error, WireError::TooLong { name: "the correlation id", bytes: 256 });
        let mut message = command();
        message.to = Destination::Command { address: "a".repeat(250) };
        assert!(matches!(encode(&message, &addresses()), Err(WireError::TooLong { name: "the routing key", .. })));
        let mut message = command();
        message.headers.insert(long, json!(1));
        assert!(matches!(encode(&message, &addresses()), Err(WireError::TooLong { name: "the name of a header", .. })));
        let mut message = command();
        message.headers.insert("note".to_owned(), json!("x".repeat(100_000)));
        assert!(matches!(encode(&message, &addresses()), Err(WireError::HeadersTooLarge { .. })));
    }
}
