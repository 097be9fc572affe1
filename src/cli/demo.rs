//! `demo`: the whole thing in one process, without a broker.

use super::args::Shared;
use super::exit::{Exit, Failure, Outcome};
use super::output::{Bar, Cell, Form, Output, Tone};
use crate::api;
use crate::demo::requests::Saga;
use crate::demo::show::{self, Advance, Misbehaviour, Options, Progress, Summary};

#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  sagad demo                                some hundreds of requests against tight limits
  sagad demo --faults --seed 7              participants are silent, late, and repeat themselves
  sagad demo --saga join-group --requests 1000 --json")]
pub struct Args {
    /// How many requests, shared out among the sagas
    #[arg(long, value_name = "N", default_value_t = show::REQUESTS as u64,
          value_parser = clap::value_parser!(u64).range(1..=show::MOST_REQUESTS as u64))]
    requests: u64,
    /// What chance is made of: the same number gives the same show
    #[arg(long, value_name = "N", default_value_t = show::SEED)]
    seed: u64,
    /// Only this saga
    #[arg(long, value_name = "NAME", conflicts_with = "all", value_parser = saga)]
    saga: Option<Saga>,
    /// Every saga that is inside the binary
    #[arg(long)]
    all: bool,
    /// Let participants be silent, slow, late, out of order, refuse, and repeat themselves
    #[arg(long)]
    faults: bool,
}

pub fn demo(shared: &Shared, args: &Args) -> Outcome {
    let output = shared.output();
    let options = Options {
        requests: usize::try_from(args.requests).unwrap_or(show::MOST_REQUESTS),
        seed: args.seed,
        sagas: args.saga.map_or_else(|| Saga::ALL.to_vec(), |saga| vec![saga]),
        faults: if args.faults { Misbehaviour::Seeded } else { Misbehaviour::None },
    };
    let mut watched = Watched(output.bar("requests", args.requests));
    let summary = show::run(&options, &mut watched)
        .map_err(|error| Failure::new(Exit::Failed, format!("the demo failed: {error}")))?;
    watched.0.finish();
    tell(&output, &summary)?;
    Ok(if summary.invariants.iter().all(|invariant| invariant.holds) { Exit::Done } else { Exit::Failed })
}

struct Watched(Bar);

impl Progress for Watched {
    fn advanced(&mut self, advance: Advance) {
        self.0.at(advance.answered as u64, &super::output::about(crate::saga::duration::Span(advance.elapsed_ms)));
    }
}

fn tell(output: &Output, summary: &Summary) -> Result<(), Failure> {
    let sagas = summary.sagas.iter().map(|saga| api::DemoSaga {
        saga: saga.saga.clone(),
        completed: saga.completed,
        compensated: saga.compensated,
        stuck: saga.stuck,
        abandoned: saga.abandoned,
    });
    let invariants = summary.invariants.iter().map(|invariant| api::Invariant {
        saga: invariant.saga.clone(),
        what: invariant.what.clone(),
        holds: invariant.holds,
        found: invariant.found.clone(),
    });
    let document =
        api::Demo { format: api::Format, seed: summary.seed, sagas: sagas.collect(), invariants: invariants.collect() };
    match output.form {
        Form::Json => output.document(&document),
        Form::Jsonl => output.rows(&document, &document.sagas),
        Form::Table | Form::Wide | Form::Id => tables(output, &document),
    }
}

fn tables(output: &Output, document: &api::Demo) -> Result<(), Failure> {
    let number = |n: u64, bad: bool| Cell::toned(n.to_string(), if bad && n > 0 { Tone::Bad } else { Tone::Plain });
    let rows = document.sagas.iter().map(|saga| {
        vec![
            Cell::from(&saga.saga),
            number(saga.completed, false),
            number(saga.compensated, false),
            number(saga.stuck, true),
            number(saga.abandoned, true),
        ]
    });
    output.table(&["SAGA", "COMPLETED", "COMPENSATED", "STUCK", "ABANDONED"], &rows.collect::<Vec<_>>())?;
    output.data("\n")?;
    let rows = document.invariants.iter().map(|invariant| {
        let holds = if invariant.holds { Cell::toned("holds", Tone::Good) } else { Cell::toned("BROKEN", Tone::Bad) };
        vec![Cell::from(&invariant.saga), holds, Cell::from(&invariant.what), Cell::from(&invariant.found)]
    });
    output.table(&["SAGA", "", "INVARIANT", "FOUND"], &rows.collect::<Vec<_>>())
}

fn saga(name: &str) -> Result<Saga, String> {
    let names = || Saga::ALL.map(Saga::name).join(", ");
    Saga::parse(name).ok_or_else(|| format!("there is no such saga in the demo; there are {}", names()))
}
