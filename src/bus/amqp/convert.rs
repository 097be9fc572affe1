//! The client library's types ↔ ours. Names no exchange and decides nothing.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::{AMQPValue, FieldArray, FieldTable, ShortString, ShortStringError};
use serde_json::{Map, Number, Value, json};

use crate::bus::envelope::Wire;
use crate::engine::Raw;

/// Tables inside tables that a header may have; more is cut off, for reading it is recursive.
const DEPTH_LIMIT: usize = 32;
/// Persistent.
const DELIVERY_MODE: u8 = 2;

pub(super) fn raw(delivery: Delivery) -> Raw {
    let Delivery { exchange, routing_key, redelivered, properties, data, .. } = delivery;
    let headers = properties.headers().as_ref().map(|table| table_of(table, DEPTH_LIMIT)).unwrap_or_default();
    Raw {
        exchange: exchange.into(),
        routing_key: routing_key.into(),
        properties: properties_of(&properties),
        headers,
        body: data,
        redelivered,
    }
}

fn properties_of(properties: &BasicProperties) -> Map<String, Value> {
    let mut map = Map::new();
    let texts = [
        ("content_type", properties.content_type()),
        ("content_encoding", properties.content_encoding()),
        ("correlation_id", properties.correlation_id()),
        ("reply_to", properties.reply_to()),
        ("expiration", properties.expiration()),
        ("message_id", properties.message_id()),
        ("type", properties.kind()),
        ("user_id", properties.user_id()),
        ("app_id", properties.app_id()),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            map.insert(name.to_owned(), Value::from(text.as_str()));
        }
    }
    if let Some(mode) = properties.delivery_mode() {
        map.insert("delivery_mode".to_owned(), Value::from(*mode));
    }
    if let Some(priority) = properties.priority() {
        map.insert("priority".to_owned(), Value::from(*priority));
    }
    if let Some(timestamp) = properties.timestamp() {
        map.insert("timestamp".to_owned(), Value::from(*timestamp));
    }
    map
}

fn table_of(table: &FieldTable, depth: usize) -> Map<String, Value> {
    table.inner().iter().map(|(name, value)| (name.as_str().to_owned(), value_of(value, depth))).collect()
}

fn value_of(value: &AMQPValue, depth: usize) -> Value {
    let float = |number: f64| Number::from_f64(number).map_or_else(|| Value::from(number.to_string()), Value::Number);
    match value {
        AMQPValue::Boolean(value) => Value::from(*value),
        AMQPValue::ShortShortInt(value) => Value::from(*value),
        AMQPValue::ShortShortUInt(value) => Value::from(*value),
        AMQPValue::ShortInt(value) => Value::from(*value),
        AMQPValue::ShortUInt(value) => Value::from(*value),
        AMQPValue::LongInt(value) => Value::from(*value),
        AMQPValue::LongUInt(value) => Value::from(*value),
        AMQPValue::LongLongInt(value) => Value::from(*value),
        AMQPValue::Float(value) => float(f64::from(*value)),
        AMQPValue::Double(value) => float(*value),
        AMQPValue::DecimalValue(decimal) => decimal_of(decimal.value, decimal.scale),
        AMQPValue::ShortString(text) => Value::from(text.as_str()),
        AMQPValue::LongString(bytes) => match std::str::from_utf8(bytes.as_bytes()) {
            Ok(text) => Value::from(text),
            Err(_) => bytes_of(bytes.as_bytes()),
        },
        AMQPValue::ByteArray(bytes) => bytes_of(bytes.as_slice()),
        AMQPValue::Timestamp(seconds) => Value::from(*seconds),
        AMQPValue::FieldArray(_) | AMQPValue::FieldTable(_) if depth == 0 => Value::Null,
        AMQPValue::FieldArray(items) => items.as_slice().iter().map(|item| value_of(item, depth - 1)).collect(),
        AMQPValue::FieldTable(table) => Value::Object(table_of(table, depth - 1)),
        AMQPValue::Void => Value::Null,
    }
}

