//! The seeded world: the real engine on the real SQLite (in memory), a broker, participants and a clock that misbehave
//! by a seed, and the daemon dying at any commit, publish, confirm or acknowledgement. What the design calls *always
//! checked* is checked after every turn, the participants' own invariants at the end.
//!
//! `SAGAD_SEED=7` runs one schedule and tells its story if it fails, `SAGAD_SCHEDULES=100000` so many,
//! from `SAGAD_FROM` on. A seed that fails becomes a case in [`CASES`].

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sagad::demo::actors::command;
use sagad::demo::participants::Participants;
use sagad::demo::requests::{Saga, Town};
use sagad::engine::{OrderFor, OrderMode, Published, Raw, Settings, verify};
use sagad::saga::compile::{SourceFile, load};
use sagad::saga::effect::{Destination, Outgoing};
use sagad::saga::event::{Input, Order, Verb};
use sagad::saga::ids::{CommandId, DatabaseId, InstanceId};
use sagad::saga::incident::IncidentKind;
use sagad::saga::instance::{Instance, Status, Step as Sent, StepEffect, UndoPhase};
use sagad::saga::machine::Machine;
use sagad::saga::time::Timestamp;
use sagad::store::{AsideFilter, JournalOrder, Reader, Selector};
use sagad::world::{
    Carriage, Fate, LocalMessage, Participant, Point, Reply, Seen, Setup, Step, Unclaimed, Verdict, World,
};
use serde_json::{Map, Value, json};
use uuid::Uuid;

/// Seeds that find something again where it is broken again: messages that were lost found no room to go out.
const CASES: [u64; 1] = [432];

/// How many schedules run where nobody says.
const SCHEDULES: u64 = 1_000;

const SECOND: u64 = 1_000;
const HOUR: u64 = 3_600 * SECOND;

/// A header of replies that do not get lost.
const SURELY: &str = "surely";

/// Steps of the world in which things go wrong.
const STORM_STEPS: u32 = 600;
/// Rounds in which operators mend what is stuck afterwards.
const MENDING_ROUNDS: u32 = 40;

#[test]
fn no_schedule_breaks_a_promise() {
    if let Some(seed) = number("SAGAD_SEED") {
        play(seed);
        return;
    }
    let schedules = number("SAGAD_SCHEDULES").unwrap_or(SCHEDULES);
    let first = number("SAGAD_FROM").unwrap_or(0);
    let next = AtomicU64::new(first);
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + schedules {
                        break;
                    }
                    play(seed);
                }
            });
        }
    });
}

#[test]
fn what_was_found_once_stays_mended() {
    for seed in CASES {
        play(seed);
    }
}

#[test]
fn the_same_seed_is_the_same_schedule() {
    assert_eq!(Schedule::new(11).play(), Schedule::new(11).play());
}

/// Nothing goes wrong but one death, at each point where one can happen, one after the other.
#[test]
fn dying_at_any_boundary_breaks_no_promise() {
    const REQUESTS: usize = 4;
    for window in [1, 1_024] {
        let mut boundary = 0;
        loop {
            let weather = Weather {
                deaths_left: Rc::new(Cell::new(0)),
                dice: Rc::new(RefCell::new(Dice(3))),
                storms: Rc::new(Cell::new(false)),
            };
            let setup = Setup {
                machines: machines(),
                settings: Settings { window, ..Settings::default() },
                database: DatabaseId(Uuid::from_u128(3)),
                start: Timestamp(1_893_456_000_000),
                unclaimed: Unclaimed::Return,
            };
            let died = Rc::new(Cell::new(None));
            let fate = Box::new(DieAt { boundary, died: Rc::clone(&died) });
            let outcome = Schedule::with(3, setup, REQUESTS, weather, fate).play();
            if let Err(what) = outcome {
                panic!("window {window}, dead at boundary {boundary} ({:?}): {what}", died.get());
            }
            if died.get().is_none() {
                break;
            }
            boundary += 1;
        }
        assert!(boundary > 40, "only {boundary} boundaries");
    }
}

