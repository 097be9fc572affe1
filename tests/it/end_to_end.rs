//! The whole over a real broker: the daemon a process of its own, the participants another, both as an operator would
//! run them. What the seeded world shows for thousands of orders of things, this shows for the real thing.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "a test fails by panicking, waits by the clock, and says what it saw"
)]

mod town;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use lapin::BasicProperties;
use serde_json::{Value, json};

use crate::broker::{Broker, Client};
use town::{PATIENCE, Participants, Town, load};

/// A number from the environment, for a run at full size.
fn size(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// A saga with limits of seconds: one question, one try.
const HASTY: &str = r#"saga: hasty
about: Somebody is asked, and has little time.
start:
  Wanted: { key: event.id }
deadline: 1d
states:
  ask:
    send: worker.Do
    with: { id: "${saga.key}" }
    success: Done
    failure: Refused
    timeout: 3s
    undo: { send: worker.Undo, success: Undone }
completed:
  publish: { event: Had, with: { id: "${saga.key}" } }
"#;

async fn wanted(client: &Client, id: &str) {
    let properties = BasicProperties::default().with_delivery_mode(2).with_message_id(format!("start-{id}").into());
    client.publish("events", "Wanted", properties, format!(r#"{{"id":"{id}"}}"#).as_bytes()).await;
}

async fn answer(client: &Client, kind: &str, correlation: &str) {
    let properties = BasicProperties::default()
        .with_delivery_mode(2)
        .with_message_id(format!("{kind}-{correlation}").into())
        .with_correlation_id(correlation.into());
    client.publish("events", kind, properties, b"{}").await;
}

/// The worker's queue, which outlives the broker's restart.
async fn worker(client: &Client, bound: bool) {
    client.declare_queue("worker").await;
    if bound {
        client.bind("worker", "commands", "worker.*").await;
    }
}

/// Takes so many commands: correlation id and type of each.
async fn take(client: &Client, count: usize) -> Vec<(String, String)> {
    let began = Instant::now();
    let mut taken = Vec::new();
    while taken.len() < count {
        match client.get("worker").await {
            Some(got) => {
                let properties = &got.delivery.properties;
                let text = |text: &Option<lapin::types::ShortString>| text.as_ref().unwrap().to_string();
                taken.push((text(properties.correlation_id()), text(properties.kind())));
            }
            None => tokio::time::sleep(Duration::from_millis(20)).await,
        }
        assert!(began.elapsed() < PATIENCE, "{} of {count} commands", taken.len());
    }
    taken
}

/// The turns of an instance, as far as they moved it.
fn turns(town: &Town, id: &str) -> Vec<Value> {
    town.json(&["journal", id])["turns"].as_array().unwrap().clone()
}

fn attempts(town: &Town, id: &str) -> Vec<Value> {
    let shown = town.json(&["show", id]);
    shown["steps"].as_array().unwrap().iter().map(|step| step["attempt"].clone()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_end_well_although_daemon_and_broker_are_killed_again_and_again() {
    let requests = size("SAGAD_E2E_REQUESTS", 150);
    let kills = size("SAGAD_E2E_KILLS", 4);
    let broker_kills = size("SAGAD_E2E_BROKER_KILLS", 1);
    let seed = size("SAGAD_E2E_SEED", 1);
    let broker = tokio::task::block_in_place(Broker::start);
    let url = broker.url();
    let (requests_text, seed_text) = (requests.to_string(), seed.to_string());
    // Room for seven in ten; some users have too many groups already.
    let groups = (requests / 40).max(3);
    let (limit, groups) = ((requests * 7 / 10).div_ceil(groups).to_string(), groups.to_string());
    let town_of = ["--requests", &requests_text, "--seed", &seed_text, "--groups", &groups];
    let mut participants = Participants::start(
        &url,
        &[&town_of[..], &["--faults", "--never-silent", "--longest-ms", "1500", "--group-limit", &limit]].concat(),
    );
    let mut town = Town::new(&url);
    town.up();
    // RabbitMQ 3.10 writes down a new quorum queue late: killed in its first seconds, it never has a leader again.
    tokio::time::sleep(Duration::from_secs(6)).await;
    let mut load = load(&url, &[&town_of[..], &["--per-second", "40"]].concat());
    // The kills are spread over the run by how far it has come.
    let mut broker_killed = 0;
    for kill in 1..=kills {
        let goal = requests * kill / (kills + 2);
        let began = Instant::now();
        while town.ended().unwrap_or(0) < goal && began.elapsed() < PATIENCE {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        town.kill();
        if broker_killed < broker_kills && kill * (broker_kills + 1) >= kills * (broker_killed + 1) {
            broker_killed += 1;
            tokio::task::block_in_place(|| {
                broker.kill();
                broker.begin();
            });
        }
        town.start();
    }
    assert_eq!(broker_killed, broker_kills);
    tokio::task::block_in_place(|| load.wait()).unwrap();
    let status = town.until_ended(requests);
    assert_eq!(status["stuck"], 0, "{status:#}");

    let instances = town.list(&[]);
    assert_eq!(instances.len() as u64, requests);
    let ends: BTreeSet<&str> = instances.iter().map(|instance| instance["status"].as_str().unwrap()).collect();
    assert_eq!(ends, BTreeSet::from(["completed", "compensated"]));
    let verified = town.json(&["journal", "--verify", "--all"]);
    assert_eq!(verified["broken"], json!([]), "{verified:#}");
    assert_eq!(verified["checked"], requests);

    let report = participants.report();
    for invariant in report["invariants"].as_array().unwrap() {
        assert_eq!(invariant["holds"], true, "{invariant:#}");
    }
    for what in ["complaints", "altered", "malformed"] {
        assert_eq!(report[what], json!([]), "{what}");
    }
    // Everything that was seen is in the journal: no command of a turn that was not committed went out.
    let sent: BTreeSet<String> = instances
        .iter()
        .flat_map(|instance| turns(&town, instance["id"].as_str().unwrap()))
        .flat_map(|turn| turn["messages"].as_array().unwrap().clone())
        .map(|message| message["message_id"].as_str().unwrap().to_owned())
        .collect();
    let seen = report["seen"].as_array().unwrap();
    assert!(seen.len() as u64 > requests, "each was asked for at least");
    for message in seen {
        assert!(sent.contains(message["message_id"].as_str().unwrap()), "{message:#}");
    }
    let completed = instances.iter().filter(|instance| instance["status"] == "completed").count();
    assert_eq!(report["told"]["yes"], completed);
    let share = completed * 100 / instances.len();
    assert!((40..=85).contains(&share), "about a third is to fail, not {} %", 100 - share);
    eprintln!("{completed} of {requests} completed, {kills} kills, {broker_kills} of the broker");
    town.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn to_deliver_every_message_of_a_run_once_more_changes_nothing() {
    let broker = tokio::task::block_in_place(Broker::shared);
    let url = tokio::task::block_in_place(|| broker.vhost("again"));
    let arguments = ["--requests", "40", "--groups", "3"];
    let mut participants = Participants::start(&url, &[&arguments[..], &["--answer-to", "events"]].concat());
    let client = Client::connect(&url).await;
    // Everything that comes in is overheard.
    client.declare_queue("overheard").await;
    client.bind("overheard", "events", "#").await;
    let mut town = Town::new(&url);
    town.up();
    tokio::task::block_in_place(|| load(&url, &arguments).wait()).unwrap();
    town.until_ended(40);
    let before = (town.list(&[]), participants.report()["seen"].clone());
    let journals = |town: &Town| -> Vec<Vec<Value>> {
        town.list(&[]).iter().map(|instance| turns(town, instance["id"].as_str().unwrap())).collect()
    };
    let journals_before = journals(&town);

    let mut overheard = Vec::new();
    while let Some(got) = client.get("overheard").await {
        overheard.push(got.delivery);
    }
    let again = overheard.len();
    for delivery in overheard {
        client.publish("events", delivery.routing_key.as_str(), delivery.properties.clone(), &delivery.data).await;
    }
    assert!(again >= 40 * 4, "{again} messages");
    let began = Instant::now();
    while client.look("sagad").await != (0, 1) {
        assert!(began.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(town.list(&[]), before.0);
    assert_eq!(participants.report()["seen"], before.1, "no command went out again");
    assert_eq!(journals(&town), journals_before);
    let unmatched = town.json(&["inbox", "--unmatched"]);
    assert_eq!(unmatched["messages"], json!([]), "{unmatched:#}");
    town.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_messages_are_found_again_with_reason_and_bytes_and_the_others_go_on() {
    let broker = tokio::task::block_in_place(Broker::shared);
    let url = tokio::task::block_in_place(|| broker.vhost("bad"));
    let mut town = Town::empty(&url);
    town.saga("hasty", &HASTY.replace("timeout: 3s", "timeout: 10m"));
    // The key is looked at before there is an instance; the sum within its turn.
    let sum = "start:\n  Summed: { key: event.id, data: { sum: \"${event.price * event.count}\" } }\n";
    let states = "states:\n  say: { set: { twice: \"${data.sum * 2}\" }, publish: Said }\n";
    town.saga("sum", &format!("saga: sum\nabout: A sum is made.\n{sum}deadline: 1h\n{states}"));
    town.up();
    let client = Client::connect(&url).await;
    worker(&client, true).await;
    let plain = |id: &str| BasicProperties::default().with_message_id(id.into());
    client.publish("events", "Wanted", plain("no-json"), b"{'id': 1}").await;
    client.publish("events", "Wanted", plain("empty"), b"").await;
    client.publish("events", "Wanted", plain("bytes"), &[0xff, 0xfe, 0x00]).await;
    let large = format!("{{\"id\":\"{}\"}}", "x".repeat(1_100_000));
    client.publish("events", "Wanted", plain("large"), large.as_bytes()).await;
    let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
    client.publish("events", "Wanted", plain("deep"), deep.as_bytes()).await;
    client.publish("", "sagad", plain("no-type"), b"{}").await;
    client.publish("events", "Wanted", plain("no-key"), br#"{"name":"x"}"#).await;
    let unknown = plain("unknown").with_correlation_id("nobody-asked".into());
    client.publish("events", "Done", unknown, b"{}").await;
    // This one is of another daemon's database: counted, not recorded.
    let foreign = plain("foreign").with_correlation_id("11111111-2222-8333-8444-555555555555".into());
    client.publish("events", "Done", foreign, b"{}").await;
    client.publish("", "sagad", plain("stranger").with_type("NobodyKnows".into()), b"{}").await;
    client.publish("events", "Summed", plain("sum"), br#"{"id":"s1","price":"cheap","count":2}"#).await;
    wanted(&client, "good").await;

    let reasons = |found: &Value| -> BTreeMap<String, String> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let messages = found["messages"].as_array().unwrap();
        messages.iter().map(|message| (text(&message["message_id"]), text(&message["reason"]))).collect()
    };
    let expected = [
        ("no-json", "not-json"),
        ("empty", "not-json"),
        ("bytes", "not-json"),
        ("large", "too-large"),
        ("deep", "too-deep"),
        ("no-type", "no-type"),
        ("no-key", "expression"),
    ];
    let dead = town.until_json("dead letters", &["inbox", "--dead"], |found| {
        let reasons = reasons(found);
        expected.iter().all(|(id, reason)| reasons.get(*id).is_some_and(|found| found == reason))
    });
    let of =
        |id: &str| dead["messages"].as_array().unwrap().iter().find(|message| message["message_id"] == id).unwrap();
    assert_eq!(of("no-json")["body"], "{'id': 1}");
    assert_eq!(of("bytes")["body_base64"], "//4A");
    assert_eq!(of("deep")["body"], deep.as_str());
    assert_eq!(of("large")["body"].as_str().unwrap().len(), 64 * 1024);
    let unmatched = town.until_json("unmatched", &["inbox", "--unmatched"], |found| reasons(found).len() >= 2);
    assert_eq!(reasons(&unmatched)["unknown"], "no-instance");
    assert_eq!(reasons(&unmatched)["stranger"], "unknown-type");
    assert!(!reasons(&unmatched).contains_key("foreign"));
    assert_eq!(town.json(&["status"])["foreign"], 1);
    // The start's data failed: before an instance was found, so it is a dead letter as well, or an incident.
    let summed = reasons(&dead).get("sum").is_some_and(|reason| reason == "expression")
        || town.list(&["--saga", "sum"]).iter().any(|instance| instance["incident"] == "expression");
    assert!(summed, "{dead:#}");

    // The same again adds no second row.
    let rows = dead["messages"].as_array().unwrap().len();
    client.publish("events", "Wanted", plain("no-json"), b"{'id': 1}").await;
    let taken = take(&client, 1).await;
    answer(&client, "Done", &taken[0].0).await;
    town.until_json("the good one", &["list", "--saga", "hasty"], |found| {
        found["instances"][0]["status"] == "completed"
    });
    assert_eq!(town.json(&["inbox", "--dead"])["messages"].as_array().unwrap().len(), rows);
    town.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_body_in_a_turn_stops_that_instance_and_no_other() {
    let broker = tokio::task::block_in_place(Broker::shared);
    let url = tokio::task::block_in_place(|| broker.vhost("wrong"));
    let mut town = Town::empty(&url);
    let success = "success: { Done: { set: { half: \"${event.n / 2}\" } } }";
    town.saga(
        "hasty",
        &HASTY.replace("timeout: 3s", "timeout: 10m").replace("success: Done\n", &format!("{success}\n")),
    );
    town.up();
    let client = Client::connect(&url).await;
    worker(&client, true).await;
    wanted(&client, "a").await;
    wanted(&client, "b").await;
    let taken = take(&client, 2).await;
    for ((correlation, _), body) in taken.iter().zip([r#"{"n":"many"}"#, r#"{"n":4}"#]) {
        let properties = BasicProperties::default()
            .with_message_id(format!("done-{correlation}").into())
            .with_correlation_id(correlation.as_str().into());
        client.publish("events", "Done", properties, body.as_bytes()).await;
    }
    let list = town.until_json("one stuck, one done", &["list"], |found| {
        let instances = found["instances"].as_array().unwrap();
        let has = |what: &str, value: &Value| instances.iter().any(|instance| instance[what] == *value);
        has("incident", &json!("expression")) && has("status", &json!("completed"))
    });
    let stuck = list["instances"].as_array().unwrap().iter().find(|instance| instance["stuck"] == true).unwrap();
    let shown = town.json(&["show", stuck["id"].as_str().unwrap()]);
    let incident = &shown["incidents"][0];
    assert!(incident["source"]["line"].is_number() && !incident["error"].as_str().unwrap().is_empty(), "{incident:#}");
    town.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_nobody_takes_opens_an_incident_that_closes_when_a_queue_is_bound() {
    let broker = tokio::task::block_in_place(Broker::shared);
    let url = tokio::task::block_in_place(|| broker.vhost("nobody"));
    let mut town = Town::empty(&url);
    town.saga("hasty", HASTY);
    town.up();
    let client = Client::connect(&url).await;
    wanted(&client, "a").await;
    town.until_json("unroutable", &["list"], |found| found["instances"][0]["incident"] == "unroutable");
    // Longer than the step's own limit: what nobody has cannot be late.
    tokio::time::sleep(Duration::from_secs(5)).await;
    worker(&client, true).await;
    let taken = take(&client, 1).await;
    answer(&client, "Done", &taken[0].0).await;
    let list = town.until_json("done", &["list"], |found| found["instances"][0]["status"] == "completed");
    assert_eq!(list["instances"][0]["stuck"], false);
    let shown = town.json(&["show", "hasty/a"]);
    assert_eq!(shown["incidents"][0]["kind"], "unroutable", "{shown:#}");
    assert_eq!(shown["incidents"][0]["open"], false, "{shown:#}");
    town.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_away_for_a_minute_costs_no_step_its_time() {
    let outage = Duration::from_secs(size("SAGAD_E2E_OUTAGE_S", 60));
    let broker = tokio::task::block_in_place(Broker::start);
    let url = broker.url();
    let mut town = Town::empty(&url);
    town.saga("hasty", HASTY);
    town.up();
    let client = Client::connect(&url).await;
    worker(&client, true).await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    for id in ["a", "b", "c"] {
        wanted(&client, id).await;
    }
    // Three are asked; none has answered yet, when the broker goes.
    let taken = take(&client, 3).await;
    drop(client);
    tokio::task::block_in_place(|| broker.stop());
    let status = town.until("away", |status| status["broker"]["connected"] == false);
    assert!(!status["broker"]["error"].as_str().unwrap().is_empty(), "{status:#}");
    tokio::time::sleep(outage).await;
    assert!(town.list(&[]).iter().all(|instance| instance["status"] == "running"), "nobody has given up");
    tokio::task::block_in_place(|| broker.begin());
    town.until("back", |status| status["broker"]["connected"] == true);
    // The participant needs a while to come back as well, less than the grace and its limit together.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let client = Client::connect(&url).await;
    for (correlation, _) in &taken {
        answer(&client, "Done", correlation).await;
    }
    town.until_ended(3);
    for id in ["hasty/a", "hasty/b", "hasty/c"] {
        let shown = town.json(&["show", id]);
        assert_eq!(shown["status"], "completed", "{shown:#}");
        assert_eq!(attempts(&town, id), [json!(1)]);
    }
    let log = town.log();
    let lines = |mark: &str| log.lines().filter(|line| line.contains(mark)).count();
    assert_eq!(lines("the broker is lost"), 1, "{log}");
    assert_eq!(lines("connected to the broker"), 2, "{log}");

    // And who does not answer is late by the clock that listens.
    wanted(&client, "d").await;
    take(&client, 1).await;
    town.until_json("silence", &["show", "hasty/d"], |shown| shown["status"] == "compensating");
    town.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_waits_while_the_daemon_is_away_is_no_silence() {
    let outage = Duration::from_secs(size("SAGAD_E2E_OUTAGE_S", 60));
    let broker = tokio::task::block_in_place(Broker::shared);
    let url = tokio::task::block_in_place(|| broker.vhost("waits"));
    let mut town = Town::empty(&url);
    town.saga("hasty", HASTY);
    town.up();
    let client = Client::connect(&url).await;
    worker(&client, true).await;
    for id in 0..20 {
        wanted(&client, &id.to_string()).await;
    }
    let taken = take(&client, 20).await;
    town.kill();
    let (early, late) = taken.split_at(10);
    for (correlation, _) in early {
        answer(&client, "Done", correlation).await;
    }
    tokio::time::sleep(outage).await;
    // Among many others, so that they are not read at once.
    for number in 0..3000 {
        let properties = BasicProperties::default().with_message_id(format!("noise-{number}").into());
        client.publish("events", "Done", properties, b"{}").await;
    }
    for (correlation, _) in late {
        answer(&client, "Done", correlation).await;
    }
    town.start();
    town.until_ended(20);
    for instance in town.list(&[]) {
        assert_eq!(instance["status"], "completed", "{instance:#}");
        assert_eq!(attempts(&town, instance["id"].as_str().unwrap()), [json!(1)]);
    }
    town.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_success_that_comes_late_is_taken_back_before_while_and_after() {
    let broker = tokio::task::block_in_place(Broker::shared);
    let url = tokio::task::block_in_place(|| broker.vhost("late"));
    let mut town = Town::empty(&url);
    let hasty = HASTY.replace("timeout: 3s", "timeout: 1s");
    town.saga("hasty", &hasty);
    // The same, but what is in doubt is left as it is: its undo has not been sent when the success comes.
    let lenient = hasty.replace("hasty", "lenient").replace("Wanted", "AlsoWanted");
    town.saga("lenient", &lenient.replace("success: Undone", "success: Undone, in_doubt: leave"));
    town.up();
    let client = Client::connect(&url).await;
    worker(&client, true).await;
    client.publish("events", "AlsoWanted", BasicProperties::default(), br#"{"id":"before"}"#).await;
    let asked = take(&client, 1).await.remove(0);
    town.until_ended(1);
    assert_eq!(client.look("worker").await.0, 0, "no undo went out");
    answer(&client, "Done", &asked.0).await;
    let undo = take(&client, 1).await.remove(0);
    assert_eq!(undo.1, "Undo");
    answer(&client, "Undone", &undo.0).await;
    town.until_ended(1);

    wanted(&client, "open").await;
    let asked = take(&client, 1).await.remove(0);
    let undo = take(&client, 1).await.remove(0);
    assert_eq!(undo.1, "Undo");
    // While its undo is open: it goes out once more, as a new command.
    answer(&client, "Done", &asked.0).await;
    town.until_json("the answer is in", &["journal", "hasty/open"], |journal| {
        journal["turns"].as_array().unwrap().iter().any(|turn| turn["cause"]["type"] == "Done")
    });
    answer(&client, "Undone", &undo.0).await;
    let once_more = take(&client, 1).await.remove(0);
    assert_eq!(once_more.1, "Undo");
    assert_ne!(once_more.0, undo.0);
    answer(&client, "Undone", &once_more.0).await;
    town.until_ended(2);

    // After the end: settling, until that one is taken back too.
    wanted(&client, "ended").await;
    let asked = take(&client, 1).await.remove(0);
    let undo = take(&client, 1).await.remove(0);
    answer(&client, "Undone", &undo.0).await;
    town.until_ended(3);
    answer(&client, "Done", &asked.0).await;
    let again = take(&client, 1).await.remove(0);
    assert_eq!(again.1, "Undo");
    assert_eq!(town.list(&["--settling"]).len(), 1);
    answer(&client, "Undone", &again.0).await;
    town.until_ended(3);
    assert!(town.list(&["--settling"]).is_empty());
    for instance in town.list(&[]) {
        assert_eq!(instance["status"], "compensated");
    }
    town.stop();
}
