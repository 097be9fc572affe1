//! What every participant does alike: the barrier around its rules. The rules say what a command means; what to do with
//! a repetition, an undo before its command, or an undo for something never done is decided here, once.

use serde_json::Value;

use super::barrier::{Barrier, Before};
use super::command::{Answer, Command};
use super::slots::OutOfTurn;

/// A command, and the events that answer it and its undo.
#[derive(Clone, Copy, Debug)]
pub struct Words {
    pub command: &'static str,
    pub success: &'static str,
    /// Absent for a command that is never refused.
    pub failure: Option<&'static str>,
    pub undo: Option<Undo>,
}

#[derive(Clone, Copy, Debug)]
pub struct Undo {
    pub command: &'static str,
    pub success: &'static str,
}

/// Why a command was not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum No {
    /// The rule says no, and nothing happened.
    Refused(String),
    /// What no orchestrator may ask: it is not answered, and is complained of.
    Senseless(String),
}

impl From<OutOfTurn> for No {
    fn from(cause: OutOfTurn) -> No {
        No::Senseless(cause.to_string())
    }
}

/// What a participant guards, and how commands act on it.
pub trait Rules {
    fn address(&self) -> &'static str;

    fn words(&self) -> &'static [Words];

    /// Carries a command out, for the first time. The success's body comes from the command's.
    fn act(&mut self, command: &Command) -> Result<(), No>;

    /// Takes back what the command `undoes` did; `undo` is the message that asks for it. It was carried out, and was
    /// not taken back before.
    fn take_back(&mut self, undo: &Command, undoes: &str) -> Result<(), No>;
}

/// A participant: its rules behind the barrier.
#[derive(Clone, Debug)]
pub struct Guarded<R> {
    rules: R,
    barrier: Barrier,
    /// What came and can come from no orchestrator that keeps its promises.
    complaints: Vec<String>,
}

impl<R: Rules> Guarded<R> {
    pub fn new(rules: R) -> Guarded<R> {
        Guarded { rules, barrier: Barrier::default(), complaints: Vec::new() }
    }

    pub fn rules(&self) -> &R {
        &self.rules
    }

    pub fn complaints(&self) -> &[String] {
        &self.complaints
    }

    /// Handles one command or undo; `None` where there is nothing that could be answered.
    pub fn handle(&mut self, command: &Command) -> Option<Answer> {
        let outcome = match &command.undoes {
            None => self.carry_out(command),
            Some(undoes) => self.undo(command, undoes),
        };
        outcome.map_err(|cause| self.complain(command, &cause)).ok()
    }

    /// Refuses a command without looking at the rule, as a participant in a bad mood may; `None` where the command
    /// cannot be refused or was answered before.
    pub fn refuse(&mut self, command: &Command, reason: &str) -> Option<Answer> {
        let failure = self.words_of(&command.name)?.failure?;
        if command.undoes.is_some() || self.barrier.before(&command.id, &command.body) != Before::Nothing {
            return None;
        }
        let answer = Answer::refusal(failure, reason);
        self.barrier.remember(&command.id, &command.body, &answer);
        Some(answer)
    }

    fn carry_out(&mut self, command: &Command) -> Result<Answer, String> {
        let words = self.words_of(&command.name).ok_or("this command is not known here")?;
        let answer = match self.barrier.before(&command.id, &command.body) {
            Before::Answered(answer) => return Ok(answer),
            Before::Contradicted => return Err("two commands have the same id".to_owned()),
            Before::TakenBack => refusal(words, "it was taken back before it came")?,
            Before::Nothing => match self.rules.act(command) {
                Ok(()) => Answer::new(words.success, command.body.clone()),
                Err(No::Refused(reason)) => refusal(words, &reason)?,
                Err(No::Senseless(cause)) => return Err(cause),
            },
        };
        self.barrier.remember(&command.id, &command.body, &answer);
        Ok(answer)
    }

    fn undo(&mut self, undo: &Command, undoes: &str) -> Result<Answer, String> {
        let words = self.words_of_undo(&undo.name).ok_or("this undo is not known here")?;
        let success = words.undo.ok_or("this command has no undo")?.success;
        if self.was_done(undoes, &undo.body, words)? {
            self.rules.take_back(undo, undoes).map_err(|no| match no {
                No::Refused(cause) | No::Senseless(cause) => cause,
            })?;
        }
        self.barrier.take_back(undoes);
        Ok(Answer::new(success, undo.body.clone()))
    }