/// Dies at the boundary with this number, and never again.
struct DieAt {
    boundary: u32,
    died: Rc<Cell<Option<Point>>>,
}

impl Fate for DieAt {
    fn dies(&mut self, at: Point) -> bool {
        if self.died.get().is_some() {
            return false;
        }
        let dies = self.boundary == 0;
        if dies {
            self.died.set(Some(at));
        }
        self.boundary = self.boundary.saturating_sub(1);
        dies
    }
}

fn play(seed: u64) {
    let outcome = std::panic::catch_unwind(|| Schedule::new(seed).play());
    let what = match outcome {
        Ok(Ok(_)) => return,
        Ok(Err(what)) => what,
        Err(_) => "it panicked".to_owned(),
    };
    panic!("schedule {seed}: {what}\nagain with: SAGAD_SEED={seed} cargo test --test it simulate -- --nocapture");
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is not a number: {text}")))
}

// ---- chance -----------------------------------------------------------------------------------------------------------

/// `SplitMix64`: small, good enough, and the same everywhere.
#[derive(Clone, Debug)]
struct Dice(u64);

impl Dice {
    fn throw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, sides: u64) -> u64 {
        self.throw() % sides.max(1)
    }

    /// Holds in so many of a thousand cases.
    fn chance(&mut self, of_thousand: u64) -> bool {
        self.below(1_000) < of_thousand
    }

    /// Mostly short, sometimes long, seldom very long.
    fn delay(&mut self) -> u64 {
        match self.below(20) {
            0..=11 => self.below(100),
            12..=16 => self.below(5 * SECOND),
            17..=18 => self.below(120 * SECOND),
            _ => self.below(6 * HOUR),
        }
    }
}

/// What all parts of a schedule share.
#[derive(Clone, Debug)]
struct Weather {
    dice: Rc<RefCell<Dice>>,
    storms: Rc<Cell<bool>>,
    deaths_left: Rc<Cell<u32>>,
}

impl Weather {
    fn chance(&self, of_thousand: u64) -> bool {
        self.storms.get() && self.dice.borrow_mut().chance(of_thousand)
    }

    fn below(&self, sides: u64) -> u64 {
        self.dice.borrow_mut().below(sides)
    }

    fn delay(&self) -> u64 {
        self.dice.borrow_mut().delay()
    }

    fn carriage(&self) -> Carriage {
        if self.chance(80) {
            return Carriage { copies_after_ms: vec![self.delay(), self.delay()] };
        }
        if self.chance(250) { Carriage::after(self.delay()) } else { Carriage::direct() }
    }
}

impl Fate for Weather {
    fn dies(&mut self, _at: Point) -> bool {
        let dies = self.deaths_left.get() > 0 && self.chance(15);
        if dies {
            self.deaths_left.set(self.deaths_left.get() - 1);
        }
        dies
    }

    fn verdict(&mut self, message: &Outgoing) -> Verdict {
        if self.chance(30) {
            return Verdict::Nack;
        }
        if self.chance(60) && matches!(message.to, Destination::Command { .. }) {
            return Verdict::Return;
        }
        if self.chance(40) {
            return Verdict::Lose { arrives: self.below(2) == 0 };
        }
        let confirm_after_ms = if self.chance(200) { self.delay() } else { 0 };
        Verdict::Take { confirm_after_ms }
    }

    fn to_daemon(&mut self, _raw: &Raw) -> Carriage {
        self.carriage()
    }

    fn to_participant(&mut self, _message: &LocalMessage) -> Carriage {
        self.carriage()
    }

    fn reply(&mut self, reply: &Reply) -> Carriage {
        if !reply.headers.contains_key(SURELY) && self.chance(30) {
            return Carriage { copies_after_ms: Vec::new() };
        }
        self.carriage()
    }

