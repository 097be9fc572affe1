//! What comes in: properties and bytes → a message, or why they are none.

#![expect(clippy::result_large_err, reason = "the error is no larger than the message, and both are rare to move")]

use serde_json::{Map, Value};

use super::cloudevent::{self, Attributes};
use super::types::Types;
use crate::engine::{Bad, BadReason, Raw};
use crate::saga::event::Message;
use crate::saga::json::{self, BodyError, Limits};
use crate::saga::time::Timestamp;

/// Reads a delivery. `arrived` is its time where it does not say one itself.
pub fn decode(raw: &Raw, types: &Types, limits: &Limits, arrived: Timestamp) -> Result<Message, Bad> {
    let mut told = Told::default();
    read(raw, types, limits, arrived, &mut told).map_err(|(reason, error)| Bad {
        reason,
        error,
        kind: told.kind,
        message_id: told.id,
        source: told.source,
        correlation_id: told.correlation_id,
    })
}

/// What could be told of a message so far; kept also when the rest cannot be read.
#[derive(Default)]
struct Told {
    kind: Option<String>,
    id: Option<String>,
    source: String,
    correlation_id: Option<String>,
}

type Problem = (BadReason, String);

fn read(raw: &Raw, types: &Types, limits: &Limits, arrived: Timestamp, told: &mut Told) -> Result<Message, Problem> {
    let property = |name: &str| text_of(&raw.properties, name);
    told.kind = property("type")?;
    told.id = property("message_id")?;
    told.source = property("app_id")?.unwrap_or_default();
    told.correlation_id = property("correlation_id")?;
    if told.kind.is_none() {
        told.kind = by_routing(raw, types);
    }
    let structured = property("content_type")?.is_some_and(|kind| cloudevent::is_structured(&kind));
    let mut attributes = if structured {
        // What the client wrote as properties stays told if the body cannot be read.
        refuse_encoding(raw)?;
        let envelope = parse(&raw.body, &one_deeper(limits))?;
        Attributes::of_structured(envelope)?
    } else {
        Attributes::of_headers(&raw.headers)?
    };
    let kind = match property("type")? {
        Some(kind) => Some(kind),
        None => attributes.kind.take().or_else(|| by_routing(raw, types)),
    };
    told.kind.clone_from(&kind);
    told.id = told.id.take().or(attributes.id.take());
    if let Some(source) = attributes.source.take() {
        told.source = source;
    }
    told.correlation_id = told.correlation_id.take().or(attributes.correlation_id.take());
    let time = match (timestamp(raw)?, attributes.time.take()) {
        (Some(time), _) => time,
        (None, Some(text)) => Timestamp::parse(&text)
            .map_err(|error| (BadReason::BadProperty, format!("the CloudEvent's time: {error}")))?,
        (None, None) => arrived,
    };
    let body = if structured {
        attributes.data(limits)?
    } else {
        refuse_encoding(raw)?;
        parse(&raw.body, limits)?
    };
    let kind = kind.ok_or_else(|| (BadReason::NoType, no_type(raw)))?;
    Ok(Message {
        kind,
        id: told.id.clone(),
        source: told.source.clone(),
        correlation_id: told.correlation_id.clone(),
        reply_to: property("reply_to")?,
        time,
        traceparent: raw
            .headers
            .get("traceparent")
            .and_then(Value::as_str)
            .filter(|text| is_trace(text))
            .map(str::to_owned),
        headers: raw.headers.clone(),
        routing_key: raw.routing_key.clone(),
        body,
    })
}

/// The type by exchange and routing key, where the message itself does not name it.
fn by_routing(raw: &Raw, types: &Types) -> Option<String> {
    if let Some(kind) = types.named_by(&raw.exchange, &raw.routing_key) {
        return Some(kind.to_owned());
    }
    // Through the default exchange the routing key is the queue's name.
    if raw.exchange.is_empty() || raw.routing_key.is_empty() {
        return None;
    }
    if types.knows(&raw.routing_key) {
        return Some(raw.routing_key.clone());
    }
    raw.routing_key.rsplit('.').next().filter(|word| !word.is_empty()).map(str::to_owned)
}

fn no_type(raw: &Raw) -> String {
    if raw.exchange.is_empty() {
        "no property type, and through the default exchange the routing key is no type".to_owned()
    } else {
        format!("no property type, and the routing key '{}' names none", raw.routing_key)
    }
}

