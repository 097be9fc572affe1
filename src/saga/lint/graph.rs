//! The ways through the states: which can be reached, before the pivot and after it, and which can be left.

use std::collections::BTreeSet;

use super::super::compile::NOWHERE;
use super::super::compile::facts::{Facts, Goes, Spot, Way};
use super::super::diagnostic::Problem;
use super::super::machine::{Body, Machine, Next, Place, State, StateNo};

/// What a way leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    State(StateNo),
    Completed,
}

/// Whether what is entered finds a message in hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message {
    There,
    Absent,
    /// As in the state that is left at once.
    AsBefore,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Edge {
    pub target: Target,
    pub message: Message,
    /// Passes a pivot's success.
    crosses: bool,
    /// Counts only before the pivot.
    only_before: bool,
    /// Nothing is waited for: it is taken in the same turn, or when the broker has a command.
    pub is_instant: bool,
    /// What is written where the way is.
    pub at: Place,
}

pub(super) struct Graph {
    pub edges: Vec<Vec<Edge>>,
    before: Vec<bool>,
    after: Vec<bool>,
    /// States that nothing leads to, and that no way to an unknown state may have meant.
    lonely: Vec<StateNo>,
    /// States that wait for ever.
    stuck: Vec<StateNo>,
}

impl Graph {
    pub fn new(machine: &Machine, facts: &Facts) -> Graph {
        let count = machine.states.len();
        let mut graph = Graph {
            edges: vec![Vec::new(); count],
            before: vec![false; count],
            after: vec![false; count],
            lonely: Vec::new(),
            stuck: Vec::new(),
        };
        for way in &facts.ways {
            match way.state {
                Some(state) => graph.add(machine, state, way),
                None => graph.add_everywhere(machine, way),
            }
        }
        for (number, state) in machine.states.values().enumerate() {
            let at = state.place;
            let next = |message| Edge {
                target: Target::Completed,
                message,
                crosses: false,
                only_before: false,
                is_instant: matches!(state.body, Body::Pass),
                at,
            };
            match &state.body {
                Body::Pass => graph.follow(machine, number, next(Message::AsBefore)),
                Body::All(_) => graph.follow(machine, number, next(Message::There)),
                Body::Each(_) => {
                    graph.follow(machine, number, next(Message::There));
                    // An empty list goes straight on.
                    graph.follow(machine, number, next(Message::AsBefore));
                }
                Body::Wait | Body::Send(_) | Body::Decide(_) | Body::Choose(_) => {}
            }
        }
        if count > 0 {
            graph.walk(0, machine.pivot_at_start);
            graph.lonely = graph.roots();
            graph.stuck = if facts.graph_broken { Vec::new() } else { graph.without_way_out(machine, facts) };
            graph.excuse(machine, facts);
        }
        graph
    }

    /// It can be entered before a pivot has succeeded.
    pub fn is_reached_before(&self, state: StateNo) -> bool {
        self.before.get(state).copied().unwrap_or(false)
    }

    /// It can be entered after a pivot has succeeded.
    pub fn is_reached_after(&self, state: StateNo) -> bool {
        self.after.get(state).copied().unwrap_or(false)
    }

    pub fn is_reached(&self, state: StateNo) -> bool {
        self.is_reached_before(state) || self.is_reached_after(state)
    }

    fn add(&mut self, machine: &Machine, state: StateNo, way: &Way) {
        let Some((_, from)) = machine.states.get_index(state) else { return };
        let is_pivot = matches!(&from.body, Body::Send(step) if step.pivot);
        let message = match way.spot {
            Spot::Choose => Message::AsBefore,
            spot if spot.has_message() => Message::There,
            _ => Message::Absent,
        };
        // Another way out of a pivot than its answer is a mistake; where it leads is judged as if there were none.
        let crosses = is_pivot && way.spot != Spot::Failure;
        let is_instant = matches!(way.spot, Spot::Choose | Spot::Confirm);
        let edge = Edge { target: Target::Completed, message, crosses, only_before: false, is_instant, at: way.at };
        match way.goes {
            Goes::State(target) => self.edges[state].push(Edge { target: Target::State(target), ..edge }),
            Goes::End => self.edges[state].push(edge),
            // A branch or an item that is settled leads nowhere by itself.
            Goes::Next if matches!(way.spot, Spot::PartSuccess | Spot::PartFailure) => {}
            Goes::Next => self.follow(machine, state, edge),
            Goes::Nowhere | Goes::Stay | Goes::Ignore | Goes::Retry | Goes::Fail | Goes::Incident => {}
        }
    }