    fn overtakes(&mut self, waiting: usize) -> usize {
        if self.chance(200) { usize::try_from(self.below(waiting as u64)).expect("it is small") } else { 0 }
    }

    fn batch(&mut self, most: usize) -> usize {
        if self.chance(500) { 1 } else { most }
    }
}

// ---- participants -----------------------------------------------------------------------------------------------------

/// One of the shipped participants, that follows the advice it is given and misbehaves all the same.
struct Member {
    town: Rc<RefCell<Participants>>,
    address: &'static str,
    weather: Weather,
}

impl Participant for Member {
    fn address(&self) -> &str {
        self.address
    }

    fn handle(&mut self, message: &LocalMessage, _now: Timestamp) -> Vec<Reply> {
        let weather = &self.weather;
        // The delivery is lost on it.
        if weather.chance(80) {
            return Vec::new();
        }
        let command = command(self.address, message);
        let mut town = self.town.borrow_mut();
        let refuses = command.undoes.is_none() && weather.chance(80);
        let answer = if refuses { town.refuse(&command) } else { town.handle(&command) };
        // Carried out, and the answer is lost.
        if weather.chance(80) {
            return Vec::new();
        }
        let Some(answer) = answer else { return Vec::new() };
        let mut replies = Vec::new();
        let late = |reply: Reply| Reply { after_ms: if weather.chance(200) { weather.delay() } else { 0 }, ..reply };
        let first = late(Reply::to(message, &answer.kind, answer.body.clone()));
        if weather.chance(150) {
            // Twice: by another message, or by the same.
            let id = (weather.below(2) == 0).then(|| format!("answer-{}", weather.dice.borrow_mut().throw()));
            replies.push(late(Reply { message_id: id.clone(), ..first.clone() }));
            replies.push(Reply { message_id: id, ..first });
        } else {
            replies.push(first);
        }
        if let Some(opposite) = opposite(&answer.kind)
            && weather.chance(40)
        {
            // It says both: so what it did it must have said.
            for reply in &mut replies {
                reply.headers.insert(SURELY.to_owned(), Value::Bool(true));
            }
            replies.push(late(Reply::to(message, opposite, json!({ "reason": "a second thought" }))));
        }
        if weather.chance(30) {
            let stranger = Uuid::from_u128(u128::from(weather.dice.borrow_mut().throw()) << 64 | 0x8000_0000_0000_0000);
            let reply = Reply::to(message, &answer.kind, answer.body);
            replies.push(Reply { correlation_id: Some(stranger.to_string()), ..reply });
        }
        replies
    }
}

/// The refusal that contradicts a success which really happened.
fn opposite(success: &str) -> Option<&'static str> {
    match success {
        "SlotReserved" => Some("SlotRejected"),
        "MembershipAcquired" => Some("MembershipRefused"),
        "PlaceReserved" => Some("PlaceRejected"),
        "DetaineeAllocated" => Some("DetaineeNotAllocatable"),
        _ => None,
    }
}

// ---- one schedule -----------------------------------------------------------------------------------------------------

struct Schedule {
    weather: Weather,
    world: World,
    town: Rc<RefCell<Participants>>,
    reader: Reader,
    requests: usize,
    machines: Vec<Arc<Machine>>,
    /// Events that have been on the bus, to be repeated.
    heard: Vec<Raw>,
    seen: Vec<Seen>,
    turns: u64,
    /// Each instance as it was looked at last.
    last: BTreeMap<InstanceId, Instance>,
}

