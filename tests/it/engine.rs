//! What the engine promises beside the turns themselves: whose a message is, what waits and for what, what an order does
//! once, and the thread with its channels. In a world, so that an hour takes no time.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking, and so may what only tests use")]

use std::sync::Arc;

use sagad::engine::{
    AckToken, BusState, Delivery, EventToPublish, OrderFor, OrderMode, OrderVerdict, Published, Raw, Settings, start,
    verify,
};
use sagad::saga::compile::{SourceFile, load};
use sagad::saga::effect::Destination;
use sagad::saga::event::{Message, Order, Verb};
use sagad::saga::ids::DatabaseId;
use sagad::saga::instance::{Instance, Status};
use sagad::saga::machine::Machine;
use sagad::saga::time::Timestamp;
use sagad::store::{AsideFilter, JournalOrder, Memory, Reader, Selector, Store};
use sagad::world::{Calm, Reply, Setup, Unclaimed, World};
use serde_json::{Map, Value, json};
use uuid::Uuid;

const START: Timestamp = Timestamp(1_893_456_000_000);
const SECOND: u64 = 1_000;
const HOUR: u64 = 3_600 * SECOND;

const HIRE: &str = "\
saga: hire
start:
  HireRequested: { key: event.id, data: { who: \"${event.who}\" } }
events:
  Withdrawn: { key: event.id }
  Promoted: { instance: true }
defaults: { timeout: 30s, retry: { attempts: 3, delay: 1s } }
states:
  reserve:
    send: desks.Reserve
    success: Reserved
    failure: Full
    undo: { send: desks.Release, success: Released }
    on:
      Withdrawn: { fail: withdrawn }
  probation:
    on:
      Promoted: next
      Withdrawn: { fail: withdrawn }
    timers:
      - { after: 10m, then: next }
completed:
  publish: { event: Hired, with: { who: \"${data.who}\" } }
";

const WATCH: &str = "\
saga: watch
start:
  HireRequested: { key: event.id, when: event.watched }
states:
  wait:
    on: { Hired: next }
    timers: [ { after: 1h, then: next } ]
events:
  Hired: { key: event.id }
";

fn machines(files: &[(&str, &str)]) -> Vec<Arc<Machine>> {
    let source = |(name, text): &(&str, &str)| SourceFile { path: format!("{name}.yaml"), text: (*text).to_owned() };
    let sources: Vec<SourceFile> = files.iter().map(source).collect();
    let loaded = load(&sources);
    assert!(!loaded.has_errors(), "{:?}", loaded.diagnostics);
    loaded.machines
}

struct Bench {
    world: World,
    reader: Reader,
}

impl Bench {
    fn new(files: &[(&str, &str)]) -> Bench {
        let setup = Setup {
            machines: machines(files),
            settings: Settings::default(),
            database: DatabaseId(Uuid::from_u128(0x77)),
            start: START,
            unclaimed: Unclaimed::Take,
        };
        let world = World::new(setup, Box::new(Calm)).unwrap();
        let reader = world.reader().unwrap();
        Bench { world, reader }
    }

    fn hire() -> Bench {
        Bench::new(&[("hire", HIRE)])
    }

    fn say(&mut self, kind: &str, id: &str, body: Value) {
        self.say_of(kind, id, None, body);
    }

    fn say_of(&mut self, kind: &str, id: &str, correlation_id: Option<&str>, body: Value) {
        self.world.say(Reply {
            after_ms: 0,
            kind: kind.to_owned(),
            message_id: Some(id.to_owned()),
            correlation_id: correlation_id.map(str::to_owned),
            source: String::new(),
            headers: Map::new(),
            body,
        });
        self.world.settle().unwrap();
    }

    /// Puts a message into the daemon's queue though nothing is bound to its type.
    fn enqueue(&mut self, kind: &str, id: &str, body: &[u8]) {
        let mut properties = Map::new();
        properties.insert("type".to_owned(), kind.into());
        properties.insert("message_id".to_owned(), id.into());
        self.world.enqueue(Raw { properties, routing_key: kind.to_owned(), body: body.to_vec(), ..Raw::default() });
        self.world.settle().unwrap();
    }

    fn started(mut self) -> Bench {
        self.say("HireRequested", "m1", json!({ "id": "k", "who": "ada", "watched": false }));
        self
    }

    fn instances(&self) -> Vec<Instance> {
        let rows = self.reader.instances(&Selector::default(), None, 100).unwrap().rows;
        let mut instances: Vec<Instance> =
            rows.iter().map(|row| self.reader.instance(row.no).unwrap().unwrap().instance).collect();
        instances.sort_by_key(|instance| instance.id);
        instances
    }

    fn only(&self) -> Instance {
        let mut instances = self.instances();
        assert_eq!(instances.len(), 1);
        instances.remove(0)
    }

    /// The correlation id of the last command of this name.
    fn command(&mut self, name: &str) -> String {
        let seen = self.world.take_seen();
        let last = seen.into_iter().rev().find(|seen| seen.message.kind == name);
        last.unwrap_or_else(|| panic!("no {name} was sent")).message.correlation_id
    }

    fn sent(&mut self) -> Vec<String> {
        let seen = self.world.take_seen().into_iter();
        seen.filter(|seen| seen.message.to != Destination::Lifecycle).map(|seen| seen.message.kind).collect()
    }

    fn order(&mut self, verb: Verb) -> OrderVerdict {
        self.order_as(verb, OrderMode::ForReal, None)
    }

    fn order_as(&mut self, verb: Verb, mode: OrderMode, request_id: Option<&str>) -> OrderVerdict {
        let order = Order {
            verb,
            by: "anna".to_owned(),
            reason: Some("because".to_owned()),
            request_id: request_id.map(str::to_owned),
            expect_turn: None,
        };
        let instance = self.instances()[0].id;
        let results = self.world.order(vec![OrderFor { instance, order, mode }]).unwrap();
        results.into_iter().next().unwrap().verdict
    }

    /// Reason of what was set aside, and its type.
    fn aside(&self) -> Vec<(String, String)> {
        let rows = self.reader.aside(&AsideFilter::default(), None, 100).unwrap();
        let mut rows: Vec<_> = rows.into_iter().map(|row| (row.n, row.reason, row.message_type)).collect();
        rows.sort();
        rows.into_iter().map(|(_, reason, kind)| (reason, kind.unwrap_or_default())).collect()
    }

    fn is_aside(&self, reason: &str, kind: &str) {
        assert_eq!(self.aside(), [(reason.to_owned(), kind.to_owned())]);
    }

    fn verified(&self) {
        for instance in self.instances() {
            assert_eq!(verify(&self.reader, instance.id.no()).unwrap().unwrap().broken, []);
        }
    }
}

// ---- messages before timers, and the two clocks -------------------------------------------------------------------------

#[test]
fn an_answer_that_waited_while_the_daemon_was_down_is_not_a_silence() {
    let mut bench = Bench::hire().started();
    let command = bench.command("Reserve");
    bench.world.run(29 * SECOND).unwrap();
    bench.world.kill();
    bench.say_of("Reserved", "a1", Some(&command), json!({}));
    bench.world.run(HOUR).unwrap();
    bench.world.start().unwrap();
    bench.world.run(20 * SECOND).unwrap();
    let instance = bench.only();
    assert_eq!((instance.state.as_str(), instance.steps[0].attempt), ("probation", 1));
    bench.verified();
}

#[test]
fn time_without_a_broker_is_no_time_for_a_step_and_time_for_everything_else() {
    let mut bench = Bench::hire().started();
    let command = bench.command("Reserve");
    bench.world.run(20 * SECOND).unwrap();
    bench.world.broker_away();
    bench.world.run(HOUR).unwrap();
    bench.world.broker_back();
    // Five seconds of grace, and the fifteen that were left.
    bench.world.run(14 * SECOND).unwrap();
    assert_eq!(bench.only().steps[0].attempt, 1);
    bench.say_of("Reserved", "a1", Some(&command), json!({}));
    assert_eq!(bench.only().state, "probation");
    bench.world.broker_away();
    bench.world.run(HOUR).unwrap();
    assert_eq!(bench.only().state, "probation");
    bench.world.broker_back();
    bench.world.run(SECOND).unwrap();
    assert_eq!(bench.only().status, Status::Completed);
    bench.verified();
}

#[test]
fn a_limit_is_kept_over_a_restart() {
    let mut bench = Bench::hire().started();
    bench.world.run(20 * SECOND).unwrap();
    bench.world.restart().unwrap();
    bench.world.run(4 * SECOND).unwrap();
    bench.world.restart().unwrap();
    // The grace of each start did not count, nor did what was not written down: at most ten seconds.
    bench.world.run(14 * SECOND).unwrap();
    assert_eq!(bench.only().steps[0].attempt, 1);
    bench.world.run(25 * SECOND).unwrap();
    assert_eq!(bench.only().steps[0].attempt, 2);
}

#[test]
fn what_came_while_it_was_paused_is_handled_in_order_when_it_goes_on() {
    let mut bench = Bench::hire().started();
    let command = bench.command("Reserve");
    bench.world.run(25 * SECOND).unwrap();
    assert_eq!(bench.order(Verb::Pause), OrderVerdict::Done);
    bench.world.run(HOUR).unwrap();
    assert_eq!(bench.only().steps[0].attempt, 1);
    bench.say_of("Reserved", "a1", Some(&command), json!({}));
    let id = bench.only().id.to_string();
    bench.say_of("Promoted", "p1", Some(&id), json!({}));
    assert_eq!(bench.only().state, "reserve");
    bench.world.restart().unwrap();
    assert_eq!(bench.order(Verb::Resume), OrderVerdict::Done);
    assert_eq!(bench.only().status, Status::Completed);
    assert_eq!(bench.aside(), []);
    bench.verified();
}

#[test]
fn a_limit_keeps_its_remainder_while_its_instance_is_paused() {
    let mut bench = Bench::hire().started();
    bench.world.run(20 * SECOND).unwrap();
    bench.order(Verb::Pause);
    bench.world.run(HOUR).unwrap();
    bench.order(Verb::Resume);
    // The first start's grace is in the twenty seconds: fifteen are used, fifteen are left.
    bench.world.run(14 * SECOND).unwrap();
    assert_eq!(bench.only().steps[0].attempt, 1);
    bench.world.run(4 * SECOND).unwrap();
    assert_eq!(bench.only().steps[0].attempt, 2);
}

// ---- whose a message is -------------------------------------------------------------------------------------------------

#[test]
fn a_type_that_nobody_knows_is_unmatched() {
    let mut bench = Bench::hire();
    bench.enqueue("Sneezed", "s1", b"{}");
    bench.enqueue("Sneezed", "s1", b"{}");
    bench.is_aside("unknown-type", "Sneezed");
    assert_eq!(bench.world.undelivered(), 0);
}

#[test]
fn an_event_for_nobody_is_unmatched() {
    let mut bench = Bench::hire().started();
    bench.say("Withdrawn", "w1", json!({ "id": "other" }));
    bench.is_aside("no-instance", "Withdrawn");
}

#[test]
fn an_answer_to_nothing_is_unmatched() {
    let mut bench = Bench::hire().started();
    bench.say("Reserved", "a1", json!({}));
    bench.is_aside("no-instance", "Reserved");
}

#[test]
fn an_event_that_comes_too_early_is_not_waited_for() {
    let mut bench = Bench::hire().started();
    let id = bench.only().id.to_string();
    bench.say_of("Promoted", "p1", Some(&id), json!({}));
    bench.is_aside("not-waiting", "Promoted");
}

#[test]
fn an_event_that_comes_after_the_end_says_so() {
    let mut bench = Bench::hire().started();
    bench.order(Verb::Abandon);
    bench.say("Withdrawn", "w1", json!({ "id": "k" }));
    bench.say("HireRequested", "m2", json!({ "id": "k", "who": "eve" }));
    let expected = [("ended", "Withdrawn"), ("ended", "HireRequested")];
    assert_eq!(bench.aside(), expected.map(|(reason, kind)| (reason.to_owned(), kind.to_owned())));
}

#[test]
fn another_daemons_answer_is_counted_and_nothing_else() {
    let mut bench = Bench::hire().started();
    let mut foreign = Uuid::parse_str(&bench.command("Reserve")).unwrap().as_u128();
    foreign ^= 1 << 46;
    let foreign = Uuid::from_u128(foreign).to_string();
    bench.say_of("Reserved", "a1", Some(&foreign), json!({}));
    assert_eq!(bench.aside(), []);
    assert_eq!(bench.world.engine().unwrap().store().foreign(), 1);
    assert_eq!(bench.only().state, "reserve");
}

#[test]
fn a_copied_correlation_id_does_no_harm() {
    let mut bench = Bench::hire().started();
    let command = bench.command("Reserve");
    bench.say_of("Withdrawn", "w1", Some(&command), json!({ "id": "other" }));
    bench.is_aside("no-instance", "Withdrawn");
    bench.say_of("Withdrawn", "w2", Some(&command), json!({ "id": "k" }));
    assert_eq!(bench.only().status, Status::Compensating);
}

#[test]
fn two_messages_under_one_id_are_told_apart() {
    let mut bench = Bench::hire().started();
    bench.say("HireRequested", "m1", json!({ "id": "k", "who": "ada", "watched": false }));
    assert_eq!(bench.aside(), []);
    bench.say("HireRequested", "m1", json!({ "id": "k2", "who": "eve", "watched": false }));
    bench.is_aside("id-reused", "HireRequested");
    assert_eq!(bench.instances().len(), 1);
}

#[test]
fn a_start_whose_key_lives_is_a_note() {
    let mut bench = Bench::hire().started();
    bench.say("HireRequested", "m2", json!({ "id": "k", "who": "eve", "watched": false }));
    let no = bench.only().id.no();
    let rows = bench.reader.journal(no, JournalOrder::OldestFirst, None, 10).unwrap();
    assert_eq!(rows.last().unwrap().notes().unwrap(), ["started-already"]);
    assert_eq!(bench.aside(), []);
    bench.verified();
}

#[test]
fn an_expression_that_fails_before_there_is_an_instance_sets_the_message_aside_for_that_saga_alone() {
    let mut bench = Bench::new(&[("hire", HIRE), ("watch", WATCH)]);
    bench.say("HireRequested", "m1", json!({ "id": "k", "who": "ada" }));
    assert_eq!(bench.only().saga, "hire");
    bench.is_aside("expression", "HireRequested");
}

#[test]
fn one_event_starts_two_sagas_and_a_start_that_does_not_hold_is_counted() {
    let mut bench = Bench::new(&[("hire", HIRE), ("watch", WATCH)]);
    bench.say("HireRequested", "m1", json!({ "id": "a", "who": "ada", "watched": true }));
    bench.say("HireRequested", "m2", json!({ "id": "b", "who": "bob", "watched": false }));
    let mut sagas: Vec<String> = bench.instances().into_iter().map(|it| format!("{}/{}", it.saga, it.key)).collect();
    sagas.sort();
    assert_eq!(sagas, ["hire/a", "hire/b", "watch/a"]);
    assert_eq!(bench.aside(), []);
}

#[test]
fn what_is_no_json_is_set_aside_once_and_acknowledged() {
    let mut bench = Bench::hire();
    bench.enqueue("HireRequested", "m1", b"{ \"id\":");
    bench.enqueue("HireRequested", "m1", b"{ \"id\":");
    bench.is_aside("not-json", "HireRequested");
    assert_eq!(bench.world.undelivered(), 0);
}

// ---- orders -------------------------------------------------------------------------------------------------------------

#[test]
fn a_dry_run_tells_and_changes_nothing() {
    let mut bench = Bench::hire().started();
    let before = bench.only();
    assert_eq!(bench.order_as(Verb::Compensate, OrderMode::DryRun, Some("r1")), OrderVerdict::Done);
    assert_eq!(bench.only(), before);
    assert_eq!(bench.reader.orders(None, 10).unwrap(), []);
    assert_eq!(bench.sent(), ["Reserve"]);
}

#[test]
fn the_same_request_acts_once_and_is_on_record_once() {
    let mut bench = Bench::hire().started();
    assert_eq!(bench.order_as(Verb::Pause, OrderMode::ForReal, Some("r1")), OrderVerdict::Done);
    let turn = bench.only().turn;
    assert_eq!(bench.order_as(Verb::Pause, OrderMode::ForReal, Some("r1")), OrderVerdict::DoneBefore);
    assert_eq!(bench.only().turn, turn);
    let orders = bench.reader.orders(None, 10).unwrap();
    assert_eq!(orders.len(), 1);
    assert_eq!((orders[0].verb.as_str(), orders[0].by.as_str()), ("pause", "anna"));
}

#[test]
fn an_order_that_does_not_fit_says_why_and_is_on_record() {
    let mut bench = Bench::hire().started();
    bench.order(Verb::Abandon);
    assert!(matches!(bench.order(Verb::Compensate), OrderVerdict::Refused { .. }));
    assert_eq!(bench.reader.orders(None, 10).unwrap().len(), 2);
}

// ---- definitions --------------------------------------------------------------------------------------------------------

#[test]
fn an_instance_keeps_its_definition_and_is_found_by_its_own_rules() {
    let old = Bench::hire().started();
    // The new one is called by another field.
    let renamed = HIRE.replace("key: event.id", "key: event.number");
    let Bench { mut world, reader } = old;
    world.reload(machines(&[("hire", &renamed)])).unwrap();
    let mut bench = Bench { world, reader };
    bench.say("HireRequested", "m2", json!({ "number": "n", "id": "unused", "who": "bob" }));
    bench.say("Withdrawn", "w1", json!({ "number": "nobody", "id": "k" }));
    let instances = bench.instances();
    assert_eq!((instances[0].key.as_str(), instances[0].status), ("k", Status::Compensating));
    assert_eq!((instances[1].key.as_str(), instances[1].status), ("n", Status::Running));
    assert_ne!(instances[0].definition, instances[1].definition);
    bench.world.restart().unwrap();
    bench.say("Withdrawn", "w2", json!({ "number": "n", "id": "nobody" }));
    assert_eq!(bench.instances()[1].status, Status::Compensating);
    bench.verified();
}

#[test]
fn many_timers_due_at_once_fire_in_order_of_their_time() {
    let mut bench = Bench::hire();
    for number in 0..50 {
        bench.say("HireRequested", &format!("m{number}"), json!({ "id": number, "who": "ada", "watched": false }));
        let command = bench.command("Reserve");
        bench.say_of("Reserved", &format!("a{number}"), Some(&command), json!({}));
        bench.world.run(SECOND).unwrap();
    }
    bench.world.broker_away();
    bench.world.run(HOUR).unwrap();
    bench.world.broker_back();
    bench.world.run(60 * SECOND).unwrap();
    let hired: Vec<Instance> = bench.instances();
    assert!(hired.iter().all(|instance| instance.status == Status::Completed));
    let last: Vec<i64> = hired
        .iter()
        .map(|it| bench.reader.journal(it.id.no(), JournalOrder::NewestFirst, None, 1).unwrap()[0].seq)
        .collect();
    assert!(last.is_sorted(), "{last:?}");
}

// ---- the thread ---------------------------------------------------------------------------------------------------------

fn delivery(kind: &str, id: &str, tag: u64, body: &Value) -> Delivery {
    let message = Message {
        kind: kind.to_owned(),
        id: Some(id.to_owned()),
        source: String::new(),
        correlation_id: None,
        reply_to: None,
        time: START,
        traceparent: None,
        headers: Map::new(),
        routing_key: kind.to_owned(),
        body: body.clone(),
    };
    let raw = Arc::new(Raw { body: body.to_string().into_bytes(), ..Raw::default() });
    Delivery { ack: Some(AckToken { channel: 1, tag }), raw, message: Ok(message), dead: false }
}

#[tokio::test]
async fn the_thread_takes_a_delivery_publishes_acknowledges_answers_and_stops() {
    let memory = Memory::new(DatabaseId(Uuid::from_u128(0x77))).unwrap();
    let store = Store::open_in(&memory).unwrap();
    let mut running = start(store, machines(&[("hire", HIRE)]), Settings::default()).unwrap();
    let engine = running.handle.clone();
    assert!(engine.consumed().borrow().contains_key("Reserved"));
    engine.bus(BusState::Up { waiting: 0 }).await.unwrap();
    let body = json!({ "id": "k", "who": "ada", "watched": false });
    engine.deliver(delivery("HireRequested", "m1", 7, &body)).await.unwrap();

    let messages = running.outflow.publish.recv().await.unwrap();
    let kinds: Vec<&str> = messages.iter().map(|(_, message)| message.kind.as_str()).collect();
    assert_eq!(kinds, ["sagad.hire.started", "Reserve"]);
    assert_eq!(running.outflow.acks.recv().await.unwrap(), [AckToken { channel: 1, tag: 7 }]);
    engine.published(messages.into_iter().map(|(at, _)| (at, Published::Confirmed)).collect()).await.unwrap();

    let reader = Reader::open_in(&memory).unwrap();
    let row = reader.instances(&Selector::default(), None, 1).unwrap().rows.remove(0);
    let order = Order { verb: Verb::Pause, by: "anna".to_owned(), reason: None, request_id: None, expect_turn: None };
    let orders = vec![OrderFor { instance: row.id, order, mode: OrderMode::ForReal }];
    assert_eq!(engine.order(orders).await.unwrap()[0].verdict, OrderVerdict::Done);

    engine
        .accept(Delivery { ack: None, ..delivery("HireRequested", "m2", 0, &json!({ "id": "l", "who": "b" })) })
        .await
        .unwrap();
    assert_eq!(reader.instances(&Selector::default(), None, 10).unwrap().rows.len(), 2);
    let event = EventToPublish {
        kind: "Noticed".to_owned(),
        message_id: "n1".to_owned(),
        correlation_id: None,
        source: None,
        headers: Map::new(),
        body: json!({}),
        by: "anna".to_owned(),
        reason: None,
    };
    assert_eq!(engine.publish(event).await.unwrap(), "n1");
    let mut published = Vec::new();
    while !published.iter().any(|kind| kind == "Noticed") {
        let messages = running.outflow.publish.recv().await.unwrap();
        published.extend(messages.iter().map(|(_, message)| message.kind.clone()));
        engine.published(messages.into_iter().map(|(at, _)| (at, Published::Confirmed)).collect()).await.unwrap();
    }
    assert_eq!(published, ["sagad.hire.started", "Reserve", "Noticed"]);
    engine.stop();
    running.thread.join().unwrap().unwrap();
    assert!(engine.deliver(delivery("HireRequested", "m3", 9, &body)).await.is_err());
    assert_eq!(reader.count_outbox().unwrap(), 0);
}

#[tokio::test]
async fn a_stop_waits_for_confirms_but_not_for_ever() {
    let memory = Memory::new(DatabaseId(Uuid::from_u128(0x77))).unwrap();
    let store = Store::open_in(&memory).unwrap();
    let settings = Settings { shutdown_after_ms: 200, ..Settings::default() };
    let mut running = start(store, machines(&[("hire", HIRE)]), settings).unwrap();
    let engine = running.handle.clone();
    engine.bus(BusState::Up { waiting: 0 }).await.unwrap();
    let body = json!({ "id": "k", "who": "ada", "watched": false });
    engine.deliver(delivery("HireRequested", "m1", 7, &body)).await.unwrap();
    assert_eq!(running.outflow.publish.recv().await.unwrap().len(), 2);
    engine.stop();
    running.thread.join().unwrap().unwrap();
    let reader = Reader::open_in(&memory).unwrap();
    assert_eq!(reader.count_outbox().unwrap(), 2);
}
