//! What can be wrong in a scenario before it is run: names that no definition knows.

use std::sync::Arc;

use crate::saga::diagnostic::{Diagnostic, Problem};
use crate::saga::expression::closest;
use crate::saga::incident::IncidentKind;
use crate::saga::instance::Status;
use crate::saga::machine::{Machine, Place};

use super::file::{Action, ScenarioFile, Step};

pub fn check(file: &ScenarioFile, name: &str, machines: &[Arc<Machine>]) -> Vec<Diagnostic> {
    let Some(machine) = machines.iter().find(|machine| machine.name == file.saga) else {
        let known: Vec<&str> = machines.iter().map(|machine| machine.name.as_str()).collect();
        let hint = did_you_mean(&file.saga, &known);
        let message = format!("there is no saga '{}' beside this file", file.saga);
        return vec![Problem::new("unknown-name", file.saga_place, message, hint).in_file(name)];
    };
    let steps = file.scenarios.iter().flat_map(|scenario| &scenario.steps);
    let problems = steps.filter_map(|step| check_step(step, machine, machines));
    problems.map(|problem| problem.in_file(name)).collect()
}

fn check_step(step: &Step, machine: &Machine, machines: &[Arc<Machine>]) -> Option<Problem> {
    let other = step.instance.as_deref().and_then(|name| name.split_once('/')).map(|(saga, _)| saga);
    let machine = other
        .and_then(|saga| machines.iter().find(|machine| machine.name == saga))
        .map_or(machine, |machine| machine.as_ref());
    match &step.action {
        Action::Receive { event, .. } | Action::Reply { event, .. } => {
            let known: Vec<&str> = machines.iter().flat_map(|machine| machine.consumed()).collect();
            unknown(step.place, "event", event, &known)
        }
        Action::State(state) => {
            let known: Vec<&str> = machine.states.keys().map(String::as_str).collect();
            unknown(step.place, "state", state, &known)
        }
        Action::Status(status) => {
            let mut known: Vec<&str> = Status::ALL.iter().map(|status| status.name()).collect();
            known.extend(["stuck", "paused", "settling"]);
            unknown(step.place, "status", status, &known)
        }
        Action::Incident(Some(kind)) => {
            let known: Vec<&str> = IncidentKind::ALL.iter().map(|kind| kind.name()).collect();
            unknown(step.place, "incident", kind, &known)
        }
        _ => None,
    }
}

fn unknown(place: Place, what: &str, name: &str, known: &[&str]) -> Option<Problem> {
    if known.contains(&name) {
        return None;
    }
    let message = format!("there is no {what} '{name}'");
    Some(Problem::new("unknown-name", place, message, did_you_mean(name, known)))
}

fn did_you_mean(name: &str, known: &[&str]) -> String {
    match closest(name, known.iter().copied()) {
        Some(near) => format!("did you mean '{near}'?"),
        None => format!("there are {}", known.join(", ")),
    }
}
