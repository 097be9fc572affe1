//! The show: requests against tight limits, in a world with the real engine and a database in memory. It runs to the end
//! of all sagas, counts how they ended, and looks at what the participants hold.
//!
//! Printing is the command line's: here is a callback for the progress, and a summary.

use std::cell::RefCell;
use std::rc::Rc;

use serde::Serialize;
use serde_json::Map;
use uuid::Uuid;

use super::actors::{Actor, Requester, Shared};
use super::dice::Dice;
use super::faults::{Faults, Silence};
use super::participants::{Invariant, Participants};
use super::requests::{Request, Saga, Town};
use crate::engine::Settings;
use crate::saga::compile::{SourceFile, load};
use crate::saga::ids::DatabaseId;
use crate::saga::instance::Status;
use crate::saga::time::Timestamp;
use crate::store::{Reader, StoreError};
use crate::world::{Calm, Reply, Setup, Step, Unclaimed, World, WorldError};

/// What `sagad demo` does if it is told nothing.
pub const REQUESTS: usize = 400;
pub const SEED: u64 = 1;

/// More would take longer than anybody watches, and more memory than a demo may.
pub const MOST_REQUESTS: usize = 100_000;

/// 2030-01-01T00:00:00Z: when every world begins.
const START: Timestamp = Timestamp(1_893_456_000_000);

/// Between two requests of a saga, on average: close enough to get in each other's way.
const REQUEST_EVERY_MS: u64 = 40;

/// With faults, nothing is later than this: past five attempts of thirty seconds, so that some answers come when the step
/// has been given up.
const LONGEST_MS: u64 = 300_000;

/// A week of virtual time; every deadline and every retry of the shipped sagas is over long before. What is still under
/// way then is under way for ever.
const LAST_MS: u64 = 7 * 24 * 3_600 * 1_000;

#[derive(Clone, Debug)]
pub struct Options {
    /// In all, shared out evenly among the sagas.
    pub requests: usize,
    pub seed: u64,
    pub sagas: Vec<Saga>,
    pub faults: Misbehaviour,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misbehaviour {
    /// Everybody answers at once.
    None,
    /// Participants are silent, slow, late, out of order, refuse and repeat themselves, as the seed will have it.
    Seeded,
}

impl Default for Options {
    fn default() -> Options {
        Options { requests: REQUESTS, seed: SEED, sagas: Saga::ALL.to_vec(), faults: Misbehaviour::None }
    }
}

/// How far the show is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advance {
    /// Requests whose requester knows the end.
    pub answered: usize,
    pub requests: usize,
    /// Virtual time since the beginning.
    pub elapsed_ms: u64,
}

/// Whoever watches.
pub trait Progress {
    fn advanced(&mut self, advance: Advance);
}

