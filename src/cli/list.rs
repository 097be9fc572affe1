//! `list`: instances by selector, read in pages.

use std::time::Duration;

use super::args::{SelectArgs, Shared};
use super::exit::{Exit, Failure, Outcome};
use super::output::{Cell, Form, Output, Tone};
use super::reach::Reach;
use crate::api;
use crate::desk::{Look, Select, View};

/// Instances of one read: large enough to be quick, small enough to hold nobody up.
const PAGE: u64 = 1_000;
/// As much of an id as is unique in a database: its first 8 bytes.
const UNIQUE_ID_CHARACTERS: usize = 18;
const WATCH_EVERY: Duration = Duration::from_secs(2);

#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  sagad list                                   all of them, ended ones too
  sagad list --saga join-group --status running,compensating
  sagad list --stuck -o id | sagad list - -o wide
  sagad list --limit 20 --json")]
pub struct Args {
    #[command(flatten)]
    select: SelectArgs,
    /// Show the list again and again
    #[arg(long)]
    watch: bool,
}

pub fn list(shared: &Shared, args: &Args) -> Outcome {
    let output = shared.output();
    let select = args.select.select()?;
    let mut reach = Reach::open(shared.load()?)?;
    if !args.watch {
        show(&mut reach, &output, &select)?;
        return Ok(Exit::Done);
    }
    if !matches!(output.form, Form::Table | Form::Wide) {
        return Err(Failure::usage("--watch shows a table").hint("leave out --watch, or --json"));
    }
    loop {
        output.clear()?;
        show(&mut reach, &shared.output(), &select)?;
        std::thread::sleep(WATCH_EVERY);
    }
}

fn show(reach: &mut Reach, output: &Output, select: &Select) -> Result<(), Failure> {
    let mut all = Vec::new();
    let mut after = None;
    let mut left = select.limit.unwrap_or(u64::MAX);
    while left > 0 {
        let page = Select { limit: Some(left.min(PAGE)), ..select.clone() };
        let View::Instances(found) = reach.look(&Look::List { select: page, after: after.take() })? else {
            unreachable!("a list answers a list")
        };
        left = left.saturating_sub(found.instances.len() as u64);
        match output.form {
            Form::Jsonl => output.rows(&(), &found.instances)?,
            Form::Id => output.ids(found.instances.iter().map(|row| &row.id))?,
            Form::Table | Form::Wide | Form::Json => all.extend(found.instances),
        }
        after = found.next;
        if after.is_none() {
            break;
        }
    }
    match output.form {
        Form::Json => output.document(&api::Instances { format: api::Format, instances: all, next: None }),
        Form::Table | Form::Wide => table(output, &all),
        Form::Jsonl | Form::Id => Ok(()),
    }
}

fn table(output: &Output, instances: &[api::Instance]) -> Result<(), Failure> {
    if instances.is_empty() {
        output.say("no instances");
        return Ok(());
    }
    let wide = output.form == Form::Wide;
    let mut headers = vec!["ID", "SAGA", "KEY", "STATUS", "STATE", "MARKS", "STARTED", "MOVED"];
    if wide {
        headers.extend(["ENDED", "TURN", "OUTCOME", "DEFINITION"]);
    }
    let rows = instances.iter().map(|instance| {
        let mut row = vec![
            Cell::from(if wide {
                instance.id.as_str()
            } else {
                &instance.id[..instance.id.len().min(UNIQUE_ID_CHARACTERS)]
            }),
            Cell::from(&instance.saga),
            Cell::from(&instance.key),
            status_cell(&instance.status),
            Cell::from(&instance.state),
            marks(instance.stuck, instance.paused, instance.settling, instance.incident.as_deref()),
            Cell::from(output.relative(instance.started_at.0)),
            Cell::from(output.relative(instance.updated_at.0)),
        ];
        if wide {
            row.push(Cell::from(instance.ended_at.map_or_else(String::new, |at| output.relative(at.0))));
            row.push(Cell::from(instance.turn.to_string()));
            row.push(Cell::from(instance.outcome.clone().unwrap_or_default()));
            row.push(Cell::from(&instance.definition[..instance.definition.len().min(12)]));
        }
        row
    });
    output.table(&headers, &rows.collect::<Vec<_>>())
}

pub fn status_cell(status: &str) -> Cell {
    Cell::toned(
        status,
        match status {
            "completed" => Tone::Good,
            "compensated" | "abandoned" => Tone::Dim,
            _ => Tone::Plain,
        },
    )
}

fn marks(stuck: bool, paused: bool, settling: bool, incident: Option<&str>) -> Cell {
    let mut marks = Vec::new();
    if stuck {
        marks.push(incident.map_or_else(|| "stuck".to_owned(), |kind| format!("stuck: {kind}")));
    }
    if paused {
        marks.push("paused".to_owned());
    }
    if settling {
        marks.push("settling".to_owned());
    }
    Cell::toned(marks.join(", "), if stuck { Tone::Bad } else { Tone::Plain })
}
