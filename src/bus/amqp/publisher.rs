//! The outflow: batches of messages, published and confirmed, over a connection of its own.
//!
//! One task owns one channel. A batch is published whole and all its confirms are awaited before the next: only so is
//! it exact which message was returned, for AMQP links a return to nothing but the message itself, and the client
//! attaches it to whichever confirm comes next. Returned messages are matched by message id.
//!
//! While the connection is away, and while the broker blocks it, whatever the engine hands out is told `Unknown` at
//! once: the engine hands it out again, in the order of its commits, when the bus is up.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use futures_util::{Stream, StreamExt as _, poll};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{Channel, Confirmation, Connection, Event};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::connect::{self, Connector};
use super::convert::{Sendable, sendable};
use super::topology;
use super::words::{answered, code, plain};
use crate::bus::BusConfig;
use crate::bus::envelope::{Addresses, Wire, encode};
use crate::engine::{EngineHandle, MessageRef, Published};
use crate::saga::effect::Outgoing;

/// Messages of one batch: at this size the round trip is spread thin, and one bad message takes few with it.
const BATCH_LIMIT: usize = 512;
/// Bytes of one batch, so that large bodies do not pile up in the client.
const BATCH_BYTES: usize = 8 * 1024 * 1024;
/// How long the broker may take for a confirm. Quorum queues under load take a second or two.
const CONFIRM_TIME: Duration = Duration::from_secs(30);
/// How long a blocked connection is kept; what hangs in it would be sent even after it was given up.
const BLOCKED_TIME: Duration = Duration::from_secs(300);
/// How often a batch that hangs is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// Whether messages go out at present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sending {
    /// The first try has come to nothing yet.
    Trying,
    Ready,
    /// The broker takes nothing for lack of memory or disk; consuming goes on.
    Blocked(String),
    Away(String),
}

type Handed = (MessageRef, Outgoing);

pub(super) struct Publisher {
    pub(super) config: BusConfig,
    pub(super) connector: Connector,
    pub(super) engine: EngineHandle,
    pub(super) from_engine: mpsc::Receiver<Vec<Handed>>,
    pub(super) sending: watch::Sender<Sending>,
    pub(super) backoff: Backoff,
    pub(super) stop: CancellationToken,
}

/// Why a connection is over.
enum End {
    /// The engine has ended, and everything is told.
    Done,
    Lost(String),
}

/// What became of one batch.
enum Fate {
    Told(Vec<(MessageRef, Published)>),
    /// The broker closed the channel over something in it; the connection may be good.
    Closed(lapin::Error),
    Lost(String),
}

impl Publisher {
    pub(super) async fn run(mut self) {
        loop {
            let lost = match self.connect().await {
                Ok(connection) => {
                    let end = self.session(&connection).await;
                    connect::close(connection).await;
                    match end {
                        End::Done => return,
                        End::Lost(text) => text,
                    }
                }
                Err(text) => text,
            };
            self.sending.send_replace(Sending::Away(lost));
            let delay = self.backoff.next();
            if !self.pause(delay).await {
                return;
            }
        }
    }

