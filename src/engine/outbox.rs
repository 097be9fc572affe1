//! What is on its way to the broker, in memory: which rows were handed out, what is still unconfirmed, how far the
//! cursor may go. Bounded by the window; what does not fit is read again from the store. Writes nothing.

use std::collections::BTreeMap;

use super::MessageRef;
use crate::saga::effect::{Destination, Limit, Outgoing};
use crate::saga::event::Subject;
use crate::saga::ids::InstanceNo;

/// Confirmed messages that are remembered because an older one is not confirmed yet, per message of the window: the
/// broker confirms in about the order of publishing, so that more means that it forgot one.
const REMEMBERED: usize = 4;

/// How long what was lost waits to be handed out again where no new connection is told: a bus that is losing
/// connections must not be handed the same messages as fast as it can lose them.
const LOST_PAUSE_MS: u64 = 500;

/// One message that was handed out, as far as its outcome concerns anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flight {
    pub instance: Option<InstanceNo>,
    pub command: Option<InFlight>,
    pub stage: Stage,
    /// An earlier publish of it may have reached a queue though nobody knows.
    pub maybe_taken: bool,
    /// It had been nacked or returned, and is published again beside the others.
    pub straggler: bool,
}

/// What of a command its confirm concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InFlight {
    pub subject: Subject,
    pub limit: Option<Limit>,
    pub awaits: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// With the bus.
    UnderWay,
    /// The connection went before its confirm: to be handed out again.
    Lost,
    /// Confirmed, withdrawn, or a straggler by now: nothing that the cursor waits for.
    Settled,
}

impl Flight {
    pub fn of(message: &Outgoing) -> Flight {
        Flight {
            instance: message.stamp.as_ref().map(|stamp| stamp.id.no()),
            command: message.command.as_ref().map(|part| InFlight {
                subject: part.subject,
                limit: part.limit,
                awaits: part.awaits,
            }),
            stage: Stage::UnderWay,
            maybe_taken: false,
            straggler: false,
        }
    }
}

#[derive(Debug)]
pub struct Outbox {
    window: usize,
    lifecycle: bool,
    /// Everything up to here has been handed out, settled, or is a straggler.
    reached: i64,
    /// Rows up to here may have been published before the engine was opened.
    maybe_taken_to: i64,
    /// There may be rows behind `reached` that are not in memory.
    backlog: bool,
    out: BTreeMap<MessageRef, Flight>,
    under_way: usize,
    /// Nothing is handed out before this moment of the monotonic clock: a connection went, and the next is not told yet.
    pause_to_ms: u64,
}

impl Outbox {
    pub fn new(window: usize, lifecycle: bool, cursor: i64, last_seq: i64) -> Outbox {
        Outbox {
            window: window.max(1),
            lifecycle,
            reached: cursor,
            maybe_taken_to: last_seq,
            backlog: last_seq > cursor,
            out: BTreeMap::new(),
            under_way: 0,
            pause_to_ms: 0,
        }
    }

    /// How long nothing is handed out.
    pub fn pause(&self, now_ms: u64) -> u64 {
        self.pause_to_ms.saturating_sub(now_ms)
    }

    pub fn unconfirmed(&self) -> usize {
        self.under_way
    }

    pub fn has_backlog(&self) -> bool {
        self.backlog
    }

    pub fn reached(&self) -> i64 {
        self.reached
    }

    /// How many more may be handed out.
    pub fn room(&self) -> usize {
        // Where nothing is under way, nothing will be confirmed either: what was lost has to go out again.
        if self.under_way > 0 && self.out.len() >= self.window.saturating_mul(REMEMBERED) {
            return 0;
        }
        self.window.saturating_sub(self.under_way)
    }

    /// The connection is new: whatever was not confirmed goes again, first, in the order of the commits.
    pub fn reconnected(&mut self, cursor: i64) {
        for flight in self.out.values_mut() {
            if flight.stage == Stage::UnderWay {
                flight.stage = Stage::Lost;
                flight.maybe_taken = true;
            }
        }
        self.under_way = 0;
        self.out.retain(|_, flight| !flight.straggler);
        self.reached = cursor;
        self.backlog = true;
        self.pause_to_ms = 0;
    }

    /// Takes the rows that a read behind `reached` gave; `whole` where there were no more. Returns what is to be
    /// published, in order.
    pub fn refill(
        &mut self,
        rows: Vec<(MessageRef, Outgoing)>,
        reached: i64,
        whole: bool,
    ) -> Vec<(MessageRef, Outgoing)> {
        self.reached = self.reached.max(reached);
        self.backlog = !whole;
        self.hand_out(rows)
    }