/// A property or attribute that is a text; an empty one counts as absent.
pub(super) fn text_of(map: &Map<String, Value>, name: &str) -> Result<Option<String>, Problem> {
    match map.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(other) => Err((BadReason::BadProperty, format!("{name} is a {}, not a text", json::type_name(other)))),
    }
}

/// The property `timestamp`: seconds since 1970.
fn timestamp(raw: &Raw) -> Result<Option<Timestamp>, Problem> {
    let Some(value) = raw.properties.get("timestamp") else { return Ok(None) };
    let time = value.as_i64().and_then(|seconds| seconds.checked_mul(1000)).map(Timestamp);
    time.filter(|time| time.is_writable())
        .map(Some)
        .ok_or_else(|| (BadReason::BadProperty, format!("timestamp {value} is no time in seconds since 1970")))
}

fn refuse_encoding(raw: &Raw) -> Result<(), Problem> {
    match text_of(&raw.properties, "content_encoding")? {
        Some(encoding) if !encoding.eq_ignore_ascii_case("identity") => {
            Err((BadReason::NotJson, format!("content encoding '{encoding}' is not read")))
        }
        _ => Ok(()),
    }
}

pub(super) fn parse(bytes: &[u8], limits: &Limits) -> Result<Value, Problem> {
    json::parse(bytes, limits).map_err(|error| match error {
        BodyError::NotJson(text) => (BadReason::NotJson, text),
        BodyError::TooLarge(text) => (BadReason::TooLarge, text),
        BodyError::TooDeep(text) => (BadReason::TooDeep, text),
    })
}

/// The envelope of a structured `CloudEvent` is one object around the body.
fn one_deeper(limits: &Limits) -> Limits {
    Limits { depth: limits.depth.saturating_add(1), ..*limits }
}

