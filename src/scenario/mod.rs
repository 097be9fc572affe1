//! Scenarios: tests of a definition, written beside it as `<name>.test.yaml`, run on the real engine with a virtual
//! clock and no broker. Nothing here decides anything about sagas.

mod check;
mod file;
mod run;

use std::path::Path;
use std::sync::Arc;

use crate::saga::diagnostic::Diagnostic;
use crate::saga::machine::{Machine, Place};

pub use file::{Action, Expected, ExpectedKind, Scenario, ScenarioFile, Step, parse};
pub use run::{Mismatch, run};

/// What became of one scenario.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub saga: String,
    pub name: String,
    pub file: String,
    /// Of the scenario; of the step that failed, where one did.
    pub place: Place,
    /// What failed, with the journal so far and a difference; `None`: it passed.
    pub failure: Option<String>,
    pub duration_ms: u64,
}

/// All scenarios of one file; mistakes in the scenarios themselves are diagnostics, and nothing is run.
pub fn run_file(
    path: &Path,
    text: &str,
    machines: &[Arc<Machine>],
    filter: Option<&str>,
) -> Result<Vec<Outcome>, Vec<Diagnostic>> {
    let name = path.display().to_string();
    let file = parse(&name, text)?;
    let mistakes = check::check(&file, &name, machines);
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    let machines = involved(&file, machines);
    let chosen = file
        .scenarios
        .iter()
        .filter(|scenario| filter.is_none_or(|filter| format!("{}/{}", file.saga, scenario.name).contains(filter)));
    let outcomes = chosen.map(|scenario| {
        let result = run(&file.saga, scenario, &machines);
        let (place, failure) = match result {
            Ok(()) => (scenario.place, None),
            Err(mismatch) => (mismatch.place, Some(mismatch.what)),
        };
        Outcome {
            saga: file.saga.clone(),
            name: scenario.name.clone(),
            file: name.clone(),
            place,
            failure,
            duration_ms: 0,
        }
    });
    Ok(outcomes.collect())
}

/// What is wrong with the scenarios of one file; nothing is run.
pub fn check_file(path: &Path, text: &str, machines: &[Arc<Machine>]) -> Vec<Diagnostic> {
    let name = path.display().to_string();
    match parse(&name, text) {
        Ok(file) => check::check(&file, &name, machines),
        Err(mistakes) => mistakes,
    }
}

/// The definition beside the file, and those that a step names with `for: <saga>/<key>`; no other sees the messages.
fn involved(file: &ScenarioFile, machines: &[Arc<Machine>]) -> Vec<Arc<Machine>> {
    let steps = file.scenarios.iter().flat_map(|scenario| &scenario.steps);
    let named: Vec<&str> = steps
        .filter_map(|step| step.instance.as_deref()?.split_once('/'))
        .map(|(saga, _)| saga)
        .chain([file.saga.as_str()])
        .collect();
    machines.iter().filter(|machine| named.contains(&machine.name.as_str())).cloned().collect()
}
