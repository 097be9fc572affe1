//! One delivery: whether it was seen before, which sagas it is for, and what becomes of it where nobody takes it.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::batch::Work;
use super::catalog::Saga;
use super::turn::{Came, STARTED_ALREADY};
use super::{Bad, BadReason, Delivery, Raw};
use crate::saga::answer::is_answer;
use crate::saga::correlate::{self, Address, AddressError, Opening};
use crate::saga::effect::Unmatched;
use crate::saga::event::{Input, Message};
use crate::saga::ids::{CommandId, InstanceNo};
use crate::saga::instance::DefinitionNo;
use crate::saga::machine::{Machine, Unhandled};
use crate::store::{Aside, AsideKind, MessageKey, Near, StoreError, Stored, body_digest};

/// Of what is too large only so much is kept, with the digest of the whole.
const KEPT_OF_TOO_LARGE: usize = 64 * 1024;

/// Whose answer a message is, by its correlation id.
enum Correlated {
    /// It carries no command id, or its saga is to be asked like any other.
    Nothing,
    /// Another database's command.
    Foreign,
    /// A command of ours whose instance is kept no longer.
    Purged,
    Answer {
        instance: Arc<Stored>,
        command: CommandId,
    },
    /// It names a command and is none of its answers: an event for the instance that sent it.
    Event {
        instance: Arc<Stored>,
        command: CommandId,
    },
}

/// What one saga made of a message.
enum Offered {
    Taken,
    /// It was not asked.
    Passed,
    Missed {
        reason: Unmatched,
        how: Unhandled,
        near: Option<Near>,
    },
}

/// What the sagas made of a message, all together.
#[derive(Default)]
struct Harvest {
    taken: bool,
    dead: bool,
    nearest: Option<Unmatched>,
    near: Vec<Near>,
}

impl Work<'_, '_> {
    pub(super) fn delivery(&mut self, delivery: Delivery) -> Result<(), StoreError> {
        let Delivery { ack, raw, message, dead } = delivery;
        self.core.report.inputs += 1;
        match message {
            Err(bad) => self.bad(&raw, &bad)?,
            Ok(message) if dead => {
                let error = "the broker's delivery limit was passed".to_owned();
                self.dead_letter(&raw, &message, BadReason::DeliveryLimit, &error)?;
            }
            Ok(message) => self.message(&raw, message)?,
        }
        if let Some(ack) = ack {
            if !dead {
                self.core.clocks.delivered();
            }
            self.out.acks.push(ack);
        }
        Ok(())
    }

    fn message(&mut self, raw: &Raw, message: Message) -> Result<(), StoreError> {
        let correlated = self.correlated(&message)?;
        let interested = self.interested(&message, &correlated);
        let alone = interested.is_empty() && matches!(correlated, Correlated::Answer { .. });
        if !alone && !self.is_new(raw, &message)? {
            return Ok(());
        }
        let several = interested.len() + usize::from(!matches!(correlated, Correlated::Nothing)) > 1;
        let mut harvest = Harvest::default();
        let by_command = self.each_for_itself(several, |work| work.by_command(&correlated, &message).map(Ok))?;
        let mut results = vec![by_command];
        for saga in interested {
            results.push(self.each_for_itself(several, |work| work.offer(&saga, &message))?);
        }
        for result in results {
            match result {
                Ok(offered) => harvest.add(offered),
                Err(error) => {
                    self.dead_letter(raw, &message, BadReason::Expression, &error)?;
                    harvest.dead = true;
                }
            }
        }
        // An answer is remembered within its instance; one that nobody took, like any other message.
        if alone && !harvest.taken && !harvest.dead && !self.is_new(raw, &message)? {
            return Ok(());
        }
        self.conclude(raw, &message, &correlated, harvest)
    }

    /// Several instances share this input: what cannot be written for one of them takes nothing of the others with it.
    fn each_for_itself(
        &mut self,
        several: bool,
        one: impl FnOnce(&mut Self) -> Result<Result<Offered, AddressError>, StoreError>,
    ) -> Result<Result<Offered, String>, StoreError> {
        if !several {
            return Ok(one(self)?.map_err(|error| error.to_string()));
        }
        let savepoint = self.tx.savepoint()?;
        let (fresh, last_seq, draining) = (self.fresh.len(), self.last_seq, self.core.draining.clone());
        match one(self) {
            Ok(offered) => {
                self.tx.release(savepoint)?;
                Ok(offered.map_err(|error| error.to_string()))
            }
            Err(error) if error.is_fatal() => Err(error),
            Err(error) => {
                self.tx.roll_back(savepoint)?;
                self.fresh.truncate(fresh);
                self.last_seq = last_seq;
                self.core.draining = draining;
                self.core.cache.clear();
                Ok(Err(error.to_string()))
            }
        }
    }