impl Schedule {
    fn new(seed: u64) -> Schedule {
        let mut dice = Dice(seed.wrapping_mul(0x2545_f491_4f6c_dd1d));
        let settings = Settings {
            max_batch: [1, 3, 256][usize::try_from(dice.below(3)).expect("small")],
            window: [1, 4, 1_024][usize::try_from(dice.below(3)).expect("small")],
            grace_ms: dice.below(2) * 5 * SECOND,
            timer_rate: 100,
            ..Settings::default()
        };
        let setup = Setup {
            machines: machines(),
            settings,
            database: DatabaseId(Uuid::from_u128(u128::from(dice.throw()) << 64 | u128::from(dice.throw()))),
            start: Timestamp(1_893_456_000_000),
            unclaimed: Unclaimed::Return,
        };
        let requests = usize::try_from(1 + dice.below(6)).expect("small");
        let weather = Weather {
            deaths_left: Rc::new(Cell::new(u32::try_from(dice.below(8)).expect("small"))),
            dice: Rc::new(RefCell::new(dice)),
            storms: Rc::new(Cell::new(true)),
        };
        let fate = Box::new(weather.clone());
        Schedule::with(seed, setup, requests, weather, fate)
    }

    fn with(seed: u64, setup: Setup, requests: usize, weather: Weather, fate: Box<dyn Fate>) -> Schedule {
        let machines = setup.machines.clone();
        let small =
            Town { groups: 2, group_limit: 2, users: 3, user_limit: 1, cells: 2, cell_capacity: 1, detainees: 6 };
        let town = Rc::new(RefCell::new(Participants::new(&small)));
        let mut world = World::new(setup, fate).expect("the world begins");
        for address in ["groups", "users", "cells", "detainees"] {
            world.join(Box::new(Member { town: Rc::clone(&town), address, weather: weather.clone() }));
        }
        for number in 0..requests {
            let saga = Saga::ALL[usize::try_from(weather.below(2)).expect("small")];
            let request = small.request(saga, seed, number);
            let copies = 1 + u64::from(weather.chance(200));
            for _ in 0..copies {
                world.say(Reply {
                    after_ms: weather.delay(),
                    kind: request.kind.to_owned(),
                    message_id: Some(request.message_id.clone()),
                    correlation_id: None,
                    source: String::new(),
                    headers: Map::new(),
                    body: request.body.clone(),
                });
            }
        }
        let reader = world.reader().expect("the database can be read");
        Schedule {
            weather,
            world,
            town,
            reader,
            requests,
            machines,
            heard: Vec::new(),
            seen: Vec::new(),
            turns: 0,
            last: BTreeMap::new(),
        }
    }

    /// Runs it; returns how it came out, for comparing two runs.
    fn play(mut self) -> Result<Vec<String>, String> {
        self.course().map_err(|what| format!("{what}\n{}", self.story()))
    }

    fn course(&mut self) -> Result<Vec<String>, String> {
        self.storm()?;
        self.weather.storms.set(false);
        self.world.broker_back();
        self.world.start().map_err(|error| error.to_string())?;
        self.mend()?;
        for _ in 0..2 {
            // It may have died over the first.
            self.world.tidy().and_then(|()| self.world.start()).map_err(|error| error.to_string())?;
        }
        self.listen();
        self.after_a_batch()?;
        self.at_the_end()
    }

    /// The journals of what is not over, and of what the participants still have reserved: to see what happened.
    fn story(&self) -> String {
        if std::env::var("SAGAD_SEED").is_err() {
            return String::new();
        }
        let mut story = String::new();
        for instance in self.instances().unwrap_or_default() {
            story.push_str(&format!("{}\n", describe(&instance)));
            let rows = self.reader.journal(instance.id.no(), JournalOrder::OldestFirst, None, usize::MAX);
            for row in rows.unwrap_or_default() {
                let given = row.given().map(|given| format!("{given:?}")).unwrap_or_default();
                let sent: Vec<String> = row
                    .messages()
                    .unwrap_or_default()
                    .iter()
                    .map(|message| format!("{} {:?}", message.kind, message.command.as_ref().map(|it| it.subject)))
                    .collect();
                let notes = row.notes().unwrap_or_default();
                story.push_str(&format!("  {} seq {} {given:.600}\n     -> {sent:?} {notes:?}\n", row.turn, row.seq));
            }
            let timers = self.reader.timers(instance.id.no());
            story.push_str(&format!("  timers {:?} rows {timers:?}\n", instance.timers));
        }
        for seen in &self.seen {
            story.push_str(&format!("  broker: {:?} {} {:?}\n", seen.at, seen.message.kind, seen.outcome));
        }
        story.push_str(&format!("{:?}\n", self.town.borrow().holdings()));
        story
    }