/// Nobody watches.
impl Progress for () {
    fn advanced(&mut self, _advance: Advance) {}
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Summary {
    pub seed: u64,
    pub sagas: Vec<Outcome>,
    pub invariants: Vec<Invariant>,
}

/// How the instances of a saga ended. One that is stuck counts as that and as nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Outcome {
    pub saga: String,
    pub completed: u64,
    pub compensated: u64,
    pub stuck: u64,
    pub abandoned: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum ShowError {
    #[error("the shipped saga {file} does not load: {problem}")]
    Saga { file: String, problem: String },
    #[error(transparent)]
    World(#[from] WorldError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The sagas that are inside the binary, as files.
pub fn shipped() -> Vec<SourceFile> {
    let files = [
        ("sagas/join-group.yaml", include_str!("../../sagas/join-group.yaml")),
        ("sagas/allocate-cell.yaml", include_str!("../../sagas/allocate-cell.yaml")),
    ];
    files.map(|(path, text)| SourceFile { path: path.to_owned(), text: text.to_owned() }).into()
}

/// Runs the show to its end. The same options give the same summary.
pub fn run(options: &Options, progress: &mut dyn Progress) -> Result<Summary, ShowError> {
    let requests = options.requests.min(MOST_REQUESTS);
    let each = requests.div_ceil(options.sagas.len().max(1));
    let town = Town::for_requests(each);
    let all: Shared = Rc::new(RefCell::new(Participants::new(&town)));
    let mut world = populated(options, &all)?;
    let shares = shares(&options.sagas, requests, each);
    for (saga, share) in &shares {
        ask(&mut world, &town, *saga, options.seed, *share);
    }
    play(&mut world, &all, requests, progress)?;
    summary(options.seed, &shares, &world.reader()?, &all.borrow())
}

/// How many requests each saga gets; the last gets what is left.
fn shares(sagas: &[Saga], requests: usize, each: usize) -> Vec<(Saga, usize)> {
    let before = (0..sagas.len()).map(|place| place * each);
    sagas.iter().zip(before).map(|(saga, before)| (*saga, each.min(requests.saturating_sub(before)))).collect()
}

fn populated(options: &Options, all: &Shared) -> Result<World, ShowError> {
    let loaded = load(&shipped());
    if let Some(problem) = loaded.diagnostics.iter().find(|_| loaded.has_errors()) {
        return Err(ShowError::Saga { file: problem.file.clone(), problem: problem.message.clone() });
    }
    let name = format!("sagad demo {}", options.seed);
    let setup = Setup {
        machines: loaded.machines,
        settings: Settings::default(),
        database: DatabaseId(Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes())),
        start: START,
        unclaimed: Unclaimed::Return,
    };
    let mut world = World::new(setup, Box::new(Calm))?;
    let faults = match options.faults {
        Misbehaviour::None => Faults::none(),
        Misbehaviour::Seeded => Faults::seeded(options.seed, LONGEST_MS, Silence::Possible),
    };
    for address in Participants::ADDRESSES {
        world.join(Box::new(Actor::new(address, Rc::clone(all), faults.clone())));
    }
    world.join(Box::new(Requester::new(Rc::clone(all))));
    Ok(world)
}

/// Puts the requests of a saga on the bus, each at its time.
fn ask(world: &mut World, town: &Town, saga: Saga, seed: u64, count: usize) {
    let dice = Dice::new(seed);
    let time = REQUEST_EVERY_MS.saturating_mul(u64::try_from(count).unwrap_or(u64::MAX));
    for number in 0..count {
        let Request { kind, message_id, body } = town.request(saga, seed, number);
        world.say(Reply {
            after_ms: dice.throw(&format!("when {message_id}"), time),
            kind: kind.to_owned(),
            message_id: Some(message_id),
            correlation_id: None,
            source: "requester".to_owned(),
            headers: Map::new(),
            body,
        });
    }
}

/// Lets the world go on until nothing will happen any more.
fn play(world: &mut World, all: &Shared, requests: usize, progress: &mut dyn Progress) -> Result<(), ShowError> {
    let mut answered = 0;
    loop {
        match world.step(LAST_MS)? {
            Step::Rest => break,
            Step::Died(_) => world.start()?,
            Step::Batch | Step::Happened | Step::Waited => {}
        }
        let now_answered = all.borrow().told().len();
        if now_answered != answered {
            answered = now_answered;
            progress.advanced(Advance { answered, requests, elapsed_ms: world.elapsed_ms() });
        }
    }
    Ok(())
}

fn summary(seed: u64, shares: &[(Saga, usize)], reader: &Reader, all: &Participants) -> Result<Summary, ShowError> {
    let counts = reader.counts()?;
    let mut sagas = Vec::new();
    let mut invariants = Vec::new();
    for (saga, share) in shares {
        let mut outcome = Outcome { saga: saga.name().to_owned(), ..Outcome::default() };
        for count in counts.iter().filter(|count| count.saga == saga.name()) {
            match (count.incident, count.status) {
                (Some(_), _) => outcome.stuck += count.count,
                (None, Status::Completed) => outcome.completed += count.count,
                (None, Status::Compensated) => outcome.compensated += count.count,
                (None, Status::Abandoned) => outcome.abandoned += count.count,
                (None, Status::Running | Status::Compensating) => {}
            }
        }
        invariants.extend(all.invariants_of(saga.name()));
        invariants.push(all.all_told(saga.name(), *share, outcome.stuck));
        sagas.push(outcome);
    }
    Ok(Summary { seed, sagas, invariants })
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    fn all_hold(summary: &Summary) {
        for invariant in &summary.invariants {
            assert!(invariant.holds, "{invariant:?} of {:?}", summary.sagas);
        }
    }

    #[test]
    fn about_a_third_is_taken_back_and_nothing_is_stuck() {
        let summary = run(&Options::default(), &mut ()).unwrap();
        all_hold(&summary);
        for outcome in &summary.sagas {
            assert_eq!((outcome.completed + outcome.compensated, outcome.stuck), (200, 0), "{outcome:?}");
            assert!((40..=90).contains(&outcome.compensated), "{outcome:?}");
        }
        assert_eq!(summary.sagas.len(), 2);
    }

    #[test]
    fn whatever_the_participants_do_the_invariants_hold_and_nothing_is_stuck() {
        for seed in 1..=3 {
            let options = Options { seed, faults: Misbehaviour::Seeded, requests: 120, ..Options::default() };
            let summary = run(&options, &mut ()).unwrap();
            all_hold(&summary);
            for outcome in &summary.sagas {
                assert_eq!(
                    (outcome.completed + outcome.compensated, outcome.stuck),
                    (60, 0),
                    "seed {seed}: {outcome:?}"
                );
            }
        }
    }

    #[test]
    fn the_seeded_faults_reach_the_hard_cases() {
        let options = Options { faults: Misbehaviour::Seeded, ..Options::default() };
        let town = Town::for_requests(400);
        let all: Shared = Rc::new(RefCell::new(Participants::new(&town)));
        let mut world = populated(&options, &all).unwrap();
        ask(&mut world, &town, Saga::JoinGroup, 1, 400);
        play(&mut world, &all, 400, &mut ()).unwrap();
        let mut undos: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for seen in world.take_seen() {
            if let Some(undoes) = seen.message.command.and_then(|command| command.undoes) {
                undos.entry(undoes).or_default().insert(seen.message.correlation_id);
            }
        }
        assert!(undos.values().any(|ids| ids.len() > 1), "no success came after its undo had been answered");
        let heard: Vec<String> =
            world.take_heard().into_iter().map(|raw| String::from_utf8_lossy(&raw.body).into_owned()).collect();
        let heard = |text: &str| heard.iter().any(|body| body.contains(text));
        assert!(heard("it was taken back before it came"), "no undo came before its command");
        assert!(heard("not today"), "nobody refused for no reason");
        assert!(heard("timeout"), "no step was given up");
    }

    #[test]
    fn the_same_seed_shows_the_same_and_another_seed_something_else() {
        let options = Options { requests: 60, faults: Misbehaviour::Seeded, ..Options::default() };
        let first = run(&options, &mut ()).unwrap();
        assert_eq!(first, run(&options, &mut ()).unwrap());
        assert_ne!(first.sagas, run(&Options { seed: 2, ..options }, &mut ()).unwrap().sagas);
    }

    #[test]
    fn one_saga_alone_gets_all_requests_and_the_watcher_sees_the_last_answer() {
        #[derive(Default)]
        struct Last(Option<Advance>);
        impl Progress for Last {
            fn advanced(&mut self, advance: Advance) {
                self.0 = Some(advance);
            }
        }
        let mut last = Last::default();
        let options = Options { requests: 31, sagas: vec![Saga::AllocateCell], ..Options::default() };
        let summary = run(&options, &mut last).unwrap();
        assert_eq!(summary.sagas.len(), 1);
        assert_eq!(summary.sagas[0].completed + summary.sagas[0].compensated, 31);
        assert_eq!(last.0.map(|last| (last.answered, last.requests)), Some((31, 31)));
    }

    #[test]
    fn requests_are_shared_out_to_the_last() {
        let shared: Vec<usize> = shares(&Saga::ALL, 31, 16).into_iter().map(|(_, share)| share).collect();
        assert_eq!(shared, [16, 15]);
    }
}
