//! The daemon's side of the world: what comes to its connection, its batches, what they ask for, and the points at which
//! it may die.

use std::sync::Arc;

use super::super::broker::Routed;
use super::super::fate::{Point, Verdict};
use super::{Due, LIMITS, Seen, Step, World, WorldError};
use crate::bus::envelope::{decode, encode};
use crate::engine::{BusState, Delivery, Input, MessageRef, Output, Published};
use crate::saga::effect::Outgoing;

impl World {
    pub(super) fn connect(&mut self) {
        self.connection += 1;
        if self.engine.is_some() {
            let waiting = self.broker.waiting() as u64;
            self.inputs.push(Input::Bus(BusState::Up { waiting }));
        }
    }

    pub(super) fn lose_connection(&mut self) {
        self.connection += 1;
        self.broker.disconnect();
        self.acks.clear();
        if self.engine.is_none() {
            return;
        }
        // What was handed over and not handled comes again; what the engine was told stays told.
        self.inputs.retain(|input| !matches!(input, Input::Delivery(_)));
        let unknown = std::mem::take(&mut self.in_flight).into_iter().map(|at| (at, Published::Unknown)).collect();
        self.inputs.push(Input::Published(unknown));
        self.inputs.push(Input::Bus(BusState::Down { error: "the broker is away".to_owned() }));
    }

    /// Takes what the broker has for the daemon; says whether there is an input at all.
    pub(super) fn take_deliveries(&mut self) -> bool {
        if self.engine.is_none() {
            return false;
        }
        if !self.is_away {
            let most = self.fate.batch(self.setup.settings.max_batch);
            for _ in 0..most {
                let ahead = self.fate.overtakes(self.broker.waiting());
                let Some((token, raw)) = self.broker.deliver(ahead) else { break };
                let message = decode(&raw, &self.broker.types, &LIMITS, self.now.wall);
                let delivery = Delivery { ack: Some(token), raw: Arc::new(raw), message, dead: false };
                self.inputs.push(Input::Delivery(delivery));
            }
        }
        !self.inputs.is_empty()
    }

    pub(super) fn engine_is_due(&mut self) -> Result<bool, WorldError> {
        let now = self.now;
        let Some(engine) = self.engine.as_mut() else { return Ok(false) };
        Ok(engine.next_due(now)? == Some(0) || !self.acks.is_empty())
    }

    pub(super) fn batch(&mut self) -> Result<Step, WorldError> {
        if !self.acks.is_empty() && self.fate.dies(Point::BeforeAck) {
            return Ok(self.die(Point::BeforeAck));
        }
        self.send_acks()?;
        if self.fate.dies(Point::BeforeCommit) {
            return Ok(self.die(Point::BeforeCommit));
        }
        let inputs = std::mem::take(&mut self.inputs);
        let Some(engine) = self.engine.as_mut() else { return Ok(Step::Rest) };
        let output = engine.batch(inputs, self.now)?;
        if self.fate.dies(Point::AfterCommit) {
            return Ok(self.die(Point::AfterCommit));
        }
        self.carry_out(output)
    }

    fn die(&mut self, at: Point) -> Step {
        self.kill();
        Step::Died(at)
    }

    /// Publishes what a committed batch asked for, and keeps its acknowledgements for the next step: in between it may
    /// die.
    pub(super) fn carry_out(&mut self, output: Output) -> Result<Step, WorldError> {
        let Output { acks, publish, answers: _ } = output;
        self.acks.extend(acks);
        if self.is_away && !publish.is_empty() {
            // The engine heard of it in the next batch only; the connection took them to nowhere.
            let unknown = publish.into_iter().map(|(at, _)| (at, Published::Unknown)).collect();
            self.inputs.push(Input::Published(unknown));
            return Ok(Step::Batch);
        }
        let mut lost = false;
        for (at, message) in publish {
            if self.fate.dies(Point::AfterPublish) {
                return Ok(self.die(Point::AfterPublish));
            }
            self.in_flight.insert(at);
            if !lost {
                lost = self.publish(at, message);
            }
        }
        if lost {
            self.reconnect();
        }
        Ok(Step::Batch)
    }

    /// Publishes one message; says whether the connection went with it.
    fn publish(&mut self, at: MessageRef, message: Outgoing) -> bool {
        let told = |world: &mut World, outcome: Published, after_ms: u64| {
            let connection = world.connection;
            world.at(world.now.monotonic_ms.saturating_add(after_ms), Due::Told { connection, at, outcome });
        };
        let wire = match encode(&message, &self.broker.addresses) {
            Ok(wire) => wire,
            Err(error) => {
                told(self, Published::Rejected { reason: error.to_string() }, 0);
                return false;
            }
        };
        let mandatory = wire.mandatory;
        let mut routed = self.broker.route(&wire, &self.bindings);
        let verdict = self.fate.verdict(&message);
        let outcome = match verdict {
            Verdict::Nack => Published::Nacked,
            Verdict::Return if mandatory => Published::Returned { reason: "312 NO_ROUTE".to_owned() },
            _ if routed.returned => Published::Returned { reason: "312 NO_ROUTE".to_owned() },
            _ => Published::Confirmed,
        };
        if outcome != Published::Confirmed || verdict == (Verdict::Lose { arrives: false }) {
            routed = Routed::default();
        }
        let raw = wire.delivered();
        self.arrive(&raw, routed.daemon, &routed.participants);
        let arrived = outcome == Published::Confirmed && verdict != (Verdict::Lose { arrives: false });
        if arrived && raw.exchange == self.broker.addresses.events_exchange {
            self.heard.push(raw);
        }
        if arrived || outcome != Published::Confirmed {
            self.seen.push(Seen { at, message, outcome: outcome.clone() });
        }
        match verdict {
            Verdict::Lose { .. } => return true,
            Verdict::Take { confirm_after_ms } => told(self, outcome, confirm_after_ms),
            Verdict::Nack | Verdict::Return => told(self, outcome, 0),
        }
        false
    }

    fn send_acks(&mut self) -> Result<(), WorldError> {
        for token in std::mem::take(&mut self.acks) {
            if !self.broker.acknowledge(token) {
                return Err(WorldError::Broken { what: format!("{token:?} was acknowledged twice") });
            }
        }
        Ok(())
    }
}
