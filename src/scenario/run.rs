//! Runs one scenario: the real engine over a database in memory, a clock that goes on only when the scenario says so,
//! and a broker that confirms at once. What the sagas publish comes back to them by itself.

mod expect;
mod stage;

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::saga::event::{Order, Verb};
use crate::saga::machine::{Machine, Place};

use super::file::{Action, Scenario, Step};
use stage::Stage;

/// The first thing that did not hold.
#[derive(Clone, Debug)]
pub struct Mismatch {
    pub place: Place,
    /// What was expected and what is, with the journal so far.
    pub what: String,
}

/// Runs a scenario to its end, or to the first step that does not hold.
pub fn run(saga: &str, scenario: &Scenario, machines: &[Arc<Machine>]) -> Result<(), Mismatch> {
    let mut stage = Stage::open(saga, machines).map_err(|what| Mismatch { place: scenario.place, what })?;
    for step in &scenario.steps {
        let result = play(&mut stage, step).and_then(|()| stage.check_invariants());
        if let Err(what) = result {
            return Err(Mismatch { place: step.place, what: format!("{what}\n{}", stage.journal()) });
        }
    }
    let left = stage.unexpected();
    if left.is_empty() {
        return Ok(());
    }
    let place = scenario.steps.last().map_or(scenario.place, |step| step.place);
    let what = format!("messages were left over at the end that no step expected:\n  {}", left.join("\n  "));
    Err(Mismatch { place, what: format!("{what}\n{}", stage.journal()) })
}

fn play(stage: &mut Stage, step: &Step) -> Result<(), String> {
    let of = step.instance.as_deref();
    match &step.action {
        Action::Receive { event, body, id, correlation, headers } => {
            stage.receive(event, body.clone(), id.clone(), correlation.clone(), headers.clone())
        }
        Action::Reply { event, to, body, id } => stage.reply(of, event, to.as_deref(), body.clone(), id.clone()),
        Action::Again => stage.again(),
        Action::Advance(span) => stage.advance(span.0),
        Action::Clock(time) => stage.set_clock(*time),
        Action::Broker { away } => stage.broker(*away),
        Action::Decide { choice, fields } => decide(stage, of, choice, fields),
        Action::Operator(verb) => stage.order(of, order(verb.clone())),
        Action::Restart => stage.restart(),
        Action::Expect { messages, any_order } => expect::messages(stage, messages, *any_order),
        Action::Status(status) => expect::status(stage, of, status),
        Action::State(state) => expect::state(stage, of, state),
        Action::Data(fields) => expect::data(stage, of, fields),
        Action::Outcome(outcome) => expect::outcome(stage, of, outcome),
        Action::Incident(kind) => expect::incident(stage, of, kind.as_deref()),
        Action::Unmatched(reason) => expect::unmatched(stage, reason),
    }
}

fn decide(stage: &mut Stage, of: Option<&str>, choice: &str, fields: &Map<String, Value>) -> Result<(), String> {
    let verb = Verb::Decide { choice: choice.to_owned(), question: None, fields: fields.clone() };
    stage.order(of, order(verb))
}

fn order(verb: Verb) -> Order {
    Order { verb, by: "scenario".to_owned(), reason: None, request_id: None, expect_turn: None }
}
