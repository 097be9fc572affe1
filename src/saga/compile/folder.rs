//! What is checked across the files of a folder.

use super::facts::Facts;
use super::{SourceFile, compile};
use crate::saga::diagnostic::{Problem, Severity};
use crate::saga::lint;
use crate::saga::machine::Machine;

pub(super) struct File<'a> {
    pub source: &'a SourceFile,
    pub machine: Option<Machine>,
    pub problems: Vec<Problem>,
    facts: Facts,
}

impl<'a> File<'a> {
    /// One file, with all checks that concern it alone.
    pub fn read(source: &'a SourceFile) -> File<'a> {
        let (mut machine, facts, mut problems) = compile(&source.text, &source.path);
        if let Some(machine) = &mut machine {
            lint::mark_pivot(machine, &facts);
            problems.extend(lint::check(machine, &facts, !has_errors(&problems)));
            problems.extend(lint::unsupported(machine));
            let stem = source.stem();
            if !machine.name.is_empty() && machine.name != stem {
                let message = format!("the saga is called `{}` and its file `{stem}.yaml`", machine.name);
                let hint = format!("call the saga `{stem}`, or the file `{}.yaml`", machine.name);
                problems.push(Problem::new("name-mismatch", facts.name, message, hint));
            }
        }
        File { source, machine, problems, facts }
    }

    fn name(&self) -> Option<&str> {
        // One that was reported already is no second mistake.
        let name = self.machine.as_ref().map(|machine| machine.name.as_str())?;
        (name == self.source.stem()).then_some(name)
    }
}

/// The same name twice, and an event that comes in from two different places.
pub(super) fn check_together(files: &mut [File<'_>]) {
    for later in 0..files.len() {
        let twin =
            (0..later).find(|earlier| files[later].name().is_some() && files[*earlier].name() == files[later].name());
        if let Some(earlier) = twin {
            let first = files[earlier].source.path.clone();
            let name = files[later].name().unwrap_or_default().to_owned();
            let message = format!("there is a saga `{name}` already, in {first}");
            let place = files[later].facts.name;
            files[later].problems.push(Problem::new(
                "duplicate-name",
                place,
                message,
                "give one of the two another name",
            ));
        }
    }
    check_origins(files);
    check_starts(files);
}

/// One event that starts two sagas: right where a `when` tells them apart, else hardly meant.
fn check_starts(files: &mut [File<'_>]) {
    let mut known: Vec<(String, Option<String>, String)> = Vec::new();
    for file in files {
        let Some(machine) = &file.machine else { continue };
        for (event, start) in &machine.starts {
            let when = start.when.as_ref().map(|when| when.source().to_owned());
            let apart = |other: &Option<String>| when.is_some() && other.is_some() && *other != when;
            // Two files of one name are told already.
            let clash =
                known.iter().find(|(other, rule, saga)| other == event && *saga != machine.name && !apart(rule));
            if let Some((_, _, saga)) = clash {
                let message = format!("`{event}` starts `{saga}` too, and no `when` tells the two apart");
                let hint = "give both a `when`, unless each such event is to start both";
                file.problems.push(Problem::warning("ambiguous-start", start.place, message, hint));
            }
            known.push((event.clone(), when, machine.name.clone()));
        }
    }
}

fn check_origins(files: &mut [File<'_>]) {
    let mut known: Vec<(String, String, String, String)> = Vec::new();
    for file in files {
        for (event, exchange, routing_key, place) in &file.facts.origins {
            let here = format!("{}:{}", file.source.path, place.line);
            match known.iter().find(|(other, ..)| other == event) {
                Some((_, other_exchange, other_key, there)) => {
                    if (other_exchange, other_key) != (exchange, routing_key) {
                        let message = format!("`{event}` comes from `{other_exchange}` with `{other_key}` in {there}");
                        let hint =
                            "an event comes in at one place: write the same `from` in both, or give one another type";
                        file.problems.push(Problem::new("from-conflict", *place, message, hint));
                    }
                }
                None => known.push((event.clone(), exchange.clone(), routing_key.clone(), here)),
            }
        }
    }
}

fn has_errors(problems: &[Problem]) -> bool {
    problems.iter().any(|problem| problem.severity == Severity::Error)
}
