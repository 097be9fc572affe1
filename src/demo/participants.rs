//! All participants together, and who asked: what each believes at the end, and whether it fits. The invariants are
//! computed from the participants' own state, never from the orchestrator's.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use super::allocate_cell::{Cells, Detainees};
use super::command::{Answer, Command};
use super::guarded::Guarded;
use super::join_group::{Groups, Users};
use super::requests::Town;
use super::slots::{Register, Slots, Stage};

#[derive(Clone, Debug)]
pub struct Participants {
    groups: Guarded<Groups>,
    users: Guarded<Users>,
    cells: Guarded<Cells>,
    detainees: Guarded<Detainees>,
    /// Addresses that another process answers for: what they hold is not known here.
    elsewhere: BTreeSet<String>,
    /// What the requesters were told: request → outcomes, of which there is to be one.
    told: BTreeMap<String, BTreeSet<Told>>,
}

/// What a requester was told in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Told {
    Yes,
    No,
}

/// A rule over several aggregates, and what was found of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Invariant {
    pub saga: String,
    pub what: String,
    pub holds: bool,
    pub found: String,
}

/// The events by which a saga tells its requester how it ended.
const OUTCOMES: [(&str, Told); 4] = [
    ("JoinGroupAccepted", Told::Yes),
    ("JoinGroupRejected", Told::No),
    ("CellAllocated", Told::Yes),
    ("CellAllocationRefused", Told::No),
];

impl Participants {
    pub const ADDRESSES: [&str; 4] = ["groups", "users", "cells", "detainees"];

    pub fn new(town: &Town) -> Participants {
        Participants {
            groups: Guarded::new(Groups::new(town.group_limit)),
            users: Guarded::new(Users::new(town.user_limit)),
            cells: Guarded::new(Cells::new(town.cell_capacity)),
            detainees: Guarded::new(Detainees::new(town.away())),
            elsewhere: BTreeSet::new(),
            told: BTreeMap::new(),
        }
    }

    /// Only some of the participants are here; what can only be told from all is then not asked.
    pub fn only(mut self, addresses: &[String]) -> Participants {
        let gone = Participants::ADDRESSES.into_iter().filter(|address| !addresses.iter().any(|here| here == address));
        self.elsewhere = gone.map(str::to_owned).collect();
        self
    }