    /// Waits, and tells meanwhile what the engine hands out that it will have to do so again. False: the end.
    async fn pause(&mut self, delay: Duration) -> bool {
        let pause = tokio::time::sleep(delay);
        tokio::pin!(pause);
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return false,
                () = &mut pause => return true,
                handed = self.from_engine.recv() => match handed {
                    Some(handed) => self.unknown(handed).await,
                    None => return false,
                },
            }
        }
    }

    async fn connect(&mut self) -> Result<Connection, String> {
        let config = self.config.clone();
        let connector = self.connector.clone();
        let opening = async move {
            let connection = connector.connect().await.map_err(|error| error.to_string())?;
            topology::make_exchanges(&connection, &config).await.map_err(|error| error.to_string())?;
            Ok(connection)
        };
        tokio::pin!(opening);
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return Err("stopping".to_owned()),
                opened = &mut opening => return opened,
                handed = self.from_engine.recv() => match handed {
                    Some(handed) => self.unknown(handed).await,
                    None => return Err("stopping".to_owned()),
                },
            }
        }
    }

    async fn session(&mut self, connection: &Connection) -> End {
        let mut events = connection.events_listener().boxed();
        let mut queue = VecDeque::new();
        let mut caution = Caution::default();
        loop {
            let channel = match answered(confirming(connection)).await {
                Ok(channel) => channel,
                Err(error) => return self.give_up(queue, plain(&error)).await,
            };
            self.backoff.begin_anew();
            self.sending.send_replace(Sending::Ready);
            match self.pump(connection, &channel, &mut events, &mut queue, &mut caution).await {
                Pumped::Done => return End::Done,
                Pumped::Lost(text) => return self.give_up(queue, text).await,
                Pumped::Closed(error) => {
                    // Before a message is blamed, what is ours must stand.
                    if let Err(error) = topology::make_exchanges(connection, &self.config).await {
                        return self.give_up(queue, error.to_string()).await;
                    }
                    tracing::warn!(reason = %plain(&error), "the broker closed the channel over a message");
                }
            }
        }
    }

    /// Publishes batch after batch on one channel.
    async fn pump(
        &mut self,
        connection: &Connection,
        channel: &Channel,
        events: &mut (impl Stream<Item = Event> + Unpin),
        queue: &mut VecDeque<Handed>,
        caution: &mut Caution,
    ) -> Pumped {
        loop {
            if self.is_blocked() {
                self.unknown(queue.drain(..).collect()).await;
                if let Some(end) = self.wait_blocked(connection, events).await {
                    return end;
                }
            }
            if queue.is_empty() {
                tokio::select! {
                    biased;
                    () = self.stop.cancelled() => return Pumped::Done,
                    event = events.next() => match event {
                        Some(Event::Error(error)) => return Pumped::Lost(plain(&error)),
                        Some(Event::ConnectionBlocked(reason)) => self.block(reason),
                        Some(_) => {}
                        None => return Pumped::Lost("the connection is gone".to_owned()),
                    },
                    handed = self.from_engine.recv() => match handed {
                        Some(handed) => queue.extend(handed),
                        None => return Pumped::Done,
                    },
                }
                continue;
            }
            while queue.len() < BATCH_LIMIT
                && let Ok(handed) = self.from_engine.try_recv()
            {
                queue.extend(handed);
            }
            let batch = Batch::take(queue, caution.limit(), &Addresses::from(&self.config));
            let fate = self.publish(connection, channel, events, &batch).await;
            match fate {
                Fate::Told(outcomes) => {
                    caution.passed(batch.handed.len());
                    if self.engine.published(outcomes).await.is_err() {
                        return Pumped::Done;
                    }
                }
                Fate::Lost(text) => {
                    batch.back(queue);
                    return Pumped::Lost(text);
                }
                Fate::Closed(error) => {
                    let reason = plain(&error);
                    if caution.failed(batch.handed.len()) == Verdict::Guilty {
                        if self.engine.published(batch.rejected(&reason)).await.is_err() {
                            return Pumped::Done;
                        }
                    } else {
                        batch.back(queue);
                    }
                    return if connection.status().connected() { Pumped::Closed(error) } else { Pumped::Lost(reason) };
                }
            }
        }
    }

    /// Publishes one batch and waits until the broker has said something of every message.
    async fn publish(
        &mut self,
        connection: &Connection,
        channel: &Channel,
        events: &mut (impl Stream<Item = Event> + Unpin),
        batch: &Batch,
    ) -> Fate {
        let sent = send(channel, batch);
        tokio::pin!(sent);
        let mut hung = Duration::ZERO;
        loop {
            tokio::select! {
                biased;
                told = &mut sent => {
                    return match told {
                        Ok(outcomes) => Fate::Told(outcomes),
                        Err(error) if is_of_a_message(&error) => Fate::Closed(error),
                        Err(error) => Fate::Lost(plain(&error)),
                    };
                }
                () = self.stop.cancelled() => return Fate::Lost("stopping".to_owned()),
                event = events.next() => match event {
                    Some(Event::ConnectionBlocked(reason)) => {
                        hung = Duration::ZERO;
                        self.block(reason);
                    }
                    Some(_) => {}
                    // The confirms fail by themselves.
                    None => tokio::time::sleep(LOOK).await,
                },
                () = tokio::time::sleep(LOOK) => {
                    hung += LOOK;
                    let limit = if connection.status().blocked() { BLOCKED_TIME } else { CONFIRM_TIME };
                    if hung > limit {
                        return Fate::Lost(format!("no confirm within {} s", limit.as_secs()));
                    }
                }
                handed = self.from_engine.recv(), if self.is_blocked() => match handed {
                    Some(handed) => self.unknown(handed).await,
                    None => return Fate::Lost("stopping".to_owned()),
                },
            }
        }
    }

    fn block(&self, reason: String) {
        self.sending.send_replace(Sending::Blocked(reason));
    }

    /// Waits until the broker takes messages again; what is handed out meanwhile is told that it will have to be again.
    async fn wait_blocked(
        &mut self,
        connection: &Connection,
        events: &mut (impl Stream<Item = Event> + Unpin),
    ) -> Option<Pumped> {
        let limit = tokio::time::sleep(BLOCKED_TIME);
        tokio::pin!(limit);
        while connection.status().blocked() {
            tokio::select! {
                () = self.stop.cancelled() => return Some(Pumped::Done),
                () = &mut limit => {
                    return Some(Pumped::Lost(format!("blocked for {} s", BLOCKED_TIME.as_secs())));
                }
                event = events.next() => match event {
                    Some(Event::Error(error)) => return Some(Pumped::Lost(plain(&error))),
                    Some(_) => {}
                    None => return Some(Pumped::Lost("the connection is gone".to_owned())),
                },
                () = tokio::time::sleep(LOOK) => {}
                handed = self.from_engine.recv() => match handed {
                    Some(handed) => self.unknown(handed).await,
                    None => return Some(Pumped::Done),
                },
            }
        }
        self.sending.send_replace(Sending::Ready);
        None
    }

    fn is_blocked(&self) -> bool {
        matches!(*self.sending.borrow(), Sending::Blocked(_))
    }

    /// Nothing more is known of these, nor of what is waiting to follow them.
    async fn give_up(&mut self, queue: VecDeque<Handed>, text: String) -> End {
        self.unknown(queue.into()).await;
        while let Ok(handed) = self.from_engine.try_recv() {
            self.unknown(handed).await;
        }
        End::Lost(text)
    }

    async fn unknown(&self, handed: Vec<Handed>) {
        let outcomes = handed.into_iter().map(|(at, _)| (at, Published::Unknown)).collect();
        // An engine that has ended needs to know nothing.
        let _ = self.engine.published(outcomes).await;
    }
}

