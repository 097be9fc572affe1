//! Who asks for what: requests out of a seed, against limits so tight that about a third of them must fail.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use uuid::Uuid;

use super::dice::Dice;

/// An event that starts a saga.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    pub kind: &'static str,
    /// The same for the same seed and number, so that a request can be published again and counts once.
    pub message_id: String,
    pub body: Value,
}

/// How many there are of everything, and how much each has room for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Town {
    pub groups: usize,
    pub group_limit: usize,
    pub users: usize,
    pub user_limit: usize,
    pub cells: usize,
    pub cell_capacity: usize,
    pub detainees: usize,
}

/// A saga that the participants here can play.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Saga {
    JoinGroup,
    AllocateCell,
}

impl Saga {
    pub const ALL: [Saga; 2] = [Saga::JoinGroup, Saga::AllocateCell];

    pub fn name(self) -> &'static str {
        match self {
            Saga::JoinGroup => "join-group",
            Saga::AllocateCell => "allocate-cell",
        }
    }

    pub fn parse(name: &str) -> Option<Saga> {
        Saga::ALL.into_iter().find(|saga| saga.name() == name)
    }
}

impl Town {
    /// A town in which about two thirds of so many requests of each saga can be granted.
    pub fn for_requests(requests: usize) -> Town {
        let groups = (requests / 40).max(20);
        let users = (requests / 3).max(1);
        let cells = (requests / 10).max(1);
        Town {
            groups,
            // Room for seven in ten of those who ask for a group; some of them have too many groups already.
            group_limit: (requests * 7 / 10).div_ceil(groups).max(1),
            users,
            user_limit: 4,
            cells,
            cell_capacity: 9,
            detainees: (requests * 2).max(1),
        }
    }

    /// The `number`th request of a saga, from 0.
    pub fn request(&self, saga: Saga, seed: u64, number: usize) -> Request {
        let dice = Dice::new(seed);
        let one_of = |what: &str, letter: char, count: usize| {
            let sides = u64::try_from(count).expect("a town is small");
            format!("{letter}{}", 1 + dice.throw(&format!("{} {number} {what}", saga.name()), sides))
        };
        let request_id = format!("{}-{}", saga.name(), number + 1);
        let message_id = Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("sagad demo {seed} {request_id}").as_bytes());
        let (kind, body) = match saga {
            Saga::JoinGroup => (
                "JoinGroupRequested",
                json!({
                    "request_id": request_id,
                    "user_id": one_of("user", 'u', self.users),
                    "group_id": one_of("group", 'g', self.groups),
                }),
            ),
            Saga::AllocateCell => (
                "CellAllocationRequested",
                json!({
                    "request_id": request_id,
                    "detainee_id": one_of("detainee", 'd', self.detainees),
                    "cell_id": one_of("cell", 'c', self.cells),
                }),
            ),
        };
        Request { kind, message_id: message_id.to_string(), body }
    }

    /// The detainees who can be put into no cell, and why.
    pub fn away(&self) -> BTreeMap<String, String> {
        const STATUSES: [&str; 3] = ["in hospital", "in court", "released"];
        let every_tenth = (1..=self.detainees).step_by(10).zip(STATUSES.into_iter().cycle());
        every_tenth.map(|(number, status)| (format!("d{number}"), status.to_owned())).collect()
    }
}