    /// The addresses that are answered for here.
    pub fn addresses(&self) -> impl Iterator<Item = &'static str> {
        Participants::ADDRESSES.into_iter().filter(|address| !self.elsewhere.contains(*address))
    }

    /// The event types that a requester listens to.
    pub fn outcomes() -> impl Iterator<Item = &'static str> {
        OUTCOMES.into_iter().map(|(kind, _)| kind)
    }

    /// Handles a command or an undo; `None` where there is no answer to it.
    pub fn handle(&mut self, command: &Command) -> Option<Answer> {
        match command.address.as_str() {
            "groups" => self.groups.handle(command),
            "users" => self.users.handle(command),
            "cells" => self.cells.handle(command),
            "detainees" => self.detainees.handle(command),
            _ => None,
        }
    }

    /// Refuses a command for no reason, where it can be refused; else handles it.
    pub fn refuse(&mut self, command: &Command) -> Option<Answer> {
        const REASON: &str = "not today";
        let refused = match command.address.as_str() {
            "groups" => self.groups.refuse(command, REASON),
            "users" => self.users.refuse(command, REASON),
            "cells" => self.cells.refuse(command, REASON),
            "detainees" => self.detainees.refuse(command, REASON),
            _ => None,
        };
        refused.or_else(|| self.handle(command))
    }

    /// An event that tells a requester how its request ended; any other event is no business of theirs.
    pub fn tell(&mut self, kind: &str, body: &Value) {
        let Some((_, told)) = OUTCOMES.iter().find(|(outcome, _)| *outcome == kind) else { return };
        if let Some(request) = body.get("request").and_then(Value::as_str) {
            self.told.entry(request.to_owned()).or_default().insert(*told);
        }
    }

    /// What the requesters were told so far.
    pub fn told(&self) -> &BTreeMap<String, BTreeSet<Told>> {
        &self.told
    }

    pub fn complaints(&self) -> impl Iterator<Item = &str> {
        let all =
            [self.groups.complaints(), self.users.complaints(), self.cells.complaints(), self.detainees.complaints()];
        all.into_iter().flatten().map(String::as_str)
    }

    /// The rules of `join-group` and `allocate-cell` that no single participant guards, and those that one does.
    pub fn invariants(&self) -> Vec<Invariant> {
        let is_here = |address: &str| !self.elsewhere.contains(address);
        let mut all = Vec::new();
        if is_here("groups") {
            all.extend(self.of_groups());
        }
        if is_here("users") {
            all.extend(self.of_users());
        }
        if is_here("groups") && is_here("users") {
            all.push(self.groups_and_users());
        }
        if is_here("cells") {
            all.extend(self.of_cells());
        }
        if is_here("detainees") {
            all.push(undisputed("allocate-cell", "detainees", self.detainees.complaints()));
        }
        if is_here("cells") && is_here("detainees") {
            all.push(self.cells_and_detainees());
        }
        all
    }

    /// Of one saga alone.
    pub fn invariants_of(&self, saga: &str) -> Vec<Invariant> {
        self.invariants().into_iter().filter(|invariant| invariant.saga == saga).collect()
    }

    /// Every requester of a saga was told how its request ended, but for those whose request waits for a person.
    pub fn all_told(&self, saga: &str, asked: usize, stuck: u64) -> Invariant {
        let told = self.told.keys().filter(|request| is_of(request, saga)).count();
        let waiting = usize::try_from(stuck).unwrap_or(usize::MAX);
        Invariant {
            saga: saga.to_owned(),
            what: "every requester was told how it ended".to_owned(),
            holds: told <= asked && told.saturating_add(waiting) >= asked,
            found: format!("{told} of {asked}"),
        }
    }

    fn of_groups(&self) -> [Invariant; 4] {
        let groups = &self.groups.rules().slots;
        [
            within("join-group", "members + reservations ≤ the group's maximum", groups, "group"),
            self.nothing_left("join-group", "no slot reserved for a request that has ended", groups),
            self.as_told("join-group", "in a group are those who were accepted", groups),
            undisputed("join-group", "groups", self.groups.complaints()),
        ]
    }

    fn of_users(&self) -> [Invariant; 2] {
        let users = &self.users.rules().memberships;
        [
            within("join-group", "groups of a user ≤ the user's maximum", users, "user"),
            undisputed("join-group", "users", self.users.complaints()),
        ]
    }

    fn groups_and_users(&self) -> Invariant {
        let (groups, users) = (&self.groups.rules().slots, &self.users.rules().memberships);
        agree("join-group", "a group has a member exactly where the user has the group", groups, users)
    }

    fn of_cells(&self) -> [Invariant; 5] {
        let cells = &self.cells.rules().places;
        [
            within("allocate-cell", "occupants + reservations ≤ capacity", cells, "cell"),
            once("allocate-cell", "a detainee in at most one cell", cells),
            self.nothing_left("allocate-cell", "no place reserved for a request that has ended", cells),
            self.as_told("allocate-cell", "in a cell are those whose request was granted", cells),
            undisputed("allocate-cell", "cells", self.cells.complaints()),
        ]
    }

    fn cells_and_detainees(&self) -> Invariant {
        let (cells, detainees) = (&self.cells.rules().places, &self.detainees.rules().cells);
        agree("allocate-cell", "a cell has an occupant exactly where the detainee has the cell", cells, detainees)
    }

    /// Nothing is still reserved for a request whose requester has been told the end.
    fn nothing_left(&self, saga: &str, what: &str, register: &Register) -> Invariant {
        let left: Vec<&str> = keys(register, Stage::Reserved).filter(|key| self.told.contains_key(*key)).collect();
        let open = keys(register, Stage::Reserved).count() - left.len();
        finding(saga, what, &left, format!("none left over, {open} for requests under way"))
    }

    /// Who was told yes has a slot for good, and who was told no has none. Who was told nothing yet may have one.
    fn as_told(&self, saga: &str, what: &str, register: &Register) -> Invariant {
        let confirmed: BTreeSet<&str> = keys(register, Stage::Confirmed).collect();
        let told = || self.told.iter().filter(|(request, _)| is_of(request, saga));
        let is_wrong = |(request, told): &(&String, &BTreeSet<Told>)| {
            let expected = if confirmed.contains(request.as_str()) { Told::Yes } else { Told::No };
            **told != BTreeSet::from([expected])
        };
        let wrong: Vec<&str> = told().filter(is_wrong).map(|(request, _)| request.as_str()).collect();
        finding(saga, what, &wrong, format!("{} of {} requests", confirmed.len(), told().count()))
    }
}