    fn storm(&mut self) -> Result<(), String> {
        for _ in 0..STORM_STEPS {
            self.mischief()?;
            match self.step(u64::MAX)? {
                Step::Rest => break,
                Step::Died(_) => self.lie_dead()?,
                Step::Batch | Step::Happened | Step::Waited => {}
            }
        }
        Ok(())
    }

    /// One step of the world, and what must hold after it.
    fn step(&mut self, until_ms: u64) -> Result<Step, String> {
        let step = self.world.step(until_ms).map_err(|error| error.to_string())?;
        self.listen();
        if step == Step::Batch {
            self.after_a_batch()?;
        }
        Ok(step)
    }

    fn listen(&mut self) {
        for raw in self.world.take_heard() {
            let body = serde_json::from_slice(&raw.body).unwrap_or(Value::Null);
            self.town.borrow_mut().tell(&raw.routing_key, &body);
            self.heard.push(raw);
        }
        self.seen.extend(self.world.take_seen());
    }

    /// The daemon is away for a while; the world goes on without it.
    fn lie_dead(&mut self) -> Result<(), String> {
        let until = self.world.elapsed_ms() + self.weather.delay();
        for _ in 0..50 {
            if self.step(until)? == Step::Rest {
                break;
            }
        }
        self.world.start().map_err(|error| error.to_string())
    }

    /// What goes wrong beside what the fate decides.
    fn mischief(&mut self) -> Result<(), String> {
        if self.weather.chance(4) {
            self.world.broker_away();
        }
        if self.weather.chance(20) {
            self.world.broker_back();
        }
        if self.weather.chance(4) {
            self.world.reconnect();
        }
        if self.weather.chance(2) {
            let day = 24 * 3_600 * 1_000;
            self.world.set_clock(if self.weather.below(2) == 0 { day } else { -day });
        }
        if self.weather.chance(4) {
            self.world.restart().map_err(|error| error.to_string())?;
        }
        if self.weather.chance(10) && !self.heard.is_empty() {
            let which = usize::try_from(self.weather.below(self.heard.len() as u64)).expect("it is small");
            self.world.enqueue(self.heard[which].clone());
        }
        if self.weather.chance(20) && self.world.engine().is_some() {
            self.somebody_orders()?;
        }
        Ok(())
    }

    fn somebody_orders(&mut self) -> Result<(), String> {
        let instances = self.instances()?;
        if instances.is_empty() {
            return Ok(());
        }
        // A person looks at what is stuck rather than at anything else.
        let stuck = instances.iter().position(|instance| !instance.incidents.is_empty());
        let which = match stuck {
            Some(stuck) if self.weather.below(2) == 0 => stuck,
            _ => usize::try_from(self.weather.below(instances.len() as u64)).expect("it is small"),
        };
        let verb = match self.weather.below(5) {
            0 | 1 => Verb::Compensate,
            2 => Verb::Retry { step: None },
            3 => Verb::Pause,
            _ => Verb::Resume,
        };
        self.order(&instances[which], verb)
    }

    fn order(&mut self, instance: &Instance, verb: Verb) -> Result<(), String> {
        let order = Order { verb, by: "anna".to_owned(), reason: None, request_id: None, expect_turn: None };
        let order = OrderFor { instance: instance.id, order, mode: OrderMode::ForReal };
        self.world.order(vec![order]).map_err(|error| error.to_string())?;
        self.listen();
        self.after_a_batch()
    }

