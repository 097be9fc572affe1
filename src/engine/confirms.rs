//! What the broker said of messages: limits that begin, commands that came back, and what is published again.

use super::batch::Work;
use super::outbox::{Flight, InFlight};
use super::turn::Came;
use super::{MessageRef, Published};
use crate::saga::duration::Span;
use crate::saga::event::{Input, Subject};
use crate::saga::ids::InstanceNo;
use crate::store::{StoreError, Straggler, StragglerOutcome};

/// The first pause before a returned or nacked message is published again; it doubles.
const AGAIN_AFTER_MS: u64 = 1_000;
/// The longest such pause.
const AGAIN_AFTER_AT_MOST_MS: u64 = 10_000;
/// Stragglers published again in one batch.
const STRAGGLERS_PIECE: u32 = 100;

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
        if !self.core.outbox.has_backlog() || room == 0 {
            return Ok(());
        }
        let unsent = self.tx.unsent(self.core.outbox.reached(), room)?;
        // Where there is nothing more, rows without messages may follow: they are reached too.
        let reached = unsent.upto.map_or_else(|| self.tx.last_seq(), Ok)?;
        let handed = self.core.outbox.refill(unsent.messages, reached, unsent.upto.is_none());
        self.out.publish.extend(handed);
        Ok(())
    }

    /// Nobody can have acted on these: they are not published again.
    pub(super) fn withdraw(&mut self, no: InstanceNo, subject: Subject) -> Result<(), StoreError> {
        if let Some(at) = self.tx.straggler_of(no, subject)? {
            self.core.outbox.settled(at);
            self.settle(at)?;
        }
        Ok(())
    }

    /// A person says that it is to be published again now.
    pub(super) fn republish(&mut self, no: InstanceNo, subject: Subject) -> Result<(), StoreError> {
        if let Some(at) = self.tx.straggler_of(no, subject)?
            && let Some(mut straggler) = self.tx.straggler(at)?
            && straggler.outcome != StragglerOutcome::UnderWay
        {
            straggler.next_at = Some(self.now.wall);
            self.tx.straggle(at, &straggler)?;
        }
        Ok(())
    }

    fn lost(&mut self, at: MessageRef) -> Result<(), StoreError> {
        match self.core.outbox.lost(at) {
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
        let known = self.tx.straggler(at)?;
        let tries = known.as_ref().map_or(1, |known| known.tries);
        let pause = AGAIN_AFTER_MS.saturating_mul(1 << tries.saturating_sub(1).min(10)).min(AGAIN_AFTER_AT_MOST_MS);
        let next_at = match outcome {
            StragglerOutcome::Unknown => Some(self.now.wall),
            // It closes the channel for all others: not again by itself, but with the next connection.
            StragglerOutcome::Rejected => None,
            _ => Some(self.now.wall.plus(Span(pause))),
        };
        self.core.stragglers += u64::from(known.is_none());
        let straggler = Straggler {
            outcome,
            reason: reason.map(str::to_owned),
            tries,
            maybe_taken: flight.maybe_taken,
            since: self.now.wall,
            next_at,
        };
        self.tx.straggle(at, &straggler)
    }

    fn hand_out_stragglers(&mut self) -> Result<(), StoreError> {
        if self.core.stragglers == 0 {
            return Ok(());
        }
        let room = self.core.outbox.room().min(STRAGGLERS_PIECE);
        for (at, mut straggler) in self.tx.stragglers_due(self.now.wall, room)? {
            let Some(message) = self.tx.message(at)? else { continue };
            // On record before it goes: after a crash nobody knows whether it went.
            straggler.outcome = StragglerOutcome::UnderWay;
            straggler.tries = straggler.tries.saturating_add(1);
            straggler.next_at = None;
            self.tx.straggle(at, &straggler)?;
            self.core.outbox.hand_out_straggler(at, &message, straggler.maybe_taken);
            self.out.publish.push((at, message));
        }
        Ok(())
    }

    fn settle(&mut self, at: MessageRef) -> Result<(), StoreError> {
        if self.tx.straggler(at)?.is_some() {
            self.core.stragglers = self.core.stragglers.saturating_sub(1);
            self.tx.settle(at)?;
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
