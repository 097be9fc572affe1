//! A set with a capacity, and a register of such sets. Between them they are every rule of the shipped participants: the
//! places of a group or a cell, the groups of a user, the one cell of a detainee.
//!
//! The rule (never more than the limit, each key once) is guarded in [`Slots::take`] and nowhere else. Nothing here
//! knows of messages.

use std::collections::{BTreeMap, BTreeSet};

/// At most so many slots, each key once. A slot is first held, and may then be confirmed.
#[derive(Clone, Debug)]
pub struct Slots {
    limit: usize,
    slots: BTreeMap<String, Slot>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Slot {
    /// Whom it is for.
    pub whose: String,
    pub stage: Stage,
    /// The commands that asked for it and were not taken back: the slot is free when none is left. There can be more
    /// than one, for a step that was given up and entered anew asks again under another id.
    by: BTreeSet<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Reserved,
    /// For good: what reserved it can no longer be taken back.
    Confirmed,
}

/// Why a slot is not given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoSlot {
    #[error("all {limit} are taken")]
    Full { limit: usize },
    /// This very key is held already, by somebody else or for good.
    #[error("it is held already, for {whose}")]
    Held { whose: String },
}

/// What no orchestrator may ask for after what it has asked before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutOfTurn {
    #[error("{key} is to be confirmed and nobody reserved it")]
    NotReserved { key: String },
    #[error("{key} is confirmed and is to be released")]
    Confirmed { key: String },
}

impl Slots {
    pub fn new(limit: usize) -> Slots {
        Slots { limit, slots: BTreeMap::new() }
    }

    /// Gives the slot `key` to `whose`, asked for by the command `by`.
    pub fn take(&mut self, key: &str, whose: &str, by: &str) -> Result<(), NoSlot> {
        if let Some(slot) = self.slots.get_mut(key) {
            if slot.whose != whose || slot.stage == Stage::Confirmed {
                return Err(NoSlot::Held { whose: slot.whose.clone() });
            }
            slot.by.insert(by.to_owned());
            return Ok(());
        }
        if self.slots.len() >= self.limit {
            return Err(NoSlot::Full { limit: self.limit });
        }
        let slot = Slot { whose: whose.to_owned(), stage: Stage::Reserved, by: BTreeSet::from([by.to_owned()]) };
        self.slots.insert(key.to_owned(), slot);
        Ok(())
    }

    /// Takes back what the command `by` was given under `key`, and nothing else: what another command asked for stays.
    pub fn give_back(&mut self, key: &str, by: &str) -> Result<(), OutOfTurn> {
        let Some(slot) = self.slots.get_mut(key) else { return Ok(()) };
        if !slot.by.contains(by) {
            return Ok(());
        }
        if slot.stage == Stage::Confirmed {
            return Err(OutOfTurn::Confirmed { key: key.to_owned() });
        }
        slot.by.remove(by);
        if slot.by.is_empty() {
            self.slots.remove(key);
        }
        Ok(())
    }

    /// Turns a reserved slot into one for good.
    pub fn confirm(&mut self, key: &str) -> Result<(), OutOfTurn> {
        let slot = self.slots.get_mut(key).ok_or_else(|| OutOfTurn::NotReserved { key: key.to_owned() })?;
        slot.stage = Stage::Confirmed;
        Ok(())
    }

    pub fn limit(&self) -> usize {
        self.limit
    }

    pub fn len(&self) -> usize {
        self.slots.len()
    }

    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub fn get(&self, key: &str) -> Option<&Slot> {
        self.slots.get(key)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Slot)> {
        self.slots.iter().map(|(key, slot)| (key.as_str(), slot))
    }

    pub fn in_stage(&self, stage: Stage) -> impl Iterator<Item = (&str, &Slot)> {
        self.iter().filter(move |(_, slot)| slot.stage == stage)
    }
}

/// The aggregates of one kind, each with slots of its own: all groups, all users. One that nobody has named yet comes
/// into being with the common limit.
#[derive(Clone, Debug)]
pub struct Register {
    limit: usize,
    owners: BTreeMap<String, Slots>,
}

impl Register {
    pub fn new(limit: usize) -> Register {
        Register { limit, owners: BTreeMap::new() }
    }

    pub fn of(&mut self, owner: &str) -> &mut Slots {
        self.owners.entry(owner.to_owned()).or_insert_with(|| Slots::new(self.limit))
    }

    pub fn get(&self, owner: &str) -> Option<&Slots> {
        self.owners.get(owner)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Slots)> {
        self.owners.iter().map(|(owner, slots)| (owner.as_str(), slots))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_counts_reserved_and_confirmed_slots_together() {
        let mut slots = Slots::new(2);
        slots.take("r1", "u1", "c1").expect("there is room");
        slots.confirm("r1").expect("it is reserved");
        slots.take("r2", "u2", "c2").expect("there is room");
        assert_eq!(slots.take("r3", "u3", "c3"), Err(NoSlot::Full { limit: 2 }));
        slots.give_back("r2", "c2").expect("it is only reserved");
        slots.take("r3", "u3", "c3").expect("there is room again");
    }

    #[test]
    fn an_undo_releases_nothing_that_another_command_asked_for() {
        let mut slots = Slots::new(2);
        slots.take("r1", "u1", "c1").expect("there is room");
        slots.give_back("r1", "c9").expect("nothing to do");
        assert!(slots.get("r1").is_some());
        slots.take("r1", "u1", "c2").expect("the same for the same");
        slots.give_back("r1", "c1").expect("still held by c2");
        assert!(slots.get("r1").is_some());
        slots.give_back("r1", "c2").expect("the last");
        assert!(slots.is_empty());
    }

    #[test]
    fn a_key_is_held_once_and_a_confirmed_slot_stays() {
        let mut slots = Slots::new(2);
        slots.take("r1", "u1", "c1").expect("there is room");
        assert_eq!(slots.take("r1", "u2", "c2"), Err(NoSlot::Held { whose: "u1".into() }));
        slots.confirm("r1").expect("it is reserved");
        slots.confirm("r1").expect("twice does no harm");
        assert_eq!(slots.give_back("r1", "c1"), Err(OutOfTurn::Confirmed { key: "r1".into() }));
        assert_eq!(slots.confirm("r2"), Err(OutOfTurn::NotReserved { key: "r2".into() }));
    }
}
