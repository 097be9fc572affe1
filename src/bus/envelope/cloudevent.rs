//! CloudEvents 1.0 over AMQP 0-9-1: structured (everything in the body) and binary (attributes in headers).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::CLOUD_EVENT;
use super::decode::{parse, text_of};
use crate::engine::BadReason;
use crate::saga::json::Limits;
use crate::saga::time::Timestamp;

/// The spellings of the prefix in headers: AMQP's binding has two, for some brokers take no colon.
const PREFIXES: [&str; 2] = ["cloudEvents_", "cloudEvents:"];

type Problem = (BadReason, String);

pub(super) fn is_structured(content_type: &str) -> bool {
    content_type.split(';').next().is_some_and(|media| media.trim().eq_ignore_ascii_case(CLOUD_EVENT))
}

/// What a `CloudEvent` says of itself, as far as the daemon looks at it. All absent where it is none.
#[derive(Debug, Default)]
pub(super) struct Attributes {
    pub(super) kind: Option<String>,
    pub(super) id: Option<String>,
    pub(super) source: Option<String>,
    pub(super) correlation_id: Option<String>,
    pub(super) time: Option<String>,
    data: Value,
    data_base64: Option<String>,
}

impl Attributes {
    pub(super) fn of_structured(envelope: Value) -> Result<Attributes, Problem> {
        let Value::Object(mut envelope) = envelope else {
            return Err((BadReason::NotJson, "a structured CloudEvent is a JSON object".to_owned()));
        };
        let data = envelope.shift_remove("data").unwrap_or(Value::Null);
        Ok(Attributes {
            kind: text_of(&envelope, "type")?,
            id: text_of(&envelope, "id")?,
            source: text_of(&envelope, "source")?,
            correlation_id: text_of(&envelope, "correlationid")?,
            time: text_of(&envelope, "time")?,
            data,
            data_base64: text_of(&envelope, "data_base64")?,
        })
    }

    pub(super) fn of_headers(headers: &Map<String, Value>) -> Result<Attributes, Problem> {
        let mut found = Attributes::default();
        if !headers.keys().any(|name| name.starts_with("cloudEvents")) {
            return Ok(found);
        }
        let attribute = |name: &str| {
            PREFIXES.iter().try_fold(None, |found: Option<String>, prefix| match found {
                Some(_) => Ok(found),
                None => text_of(headers, &format!("{prefix}{name}")),
            })
        };
        found.kind = attribute("type")?;
        found.id = attribute("id")?;
        found.source = attribute("source")?;
        found.correlation_id = attribute("correlationid")?;
        // Clients that know the type of an attribute write the time as AMQP's own: seconds.
        found.time = PREFIXES
            .iter()
            .find_map(|prefix| headers.get(&format!("{prefix}time")).and_then(Value::as_i64))
            .and_then(|seconds| seconds.checked_mul(1000))
            .map(Timestamp)
            .filter(|time| time.is_writable())
            .map(|time| time.to_string());
        if found.time.is_none() {
            found.time = attribute("time")?;
        }
        Ok(found)
    }

    /// The body of a structured event.
    pub(super) fn data(self, limits: &Limits) -> Result<Value, Problem> {
        match self.data_base64 {
            None => Ok(self.data),
            Some(text) => {
                let bytes =
                    STANDARD.decode(&text).map_err(|error| (BadReason::NotJson, format!("data_base64: {error}")))?;
                parse(&bytes, limits)
            }
        }
    }
}

/// A message of the daemon's own as a structured event, byte for byte the same each time.
pub(super) fn structured(id: &str, kind: &str, subject: &str, time: Timestamp, data: &str) -> String {
    let text = |value: &str| Value::from(value).to_string();
    format!(
        r#"{{"specversion":"1.0","id":{},"source":{},"type":{},"subject":{},"time":{},"datacontenttype":"application/json","data":{data}}}"#,
        text(id),
        text(super::APP_ID),
        text(kind),
        text(subject),
        text(&time.to_string()),
    )
}
