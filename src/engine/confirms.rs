//! What the broker said of messages: limits that begin, commands that came back, and what is published again.

use super::batch::Work;
use super::outbox::{Flight, InFlight};
use super::turn::Came;
use super::{MessageRef, Published};
use crate::saga::event::{Input, Subject};
use crate::saga::ids::InstanceNo;
use crate::store::{StoreError, Straggle, StragglerOutcome};

/// The first pause before a returned or nacked message is published again; it doubles.
const AGAIN_AFTER_MS: u64 = 1_000;
/// The longest such pause.
const AGAIN_AFTER_AT_MOST_MS: u64 = 10_000;
/// Stragglers published again in one batch.
const STRAGGLERS_PIECE: usize = 100;

impl Work<'_, '_> {
    pub(super) fn published(&mut self, at: MessageRef, outcome: Published) -> Result<(), StoreError> {
        match outcome {
            Published::Unknown => self.lost(at),
            Published::Confirmed => match self.core.outbox.settled(at) {
                Some(flight) => self.confirmed(at, flight),
                None => Ok(()),
            },
            Published::Nacked => self.failed(at, StragglerOutcome::Nacked, None),
            Published::Returned { reason } => self.failed(at, StragglerOutcome::Returned, Some(reason)),
            Published::Rejected { reason } => self.failed(at, StragglerOutcome::Rejected, Some(reason)),
        }
    }

    /// Hands out what stands behind in the store, as far as there is room.
    pub(super) fn hand_out(&mut self) -> Result<(), StoreError> {
        if !self.core.clocks.is_up() {
            return Ok(());
        }
        self.hand_out_stragglers()?;
        let room = self.core.outbox.room();
        let pauses = self.core.outbox.pause(self.now.monotonic_ms) > 0;
        if !self.core.outbox.has_backlog() || room == 0 || pauses {
            return Ok(());
        }
        let unsent = self.tx.unsent(self.core.outbox.reached(), room)?;
        let handed = self.core.outbox.refill(unsent.messages, unsent.reached, unsent.whole);
        self.out.publish.extend(handed);
        Ok(())
    }

    /// Nobody can have acted on these: they are not published again.
    pub(super) fn withdraw(&mut self, no: InstanceNo, subject: Subject) -> Result<(), StoreError> {
        for at in self.tx.stragglers_of(no, subject)? {
            self.core.outbox.settled(at);
            self.settle(at)?;
        }
        Ok(())
    }

    /// A person says that it is to be published again now.
    pub(super) fn republish(&mut self, no: InstanceNo, subject: Subject) -> Result<(), StoreError> {
        for at in self.tx.stragglers_of(no, subject)? {
            self.tx.straggler_due(at, self.now.monotonic_ms)?;
        }
        Ok(())
    }

    fn lost(&mut self, at: MessageRef) -> Result<(), StoreError> {
        match self.core.outbox.lost(at, self.now.monotonic_ms) {
            Some(flight) if flight.straggler => self.straggle(at, flight, StragglerOutcome::Unknown, None),
            _ => Ok(()),
        }
    }

    fn confirmed(&mut self, at: MessageRef, flight: Flight) -> Result<(), StoreError> {
        if flight.straggler {
            self.settle(at)?;
        }
        let (Some(no), Some(command)) = (flight.instance, flight.command) else { return Ok(()) };
        if let Some(limit) = command.limit {
            let Some(stored) = self.load(no)? else { return Ok(()) };
            let saga = self.tx.name_saga(&stored.instance.saga)?;
            let listening_ms = self.core.clocks.listening_ms(saga);
            self.tx.start_limit(no, limit.serial, listening_ms, limit.after_ms)?;
            self.touched.insert(saga);
        }
        if flight.straggler || moves(&command) {
            self.give_quietly(no, Input::Confirmed(command.subject))?;
        }
        Ok(())
    }

    fn failed(&mut self, at: MessageRef, outcome: StragglerOutcome, reason: Option<String>) -> Result<(), StoreError> {
        let Some(flight) = self.core.outbox.settled(at) else { return Ok(()) };
        self.straggle(at, flight, outcome, reason.as_deref())?;
        let (Some(no), Some(command), Some(reason)) = (flight.instance, flight.command, reason) else {
            return Ok(());
        };
        self.give_quietly(no, Input::Returned { subject: command.subject, reason })
    }

    /// From now on it is published again beside the others, after a pause that grows.
    fn straggle(
        &mut self,
        at: MessageRef,
        flight: Flight,
        outcome: StragglerOutcome,
        reason: Option<&str>,
    ) -> Result<(), StoreError> {
        let tries = self.tx.straggler_tries(at)?;
        let pause = AGAIN_AFTER_MS.saturating_mul(1 << tries.min(10)).min(AGAIN_AFTER_AT_MOST_MS);
        let now = self.now.monotonic_ms;
        let next_at = match outcome {
            StragglerOutcome::Unknown => Some(now),
            // It closes the channel for all others: again only when a person says so, or the daemon starts.
            StragglerOutcome::Rejected => None,
            _ => Some(now.saturating_add(pause)),
        };
        let is_new = self.tx.straggle(&Straggle {
            at,
            instance: flight.instance,
            subject: flight.command.map(|command| command.subject),
            outcome,
            reason,
            maybe_taken: flight.maybe_taken,
            since: self.now.wall,
            next_at,
        })?;
        self.core.stragglers += u64::from(is_new);
        Ok(())
    }

    fn hand_out_stragglers(&mut self) -> Result<(), StoreError> {
        if self.core.stragglers == 0 {
            return Ok(());
        }
        let room = self.core.outbox.room().min(STRAGGLERS_PIECE);
        for straggler in self.tx.due_stragglers(self.now.monotonic_ms, room)? {
            // On record before it goes: after a crash nobody knows whether it went.
            self.tx.straggler_under_way(straggler.at)?;
            self.core.outbox.hand_out_straggler(straggler.at, &straggler.message, straggler.maybe_taken);
            self.out.publish.push((straggler.at, straggler.message));
        }
        Ok(())
    }

    fn settle(&mut self, at: MessageRef) -> Result<(), StoreError> {
        if self.tx.settle(at)? {
            self.core.stragglers = self.core.stragglers.saturating_sub(1);
        }
        Ok(())
    }

    /// Gives an input that nobody misses where it concerns nothing any more.
    fn give_quietly(&mut self, no: InstanceNo, input: Input) -> Result<(), StoreError> {
        match self.give(no, input)? {
            Came::Taken | Came::Parked | Came::Missed(_) | Came::Refused { .. } | Came::Gone => Ok(()),
        }
    }
}

/// Whether a confirm is what this command waits for.
fn moves(command: &InFlight) -> bool {
    !command.awaits && !matches!(command.subject, Subject::Loose { .. })
}
