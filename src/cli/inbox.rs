//! `inbox`: messages that found nobody, or could not be read.

use super::args::{Shared, span};
use super::exit::{Exit, Failure, Outcome};
use super::output::{Cell, Form, Output};
use super::reach::Reach;
use crate::api;
use crate::desk::{InboxLook, Look, View};
use crate::saga::duration::Span;

#[derive(clap::Args, Debug)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  sagad inbox                            all that was set aside, the newest first
  sagad inbox --dead --reason not-json
  sagad inbox show 17                    one message, whole"
)]
pub struct Args {
    #[command(subcommand)]
    what: Option<What>,
    /// Messages that found no instance, or none that waits
    #[arg(long)]
    unmatched: bool,
    /// Messages that could not be read, and what passed the delivery limit
    #[arg(long)]
    dead: bool,
    /// Set aside for this reason (not-json, no-instance, ended, …)
    #[arg(long, value_name = "REASON")]
    reason: Option<String>,
    /// Of this type
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// Set aside longer ago than this
    #[arg(long, value_name = "DURATION", value_parser = span)]
    older_than: Option<Span>,
    /// At most so many
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// One message, whole
    #[command(after_help = "Examples:\n  sagad inbox show 17 --json")]
    Show {
        /// The number that the list shows
        #[arg(value_name = "N")]
        n: i64,
    },
}

pub fn inbox(shared: &Shared, args: &Args) -> Outcome {
    let output = shared.output();
    let look = InboxLook {
        n: args.what.as_ref().map(|What::Show { n }| *n),
        unmatched: args.unmatched,
        dead: args.dead,
        reason: args.reason.clone(),
        kind: args.kind.clone(),
        older_than: args.older_than,
        limit: args.limit,
    };
    let one = look.n.is_some();
    let View::Inbox(inbox) = Reach::open(shared.load()?)?.look(&Look::Inbox(look))? else {
        unreachable!("an inbox answers messages")
    };
    match output.form {
        Form::Json => output.document(&inbox)?,
        Form::Jsonl => output.rows(&inbox, &inbox.messages)?,
        Form::Id => output.ids(inbox.messages.iter().map(|row| row.n))?,
        Form::Table | Form::Wide if one => inbox.messages.iter().try_for_each(|message| whole(&output, message))?,
        Form::Table | Form::Wide => table(&output, &inbox.messages)?,
    }
    Ok(Exit::Done)
}

fn table(output: &Output, messages: &[api::InboxMessage]) -> Result<(), Failure> {
    if messages.is_empty() {
        output.say("nothing was set aside");
    }
    let rows = messages.iter().map(|message| {
        let body = message.body.clone().unwrap_or_else(|| "(not text)".to_owned());
        vec![
            Cell::from(message.n.to_string()),
            Cell::from(output.relative(message.received_at.0)),
            Cell::from(&message.kind),
            Cell::from(&message.reason),
            Cell::from(message.event.clone().unwrap_or_default()),
            Cell::from(message.message_id.clone().unwrap_or_default()),
            Cell::from(message.correlation_id.clone().unwrap_or_default()),
            Cell::from(body),
        ]
    });
    output.table(
        &["N", "RECEIVED", "KIND", "REASON", "TYPE", "MESSAGE", "CORRELATION", "BODY"],
        &rows.collect::<Vec<_>>(),
    )
}

fn whole(output: &Output, message: &api::InboxMessage) -> Result<(), Failure> {
    let nothing = String::new;
    output.line(&format!("message {}  {}, {}", message.n, message.kind, message.reason))?;
    for (name, value) in [
        ("type", message.event.clone().unwrap_or_else(nothing)),
        ("message id", message.message_id.clone().unwrap_or_else(nothing)),
        ("source", message.source.clone().unwrap_or_else(nothing)),
        ("correlation", message.correlation_id.clone().unwrap_or_else(nothing)),
        ("routing key", message.routing_key.clone().unwrap_or_else(nothing)),
        ("received", message.received_at.0.to_string()),
    ] {
        if !value.is_empty() {
            output.line(&format!("{name:<12} {value}"))?;
        }
    }
    for (name, value) in &message.headers {
        output.line(&format!("{:<12} {name}: {value}", "header"))?;
    }
    for near in &message.near {
        output.line(&format!("{:<12} {} ({})", "near", near.id, near.why))?;
    }
    output.data("\n")?;
    match (&message.body, &message.body_base64) {
        (Some(body), _) => output.data(body),
        (None, Some(encoded)) => output.data(encoded),
        (None, None) => Ok(()),
    }
}
