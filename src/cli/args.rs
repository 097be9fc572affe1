//! Arguments that several verbs share: where the database is, how to print, which instances, who orders.

use std::io::Read;
use std::path::PathBuf;

use clap::Args;

use super::exit::Failure;
use super::output::{Form, Output};
use crate::config::{Config, Flags, Problem};
use crate::desk::{DeskError, Order, Select};
use crate::http::params;
use crate::saga::duration::Span;
use crate::saga::event::Verb;
use crate::saga::incident::IncidentKind;
use crate::saga::instance::Status;

/// A body or a list of ids from a file has at most this many bytes.
const INPUT_BYTES: u64 = 16 * 1024 * 1024;

#[derive(Args, Clone, Debug)]
pub struct Shared {
    /// The configuration file [default: $`SAGAD_CONFIG`, config/sagad.toml, /etc/sagad/sagad.toml]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Everywhere")]
    pub config: Option<PathBuf>,
    /// The database [default: store.path of the configuration, sagad.db]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Everywhere")]
    pub db: Option<PathBuf>,
    /// How to print
    #[arg(short, long, global = true, value_name = "FORM", value_enum, help_heading = "Everywhere")]
    pub output: Option<Form>,
    /// The same as --output json
    #[arg(long, global = true, conflicts_with = "output", help_heading = "Everywhere")]
    pub json: bool,
}

impl Shared {
    pub fn output(&self) -> Output {
        Output::new(if self.json { Form::Json } else { self.output.unwrap_or_default() })
    }

    pub fn flags(&self) -> Flags {
        Flags { config: self.config.clone(), db: self.db.clone(), ..Flags::default() }
    }

    pub fn load(&self) -> Result<Config, Failure> {
        load(&self.flags())
    }
}

/// The configuration, for a verb that cannot work without: every problem in one message.
pub fn load(flags: &Flags) -> Result<Config, Failure> {
    Config::load(flags, &environment()).map_err(|problems| {
        let lines: Vec<String> = problems.iter().map(problem_line).collect();
        Failure::new(super::exit::Exit::Configuration, format!("the configuration is wrong\n{}", lines.join("\n")))
    })
}

pub fn problem_line(problem: &Problem) -> String {
    let Problem { file, place, message, hint } = problem;
    format!("{file}:{}:{}: error[bad-configuration]: {message}\n  hint: {hint}", place.line, place.column)
}

pub fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// Which instances.
#[derive(Args, Clone, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "they are the flags of the selector, one for each")]
pub struct SelectArgs {
    /// An id, a prefix of one (8 characters or more), saga/key, or - for ids on stdin
    #[arg(value_name = "ID")]
    pub ids: Vec<String>,
    /// Of this saga
    #[arg(long, value_name = "NAME", help_heading = "Selector")]
    pub saga: Option<String>,
    /// With this key
    #[arg(long, value_name = "KEY", help_heading = "Selector")]
    pub key: Option<String>,
    /// running, compensating, completed, compensated, abandoned; several with commas
    #[arg(long, value_name = "STATUS", value_delimiter = ',', value_parser = status, help_heading = "Selector")]
    pub status: Vec<Status>,
    /// In this state
    #[arg(long, value_name = "STATE", help_heading = "Selector")]
    pub state: Option<String>,
    /// With an open incident of this kind
    #[arg(long, value_name = "KIND", value_parser = incident, help_heading = "Selector")]
    pub incident: Option<IncidentKind>,
    /// With an open incident whose error contains this
    #[arg(long, value_name = "TEXT", help_heading = "Selector")]
    pub error: Option<String>,
    /// With an open incident
    #[arg(long, help_heading = "Selector")]
    pub stuck: bool,
    /// Paused
    #[arg(long, help_heading = "Selector")]
    pub paused: bool,
    /// Ended, while something is still being taken back
    #[arg(long, help_heading = "Selector")]
    pub settling: bool,
    /// Started longer ago than this
    #[arg(long, value_name = "DURATION", value_parser = span, help_heading = "Selector")]
    pub older_than: Option<Span>,
    /// Stuck for longer than this
    #[arg(long, value_name = "DURATION", value_parser = span, help_heading = "Selector")]
    pub stuck_for: Option<Span>,
    /// All of them
    #[arg(long, help_heading = "Selector")]
    pub all: bool,
    /// At most so many, the newest
    #[arg(long, value_name = "N", help_heading = "Selector")]
    pub limit: Option<u64>,
}