    fn correlated(&mut self, message: &Message) -> Result<Correlated, StoreError> {
        let Some(command) = message.correlation_id.as_deref().and_then(CommandId::parse) else {
            return Ok(Correlated::Nothing);
        };
        if command.tag() != self.core.database.tag() {
            return Ok(Correlated::Foreign);
        }
        let Some(instance) = self.load(command.instance_no())? else { return Ok(Correlated::Purged) };
        let definition = instance.instance.definition;
        let answers = match self.core.catalog.machine(definition) {
            Some(machine) => is_answer(machine, &instance.instance, command, &message.kind),
            // Not to be told without its definition; what it is, it turns out when that can be loaded.
            None => true,
        };
        if answers {
            return Ok(Correlated::Answer { instance, command });
        }
        // Clients that copy the causing correlation id into everything do no harm.
        let own_entry = self.core.catalog.interested(&message.kind).contains(&instance.instance.saga);
        Ok(if own_entry { Correlated::Nothing } else { Correlated::Event { instance, command } })
    }

    /// The sagas to be asked beside the one whose command decides.
    fn interested(&self, message: &Message, correlated: &Correlated) -> Vec<Saga> {
        let decided = match correlated {
            Correlated::Answer { instance, .. } | Correlated::Event { instance, .. } => Some(&instance.instance.saga),
            Correlated::Nothing | Correlated::Foreign | Correlated::Purged => None,
        };
        let names = self.core.catalog.interested(&message.kind).iter().filter(|name| Some(*name) != decided);
        names.filter_map(|name| self.core.catalog.saga(name).cloned()).collect()
    }

    /// Whether a message is seen for the first time; remembers it.
    fn is_new(&mut self, raw: &Raw, message: &Message) -> Result<bool, StoreError> {
        let Some(id) = message.id.as_deref() else {
            self.core.report.without_id += 1;
            return Ok(true);
        };
        let key = MessageKey::of(&message.source, &message.kind, id);
        let digest = body_digest(&raw.body);
        match self.tx.seen(&key)? {
            None => {
                self.tx.remember(&key, digest)?;
                return Ok(true);
            }
            Some(first) if first == digest => {}
            Some(_) => self.unmatched(raw, message, Unmatched::IdReused, &[])?,
        }
        self.core.report.repeated += 1;
        Ok(false)
    }

    fn by_command(&mut self, correlated: &Correlated, message: &Message) -> Result<Offered, StoreError> {
        let (stored, input) = match correlated {
            Correlated::Nothing | Correlated::Foreign => return Ok(Offered::Passed),
            Correlated::Purged => return Ok(Offered::missed(Unmatched::NoInstance, Unhandled::Record)),
            // Also where it is none of the command's answers: it is never the answer of the state's present step.
            Correlated::Answer { instance, command } | Correlated::Event { instance, command } => {
                (instance, Input::Answer { command: *command, message: message.clone() })
            }
        };
        let how = self.how(stored.instance.definition, &message.kind, Unhandled::Record);
        self.give_to(stored.instance.id.no(), input, how)
    }

    /// Asks one saga, that names the type in `start` or `events`, in the order of its versions.
    fn offer(&mut self, saga: &Saga, message: &Message) -> Result<Result<Offered, AddressError>, StoreError> {
        let versions = self.machines(saga);
        let now = self.now.wall;
        let mut nearest: Option<Offered> = None;
        let mut starts: Option<(DefinitionNo, Arc<Machine>, String)> = None;
        for (no, machine) in &versions {
            let how = correlate::unhandled(machine, &message.kind, Unhandled::Record);
            let key = match correlate::opening(machine, message, now) {
                Err(error) => return Ok(Err(error)),
                Ok(Opening::NoEntry) => continue,
                Ok(Opening::Declined) => {
                    let how = correlate::unhandled(machine, &message.kind, Unhandled::Count);
                    nearest = nearest.or(Some(Offered::missed(Unmatched::NoInstance, how)));
                    continue;
                }
                Ok(Opening::Key(key)) => key,
            };
            let is_newest = Some(*no) == saga.newest;
            match self.newest(&saga.name, &key)? {
                Some(found) if !found.instance.status.is_end() && (is_newest || found.instance.definition == *no) => {
                    return self.reach_started(&found, message).map(Ok);
                }
                Some(found) if !found.instance.status.is_end() => {}
                Some(_) if is_newest && !machine.starts[&message.kind].again => {
                    nearest = Some(Offered::missed(Unmatched::Ended, how));
                }
                _ if is_newest => starts = Some((*no, Arc::clone(machine), key)),
                _ => {}
            }
        }
        if let Some((no, machine, key)) = starts {
            let data = match correlate::first_data(&machine, message, now) {
                Ok(data) => data,
                Err(error) => return Ok(Err(error)),
            };
            self.start(no, &machine, key, data, message.clone())?;
            return Ok(Ok(Offered::Taken));
        }
        self.offer_event(saga, &versions, message, nearest)
    }

