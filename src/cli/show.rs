//! `show` and `why`: one instance, on one screen or in one paragraph.

use super::args::Shared;
use super::exit::{Exit, Failure, Outcome};
use super::list::status_cell;
use super::output::{Cell, Form, Output, Tone};
use super::reach::Reach;
use crate::api;
use crate::desk::{Look, View};

#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  sagad show join-group/r1              by saga and key, the newest with that key
  sagad show 0192f1c2                   by a unique prefix of its id
  sagad show join-group/r1 --json")]
pub struct Args {
    /// An id, a prefix of one (8 characters or more), or saga/key
    #[arg(value_name = "ID")]
    id: String,
}

#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  sagad why join-group/r1
  sagad why 0192f1c2 --json")]
pub struct WhyArgs {
    /// An id, a prefix of one (8 characters or more), or saga/key
    #[arg(value_name = "ID")]
    id: String,
}

pub fn show(shared: &Shared, args: &Args) -> Outcome {
    let output = shared.output();
    let mut reach = Reach::open(shared.load()?)?;
    let View::Detail(detail) = reach.look(&Look::Show { id: args.id.clone() })? else {
        unreachable!("show answers an instance")
    };
    match output.form {
        Form::Json | Form::Jsonl => output.document(&detail)?,
        Form::Id => output.data(&detail.id)?,
        Form::Table | Form::Wide => screen(&output, &detail)?,
    }
    Ok(Exit::Done)
}

pub fn why(shared: &Shared, args: &WhyArgs) -> Outcome {
    let output = shared.output();
    let mut reach = Reach::open(shared.load()?)?;
    let View::Why(why) = reach.look(&Look::Why { id: args.id.clone() })? else { unreachable!("why answers a reason") };
    match output.form {
        Form::Json | Form::Jsonl => output.document(&why)?,
        Form::Id => output.data(&why.id)?,
        Form::Table | Form::Wide => {
            output.paragraph(0, &why.why)?;
            for near in &why.near {
                output.paragraph(0, &format!("Near miss: message {} ({}).", near.message, near.why))?;
            }
        }
    }
    Ok(Exit::Done)
}

fn screen(output: &Output, detail: &api::Detail) -> Result<(), Failure> {
    let mut marks = String::new();
    for (mark, set) in [("stuck", detail.stuck), ("paused", detail.paused), ("settling", detail.settling)] {
        if set {
            marks.push_str(", ");
            marks.push_str(mark);
        }
    }
    output.line(&format!("{}/{}  {} in {}{marks}", detail.saga, detail.key, detail.status, detail.state))?;
    let ended = detail.ended_at.map_or_else(String::new, |at| format!(", ended {}", output.relative(at.0)));
    output.line(&format!(
        "{}  turn {}, started {}, moved {}{ended}",
        detail.id,
        detail.turn,
        output.relative(detail.started_at.0),
        output.relative(detail.updated_at.0)
    ))?;
    output.line(&format!("definition {}", detail.definition))?;
    if let Some(outcome) = &detail.outcome {
        output.line(&format!("outcome {outcome}"))?;
    }
    if let Some(failure) = &detail.failure {
        output.line(&format!("failure {} in {}: {}", failure.kind, failure.state, failure.reason))?;
    }
    output.data("\n")?;
    output.paragraph(2, &detail.why)?;
    steps(output, &detail.steps)?;
    if !detail.timers.is_empty() {
        output.data("\n")?;
        let rows = detail.timers.iter().map(|timer| vec![Cell::from(&timer.name), due(output, timer.due_at)]);
        output.table(&["TIMER", "DUE"], &rows.collect::<Vec<_>>())?;
    }
    incidents(output, &detail.incidents)?;
    output.data("\n")?;
    output.line(&format!("data  {}", detail.data))?;
    if !detail.may.is_empty() {
        output.line(&format!("may   {}", detail.may.join(", ")))?;
    }
    Ok(())
}

fn steps(output: &Output, steps: &[api::Step]) -> Result<(), Failure> {
    if steps.is_empty() {
        return Ok(());
    }
    output.data("\n")?;
    let mut rows = Vec::new();
    for step in steps {
        let attempts = step.attempts.map_or_else(|| "∞".to_owned(), |attempts| attempts.to_string());
        rows.push(vec![
            Cell::from(&step.name),
            effect(&step.effect),
            Cell::from(step.command.clone().unwrap_or_default()),
            Cell::from(format!("{}/{attempts}", step.attempt)),
            Cell::from(output.relative(step.sent_at.0)),
            next(output, step.next_at),
        ]);
        if let Some(undo) = &step.undo {
            rows.push(vec![
                Cell::from("  undo"),
                effect(&undo.effect),
                Cell::from(undo.command.clone().unwrap_or_default()),
                Cell::from(undo.attempt.to_string()),
                Cell::from(""),
                next(output, undo.next_at),
            ]);
        }
    }
    output.table(&["STEP", "EFFECT", "COMMAND", "ATTEMPT", "SENT", "NEXT"], &rows)
}

fn incidents(output: &Output, incidents: &[api::Incident]) -> Result<(), Failure> {
    if incidents.is_empty() {
        return Ok(());
    }
    output.data("\n")?;
    let rows = incidents.iter().map(|incident| {
        let state = match incident.closed_at {
            Some(at) => Cell::toned(format!("closed {}", output.relative(at.0)), Tone::Dim),
            None => Cell::toned("open", Tone::Bad),
        };
        let source = incident.source.as_ref();
        vec![
            Cell::from(&incident.kind),
            state,
            Cell::from(incident.step.as_ref().unwrap_or(&incident.state)),
            Cell::from(output.relative(incident.opened_at.0)),
            Cell::from(&incident.error),
            Cell::from(source.map_or_else(String::new, |at| format!("{}:{}:{}", at.file, at.line, at.column))),
        ]
    });
    output.table(&["INCIDENT", "", "WHERE", "OPENED", "ERROR", "SOURCE"], &rows.collect::<Vec<_>>())
}

fn effect(effect: &str) -> Cell {
    match effect {
        "in-doubt" | "failed" => Cell::toned(effect, Tone::Bad),
        "done" => Cell::toned(effect, Tone::Good),
        _ => status_cell(effect),
    }
}

fn next(output: &Output, at: Option<api::Time>) -> Cell {
    Cell::from(at.map_or_else(String::new, |at| output.relative(at.0)))
}

fn due(output: &Output, at: Option<api::Time>) -> Cell {
    Cell::from(at.map_or_else(|| "not running".to_owned(), |at| output.relative(at.0)))
}