impl SelectArgs {
    pub fn select(&self) -> Result<Select, Failure> {
        let mut ids = Vec::new();
        for id in &self.ids {
            if id == "-" {
                ids.extend(read_input("-")?.split_whitespace().map(str::to_owned));
            } else {
                ids.push(id.clone());
            }
        }
        let select = Select {
            ids,
            saga: self.saga.clone(),
            key: self.key.clone(),
            status: self.status.clone(),
            state: self.state.clone(),
            incident: self.incident,
            error: self.error.clone(),
            stuck: self.stuck,
            paused: self.paused,
            settling: self.settling,
            older_than: self.older_than,
            stuck_for: self.stuck_for,
            all: self.all,
            limit: self.limit,
        };
        if self.ids.iter().any(|id| id == "-") && select.ids.is_empty() {
            return Err(Failure::usage("no ids came on stdin"));
        }
        Ok(select)
    }
}

/// Of every verb that acts.
#[derive(Args, Clone, Debug)]
pub struct OrderArgs {
    /// Show what would happen, and which messages would go out; change nothing
    #[arg(long, help_heading = "Order")]
    pub dry_run: bool,
    /// Why, for the record
    #[arg(long, value_name = "TEXT", help_heading = "Order")]
    pub reason: Option<String>,
    /// Who orders it [default: the login name]
    #[arg(long, value_name = "NAME", help_heading = "Order")]
    pub by: Option<String>,
    /// Do not ask
    #[arg(long, help_heading = "Order")]
    pub yes: bool,
    /// Refuse (exit 4) if the instance has been moved since this turn
    #[arg(long, value_name = "N", help_heading = "Order")]
    pub expect_turn: Option<u64>,
    /// The same id twice acts once
    #[arg(long, value_name = "ID", help_heading = "Order")]
    pub request_id: Option<String>,
}

impl OrderArgs {
    pub fn order(&self, verb: Verb, select: Select) -> Order {
        Order {
            select,
            verb,
            by: self.by(),
            reason: self.reason.clone().filter(|reason| !reason.is_empty()),
            request_id: self.request_id.clone(),
            expect_turn: self.expect_turn,
            dry_run: self.dry_run,
        }
    }

    fn by(&self) -> String {
        self.by.clone().unwrap_or_else(login_name)
    }
}

/// Who is at the keyboard, as far as can be told.
pub fn login_name() -> String {
    ["LOGNAME", "USER"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|name| !name.is_empty()))
        .or_else(|| name_of_user(rustix::process::geteuid().as_raw()))
        .unwrap_or_else(|| format!("uid {}", rustix::process::geteuid().as_raw()))
}

/// A user's name in the password file: services and cron set no `LOGNAME`.
fn name_of_user(uid: u32) -> Option<String> {
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    let mut entries = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let found = entries.find(|fields| fields.get(2).is_some_and(|field| field.parse() == Ok(uid)))?;
    found.first().map(|name| (*name).to_owned())
}

/// A file's text, or what comes on stdin for `-`.
pub fn read_input(path: &str) -> Result<String, Failure> {
    let source: Box<dyn Read> = if path == "-" {
        Box::new(std::io::stdin())
    } else {
        let file = std::fs::File::open(path).map_err(|error| Failure::usage(format!("cannot read {path}: {error}")))?;
        Box::new(file)
    };
    let mut bytes = Vec::new();
    source
        .take(INPUT_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::usage(format!("cannot read {path}: {error}")))?;
    if bytes.len() as u64 > INPUT_BYTES {
        return Err(Failure::usage(format!("{path} has more than {} MiB", INPUT_BYTES / 1024 / 1024)));
    }
    String::from_utf8(bytes).map_err(|_| Failure::usage(format!("{path} is not UTF-8")))
}

/// A JSON body from a file.
pub fn read_body(path: &str) -> Result<serde_json::Value, Failure> {
    let text = read_input(path)?;
    serde_json::from_str(&text)
        .map_err(|error| Failure::usage(format!("{} is not JSON: {error}", if path == "-" { "stdin" } else { path })))
}

fn status(text: &str) -> Result<Status, String> {
    params::parse_status(text).map_err(|error| told(&error)).map(|status| status[0])
}

fn incident(text: &str) -> Result<IncidentKind, String> {
    params::parse_incident(text).map_err(|error| told(&error))
}

pub fn span(text: &str) -> Result<Span, String> {
    Span::parse(text).map_err(|error| error.to_string())
}

fn told(error: &DeskError) -> String {
    match error.hint() {
        Some(hint) => format!("{error}; {hint}"),
        None => error.to_string(),
    }
}
