//! The bus over a real broker, with a stand-in for the engine: what the design believes of RabbitMQ and of the client
//! library, and what the daemon promises about both.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "what the stand-in cannot do fails its test, and a test waits by the clock"
)]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lapin::BasicProperties;
use lapin::options::{BasicGetOptions, BasicRejectOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};
use sagad::bus::amqp::{Bus, BusStatus, Parts, Weight, check};
use sagad::bus::envelope::{Binding, Types};
use sagad::bus::{Address, BrokerUrl, BusConfig, Declare, QueueType};
use sagad::engine::{self, BusState, Delivery, EngineHandle, Input, MessageRef, Published, Settings};
use sagad::saga::effect::{CommandPart, Destination, Json, Limit, Outgoing, Stamp};
use sagad::saga::event::Subject;
use sagad::saga::ids::{CommandId, DatabaseId, InstanceId, InstanceNo};
use sagad::saga::time::Timestamp;
use serde_json::{Map, json};
use tokio::sync::{mpsc, watch};
use tracing_subscriber::EnvFilter;
use uuid::Uuid;

use crate::broker::{Broker, Client};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

const AT: Timestamp = Timestamp(1_893_456_000_000);

/// What has come to the stand-in.
#[derive(Default)]
struct Seen {
    deliveries: Vec<Delivery>,
    states: Vec<BusState>,
    outcomes: Vec<(MessageRef, Published)>,
}

/// Stands in for the engine: acknowledges what it is given, and hands out anew, in order, what became unknown.
struct Stage {
    bus: Option<Bus>,
    seen: Arc<Mutex<Seen>>,
    /// Handed out and not settled.
    open: Arc<Mutex<BTreeMap<MessageRef, Outgoing>>>,
    publish: mpsc::Sender<Vec<(MessageRef, Outgoing)>>,
    consumed: watch::Sender<Arc<engine::Consumed>>,
    /// Whether deliveries are acknowledged.
    acking: watch::Sender<bool>,
    next: AtomicI64,
    _handle: EngineHandle,
}

fn database(number: u128) -> DatabaseId {
    DatabaseId(Uuid::from_u128(0x1234_5678_9abc_4def_8123_4567_89ab_0000 + number))
}

impl Stage {
    fn start(config: BusConfig, kinds: &[&str]) -> Stage {
        Stage::start_as(config, kinds, database(0), BTreeSet::new())
    }

    fn start_as(config: BusConfig, kinds: &[&str], database: DatabaseId, bound: BTreeSet<Binding>) -> Stage {
        // RUST_LOG=sagad=debug shows what the bus did.
        drop(tracing_subscriber::fmt().with_env_filter(EnvFilter::from_default_env()).with_test_writer().try_init());
        let settings = Settings::default();
        let (handle, inflow, outflow) = engine::channels(&settings, consumed(kinds));
        let engine::Inflow { mut deliveries, mut outcomes, acks, publish, consumed, .. } = inflow;
        let bus = Bus::start(Parts { config, database, engine: handle.clone(), outflow, bound, clock: || AT });
        let seen = Arc::new(Mutex::new(Seen::default()));
        let open = Arc::new(Mutex::new(BTreeMap::<MessageRef, Outgoing>::new()));
        let (acking, mut may_ack) = watch::channel(true);
        let (to, again, out) = (Arc::clone(&seen), Arc::clone(&open), publish.clone());
        tokio::spawn(async move {
            while let Some(input) = deliveries.recv().await {
                match input {
                    Input::Delivery(delivery) => {
                        let ack = delivery.ack.unwrap();
                        to.lock().unwrap().deliveries.push(delivery);
                        if may_ack.wait_for(|may| *may).await.is_ok() {
                            acks.send(vec![ack]).await.unwrap();
                        }
                    }
                    Input::Bus(state) => {
                        if matches!(state, BusState::Up { .. }) {
                            let open: Vec<_> = again.lock().unwrap().clone().into_iter().collect();
                            for batch in open.chunks(100) {
                                out.send(batch.to_vec()).await.unwrap();
                            }
                        }
                        to.lock().unwrap().states.push(state);
                    }
                    other => panic!("the bus does not say {other:?}"),
                }
            }
        });
        let (to, settled) = (Arc::clone(&seen), Arc::clone(&open));
        tokio::spawn(async move {
            while let Some(outcomes) = outcomes.recv().await {
                for (at, outcome) in outcomes {
                    if outcome != Published::Unknown {
                        settled.lock().unwrap().remove(&at);
                    }
                    to.lock().unwrap().outcomes.push((at, outcome));
                }
            }
        });
        Stage { bus: Some(bus), seen, open, publish, consumed, acking, next: AtomicI64::new(1), _handle: handle }
    }

