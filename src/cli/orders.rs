//! `retry`, `compensate`, `resolve`: orders for one instance.

use serde_json::Value;

use super::args::{OrderArgs, SelectArgs, Shared, read_body};
use super::exit::{Exit, Failure, Outcome};
use super::output::{Cell, Form, Output, Tone};
use super::reach::{Reach, told};
use crate::api;
use crate::desk::{Order, Select};
use crate::http::params;
use crate::saga::event::Verb;

#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  sagad retry join-group/r1 --reason 'the queue is bound now'
  sagad retry transfer/t7 --step mark-patient --dry-run")]
pub struct RetryArgs {
    #[command(flatten)]
    select: SelectArgs,
    /// Which of several steps, as show names it
    #[arg(long, value_name = "STEP")]
    step: Option<String>,
    #[command(flatten)]
    order: OrderArgs,
}

#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  sagad compensate join-group/r1 --reason 'asked by the customer'
  sagad compensate 0192f1c2 --dry-run --json")]
pub struct CompensateArgs {
    #[command(flatten)]
    select: SelectArgs,
    #[command(flatten)]
    order: OrderArgs,
}

#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  sagad resolve join-group/r1 --step reserve-slot --as refused --reason 'not in their database'
  sagad resolve join-group/r1 --step reserve-slot --as done --with reply.json")]
pub struct ResolveArgs {
    /// An id, a prefix of one (8 characters or more), or saga/key
    #[arg(value_name = "ID")]
    id: String,
    /// The step, as show names it
    #[arg(long, value_name = "STEP")]
    step: String,
    /// What a person found out
    #[arg(long = "as", value_name = "WHAT", value_parser = ["done", "refused", "undone"])]
    verdict: String,
    /// The reply's body, JSON, for --as done (- for stdin)
    #[arg(long, value_name = "FILE")]
    with: Option<String>,
    #[command(flatten)]
    order: OrderArgs,
}

pub fn retry(shared: &Shared, args: &RetryArgs) -> Outcome {
    let order = args.order.order(Verb::Retry { step: args.step.clone() }, args.select.select()?);
    carry_out(shared, &order)
}

pub fn compensate(shared: &Shared, args: &CompensateArgs) -> Outcome {
    carry_out(shared, &args.order.order(Verb::Compensate, args.select.select()?))
}

pub fn resolve(shared: &Shared, args: &ResolveArgs) -> Outcome {
    let with: Option<Value> = args.with.as_deref().map(read_body).transpose()?;
    let verb = params::resolve(args.step.clone(), &args.verdict, with).map_err(|error| told(&error))?;
    carry_out(shared, &args.order.order(verb, Select::one(&args.id)))
}

fn carry_out(shared: &Shared, order: &Order) -> Outcome {
    let output = shared.output();
    let mut reach = Reach::open(shared.load()?)?;
    let orders = reach.order(order)?;
    match output.form {
        Form::Json => output.document(&orders)?,
        Form::Jsonl => output.rows(&orders, &orders.results)?,
        Form::Id => {
            output.ids(orders.results.iter().filter(|result| result.ok).map(|result| &result.id))?;
        }
        Form::Table | Form::Wide => table(&output, &orders)?,
    }
    let refused = orders.results.iter().find_map(|result| result.error.as_ref().map(|error| (result, error)));
    match refused {
        None => Ok(Exit::Done),
        Some((result, error)) => {
            let exit = match error.code.as_str() {
                "usage" => Exit::Usage,
                "not-found" => Exit::NotFound,
                _ => Exit::Conflict,
            };
            Err(Failure::new(exit, format!("{}/{}: {}", result.saga, result.key, error.message))
                .hint(format!("sagad show {} says what may be done now", result.id)))
        }
    }
}

fn table(output: &Output, orders: &api::Orders) -> Result<(), Failure> {
    let place = |position: &Option<api::Position>| {
        position.as_ref().map_or_else(String::new, |at| format!("{} in {}", at.status, at.state))
    };
    for result in orders.results.iter().filter(|result| result.ok) {
        let would = if orders.dry_run { "would be" } else { "is" };
        output.line(&format!(
            "{}/{} was {}, {would} {}",
            result.saga,
            result.key,
            place(&result.from),
            place(&result.to)
        ))?;
        let rows = result.messages.iter().map(|message| {
            vec![
                Cell::from(&message.kind),
                Cell::from(&message.event),
                Cell::from(format!("{}:{}", message.exchange, message.routing_key)),
                Cell::toned(message.message_id.clone().unwrap_or_default(), Tone::Dim),
                Cell::from(message.body.to_string()),
            ]
        });
        output.table(&["OUT", "TYPE", "TO", "MESSAGE", "BODY"], &rows.collect::<Vec<_>>())?;
    }
    Ok(())
}
