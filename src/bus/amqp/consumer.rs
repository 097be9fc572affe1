//! The intake: from the daemon's queue to the engine, and the acknowledgements back.
//!
//! One session is one connection: topology, a look whether anybody else consumes, subscribe, then read until it ends.
//! The reader is a task of its own, because it waits for the engine; acknowledging must go on meanwhile. The reader
//! alone tells the engine of the bus's state, so that states and deliveries come in the order in which they were.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use lapin::options::{BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Connection};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::acks::{Ack, Acks, Ledger};
use super::backoff::Backoff;
use super::connect::{self, Connector};
use super::publisher::Sending;
use super::pulse::{self, Pulse};
use super::reader::{Command, Reader, ReaderEnd};
use super::status::Board;
use super::topology::{self, TopologyError};
use super::words::{answered, plain, short};
use crate::bus::BusConfig;
use crate::bus::envelope::{Binding, Types};
use crate::engine::{BusState, Consumed, EngineHandle};
use crate::saga::ids::DatabaseId;

/// How often it is looked whether another consumer has gone.
const OTHERS_LOOK: Duration = Duration::from_secs(1);
/// How often bindings that could not be made are tried again.
const BIND_AGAIN: Duration = Duration::from_secs(30);
/// In quarantine nothing has come for so long: what could not be parsed is gone.
const QUARANTINE_IDLE: Duration = Duration::from_secs(2);
/// Commands to the reader that may wait: a state, its opposite, and one more.
const COMMANDS_LIMIT: usize = 4;

pub(super) struct Consumer {
    pub(super) config: BusConfig,
    pub(super) database: DatabaseId,
    pub(super) connector: Connector,
    pub(super) engine: EngineHandle,
    pub(super) acks: Arc<Acks>,
    pub(super) sending: watch::Receiver<Sending>,
    /// Whether the daemon's queue is being read, for the reader of the dead ones.
    pub(super) consuming: watch::Sender<bool>,
    pub(super) board: Board,
    pub(super) bound: BTreeSet<Binding>,
    pub(super) backoff: Backoff,
    pub(super) prefetch: Prefetch,
    pub(super) stop: CancellationToken,
}

/// How many deliveries may be on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Prefetch {
    Normal,
    /// One of them cannot be parsed: the others shall not go down with it.
    Quarantine,
}

/// Why a session is over.
enum End {
    Stopped,
    Lost(String),
    /// A message that the client cannot parse ended the connection.
    Unparsable,
}

/// Why a subscription is over.
enum Over {
    End(End),
    /// The quarantine has done its work.
    Again,
}

impl Consumer {
    pub(super) async fn run(mut self) {
        loop {
            let end = self.attempt().await;
            self.consuming.send_replace(false);
            let reason = match end {
                End::Stopped => return,
                End::Lost(reason) => reason,
                End::Unparsable => self.quarantine(),
            };
            self.board.down(&reason);
            if self.engine.bus(BusState::Down { error: reason }).await.is_err() {
                return;
            }
            let delay = tokio::time::sleep(self.backoff.next());
            if self.stop.run_until_cancelled(delay).await.is_none() {
                return;
            }
        }
    }

    fn quarantine(&mut self) -> String {
        if self.prefetch == Prefetch::Normal {
            self.prefetch = Prefetch::Quarantine;
            self.board.note(|status| status.quarantine = true);
            tracing::error!(
                queue = %self.config.queue,
                "a message in the queue cannot be parsed (an id or header that is no UTF-8); taking one after the \
                 other until it is gone: the broker moves it to the dead queue after the delivery limit"
            );
        }
        format!("a message in queue '{}' cannot be parsed", self.config.queue)
    }

    /// One connection, from its first frame to its end.
    async fn attempt(&mut self) -> End {
        let stop = self.stop.clone();
        let connection = match stop.run_until_cancelled(self.connector.connect()).await {
            None => return End::Stopped,
            Some(Ok(connection)) => connection,
            Some(Err(error)) => return End::Lost(error.to_string()),
        };
        let end = self.session(&connection).await;
        connect::close(connection).await;
        end
    }

