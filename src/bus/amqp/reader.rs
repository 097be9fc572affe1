//! Reads one subscription into the engine, one delivery after the other, and tells it the bus's state in between.

use std::sync::Arc;

use futures_util::StreamExt as _;
use tokio::sync::{mpsc, watch};

use super::consumer::types_of;
use super::convert::raw;
use super::status::Board;
use super::words::{is_parsing, plain};
use crate::bus::envelope::{Types, decode};
use crate::engine::{AckToken, BusState, Consumed, Delivery, EngineGone, EngineHandle};
use crate::saga::json::Limits;

/// What the engine is to be told.
#[derive(Debug)]
pub(super) enum Command {
    /// So many messages stand in the queue.
    Up {
        waiting: u64,
    },
    Down(String),
}

#[derive(Debug)]
pub(super) enum ReaderEnd {
    /// The stream ended without an error: by our own cancel, or because the queue is gone.
    Cancelled,
    Lost(String),
    /// The client could not parse a message.
    Unparsable,
    EngineGone,
}

pub(super) struct Reader {
    pub(super) stream: lapin::Consumer,
    pub(super) channel: u64,
    pub(super) engine: EngineHandle,
    pub(super) consumed: watch::Receiver<Arc<Consumed>>,
    pub(super) limits: Limits,
    pub(super) board: Board,
}

impl Reader {
    /// `waiting` messages stood in the queue before; `read` counts those handed to the engine.
    pub(super) async fn run(
        mut self,
        waiting: u64,
        first: Option<Command>,
        mut commands: mpsc::Receiver<Command>,
        read: watch::Sender<u64>,
    ) -> ReaderEnd {
        let mut types = types_of(&self.consumed.borrow_and_update());
        if let Some(command) = first
            && self.tell(command, 0).await.is_err()
        {
            return ReaderEnd::EngineGone;
        }
        loop {
            tokio::select! {
                biased;
                Some(command) = commands.recv() => {
                    let left = waiting.saturating_sub(*read.borrow());
                    if self.tell(command, left).await.is_err() {
                        return ReaderEnd::EngineGone;
                    }
                }
                item = self.stream.next() => {
                    let delivery = match item {
                        None => return ReaderEnd::Cancelled,
                        Some(Err(error)) if is_parsing(&error) => return ReaderEnd::Unparsable,
                        Some(Err(error)) => return ReaderEnd::Lost(plain(&error)),
                        Some(Ok(delivery)) => delivery,
                    };
                    if self.consumed.has_changed().unwrap_or(false) {
                        types = types_of(&self.consumed.borrow_and_update());
                    }
                    let delivery = self.decoded(delivery, &types);
                    // Counted first: once the engine has it, its acknowledgement may come at any moment.
                    read.send_modify(|read| *read += 1);
                    if self.engine.deliver(delivery).await.is_err() {
                        return ReaderEnd::EngineGone;
                    }
                }
            }
        }
    }

    fn decoded(&self, delivery: lapin::message::Delivery, types: &Types) -> Delivery {
        let ack = Some(AckToken { channel: self.channel, tag: delivery.delivery_tag });
        let raw = raw(delivery);
        let message = decode(&raw, types, &self.limits, self.board.now());
        Delivery { ack, raw: Arc::new(raw), message, dead: false }
    }

    /// `left` messages that stood in the queue at first have not been read yet.
    async fn tell(&self, command: Command, left: u64) -> Result<(), EngineGone> {
        match command {
            Command::Up { waiting } => {
                let waiting = waiting.max(left);
                self.engine.bus(BusState::Up { waiting }).await?;
                self.board.up(waiting);
            }
            Command::Down(error) => {
                self.board.down(&error);
                self.engine.bus(BusState::Down { error }).await?;
            }
        }
        Ok(())
    }
}