    /// A way at the top of the file: from every state that does not handle the event itself, before the pivot.
    fn add_everywhere(&mut self, machine: &Machine, way: &Way) {
        let message = if way.spot.has_message() { Message::There } else { Message::Absent };
        let edge = Edge {
            target: Target::Completed,
            message,
            crosses: false,
            only_before: true,
            is_instant: false,
            at: way.at,
        };
        for (number, state) in machine.states.values().enumerate() {
            let handles = way.event.as_ref().is_some_and(|event| state.on.contains_key(event));
            let is_pivot = matches!(&state.body, Body::Send(step) if step.pivot);
            if handles || is_pivot {
                continue;
            }
            match way.goes {
                Goes::State(target) => self.edges[number].push(Edge { target: Target::State(target), ..edge }),
                Goes::End => self.edges[number].push(edge),
                Goes::Next => self.follow(machine, number, edge),
                Goes::Nowhere | Goes::Stay | Goes::Ignore | Goes::Retry | Goes::Fail | Goes::Incident => {}
            }
        }
    }

    /// Where `next` leads from here.
    fn follow(&mut self, machine: &Machine, state: StateNo, edge: Edge) {
        match &machine.states[state].next {
            Next::State(NOWHERE) => {}
            Next::State(target) => self.edges[state].push(Edge { target: Target::State(*target), ..edge }),
            Next::End(_) => self.edges[state].push(edge),
        }
    }

    fn walk(&mut self, first: StateNo, past: bool) {
        let mut open = vec![(first, past)];
        while let Some((state, past)) = open.pop() {
            let seen = if past { &mut self.after[state] } else { &mut self.before[state] };
            if std::mem::replace(seen, true) {
                continue;
            }
            for edge in &self.edges[state] {
                if let Target::State(target) = edge.target
                    && !(past && edge.only_before)
                {
                    open.push((target, past || edge.crosses));
                }
            }
        }
    }

    /// States that nothing leads to. Of several that lead to each other, the first.
    fn roots(&self) -> Vec<StateNo> {
        let lonely: BTreeSet<StateNo> = (0..self.edges.len()).filter(|state| !self.is_reached(*state)).collect();
        let is_source = |state: &StateNo| !lonely.iter().any(|other| other != state && self.leads_to(*other, *state));
        let sources: Vec<StateNo> = lonely.iter().copied().filter(is_source).collect();
        let mut roots: Vec<StateNo> = Vec::new();
        let mut explained: BTreeSet<StateNo> = BTreeSet::new();
        for state in sources.into_iter().chain(lonely.iter().copied()) {
            if !explained.contains(&state) {
                roots.push(state);
                self.explain(state, &mut explained);
            }
        }
        roots.sort_unstable();
        roots
    }

    /// A way to a state that does not exist may have meant one that nothing leads to: as many of those as there are
    /// such ways are taken for reached, so that what is in them is judged and that they are lonely is not told.
    fn excuse(&mut self, machine: &Machine, facts: &Facts) {
        let mut lost = lost_ways(machine, facts);
        lost.extend(self.stuck.iter().map(|state| (Some(*state), false)));
        let count = if facts.graph_broken { self.lonely.len() } else { lost.len().min(self.lonely.len()) };
        if count == 0 {
            return;
        }
        let has_pivot = machine.steps().any(|(_, step)| step.pivot);
        for state in self.lonely.drain(..count).collect::<Vec<_>>() {
            let from_reached = lost.iter().filter(|(from, _)| from.is_none_or(|from| self.is_reached(from)));
            let past = from_reached.map(|(from, crosses)| match from {
                Some(from) => *crosses || !self.is_reached_before(*from),
                None => machine.pivot_at_start,
            });
            let past: BTreeSet<bool> = past.chain(facts.graph_broken.then_some(machine.pivot_at_start)).collect();
            // Where it cannot be told on which side of the pivot it is, nothing is said of it.
            if past.len() == 1 && !(facts.graph_broken && has_pivot) {
                self.walk(state, past.contains(&true));
            }
        }
    }

