//! `test`: the scenarios of definitions, on the real engine with a clock of their own.

use std::path::{Path, PathBuf};

use super::args::Shared;
use super::exit::{Exit, Failure, Outcome};
use super::output::{Form, Output};
use crate::api;
use crate::desk::definitions;
use crate::saga::diagnostic::Diagnostic;
use crate::scenario;

#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  sagad test                                  every scenario in the configured folder
  sagad test sagas/join-group.test.yaml
  sagad test --filter 'join-group/a user at the limit' --json")]
pub struct Args {
    /// Files, or folders of *.test.yaml [default: the configured sagas folder]
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// The folder of the definitions
    #[arg(long, value_name = "DIR")]
    sagas: Option<PathBuf>,
    /// Only scenarios in whose saga/name this occurs
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
}

/// What came of all files.
#[derive(Default)]
struct Results {
    outcomes: Vec<scenario::Outcome>,
    /// Mistakes in scenarios and definitions.
    diagnostics: Vec<Diagnostic>,
}

pub fn test(shared: &Shared, args: &Args) -> Outcome {
    let output = shared.output();
    let paths = match (&args.sagas, args.paths.is_empty()) {
        (_, false) => args.paths.clone(),
        (Some(dir), true) => vec![dir.clone()],
        (None, true) => vec![shared.load()?.sagas.dir],
    };
    let mut results = Results::default();
    for path in &paths {
        run(path, args.filter.as_deref(), &mut results)?;
    }
    tell(&output, &results)?;
    if let Some(filter) =
        args.filter.as_deref().filter(|_| results.outcomes.is_empty() && results.diagnostics.is_empty())
    {
        return Err(Failure::new(Exit::NotFound, format!("no scenario's saga/name contains '{filter}'"))
            .hint("sagad test without --filter lists them all"));
    }
    let failed = results.outcomes.iter().any(|outcome| outcome.failure.is_some());
    Ok(if failed || !results.diagnostics.is_empty() { Exit::Found } else { Exit::Done })
}

/// The scenarios of a folder, of a scenario file, or beside a definition; with all definitions of their folder.
fn run(path: &Path, filter: Option<&str>, results: &mut Results) -> Result<(), Failure> {
    let missing = |error: &dyn std::fmt::Display| {
        Failure::usage(error.to_string()).hint("name a folder, a definition or its *.test.yaml")
    };
    let folder = if path.is_dir() { path } else { definitions::folder_of(path) };
    if !path.exists() {
        return Err(missing(&format!("{}: no such file or folder", path.display())));
    }
    let read = definitions::read(&[folder.to_owned()]).map_err(|error| missing(&error))?;
    let wanted: Vec<&PathBuf> = read.scenarios.iter().filter(|file| path.is_dir() || belongs(file, path)).collect();
    for file in wanted {
        // A definition that is wrong is told with its own mistakes, not with those that follow in its scenarios.
        let errors = read.errors_of(&definitions::definition_of(file));
        if !errors.is_empty() {
            results.diagnostics.extend(errors);
            continue;
        }
        let text = match definitions::text_of(file) {
            Ok(text) => text,
            Err(reason) => {
                results.diagnostics.push(definitions::unreadable(file.display().to_string(), &reason));
                continue;
            }
        };
        match scenario::run_file(file, &text, &read.machines, filter) {
            Ok(outcomes) => results.outcomes.extend(outcomes),
            Err(mistakes) => results.diagnostics.extend(mistakes),
        }
    }
    Ok(())
}

/// `x.test.yaml` belongs to `x.yaml`, and to itself.
fn belongs(scenarios: &Path, path: &Path) -> bool {
    let same = |a: &Path, b: &Path| a.file_name() == b.file_name();
    same(scenarios, path) || same(&definitions::definition_of(scenarios), path)
}

fn tell(output: &Output, results: &Results) -> Result<(), Failure> {
    let failed = results.outcomes.iter().filter(|outcome| outcome.failure.is_some()).count();
    let passed = results.outcomes.len() - failed;
    match output.form {
        Form::Json | Form::Jsonl => {
            let document = api::Tested {
                format: api::Format,
                passed: passed as u64,
                failed: failed as u64 + results.diagnostics.len() as u64,
                scenarios: results.outcomes.iter().map(view).chain(results.diagnostics.iter().map(mistake)).collect(),
                coverage: Vec::new(),
            };
            output.rows(&document, &document.scenarios)?;
        }
        Form::Table | Form::Wide | Form::Id => {
            for outcome in &results.outcomes {
                let mark = if outcome.failure.is_some() { "FAILED" } else { "ok" };
                output.line(&format!("{mark:<6} {}/{}", outcome.saga, outcome.name))?;
            }
            for outcome in &results.outcomes {
                if let Some(what) = &outcome.failure {
                    let (line, column) = (outcome.place.line, outcome.place.column);
                    output.data(&format!(
                        "\n{}:{line}:{column}: {}/{}\n{what}",
                        outcome.file, outcome.saga, outcome.name
                    ))?;
                }
            }
            output.data(&crate::saga::diagnostic::render_all(&results.diagnostics, |_| None))?;
        }
    }
    let mistakes = match results.diagnostics.len() {
        0 => String::new(),
        n => format!(", {n} mistakes in files"),
    };
    output.say(&format!("{passed} passed, {failed} failed{mistakes}"));
    Ok(())
}

fn view(outcome: &scenario::Outcome) -> api::TestedScenario {
    api::TestedScenario {
        saga: outcome.saga.clone(),
        name: outcome.name.clone(),
        ok: outcome.failure.is_none(),
        file: outcome.file.clone(),
        line: outcome.place.line,
        what: outcome.failure.clone(),
        duration_ms: outcome.duration_ms,
    }
}

/// A file that cannot be run counts as a scenario that failed.
fn mistake(diagnostic: &Diagnostic) -> api::TestedScenario {
    api::TestedScenario {
        saga: String::new(),
        name: String::new(),
        ok: false,
        file: diagnostic.file.clone(),
        line: diagnostic.place.line,
        what: Some(format!("{}: {}; {}", diagnostic.code, diagnostic.message, diagnostic.hint)),
        duration_ms: 0,
    }
}