/// A decimal of AMQP with its digits: value and how many of them stand behind the point.
fn decimal_of(value: u32, scale: u8) -> Value {
    let scale = usize::from(scale);
    let digits = format!("{value:0>width$}", width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let text = if fraction.is_empty() { whole.to_owned() } else { format!("{whole}.{fraction}") };
    serde_json::from_str(&text).unwrap_or(Value::from(text))
}

/// Bytes that are no text.
fn bytes_of(bytes: &[u8]) -> Value {
    json!({ "base64": STANDARD.encode(bytes) })
}

/// What is published, in the client's types. Lengths were checked when the message was encoded; a short string that
/// is too long would panic in the client.
pub(super) struct Sendable {
    pub(super) exchange: ShortString,
    pub(super) routing_key: ShortString,
    pub(super) properties: BasicProperties,
}

pub(super) fn sendable(wire: &Wire) -> Result<Sendable, ShortStringError> {
    let short = |text: &str| ShortString::try_new(text);
    let from = &wire.properties;
    let mut properties = BasicProperties::default()
        .with_content_type(short(&from.content_type)?)
        .with_delivery_mode(DELIVERY_MODE)
        .with_message_id(short(&from.message_id)?)
        .with_type(short(&from.kind)?)
        .with_app_id(short(&from.app_id)?)
        .with_headers(field_table(&wire.headers)?);
    if !from.correlation_id.is_empty() {
        properties = properties.with_correlation_id(short(&from.correlation_id)?);
    }
    if let Some(reply_to) = &from.reply_to {
        properties = properties.with_reply_to(short(reply_to)?);
    }
    if let Some(timestamp) = from.timestamp {
        properties = properties.with_timestamp(timestamp);
    }
    Ok(Sendable { exchange: short(&wire.exchange)?, routing_key: short(&wire.routing_key)?, properties })
}

fn field_table(map: &Map<String, Value>) -> Result<FieldTable, ShortStringError> {
    let mut table = FieldTable::default();
    for (name, value) in map {
        table.insert(ShortString::try_new(name.as_str())?, field(value)?);
    }
    Ok(table)
}

fn field(value: &Value) -> Result<AMQPValue, ShortStringError> {
    Ok(match value {
        Value::Null => AMQPValue::Void,
        Value::Bool(value) => AMQPValue::Boolean(*value),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => AMQPValue::LongLongInt(whole),
            (None, Some(decimal)) if decimal.is_finite() => AMQPValue::Double(decimal),
            _ => AMQPValue::LongString(number.to_string().into()),
        },
        Value::String(text) => AMQPValue::LongString(text.as_str().into()),
        Value::Array(items) => {
            let items: Result<Vec<_>, _> = items.iter().map(field).collect();
            AMQPValue::FieldArray(FieldArray::from(items?))
        }
        Value::Object(map) => AMQPValue::FieldTable(field_table(map)?),
    })
}

#[cfg(test)]
mod tests {
    use lapin::types::{ByteArray, DecimalValue};

    use super::*;

    #[test]
    fn every_type_of_a_header_has_its_json() {
        for (value, expected) in [
            (AMQPValue::Boolean(true), "true"),
            (AMQPValue::LongLongInt(-7), "-7"),
            (AMQPValue::Double(1.5), "1.5"),
            (AMQPValue::Double(f64::NAN), r#""NaN""#),
            (AMQPValue::DecimalValue(DecimalValue { scale: 2, value: 1050 }), "10.50"),
            (AMQPValue::DecimalValue(DecimalValue { scale: 3, value: 5 }), "0.005"),
            (AMQPValue::DecimalValue(DecimalValue { scale: 0, value: 5 }), "5"),
            (AMQPValue::LongString("é".into()), r#""é""#),
            (AMQPValue::LongString(vec![0xe9].into()), r#"{"base64":"6Q=="}"#),
            (AMQPValue::ByteArray(ByteArray::from(&b"ab"[..])), r#"{"base64":"YWI="}"#),
            (AMQPValue::Timestamp(1), "1"),
            (AMQPValue::Void, "null"),
        ] {
            assert_eq!(value_of(&value, 1).to_string(), expected);
        }
    }

    #[test]
    fn headers_that_go_out_come_in_the_same() {
        let headers =
            json!({ "a": 1, "b": "x", "c": [true, null], "d": { "e": 2.5 }, "f": 18_446_744_073_709_551_615_u64 });
        let Value::Object(map) = headers else { panic!("an object") };
        let back = table_of(&field_table(&map).unwrap(), DEPTH_LIMIT);
        assert_eq!(back["a"], map["a"]);
        assert_eq!(back["b"], map["b"]);
        assert_eq!(back["c"], map["c"]);
        assert_eq!(back["d"], map["d"]);
    }

    #[test]
    fn tables_without_end_are_cut_off() {
        let mut value = AMQPValue::Void;
        for _ in 0..1000 {
            value = AMQPValue::FieldArray(FieldArray::from(vec![value]));
        }
        assert_eq!(value_of(&value, DEPTH_LIMIT).to_string().len(), 2 * DEPTH_LIMIT + 4);
    }
}