enum Pumped {
    Done,
    Closed(lapin::Error),
    Lost(String),
}

/// Codes by which the broker closes a channel or connection over one message's own fault.
fn is_of_a_message(error: &lapin::Error) -> bool {
    matches!(code(error), Some(311 | 403 | 404 | 406 | 501 | 502))
}

async fn confirming(connection: &Connection) -> Result<Channel, lapin::Error> {
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    Ok(channel)
}

/// Messages that are published together.
struct Batch {
    handed: Vec<Handed>,
    ready: Vec<Result<(Wire, Sendable), String>>,
}

impl Batch {
    fn take(queue: &mut VecDeque<Handed>, limit: usize, addresses: &Addresses) -> Batch {
        let mut batch = Batch { handed: Vec::new(), ready: Vec::new() };
        let mut bytes = 0;
        while batch.handed.len() < limit.min(BATCH_LIMIT)
            && bytes < BATCH_BYTES
            && let Some((at, message)) = queue.pop_front()
        {
            let ready = encode(&message, addresses).map_err(|error| error.to_string()).and_then(|wire| {
                let sendable = sendable(&wire).map_err(|error| error.to_string())?;
                Ok((wire, sendable))
            });
            bytes += ready.as_ref().map_or(0, |(wire, _)| wire.body.len());
            batch.handed.push((at, message));
            batch.ready.push(ready);
        }
        batch
    }

    /// Puts the messages back where they came from.
    fn back(self, queue: &mut VecDeque<Handed>) {
        for handed in self.handed.into_iter().rev() {
            queue.push_front(handed);
        }
    }

    fn rejected(self, reason: &str) -> Vec<(MessageRef, Published)> {
        let reason = || Published::Rejected { reason: reason.to_owned() };
        self.handed.into_iter().map(|(at, _)| (at, reason())).collect()
    }
}

