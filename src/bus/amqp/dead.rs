//! The dead queue: what passed the delivery limit is read into the engine, to be kept as a dead letter.
//!
//! Over a connection of its own, one message at a time: a message that the client cannot parse ends the connection,
//! and in the dead queue there is no limit that would ever take it away. Such a one stays there and is counted.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection};
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::acks::Acks;
use super::backoff::Backoff;
use super::connect::{self, Connector};
use super::consumer::types_of;
use super::convert::raw;
use super::status::Board;
use super::topology;
use super::words::{answered, is_parsing, plain, short};
use crate::bus::BusConfig;
use crate::bus::envelope::decode;
use crate::engine::{AckToken, Delivery, EngineHandle, Raw};
use crate::saga::ids::DatabaseId;

/// How often the messages in the queue are counted.
const COUNT_EVERY: Duration = Duration::from_secs(5);

pub(super) struct DeadReader {
    pub(super) config: BusConfig,
    pub(super) database: DatabaseId,
    pub(super) connector: Connector,
    pub(super) engine: EngineHandle,
    pub(super) acks: Arc<Acks>,
    pub(super) board: Board,
    pub(super) consuming: watch::Receiver<bool>,
    pub(super) backoff: Backoff,
    pub(super) stop: CancellationToken,
    /// The first message cannot be parsed; so many were there. Nothing is read until there are fewer.
    pub(super) stuck_at: Option<u64>,
}

enum End {
    Stopped,
    /// The daemon's own queue is not consumed: what is dead can wait.
    Idle,
    Lost(String),
    Unparsable,
}

impl DeadReader {
    pub(super) async fn run(mut self) {
        let stop = self.stop.clone();
        loop {
            let awake = async { self.consuming.wait_for(|consuming| *consuming).await.is_ok() };
            if stop.run_until_cancelled(awake).await != Some(true) {
                return;
            }
            match stop.run_until_cancelled(self.attempt()).await {
                None | Some(End::Stopped) => return,
                Some(End::Idle) => {}
                Some(End::Lost(reason)) => tracing::debug!(reason, "the dead queue cannot be read"),
                Some(End::Unparsable) => {
                    self.stuck_at = Some(u64::MAX);
                    tracing::error!(
                        queue = %self.config.dead,
                        "a dead message cannot be parsed; it stays in the queue, and what is behind it waits: take it \
                         out with the broker's own tools"
                    );
                }
            }
            if stop.run_until_cancelled(tokio::time::sleep(self.backoff.next())).await.is_none() {
                return;
            }
        }
    }

    async fn attempt(&mut self) -> End {
        let connection = match self.connector.connect().await {
            Ok(connection) => connection,
            Err(error) => return End::Lost(error.to_string()),
        };
        let end = self
            .session(&connection)
            .await
            .unwrap_or_else(|error| if is_parsing(&error) { End::Unparsable } else { End::Lost(plain(&error)) });
        self.board.note(|status| status.dead = None);
        connect::close(connection).await;
        end
    }

    async fn session(&mut self, connection: &Connection) -> Result<End, lapin::Error> {
        let looking = answered(connection.create_channel()).await?;
        if let Some(end) = self.wait_stuck(&looking).await? {
            return Ok(end);
        }
        self.backoff.begin_anew();
        let channel = answered(connection.create_channel()).await?;
        answered(channel.basic_qos(1, BasicQosOptions::default())).await?;
        let slot = self.acks.open();
        let (queue, tag) = (short(&self.config.dead)?, short(&format!("sagad-{}", self.database.0))?);
        let options = BasicConsumeOptions::default();
        let mut stream = answered(channel.basic_consume(queue, tag, options, FieldTable::default())).await?;
        let mut count = tokio::time::interval(COUNT_EVERY);
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return Ok(End::Stopped),
                Ok(()) = self.consuming.changed() => {
                    if !*self.consuming.borrow_and_update() {
                        return Ok(End::Idle);
                    }
                }
                () = slot.woken.notified() => {
                    for tag in slot.take() {
                        answered(channel.basic_ack(tag, BasicAckOptions::default())).await?;
                    }
                }
                _ = count.tick() => {
                    self.count(&looking).await?;
                }
                item = stream.next() => match item {
                    None => return Ok(End::Lost("the subscription to the dead queue ended".to_owned())),
                    Some(delivery) => {
                        let delivery = self.decoded(delivery?, slot.number);
                        if self.engine.deliver(delivery).await.is_err() {
                            return Ok(End::Stopped);
                        }
                    }
                },
            }
        }
    }

    /// While the first message cannot be parsed, messages are only counted, until somebody has taken it out.
    async fn wait_stuck(&mut self, looking: &Channel) -> Result<Option<End>, lapin::Error> {
        while let Some(stuck_at) = self.stuck_at {
            let messages = self.count(looking).await?;
            if messages < stuck_at && stuck_at != u64::MAX {
                self.stuck_at = None;
                break;
            }
            self.stuck_at = Some(messages);
            tokio::select! {
                () = tokio::time::sleep(COUNT_EVERY) => {}
                Ok(()) = self.consuming.changed() => {
                    if !*self.consuming.borrow_and_update() {
                        return Ok(Some(End::Idle));
                    }
                }
            }
        }
        Ok(None)
    }

    async fn count(&self, looking: &Channel) -> Result<u64, lapin::Error> {
        let messages = answered(topology::look(looking, &self.config.dead)).await?.messages;
        self.board.note(|status| status.dead = Some(messages));
        Ok(messages)
    }

    fn decoded(&self, delivery: lapin::message::Delivery, channel: u64) -> Delivery {
        let ack = Some(AckToken { channel, tag: delivery.delivery_tag });
        let raw = as_it_was(raw(delivery));
        let types = types_of(&self.engine.consumed().borrow());
        let message = decode(&raw, &types, &self.config.limits(), self.board.now());
        Delivery { ack, raw: Arc::new(raw), message, dead: true }
    }
}

/// The exchange and routing key by which the message came at first, so that it can be handed in again as it was.
fn as_it_was(mut raw: Raw) -> Raw {
    let first = raw.headers.get("x-death").and_then(Value::as_array).and_then(|deaths| deaths.last());
    let exchange = first.and_then(|death| death.get("exchange")).and_then(Value::as_str).map(str::to_owned);
    let routing_key = first
        .and_then(|death| death.get("routing-keys"))
        .and_then(Value::as_array)
        .and_then(|keys| keys.first())
        .and_then(Value::as_str)
        .map(str::to_owned);
    if let (Some(exchange), Some(routing_key)) = (exchange, routing_key) {
        raw.exchange = exchange;
        raw.routing_key = routing_key;
    }
    raw
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_dead_message_is_told_by_where_it_came_in() {
        let raw = |headers: Value| Raw {
            exchange: "sagad.dead".to_owned(),
            routing_key: "x".to_owned(),
            headers: headers.as_object().unwrap().clone(),
            ..Raw::default()
        };
        let headers = json!({ "x-death": [{ "exchange": "events", "routing-keys": ["OrderPlaced"], "count": 1 }] });
        let was = as_it_was(raw(headers));
        assert_eq!((was.exchange.as_str(), was.routing_key.as_str()), ("events", "OrderPlaced"));
        assert_eq!(as_it_was(raw(json!({ "x-death": "forged" }))).exchange, "sagad.dead");
    }
}