    /// The storm is over: everybody behaves, and operators take care of what is stuck.
    fn mend(&mut self) -> Result<(), String> {
        for _ in 0..MENDING_ROUNDS {
            let until = self.world.elapsed_ms() + 24 * HOUR;
            loop {
                match self.step(until)? {
                    Step::Rest => break,
                    Step::Died(_) => self.lie_dead()?,
                    Step::Batch | Step::Happened | Step::Waited => {}
                }
            }
            let mut mended = false;
            for instance in self.instances()? {
                if instance.paused {
                    self.order(&instance, Verb::Resume)?;
                    mended = true;
                } else if !instance.incidents.is_empty() {
                    self.order(&instance, Verb::Retry { step: None })?;
                    mended = true;
                }
            }
            if !mended && self.instances()?.iter().all(is_over) {
                return Ok(());
            }
        }
        let open: Vec<String> = self.instances()?.iter().filter(|it| !is_over(it)).map(describe).collect();
        Err(format!("not over in the end: {}", open.join("; ")))
    }

    // ---- what must hold ---------------------------------------------------------------------------------------------

    fn instances(&self) -> Result<Vec<Instance>, String> {
        let page = self.reader.instances(&Selector::default(), None, 100).map_err(|error| error.to_string())?;
        let mut instances = Vec::new();
        for row in page.rows {
            let stored = self.reader.instance(row.no).map_err(|error| error.to_string())?;
            instances.extend(stored.map(|stored| stored.instance));
        }
        instances.sort_by_key(|instance| instance.id);
        Ok(instances)
    }

    fn after_a_batch(&mut self) -> Result<(), String> {
        let Some(turns) = self.world.engine().map(|engine| engine.report().turns) else { return Ok(()) };
        if turns == std::mem::replace(&mut self.turns, turns) {
            return Ok(());
        }
        let page = self.reader.instances(&Selector::default(), None, 100).map_err(|error| error.to_string())?;
        for row in page.rows {
            if self.last.get(&row.id).is_some_and(|last| last.turn == row.turn) {
                continue;
            }
            let stored = self.reader.instance(row.no).map_err(|error| error.to_string())?;
            let Some(instance) = stored.map(|stored| stored.instance) else { continue };
            let broken = |what: String| format!("{} in {}", what, describe(&instance));
            let before = self.last.insert(instance.id, instance.clone());
            undone_in_order(before.as_ref(), &instance).map_err(broken)?;
            nothing_left(&instance).map_err(broken)?;
            for kind in [IncidentKind::Stalled, IncidentKind::Panic, IncidentKind::Definition, IncidentKind::Expression]
            {
                if let Some(incident) = instance.incident_of(kind) {
                    return Err(broken(format!("incident {kind}: {}", incident.error)));
                }
            }
        }
        Ok(())
    }

    fn at_the_end(&mut self) -> Result<Vec<String>, String> {
        if self.world.undelivered() > 0 {
            return Err(format!("{} deliveries were never acknowledged", self.world.undelivered()));
        }
        let outbox = self.reader.count_outbox().map_err(|error| error.to_string())?;
        if outbox > 0 {
            return Err(format!("{outbox} messages are still in the outbox"));
        }
        let instances = self.instances()?;
        if instances.len() != self.requests {
            return Err(format!("{} requests made {} instances", self.requests, instances.len()));
        }
        self.repetitions_changed_nothing(&instances)?;
        let mut committed: BTreeMap<(i64, u32), Outgoing> = BTreeMap::new();
        for instance in &instances {
            self.replays(instance, &mut committed)?;
        }
        self.nothing_invented_nothing_lost(&committed)?;
        self.every_event_is_somewhere(&instances)?;
        for invariant in self.town.borrow().invariants() {
            if !invariant.holds {
                return Err(format!("{}: {}", invariant.what, invariant.found));
            }
        }
        Ok(instances.iter().map(describe).collect())
    }

