//! Cost of the pure core alone: one turn of an instance, with its templates and guards, without database or broker.
//!
//! `cargo bench --bench core`. A turn should stay below 5 µs.

use divan::Bencher;
use sagad::saga::compile::{SourceFile, load};
use sagad::saga::effect::Effect;
use sagad::saga::event::{Given, Input, Message};
use sagad::saga::ids::{CommandId, DatabaseId, InstanceId, InstanceNo};
use sagad::saga::instance::{DefinitionNo, Instance};
use sagad::saga::machine::Machine;
use sagad::saga::step::step;
use sagad::saga::time::Timestamp;
use serde_json::{Map, Value, json};

/// Three steps, as most sagas have them: a guard at each answer, a body made of data, an undo with a body of its own.
const DEFINITION: &str = r#"
saga: bench
about: Three steps with guards.
start:
  Wanted: { key: event.id, data: { user: "${event.user}", amount: "${event.amount}" } }
defaults: { timeout: 30s, retry: 3 }
states:
  hold:
    send: accounts.Hold
    with: { user: "${data.user}", amount: "${data.amount}", for: "saga ${saga.key}" }
    success:
      Held:
        - { when: event.amount < data.amount, fail: too little }
        - { set: { hold: "${event.hold}" }, then: next }
    failure: HoldRefused
    undo: { send: accounts.Release, with: { hold: "${default(reply.hold, '')}" }, success: Released }
  book:
    send: seats.Book
    with: { user: "${data.user}", hold: "${data.hold}" }
    success: Booked
    failure: BookingRefused
    undo: { send: seats.Unbook, success: Unbooked }
  pay:
    pivot: true
    send: accounts.Pay
    with: { hold: "${data.hold}" }
    success: Paid
completed:
  publish: { event: Done, with: { id: "${saga.key}" } }
"#;

const AT: Timestamp = Timestamp(1_900_000_000_000);

fn main() {
    divan::main();
}

#[divan::bench]
fn start(bencher: Bencher) {
    let machine = machine();
    let (instance, given) = begin(&machine);
    bencher.bench_local(|| step(&machine, &instance, &given));
}

#[divan::bench]
fn success_with_a_guard(bencher: Bencher) {
    let machine = machine();
    let (instance, command) = after_start(&machine);
    let given = answer(command, "Held", json!({"hold": "h-1", "amount": 250}));
    bencher.bench_local(|| step(&machine, &instance, &given));
}

#[divan::bench]
fn refusal_that_begins_the_way_back(bencher: Bencher) {
    let machine = machine();
    let (instance, command) = after_start(&machine);
    let turn = step(&machine, &instance, &answer(command, "Held", json!({"hold": "h-1", "amount": 250})));
    let given = answer(command_of(&turn.effects), "BookingRefused", json!({"reason": "sold out"}));
    bencher.bench_local(|| step(&machine, &turn.instance, &given));
}

fn machine() -> Machine {
    let file = SourceFile { path: "bench.yaml".to_owned(), text: DEFINITION.to_owned() };
    let mut loaded = load(&[file]);
    assert!(!loaded.has_errors(), "{:?}", loaded.diagnostics);
    let machine = loaded.machines.pop().expect("a file without errors is a machine");
    std::sync::Arc::into_inner(machine).expect("nobody else holds it")
}

fn begin(machine: &Machine) -> (Instance, Given) {
    let id = InstanceId::new(InstanceNo::next(None, AT), DatabaseId(uuid::Uuid::from_u128(7)));
    let message = message("Wanted", json!({"id": "w-1", "user": "ann", "amount": 250, "note": "x".repeat(200)}));
    let data = json!({"user": "ann", "amount": 250});
    let instance = Instance::fresh(machine, id, DefinitionNo(1), "w-1".to_owned(), data, &message, AT);
    (instance, Given { at: AT, input: Input::Start(message), unreached: Vec::new() })
}

fn after_start(machine: &Machine) -> (Instance, CommandId) {
    let (instance, given) = begin(machine);
    let turn = step(machine, &instance, &given);
    (turn.instance, command_of(&turn.effects))
}

fn command_of(effects: &[Effect]) -> CommandId {
    effects
        .iter()
        .find_map(|effect| match effect {
            Effect::Send(outgoing) if outgoing.command.is_some() => CommandId::parse(&outgoing.correlation_id),
            _ => None,
        })
        .expect("the turn sends a command")
}

fn answer(command: CommandId, kind: &str, body: Value) -> Given {
    Given { at: AT, input: Input::Answer { command, message: message(kind, body) }, unreached: Vec::new() }
}

fn message(kind: &str, body: Value) -> Message {
    Message {
        kind: kind.to_owned(),
        id: Some("m-1".to_owned()),
        source: String::new(),
        correlation_id: None,
        reply_to: None,
        time: AT,
        traceparent: None,
        headers: Map::new(),
        routing_key: kind.to_owned(),
        body,
    }
}
