//! How a participant misbehaves: slow, silent, refusing, answering twice, late, or out of order. A plan for each delivery
//! of a command, out of a seed; carrying it out, which takes a clock, is the transport's.

use std::collections::BTreeMap;

use super::command::Command;
use super::dice::Dice;

/// What a participant does with one delivery of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub handling: Handling,
    /// When it answers, counted from the moment at which it has handled the command: not at all, once, or more often.
    pub answers_after_ms: Vec<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handling {
    /// The delivery is lost on it.
    Never,
    /// An undo may overtake its command meanwhile.
    After { ms: u64 },
    /// It says no without looking at its rule, where no is an answer.
    Refuse,
}

impl Plan {
    /// Handled and answered at once.
    pub fn well() -> Plan {
        Plan { handling: Handling::After { ms: 0 }, answers_after_ms: vec![0] }
    }

    fn is_silent(&self) -> bool {
        self.handling == Handling::Never || self.answers_after_ms.is_empty()
    }
}

/// One way to misbehave, for commands that are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The first deliveries are lost, this many.
    Silent {
        times: u32,
    },
    /// Carried out at once, answered late.
    Late {
        ms: u64,
    },
    /// Carried out late.
    Slow {
        ms: u64,
    },
    /// Answered, and once more later.
    Twice {
        ms: u64,
    },
    Refuse,
}

impl Fault {
    /// Reads `silent:3`, `late:5000`, `slow:5000`, `twice:100`, `refuse`; the numbers are times or milliseconds.
    pub fn parse(text: &str) -> Option<Fault> {
        let (name, number) = text.split_once(':').unwrap_or((text, ""));
        let ms = number.parse::<u64>();
        match name {
            "silent" => Some(Fault::Silent { times: number.parse().ok()? }),
            "late" => Some(Fault::Late { ms: ms.ok()? }),
            "slow" => Some(Fault::Slow { ms: ms.ok()? }),
            "twice" => Some(Fault::Twice { ms: ms.ok()? }),
            "refuse" if number.is_empty() => Some(Fault::Refuse),
            _ => None,
        }
    }
}

/// Decides, delivery by delivery, how a participant behaves.
#[derive(Clone, Debug)]
pub struct Faults {
    chance: Chance,
    /// `<address>.<Command>` → what is wrong with each such command. Goes before chance.
    always: BTreeMap<String, Fault>,
    /// How often each command id has come.
    deliveries: BTreeMap<String, u32>,
}

#[derive(Clone, Copy, Debug)]
enum Chance {
    Never,
    Sometimes { dice: Dice, longest_ms: u64, silence: Silence },
}

/// Whether a command may go without an answer. Silence costs a step's whole time limit: minutes, where the clock is real.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    Possible,
    Never,
}

/// From this delivery of a command on a participant behaves: shipped steps ask five times, and one that is told to
/// misbehave now and then must not by chance be one that never answers.
const BEHAVES_FROM: u32 = 4;

/// An obstinate command is given up in between; its undo, which asks more often, must not be.
const OBSTINATE_UNTIL: u32 = 8;

impl Faults {
    pub fn none() -> Faults {
        Faults { chance: Chance::Never, always: BTreeMap::new(), deliveries: BTreeMap::new() }
    }

    /// Seeded misbehaviour; nothing is later than `longest_ms`.
    pub fn seeded(seed: u64, longest_ms: u64, silence: Silence) -> Faults {
        let chance = Chance::Sometimes { dice: Dice::new(seed), longest_ms, silence };
        Faults { chance, ..Faults::none() }
    }

    /// Each `command` (`<address>.<Command>`) misbehaves in this way.
    pub fn always(mut self, command: &str, fault: Fault) -> Faults {
        self.always.insert(command.to_owned(), fault);
        self
    }

    pub fn plan(&mut self, command: &Command) -> Plan {
        let delivery = self.deliveries.entry(command.id.clone()).or_default();
        *delivery += 1;
        let delivery = *delivery;
        let name = format!("{}.{}", command.address, command.name);
        match (self.always.get(&name), self.chance) {
            (Some(fault), _) => plan_of(*fault, delivery),
            (None, Chance::Never) => Plan::well(),
            (None, Chance::Sometimes { dice, longest_ms, silence }) => {
                let plan = by_chance(dice, longest_ms, &name, &command.key, delivery);
                if silence == Silence::Never && plan.is_silent() { Plan::well() } else { plan }
            }
        }
    }
}

fn plan_of(fault: Fault, delivery: u32) -> Plan {
    match fault {
        Fault::Silent { times } if delivery <= times => {
            Plan { handling: Handling::Never, answers_after_ms: Vec::new() }
        }
        Fault::Silent { .. } => Plan::well(),
        Fault::Late { ms } => Plan { answers_after_ms: vec![ms], ..Plan::well() },
        Fault::Slow { ms } => Plan { handling: Handling::After { ms }, ..Plan::well() },
        Fault::Twice { ms } => Plan { answers_after_ms: vec![0, ms], ..Plan::well() },
        Fault::Refuse => Plan { handling: Handling::Refuse, ..Plan::well() },
    }
}

