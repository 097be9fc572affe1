//! What the tools print as JSON and the admin interface answers with: the stable contract, and nothing but its shapes.
//!
//! Fields are added, never renamed or removed, within one `format`. Where there is nothing stands `null`. No type here
//! is flattened, untagged or internally tagged: numbers inside a [`Value`] would lose their digits.

use indexmap::IndexMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::saga::time::Timestamp;

/// The `format` of every document.
pub const FORMAT: u32 = 1;

/// `"format": 1` at the top of a document; another one is refused when it is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Format;

impl Serialize for Format {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(FORMAT)
    }
}

impl<'de> Deserialize<'de> for Format {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u32::deserialize(deserializer)? {
            FORMAT => Ok(Format),
            other => Err(serde::de::Error::custom(format!("format {other}, where {FORMAT} is understood"))),
        }
    }
}

/// A point in time, as RFC 3339 UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub Timestamp);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Timestamp::parse(&text).map(Time).map_err(serde::de::Error::custom)
    }
}

/// A struct of the contract: it can be written and read back.
macro_rules! shapes {
    ($($(#[$about:meta])* $name:ident { $($(#[$field_about:meta])* $field:ident: $kind:ty),* $(,)? })*) => {$(
        $(#[$about])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        pub struct $name { $($(#[$field_about])* pub $field: $kind),* }
    )*};
}

/// The fields of an INSTANCE, and what a document adds to them.
macro_rules! instance_shapes {
    ($($(#[$about:meta])* $name:ident { { $($first:ident: $first_kind:ty),* } $($field:ident: $kind:ty),* $(,)? })*) => {
        shapes! {$(
            $(#[$about])*
            $name {
                $($first: $first_kind,)*
                id: String,
                saga: String,
                key: String,
                status: String,
                /// The one it is in; compensating, the one that failed; ended, the last.
                state: String,
                stuck: bool,
                paused: bool,
                settling: bool,
                incident: Option<String>,
                outcome: Option<String>,
                /// What `--expect-turn` takes.
                turn: u64,
                definition: String,
                started_at: Time,
                updated_at: Time,
                ended_at: Option<Time>,
                $($field: $kind),*
            }
        )*}
    };
}

instance_shapes! {
    /// A row of `list`.
    Instance { {} }
    /// `GET /v1/sagas/{saga}/{key}`: for those who poll a process.
    Process { { format: Format } failure: Option<Failure>, data: Value }
    /// `show`.
    Detail { { format: Format }
        why: String,
        data: Value,
        failure: Option<Failure>,
        steps: Vec<Step>,
        timers: Vec<Timer>,
        waiting: Vec<Waiting>,
        decision: Option<Decision>,
        incidents: Vec<Incident>,
        may: Vec<String>,
    }
}

shapes! {
    Instances {
        format: Format,
        instances: Vec<Instance>,
        /// Over HTTP: what `after` takes for the next page.
        next: Option<String>,
    }

    Failure { kind: String, state: String, reason: String }

    /// One command of an instance, in order of sending.
    Step {
        /// As in the header `saga-state`.
        name: String,
        effect: String,
        command: Option<String>,
        command_id: String,
        attempt: u32,
        /// How many there are; `null` for ever.
        attempts: Option<u32>,
        sent_at: Time,
        next_at: Option<Time>,
        undo: Option<Undo>,
    }

    Undo {
        command: Option<String>,
        /// `null` until one went out.
        command_id: Option<String>,
        effect: String,
        attempt: u32,
        next_at: Option<Time>,
    }

    Timer { name: String, due_at: Option<Time> }

    Waiting { event: String, since: Time, place: Option<u64> }

    Decision { number: u32, ask: String, choices: Vec<Choice>, since: Time }

    Choice { name: String, needs: Vec<String> }

    Incident {
        kind: String,
        state: String,
        step: Option<String>,
        error: String,
        source: Option<Source>,
        opened_at: Time,
        closed_at: Option<Time>,
        open: bool,
        /// `step` or `instance`; `null` where it stops nothing.
        stops: Option<String>,
    }

    /// A place in a definition.
    Source { file: String, line: u32, column: u32 }

    Why {
        format: Format,
        id: String,
        why: String,
        waiting: Vec<Waiting>,
        next: Option<Next>,
        near: Vec<NearMessage>,
    }

    /// What happens next by itself.
    Next { what: String, at: Option<Time> }

    /// A message that almost was for this instance.
    NearMessage { message: String, why: String }

    Turns { format: Format, turns: Vec<Turn> }

    Turn {
        turn: u64,
        at: Time,
        cause: Cause,
        from: Option<Position>,
        to: Position,
        changed: Vec<String>,
        notes: Vec<String>,
        messages: Vec<Message>,
    }

    Position { status: String, state: String }

    Cause {
        kind: String,
        #[serde(rename = "type")]
        event: Option<String>,
        body: Option<Value>,
        message_id: Option<String>,
        command_id: Option<String>,
        timer: Option<String>,
        verb: Option<String>,
        by: Option<String>,
        reason: Option<String>,
        request_id: Option<String>,
    }

    /// A message that goes out; lifecycle events are not listed.
    Message {
        kind: String,
        exchange: String,
        routing_key: String,
        #[serde(rename = "type")]
        event: String,
        /// `null` in a dry run for what is not yet started.
        message_id: Option<String>,
        command_id: Option<String>,
        body: Value,
    }

    /// `journal --verify`.
    Verified {
        format: Format,
        checked: u64,
        /// Instances with turns of another version: their chain is checked, they are not replayed.
        other_version: u64,
        broken: Vec<Broken>,
    }

    Broken { id: String, turn: Option<u64>, what: String }

    Status {
        format: Format,
        daemon: Option<Daemon>,
        broker: Broker,
        outbox: u64,
        counts: IndexMap<String, u64>,
        stuck: u64,
        paused: u64,
        settling: u64,
        foreign: u64,
        dropped: u64,
        oldest_stuck_at: Option<Time>,
        database: Database,
        definitions: DefinitionsLoaded,
    }

    Daemon { pid: u32, since: Option<Time>, version: String }

    Broker {
        connected: bool,
        since: Option<Time>,
        blocked: bool,
        error: Option<String>,
        /// What about exchanges, queues and bindings is not as it should be, as found at the last connect.
        findings: Vec<String>,
        /// Messages in the dead queue that cannot be read.
        dead: Option<u64>,
    }

    Database { path: String, bytes: u64, wal_bytes: u64 }

    DefinitionsLoaded { loaded: u64, error: Option<String> }

    Counts {
        format: Format,
        /// The fields asked for, and `count`.
        groups: Vec<Map<String, Value>>,
    }

    Inbox { format: Format, messages: Vec<InboxMessage> }

    InboxMessage {
        n: i64,
        kind: String,
        reason: String,
        #[serde(rename = "type")]
        event: Option<String>,
        message_id: Option<String>,
        source: Option<String>,
        correlation_id: Option<String>,
        routing_key: Option<String>,
        received_at: Time,
        expires_at: Option<Time>,
        headers: Map<String, Value>,
        /// The text where it is UTF-8, else `body_base64`.
        body: Option<String>,
        body_base64: Option<String>,
        near: Vec<NearInstance>,
    }

    NearInstance { id: String, why: String }

    Outbox { format: Format, messages: Vec<OutboxMessage> }

    OutboxMessage {
        kind: String,
        exchange: String,
        routing_key: String,
        #[serde(rename = "type")]
        event: String,
        message_id: Option<String>,
        command_id: Option<String>,
        body: Value,
        /// `null` for what an operator published.
        instance: Option<String>,
        since: Time,
        tries: u32,
        returned: bool,
    }

    Definitions { format: Format, definitions: Vec<Definition> }

    Definition {
        saga: String,
        digest: String,
        loaded_at: Time,
        newest: bool,
        live: u64,
        ended: u64,
    }

    /// Of every order, dry or not.
    Orders {
        format: Format,
        operation: Option<String>,
        dry_run: bool,
        results: Vec<OrderResult>,
    }

    OrderResult {
        id: String,
        saga: String,
        key: String,
        ok: bool,
        error: Option<OrderError>,
        from: Option<Position>,
        to: Option<Position>,
        messages: Vec<Message>,
    }

    OrderError { code: String, message: String }

    Checked {
        format: Format,
        diagnostics: Vec<Diagnostic>,
        /// With `--explain`.
        #[serde(skip_serializing_if = "Option::is_none")]
        configuration: Option<Vec<ConfigurationValue>>,
    }

    /// `value` as it would be written in the file; secrets masked, empty where there is none.
    ConfigurationValue { key: String, value: String, origin: String }

    Diagnostic {
        severity: String,
        code: String,
        message: String,
        hint: String,
        file: String,
        line: u32,
        column: u32,
        end_line: u32,
        end_column: u32,
    }

    Published { format: Format, message_id: String }

    Reloaded { format: Format, loaded: u64, diagnostics: Vec<Diagnostic> }

    /// What goes wrong before there is a document.
    Error { format: Format, error: ErrorBody }

    ErrorBody { code: String, message: String, hint: Option<String> }

    Demo { format: Format, seed: u64, sagas: Vec<DemoSaga>, invariants: Vec<Invariant> }

    DemoSaga { saga: String, completed: u64, compensated: u64, stuck: u64, abandoned: u64 }

    Invariant { saga: String, what: String, holds: bool, found: String }

    Tested {
        format: Format,
        passed: u64,
        failed: u64,
        scenarios: Vec<TestedScenario>,
        coverage: Vec<Coverage>,
    }

    TestedScenario {
        saga: String,
        name: String,
        ok: bool,
        file: String,
        line: u32,
        what: Option<String>,
        duration_ms: u64,
    }

    Coverage {
        saga: String,
        states: u64,
        states_taken: u64,
        transitions: u64,
        transitions_taken: u64,
        never_taken: Vec<String>,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_digits_and_nothing_is_null() {
        let text = concat!(
            r#"{"format":1,"id":"i","saga":"s","key":"k","status":"completed","state":"x","stuck":false,"#,
            r#""paused":false,"settling":false,"incident":null,"outcome":null,"turn":3,"definition":"d","#,
            r#""started_at":"2030-01-01T00:00:00Z","updated_at":"2030-01-01T00:00:00.120Z","ended_at":null,"#,
            r#""failure":null,"data":{"price":1.50,"big":123456789012345678901234567890}}"#
        );
        let process: Process = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&process).unwrap(), text);
    }

    #[test]
    fn another_format_is_refused() {
        let error = serde_json::from_str::<Published>(r#"{"format":2,"message_id":"m"}"#).unwrap_err();
        assert!(error.to_string().contains("format 2"), "{error}");
    }
}
