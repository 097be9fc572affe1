//! Acknowledgements on their way from the engine to the channel that each belongs to.
//!
//! An acknowledgement for a channel that is gone says nothing to anybody: the broker delivers again. Bounded by what
//! may be unacknowledged: each delivery is acknowledged once.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, mpsc};

use crate::engine::AckToken;

/// The open channels, and what has come for each.
#[derive(Debug, Default)]
pub(super) struct Acks {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    last: u64,
    open: HashMap<u64, Slot>,
}

#[derive(Debug, Default)]
struct Slot {
    tags: Vec<u64>,
    woken: Arc<Notify>,
}

/// One channel's own end.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) number: u64,
    pub(super) woken: Arc<Notify>,
    acks: Arc<Acks>,
}

impl Acks {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new channel, with a number that none had before.
    pub(super) fn open(self: &Arc<Acks>) -> Channel {
        let mut inner = self.lock();
        inner.last += 1;
        let number = inner.last;
        let slot = Slot::default();
        let woken = Arc::clone(&slot.woken);
        inner.open.insert(number, slot);
        Channel { number, woken, acks: Arc::clone(self) }
    }

    fn post(&self, batch: Vec<AckToken>) {
        let mut inner = self.lock();
        for token in batch {
            if let Some(slot) = inner.open.get_mut(&token.channel) {
                if slot.tags.is_empty() {
                    slot.woken.notify_one();
                }
                slot.tags.push(token.tag);
            }
        }
    }

    /// Reads what the engine acknowledges until it ends. Never waits for a channel, so that the engine never waits.
    pub(super) async fn carry(self: Arc<Acks>, mut from_engine: mpsc::Receiver<Vec<AckToken>>) {
        while let Some(batch) = from_engine.recv().await {
            self.post(batch);
        }
    }
}

impl Channel {
    pub(super) fn take(&self) -> Vec<u64> {
        self.acks.lock().open.get_mut(&self.number).map(|slot| std::mem::take(&mut slot.tags)).unwrap_or_default()
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.acks.lock().open.remove(&self.number);
    }
}

/// What of a channel has been acknowledged, so that many go out as one.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Every tag up to here is acknowledged.
    prefix: u64,
    /// Behind the prefix, acknowledged one by one.
    alone: BTreeSet<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ack {
    /// This one and all before it.
    UpTo(u64),
    One(u64),
}

impl Ledger {
    pub(super) fn acknowledge(&mut self, tags: Vec<u64>) -> Vec<Ack> {
        let mut fresh: BTreeSet<u64> = tags.into_iter().filter(|tag| *tag > self.prefix).collect();
        let mut acks = Vec::new();
        let mut last = None;
        loop {
            let next = self.prefix + 1;
            // The broker takes the last of `UpTo` only while it is unacknowledged.
            if fresh.remove(&next) {
                last = Some(next);
            } else if !self.alone.remove(&next) {
                break;
            }
            self.prefix = next;
        }
        acks.extend(last.map(Ack::UpTo));
        for tag in fresh {
            if self.alone.insert(tag) {
                acks.push(Ack::One(tag));
            }
        }
        acks
    }

    /// How many are acknowledged.
    pub(super) fn count(&self) -> u64 {
        self.prefix + u64::try_from(self.alone.len()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_in_a_row_goes_out_as_one() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.acknowledge(vec![2, 1, 3]), [Ack::UpTo(3)]);
        assert_eq!(ledger.acknowledge(vec![6, 5]), [Ack::One(5), Ack::One(6)]);
        assert_eq!(ledger.acknowledge(vec![4]), [Ack::UpTo(4)]);
        assert_eq!(ledger.acknowledge(vec![7]), [Ack::UpTo(7)]);
        assert_eq!(ledger.acknowledge(vec![7, 3]), []);
        assert_eq!(ledger.count(), 7);
    }

    proptest! {
        /// A broker closes the channel over a tag that it does not hold.
        #[test]
        fn no_order_of_acknowledgements_upsets_the_broker(
            order in Just((1..=40_u64).collect::<Vec<_>>()).prop_shuffle(),
            sizes in prop::collection::vec(1..6_usize, 40),
        ) {
            let mut ledger = Ledger::default();
            let mut held: BTreeSet<u64> = (1..=40).collect();
            let mut told = BTreeSet::new();
            let mut rest = order.as_slice();
            for size in sizes {
                let (batch, later) = rest.split_at(size.min(rest.len()));
                rest = later;
                told.extend(batch.iter().copied());
                for ack in ledger.acknowledge(batch.to_vec()) {
                    match ack {
                        Ack::One(tag) => prop_assert!(held.remove(&tag)),
                        Ack::UpTo(tag) => {
                            prop_assert!(held.contains(&tag));
                            held.retain(|other| *other > tag);
                        }
                    }
                }
                prop_assert!(told.iter().all(|tag| !held.contains(tag)));
                prop_assert!(held.len() == 40 - told.len());
            }
        }
    }

    #[tokio::test]
    async fn an_acknowledgement_for_a_channel_that_is_gone_says_nothing() {
        let acks = Arc::new(Acks::default());
        let old = acks.open();
        let old_number = old.number;
        drop(old);
        let new = acks.open();
        acks.post(vec![AckToken { channel: old_number, tag: 1 }, AckToken { channel: new.number, tag: 2 }]);
        new.woken.notified().await;
        assert_eq!(new.take(), [2]);
        assert!(acks.lock().open.len() == 1);
    }
}