/// A request says in its id which saga it is for.
fn is_of(request: &str, saga: &str) -> bool {
    request.strip_prefix(saga).is_some_and(|rest| rest.starts_with('-'))
}

/// No owner has more than its limit.
fn within(saga: &str, what: &str, register: &Register, owner: &str) -> Invariant {
    let over: Vec<&str> =
        register.iter().filter(|(_, slots)| slots.len() > slots.limit()).map(|(name, _)| name).collect();
    let taken: usize = register.iter().map(|(_, slots)| slots.len()).sum();
    let full = register.iter().filter(|(_, slots)| slots.len() == slots.limit()).count();
    let owners = register.iter().count();
    let limit = register.iter().map(|(_, slots)| slots.limit()).max().unwrap_or(0);
    finding(saga, what, &over, format!("{taken} in {owners} {owner}s of at most {limit}, {full} of them full"))
}

/// Nobody is in two aggregates at once: a rule that none of them can guard for itself.
fn once(saga: &str, what: &str, register: &Register) -> Invariant {
    let mut seen: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (owner, slots) in register.iter() {
        for (_, slot) in slots.in_stage(Stage::Confirmed) {
            seen.entry(&slot.whose).or_default().insert(owner);
        }
    }
    let twice: Vec<&str> = seen.iter().filter(|(_, owners)| owners.len() > 1).map(|(whose, _)| *whose).collect();
    finding(saga, what, &twice, format!("{} in one each", seen.len()))
}

/// What one side has for good the other side has too, and the other way round, reservations apart.
fn agree(saga: &str, what: &str, here: &Register, there: &Register) -> Invariant {
    let mut pairs = BTreeSet::new();
    let mut pending = BTreeSet::new();
    for (owner, slots) in here.iter() {
        for (_, slot) in slots.iter() {
            let set = if slot.stage == Stage::Confirmed { &mut pairs } else { &mut pending };
            set.insert((slot.whose.as_str(), owner));
        }
    }
    let other_side: BTreeSet<(&str, &str)> =
        there.iter().flat_map(|(owner, slots)| slots.iter().map(move |(key, _)| (owner, key))).collect();
    let missing = pairs.difference(&other_side);
    let left_over = other_side.iter().filter(|pair| !pairs.contains(*pair) && !pending.contains(*pair));
    let wrong: Vec<String> = missing.chain(left_over).map(|(who, owner)| format!("{who} in {owner}")).collect();
    let wrong: Vec<&str> = wrong.iter().map(String::as_str).collect();
    finding(saga, what, &wrong, format!("{} on both sides", pairs.len()))
}

/// No command contradicted an earlier one: nothing confirmed that was not reserved, nothing taken back that was final.
fn undisputed(saga: &str, who: &str, complaints: &[String]) -> Invariant {
    let all: Vec<&str> = complaints.iter().map(String::as_str).collect();
    finding(saga, &format!("no command to {who} contradicted an earlier one"), &all, "no complaint".to_owned())
}

