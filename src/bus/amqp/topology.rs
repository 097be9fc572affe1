//! Exchanges, queues and bindings: declared where they are ours, only looked at where they are not.
//!
//! The arguments are fixed for good; others would need a new queue name. AMQP cannot list bindings, so what was bound
//! before comes in as an argument.

use std::collections::BTreeSet;
use std::fmt;

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ExchangeKind};

use super::words::{answered, code, plain, short};
use crate::bus::envelope::Binding;
use crate::bus::{BusConfig, Declare, QueueType};

/// Something about the topology that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// `queue 'sagad'`, `exchange 'events'`, `binding of …`.
    pub what: String,
    pub problem: String,
    pub weight: Weight,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// The daemon cannot work so.
    Fatal,
    /// It works, but something will not come in.
    Lacking,
    /// To be known; `run` mends it, or nobody can tell over AMQP.
    Note,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.what, self.problem)
    }
}

#[derive(Debug, thiserror::Error)]
pub(super) enum TopologyError {
    /// What stands there is not what we need; trying again does not mend it.
    #[error("{0}")]
    Found(Finding),
    #[error("{}", plain(.0))]
    Lost(lapin::Error),
}

/// What could be made.
#[derive(Debug, Default)]
pub(super) struct Made {
    pub(super) bound: BTreeSet<Binding>,
    pub(super) findings: Vec<Finding>,
}

/// What a queue says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct QueueState {
    pub(super) messages: u64,
    pub(super) consumers: u32,
}

#[derive(Clone, Debug)]
enum Thing {
    Exchange { name: String, kind: ExchangeKind },
    Queue { name: String, arguments: FieldTable },
}