/// Whether a text is a `traceparent` of W3C; one that is not starts no trace and stops no message.
fn is_trace(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let hex = |part: &str, digits: usize| {
        part.len() == digits && part.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    };
    let zero = |part: &str| part.bytes().all(|byte| byte == b'0');
    parts.len() >= 4
        && hex(parts[0], 2)
        && parts[0] != "ff"
        && (parts[0] != "00" || parts.len() == 4)
        && hex(parts[1], 32)
        && hex(parts[2], 16)
        && hex(parts[3], 2)
        && !zero(parts[1])
        && !zero(parts[2])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::saga::machine::Origin;

    const ARRIVED: Timestamp = Timestamp(1_893_456_000_000);

    fn types() -> Types {
        let from = Origin { exchange: "groups".to_owned(), routing_key: "slot.freed".to_owned() };
        Types::listed([
            ("OrderPlaced".to_owned(), None),
            ("shop.order.placed".to_owned(), None),
            ("SlotFreed".to_owned(), Some(from)),
        ])
    }

    fn raw(properties: Value, headers: Value, body: &str) -> Raw {
        let object = |value| match value {
            Value::Object(map) => map,
            other => panic!("{other} is no object"),
        };
        Raw {
            exchange: "events".to_owned(),
            routing_key: "OrderPlaced".to_owned(),
            properties: object(properties),
            headers: object(headers),
            body: body.as_bytes().to_vec(),
            redelivered: false,
        }
    }

    fn read(raw: &Raw) -> Result<Message, Bad> {
        decode(raw, &types(), &Limits::default(), ARRIVED)
    }

    fn reason(raw: &Raw) -> &'static str {
        read(raw).unwrap_err().reason.name()
    }

    #[test]
    fn every_part_comes_from_its_property() {
        let message = read(&raw(
            json!({
                "type": "OrderPlaced", "message_id": "m1", "correlation_id": "c1", "app_id": "shop",
                "reply_to": "shop.answers", "timestamp": 1_700_000_000, "content_type": "text/plain"
            }),
            json!({ "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tenant": "t1" }),
            r#"{"n": 1.50}"#,
        ))
        .unwrap();
        assert_eq!(message.kind, "OrderPlaced");
        assert_eq!(message.id.as_deref(), Some("m1"));
        assert_eq!(message.source, "shop");
        assert_eq!(message.correlation_id.as_deref(), Some("c1"));
        assert_eq!(message.reply_to.as_deref(), Some("shop.answers"));
        assert_eq!(message.time, Timestamp(1_700_000_000_000));
        assert_eq!(message.traceparent.as_deref(), Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"));
        assert_eq!(message.headers["tenant"], json!("t1"));
        assert_eq!(message.routing_key, "OrderPlaced");
        assert_eq!(message.body.to_string(), r#"{"n":1.50}"#);
    }

    #[test]
    fn what_is_absent_or_empty_is_absent() {
        let empty = json!({ "type": "", "message_id": "", "correlation_id": "", "app_id": "", "reply_to": "" });
        for properties in [empty, json!({})] {
            let message = read(&raw(properties, json!({ "traceparent": "00-nonsense" }), "7")).unwrap();
            assert_eq!(message.kind, "OrderPlaced");
            assert_eq!(
                (message.id, message.correlation_id, message.reply_to, message.traceparent),
                (None, None, None, None)
            );
            assert_eq!((message.source.as_str(), message.time, message.body), ("", ARRIVED, json!(7)));
        }
    }

    #[test]
    fn the_type_is_looked_for_in_order() {
        let at = |exchange: &str, routing_key: &str, properties: Value, headers: Value| {
            let mut raw = raw(properties, headers, "{}");
            exchange.clone_into(&mut raw.exchange);
            routing_key.clone_into(&mut raw.routing_key);
            read(&raw).map(|message| message.kind).map_err(|bad| bad.reason.name())
        };
        let kind = |text: &str| Ok(text.to_owned());
        let event = json!({ "cloudEvents_type": "ByEvent" });
        assert_eq!(at("groups", "slot.freed", json!({ "type": "ByProperty" }), event.clone()), kind("ByProperty"));
        assert_eq!(at("groups", "slot.freed", json!({}), event), kind("ByEvent"));
        assert_eq!(at("groups", "slot.freed", json!({}), json!({})), kind("SlotFreed"));
        assert_eq!(at("events", "slot.freed", json!({}), json!({})), kind("freed"));
        assert_eq!(at("events", "shop.order.placed", json!({}), json!({})), kind("shop.order.placed"));
        assert_eq!(at("events", "shop.order.shipped", json!({}), json!({})), kind("shipped"));
        assert_eq!(at("", "sagad", json!({}), json!({})), Err("no-type"));
        assert_eq!(at("", "sagad", json!({ "type": "OrderPlaced" }), json!({})), kind("OrderPlaced"));
        assert_eq!(at("events", "", json!({}), json!({})), Err("no-type"));
        assert_eq!(at("events", "shop.", json!({}), json!({})), Err("no-type"));
    }

    #[test]
    fn a_structured_cloud_event_is_unwrapped() {
        let body = r#"{
            "specversion": "1.0", "type": "OrderPlaced", "id": "e1", "source": "/shop", "time": "2030-01-01T00:00:01Z",
            "correlationid": "c1", "data": { "sum": 10.0 }
        }"#;
        let structured = json!({ "content_type": "application/CloudEvents+json; charset=utf-8", "app_id": "lib" });
        let message = read(&raw(structured, json!({}), body)).unwrap();
        assert_eq!(message.kind, "OrderPlaced");
        assert_eq!(message.id.as_deref(), Some("e1"));
        assert_eq!(message.source, "/shop");
        assert_eq!(message.correlation_id.as_deref(), Some("c1"));
        assert_eq!(message.time, Timestamp(1_893_456_001_000));
        assert_eq!(message.body.to_string(), r#"{"sum":10.0}"#);
    }

    #[test]
    fn properties_go_before_a_cloud_event_but_for_the_source() {
        let body = r#"{ "type": "ByEvent", "id": "e1", "source": "/shop", "time": "2030-01-01T00:00:01Z",
            "correlationid": "c2", "data": null }"#;
        let properties = json!({
            "content_type": "application/cloudevents+json", "type": "OrderPlaced", "message_id": "m1",
            "correlation_id": "c1", "app_id": "lib", "timestamp": 1
        });
        let message = read(&raw(properties, json!({}), body)).unwrap();
        assert_eq!((message.kind.as_str(), message.id.as_deref()), ("OrderPlaced", Some("m1")));
        assert_eq!((message.source.as_str(), message.correlation_id.as_deref()), ("/shop", Some("c1")));
        assert_eq!((message.time, message.body), (Timestamp(1000), Value::Null));
    }

    #[test]
    fn a_binary_cloud_event_has_its_attributes_in_headers_of_either_spelling() {
        for prefix in ["cloudEvents_", "cloudEvents:"] {
            let mut headers = Map::new();
            for (name, value) in [
                ("specversion", "1.0"),
                ("type", "ByEvent"),
                ("id", "e1"),
                ("source", "/shop"),
                ("time", "2030-01-01T00:00:01Z"),
                ("correlationid", "c1"),
            ] {
                headers.insert(format!("{prefix}{name}"), json!(value));
            }
            let message = read(&raw(json!({ "app_id": "lib" }), Value::Object(headers), "[1]")).unwrap();
            assert_eq!((message.kind.as_str(), message.id.as_deref()), ("ByEvent", Some("e1")));
            assert_eq!((message.source.as_str(), message.correlation_id.as_deref()), ("/shop", Some("c1")));
            assert_eq!((message.time, message.body), (Timestamp(1_893_456_001_000), json!([1])));
        }
    }

    #[test]
    fn base64_data_of_a_structured_event_is_json_too() {
        let event = |data: &str| {
            let body = format!(r#"{{ "type": "OrderPlaced", "data_base64": "{data}" }}"#);
            read(&raw(json!({ "content_type": "application/cloudevents+json" }), json!({}), &body))
        };
        assert_eq!(event("eyJhIjoxfQ==").unwrap().body, json!({ "a": 1 }));
        assert_eq!(event("AAEC").unwrap_err().reason, BadReason::NotJson);
        assert_eq!(event("%%").unwrap_err().reason, BadReason::NotJson);
    }

    #[test]
    fn what_is_no_json_within_the_limits_says_which() {
        assert_eq!(reason(&raw(json!({}), json!({}), "")), "not-json");
        assert_eq!(reason(&raw(json!({}), json!({}), "{'a':1}")), "not-json");
        assert_eq!(reason(&raw(json!({ "content_encoding": "gzip" }), json!({}), "{}")), "not-json");
        assert!(read(&raw(json!({ "content_encoding": "Identity" }), json!({}), "{}")).is_ok());
        assert!(read(&raw(json!({ "content_encoding": "" }), json!({}), "{}")).is_ok());
        let mut latin = raw(json!({}), json!({}), "");
        latin.body = vec![b'"', 0xe9, b'"'];
        assert_eq!(reason(&latin), "not-json");
        let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(read(&raw(json!({}), json!({}), &deep(64))).is_ok());
        assert_eq!(reason(&raw(json!({}), json!({}), &deep(65))), "too-deep");
        let large = format!("\"{}\"", "x".repeat(1024 * 1024));
        assert_eq!(reason(&raw(json!({}), json!({}), &large)), "too-large");
        let many = format!("[{}0]", "0,".repeat(100_000));
        assert_eq!(reason(&raw(json!({}), json!({}), &many)), "too-large");
    }

    #[test]
    fn the_data_of_a_structured_event_may_be_as_deep_as_any_body() {
        let event = |levels: usize| {
            let data = format!("{}{}", "[".repeat(levels), "]".repeat(levels));
            let body = format!(r#"{{ "type": "OrderPlaced", "data": {data} }}"#);
            read(&raw(json!({ "content_type": "application/cloudevents+json" }), json!({}), &body))
        };
        assert!(event(64).is_ok());
        assert_eq!(event(65).unwrap_err().reason, BadReason::TooDeep);
    }

    #[test]
    fn a_property_that_cannot_be_used_is_told() {
        assert_eq!(reason(&raw(json!({ "timestamp": 1_700_000_000_000_000_u64 }), json!({}), "{}")), "bad-property");
        assert_eq!(reason(&raw(json!({}), json!({ "cloudEvents_time": "yesterday" }), "{}")), "bad-property");
        assert_eq!(reason(&raw(json!({}), json!({ "cloudEvents_id": 7 }), "{}")), "bad-property");
        let structured = json!({ "content_type": "application/cloudevents+json" });
        assert_eq!(reason(&raw(structured.clone(), json!({}), r#"{"type": 1}"#)), "bad-property");
        assert_eq!(reason(&raw(structured, json!({}), "[]")), "not-json");
    }

    #[test]
    fn what_could_be_told_stays_told() {
        let properties = json!({ "message_id": "m1", "app_id": "shop", "correlation_id": "c1" });
        let bad = read(&raw(properties, json!({}), "{")).unwrap_err();
        assert_eq!(bad.reason, BadReason::NotJson);
        assert_eq!((bad.kind.as_deref(), bad.message_id.as_deref()), (Some("OrderPlaced"), Some("m1")));
        assert_eq!((bad.source.as_str(), bad.correlation_id.as_deref()), ("shop", Some("c1")));
        let binary = json!({ "cloudEvents_id": "e1", "cloudEvents_type": "ByEvent", "cloudEvents_source": "/shop" });
        let bad = read(&raw(json!({}), binary, "{")).unwrap_err();
        assert_eq!((bad.kind.as_deref(), bad.message_id.as_deref()), (Some("ByEvent"), Some("e1")));
        assert_eq!(bad.source, "/shop");
    }
}
