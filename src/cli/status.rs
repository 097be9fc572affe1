//! `status`: daemon, broker, backlog, counts; `--check` for scripts.

use super::args::Shared;
use super::exit::{Exit, Failure, Outcome};
use super::output::{Form, Output};
use super::reach::Reach;
use crate::api;
use crate::desk::{Look, View};

#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  sagad status
  sagad status --check || echo something is stuck       exit 10 if anything is stuck
  sagad status --json")]
pub struct Args {
    /// Exit 10 if anything is stuck
    #[arg(long)]
    check: bool,
}

pub fn status(shared: &Shared, args: &Args) -> Outcome {
    let output = shared.output();
    let View::Status(status) = Reach::open(shared.load()?)?.look(&Look::Status)? else {
        unreachable!("a status answers a status")
    };
    match output.form {
        Form::Json | Form::Jsonl => output.document(&status)?,
        Form::Table | Form::Wide | Form::Id => screen(&output, &status)?,
    }
    Ok(if args.check && status.stuck > 0 { Exit::Stuck } else { Exit::Done })
}

fn screen(output: &Output, status: &api::Status) -> Result<(), Failure> {
    let field = |name: &str, value: String| output.line(&format!("{name:<12} {value}"));
    field(
        "daemon",
        match &status.daemon {
            None => "none runs".to_owned(),
            Some(daemon) => {
                let since = daemon.since.map_or_else(String::new, |at| format!(", started {}", output.relative(at.0)));
                format!("pid {}, version {}{since}", daemon.pid, daemon.version)
            }
        },
    )?;
    if status.daemon.is_some() {
        field("broker", broker(output, &status.broker))?;
    }
    for finding in &status.broker.findings {
        field("", finding.clone())?;
    }
    if let Some(dead) = status.broker.dead.filter(|dead| *dead > 0) {
        field("", format!("{dead} messages in the dead queue that cannot be read"))?;
    }
    field("outbox", format!("{} messages that the broker does not have yet", status.outbox))?;
    let counts: Vec<String> = status.counts.iter().map(|(status, n)| format!("{n} {status}")).collect();
    field("instances", if counts.is_empty() { "none".to_owned() } else { counts.join(", ") })?;
    let oldest =
        status.oldest_stuck_at.map_or_else(String::new, |at| format!(", the oldest {}", output.relative(at.0)));
    field("stuck", format!("{}{oldest}", status.stuck))?;
    if status.paused > 0 {
        field("paused", status.paused.to_string())?;
    }
    if status.settling > 0 {
        field("settling", status.settling.to_string())?;
    }
    if status.foreign > 0 {
        field("foreign", format!("{} messages of another daemon's sagas", status.foreign))?;
    }
    if status.dropped > 0 {
        field("dropped", format!("{} messages set aside beyond the limit", status.dropped))?;
    }
    let database = &status.database;
    field(
        "database",
        format!("{}, {}, {} not yet checkpointed", database.path, size(database.bytes), size(database.wal_bytes)),
    )?;
    if status.daemon.is_some() {
        field("definitions", format!("{} loaded", status.definitions.loaded))?;
    }
    if let Some(error) = &status.definitions.error {
        field("", format!("the last reload failed: {error}"))?;
    }
    Ok(())
}

fn broker(output: &Output, broker: &api::Broker) -> String {
    let since = broker.since.map_or_else(String::new, |at| format!(" since {}", output.relative(at.0)));
    let mut text = if broker.connected { format!("connected{since}") } else { format!("away{since}") };
    if broker.blocked {
        text.push_str(", blocks publishers");
    }
    if let Some(error) = &broker.error {
        text.push_str(": ");
        text.push_str(error);
    }
    text
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{} KiB", bytes / 1024),
        _ => format!("{} MiB", bytes / 1024 / 1024),
    }
}