impl Thing {
    fn name(&self) -> &str {
        match self {
            Thing::Exchange { name, .. } | Thing::Queue { name, .. } => name,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Declare,
    Look,
}

/// Makes or checks everything that the daemon's queue needs, and binds it. Before anything is consumed.
pub(super) async fn make(
    connection: &Connection,
    config: &BusConfig,
    wanted: &BTreeSet<Binding>,
    previously: &BTreeSet<Binding>,
) -> Result<Made, TopologyError> {
    let how = match config.declare {
        Declare::Ours => How::Declare,
        Declare::Nothing => How::Look,
    };
    let mut findings = Vec::new();
    for thing in ours(config) {
        match stand(connection, &thing, how).await.map_err(|error| judge(&thing, error)) {
            Ok(()) => {}
            // The operator's own affair, but to be known: without it the broker has nowhere to put what fails.
            Err(TopologyError::Found(finding)) if how == How::Look && thing.name() == config.dead => {
                findings.push(Finding { weight: Weight::Lacking, ..finding });
            }
            Err(error) => return Err(error),
        }
    }
    match config.declare {
        Declare::Ours => {
            bind_dead(connection, config).await.map_err(TopologyError::Lost)?;
            bind(connection, config, wanted, previously).await
        }
        // The bindings are the operator's.
        Declare::Nothing => {
            findings.extend(foreign(connection, config, wanted).await.map_err(TopologyError::Lost)?);
            Ok(Made { bound: BTreeSet::new(), findings })
        }
    }
}

/// The two exchanges that the daemon publishes to.
pub(super) async fn make_exchanges(connection: &Connection, config: &BusConfig) -> Result<(), TopologyError> {
    let how = match config.declare {
        Declare::Ours => How::Declare,
        Declare::Nothing => How::Look,
    };
    for thing in exchanges(config) {
        stand(connection, &thing, how).await.map_err(|error| judge(&thing, error))?;
    }
    Ok(())
}

/// Binds what is wanted, and takes away what was bound before and is not wanted any more.
pub(super) async fn bind(
    connection: &Connection,
    config: &BusConfig,
    wanted: &BTreeSet<Binding>,
    previously: &BTreeSet<Binding>,
) -> Result<Made, TopologyError> {
    let mut made = Made::default();
    let mut desk = Desk { connection, channel: None };
    for binding in wanted {
        match answered(desk.bind(&config.queue, binding)).await {
            Ok(()) => {
                made.bound.insert(binding.clone());
            }
            Err(error) if is_about(&error) => made.findings.push(unbound(binding, &error)),
            Err(error) => return Err(TopologyError::Lost(error)),
        }
    }
    for binding in previously.difference(wanted) {
        match answered(desk.unbind(&config.queue, binding)).await {
            // An exchange that is gone has taken its bindings with it.
            Ok(()) => {}
            Err(error) if is_about(&error) => {}
            Err(error) => return Err(TopologyError::Lost(error)),
        }
    }
    Ok(made)
}

/// Messages that are ready, and consumers: exact at once, unlike the broker's statistics.
pub(super) async fn look(channel: &Channel, queue: &str) -> Result<QueueState, lapin::Error> {
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let queue = channel.queue_declare(short(queue)?, options, FieldTable::default()).await?;
    Ok(QueueState { messages: u64::from(queue.message_count()), consumers: queue.consumer_count() })
}

/// Everything that is not as the configuration wants it, without making anything.
pub(super) async fn check(
    connection: &Connection,
    config: &BusConfig,
    wanted: &BTreeSet<Binding>,
) -> Result<Vec<Finding>, lapin::Error> {
    let mut findings = Vec::new();
    for thing in ours(config) {
        let looked = stand(connection, &thing, How::Look).await;
        let found = match (looked, config.declare) {
            // To declare what is there already only compares.
            (Ok(()), Declare::Ours) => stand(connection, &thing, How::Declare).await,
            (looked, _) => looked,
        };
        match found.map_err(|error| judge(&thing, error)) {
            Ok(()) => {}
            Err(TopologyError::Found(finding)) => findings.push(softened(finding, config.declare)),
            Err(TopologyError::Lost(error)) => return Err(error),
        }
    }
    findings.extend(foreign(connection, config, wanted).await?);
    if config.declare == Declare::Nothing {
        findings.extend(wanted.iter().map(|binding| Finding {
            what: format!("binding of queue '{}' to exchange '{}'", config.queue, binding.exchange),
            problem: format!("with '{}' is needed; AMQP cannot tell whether it is there", binding.routing_key),
            weight: Weight::Note,
        }));
    }
    Ok(findings)
}

/// What is missing is no fault where `run` makes it.
fn softened(finding: Finding, declare: Declare) -> Finding {
    if declare == Declare::Ours && finding.problem == MISSING {
        return Finding { problem: "is not there yet; run declares it".to_owned(), weight: Weight::Note, ..finding };
    }
    finding
}

const MISSING: &str = "does not exist";

/// The exchanges that a `from:` or an address names: not ours, so only looked at.
async fn foreign(
    connection: &Connection,
    config: &BusConfig,
    wanted: &BTreeSet<Binding>,
) -> Result<Vec<Finding>, lapin::Error> {
    let named = wanted.iter().map(|binding| &binding.exchange);
    let led = config.addresses.values().map(|address| &address.exchange);
    let ours = [&config.events_exchange, &config.commands_exchange];
    let names: BTreeSet<&String> = named.chain(led).filter(|name| !name.is_empty() && !ours.contains(name)).collect();
    let mut findings = Vec::new();
    for name in names {
        let thing = Thing::Exchange { name: name.clone(), kind: ExchangeKind::Topic };
        match stand(connection, &thing, How::Look).await.map_err(|error| judge(&thing, error)) {
            Ok(()) => {}
            Err(TopologyError::Found(finding)) => findings.push(Finding { weight: Weight::Lacking, ..finding }),
            Err(TopologyError::Lost(error)) => return Err(error),
        }
    }
    Ok(findings)
}

fn exchanges(config: &BusConfig) -> [Thing; 2] {
    [&config.events_exchange, &config.commands_exchange]
        .map(|name| Thing::Exchange { name: name.clone(), kind: ExchangeKind::Topic })
}

/// What the daemon has to itself, in the order in which one needs the other.
fn ours(config: &BusConfig) -> Vec<Thing> {
    let mut things = exchanges(config).to_vec();
    things.push(Thing::Exchange { name: config.dead.clone(), kind: ExchangeKind::Fanout });
    things.push(Thing::Queue { name: config.dead.clone(), arguments: dead_arguments(config) });
    things.push(Thing::Queue { name: config.queue.clone(), arguments: arguments(config) });
    things
}

fn dead_arguments(config: &BusConfig) -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), text(config.queue_type.name()));
    arguments
}

fn arguments(config: &BusConfig) -> FieldTable {
    let mut arguments = dead_arguments(config);
    arguments.insert("x-dead-letter-exchange".into(), text(&config.dead));
    if config.queue_type == QueueType::Quorum {
        arguments.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(i64::from(config.delivery_limit)));
        arguments.insert("x-dead-letter-strategy".into(), text("at-least-once"));
        arguments.insert("x-overflow".into(), text("reject-publish"));
    }
    arguments
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

/// Declares a thing or looks whether it is there, on a channel of its own: an error closes the channel.
async fn stand(connection: &Connection, thing: &Thing, how: How) -> Result<(), lapin::Error> {
    answered(standing(connection, thing, how)).await
}