    /// What did not start is handled by `events`.
    fn offer_event(
        &mut self,
        saga: &Saga,
        versions: &[(DefinitionNo, Arc<Machine>)],
        message: &Message,
        mut nearest: Option<Offered>,
    ) -> Result<Result<Offered, AddressError>, StoreError> {
        for (no, machine) in versions {
            let how = correlate::unhandled(machine, &message.kind, Unhandled::Record);
            let found = match correlate::address(machine, message, self.now.wall) {
                Err(error) => return Ok(Err(error)),
                Ok(Address::NoEntry) => continue,
                Ok(Address::Nobody) => None,
                Ok(Address::Key(key)) => self.newest(&saga.name, &key)?,
                Ok(Address::Instance(id)) => {
                    self.load(id.no())?.filter(|stored| stored.instance.id == id && stored.instance.saga == saga.name)
                }
            };
            // Another version's instance is found by that version's own rule, as long as it is asked at all.
            let own = |stored: &Stored| {
                let definition = stored.instance.definition;
                definition == *no || !versions.iter().any(|(version, _)| *version == definition)
            };
            let offered = match found.filter(|stored| own(stored)) {
                None => Offered::missed(Unmatched::NoInstance, how),
                Some(found) if found.instance.status.is_end() => Offered::near(Unmatched::Ended, how, &found),
                Some(found) => {
                    let offered = self.give_to(found.instance.id.no(), Input::Event(message.clone()), how)?;
                    if matches!(offered, Offered::Taken) {
                        return Ok(Ok(offered));
                    }
                    offered
                }
            };
            nearest = Some(match nearest {
                Some(before) => before.nearer(offered),
                None => offered,
            });
        }
        Ok(Ok(nearest.unwrap_or(Offered::missed(Unmatched::NoInstance, Unhandled::Record))))
    }

    /// A start event whose key is alive is an event like any other; where it is not handled, that is a note.
    fn reach_started(&mut self, found: &Stored, message: &Message) -> Result<Offered, StoreError> {
        let no = found.instance.id.no();
        if let Came::Missed(_) = self.give(no, Input::Event(message.clone()))? {
            self.note(no, Input::Event(message.clone()), STARTED_ALREADY)?;
        }
        Ok(Offered::Taken)
    }

    fn give_to(&mut self, no: InstanceNo, input: Input, how: Unhandled) -> Result<Offered, StoreError> {
        let near = self.load(no)?;
        Ok(match self.give(no, input)? {
            Came::Taken | Came::Parked | Came::Refused { .. } => Offered::Taken,
            Came::Gone => Offered::missed(Unmatched::NoInstance, how),
            Came::Missed(reason) => match near {
                Some(stored) => Offered::near(reason, how, &stored),
                None => Offered::missed(reason, how),
            },
        })
    }

    /// The versions of a saga that can be asked, in order.
    fn machines(&self, saga: &Saga) -> Vec<(DefinitionNo, Arc<Machine>)> {
        let loaded = |no: &DefinitionNo| Some((*no, Arc::clone(self.core.catalog.machine(*no)?)));
        saga.versions.iter().filter_map(loaded).collect()
    }

    fn newest(&mut self, saga: &str, key: &str) -> Result<Option<Arc<Stored>>, StoreError> {
        match self.tx.newest_by_key(saga, key)? {
            Some(no) => self.load(no),
            None => Ok(None),
        }
    }

    fn how(&self, definition: DefinitionNo, kind: &str, otherwise: Unhandled) -> Unhandled {
        match self.core.catalog.machine(definition) {
            Some(machine) => correlate::unhandled(machine, kind, otherwise),
            None => otherwise,
        }
    }

    /// What nobody took never just disappears.
    fn conclude(
        &mut self,
        raw: &Raw,
        message: &Message,
        correlated: &Correlated,
        harvest: Harvest,
    ) -> Result<(), StoreError> {
        if harvest.taken || harvest.dead {
            return Ok(());
        }
        if matches!(correlated, Correlated::Foreign) {
            self.tx.count_foreign(1);
            return Ok(());
        }
        if let Some(reason) = harvest.nearest {
            return self.unmatched(raw, message, reason, &harvest.near);
        }
        if self.core.catalog.interested(&message.kind).is_empty() {
            let known = self.core.catalog.knows(&message.kind);
            let reason = if known { Unmatched::NoInstance } else { Unmatched::UnknownType };
            return self.unmatched(raw, message, reason, &[]);
        }
        self.core.report.counted_only += 1;
        Ok(())
    }