    /// Every request came with one message id, however often: none was set aside, none met its own instance.
    fn repetitions_changed_nothing(&self, instances: &[Instance]) -> Result<(), String> {
        let aside = self.reader.aside(&AsideFilter::default(), None, 1_000).map_err(|error| error.to_string())?;
        if let Some(row) =
            aside.iter().find(|row| row.message_type.as_deref().is_some_and(|kind| kind.ends_with("Requested")))
        {
            return Err(format!("a request was set aside as {}", row.reason));
        }
        for instance in instances {
            let rows = self.reader.journal(instance.id.no(), JournalOrder::OldestFirst, None, usize::MAX);
            for row in rows.map_err(|error| error.to_string())? {
                let notes = row.notes().map_err(|error| error.to_string())?;
                if notes.iter().any(|note| note == "started-already") {
                    return Err(format!("a request came to its own instance once more: {}", describe(instance)));
                }
            }
        }
        Ok(())
    }

    /// Promise 1: what came in is in a journal, or set aside, or another daemon's.
    fn every_event_is_somewhere(&self, instances: &[Instance]) -> Result<(), String> {
        let mut known: BTreeSet<String> = BTreeSet::new();
        for instance in instances {
            let rows = self.reader.journal(instance.id.no(), JournalOrder::OldestFirst, None, usize::MAX);
            for row in rows.map_err(|error| error.to_string())? {
                let given = row.given().map_err(|error| error.to_string())?;
                if let Input::Start(message) | Input::Event(message) | Input::Answer { message, .. } = given.input {
                    known.extend(message.id);
                }
            }
        }
        let aside = self.reader.aside(&AsideFilter::default(), None, 10_000).map_err(|error| error.to_string())?;
        known.extend(aside.into_iter().filter_map(|row| row.message_id));
        let consumed =
            |raw: &&Raw| self.machines.iter().any(|machine| machine.consumed().contains(raw.routing_key.as_str()));
        let text = |raw: &Raw, name: &str| raw.properties.get(name).and_then(Value::as_str).map(str::to_owned);
        let tag = instances.first().map(|instance| instance.id.tag());
        for raw in self.heard.iter().filter(consumed) {
            let of = text(raw, "correlation_id").as_deref().and_then(CommandId::parse);
            let foreign = of.is_some_and(|command| Some(command.tag()) != tag);
            if let Some(id) = text(raw, "message_id").filter(|id| !known.contains(id) && !foreign) {
                return Err(format!("{} {id} came in and is nowhere", raw.routing_key));
            }
        }
        Ok(())
    }

    /// The journal replayed gives the stored row, byte for byte.
    fn replays(&self, instance: &Instance, committed: &mut BTreeMap<(i64, u32), Outgoing>) -> Result<(), String> {
        let no = instance.id.no();
        let verified = verify(&self.reader, no).map_err(|error| error.to_string())?;
        let verified = verified.ok_or_else(|| format!("{} is gone", describe(instance)))?;
        if let Some(broken) = verified.broken.first() {
            return Err(format!("turn {} of {}: {}", broken.turn, describe(instance), broken.what));
        }
        let rows = self.reader.journal(no, JournalOrder::OldestFirst, None, usize::MAX);
        for row in rows.map_err(|error| error.to_string())? {
            let messages = row.messages().map_err(|error| error.to_string())?;
            committed.extend((0..).zip(messages).map(|(place, message)| ((row.seq, place), message)));
        }
        Ok(())
    }

