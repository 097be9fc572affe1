//! The daemon itself, as a process of its own: as many start events as asked wait in its queue, and for each a command
//! has to stand in the participant's.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lapin::BasicProperties;
use lapin::options::{BasicPublishOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use serde_json::{Value, json};

use crate::broker::{Broker, Client};
use crate::{Figure, as_float, cpu_us};

const DEFINITION: &str = "\
saga: bench
about: One step, for its own sake.
start:
  Begun: { key: event.key, data: { note: \"${event.note}\" } }
states:
  only:
    send: participant.Do
    success: Done
    timeout: 1h
    undo: none
";
const LOOK_EVERY: Duration = Duration::from_millis(5);
const TIME_OUT: Duration = Duration::from_secs(300);

#[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
pub async fn measured(broker: &Broker, run: usize, events: usize) -> Figure {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the build folder can be written");
    let name = format!("bench-{run}");
    configure(folder.path(), broker, &name);
    let client = broker.client().await;
    let queue = format!("{name}-participant");
    quorum_queue(&client, &queue).await;
    // Once, so that everything is declared and bound.
    let mut daemon = start(folder.path());
    wait_until(|| bound(broker, &name)).await;
    client.bind(&queue, &format!("{name}.commands"), "participant.*").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    stop(&mut daemon);
    let body = |number: usize| json!({"key": format!("key-{number}"), "note": "x".repeat(260)});
    fill(&client, &format!("{name}.events"), "Begun", events, body).await;
    let mut daemon = start(folder.path());
    let count = |client| look(client, &queue);
    let mut first = 0;
    while first == 0 {
        tokio::time::sleep(LOOK_EVERY).await;
        first = count(&client).await;
    }
    let (began, cpu) = (Instant::now(), cpu_us(daemon.id()));
    while count(&client).await < events {
        assert!(began.elapsed() < TIME_OUT, "the daemon does not get on");
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let seconds = began.elapsed().as_secs_f64();
    let handled = as_float(events - first);
    let cpu_us = (cpu_us(daemon.id()) - cpu) / handled;
    stop(&mut daemon);
    Figure { per_second: handled / seconds, cpu_us }
}

fn configure(folder: &Path, broker: &Broker, name: &str) {
    std::fs::create_dir(folder.join("sagas")).expect("a new folder");
    std::fs::write(folder.join("sagas/bench.yaml"), DEFINITION).expect("written");
    let config = format!(
        "[bus]\nurl = \"{}\"\nqueue = \"{name}.sagad\"\nevents_exchange = \"{name}.events\"\n\
         commands_exchange = \"{name}.commands\"\ndead = \"{name}.sagad.dead\"\nlifecycle_events = false\n\
         [engine]\ngrace = \"1ms\"\n",
        broker.url()
    );
    std::fs::write(folder.join("sagad.toml"), config).expect("written");
}

fn start(folder: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_sagad"))
        .args(["--config", "sagad.toml", "run"])
        .current_dir(folder)
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(folder.join("log")).expect("a log"))
        .spawn()
        .expect("the daemon starts")
}

fn stop(daemon: &mut Child) {
    let pid = rustix::process::Pid::from_child(daemon);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
    assert!(daemon.wait().expect("it ends").success());
}

/// Whether the daemon's exchanges and queue stand.
fn bound(broker: &Broker, name: &str) -> bool {
    broker.ctl(&["list_queues", "--quiet", "name"]).lines().any(|line| line == format!("{name}.sagad"))
}

async fn wait_until(holds: impl Fn() -> bool) {
    while !holds() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn look(client: &Client, queue: &str) -> usize {
    usize::try_from(client.look(queue).await.0).expect("it fits")
}

pub async fn quorum_queue(client: &Client, name: &str) {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    client.channel.queue_declare(name.into(), options, arguments).await.expect("declared");
}

/// Publishes so many messages and waits until the broker has them.
pub async fn fill(client: &Client, exchange: &str, key: &str, events: usize, body: impl Fn(usize) -> Value) {
    let mut confirms = Vec::with_capacity(events);
    for number in 0..events {
        let properties = BasicProperties::default()
            .with_delivery_mode(2)
            .with_type(key.into())
            .with_message_id(format!("message-{number:08}").into());
        let body = body(number).to_string();
        let options = BasicPublishOptions::default();
        let published = client.channel.basic_publish(exchange.into(), key.into(), options, body.as_bytes(), properties);
        confirms.push(published.await.expect("published"));
    }
    for confirm in confirms {
        assert!(confirm.await.expect("told").is_ack());
    }
}
