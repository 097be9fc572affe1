//! The participants of `join-group`: groups guard how many members they have, users guard how many groups they are in.

use super::command::Command;
use super::guarded::{No, Rules, Undo, Words};
use super::slots::{NoSlot, Register};

/// All groups; the slot's key is the reservation, that is the request.
#[derive(Clone, Debug)]
pub struct Groups {
    pub slots: Register,
}

impl Groups {
    pub fn new(limit: usize) -> Groups {
        Groups { slots: Register::new(limit) }
    }
}

impl Rules for Groups {
    fn address(&self) -> &'static str {
        "groups"
    }

    fn words(&self) -> &'static [Words] {
        const WORDS: &[Words] = &[
            Words {
                command: "ReserveSlot",
                success: "SlotReserved",
                failure: Some("SlotRejected"),
                undo: Some(Undo { command: "ReleaseSlot", success: "SlotReleased" }),
            },
            Words { command: "ConfirmSlot", success: "SlotTaken", failure: None, undo: None },
        ];
        WORDS
    }

    fn act(&mut self, command: &Command) -> Result<(), No> {
        let group = field(command, "group")?;
        let reservation = field(command, "reservation")?;
        let slots = self.slots.of(group);
        match command.name.as_str() {
            "ConfirmSlot" => Ok(slots.confirm(reservation)?),
            _ => slots.take(reservation, field(command, "user")?, &command.id).map_err(|no| match no {
                NoSlot::Full { limit } => No::Refused(format!("group {group} is full with {limit}")),
                NoSlot::Held { whose } => No::Refused(format!("reservation {reservation} is that of {whose}")),
            }),
        }
    }

    fn take_back(&mut self, undo: &Command, undoes: &str) -> Result<(), No> {
        let group = field(undo, "group")?;
        Ok(self.slots.of(group).give_back(field(undo, "reservation")?, undoes)?)
    }
}

/// All users; the slot's key is the group, so that nobody is in a group twice.
#[derive(Clone, Debug)]
pub struct Users {
    pub memberships: Register,
}

impl Users {
    pub fn new(limit: usize) -> Users {
        Users { memberships: Register::new(limit) }
    }
}

impl Rules for Users {
    fn address(&self) -> &'static str {
        "users"
    }

    fn words(&self) -> &'static [Words] {
        const WORDS: &[Words] = &[Words {
            command: "AcquireMembership",
            success: "MembershipAcquired",
            failure: Some("MembershipRefused"),
            undo: Some(Undo { command: "GiveUpMembership", success: "MembershipGivenUp" }),
        }];
        WORDS
    }

    fn act(&mut self, command: &Command) -> Result<(), No> {
        let user = field(command, "user")?;
        let group = field(command, "group")?;
        // For whom is the command itself: a second request for the same group is refused, not joined to the first.
        self.memberships.of(user).take(group, &command.id, &command.id).map_err(|no| match no {
            NoSlot::Full { limit } => No::Refused(format!("user {user} is in {limit} groups already")),
            NoSlot::Held { .. } => No::Refused(format!("user {user} is in {group} already")),
        })
    }

    fn take_back(&mut self, undo: &Command, undoes: &str) -> Result<(), No> {
        let user = field(undo, "user")?;
        Ok(self.memberships.of(user).give_back(field(undo, "group")?, undoes)?)
    }
}

/// A text that the command cannot do without.
pub(super) fn field<'command>(command: &'command Command, name: &str) -> Result<&'command str, No> {
    command.text(name).ok_or_else(|| No::Senseless(format!("{name} is missing")))
}