/// Publishes everything at once, then waits for all confirms. The order of the frames is that of the batch.
async fn send(channel: &Channel, batch: &Batch) -> Result<Vec<(MessageRef, Published)>, lapin::Error> {
    let mut writes = Vec::with_capacity(batch.ready.len());
    for ready in &batch.ready {
        let Ok((wire, sendable)) = ready else { continue };
        let options = BasicPublishOptions { mandatory: wire.mandatory, ..BasicPublishOptions::default() };
        let write = channel.basic_publish(
            sendable.exchange.clone(),
            sendable.routing_key.clone(),
            options,
            &wire.body,
            sendable.properties.clone(),
        );
        // The first poll queues the frames; to wait for each write would be a round trip through the client's thread.
        let mut write = Box::pin(write);
        let first = poll!(write.as_mut());
        writes.push((first, write));
    }
    let mut confirms = Vec::with_capacity(writes.len());
    for (first, write) in writes {
        confirms.push(match first {
            std::task::Poll::Ready(written) => written?,
            std::task::Poll::Pending => write.await?,
        });
    }
    let mut returned: HashMap<String, String> = HashMap::new();
    let mut nacked = Vec::with_capacity(confirms.len());
    for confirm in confirms {
        let (nack, message) = match confirm.await? {
            Confirmation::Ack(message) => (false, message),
            Confirmation::Nack(message) => (true, message),
            Confirmation::NotRequested => (false, None),
        };
        nacked.push(nack);
        if let Some(message) = message
            && let Some(id) = message.properties.message_id()
        {
            returned.insert(id.as_str().to_owned(), message.reply_text.as_str().to_owned());
        }
    }
    Ok(outcomes(batch, &returned, &nacked))
}

fn outcomes(batch: &Batch, returned: &HashMap<String, String>, nacked: &[bool]) -> Vec<(MessageRef, Published)> {
    let mut nacked = nacked.iter();
    let told = batch.handed.iter().zip(&batch.ready).map(|((at, _), ready)| {
        let outcome = match ready {
            Err(reason) => Published::Rejected { reason: reason.clone() },
            Ok((wire, _)) => match (nacked.next(), returned.get(&wire.properties.message_id)) {
                (Some(true), _) => Published::Nacked,
                (_, Some(reason)) => Published::Returned { reason: reason.clone() },
                _ => Published::Confirmed,
            },
        };
        (*at, outcome)
    });
    told.collect()
}

/// Finds the one message over which the broker closes the channel: batches are halved until it stands alone.
#[derive(Debug, Default)]
struct Caution {
    limit: Option<usize>,
    /// Messages among which it must be.
    suspects: usize,
    /// How often a message that stood alone has done it.
    alone: u32,
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Suspected,
    Guilty,
}

impl Caution {
    /// A message that stands alone is tried so often before it is blamed.
    const TRIES: u32 = 2;

    fn limit(&self) -> usize {
        self.limit.unwrap_or(BATCH_LIMIT)
    }

    fn passed(&mut self, messages: usize) {
        self.alone = 0;
        self.suspects = self.suspects.saturating_sub(messages);
        if self.suspects == 0 {
            self.limit = None;
        }
    }

    fn failed(&mut self, messages: usize) -> Verdict {
        if messages > 1 {
            self.limit = Some(messages.div_ceil(2));
            self.suspects = messages;
            return Verdict::Suspected;
        }
        self.alone += 1;
        self.limit = Some(1);
        self.suspects = self.suspects.max(1);
        if self.alone < Caution::TRIES {
            return Verdict::Suspected;
        }
        // There may be another one behind it: that shows by itself.
        *self = Caution::default();
        Verdict::Guilty
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which of the messages are blamed, and how many batches it takes.
    fn hunt(messages: usize, bad: &[usize]) -> (Vec<usize>, usize) {
        let mut caution = Caution::default();
        let mut queue: VecDeque<usize> = (0..messages).collect();
        let (mut blamed, mut batches) = (Vec::new(), 0);
        while !queue.is_empty() {
            batches += 1;
            let size = caution.limit().min(BATCH_LIMIT).min(queue.len());
            let batch: Vec<usize> = queue.drain(..size).collect();
            if batch.iter().any(|message| bad.contains(message)) {
                match caution.failed(batch.len()) {
                    Verdict::Guilty => blamed.extend(batch),
                    Verdict::Suspected => batch.into_iter().rev().for_each(|message| queue.push_front(message)),
                }
            } else {
                caution.passed(batch.len());
            }
        }
        (blamed, batches)
    }

    #[test]
    fn the_message_that_closes_the_channel_is_found_and_no_other_is_blamed() {
        assert_eq!(hunt(512, &[]), (vec![], 1));
        for bad in [0, 1, 255, 256, 400, 511] {
            let (blamed, batches) = hunt(512, &[bad]);
            assert_eq!(blamed, [bad]);
            assert!(batches < 40, "{batches} batches for {bad}");
        }
        assert_eq!(hunt(100, &[3, 4, 90]).0, [3, 4, 90]);
        assert_eq!(hunt(1, &[0]), (vec![0], 2));
    }
}
