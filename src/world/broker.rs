//! A broker in memory: the events exchange, the commands exchange, a queue for each participant, and the daemon's own
//! queue with deliveries that wait for their acknowledgement. It keeps and routes; when something happens, the world says.

use std::collections::{BTreeMap, VecDeque};

use super::Unclaimed;
use crate::bus::envelope::{Addresses, Types, Wire};
use crate::engine::{AckToken, Raw};

/// Deliveries that the daemon may have without having acknowledged them.
const PREFETCH: usize = 250;

#[derive(Debug)]
pub(super) struct Broker {
    pub addresses: Addresses,
    /// What the daemon's queue is bound to; stays while the daemon is away, for the queue is durable.
    pub types: Types,
    unclaimed: Unclaimed,
    /// The daemon's queue.
    inbox: VecDeque<Raw>,
    unacked: BTreeMap<AckToken, Raw>,
    /// Counts connections: an acknowledgement of an older one says nothing.
    channel: u64,
    tag: u64,
}

/// Whose queues a message comes to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Routed {
    pub daemon: bool,
    /// Positions among the world's participants.
    pub participants: Vec<usize>,
    /// No queue took a message that somebody must take.
    pub returned: bool,
}

/// What a participant's queue is bound to.
#[derive(Debug)]
pub(super) struct Binding {
    pub address: String,
    pub hears: Vec<String>,
}

impl Broker {
    pub fn new(unclaimed: Unclaimed) -> Broker {
        let addresses = Addresses {
            queue: "sagad".to_owned(),
            events_exchange: "events".to_owned(),
            commands_exchange: "commands".to_owned(),
            led: BTreeMap::new(),
        };
        Broker {
            addresses,
            types: Types::default(),
            unclaimed,
            inbox: VecDeque::new(),
            unacked: BTreeMap::new(),
            channel: 0,
            tag: 0,
        }
    }

    pub fn route(&self, wire: &Wire, bindings: &[Binding]) -> Routed {
        let mut routed = Routed::default();
        if wire.exchange.is_empty() {
            routed.daemon = wire.routing_key == self.addresses.queue;
        } else if wire.exchange == self.addresses.commands_exchange {
            let owns = |binding: &Binding| {
                wire.routing_key.strip_prefix(binding.address.as_str()).is_some_and(|rest| rest.starts_with('.'))
            };
            routed.participants = positions(bindings, owns);
        } else {
            let named = self.types.named_by(&wire.exchange, &wire.routing_key).is_some();
            routed.daemon = named || self.types.knows(&wire.routing_key);
            routed.participants = positions(bindings, |binding| binding.hears.contains(&wire.routing_key));
        }
        let taken = routed.daemon || !routed.participants.is_empty();
        routed.returned = wire.mandatory && !taken && self.unclaimed == Unclaimed::Return;
        routed
    }

    /// A message comes to the daemon's queue.
    pub fn enqueue(&mut self, raw: Raw) {
        self.inbox.push_back(raw);
    }

    pub fn waiting(&self) -> usize {
        self.inbox.len()
    }

    pub fn unacknowledged(&self) -> usize {
        self.unacked.len()
    }

    pub fn may_deliver(&self) -> bool {
        !self.inbox.is_empty() && self.unacked.len() < PREFETCH
    }

    /// Hands a message to the daemon: the oldest, or one `ahead` places behind it, out of order.
    pub fn deliver(&mut self, ahead: usize) -> Option<(AckToken, Raw)> {
        if !self.may_deliver() {
            return None;
        }
        let raw = self.inbox.remove(ahead.min(self.inbox.len() - 1))?;
        self.tag += 1;
        let token = AckToken { channel: self.channel, tag: self.tag };
        self.unacked.insert(token, raw.clone());
        Some((token, raw))
    }

    /// Says whether it was known: each delivery is acknowledged once.
    pub fn acknowledge(&mut self, token: AckToken) -> bool {
        self.unacked.remove(&token).is_some() || token.channel != self.channel
    }

    /// The daemon's connection is gone: what it had not acknowledged comes again, in front.
    pub fn disconnect(&mut self) {
        self.channel += 1;
        for (_, mut raw) in std::mem::take(&mut self.unacked).into_iter().rev() {
            raw.redelivered = true;
            self.inbox.push_front(raw);
        }
    }
}

fn positions(bindings: &[Binding], takes: impl Fn(&Binding) -> bool) -> Vec<usize> {
    bindings.iter().enumerate().filter(|(_, binding)| takes(binding)).map(|(place, _)| place).collect()
}