async fn standing(connection: &Connection, thing: &Thing, how: How) -> Result<(), lapin::Error> {
    let channel = connection.create_channel().await?;
    let passive = how == How::Look;
    match thing {
        Thing::Exchange { name, kind } => {
            let options = ExchangeDeclareOptions { durable: true, passive, ..ExchangeDeclareOptions::default() };
            channel.exchange_declare(short(name)?, kind.clone(), options, FieldTable::default()).await?;
        }
        Thing::Queue { name, arguments } => {
            let options = QueueDeclareOptions { durable: true, passive, ..QueueDeclareOptions::default() };
            channel.queue_declare(short(name)?, options, arguments.clone()).await?;
        }
    }
    channel.close(200, "done".into()).await
}

async fn bind_dead(connection: &Connection, config: &BusConfig) -> Result<(), lapin::Error> {
    let binding = Binding { exchange: config.dead.clone(), routing_key: String::new() };
    let mut desk = Desk { connection, channel: None };
    answered(desk.bind(&config.dead, &binding)).await
}

/// Whether the broker spoke of this very thing, rather than the connection having gone.
fn is_about(error: &lapin::Error) -> bool {
    matches!(code(error), Some(403..=406))
}

fn judge(thing: &Thing, error: lapin::Error) -> TopologyError {
    let what = match thing {
        Thing::Exchange { name, .. } => format!("exchange '{name}'"),
        Thing::Queue { name, .. } => format!("queue '{name}'"),
    };
    let said = plain(&error);
    let problem = match code(&error) {
        Some(404) => MISSING.to_owned(),
        Some(403) => format!("is closed to our user: {said}"),
        Some(405) => format!("belongs to another connection: {said}"),
        Some(406) => mismatch(&said),
        _ => return TopologyError::Lost(error),
    };
    TopologyError::Found(Finding { what, problem, weight: Weight::Fatal })
}

/// `PRECONDITION_FAILED - inequivalent arg 'x-queue-type' for queue 'sagad' in vhost '/': received 'quorum' but
/// current is 'classic'`, turned to the property.
fn mismatch(said: &str) -> String {
    let property = said.split_once("inequivalent arg '").and_then(|(_, rest)| rest.split_once('\''));
    let Some((property, rest)) = property else { return format!("stands there otherwise: {said}") };
    let difference = rest.split_once("': ").map_or(rest, |(_, difference)| difference);
    format!("stands there with another {property} ({}); mend it, or choose another name", difference.trim())
}

fn unbound(binding: &Binding, error: &lapin::Error) -> Finding {
    let problem = match code(error) {
        Some(404) => format!("{MISSING}, so nothing comes in by '{}'", binding.routing_key),
        _ => format!("does not let us bind '{}': {}", binding.routing_key, plain(error)),
    };
    Finding { what: format!("exchange '{}'", binding.exchange), problem, weight: Weight::Lacking }
}

/// A channel for many small requests, opened anew when one of them has closed it.
struct Desk<'a> {
    connection: &'a Connection,
    channel: Option<Channel>,
}

impl Desk<'_> {
    async fn channel(&mut self) -> Result<Channel, lapin::Error> {
        match self.channel.take() {
            Some(channel) => Ok(channel),
            None => self.connection.create_channel().await,
        }
    }

    async fn bind(&mut self, queue: &str, binding: &Binding) -> Result<(), lapin::Error> {
        let channel = self.channel().await?;
        let (exchange, key) = (short(&binding.exchange)?, short(&binding.routing_key)?);
        let options = QueueBindOptions::default();
        channel.queue_bind(short(queue)?, exchange, key, options, FieldTable::default()).await?;
        self.channel = Some(channel);
        Ok(())
    }

    async fn unbind(&mut self, queue: &str, binding: &Binding) -> Result<(), lapin::Error> {
        let channel = self.channel().await?;
        let (exchange, key) = (short(&binding.exchange)?, short(&binding.routing_key)?);
        channel.queue_unbind(short(queue)?, exchange, key, FieldTable::default()).await?;
        self.channel = Some(channel);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mismatch_names_the_property() {
        let said = "the broker says 406 PRECONDITION_FAILED - inequivalent arg 'x-queue-type' for queue 'sagad' in \
                    vhost '/': received 'quorum' but current is 'classic'";
        assert_eq!(
            mismatch(said),
            "stands there with another x-queue-type (received 'quorum' but current is 'classic'); mend it, or choose \
             another name"
        );
        assert!(mismatch("PRECONDITION_FAILED - something new").contains("something new"));
    }
}