    /// No message was seen by the broker that is not in a committed turn, none in a committed turn is missing, and no
    /// two turns share an id.
    fn nothing_invented_nothing_lost(&self, committed: &BTreeMap<(i64, u32), Outgoing>) -> Result<(), String> {
        let mut confirmed = BTreeSet::new();
        for seen in &self.seen {
            let at = (seen.at.seq, seen.at.place);
            if committed.get(&at).is_none_or(|message| message.message_id != seen.message.message_id) {
                return Err(format!("the broker saw {} of {at:?}, which no turn sent", seen.message.kind));
            }
            if seen.outcome == Published::Confirmed {
                confirmed.insert(at);
            }
        }
        let mut ids = BTreeSet::new();
        for (at, message) in committed {
            if !ids.insert(message.message_id) {
                return Err(format!("two turns sent {}", message.message_id));
            }
            let withdrawn = self
                .seen
                .iter()
                .any(|seen| (seen.at.seq, seen.at.place) == *at && matches!(seen.outcome, Published::Returned { .. }));
            if !confirmed.contains(at) && !withdrawn {
                return Err(format!("the broker never saw {} of {at:?}", message.kind));
            }
        }
        Ok(())
    }
}

fn is_over(instance: &Instance) -> bool {
    let marks = instance.marks();
    instance.status.is_end() && !marks.settling && !marks.stuck && !marks.paused
}

fn describe(instance: &Instance) -> String {
    let steps: Vec<String> =
        instance.steps.iter().map(|step| format!("{}={}", step.name(), step.effect.name())).collect();
    let incidents: Vec<&str> = instance.incidents.iter().map(|incident| incident.kind.name()).collect();
    format!(
        "{}/{} {} in {} turn {} [{}] {{{}}}",
        instance.saga,
        instance.key,
        instance.status.name(),
        instance.state,
        instance.turn,
        steps.join(" "),
        incidents.join(" ")
    )
}

/// What was refused is not undone; and compensating, the first undo of a step is sent only when nothing that was sent
/// after it is left. (A success that comes late may follow it.)
fn undone_in_order(before: Option<&Instance>, instance: &Instance) -> Result<(), String> {
    for (index, step) in instance.steps.iter().enumerate() {
        let undo_is_sent = |step: &Sent| step.undo.as_ref().is_some_and(|undo| undo.phase == UndoPhase::Open);
        if step.effect == StepEffect::Refused && undo_is_sent(step) {
            return Err(format!("{} was refused and is undone", step.name()));
        }
        let Some(before) = before.filter(|before| before.turn + 1 == instance.turn) else { continue };
        let was_sent = before.steps.get(index).is_some_and(|step| step.undo.as_ref().is_some_and(|it| it.question > 0));
        if instance.status != Status::Compensating || was_sent || !undo_is_sent(step) {
            continue;
        }
        let later = instance.steps[index + 1..].iter().find(|later| {
            !later.kept && matches!(later.effect, StepEffect::Sent | StepEffect::Done | StepEffect::InDoubt)
        });
        if let Some(later) = later {
            return Err(format!("{} is undone before {}", step.name(), later.name()));
        }
    }
    Ok(())
}

/// Promise 5, for these definitions, which except nothing.
fn nothing_left(instance: &Instance) -> Result<(), String> {
    let marks = instance.marks();
    if marks.settling || marks.stuck {
        return Ok(());
    }
    let left = instance.steps.iter().find(|step| match instance.status {
        Status::Completed => {
            !matches!(step.effect, StepEffect::Done | StepEffect::Skipped | StepEffect::Refused | StepEffect::Undone)
        }
        Status::Compensated => !matches!(step.effect, StepEffect::Undone | StepEffect::Refused),
        Status::Running | Status::Compensating | Status::Abandoned => false,
    });
    left.map_or(Ok(()), |step| Err(format!("{} is left {}", step.name(), step.effect.name())))
}

fn machines() -> Vec<Arc<Machine>> {
    let source = |path: &str, text: &str| SourceFile { path: path.to_owned(), text: text.to_owned() };
    let loaded = load(&[
        source("sagas/join-group.yaml", include_str!("../../sagas/join-group.yaml")),
        source("sagas/allocate-cell.yaml", include_str!("../../sagas/allocate-cell.yaml")),
    ]);
    assert!(!loaded.has_errors(), "{:?}", loaded.diagnostics);
    loaded.machines
}