    async fn session(&mut self, connection: &Connection) -> End {
        let stop = self.stop.clone();
        let mut consumed = self.engine.consumed();
        let wanted = self.wanted(&consumed.borrow_and_update());
        let making = topology::make(connection, &self.config, &wanted, &self.bound);
        match stop.run_until_cancelled(making).await {
            None => return End::Stopped,
            Some(Ok(made)) => self.remember(made),
            Some(Err(TopologyError::Lost(error))) => return End::Lost(plain(&error)),
            Some(Err(TopologyError::Found(finding))) => {
                let reason = finding.to_string();
                self.board.findings(vec![finding]);
                return End::Lost(reason);
            }
        }
        loop {
            let subscribing = self.subscribe_alone(connection, &consumed);
            let subscribed = match stop.run_until_cancelled(subscribing).await {
                None => return End::Stopped,
                Some(Ok(subscribed)) => subscribed,
                Some(Err(error)) => return End::Lost(plain(&error)),
            };
            self.backoff.begin_anew();
            self.consuming.send_replace(true);
            match subscribed.run(self, connection, &mut consumed).await {
                Over::End(end) => return end,
                Over::Again => {}
            }
        }
    }

    fn wanted(&self, consumed: &Consumed) -> BTreeSet<Binding> {
        types_of(consumed).bindings(&self.config.events_exchange)
    }

    fn remember(&mut self, made: topology::Made) {
        self.bound = made.bound;
        self.board.findings(made.findings);
        self.board.note(|status| status.bound.clone_from(&self.bound));
    }

    /// Subscribes as soon as nobody else consumes.
    async fn subscribe_alone(
        &mut self,
        connection: &Connection,
        consumed: &watch::Receiver<Arc<Consumed>>,
    ) -> Result<Subscribed, lapin::Error> {
        let waiting = self.alone(connection).await?;
        let (acks, reader, pulse) = answered(self.subscribe(connection, consumed)).await?;
        Ok(Subscribed::start(self, acks, reader, waiting, pulse))
    }

    /// Waits until nobody else consumes, so that a copy of a database cannot take part unseen. Returns how many
    /// messages are waiting.
    async fn alone(&self, connection: &Connection) -> Result<u64, lapin::Error> {
        let channel = answered(connection.create_channel()).await?;
        loop {
            let state = answered(topology::look(&channel, &self.config.queue)).await?;
            if state.consumers == 0 {
                channel.close(200, "done".into()).await?;
                return Ok(state.messages);
            }
            self.say_not_alone(state.consumers).await;
            tokio::time::sleep(OTHERS_LOOK).await;
        }
    }

    async fn say_not_alone(&self, others: u32) {
        let reason = not_alone(&self.config.queue, others);
        // The connection is good, so this is said even where the wait for the broker has been.
        if !self.board.see(|status| status.error.as_ref() == Some(&reason)) {
            self.board.note(|status| {
                status.connected = false;
                status.error = Some(reason.clone());
            });
            tracing::warn!("{reason}");
            // An engine that has ended is noticed by the reader.
            let _ = self.engine.bus(BusState::Down { error: reason }).await;
        }
    }

    async fn subscribe(
        &mut self,
        connection: &Connection,
        consumed: &watch::Receiver<Arc<Consumed>>,
    ) -> Result<(AckChannel, Reader, Pulse), lapin::Error> {
        let channel = connection.create_channel().await?;
        let asking = connection.create_channel().await?;
        let count = match self.prefetch {
            Prefetch::Normal => self.config.prefetch.max(1),
            Prefetch::Quarantine => 1,
        };
        channel.basic_qos(count, BasicQosOptions::default()).await?;
        let queue = short(&self.config.queue)?;
        let tag = short(&format!("sagad-{}", self.database.0))?;
        let options = BasicConsumeOptions::default();
        // Nothing is asked between this and the reading: a message that cannot be parsed would leave it unanswered.
        let stream = channel.basic_consume(queue, tag.clone(), options, FieldTable::default()).await?;
        let slot = self.acks.open();
        let reader = Reader {
            stream,
            channel: slot.number,
            engine: self.engine.clone(),
            consumed: consumed.clone(),
            limits: self.config.limits(),
            board: self.board.clone(),
        };
        let pulse = pulse::start(asking, &self.config.queue);
        Ok((AckChannel { channel, tag, slot, ledger: Ledger::default() }, reader, pulse))
    }
}

