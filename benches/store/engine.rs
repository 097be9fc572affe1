//! The same sagas through the real engine: deliveries in, decided, written, commands out and confirmed. The participants
//! cost nothing: their answers are made here, at once.

use std::path::Path;
use std::sync::Arc;

use sagad::engine::{BusState, Delivery, Engine, Input, Now, Published, Raw, Settings};
use sagad::saga::compile::compile_stored;
use sagad::saga::effect::Outgoing;
use sagad::saga::event::Message;
use sagad::saga::time::Timestamp;
use sagad::store::Store;

use super::{AT, BATCH, IN_FLIGHT, STAGES, body};

const DEFINITION: &str = "\
saga: bench
about: Three steps, one after the other.
start:
  Begun: { key: event.key, data: { order: \"${event.order}\" } }
defaults: { timeout: 30s, retry: 3 }
states:
  step-0:
    send: participant.First
    with: { order: \"${data.order}\" }
    success: FirstDone
    undo: { send: participant.UndoFirst, success: FirstUndone }
  step-1:
    send: participant.Second
    with: { order: \"${data.order}\" }
    success: SecondDone
    undo: { send: participant.UndoSecond, success: SecondUndone }
  step-2:
    send: participant.Third
    with: { order: \"${data.order}\" }
    success: ThirdDone
    undo: { send: participant.UndoThird, success: ThirdUndone }
";

pub fn engine(path: &Path, events: usize) -> Box<dyn FnOnce()> {
    let machine = Arc::new(compile_stored(DEFINITION, "bench.yaml").expect("the definition is right"));
    let store = Store::create_or_open(path).expect("a new file");
    let now = Now { wall: AT, monotonic_ms: 0 };
    let settings = Settings { grace_ms: 0, lifecycle_events: false, max_batch: BATCH, ..Settings::default() };
    let mut engine = Engine::open(store, vec![machine], settings, now).expect("an empty database");
    engine.batch(vec![Input::Bus(BusState::Up { waiting: 0 })], now).expect("it begins");
    let mut starts: Vec<Delivery> = (0..events / STAGES).rev().map(start).collect();
    Box::new(move || {
        let mut waiting: Vec<Delivery> = Vec::new();
        let mut confirmed = Vec::new();
        let (mut handled, mut under_way, mut clock) = (0, 0, 0);
        while handled < events / STAGES * STAGES {
            while waiting.len() < BATCH && under_way < IN_FLIGHT {
                let Some(next) = starts.pop() else { break };
                waiting.push(next);
                under_way += 1;
            }
            let taken: Vec<Delivery> = waiting.drain(..waiting.len().min(BATCH)).collect();
            handled += taken.len();
            let mut inputs = vec![Input::Published(std::mem::take(&mut confirmed))];
            inputs.extend(taken.into_iter().map(Input::Delivery));
            clock += 1;
            let now = Now { wall: Timestamp(AT.0 + clock), monotonic_ms: clock.unsigned_abs() };
            let out = engine.batch(inputs, now).expect("the disk has room");
            for (at, message) in out.publish {
                confirmed.push((at, Published::Confirmed));
                waiting.push(answer(&message));
            }
            // A saga that has had its last answer makes room for another.
            under_way = under_way.min(waiting.len());
        }
    })
}

fn start(number: usize) -> Delivery {
    let body = serde_json::json!({"key": format!("key-{number}"), "order": body(0)});
    delivery("Begun", &format!("start-{number:08}"), None, body)
}

fn answer(command: &Outgoing) -> Delivery {
    let id = format!("answer-{}", command.message_id);
    delivery(&format!("{}Done", command.kind), &id, Some(command.correlation_id.clone()), body(1))
}

fn delivery(kind: &str, id: &str, correlation_id: Option<String>, body: serde_json::Value) -> Delivery {
    let raw = Raw {
        exchange: "events".to_owned(),
        routing_key: kind.to_owned(),
        body: body.to_string().into_bytes(),
        ..Raw::default()
    };
    let message = Message {
        kind: kind.to_owned(),
        id: Some(id.to_owned()),
        source: "participant".to_owned(),
        correlation_id,
        reply_to: None,
        time: AT,
        traceparent: None,
        headers: serde_json::Map::new(),
        routing_key: kind.to_owned(),
        body,
    };
    Delivery { ack: None, raw: Arc::new(raw), message: Ok(message), dead: false }
}
