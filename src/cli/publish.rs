//! `publish`: puts an event on the bus.

use serde_json::{Map, Value};

use super::args::{Shared, login_name, read_body};
use super::exit::{Exit, Failure, Outcome};
use super::reach::Reach;
use crate::desk::Publish;

#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  echo '{\"request_id\":\"r1\",\"user_id\":\"u1\",\"group_id\":\"g1\"}' | sagad publish JoinGroupRequested --body -
  sagad publish OrderCancelled --body order.json --id cancel-4711 --header tenant=blue")]
pub struct Args {
    /// The event's type
    #[arg(value_name = "EVENT")]
    event: String,
    /// Its body, JSON (- for stdin) [default: {}]
    #[arg(long, value_name = "FILE")]
    body: Option<String>,
    /// Its message id [default: a new one]
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Its correlation id
    #[arg(long, value_name = "ID")]
    correlation_id: Option<String>,
    /// Its source, the property `app_id`
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// A header; may be given several times
    #[arg(long = "header", value_name = "NAME=VALUE")]
    headers: Vec<String>,
    /// Who publishes it [default: the login name]
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

pub fn publish(shared: &Shared, args: &Args) -> Outcome {
    let output = shared.output();
    let mut headers = Map::new();
    for header in &args.headers {
        let (name, value) = header
            .split_once('=')
            .filter(|(name, _)| !name.is_empty())
            .ok_or_else(|| Failure::usage(format!("'{header}' is no header")).hint("write --header NAME=VALUE"))?;
        headers.insert(name.to_owned(), Value::String(value.to_owned()));
    }
    for (flag, value) in [("--id", &args.id), ("--correlation-id", &args.correlation_id), ("--source", &args.source)] {
        if value.as_ref().is_some_and(String::is_empty) {
            return Err(Failure::usage(format!("{flag} is empty")).hint("leave it out, or give a text"));
        }
    }
    let event = Publish {
        kind: args.event.clone(),
        id: args.id.clone(),
        correlation_id: args.correlation_id.clone(),
        source: args.source.clone(),
        headers,
        body: args.body.as_deref().map_or_else(|| Ok(Value::Object(Map::new())), read_body)?,
        by: args.by.clone().unwrap_or_else(login_name),
        reason: args.reason.clone(),
    };
    let published = Reach::for_publishing(shared.load()?)?.publish(event)?;
    if output.is_json() {
        output.document(&published)?;
    } else {
        output.data(&published.message_id)?;
    }
    Ok(Exit::Done)
}
