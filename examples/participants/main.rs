//! The demo's participants over a real broker, in a process of their own, and a load generator for them.
//!
//! `serve` answers the commands of `join-group` and `allocate-cell` and can be told to misbehave; on a line `report` on
//! stdin it prints what it holds, saw and found as one line of JSON on stdout. It stops when stdin ends.
//! `load` publishes requests, each exactly as often as it takes until the broker has it.
//!
//! Both come back for ever to a broker that is killed and started again. What a participant means is in `sagad::demo`;
//! here is only how messages come and go. State is kept in memory, so that a run that was killed starts from nothing.

mod broker;
mod load;
mod seen;
mod serve;

use std::num::NonZeroU32;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use sagad::demo::faults::{Fault, Faults, Silence};
use sagad::demo::participants::Participants;
use sagad::demo::requests::{Saga, Town};

#[derive(Parser)]
#[command(about = "Participants of the shipped sagas over AMQP, and requests for them")]
struct Arguments {
    #[command(subcommand)]
    mode: Mode,
}

#[derive(Subcommand)]
enum Mode {
    /// Answer commands until stdin ends.
    Serve(Serve),
    /// Publish requests until the broker has all of them.
    Load(Load),
}

#[derive(Args)]
struct Common {
    #[arg(long, default_value = "amqp://127.0.0.1:5672")]
    amqp_url: String,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// For how many requests of each saga the limits are made: about a third of them fails.
    #[arg(long, default_value_t = 200)]
    requests: usize,
    #[arg(long)]
    groups: Option<usize>,
    #[arg(long)]
    users: Option<usize>,
    #[arg(long)]
    cells: Option<usize>,
    #[arg(long)]
    detainees: Option<usize>,
}

#[derive(Args)]
struct Serve {
    #[command(flatten)]
    common: Common,
    #[arg(long)]
    group_limit: Option<usize>,
    #[arg(long)]
    user_limit: Option<usize>,
    #[arg(long)]
    cell_capacity: Option<usize>,
    /// Misbehave by chance: silent, refusing, slow, late, twice, out of order.
    #[arg(long)]
    faults: bool,
    /// With `--faults`: every command is answered in the end, so that no step waits out its time limit.
    #[arg(long)]
    never_silent: bool,
    /// With `--faults`: how late at most.
    #[arg(long, default_value_t = 5_000)]
    longest_ms: u64,
    /// Misbehave with every such command: `users.AcquireMembership=late:5000`; also `slow:MS`, `twice:MS`,
    /// `silent:TIMES`, `refuse`.
    #[arg(long, value_parser = misbehaviour)]
    misbehave: Vec<(String, Fault)>,
    /// Which participants to be, where another process is the others: `groups,cells`. Left out: all of them.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Where answers go.
    #[arg(long, value_enum, default_value_t = AnswerTo::Either)]
    answer_to: AnswerTo,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum AnswerTo {
    /// To the exchange `events`.
    Events,
    /// To the command's `reply_to`, where it has one.
    ReplyTo,
    /// Now this, now that.
    Either,
}

#[derive(Args)]
struct Load {
    #[command(flatten)]
    common: Common,
    #[arg(long, default_value = "join-group", value_parser = saga)]
    saga: Saga,
    /// At most so many a second; left out: as fast as it goes.
    #[arg(long)]
    per_second: Option<NonZeroU32>,
    /// The number of the first request, from 0.
    #[arg(long, default_value_t = 0)]
    first: usize,
}

fn saga(name: &str) -> Result<Saga, String> {
    Saga::parse(name).ok_or_else(|| format!("no participants for {name}"))
}

fn misbehaviour(text: &str) -> Result<(String, Fault), String> {
    let (command, fault) = text.split_once('=').ok_or("write <address>.<Command>=<fault>")?;
    let fault = Fault::parse(fault).ok_or("a fault is silent:TIMES, late:MS, slow:MS, twice:MS or refuse")?;
    Ok((command.to_owned(), fault))
}

impl Common {
    fn town(&self) -> Town {
        let town = Town::for_requests(self.requests);
        Town {
            groups: self.groups.unwrap_or(town.groups),
            users: self.users.unwrap_or(town.users),
            cells: self.cells.unwrap_or(town.cells),
            detainees: self.detainees.unwrap_or(town.detainees),
            ..town
        }
    }
}

impl Serve {
    fn town(&self) -> Town {
        let town = self.common.town();
        Town {
            group_limit: self.group_limit.unwrap_or(town.group_limit),
            user_limit: self.user_limit.unwrap_or(town.user_limit),
            cell_capacity: self.cell_capacity.unwrap_or(town.cell_capacity),
            ..town
        }
    }

    fn participants(&self) -> Participants {
        let all = Participants::new(&self.town());
        if self.only.is_empty() { all } else { all.only(&self.only) }
    }

    fn faults(&self) -> Faults {
        let silence = if self.never_silent { Silence::Never } else { Silence::Possible };
        let seeded = || Faults::seeded(self.common.seed, self.longest_ms, silence);
        let chance = if self.faults { seeded() } else { Faults::none() };
        self.misbehave.iter().fold(chance, |faults, (command, fault)| faults.always(command, *fault))
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let outcome = match Arguments::parse().mode {
        Mode::Serve(options) => serve::run(&options).await,
        Mode::Load(options) => load::run(&options).await,
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            broker::say(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}