/// The channel that consumes, as far as acknowledging goes.
struct AckChannel {
    channel: Channel,
    tag: ShortString,
    slot: super::acks::Channel,
    ledger: Ledger,
}

impl AckChannel {
    /// Acknowledges what the engine has told, as few frames as may be.
    async fn flush(&mut self) -> Result<(), lapin::Error> {
        for ack in self.ledger.acknowledge(self.slot.take()) {
            let (tag, multiple) = match ack {
                Ack::UpTo(tag) => (tag, true),
                Ack::One(tag) => (tag, false),
            };
            self.channel.basic_ack(tag, BasicAckOptions { multiple }).await?;
        }
        Ok(())
    }
}

/// A running subscription.
struct Subscribed {
    acks: AckChannel,
    commands: mpsc::Sender<Command>,
    reader: tokio::task::JoinHandle<ReaderEnd>,
    read: watch::Receiver<u64>,
    pulse: Pulse,
    said: Option<bool>,
}

impl Subscribed {
    fn start(consumer: &Consumer, acks: AckChannel, reader: Reader, waiting: u64, pulse: Pulse) -> Subscribed {
        let (commands, inbox) = mpsc::channel(COMMANDS_LIMIT);
        let (counter, read) = watch::channel(0);
        // Said before the first delivery.
        let first = (*consumer.sending.borrow() == Sending::Ready).then_some(Command::Up { waiting });
        let said = first.is_some().then_some(true);
        let reader = tokio::spawn(reader.run(waiting, first, inbox, counter));
        Subscribed { acks, commands, reader, read, pulse, said }
    }

    async fn run(
        mut self,
        consumer: &mut Consumer,
        connection: &Connection,
        consumed: &mut watch::Receiver<Arc<Consumed>>,
    ) -> Over {
        let over = self.attend(consumer, connection, consumed).await;
        if !self.reader.is_finished() {
            self.reader.abort();
        }
        over
    }

    async fn attend(
        &mut self,
        consumer: &mut Consumer,
        connection: &Connection,
        consumed: &mut watch::Receiver<Arc<Consumed>>,
    ) -> Over {
        let mut stopping = false;
        let mut bind_again = tokio::time::interval(BIND_AGAIN);
        let mut quiet = tokio::time::interval(QUARANTINE_IDLE);
        let mut quiet_at = None;
        loop {
            tokio::select! {
                end = &mut self.reader => return self.ended(consumer, end, stopping).await,
                () = self.acks.slot.woken.notified() => {
                    if let Err(error) = answered(self.acks.flush()).await {
                        return Over::End(End::Lost(plain(&error)));
                    }
                }
                () = consumer.stop.cancelled(), if !stopping => {
                    stopping = true;
                    // What is prefetched still comes, and then the end of the stream.
                    let cancel = self.acks.channel.basic_cancel(self.acks.tag.clone(), BasicCancelOptions::default());
                    if let Err(error) = answered(cancel).await {
                        return Over::End(End::Lost(plain(&error)));
                    }
                }
                Ok(()) = consumer.sending.changed() => self.say(consumer).await,
                Ok(()) = self.pulse.changed() => {
                    // Two may have looked in the same moment. Who sees it goes, and looks again.
                    let others = self.pulse.consumers().saturating_sub(1);
                    if others > 0 {
                        return Over::End(End::Lost(not_alone(&consumer.config.queue, others)));
                    }
                    self.say(consumer).await;
                }
                Ok(()) = consumed.changed() => {
                    if let Some(end) = self.bind(consumer, connection, consumed).await {
                        return Over::End(end);
                    }
                }
                _ = bind_again.tick(), if lacks(consumer) => {
                    if let Some(end) = self.bind(consumer, connection, consumed).await {
                        return Over::End(end);
                    }
                }
                _ = quiet.tick(), if consumer.prefetch == Prefetch::Quarantine && !stopping => {
                    let read = *self.read.borrow();
                    let idle = quiet_at.replace(read) == Some(read) && self.acks.ledger.count() == read;
                    if idle || read > u64::from(consumer.config.prefetch) {
                        return self.leave_quarantine(consumer).await;
                    }
                }
            }
        }
    }