/// Out of a hundred commands some are obstinate: their first delivery is carried out at the very last, and the others
/// are lost, so that they are given up and succeed all the same. Of the rest a third misbehaves in a smaller way.
fn by_chance(dice: Dice, longest_ms: u64, name: &str, key: &str, delivery: u32) -> Plan {
    const OBSTINATE_IN_HUNDRED: u64 = 3;
    let throw = |what: &str, sides: u64| dice.throw(&format!("{what} {name} {key}"), sides);
    if throw("obstinate", 100) < OBSTINATE_IN_HUNDRED && delivery < OBSTINATE_UNTIL {
        let ms = longest_ms - throw("how late", longest_ms / 8 + 1);
        return match delivery {
            1 if throw("obstinate how", 2) == 0 => plan_of(Fault::Slow { ms }, 1),
            1 => plan_of(Fault::Late { ms }, 1),
            _ => plan_of(Fault::Silent { times: delivery }, delivery),
        };
    }
    if delivery >= BEHAVES_FROM {
        return Plan::well();
    }
    let throw = |what: &str, sides: u64| dice.throw(&format!("{what} {name} {key} {delivery}"), sides);
    let a_while = throw("a while", longest_ms / 50 + 1);
    let long = throw("long", longest_ms + 1);
    match throw("how", 100) {
        0..4 => plan_of(Fault::Silent { times: delivery }, delivery),
        // Carried out, and the answer is lost.
        4..8 => Plan { answers_after_ms: Vec::new(), ..Plan::well() },
        8..12 => plan_of(Fault::Slow { ms: long }, delivery),
        12..16 => plan_of(Fault::Late { ms: long }, delivery),
        // Overtaken by what comes after it.
        16..22 => plan_of(Fault::Slow { ms: a_while }, delivery),
        22..30 => plan_of(Fault::Twice { ms: a_while }, delivery),
        30..33 => plan_of(Fault::Refuse, delivery),
        _ => Plan::well(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn command(id: u32) -> Command {
        Command {
            address: "groups".into(),
            name: "ReserveSlot".into(),
            id: format!("c{id}"),
            message_id: String::new(),
            undoes: None,
            key: format!("r{id}"),
            body: json!({}),
        }
    }

    #[test]
    fn the_same_seed_misbehaves_the_same_in_any_order() {
        let mut forwards = Faults::seeded(7, 200_000, Silence::Possible);
        let mut backwards = Faults::seeded(7, 200_000, Silence::Possible);
        let there: Vec<Plan> = (0..500).map(|id| forwards.plan(&command(id))).collect();
        let mut back: Vec<Plan> = (0..500).rev().map(|id| backwards.plan(&command(id))).collect();
        back.reverse();
        assert_eq!(there, back);
        assert_ne!(
            there[..],
            (0..500).map(|id| Faults::seeded(8, 200_000, Silence::Possible).plan(&command(id))).collect::<Vec<_>>()[..]
        );
    }

    #[test]
    fn every_kind_of_misbehaviour_happens_and_nothing_is_later_than_the_longest() {
        let mut faults = Faults::seeded(1, 10_000, Silence::Possible);
        let plans: Vec<Plan> = (0..2_000).map(|id| faults.plan(&command(id))).collect();
        let some = |what: &dyn Fn(&Plan) -> bool| plans.iter().any(what);
        assert!(some(&|plan| plan.handling == Handling::Never));
        assert!(some(&|plan| plan.handling == Handling::Refuse));
        assert!(some(&|plan| plan.answers_after_ms.is_empty() && plan.handling != Handling::Never));
        assert!(some(&|plan| plan.answers_after_ms.len() == 2));
        assert!(some(&|plan| plan.answers_after_ms.iter().any(|ms| *ms > 8_000)));
        assert!(some(&|plan| matches!(plan.handling, Handling::After { ms } if ms > 8_000)));
        for plan in &plans {
            assert!(plan.answers_after_ms.iter().all(|ms| *ms <= 10_000));
            assert!(!matches!(plan.handling, Handling::After { ms } if ms > 10_000));
        }
    }

    #[test]
    fn where_silence_is_ruled_out_every_delivery_is_answered() {
        let mut faults = Faults::seeded(1, 10_000, Silence::Never);
        let plans: Vec<Plan> = (0..2_000).map(|id| faults.plan(&command(id % 500))).collect();
        assert!(plans.iter().all(|plan| !plan.is_silent()));
        assert!(plans.iter().any(|plan| plan.answers_after_ms.len() == 2));
    }

    #[test]
    fn a_named_command_misbehaves_as_told() {
        let fault = Fault::parse("silent:2").expect("a fault");
        let mut faults = Faults::none().always("groups.ReserveSlot", fault);
        assert_eq!(faults.plan(&command(1)).handling, Handling::Never);
        assert_eq!(faults.plan(&command(1)).handling, Handling::Never);
        assert_eq!(faults.plan(&command(1)), Plan::well());
        assert_eq!(Fault::parse("late:5000"), Some(Fault::Late { ms: 5000 }));
        assert_eq!(Fault::parse("refuse"), Some(Fault::Refuse));
        assert_eq!(Fault::parse("late"), None);
        assert_eq!(Fault::parse("loud:1"), None);
    }
}