    /// Takes the messages of a batch that has just been committed, in order; `last` is its last row. What finds no
    /// room is read again later.
    pub fn committed(
        &mut self,
        fresh: Vec<(MessageRef, Outgoing)>,
        last: Option<i64>,
        bus_is_up: bool,
    ) -> Vec<(MessageRef, Outgoing)> {
        let Some(last) = last else { return Vec::new() };
        if self.backlog || !bus_is_up {
            self.backlog = true;
            return Vec::new();
        }
        let room = self.room();
        if fresh.len() <= room {
            self.reached = self.reached.max(last);
            return self.hand_out(fresh);
        }
        // Whole rows only: a row is read again as a whole.
        let first_left = fresh[room].0.seq;
        let fitting: Vec<_> = fresh.into_iter().take_while(|(at, _)| at.seq < first_left).collect();
        if let Some((at, _)) = fitting.last() {
            self.reached = self.reached.max(at.seq);
        }
        self.backlog = true;
        self.hand_out(fitting)
    }

    /// A straggler is published again.
    pub fn hand_out_straggler(&mut self, at: MessageRef, message: &Outgoing, maybe_taken: bool) {
        let flight = Flight { maybe_taken, straggler: true, ..Flight::of(message) };
        self.out.insert(at, flight);
        self.under_way += 1;
    }

    /// What became of a message that is with the bus; `None` where nothing is known of it (any more).
    pub fn settled(&mut self, at: MessageRef) -> Option<Flight> {
        let flight = self.out.get_mut(&at)?;
        if flight.stage == Stage::Settled {
            return None;
        }
        let was = *flight;
        if was.stage == Stage::UnderWay {
            self.under_way -= 1;
        }
        if was.straggler {
            self.out.remove(&at);
        } else {
            flight.stage = Stage::Settled;
        }
        Some(was)
    }

    /// Its connection went: it is handed out again with the next, and if nobody tells of that, soon.
    pub fn lost(&mut self, at: MessageRef, now_ms: u64) -> Option<Flight> {
        let flight = self.out.get_mut(&at)?;
        if flight.stage != Stage::UnderWay {
            return None;
        }
        flight.stage = Stage::Lost;
        flight.maybe_taken = true;
        self.under_way -= 1;
        let was = *flight;
        if was.straggler {
            self.out.remove(&at);
        } else {
            self.reached = self.reached.min(at.seq - 1);
            self.backlog = true;
            self.pause_to_ms = now_ms.saturating_add(LOST_PAUSE_MS);
        }
        Some(was)
    }

    /// Everything up to here is with the broker or a straggler.
    pub fn peek_cursor(&self) -> i64 {
        let open = self.out.iter().find(|(_, flight)| !flight.straggler && flight.stage != Stage::Settled);
        open.map_or(self.reached, |(at, _)| (at.seq - 1).min(self.reached))
    }

    /// The same; forgets what lies before it.
    pub fn cursor(&mut self) -> i64 {
        let cursor = self.peek_cursor();
        while let Some((at, flight)) = self.out.first_key_value()
            && at.seq <= cursor
            && flight.stage == Stage::Settled
        {
            self.out.pop_first();
        }
        cursor
    }