    /// The stream is over: in order, if everything it gave has been acknowledged.
    async fn ended(
        &mut self,
        consumer: &Consumer,
        end: Result<ReaderEnd, tokio::task::JoinError>,
        stopping: bool,
    ) -> Over {
        match end {
            Ok(ReaderEnd::Unparsable) => Over::End(End::Unparsable),
            Ok(ReaderEnd::Lost(reason)) => Over::End(End::Lost(reason)),
            Ok(ReaderEnd::EngineGone) => Over::End(End::Stopped),
            Ok(ReaderEnd::Cancelled) if stopping => {
                Over::End(self.settle().await.map_or_else(|error| End::Lost(plain(&error)), |()| End::Stopped))
            }
            Ok(ReaderEnd::Cancelled) => {
                let queue = &consumer.config.queue;
                Over::End(End::Lost(format!("queue '{queue}' was deleted, or the broker ended our subscription")))
            }
            Err(error) => Over::End(End::Lost(format!("the reader failed: {error}"))),
        }
    }

    /// Waits until everything that was read is acknowledged.
    async fn settle(&mut self) -> Result<(), lapin::Error> {
        answered(self.acks.flush()).await?;
        while self.acks.ledger.count() < *self.read.borrow() {
            self.acks.slot.woken.notified().await;
            answered(self.acks.flush()).await?;
        }
        // The channel's own end, so that the last acknowledgement has arrived.
        answered(self.acks.channel.close(200, "bye".into())).await
    }

    /// Tells the engine whether it both consumes and publishes, where that has changed.
    async fn say(&mut self, consumer: &mut Consumer) {
        let sending = consumer.sending.borrow_and_update().clone();
        let blocked = match &sending {
            Sending::Blocked(reason) => Some(reason.clone()),
            Sending::Trying | Sending::Ready | Sending::Away(_) => None,
        };
        consumer.board.note(|status| status.blocked = blocked);
        let trouble = match (self.pulse.trouble(), sending) {
            (Some(trouble), _) => Some(trouble),
            // That will be told in a moment, one way or the other.
            (None, Sending::Trying) => return,
            (None, Sending::Ready) => None,
            (None, Sending::Blocked(reason)) => Some(format!("the broker takes no messages: {reason}")),
            (None, Sending::Away(reason)) => Some(reason),
        };
        if self.said == Some(trouble.is_none()) {
            return;
        }
        self.said = Some(trouble.is_none());
        let command = trouble.map_or(Command::Up { waiting: self.pulse.messages() }, Command::Down);
        // A reader that has ended tells so itself.
        let _ = self.commands.send(command).await;
    }

    async fn bind(
        &mut self,
        consumer: &mut Consumer,
        connection: &Connection,
        consumed: &mut watch::Receiver<Arc<Consumed>>,
    ) -> Option<End> {
        if consumer.config.declare == crate::bus::Declare::Nothing {
            return None;
        }
        let wanted = consumer.wanted(&consumed.borrow_and_update());
        match topology::bind(connection, &consumer.config, &wanted, &consumer.bound).await {
            Ok(made) => {
                consumer.remember(made);
                None
            }
            Err(error) => Some(End::Lost(error.to_string())),
        }
    }

    async fn leave_quarantine(&mut self, consumer: &mut Consumer) -> Over {
        consumer.prefetch = Prefetch::Normal;
        consumer.board.note(|status| status.quarantine = false);
        tracing::info!(queue = %consumer.config.queue, "what could not be parsed is gone from the queue");
        let cancel = self.acks.channel.basic_cancel(self.acks.tag.clone(), BasicCancelOptions::default());
        if let Err(error) = answered(cancel).await {
            return Over::End(End::Lost(plain(&error)));
        }
        match (&mut self.reader).await {
            Ok(ReaderEnd::Cancelled) => match self.settle().await {
                Ok(()) => Over::Again,
                Err(error) => Over::End(End::Lost(plain(&error))),
            },
            end => self.ended(consumer, end, false).await,
        }
    }
}

fn lacks(consumer: &Consumer) -> bool {
    consumer.board.see(|status| !status.findings.is_empty())
}

fn not_alone(queue: &str, others: u32) -> String {
    format!("queue '{queue}' has another consumer ({others}); is it a second daemon? waiting for it to go")
}

/// The event types in the form in which a message is decoded.
pub(super) fn types_of(consumed: &Consumed) -> Types {
    Types::listed(consumed.iter().map(|(kind, origin)| (kind.clone(), origin.clone())))
}
