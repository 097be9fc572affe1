//! `count`, `outbox`, `definitions`: what there is, in one table each.

use super::args::{SelectArgs, Shared};
use super::exit::{Exit, Outcome};
use super::output::{Cell, Form, Tone};
use super::reach::{Reach, told};
use crate::desk::{Look, View};
use crate::http::params;

#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  sagad count                                   by saga and status
  sagad count --by saga,state --status running
  sagad count --by incident --json")]
pub struct CountArgs {
    #[command(flatten)]
    select: SelectArgs,
    /// Any of saga, status, state, incident
    #[arg(long, value_name = "FIELDS", default_value = "saga,status")]
    by: String,
}

#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  sagad outbox
  sagad outbox --json")]
pub struct OutboxArgs {}

#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  sagad definitions
  sagad definitions --json")]
pub struct DefinitionsArgs {}

pub fn count(shared: &Shared, args: &CountArgs) -> Outcome {
    let output = shared.output();
    let by = params::parse_by(&args.by).map_err(|error| told(&error))?;
    let select = args.select.select()?;
    let View::Counts(counts) = Reach::open(shared.load()?)?.look(&Look::Count { select, by: by.clone() })? else {
        unreachable!("a count answers counts")
    };
    match output.form {
        Form::Json => output.document(&counts)?,
        Form::Jsonl => output.rows(&counts, &counts.groups)?,
        Form::Table | Form::Wide | Form::Id => {
            let mut headers: Vec<String> = by.iter().map(|by| by.name().to_uppercase()).collect();
            headers.push("COUNT".to_owned());
            let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
            let text = |value: Option<&serde_json::Value>| match value {
                None | Some(serde_json::Value::Null) => "-".to_owned(),
                Some(serde_json::Value::String(text)) => text.clone(),
                Some(other) => other.to_string(),
            };
            let rows = counts.groups.iter().map(|group| {
                let fields = by.iter().map(|by| Cell::from(text(group.get(by.name()))));
                fields.chain([Cell::from(text(group.get("count")))]).collect()
            });
            output.table(&headers, &rows.collect::<Vec<_>>())?;
        }
    }
    Ok(Exit::Done)
}

pub fn outbox(shared: &Shared, _args: &OutboxArgs) -> Outcome {
    let output = shared.output();
    let View::Outbox(outbox) = Reach::open(shared.load()?)?.look(&Look::Outbox)? else {
        unreachable!("an outbox answers messages")
    };
    match output.form {
        Form::Json => output.document(&outbox)?,
        Form::Jsonl => output.rows(&outbox, &outbox.messages)?,
        Form::Id => {
            output.ids(outbox.messages.iter().filter_map(|message| message.message_id.as_ref()))?;
        }
        Form::Table | Form::Wide => {
            if outbox.messages.is_empty() {
                output.say("nothing waits: the broker has everything");
            }
            let rows = outbox.messages.iter().map(|message| {
                vec![
                    Cell::from(output.relative(message.since.0)),
                    Cell::from(&message.kind),
                    Cell::from(&message.event),
                    Cell::from(format!("{}:{}", message.exchange, message.routing_key)),
                    Cell::from(message.tries.to_string()),
                    if message.returned { Cell::toned("returned", Tone::Bad) } else { Cell::from("") },
                    Cell::from(message.instance.clone().unwrap_or_default()),
                ]
            });
            output.table(&["SINCE", "KIND", "TYPE", "TO", "TRIES", "", "INSTANCE"], &rows.collect::<Vec<_>>())?;
        }
    }
    Ok(Exit::Done)
}

pub fn definitions(shared: &Shared, _args: &DefinitionsArgs) -> Outcome {
    let output = shared.output();
    let View::Definitions(found) = Reach::open(shared.load()?)?.look(&Look::Definitions)? else {
        unreachable!("definitions answer definitions")
    };
    match output.form {
        Form::Json => output.document(&found)?,
        Form::Jsonl => output.rows(&found, &found.definitions)?,
        Form::Id => {
            output.ids(found.definitions.iter().map(|row| &row.digest))?;
        }
        Form::Table | Form::Wide => {
            let wide = output.form == Form::Wide;
            let rows = found.definitions.iter().map(|row| {
                vec![
                    Cell::from(&row.saga),
                    Cell::from(if wide { row.digest.as_str() } else { &row.digest[..row.digest.len().min(12)] }),
                    if row.newest { Cell::toned("newest", Tone::Good) } else { Cell::from("") },
                    Cell::from(row.live.to_string()),
                    Cell::from(row.ended.to_string()),
                    Cell::from(output.relative(row.loaded_at.0)),
                ]
            });
            output.table(&["SAGA", "DIGEST", "", "LIVE", "ENDED", "LOADED"], &rows.collect::<Vec<_>>())?;
        }
    }
    Ok(Exit::Done)
}