    fn hand_out(&mut self, rows: Vec<(MessageRef, Outgoing)>) -> Vec<(MessageRef, Outgoing)> {
        let mut handed = Vec::with_capacity(rows.len());
        for (at, message) in rows {
            if !self.lifecycle && message.to == Destination::Lifecycle {
                continue;
            }
            let maybe_taken = match self.out.get(&at) {
                Some(Flight { stage: Stage::Lost, .. }) => true,
                Some(_) => continue,
                None => at.seq <= self.maybe_taken_to,
            };
            self.out.insert(at, Flight { maybe_taken, ..Flight::of(&message) });
            self.under_way += 1;
            handed.push((at, message));
        }
        handed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::saga::effect::Json;
    use crate::saga::time::Timestamp;

    fn row(seq: i64) -> (MessageRef, Outgoing) {
        let message = Outgoing {
            to: Destination::Event,
            kind: "Happened".to_owned(),
            message_id: uuid::Uuid::from_u128(seq.unsigned_abs().into()),
            correlation_id: String::new(),
            at: Timestamp(0),
            body: Json::of(&serde_json::Value::Null),
            headers: serde_json::Map::new(),
            trace: None,
            command: None,
            chosen: None,
            stamp: None,
        };
        (MessageRef { seq, place: 0 }, message)
    }

    fn seqs(rows: &[(MessageRef, Outgoing)]) -> Vec<i64> {
        rows.iter().map(|(at, _)| at.seq).collect()
    }

    fn at(seq: i64) -> MessageRef {
        MessageRef { seq, place: 0 }
    }

    #[test]
    fn the_cursor_stays_behind_the_oldest_that_is_not_confirmed() {
        let mut outbox = Outbox::new(10, true, 0, 0);
        let handed = outbox.committed(vec![row(1), row(2), row(3)], Some(4), true);
        assert_eq!(seqs(&handed), [1, 2, 3]);
        assert_eq!(outbox.cursor(), 0);
        outbox.settled(at(2));
        outbox.settled(at(3));
        assert_eq!(outbox.cursor(), 0);
        outbox.settled(at(1));
        assert_eq!(outbox.cursor(), 4);
        assert!(outbox.out.is_empty());
    }

    #[test]
    fn what_finds_no_room_waits_in_the_store_and_nothing_overtakes_it() {
        let mut outbox = Outbox::new(2, true, 0, 0);
        assert_eq!(seqs(&outbox.committed(vec![row(1), row(2), row(3)], Some(3), true)), [1, 2]);
        assert!(outbox.has_backlog());
        assert_eq!(seqs(&outbox.committed(vec![row(4)], Some(4), true)), Vec::<i64>::new());
        outbox.settled(at(1));
        assert_eq!(outbox.room(), 1);
        assert_eq!(seqs(&outbox.refill(vec![row(3)], 3, false)), [3]);
        outbox.settled(at(2));
        outbox.settled(at(3));
        assert_eq!(seqs(&outbox.refill(vec![row(4)], 4, true)), [4]);
        assert!(!outbox.has_backlog());
    }

    #[test]
    fn after_a_reconnect_what_was_not_confirmed_goes_first_and_what_was_stays_with_the_broker() {
        let mut outbox = Outbox::new(10, true, 0, 0);
        outbox.committed(vec![row(1), row(2), row(3)], Some(3), true);
        outbox.settled(at(2));
        let cursor = outbox.cursor();
        outbox.reconnected(cursor);
        assert_eq!(outbox.unconfirmed(), 0);
        assert_eq!(seqs(&outbox.refill(vec![row(1), row(2), row(3), row(4)], 4, true)), [1, 3, 4]);
        assert!(outbox.out[&at(1)].maybe_taken);
        assert!(!outbox.out[&at(4)].maybe_taken);
    }

    #[test]
    fn what_was_lost_finds_room_however_much_is_remembered() {
        let mut outbox = Outbox::new(1, true, 0, 0);
        for seq in 1..=6 {
            let handed = outbox.refill(vec![row(seq)], seq, false);
            assert_eq!(seqs(&handed), [seq]);
            outbox.lost(at(seq), 0);
        }
        outbox.reconnected(0);
        assert_eq!(outbox.room(), 1);
        assert_eq!(seqs(&outbox.refill(vec![row(1)], 1, false)), [1]);
    }

    #[test]
    fn what_was_lost_waits_for_the_next_connection_but_not_for_ever() {
        let mut outbox = Outbox::new(10, true, 0, 0);
        outbox.committed(vec![row(1)], Some(1), true);
        outbox.lost(at(1), 1_000);
        assert!(outbox.has_backlog());
        assert_eq!((outbox.pause(1_000), outbox.pause(1_500)), (500, 0));
        outbox.lost(at(1), 1_400);
        outbox.reconnected(0);
        assert_eq!(outbox.pause(1_400), 0);
    }

    #[test]
    fn rows_of_an_earlier_life_may_have_been_taken() {
        let mut outbox = Outbox::new(10, true, 3, 5);
        assert!(outbox.has_backlog());
        outbox.refill(vec![row(4), row(5), row(6)], 6, true);
        assert!(outbox.out[&at(5)].maybe_taken);
        assert!(!outbox.out[&at(6)].maybe_taken);
    }

    #[test]
    fn nothing_is_handed_out_while_the_bus_is_down() {
        let mut outbox = Outbox::new(10, true, 0, 0);
        assert!(outbox.committed(vec![row(1)], Some(1), false).is_empty());
        assert!(outbox.has_backlog());
        assert_eq!(outbox.cursor(), 0);
    }
}