fn finding(saga: &str, what: &str, wrong: &[&str], right: String) -> Invariant {
    /// A table has room for a few examples.
    const EXAMPLES: usize = 3;
    let found = match wrong.split_at_checked(EXAMPLES) {
        _ if wrong.is_empty() => right,
        Some((first, rest)) if !rest.is_empty() => format!("{} wrong: {} …", wrong.len(), first.join(", ")),
        _ => format!("{} wrong: {}", wrong.len(), wrong.join(", ")),
    };
    Invariant { saga: saga.to_owned(), what: what.to_owned(), holds: wrong.is_empty(), found }
}

fn keys(register: &Register, stage: Stage) -> impl Iterator<Item = &str> {
    register.iter().flat_map(move |(_, slots): (&str, &Slots)| slots.in_stage(stage).map(|(key, _)| key))
}

/// All of what the participants hold, for a person or a test to look at.
#[derive(Clone, Debug, Serialize)]
pub struct Holdings {
    pub groups: Vec<Owner>,
    pub users: Vec<Owner>,
    pub cells: Vec<Owner>,
    pub detainees: Vec<Owner>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Owner {
    pub name: String,
    pub limit: usize,
    pub reserved: BTreeMap<String, String>,
    pub confirmed: BTreeMap<String, String>,
}

impl Participants {
    pub fn holdings(&self) -> Holdings {
        Holdings {
            groups: owners(&self.groups.rules().slots),
            users: owners(&self.users.rules().memberships),
            cells: owners(&self.cells.rules().places),
            detainees: owners(&self.detainees.rules().cells),
        }
    }
}

fn owners(register: &Register) -> Vec<Owner> {
    let of_stage = |slots: &Slots, stage| -> BTreeMap<String, String> {
        slots.in_stage(stage).map(|(key, slot)| (key.to_owned(), slot.whose.clone())).collect()
    };
    let owner = |(name, slots): (&str, &Slots)| Owner {
        name: name.to_owned(),
        limit: slots.limit(),
        reserved: of_stage(slots, Stage::Reserved),
        confirmed: of_stage(slots, Stage::Confirmed),
    };
    register.iter().map(owner).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::demo::requests::{Request, Saga};

    /// Plays one request to its end as an orchestrator would, and says whether it was granted.
    fn play(participants: &mut Participants, saga: Saga, request: &Request) -> bool {
        let body = &request.body;
        let key = body["request_id"].as_str().expect("a text").to_owned();
        let (first, second, third, body) = match saga {
            Saga::JoinGroup => (
                ["groups", "ReserveSlot", "ReleaseSlot"],
                ["users", "AcquireMembership"],
                ["groups", "ConfirmSlot"],
                json!({"group": body["group_id"], "user": body["user_id"], "reservation": key}),
            ),
            Saga::AllocateCell => (
                ["cells", "ReservePlace", "ReleasePlace"],
                ["detainees", "AllocateDetainee"],
                ["cells", "OccupyPlace"],
                json!({"cell": body["cell_id"], "detainee": body["detainee_id"], "reservation": key}),
            ),
        };
        let mut ask = |address: &str, name: &str, undoes: Option<String>| {
            let command = Command {
                address: address.into(),
                name: name.into(),
                id: format!("{name} {key}"),
                message_id: String::new(),
                undoes,
                key: key.clone(),
                body: body.clone(),
            };
            participants.handle(&command).expect("an answer").kind
        };
        if !ask(first[0], first[1], None).ends_with("Reserved") {
            return false;
        }
        let second = ask(second[0], second[1], None);
        if second.ends_with("Refused") || second.ends_with("NotAllocatable") {
            ask(first[0], first[2], Some(format!("{} {key}", first[1])));
            return false;
        }
        ask(third[0], third[1], None);
        true
    }

    fn run(saga: Saga, requests: usize, seed: u64) -> (Participants, usize) {
        let town = Town::for_requests(requests);
        let mut participants = Participants::new(&town);
        let mut granted = 0;
        for number in 0..requests {
            let request = town.request(saga, seed, number);
            let yes = play(&mut participants, saga, &request);
            granted += usize::from(yes);
            let kind = match (saga, yes) {
                (Saga::JoinGroup, true) => "JoinGroupAccepted",
                (Saga::JoinGroup, false) => "JoinGroupRejected",
                (Saga::AllocateCell, true) => "CellAllocated",
                (Saga::AllocateCell, false) => "CellAllocationRefused",
            };
            participants.tell(kind, &json!({"request": request.body["request_id"]}));
        }
        (participants, granted)
    }

    #[test]
    fn about_a_third_of_the_requests_must_fail_and_all_invariants_hold() {
        for saga in Saga::ALL {
            for (requests, seed) in [(100, 1), (200, 2), (500, 3), (2_000, 4)] {
                let (participants, granted) = run(saga, requests, seed);
                let failed = (requests - granted) * 100 / requests;
                assert!((25..=40).contains(&failed), "{} of {requests}: {failed} in a hundred failed", saga.name());
                for invariant in participants.invariants() {
                    assert!(invariant.holds, "{invariant:?}");
                }
            }
        }
    }

    fn broken(participants: &Participants) -> Vec<String> {
        participants.invariants().into_iter().filter(|found| !found.holds).map(|found| found.what).collect()
    }

    fn command(address: &str, name: &str, id: &str, body: Value) -> Command {
        Command {
            address: address.into(),
            name: name.into(),
            id: id.into(),
            message_id: String::new(),
            undoes: None,
            key: String::new(),
            body,
        }
    }

    #[test]
    fn a_slot_left_reserved_for_a_request_that_has_ended_is_found() {
        let mut participants = Participants::new(&Town::for_requests(100));
        let body = json!({"group": "g1", "user": "u1", "reservation": "join-group-1"});
        participants.handle(&command("groups", "ReserveSlot", "c1", body));
        assert_eq!(broken(&participants), Vec::<String>::new());
        participants.tell("JoinGroupRejected", &json!({"request": "join-group-1"}));
        assert_eq!(broken(&participants), ["no slot reserved for a request that has ended"]);
    }

    #[test]
    fn a_membership_without_a_slot_and_a_yes_without_a_member_are_found() {
        let mut participants = Participants::new(&Town::for_requests(100));
        participants.handle(&command("users", "AcquireMembership", "c1", json!({"group": "g1", "user": "u1"})));
        assert_eq!(broken(&participants), ["a group has a member exactly where the user has the group"]);
        let mut participants = Participants::new(&Town::for_requests(100));
        participants.tell("JoinGroupAccepted", &json!({"request": "join-group-1"}));
        assert_eq!(broken(&participants), ["in a group are those who were accepted"]);
    }

    #[test]
    fn a_detainee_in_two_cells_and_a_command_without_sense_are_found() {
        let mut participants = Participants::new(&Town::for_requests(100));
        for (number, cell) in ["c1", "c2"].into_iter().enumerate() {
            let body = json!({"cell": cell, "detainee": "d2", "reservation": format!("allocate-cell-{number}")});
            participants.handle(&command("cells", "ReservePlace", &format!("reserve {cell}"), body.clone()));
            participants.handle(&command("cells", "OccupyPlace", &format!("occupy {cell}"), body));
        }
        assert!(broken(&participants).contains(&"a detainee in at most one cell".to_owned()));
        let body = json!({"group": "g1", "reservation": "join-group-7"});
        participants.handle(&command("groups", "ConfirmSlot", "c9", body));
        assert!(broken(&participants).contains(&"no command to groups contradicted an earlier one".to_owned()));
    }
}