    /// Whether there is something to take back: the command was carried out, and its undo has not been here before.
    fn was_done(&self, undoes: &str, body: &Value, words: &Words) -> Result<bool, String> {
        match self.barrier.before(undoes, body) {
            Before::Answered(answer) => Ok(answer.kind == words.success && !self.barrier.is_taken_back(undoes)),
            Before::Contradicted => Err(format!("the undo of {undoes} has another body than the command had")),
            Before::Nothing | Before::TakenBack => Ok(false),
        }
    }

    fn words_of(&self, command: &str) -> Option<&'static Words> {
        self.rules.words().iter().find(|words| words.command == command)
    }

    fn words_of_undo(&self, command: &str) -> Option<&'static Words> {
        self.rules.words().iter().find(|words| words.undo.is_some_and(|undo| undo.command == command))
    }

    fn complain(&mut self, command: &Command, cause: &str) {
        /// A run in which everything goes wrong is told by its first complaints as well as by all.
        const MOST_COMPLAINTS: usize = 1_000;
        if self.complaints.len() < MOST_COMPLAINTS {
            self.complaints.push(format!("{}.{} {}: {cause}", command.address, command.name, command.id));
        }
    }
}

fn refusal(words: &Words, reason: &str) -> Result<Answer, String> {
    let failure = words.failure.ok_or_else(|| format!("cannot be refused, yet {reason}"))?;
    Ok(Answer::refusal(failure, reason))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::demo::join_group::{Groups, Users};
    use crate::demo::slots::Stage;

    /// How a request goes on after its slot was asked for.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Fate {
        Confirmed,
        TakenBack,
    }

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Part {
        Reserve,
        Release,
        Confirm,
    }

    fn message(part: Part, request: usize, time: usize) -> Command {
        let (name, id, undoes) = match part {
            Part::Reserve => ("ReserveSlot", format!("reserve-{request}"), None),
            // Each undo is a new command of its own, as when it is sent once more.
            Part::Release => ("ReleaseSlot", format!("release-{request}-{time}"), Some(format!("reserve-{request}"))),
            Part::Confirm => ("ConfirmSlot", format!("confirm-{request}"), None),
        };
        let group = format!("g{}", request % 2);
        let body = match part {
            Part::Confirm => json!({"group": group, "reservation": format!("r{request}")}),
            Part::Reserve | Part::Release => {
                json!({"group": group, "user": format!("u{request}"), "reservation": format!("r{request}")})
            }
        };
        Command {
            address: "groups".into(),
            name: name.into(),
            id,
            message_id: String::new(),
            undoes,
            key: String::new(),
            body,
        }
    }

    /// Requests with their fates, and the order in which their messages come, each as often as it likes.
    fn runs() -> impl Strategy<Value = (Vec<Fate>, Vec<(usize, u8)>)> {
        let fates = prop::collection::vec(prop_oneof![Just(Fate::Confirmed), Just(Fate::TakenBack)], 1..12);
        fates.prop_flat_map(|fates| {
            let count = fates.len();
            (Just(fates), prop::collection::vec((0..count, 0_u8..2), 0..120))
        })
    }

    proptest! {
        #[test]
        fn any_order_and_repetition_leaves_the_rule_intact_and_nothing_reserved_after_an_undo((fates, order) in runs()) {
            const LIMIT: usize = 3;
            let mut groups = Guarded::new(Groups::new(LIMIT));
            let mut answers: BTreeMap<String, Answer> = BTreeMap::new();
            for (time, (request, second)) in order.into_iter().enumerate() {
                let part = match (second, fates[request]) {
                    (0, _) => Part::Reserve,
                    (_, Fate::TakenBack) => Part::Release,
                    (_, Fate::Confirmed) => Part::Confirm,
                };
                let reserved = answers.get(&format!("reserve-{request}")).is_some_and(|answer| answer.kind == "SlotReserved");
                if part == Part::Confirm && !reserved {
                    continue;
                }
                let command = message(part, request, time);
                let answer = groups.handle(&command).expect("everything sensible is answered");
                let first = answers.entry(command.id.clone()).or_insert_with(|| answer.clone());
                prop_assert_eq!(&*first, &answer);
                for (_, slots) in groups.rules().slots.iter() {
                    prop_assert!(slots.len() <= LIMIT);
                }
            }
            for (request, fate) in fates.iter().enumerate() {
                let group = format!("g{}", request % 2);
                let undone = answers.keys().any(|id| id.starts_with(&format!("release-{request}-")));
                let slot = groups.rules().slots.get(&group).and_then(|slots| slots.get(&format!("r{request}")));
                if undone {
                    prop_assert!(slot.is_none());
                }
                if *fate == Fate::Confirmed && answers.contains_key(&format!("confirm-{request}")) {
                    prop_assert_eq!(slot.map(|slot| slot.stage), Some(Stage::Confirmed));
                }
            }
            prop_assert_eq!(groups.complaints(), &[] as &[String]);
        }
    }

    #[test]
    fn a_command_that_comes_after_its_undo_is_refused_and_reserves_nothing() {
        let mut groups = Guarded::new(Groups::new(1));
        let undo = message(Part::Release, 0, 0);
        assert_eq!(groups.handle(&undo), Some(Answer::new("SlotReleased", undo.body.clone())));
        let refused = groups.handle(&message(Part::Reserve, 0, 0)).expect("an answer");
        assert_eq!(refused.kind, "SlotRejected");
        assert!(groups.rules().slots.iter().all(|(_, slots)| slots.is_empty()));
        let again = message(Part::Release, 0, 1);
        assert_eq!(groups.handle(&again).map(|answer| answer.kind), Some("SlotReleased".to_owned()));
    }

    #[test]
    fn a_refused_request_for_the_same_group_does_not_take_the_membership_away_with_its_undo() {
        let mut users = Guarded::new(Users::new(3));
        let body = json!({"user": "u1", "group": "g1"});
        let command = |id: &str, name: &str, undoes: Option<&str>| Command {
            address: "users".into(),
            name: name.into(),
            id: id.into(),
            message_id: String::new(),
            undoes: undoes.map(str::to_owned),
            key: String::new(),
            body: body.clone(),
        };
        assert_eq!(
            users.handle(&command("c1", "AcquireMembership", None)).expect("an answer").kind,
            "MembershipAcquired"
        );
        assert_eq!(
            users.handle(&command("c2", "AcquireMembership", None)).expect("an answer").kind,
            "MembershipRefused"
        );
        assert_eq!(
            users.handle(&command("c3", "GiveUpMembership", Some("c2"))).expect("an answer").kind,
            "MembershipGivenUp"
        );
        assert!(users.rules().memberships.get("u1").is_some_and(|slots| slots.get("g1").is_some()));
    }

    #[test]
    fn what_makes_no_sense_is_complained_of_and_not_answered() {
        let mut groups = Guarded::new(Groups::new(1));
        assert_eq!(groups.handle(&message(Part::Confirm, 0, 0)), None);
        assert_eq!(groups.complaints().len(), 1);
        groups.handle(&message(Part::Reserve, 0, 0));
        groups.handle(&message(Part::Confirm, 0, 0)).expect("now it is reserved");
        assert_eq!(groups.handle(&message(Part::Release, 0, 0)), None);
        assert_eq!(groups.complaints().len(), 2);
        let mut other = message(Part::Reserve, 0, 0);
        other.body = json!({"group": "g9"});
        assert_eq!(groups.handle(&other), None);
        assert_eq!(groups.complaints().len(), 3);
    }

    #[test]
    fn a_refusal_out_of_the_blue_holds_and_does_nothing() {
        let mut groups = Guarded::new(Groups::new(1));
        let command = message(Part::Reserve, 0, 0);
        let refused = groups.refuse(&command, "not today").expect("it can be refused");
        assert_eq!(groups.handle(&command), Some(refused));
        assert_eq!(groups.refuse(&message(Part::Confirm, 0, 0), "not today"), None);
        assert_eq!(groups.refuse(&message(Part::Release, 0, 0), "not today"), None);
    }
}