    fn status(&self) -> BusStatus {
        self.bus.as_ref().unwrap().status()
    }

    /// Waits until something holds of what was seen.
    async fn until<T>(&self, what: &str, holds: impl Fn(&Seen) -> Option<T>) -> T {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(value) = holds(&self.seen.lock().unwrap()) {
                return value;
            }
            assert!(Instant::now() < until, "it does not come to this: {what}; {:#?}", self.status());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn until_status(&self, what: &str, holds: impl Fn(&BusStatus) -> bool) -> BusStatus {
        self.until(what, |_| Some(self.status()).filter(&holds)).await
    }

    /// Waits for the `times`-th time that the bus is up.
    async fn up(&self, times: usize) -> u64 {
        let ups = |seen: &Seen| {
            let waiting = seen.states.iter().filter_map(|state| match state {
                BusState::Up { waiting } => Some(*waiting),
                BusState::Down { .. } => None,
            });
            waiting.clone().nth(times - 1)
        };
        self.until("up", ups).await
    }

    async fn down(&self, mark: &str) -> String {
        let told = |seen: &Seen| {
            seen.states.iter().rev().find_map(|state| match state {
                BusState::Down { error } if error.contains(mark) => Some(error.clone()),
                _ => None,
            })
        };
        self.until(&format!("down: {mark}"), told).await
    }

    /// Hands messages out, each in a row of its own. Returns their places.
    async fn hand_out(&self, messages: Vec<Outgoing>) -> Vec<MessageRef> {
        let mut rows = Vec::new();
        for message in messages {
            rows.push((MessageRef { seq: self.next.fetch_add(1, Ordering::Relaxed), place: 0 }, message));
        }
        self.open.lock().unwrap().extend(rows.iter().cloned());
        let places = rows.iter().map(|(at, _)| *at).collect();
        for batch in rows.chunks(50) {
            self.publish.send(batch.to_vec()).await.unwrap();
        }
        places
    }

    /// Waits until nothing is open, and returns what was said of each at last.
    async fn settled(&self) -> HashMap<MessageRef, Published> {
        let open = Arc::clone(&self.open);
        self.until("all messages settled", |seen| {
            let settled = open.lock().unwrap().is_empty();
            settled.then(|| seen.outcomes.iter().filter(|(_, said)| *said != Published::Unknown).cloned().collect())
        })
        .await
    }

    async fn bodies(&self, count: usize) -> Vec<String> {
        self.until(&format!("{count} deliveries"), |seen| {
            let bodies = || seen.deliveries.iter().map(|delivery| text(&delivery.raw.body)).collect();
            (seen.deliveries.len() >= count).then(bodies)
        })
        .await
    }

    async fn stop(mut self) -> Arc<Mutex<Seen>> {
        let mut bus = self.bus.take().unwrap();
        bus.stop_intake(Duration::from_secs(20)).await;
        bus.close().await;
        Arc::clone(&self.seen)
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn consumed(kinds: &[&str]) -> engine::Consumed {
    kinds.iter().map(|kind| ((*kind).to_owned(), None)).collect()
}

fn command(address: &str, number: u32) -> Outgoing {
    let instance = InstanceId::new(InstanceNo::next(None, AT), database(0));
    let id = CommandId::new(instance, &format!("{number}//do/1"));
    Outgoing {
        to: Destination::Command { address: address.to_owned() },
        kind: "Do".to_owned(),
        message_id: id.message_id(1),
        correlation_id: id.to_string(),
        at: AT,
        body: Json::of(&json!({ "n": number })),
        headers: Map::new(),
        trace: None,
        chosen: None,
        command: Some(CommandPart {
            subject: Subject::Step { index: 0, attempt: 1 },
            state: "work".to_owned(),
            attempt: 1,
            undoes: None,
            limit: Some(Limit { serial: 1, after_ms: 30_000 }),
            awaits: true,
        }),
        stamp: Some(Stamp { id: instance, saga: "test".to_owned(), key: number.to_string() }),
    }
}

async fn send_event(client: &Client, config: &BusConfig, kind: &str, body: &str) {
    let properties = BasicProperties::default().with_delivery_mode(2).with_message_id(body.into());
    client.publish(&config.events_exchange, kind, properties, body.as_bytes()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_goes_out_as_the_wire_contract_says_and_its_answer_comes_in() {
    let broker = Broker::shared();
    let config = broker.config("wire");
    let client = broker.client().await;
    let stage = Stage::start(config.clone(), &["Done"]);
    stage.up(1).await;
    client.declare_queue("wire.work").await;
    client.bind("wire.work", &config.commands_exchange, "work.*").await;
    let message = command("work", 7);
    stage.hand_out(vec![message.clone()]).await;
    assert!(stage.settled().await.values().all(|said| *said == Published::Confirmed));
    let got = client.get("wire.work").await.unwrap().delivery;
    assert_eq!((got.exchange.as_str(), got.routing_key.as_str()), (config.commands_exchange.as_str(), "work.Do"));
    let properties = &got.properties;
    let short = |text: &Option<lapin::types::ShortString>| text.as_ref().unwrap().as_str().to_owned();
    assert_eq!(short(properties.kind()), "Do");
    assert_eq!(short(properties.message_id()), message.message_id.to_string());
    assert_eq!(short(properties.correlation_id()), message.correlation_id);
    assert_eq!(short(properties.reply_to()), config.queue);
    assert_eq!(short(properties.app_id()), "sagad");
    assert_eq!(short(properties.content_type()), "application/json");
    assert_eq!(properties.delivery_mode(), &Some(2));
    assert_eq!(properties.timestamp(), &Some(1_893_456_000));
    let headers = properties.headers().as_ref().unwrap().inner();
    assert_eq!(headers["saga-attempt"], AMQPValue::LongLongInt(1));
    assert_eq!(headers["saga-timeout-ms"], AMQPValue::LongString("30000".into()));
    assert_eq!(headers["saga-op"], AMQPValue::LongString("do".into()));
    assert_eq!(text(&got.data), r#"{"n":7}"#);

    // By the exchange, and directly to the queue that `reply_to` named.
    let answer = BasicProperties::default().with_correlation_id(message.correlation_id.as_str().into());
    client.publish(&config.events_exchange, "Done", answer.clone(), b"1").await;
    client.publish("", &config.queue, answer.with_type("Done".into()), b"2").await;
    assert_eq!(stage.bodies(2).await, ["1", "2"]);
    let seen = stage.stop().await;
    for delivery in &seen.lock().unwrap().deliveries {
        let read = delivery.message.as_ref().unwrap();
        assert_eq!((read.kind.as_str(), read.time), ("Done", AT));
        assert_eq!(read.correlation_id.as_ref(), Some(&message.correlation_id));
        assert!(!delivery.dead);
    }
    assert_eq!(client.look(&config.queue).await, (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn to_declare_again_changes_nothing_and_bindings_follow_the_definitions() {
    let broker = Broker::shared();
    let config = broker.config("again");
    let client = broker.client().await;
    let stage = Stage::start(config.clone(), &["Old", "Kept"]);
    stage.up(1).await;
    let bound = stage.status().bound;
    assert_eq!(bound.len(), 2);
    stage.stop().await;

    let stage = Stage::start_as(config.clone(), &["Kept", "New"], database(0), bound);
    stage.up(1).await;
    for kind in ["Old", "Kept", "New"] {
        send_event(&client, &config, kind, &format!("\"{kind}\"")).await;
    }
    assert_eq!(stage.bodies(2).await, ["\"Kept\"", "\"New\""]);

    // A reload while it runs.
    stage.consumed.send_replace(Arc::new(consumed(&["Newer"])));
    stage.until_status("bound anew", |status| status.bound.iter().any(|to| to.routing_key == "Newer")).await;
    for kind in ["Kept", "Newer"] {
        send_event(&client, &config, kind, &format!("\"{kind}\"")).await;
    }
    assert_eq!(stage.bodies(3).await.last().unwrap(), "\"Newer\"");
    stage.stop().await;
    assert_eq!(client.look(&config.queue).await, (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_stands_otherwise_is_named_with_its_property() {
    let broker = Broker::shared();
    let config = broker.config("other");
    let client = broker.client().await;
    let classic = BusConfig { queue_type: QueueType::Classic, ..config.clone() };
    let stage = Stage::start(classic, &[]);
    stage.up(1).await;
    stage.stop().await;
    let stage = Stage::start(config.clone(), &[]);
    let error = stage.down("x-queue-type").await;
    assert!(error.contains(&config.dead) || error.contains(&config.queue), "{error}");
    let status = stage.status();
    assert_eq!(status.findings.len(), 1);
    assert!(!status.connected && status.error.is_some());
    stage.stop().await;
    drop(client);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_says_what_is_missing_and_what_is_different_and_makes_nothing() {
    let broker = Broker::shared();
    let client = broker.client().await;
    let config = broker.config("check");
    let types = Types::listed([("Happened".to_owned(), None)]);
    let found = check(&config, &types).await.unwrap();
    assert!(found.len() == 5 && found.iter().all(|finding| finding.weight == Weight::Note), "{found:#?}");

    let operators = BusConfig { declare: Declare::Nothing, ..config.clone() };
    let found = check(&operators, &types).await.unwrap();
    let fatal: Vec<String> =
        found.iter().filter(|finding| finding.weight == Weight::Fatal).map(ToString::to_string).collect();
    assert_eq!(fatal.len(), 5, "{fatal:#?}");
    assert!(fatal.iter().any(|text| text == "queue 'check.sagad' does not exist"), "{fatal:#?}");
    assert!(found.iter().any(|finding| finding.to_string().contains("'Happened' is needed")));

    client.declare_queue(&config.queue).await;
    let found = check(&config, &types).await.unwrap();
    assert!(found.iter().any(|finding| finding.weight == Weight::Fatal && finding.what == "queue 'check.sagad'"));

    // Where nothing is declared, what is missing is waited for.
    let stage = Stage::start(BusConfig { queue: "check.none".to_owned(), ..operators }, &[]);
    stage.down("does not exist").await;
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_queue_takes_is_returned_exactly_among_thousands_under_way() {
    let broker = Broker::shared();
    let config = broker.config("lost");
    let client = broker.client().await;
    let stage = Stage::start(config.clone(), &[]);
    stage.up(1).await;
    client.declare_queue("lost.work").await;
    client.bind("lost.work", &config.commands_exchange, "work.*").await;
    // Matched by the client's own reckoning, about one in a thousand of these would be told of another message: some
    // alone, some in rows, in no pattern that the batches have.
    let nobody = |number: u32| number % 2 == 1 || number % 997 < 50;
    let messages = (0..20_000).map(|number| command(if nobody(number) { "nobody" } else { "work" }, number));
    let places = stage.hand_out(messages.collect()).await;
    let settled = stage.settled().await;
    for (number, place) in (0..).zip(&places) {
        let expected =
            if nobody(number) { Published::Returned { reason: "NO_ROUTE".to_owned() } } else { Published::Confirmed };
        assert_eq!(settled[place], expected, "message {number}");
    }
    assert_eq!(stage.seen.lock().unwrap().outcomes.len(), 20_000, "each is told once");
    let taken = (0..20_000).filter(|number| !nobody(*number)).count();
    assert_eq!(client.look("lost.work").await.0, u32::try_from(taken).unwrap());
    // In the order in which they were handed out.
    for number in (0..20_000).filter(|number| !nobody(*number)).take(300) {
        assert_eq!(text(&client.get("lost.work").await.unwrap().delivery.data), format!(r#"{{"n":{number}}}"#));
    }
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_over_which_the_broker_closes_the_channel_is_found_and_the_others_go_out() {
    let broker = Broker::shared();
    let mut config = broker.config("bad");
    let gone = Address { exchange: "bad.gone".to_owned(), routing_key: None };
    config.addresses.insert("gone".to_owned(), gone);
    let client = broker.client().await;
    let stage = Stage::start(config.clone(), &[]);
    stage.up(1).await;
    client.declare_queue("bad.work").await;
    client.bind("bad.work", &config.commands_exchange, "work.*").await;
    let messages = (0..200).map(|number| command(if number == 77 { "gone" } else { "work" }, number));
    let places = stage.hand_out(messages.collect()).await;
    let settled = stage.settled().await;
    for (number, place) in places.iter().enumerate() {
        match &settled[place] {
            Published::Rejected { reason } => assert!(number == 77 && reason.contains("bad.gone"), "{reason}"),
            said => assert!(number != 77 && *said == Published::Confirmed, "message {number}: {said:?}"),
        }
    }
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_that_refuses_is_told_and_no_failure() {
    let broker = Broker::shared();
    let config = broker.config("full");
    let client = broker.client().await;
    let stage = Stage::start(config.clone(), &[]);
    stage.up(1).await;
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(2));
    arguments.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
    let options = QueueDeclareOptions::default();
    client.channel.queue_declare("full.work".into(), options, arguments).await.unwrap();
    client.bind("full.work", &config.commands_exchange, "work.*").await;
    let places = stage.hand_out((0..4).map(|number| command("work", number)).collect()).await;
    let settled = stage.settled().await;
    assert_eq!(settled[&places[0]], Published::Confirmed);
    assert_eq!(settled[&places[3]], Published::Nacked);
    assert!(stage.status().connected);
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_daemon_on_the_queue_waits_and_says_so() {
    let broker = Broker::shared();
    let config = broker.config("second");
    let client = broker.client().await;
    let first = Stage::start(config.clone(), &["Happened"]);
    first.up(1).await;
    assert_eq!(client.look(&config.queue).await, (0, 1));
    let second = Stage::start_as(config.clone(), &["Happened"], database(1), BTreeSet::new());
    second.down("another consumer").await;
    assert!(!second.status().connected);
    for number in 0..20 {
        send_event(&client, &config, "Happened", &number.to_string()).await;
    }
    assert_eq!(first.bodies(20).await.len(), 20);
    assert_eq!(client.look(&config.queue).await.1, 1);
    assert!(second.seen.lock().unwrap().deliveries.is_empty());
    first.stop().await;
    second.up(1).await;
    send_event(&client, &config, "Happened", "20").await;
    assert_eq!(second.bodies(1).await, ["20"]);
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_is_deleted_is_declared_and_consumed_again() {
    let broker = Broker::shared();
    let config = broker.config("deleted");
    let client = broker.client().await;
    let stage = Stage::start(config.clone(), &["Happened"]);
    stage.up(1).await;
    client.channel.queue_delete(config.queue.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
    stage.down("was deleted").await;
    stage.up(2).await;
    send_event(&client, &config, "Happened", "1").await;
    assert_eq!(stage.bodies(1).await, ["1"]);
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_finishes_what_is_prefetched_and_leaves_the_rest_untouched() {
    let broker = Broker::shared();
    let config = BusConfig { prefetch: 10, ..broker.config("stop") };
    let client = broker.client().await;
    let stage = Stage::start(config.clone(), &["Happened"]);
    stage.up(1).await;
    stage.acking.send_replace(false);
    for number in 0..100 {
        send_event(&client, &config, "Happened", &number.to_string()).await;
    }
    stage.bodies(1).await;
    let acking = stage.acking.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        acking.send_replace(true);
    });
    let seen = stage.stop().await;
    let handled = seen.lock().unwrap().deliveries.len();
    assert!((10..=20).contains(&handled), "{handled}");
    let left = client.look(&config.queue).await;
    assert_eq!(left, (u32::try_from(100 - handled).unwrap(), 0));
    let next =
        client.channel.basic_get(config.queue.as_str().into(), BasicGetOptions::default()).await.unwrap().unwrap();
    assert!(!next.delivery.redelivered, "nothing comes twice");
    assert_eq!(text(&next.delivery.data), handled.to_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_than_the_prefetch_is_with_the_daemon() {
    let broker = Broker::shared();
    let config = BusConfig { prefetch: 5, ..broker.config("prefetch") };
    let client = broker.client().await;
    let stage = Stage::start(config.clone(), &["Happened"]);
    stage.up(1).await;
    stage.acking.send_replace(false);
    for number in 0..50 {
        send_event(&client, &config, "Happened", &number.to_string()).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(client.look(&config.queue).await.0, 45);
    stage.acking.send_replace(true);
    let bodies = stage.bodies(50).await;
    assert_eq!(bodies, (0..50).map(|number| number.to_string()).collect::<Vec<_>>());
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_were_waiting_are_counted_before_the_first_delivery() {
    let broker = Broker::shared();
    let config = broker.config("waiting");
    let client = broker.client().await;
    let stage = Stage::start(config.clone(), &["Happened"]);
    stage.up(1).await;
    stage.stop().await;
    for number in 0..7 {
        send_event(&client, &config, "Happened", &number.to_string()).await;
    }
    let stage = Stage::start(config.clone(), &["Happened"]);
    // The publishing connection may be the later one: then fewer are left.
    let waiting = stage.up(1).await;
    let before = 7 - usize::try_from(waiting).unwrap();
    assert_eq!(stage.bodies(7).await.len(), 7);
    assert!(before <= 7);
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_passes_the_delivery_limit_comes_in_as_a_dead_letter_from_where_it_was() {
    let broker = Broker::shared();
    let config = BusConfig { delivery_limit: 1, ..broker.config("dead") };
    let client = broker.client().await;
    let stage = Stage::start(config.clone(), &["Happened"]);
    stage.up(1).await;
    stage.stop().await;
    send_event(&client, &config, "Happened", "1").await;
    for _ in 0..2 {
        let get = client.channel.basic_get(config.queue.as_str().into(), BasicGetOptions::default());
        let got = get.await.unwrap().unwrap();
        got.delivery.acker.reject(BasicRejectOptions { requeue: true }).await.unwrap();
    }
    let stage = Stage::start(config.clone(), &["Happened"]);
    assert_eq!(stage.bodies(1).await, ["1"]);
    {
        let seen = stage.seen.lock().unwrap();
        let delivery = &seen.deliveries[0];
        assert!(delivery.dead);
        assert_eq!(delivery.raw.exchange, config.events_exchange);
        assert_eq!(delivery.message.as_ref().unwrap().kind, "Happened");
    }
    stage.until_status("the dead queue is empty", |status| status.dead == Some(0)).await;
    stage.stop().await;
    assert_eq!(client.look(&config.dead).await, (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_cannot_be_parsed_is_taken_alone_until_it_is_dead() {
    let broker = Broker::shared();
    let config = BusConfig { delivery_limit: 3, ..broker.config("utf") };
    let client = broker.client().await;
    let stage = Stage::start(config.clone(), &["Happened"]);
    stage.up(1).await;
    stage.stop().await;
    for number in 0..5 {
        send_event(&client, &config, "Happened", &number.to_string()).await;
    }
    // A client that checks nothing: an id of one byte that is no UTF-8.
    broker.ctl(&[
        "eval",
        &format!(
            "rabbit_basic:publish(rabbit_misc:r(<<\"/\">>, exchange, <<\"{}\">>), <<\"Happened\">>, \
         [{{message_id, <<255>>}}, {{delivery_mode, 2}}], <<\"bad\">>).",
            config.events_exchange
        ),
    ]);
    for number in 5..10 {
        send_event(&client, &config, "Happened", &number.to_string()).await;
    }
    let stage = Stage::start(config.clone(), &["Happened"]);
    stage.down("cannot be parsed").await;
    stage
        .until("each of the others", |seen| {
            let bodies: BTreeSet<String> = seen.deliveries.iter().map(|delivery| text(&delivery.raw.body)).collect();
            (bodies.len() == 10 && !bodies.contains("bad")).then_some(())
        })
        .await;
    stage.until_status("out of quarantine", |status| status.connected && !status.quarantine).await;
    // It lies in the dead queue, where nobody can read it either; it is counted, and the rest goes on.
    stage.until_status("counted", |status| status.dead == Some(1)).await;
    send_event(&client, &config, "Happened", "10").await;
    stage
        .until("what comes after", |seen| seen.deliveries.iter().any(|d| text(&d.raw.body) == "10").then_some(()))
        .await;
    assert!(!stage.seen.lock().unwrap().deliveries.iter().any(|delivery| delivery.dead), "no other went down with it");
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_away_at_the_start_is_waited_for_and_one_that_dies_loses_no_confirm() {
    let broker = Broker::start();
    let config = broker.config("away");
    broker.stop();
    let stage = Stage::start(config.clone(), &["Happened"]);
    stage.down("no connection to 127.0.0.1").await;
    tokio::task::block_in_place(|| broker.begin());
    stage.up(1).await;
    let client = broker.client().await;
    client.declare_queue("away.work").await;
    client.bind("away.work", &config.commands_exchange, "work.*").await;
    send_event(&client, &config, "Happened", "1").await;
    stage.bodies(1).await;
    // RabbitMQ 3.10 writes down a new quorum queue late: killed in its first seconds, it never has a leader again.
    tokio::time::sleep(Duration::from_secs(5)).await;
    stage.hand_out((0..6000).map(|number| command("work", number)).collect()).await;
    broker.kill();
    stage.until_status("lost", |status| !status.connected && status.error.is_some()).await;
    tokio::task::block_in_place(|| broker.begin());
    stage.up(2).await;
    let settled = stage.settled().await;
    assert_eq!(settled.len(), 6000);
    assert!(settled.values().all(|said| *said == Published::Confirmed));
    let client = broker.client().await;
    let mut there = BTreeSet::new();
    while let Some(got) = client.get("away.work").await {
        there.insert(text(&got.delivery.data));
    }
    assert_eq!(there.len(), 6000, "each that was confirmed is there");
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_broker_is_noticed_long_before_the_heartbeat() {
    let broker = Broker::start();
    let config = broker.config("frozen");
    let stage = Stage::start(config.clone(), &["Happened"]);
    stage.up(1).await;
    broker.freeze();
    let began = Instant::now();
    stage.down("has not answered").await;
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    tokio::time::sleep(Duration::from_secs(1)).await;
    broker.thaw();
    stage.up(2).await;
    let client = broker.client().await;
    send_event(&client, &config, "Happened", "1").await;
    stage.bodies(1).await;
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alarm_blocks_publishing_and_consuming_goes_on() {
    let broker = Broker::start();
    let config = broker.config("alarm");
    let stage = Stage::start(config.clone(), &["Happened"]);
    stage.up(1).await;
    let client = broker.client().await;
    client.declare_queue("alarm.work").await;
    client.bind("alarm.work", &config.commands_exchange, "work.*").await;
    for number in 0..3 {
        send_event(&client, &config, "Happened", &number.to_string()).await;
    }
    stage.bodies(3).await;
    stage.acking.send_replace(false);
    send_event(&client, &config, "Happened", "3").await;
    broker.ctl(&["set_vm_memory_high_watermark", "0"]);
    stage.hand_out((0..10).map(|number| command("work", number)).collect()).await;
    let status = stage.until_status("blocked", |status| status.blocked.is_some()).await;
    assert!(!status.connected, "it cannot publish");
    stage.acking.send_replace(true);
    stage.bodies(4).await;
    broker.ctl(&["set_vm_memory_high_watermark", "absolute", "2GB"]);
    stage.up(2).await;
    let settled = stage.settled().await;
    assert!(settled.len() == 10 && settled.values().all(|said| *said == Published::Confirmed));
    assert_eq!(stage.status().blocked, None);
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tls_who_is_who_is_checked_both_ways_and_what_is_wrong_is_said_plainly() {
    let broker = tokio::task::block_in_place(Broker::with_tls);
    let url = BrokerUrl::parse(&format!("amqps://127.0.0.1:{}", broker.port)).unwrap();
    let wrong = BusConfig { url, ..broker.config("tls") };
    let error = async |config: &BusConfig| check(config, &Types::default()).await.unwrap_err().to_string();
    assert!(error(&wrong).await.contains("bus.ca_file"), "{}", error(&wrong).await);
    let known = BusConfig { ca_file: Some(broker.file("ca.pem")), ..wrong.clone() };
    assert!(error(&known).await.contains("cert_file"), "{}", error(&known).await);
    let plain = BusConfig { url: BrokerUrl::parse(&broker.url()).unwrap(), ..known.clone() };
    assert!(error(&plain).await.contains("amqps://"), "{}", error(&plain).await);
    let right = BusConfig {
        cert_file: Some(broker.file("client.pem")),
        key_file: Some(broker.file("client.key")),
        ..known.clone()
    };
    let stage = Stage::start(right, &["Happened"]);
    stage.up(1).await;
    stage.stop().await;
}
