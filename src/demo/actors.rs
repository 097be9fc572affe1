//! The participants as services of a world: what comes in as a message is handled, late or twice where the plan says so.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use serde_json::{Map, Value};

use super::command::{Answer, Command};
use super::faults::{Faults, Handling, Plan};
use super::participants::Participants;
use crate::saga::time::Timestamp;
use crate::world::{LocalMessage, Participant, Reply};

/// All participants, to be looked at while they live in the world.
pub type Shared = Rc<RefCell<Participants>>;

/// One participant at its address.
pub struct Actor {
    address: &'static str,
    all: Shared,
    faults: Faults,
    /// What it does later, by the number on the note that it wrote to itself.
    later: BTreeMap<u64, (LocalMessage, Plan)>,
    notes: u64,
}

impl Actor {
    pub fn new(address: &'static str, all: Shared, faults: Faults) -> Actor {
        Actor { address, all, faults, later: BTreeMap::new(), notes: 0 }
    }

    /// The event by which an actor wakes itself: a note, and nobody else's business.
    fn note(&self) -> String {
        format!("note.to.{}", self.address)
    }

    fn postpone(&mut self, message: LocalMessage, plan: Plan, after_ms: u64) -> Reply {
        self.notes += 1;
        self.later.insert(self.notes, (message, plan));
        Reply {
            after_ms,
            kind: self.note(),
            message_id: None,
            correlation_id: None,
            source: self.address.to_owned(),
            headers: Map::new(),
            body: Value::from(self.notes),
        }
    }

    fn carry_out(&mut self, message: &LocalMessage, plan: &Plan) -> Vec<Reply> {
        let command = command(self.address, message);
        let answer = match plan.handling {
            Handling::Refuse => self.all.borrow_mut().refuse(&command),
            Handling::Never | Handling::After { .. } => self.all.borrow_mut().handle(&command),
        };
        let reply = |answer: &Answer, after_ms: u64| Reply {
            after_ms,
            source: self.address.to_owned(),
            ..Reply::to(message, &answer.kind, answer.body.clone())
        };
        answer.iter().flat_map(|answer| plan.answers_after_ms.iter().map(move |ms| reply(answer, *ms))).collect()
    }
}

impl Participant for Actor {
    fn address(&self) -> &str {
        self.address
    }

    fn hears(&self) -> Vec<String> {
        vec![self.note()]
    }

    fn handle(&mut self, message: &LocalMessage, _now: Timestamp) -> Vec<Reply> {
        if message.kind == self.note() {
            let postponed = message.body.as_u64().and_then(|number| self.later.remove(&number));
            return postponed.map(|(message, plan)| self.carry_out(&message, &plan)).unwrap_or_default();
        }
        let plan = self.faults.plan(&command(self.address, message));
        match plan.handling {
            Handling::Never => Vec::new(),
            Handling::After { ms: 0 } | Handling::Refuse => self.carry_out(message, &plan),
            Handling::After { ms } => vec![self.postpone(message.clone(), plan, ms)],
        }
    }
}

/// Whoever asked, and hears how it ended.
pub struct Requester {
    all: Shared,
}

impl Requester {
    pub fn new(all: Shared) -> Requester {
        Requester { all }
    }
}

impl Participant for Requester {
    fn address(&self) -> &'static str {
        "requester"
    }

    fn hears(&self) -> Vec<String> {
        Participants::outcomes().map(str::to_owned).collect()
    }

    fn handle(&mut self, message: &LocalMessage, _now: Timestamp) -> Vec<Reply> {
        self.all.borrow_mut().tell(&message.kind, &message.body);
        Vec::new()
    }
}

/// A command as the participants know it, out of a message of the world's.
pub fn command(address: &str, message: &LocalMessage) -> Command {
    let header = |name: &str| message.headers.get(name).and_then(Value::as_str).map(str::to_owned);
    Command {
        address: address.to_owned(),
        name: message.kind.clone(),
        id: message.correlation_id.clone(),
        message_id: message.message_id.clone(),
        undoes: header("saga-undoes"),
        key: header("saga-key").unwrap_or_default(),
        body: message.body.clone(),
    }
}