    fn unmatched(&mut self, raw: &Raw, message: &Message, reason: Unmatched, near: &[Near]) -> Result<(), StoreError> {
        self.tx.set_aside(&Aside {
            kind: AsideKind::Unmatched,
            reason: reason.name(),
            error: None,
            message_type: Some(&message.kind),
            message_id: message.id.as_deref(),
            source: &message.source,
            correlation_id: message.correlation_id.as_deref(),
            exchange: &raw.exchange,
            routing_key: &raw.routing_key,
            received_at: self.now.wall,
            properties: &raw.properties,
            headers: &raw.headers,
            body: &raw.body,
            near,
        })?;
        Ok(())
    }

    fn dead_letter(&mut self, raw: &Raw, message: &Message, reason: BadReason, error: &str) -> Result<(), StoreError> {
        let bad = Bad {
            reason,
            error: error.to_owned(),
            kind: Some(message.kind.clone()),
            message_id: message.id.clone(),
            source: message.source.clone(),
            correlation_id: message.correlation_id.clone(),
        };
        self.bad(raw, &bad)
    }

    fn bad(&mut self, raw: &Raw, bad: &Bad) -> Result<(), StoreError> {
        let kept = match bad.reason {
            BadReason::TooLarge => &raw.body[..raw.body.len().min(KEPT_OF_TOO_LARGE)],
            _ => &raw.body[..],
        };
        self.tx.set_aside(&Aside {
            kind: AsideKind::Dead,
            reason: bad.reason.name(),
            error: Some(&bad.error),
            message_type: bad.kind.as_deref(),
            message_id: bad.message_id.as_deref(),
            source: &bad.source,
            correlation_id: bad.correlation_id.as_deref(),
            exchange: &raw.exchange,
            routing_key: &raw.routing_key,
            received_at: self.now.wall,
            properties: &raw.properties,
            headers: &raw.headers,
            body: kept,
            near: &[],
        })?;
        Ok(())
    }

    /// A message of which only the decoded form is left, because it had been waiting.
    pub(super) fn set_aside_message(
        &mut self,
        reason: Unmatched,
        message: &Message,
        near: &[Near],
    ) -> Result<(), StoreError> {
        let raw = Raw {
            routing_key: message.routing_key.clone(),
            properties: properties(message),
            headers: message.headers.clone(),
            body: message.body.to_string().into_bytes(),
            ..Raw::default()
        };
        self.unmatched(&raw, message, reason, near)
    }
}

impl Offered {
    fn missed(reason: Unmatched, how: Unhandled) -> Offered {
        Offered::Missed { reason, how, near: None }
    }

    fn near(reason: Unmatched, how: Unhandled, stored: &Stored) -> Offered {
        let near = Near { id: stored.instance.id, why: why(reason, stored) };
        Offered::Missed { reason, how, near: Some(near) }
    }

    /// Of two misses in one saga, the one that came nearer.
    fn nearer(self, other: Offered) -> Offered {
        match (&self, &other) {
            (Offered::Missed { reason: mine, .. }, Offered::Missed { reason: others, .. })
                if distance(*others) < distance(*mine) =>
            {
                other
            }
            _ => self,
        }
    }
}

impl Harvest {
    fn add(&mut self, offered: Offered) {
        match offered {
            Offered::Taken => self.taken = true,
            Offered::Passed => {}
            Offered::Missed { reason, how, near } => {
                if how == Unhandled::Record && self.nearest.is_none_or(|nearest| distance(reason) < distance(nearest)) {
                    self.nearest = Some(reason);
                }
                self.near.extend(near);
            }
        }
    }
}

/// How near a miss was: the first of these is the nearest.
fn distance(reason: Unmatched) -> usize {
    const ORDER: [Unmatched; 5] =
        [Unmatched::Ambiguous, Unmatched::NotWaiting, Unmatched::Ended, Unmatched::NoInstance, Unmatched::UnknownType];
    ORDER.iter().position(|known| *known == reason).unwrap_or(ORDER.len())
}

fn why(reason: Unmatched, stored: &Stored) -> String {
    let instance = &stored.instance;
    match reason {
        Unmatched::Ended => format!("it is {}", instance.status.name()),
        _ => format!("{} in state {}", reason.name(), instance.state),
    }
}

/// What of a message's properties is known from its decoded form.
fn properties(message: &Message) -> Map<String, Value> {
    let mut properties = Map::new();
    let mut add = |name: &str, value: &Option<String>| {
        if let Some(value) = value {
            properties.insert(name.to_owned(), Value::String(value.clone()));
        }
    };
    add("message_id", &message.id);
    add("correlation_id", &message.correlation_id);
    add("reply_to", &message.reply_to);
    properties.insert("type".to_owned(), Value::String(message.kind.clone()));
    properties
}
