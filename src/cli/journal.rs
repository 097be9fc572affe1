//! `journal`: the turns of an instance, and the replay that proves them.

use std::time::Duration;

use super::args::{SelectArgs, Shared};
use super::exit::{Exit, Failure, Outcome};
use super::output::{Cell, Form, Output, Tone};
use super::reach::Reach;
use crate::api;
use crate::desk::{Look, View};

/// Turns of one read.
const PAGE: u64 = 1_000;
const FOLLOW_EVERY: Duration = Duration::from_millis(500);

#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  sagad journal join-group/r1
  sagad journal join-group/r1 --reverse --json
  sagad journal --verify --saga join-group        replay every journal of a saga (exit 9 if one does not hold)")]
pub struct Args {
    #[command(flatten)]
    select: SelectArgs,
    /// The newest turn first
    #[arg(long, conflicts_with_all = ["verify", "follow"])]
    reverse: bool,
    /// Wait for further turns and show them as they come
    #[arg(long, conflicts_with = "verify")]
    follow: bool,
    /// Replay the turns and compare; takes a selector
    #[arg(long)]
    verify: bool,
}

pub fn journal(shared: &Shared, args: &Args) -> Outcome {
    let output = shared.output();
    let select = args.select.select()?;
    if args.verify {
        if select.is_empty() {
            return Err(Failure::usage("--verify needs to know which journals").hint("give ids, a selector, or --all"));
        }
        let View::Verified(verified) = Reach::open(shared.load()?)?.look(&Look::Verify { select })? else {
            unreachable!("a replay answers what it found")
        };
        return told(&output, &verified);
    }
    let [id] = select.ids.as_slice() else {
        return Err(Failure::usage("journal shows one instance").hint("give one ID; a selector goes with --verify"));
    };
    let mut reach = Reach::open(shared.load()?)?;
    turns(&mut reach, &output, args, id, select.limit)
}

fn turns(reach: &mut Reach, output: &Output, args: &Args, id: &str, limit: Option<u64>) -> Outcome {
    let mut after = None;
    let mut all = Vec::new();
    let mut left = limit.unwrap_or(u64::MAX);
    let mut titled = false;
    loop {
        let page = left.min(PAGE);
        let look = Look::Journal { id: id.to_owned(), reverse: args.reverse, after, limit: Some(page) };
        let View::Turns(found) = reach.look(&look)? else { unreachable!("a journal answers turns") };
        after = found.turns.last().map(|turn| turn.turn).or(after);
        let complete = (found.turns.len() as u64) < page;
        left = left.saturating_sub(found.turns.len() as u64);
        match output.form {
            Form::Jsonl => output.rows(&(), &found.turns)?,
            _ if !args.follow => all.extend(found.turns),
            Form::Json => output.document(&found)?,
            Form::Table | Form::Wide | Form::Id => {
                table(output, &found.turns, !titled)?;
                titled |= !found.turns.is_empty();
            }
        }
        if left == 0 || (complete && !args.follow) {
            break;
        }
        if complete {
            std::thread::sleep(FOLLOW_EVERY);
        }
    }
    if !args.follow {
        match output.form {
            Form::Json => output.document(&api::Turns { format: api::Format, turns: all })?,
            Form::Jsonl => {}
            Form::Table | Form::Wide | Form::Id => table(output, &all, true)?,
        }
    }
    Ok(Exit::Done)
}

fn table(output: &Output, turns: &[api::Turn], titles: bool) -> Result<(), Failure> {
    let wide = output.form == Form::Wide;
    let rows = turns.iter().map(|turn| {
        let mut row = vec![
            Cell::from(turn.turn.to_string()),
            Cell::from(if wide { turn.at.0.to_string() } else { output.relative(turn.at.0) }),
            Cell::from(cause(&turn.cause)),
            Cell::from(way(turn)),
            Cell::from(turn.messages.iter().map(|message| message.event.as_str()).collect::<Vec<_>>().join(", ")),
            Cell::toned(turn.notes.join("; "), Tone::Dim),
        ];
        if wide {
            row.push(Cell::from(turn.changed.join(", ")));
        }
        row
    });
    let mut headers = vec!["TURN", "AT", "CAUSE", "STATE", "OUT", "NOTES"];
    if wide {
        headers.push("CHANGED");
    }
    let rows: Vec<_> = rows.collect();
    if titles { output.table(&headers, &rows) } else { output.table(&vec![""; headers.len()], &rows) }
}

/// `reserve-slot → acquire-membership`; the status too where it changes.
fn way(turn: &api::Turn) -> String {
    let to = &turn.to;
    match &turn.from {
        None => to.state.clone(),
        Some(from) if from == to => to.state.clone(),
        Some(from) if from.status == to.status => format!("{} → {}", from.state, to.state),
        Some(from) if from.state == to.state => format!("{} ({})", to.state, to.status),
        Some(from) => format!("{} → {} ({})", from.state, to.state, to.status),
    }
}

fn cause(cause: &api::Cause) -> String {
    let mut text = cause.kind.clone();
    for part in [&cause.event, &cause.timer, &cause.verb].into_iter().flatten() {
        text.push(' ');
        text.push_str(part);
    }
    if let Some(by) = &cause.by {
        text.push_str(" by ");
        text.push_str(by);
    }
    if let Some(reason) = &cause.reason {
        text.push_str(" (");
        text.push_str(reason);
        text.push(')');
    }
    text
}

fn told(output: &Output, verified: &api::Verified) -> Outcome {
    match output.form {
        Form::Json => output.document(verified)?,
        Form::Jsonl => output.rows(verified, &verified.broken)?,
        Form::Id => output.ids(verified.broken.iter().map(|row| &row.id))?,
        Form::Table | Form::Wide => {
            let rows = verified.broken.iter().map(|row| {
                let turn = row.turn.map_or_else(String::new, |turn| turn.to_string());
                vec![Cell::from(&row.id), Cell::from(turn), Cell::toned(&row.what, Tone::Bad)]
            });
            output.table(&["ID", "TURN", "WHAT"], &rows.collect::<Vec<_>>())?;
            let other = match verified.other_version {
                0 => String::new(),
                n => format!(", of them {n} with turns of another version, whose chain alone is checked"),
            };
            output.line(&format!("{} checked{other}, {} broken", verified.checked, verified.broken.len()))?;
        }
    }
    Ok(if verified.broken.is_empty() { Exit::Done } else { Exit::Found })
}
