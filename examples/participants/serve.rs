//! Takes commands from the broker, answers them, and acknowledges a command only when the broker has its answers.
//!
//! One task does everything, so that the participants need no lock and each channel has one user. What was not answered
//! when a connection went comes again: the barrier makes that harmless.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures_util::stream::{FuturesUnordered, SelectAll, StreamExt};
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions, QueueBindOptions,
    QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Confirmation, Consumer};
use sagad::demo::command::{Answer, Command};
use sagad::demo::dice::Dice;
use sagad::demo::faults::{Faults, Handling, Plan};
use sagad::demo::participants::{Participants, Told};
use serde_json::{Value, json};
use tokio::sync::mpsc::{Receiver, channel};
use uuid::Uuid;

use crate::broker;
use crate::seen::Seen;
use crate::{AnswerTo, Serve};

/// Deliveries that may be open at once: those that are answered late must not hold up the others.
const PREFETCH: u16 = 10_000;

/// Where requesters hear how their requests ended.
const REQUESTER: &str = "requester";

pub async fn run(options: &Serve) -> Result<()> {
    let mut service = Service::new(options);
    let mut lines = stdin();
    let mut grumble = broker::Grumble::default();
    loop {
        let error = match service.session(&options.common.amqp_url, &mut lines).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        grumble.about(&error);
        tokio::select! {
            () = tokio::time::sleep(broker::BACK_AFTER) => {}
            line = lines.recv() => {
                if !service.told(line.as_deref())? {
                    return Ok(());
                }
            }
        }
    }
}