    pub fn check(&self, machine: &Machine, problems: &mut Vec<Problem>) {
        for (number, (name, state)) in machine.states.iter().enumerate() {
            if self.lonely.contains(&number) {
                let message = format!("no way leads to the state `{name}`");
                let hint = "lead a transition or a `next` to it, or remove it";
                problems.push(Problem::new("unreachable-state", state.place, message, hint));
            }
            if self.stuck.contains(&number) {
                let message = format!("the state `{name}` can never be left");
                let hint = "add an event or a timer that leads to another state, or an end";
                problems.push(Problem::new("no-way-out", state.place, message, hint));
            }
        }
    }

    fn leads_to(&self, from: StateNo, to: StateNo) -> bool {
        self.edges[from].iter().any(|edge| edge.target == Target::State(to))
    }

    fn explain(&self, from: StateNo, explained: &mut BTreeSet<StateNo>) {
        let mut open = vec![from];
        while let Some(state) = open.pop() {
            if explained.insert(state) {
                open.extend(self.edges[state].iter().filter_map(|edge| match edge.target {
                    Target::State(target) => Some(target),
                    Target::Completed => None,
                }));
            }
        }
    }

    /// States that wait for ever: nothing in them leads elsewhere.
    fn without_way_out(&self, machine: &Machine, facts: &Facts) -> Vec<StateNo> {
        let mut stuck = Vec::new();
        for (number, state) in machine.states.values().enumerate() {
            if !matches!(state.body, Body::Wait) {
                continue;
            }
            let is_past = self.is_reached_after(number) && !self.is_reached_before(number);
            let own = facts.ways.iter().filter(|way| way.state == Some(number));
            let everywhere = facts.ways.iter().filter(|way| {
                let handled = way.event.as_ref().is_some_and(|event| state.on.contains_key(event));
                way.spot == Spot::TopOn && !handled && !is_past
            });
            let leaves = |way: &Way| match way.goes {
                Goes::State(target) => target != number,
                Goes::Next => state.next != Next::State(number),
                Goes::Nowhere | Goes::Fail | Goes::End | Goes::Retry => true,
                Goes::Stay | Goes::Ignore | Goes::Incident => false,
            };
            if !own.chain(everywhere).any(leaves) {
                stuck.push(number);
            }
        }
        stuck
    }
}

/// The ways that lead to a state that does not exist or could not be read: from where, and whether behind a pivot.
fn lost_ways(machine: &Machine, facts: &Facts) -> Vec<(Option<StateNo>, bool)> {
    let mut places: BTreeSet<(u32, u32)> = BTreeSet::new();
    let mut lost = Vec::new();
    let is_pivot = |state: &State| matches!(&state.body, Body::Send(step) if step.pivot);
    for way in facts.ways.iter().filter(|way| way.goes == Goes::Nowhere) {
        // One that is written in `defaults` is there for each step, and is one.
        if places.insert((way.at.line, way.at.column)) {
            let from = way.state.and_then(|state| machine.states.get_index(state));
            let crosses = way.spot == Spot::Success && from.is_some_and(|(_, state)| is_pivot(state));
            lost.push((way.state, crosses));
        }
    }
    for (number, state) in machine.states.values().enumerate() {
        if state.next == Next::State(NOWHERE) {
            lost.push((Some(number), is_pivot(state)));
        }
    }
    lost
}
