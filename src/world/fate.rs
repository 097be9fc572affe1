//! What may go wrong in a world, and who decides it. A fate is asked at each point where reality could go either way.

use crate::engine::Raw;
use crate::saga::effect::Outgoing;

use super::{LocalMessage, Reply};

/// Where the daemon may die.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    BeforeCommit,
    AfterCommit,
    /// After some of a batch's messages were published, before any confirm was heard.
    AfterPublish,
    /// After the confirms were told to the engine, before the deliveries were acknowledged.
    BeforeAck,
}

/// What becomes of a message on its way to a queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Carriage {
    /// The copies that arrive, each after so many milliseconds. None: it is lost.
    pub copies_after_ms: Vec<u64>,
}

/// What the broker says of a published message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A queue has it; the confirm comes after so many milliseconds.
    Take { confirm_after_ms: u64 },
    /// It says no; nobody gets it.
    Nack,
    /// It comes back, though there may be a queue.
    Return,
    /// The connection goes before its confirm; the message may have arrived, or not.
    Lose { arrives: bool },
}

/// Decides what goes wrong. What it does not say otherwise goes right.
pub trait Fate {
    fn dies(&mut self, _at: Point) -> bool {
        false
    }

    fn verdict(&mut self, _message: &Outgoing) -> Verdict {
        Verdict::Take { confirm_after_ms: 0 }
    }

    /// An event on its way to the daemon's queue.
    fn to_daemon(&mut self, _raw: &Raw) -> Carriage {
        Carriage::direct()
    }

    /// A command or event on its way to a participant.
    fn to_participant(&mut self, _message: &LocalMessage) -> Carriage {
        Carriage::direct()
    }

    /// A participant's answer on its way to the broker, beside the delay that the participant gave it.
    fn reply(&mut self, _reply: &Reply) -> Carriage {
        Carriage::direct()
    }

    /// How many messages the next delivery passes by.
    fn overtakes(&mut self, _waiting: usize) -> usize {
        0
    }

    /// Deliveries that are handled in one batch.
    fn batch(&mut self, most: usize) -> usize {
        most
    }
}

impl Carriage {
    pub fn direct() -> Carriage {
        Carriage { copies_after_ms: vec![0] }
    }

    pub fn after(ms: u64) -> Carriage {
        Carriage { copies_after_ms: vec![ms] }
    }
}

/// Nothing goes wrong.
#[derive(Clone, Copy, Debug, Default)]
pub struct Calm;

impl Fate for Calm {}