/// Reads stdin line by line on a thread of its own, for a terminal cannot be waited for otherwise.
fn stdin() -> Receiver<String> {
    /// Whoever orders faster than this waits.
    const WAITING_ORDERS: usize = 16;
    let (sender, receiver) = channel(WAITING_ORDERS);
    std::thread::spawn(move || {
        let lines = std::io::stdin().lines().map_while(std::result::Result::ok);
        for line in lines {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// What outlives a connection.
struct Service {
    participants: Participants,
    faults: Faults,
    dice: Dice,
    answer_to: AnswerTo,
    seen: Seen,
    /// How often each command id was answered.
    answers: HashMap<String, u32>,
    connections: u32,
}

/// What lives as long as a connection.
struct Session {
    channel: Channel,
    /// Deliveries that are not acknowledged yet.
    jobs: HashMap<u64, Job>,
    last_job: u64,
    /// What is to be done later.
    later: FuturesUnordered<Soon<Due>>,
    confirms: FuturesUnordered<Soon<(u64, lapin::Result<Confirmation>)>>,
}

type Soon<T> = Pin<Box<dyn Future<Output = T>>>;

struct Job {
    delivery: Delivery,
    command: Command,
    /// Answers that the broker does not have yet; with none left, the delivery is acknowledged.
    open: usize,
}

enum Due {
    Handle { job: u64, plan: Plan },
    Answer { job: u64, answer: Answer },
}

impl Service {
    fn new(options: &Serve) -> Service {
        Service {
            participants: options.participants(),
            faults: options.faults(),
            dice: Dice::new(options.common.seed),
            answer_to: options.answer_to,
            seen: Seen::default(),
            answers: HashMap::new(),
            connections: 0,
        }
    }

    /// One connection, to its end: an error where it went, and nothing where stdin ended.
    async fn session(&mut self, url: &str, lines: &mut Receiver<String>) -> Result<()> {
        let connection = broker::connect(url).await?;
        let (mut deliveries, channel) = (self.consume(&connection).await?, connection.create_channel().await?);
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        self.connections += 1;
        if self.connections == 1 {
            broker::print(&json!({"ready": true}))?;
        }
        broker::say("connected");
        let mut session = Session {
            channel,
            jobs: HashMap::new(),
            last_job: 0,
            later: FuturesUnordered::new(),
            confirms: FuturesUnordered::new(),
        };
        loop {
            tokio::select! {
                delivery = deliveries.next() => {
                    let delivery = delivery.context("the broker ended the connection")??;
                    self.take(&mut session, delivery).await?;
                }
                Some(due) = session.later.next() => self.due(&mut session, due).await?,
                Some((job, confirmation)) = session.confirms.next() => confirmed(&mut session, job, &confirmation?).await?,
                line = lines.recv() => {
                    if !self.told(line.as_deref())? {
                        connection.close(200, "done".into()).await?;
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Declares the participants' queues, durable, so that they outlive the broker's restart, and takes from all of them.
    async fn consume(&self, connection: &lapin::Connection) -> Result<SelectAll<Consumer>> {
        let channel = connection.create_channel().await?;
        broker::declare_exchanges(&channel).await?;
        channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("classic".into()));
        let mut all = SelectAll::new();
        for queue in self.participants.addresses().chain([REQUESTER]) {
            let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
            channel.queue_declare(queue.into(), durable, arguments.clone()).await?;
            let bindings: Vec<(&str, String)> = match queue {
                REQUESTER => Participants::outcomes().map(|kind| (broker::EVENTS, kind.to_owned())).collect(),
                address => vec![(broker::COMMANDS, format!("{address}.*"))],
            };
            for (exchange, key) in bindings {
                let (options, none) = (QueueBindOptions::default(), FieldTable::default());
                channel.queue_bind(queue.into(), exchange.into(), broker::short(&key)?, options, none).await?;
            }
            let options = BasicConsumeOptions::default();
            all.push(channel.basic_consume(queue.into(), queue.into(), options, FieldTable::default()).await?);
        }
        Ok(all)
    }

    /// A line on stdin; says whether to go on.
    fn told(&self, line: Option<&str>) -> Result<bool> {
        match line.map(str::trim) {
            None => return Ok(false),
            Some("report") => broker::print(&self.report())?,
            Some("") => {}
            Some(other) => broker::say(&format!("no such order: {other}; there is: report")),
        }
        Ok(true)
    }

    async fn take(&mut self, session: &mut Session, delivery: Delivery) -> Result<()> {
        if delivery.exchange.as_str() == broker::EVENTS {
            let kind = delivery.routing_key.as_str();
            self.participants.tell(kind, &serde_json::from_slice(&delivery.data)?);
            return acknowledge(&delivery).await;
        }
        let command = match command(&delivery) {
            Ok(command) => command,
            Err(error) => {
                self.seen.note_malformed(format!("{error:#}"));
                return acknowledge(&delivery).await;
            }
        };
        self.seen.note(&command, &delivery.data, &unchanging(&delivery));
        // What comes again because a connection went has had its misfortune: it would be lost for good.
        let plan = if delivery.redelivered { Plan::well() } else { self.faults.plan(&command) };
        session.last_job += 1;
        let job = session.last_job;
        let after_ms = match plan.handling {
            Handling::Never => return acknowledge(&delivery).await,
            Handling::After { ms } => ms,
            Handling::Refuse => 0,
        };
        session.jobs.insert(job, Job { delivery, command, open: plan.answers_after_ms.len() });
        if after_ms == 0 {
            return self.handle(session, job, &plan).await;
        }
        session.after(after_ms, Due::Handle { job, plan });
        Ok(())
    }

    async fn due(&mut self, session: &mut Session, due: Due) -> Result<()> {
        match due {
            Due::Handle { job, plan } => self.handle(session, job, &plan).await,
            Due::Answer { job, answer } => self.answer(session, job, &answer).await,
        }
    }

    async fn handle(&mut self, session: &mut Session, job: u64, plan: &Plan) -> Result<()> {
        let Some(open) = session.jobs.get_mut(&job) else { bail!("job {job} is gone") };
        let answer = match plan.handling {
            Handling::Refuse => self.participants.refuse(&open.command),
            _ => self.participants.handle(&open.command),
        };
        let Some(answer) = answer.filter(|_| open.open > 0) else {
            return done(session, job).await;
        };
        for after_ms in &plan.answers_after_ms {
            match after_ms {
                0 => self.answer(session, job, &answer).await?,
                ms => session.after(*ms, Due::Answer { job, answer: answer.clone() }),
            }
        }
        Ok(())
    }

    /// Publishes an answer: to `events`, or straight to the daemon's queue.
    async fn answer(&mut self, session: &mut Session, job: u64, answer: &Answer) -> Result<()> {
        let Some(Job { delivery, command, .. }) = session.jobs.get(&job) else { bail!("job {job} is gone") };
        let times = self.answers.entry(command.id.clone()).or_default();
        *times += 1;
        let one_of_two = |what: &str, times: u32| self.dice.throw(&format!("{what} {times} {}", command.key), 2) == 0;
        // A repetition with the first one's id is one that the inbox knows; with an id of its own it is news.
        let number = if one_of_two("same id", *times) { 1 } else { *times };
        let message_id = Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("answer {number} to {}", command.id).as_bytes());
        let properties = broker::properties(&answer.kind, &message_id.to_string())?
            .with_correlation_id(broker::short(&command.id)?)
            .with_app_id(broker::short(&command.address)?);
        let reply_to = delivery.properties.reply_to().as_ref().filter(|_| match self.answer_to {
            AnswerTo::Events => false,
            AnswerTo::ReplyTo => true,
            AnswerTo::Either => one_of_two("straight", *times),
        });
        let (exchange, routing_key) = match reply_to {
            Some(queue) => ("", queue.clone()),
            None => (broker::EVENTS, broker::short(&answer.kind)?),
        };
        let body = serde_json::to_vec(&answer.body)?;
        let published = session
            .channel
            .basic_publish(exchange.into(), routing_key, BasicPublishOptions::default(), &body, properties)
            .await?;
        session.confirms.push(Box::pin(async move { (job, published.await) }));
        Ok(())
    }

    fn report(&self) -> Value {
        let of = |told: Told| self.participants.told().values().filter(|outcomes| outcomes.contains(&told)).count();
        json!({
            "invariants": self.participants.invariants(),
            "complaints": self.participants.complaints().collect::<Vec<_>>(),
            "told": {"yes": of(Told::Yes), "no": of(Told::No)},
            "holdings": self.participants.holdings(),
            "answers": self.answers.values().sum::<u32>(),
            "connections": self.connections,
            "seen": self.seen.messages().collect::<Vec<_>>(),
            "altered": self.seen.altered(),
            "malformed": self.seen.malformed(),
        })
    }
}

impl Session {
    fn after(&mut self, ms: u64, due: Due) {
        self.later.push(Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            due
        }));
    }
}

async fn confirmed(session: &mut Session, job: u64, confirmation: &Confirmation) -> Result<()> {
    if !confirmation.is_ack() {
        bail!("the broker did not take an answer");
    }
    let Some(answered) = session.jobs.get_mut(&job) else { bail!("job {job} is gone") };
    answered.open = answered.open.saturating_sub(1);
    if answered.open == 0 { done(session, job).await } else { Ok(()) }
}

async fn done(session: &mut Session, job: u64) -> Result<()> {
    match session.jobs.remove(&job) {
        Some(job) => acknowledge(&job.delivery).await,
        None => Ok(()),
    }
}

async fn acknowledge(delivery: &Delivery) -> Result<()> {
    delivery.ack(BasicAckOptions::default()).await?;
    Ok(())
}

/// Reads a command as `wire.md` says; one that lacks a part is nothing that the orchestrator may send.
fn command(delivery: &Delivery) -> Result<Command> {
    let properties = &delivery.properties;
    let routing_key = delivery.routing_key.as_str();
    let (address, _) = routing_key.split_once('.').context("a routing key without an address")?;
    let text = |value: &Option<lapin::types::ShortString>, what: &str| {
        value.as_ref().map(ToString::to_string).with_context(|| format!("{routing_key} came without {what}"))
    };
    Ok(Command {
        address: address.to_owned(),
        name: text(properties.kind(), "a type")?,
        id: text(properties.correlation_id(), "a correlation id")?,
        message_id: text(properties.message_id(), "a message id")?,
        undoes: header(delivery, "saga-undoes"),
        key: header(delivery, "saga-key").unwrap_or_default(),
        body: serde_json::from_slice(&delivery.data)?,
    })
}

fn header(delivery: &Delivery, name: &str) -> Option<String> {
    match delivery.properties.headers().as_ref()?.inner().get(name)? {
        AMQPValue::LongString(text) => Some(text.to_string()),
        AMQPValue::ShortString(text) => Some(text.to_string()),
        _ => None,
    }
}

/// What must be the same when a message is published again: everything but where it goes and where answers go.
fn unchanging(delivery: &Delivery) -> String {
    let properties = &delivery.properties;
    format!(
        "{:?} {:?} {:?} {:?} {:?} {:?}",
        properties.kind(),
        properties.correlation_id(),
        properties.headers(),
        properties.timestamp(),
        properties.app_id(),
        properties.content_type(),
    )
}
