//! What the store costs, beside its own ceiling: three-step sagas on a real file, 64 events a transaction, every commit
//! synced. First the bare statements with bytes that were made before (the ceiling), then the same through the store,
//! which serialises, digests and checks: with instances still in memory, as the engine has them while they are busy, and
//! read again for each event. Prints events/s and CPU per event of each, medians of several runs in turns,
//! and the ratio. `--events N` for longer runs, `--runs N`.

#[path = "store/engine.rs"]
mod through_engine;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use rusqlite::{Connection, Statement};
use sagad::saga::effect::{CommandPart, Destination, Json, Limit, Outgoing};
use sagad::saga::event::{Given, Input, Message, Subject};
use sagad::saga::ids::{CommandId, InstanceId, InstanceNo};
use sagad::saga::instance::{Instance, Status, Timer, TimerKind, TimerStart};
use sagad::saga::machine::Digest;
use sagad::saga::time::Timestamp;
use sagad::store::{ChainDigest, DefinitionText, Head, MessageKey, Store, Stored, TurnRow, Weight, body_digest};
use serde_json::json;
use uuid::Uuid;

/// Events in one transaction.
const BATCH: usize = 64;
/// Sagas under way at the same time.
const IN_FLIGHT: usize = 256;
/// Events of a saga: the start and three answers, of which the last ends it.
const STAGES: usize = 4;
const AT: Timestamp = Timestamp(1_893_456_000_000);
/// So that `cargo bench` ends in seconds.
const EVENTS: usize = 16_384;
const RUNS: usize = 5;

fn main() {
    let asked = |name: &str, default: usize| {
        let mut arguments = std::env::args().skip_while(|argument| argument != name).skip(1);
        arguments.next().and_then(|value| value.parse().ok()).unwrap_or(default)
    };
    // `cargo test --benches` only asks whether it works.
    let tried = std::env::args().any(|argument| argument == "--test");
    let events = asked("--events", if tried { 2 * IN_FLIGHT * STAGES } else { EVENTS });
    let runs = asked("--runs", if tried { 1 } else { RUNS });
    // In turns, so that what else the machine does falls on both.
    let mut figures: BTreeMap<&str, Vec<Figure>> = BTreeMap::new();
    for _ in 0..runs {
        figures.entry("1 the statements alone").or_default().push(measured(events, statements));
        figures.entry("2 the store").or_default().push(measured(events, with_instances_in_memory));
        figures.entry("3 and reading each").or_default().push(measured(events, with_instances_read));
        figures.entry("4 engine and store").or_default().push(measured(events, through_engine::engine));
    }
    report(events, &figures);
}

#[derive(Clone, Copy, Debug)]
struct Figure {
    per_second: f64,
    cpu_us: f64,
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
fn measured(events: usize, run: fn(&Path, usize) -> Box<dyn FnOnce()>) -> Figure {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the build folder can be written");
    let work = run(&folder.path().join("bench.db"), events);
    let (began, cpu) = (Instant::now(), cpu_ms());
    work();
    let seconds = began.elapsed().as_secs_f64();
    let count = as_float(events);
    Figure { per_second: count / seconds, cpu_us: (cpu_ms() - cpu) * 1000.0 / count }
}

#[expect(clippy::print_stdout, reason = "figures are what it is run for")]
fn report(events: usize, figures: &BTreeMap<&str, Vec<Figure>>) {
    println!("three-step sagas, {events} events, {BATCH} a transaction, synchronous=FULL");
    let mut ceiling = None;
    for (name, runs) in figures {
        let (per_second, lowest, highest) = median(runs.iter().map(|figure| figure.per_second).collect());
        let (cpu_us, ..) = median(runs.iter().map(|figure| figure.cpu_us).collect());
        let share = 100.0 * per_second / *ceiling.get_or_insert(per_second);
        println!(
            "{:<22} {per_second:>8.0} events/s ({lowest:.0}–{highest:.0}) {cpu_us:>7.1} µs CPU/event {share:>5.0} %",
            &name[2..]
        );
    }
}

fn median(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    (values[values.len() / 2], values[0], values[values.len() - 1])
}

fn as_float(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::MAX, f64::from)
}

/// CPU time of this process, all threads, in milliseconds.
fn cpu_ms() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    // utime and stime in hundredths of a second.
    let ticks = |field: usize| fields.get(field).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) * 10.0
}

/// One saga's instance as it stands after each event, with what came in and what went out.
struct Stage {
    /// Its head is known once it has been written.
    stored: Stored,
    given: Given,
    messages: Vec<Outgoing>,
}

fn stages(id: InstanceId, key: &str) -> Vec<Stage> {
    (0..STAGES)
        .map(|stage| Stage {
            stored: Stored { instance: instance(id, key, stage), head: Head { seq: 0, digest: ChainDigest([0; 16]) } },
            given: given(id, stage),
            messages: messages(id, stage),
        })
        .collect()
}

fn instance(id: InstanceId, key: &str, stage: usize) -> Instance {
    let ended = stage == STAGES - 1;
    let steps: Vec<_> = (0..STAGES.min(stage + 1).min(3))
        .map(|step| {
            json!({
                "state": format!("step-{step}"), "entry": step + 1, "question": 1,
                "effect": if step == stage { "sent" } else { "done" }, "open": step == stage, "body": body(step),
                "attempt": 1, "tries": 1, "sent_at": AT
            })
        })
        .collect();
    // Through text: the bodies are raw JSON.
    let text = json!({
        "id": id, "definition": 1, "saga": "bench", "key": key, "started_at": AT, "updated_at": AT, "turn": stage + 1,
        "moved": stage + 1, "status": "running", "state": format!("step-{stage}"), "entry": stage + 1, "entered_at": AT,
        "data": {"request": body(0), "total": 17}, "steps": steps, "serial": stage + 1, "origin": {}
    })
    .to_string();
    let mut instance: Instance = serde_json::from_str(&text).expect("it is an instance");
    if ended {
        instance.status = Status::Completed;
        instance.ended_at = Some(AT);
    } else {
        let serial = u32::try_from(stage).expect("a few");
        instance.timers = vec![Timer {
            serial,
            what: TimerKind::StepLimit { index: serial },
            start: TimerStart::Confirm { after_ms: 30_000 },
        }];
    }
    instance
}

/// Some 300 bytes, as the figures in the design are for.
fn body(step: usize) -> serde_json::Value {
    json!({"step": step, "customer": "c-1234567", "lines": [{"sku": "A-100", "n": 2}, {"sku": "B-200", "n": 1}],
           "note": "x".repeat(190)})
}

fn given(id: InstanceId, stage: usize) -> Given {
    let command = CommandId::new(id, &format!("{stage}//do/1"));
    let message = Message {
        kind: "StepDone".to_owned(),
        id: Some(command.message_id(7).to_string()),
        source: "participant".to_owned(),
        correlation_id: Some(command.to_string()),
        reply_to: None,
        time: AT,
        traceparent: None,
        headers: serde_json::Map::new(),
        routing_key: "StepDone".to_owned(),
        body: body(stage),
    };
    let input = if stage == 0 { Input::Start(message) } else { Input::Answer { command, message } };
    Given { at: AT, input, unreached: Vec::new() }
}

fn messages(id: InstanceId, stage: usize) -> Vec<Outgoing> {
    if stage == STAGES - 1 {
        return Vec::new();
    }
    let index = u32::try_from(stage).expect("a few");
    let command = CommandId::new(id, &format!("{stage}//do/1"));
    vec![Outgoing {
        to: Destination::Command { address: "participant".to_owned() },
        kind: "DoStep".to_owned(),
        message_id: command.message_id(1),
        correlation_id: command.to_string(),
        at: AT,
        body: Json::of(&body(stage)),
        headers: serde_json::Map::new(),
        trace: None,
        command: Some(CommandPart {
            subject: Subject::Step { index, attempt: 1 },
            state: format!("step-{stage}"),
            attempt: 1,
            undoes: None,
            limit: Some(Limit { serial: index, after_ms: 30_000 }),
            awaits: true,
        }),
        chosen: None,
        stamp: None,
    }]
}

/// The order in which events of the sagas under way arrive: `(saga, stage)`.
fn order(events: usize) -> impl Iterator<Item = (usize, usize)> {
    let round = IN_FLIGHT * STAGES;
    (0..events).map(move |event| {
        let (block, within) = (event / round, event % round);
        (block * IN_FLIGHT + within % IN_FLIGHT, within / IN_FLIGHT)
    })
}

/// A message id without any order, as most senders make them.
fn random_id(saga: usize) -> String {
    let seed = xxhash_rust::xxh3::xxh3_128(&saga.to_le_bytes());
    uuid::Builder::from_random_bytes(seed.to_le_bytes()).into_uuid().to_string()
}

fn no(saga: usize) -> InstanceNo {
    InstanceNo((AT.0.unsigned_abs() << 12) + saga as u64)
}

#[derive(Clone, Copy)]
enum Instances {
    InMemory,
    Read,
}

fn with_instances_in_memory(path: &Path, events: usize) -> Box<dyn FnOnce()> {
    through_the_store(path, events, Instances::InMemory)
}

fn with_instances_read(path: &Path, events: usize) -> Box<dyn FnOnce()> {
    through_the_store(path, events, Instances::Read)
}

fn through_the_store(path: &Path, events: usize, instances: Instances) -> Box<dyn FnOnce()> {
    let mut store = Store::create_or_open(path).expect("a new database opens");
    let database = store.database();
    let mut batch = store.batch().expect("it can be written");
    let text =
        DefinitionText { saga: "bench", digest: Digest([1; 32]), source: "saga: bench", file: "", loaded_at: AT };
    batch.definition_no(&text).expect("it can be written");
    batch.commit().expect("it can be written");
    let sagas = events.div_ceil(STAGES);
    let mut prepared: Vec<Vec<Stage>> =
        (0..sagas).map(|saga| stages(InstanceId::new(no(saga), database), &format!("key-{saga}"))).collect();
    Box::new(move || {
        let order: Vec<(usize, usize)> = order(events).collect();
        for piece in order.chunks(BATCH) {
            one_batch(&mut store, piece, &mut prepared, instances).expect("the benchmark's own turns can be written");
        }
        // Giving the prepared memory back is no part of the work.
        std::mem::forget(prepared);
    })
}

fn one_batch(
    store: &mut Store,
    piece: &[(usize, usize)],
    prepared: &mut [Vec<Stage>],
    instances: Instances,
) -> Result<(), sagad::store::StoreError> {
    let mut batch = store.batch()?;
    let saga_no = batch.name_saga("bench")?;
    let mut last = 0;
    for (saga, stage) in piece {
        let (earlier, later) = prepared[*saga].split_at_mut(*stage);
        let Stage { stored, given, messages } = &mut later[0];
        let after = &stored.instance;
        let read;
        let before: Option<&Stored> = match (earlier.last(), instances) {
            (None, _) => {
                let key = MessageKey::of("shop", "OrderPlaced", &random_id(*saga));
                assert_eq!(batch.seen(&key)?, None);
                batch.remember(&key, body_digest(b"body"))?;
                assert_eq!(batch.newest_by_key("bench", &after.key)?, None);
                None
            }
            (Some(earlier), Instances::InMemory) => Some(&earlier.stored),
            (Some(_), Instances::Read) => {
                read = batch.instance(after.id.no())?;
                read.as_ref()
            }
        };
        let row = TurnRow {
            before,
            after,
            given,
            messages,
            weight: Weight::Moved,
            changed: &[],
            notes: &[],
            listening_ms: 1000,
        };
        let head = batch.save_turn(&row)?;
        if let Some(timer) = after.timers.first() {
            batch.start_limit(after.id.no(), timer.serial, 1000, 30_000)?;
        }
        last = head.seq;
        stored.head = head;
    }
    batch.keep_listening(saga_no, 1000)?;
    batch.keep_cursor(last)?;
    batch.commit()
}

/// The bytes that one event writes, made before the clock starts.
struct Bytes {
    no: i64,
    key: String,
    given: String,
    messages: Option<String>,
    body: Vec<u8>,
    inbox: [u8; 16],
}

fn statements(path: &Path, events: usize) -> Box<dyn FnOnce()> {
    drop(Store::create_or_open(path).expect("a new database opens"));
    let connection = Connection::open(path).expect("it opens again");
    connection
        .execute_batch(
            "PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 16000; PRAGMA cache_size = -16384;
             PRAGMA temp_store = MEMORY",
        )
        .expect("settings hold");
    let sagas = events.div_ceil(STAGES);
    let database = sagad::saga::ids::DatabaseId(Uuid::from_u128(1));
    let prepared: Vec<Vec<Bytes>> = (0..sagas)
        .map(|saga| {
            let key = format!("key-{saga}");
            let stages = stages(InstanceId::new(no(saga), database), &key);
            stages.into_iter().map(|stage| bytes(saga, &key, &stage)).collect()
        })
        .collect();
    Box::new(move || {
        bare(&connection, events, &prepared).expect("the statements hold");
    })
}

fn bytes(saga: usize, key: &str, stage: &Stage) -> Bytes {
    Bytes {
        no: i64::try_from(no(saga).0).expect("a number of this century"),
        key: key.to_owned(),
        given: serde_json::to_string(&stage.given).expect("it serialises"),
        messages: (!stage.messages.is_empty()).then(|| serde_json::to_string(&stage.messages).expect("they serialise")),
        body: serde_json::to_vec(&stage.stored.instance).expect("it serialises"),
        inbox: MessageKey::of("shop", "OrderPlaced", &random_id(saga)).0,
    }
}

/// Kept prepared by whoever uses them: what the library's own cache costs is part of the store's price.
struct Kept<'c> {
    seen: Statement<'c>,
    remember: Statement<'c>,
    by_key: Statement<'c>,
    load: Statement<'c>,
    log: Statement<'c>,
    insert: Statement<'c>,
    update: Statement<'c>,
    end: Statement<'c>,
    set_timer: Statement<'c>,
    start_timer: Statement<'c>,
    drop_timer: Statement<'c>,
    tally: Statement<'c>,
    listening: Statement<'c>,
    cursor: Statement<'c>,
    begin: Statement<'c>,
    commit: Statement<'c>,
}

impl<'c> Kept<'c> {
    fn new(connection: &'c Connection) -> rusqlite::Result<Kept<'c>> {
        Ok(Kept {
            seen: connection.prepare(
                "SELECT body FROM seen_0 WHERE id = ?1 UNION ALL SELECT body FROM seen_1 WHERE id = ?1 LIMIT 1",
            )?,
            remember: connection.prepare("INSERT INTO seen_0 (id, body) VALUES (?1, ?2) ON CONFLICT DO NOTHING")?,
            by_key: connection
                .prepare("SELECT no FROM instance WHERE saga = ?1 AND key = ?2 ORDER BY no DESC LIMIT 1")?,
            load: connection.prepare(
                "SELECT no, saga, key, definition, status, marks, state, incident, outcome, turn, moved, started_at,
                        updated_at, ended_at, seq, digest, checksum, body FROM instance WHERE no = ?1",
            )?,
            log: connection.prepare(
                "INSERT INTO log (instance, turn, prev, at, rules, weight, from_status, from_state, to_status, to_state,
                                  outgoing, given, messages, changed, notes, after, digest)
                 VALUES (?1, ?2, ?3, ?4, 1, 1, 1, 1, 1, 1, 1, ?5, ?6, NULL, NULL, ?7, ?7)",
            )?,
            insert: connection.prepare(
                "INSERT INTO instance (no, saga, key, definition, status, marks, state, incident, outcome, turn, moved,
                                       started_at, updated_at, ended_at, seq, digest, checksum, body)
                 VALUES (?1, 1, ?2, 1, 1, 0, 1, NULL, NULL, 1, 1, ?3, ?3, NULL, ?4, ?5, ?6, ?7)",
            )?,
            update: connection.prepare(
                "UPDATE instance SET definition = 1, state = 1, incident = NULL, outcome = NULL, turn = ?2,
                        moved = ?2, updated_at = ?3, seq = ?4, digest = ?5, checksum = ?6, body = ?7 WHERE no = ?1",
            )?,
            end: connection.prepare(
                "UPDATE instance SET saga = 1, key = ?8, definition = 1, status = 3, marks = 0, state = 1,
                        incident = NULL, outcome = NULL, turn = ?2, moved = ?2, started_at = ?3, updated_at = ?3,
                        ended_at = ?3, seq = ?4, digest = ?5, checksum = ?6, body = ?7 WHERE no = ?1",
            )?,
            set_timer: connection.prepare(
                "INSERT INTO timer (instance, serial, lane, due, remaining) VALUES (?1, ?2, 1, NULL, NULL)
                 ON CONFLICT DO UPDATE SET lane = excluded.lane, due = excluded.due, remaining = excluded.remaining",
            )?,
            start_timer: connection.prepare(
                "UPDATE timer SET due = CASE WHEN remaining IS NULL THEN ?3 END,
                                  remaining = CASE WHEN remaining IS NULL THEN NULL ELSE ?3 END
                 WHERE instance = ?1 AND serial = ?2 AND due IS NULL AND (remaining IS NULL OR remaining < 0)",
            )?,
            drop_timer: connection.prepare("DELETE FROM timer WHERE instance = ?1 AND serial = ?2")?,
            tally: connection.prepare(
                "INSERT INTO tally (definition, status, state, marks, incident, n) VALUES (1, ?1, ?2, 0, 0, ?3)
                 ON CONFLICT DO UPDATE SET n = n + excluded.n",
            )?,
            listening: connection.prepare("UPDATE saga SET listening_ms = ?1 WHERE no = 1")?,
            cursor: connection.prepare(
                "INSERT INTO meta (name, value) VALUES ('cursor', ?1) ON CONFLICT DO UPDATE SET value = excluded.value",
            )?,
            begin: connection.prepare("BEGIN IMMEDIATE")?,
            commit: connection.prepare("COMMIT")?,
        })
    }
}

fn bare(connection: &Connection, events: usize, prepared: &[Vec<Bytes>]) -> rusqlite::Result<()> {
    let mut kept = Kept::new(connection)?;
    let order: Vec<(usize, usize)> = order(events).collect();
    let mut heads = vec![0_i64; prepared.len()];
    for piece in order.chunks(BATCH) {
        kept.begin.execute(())?;
        let mut last = 0;
        for (saga, stage) in piece {
            last = bare_event(connection, &mut kept, &prepared[*saga][*stage], *stage, &mut heads[*saga])?;
        }
        for state in 1..=4 {
            kept.tally.execute((1, state, 1))?;
        }
        kept.listening.execute((1000,))?;
        kept.cursor.execute((last,))?;
        kept.commit.execute(())?;
    }
    Ok(())
}

fn bare_event(
    connection: &Connection,
    kept: &mut Kept<'_>,
    bytes: &Bytes,
    stage: usize,
    head: &mut i64,
) -> rusqlite::Result<i64> {
    let turn = i64::try_from(stage + 1).expect("a few");
    let digest = bytes.inbox;
    if stage == 0 {
        assert!(kept.seen.query((digest,))?.next()?.is_none());
        kept.remember.execute((digest, 7))?;
        assert!(kept.by_key.query((1, &bytes.key))?.next()?.is_none());
    } else {
        let read: Vec<u8> = kept.load.query_row((bytes.no,), |row| row.get(17))?;
        assert!(!read.is_empty());
    }
    let prev = (stage > 0).then_some(*head);
    kept.log.execute((bytes.no, turn, prev, AT.0, &bytes.given, &bytes.messages, digest))?;
    let seq = connection.last_insert_rowid();
    *head = seq;
    match stage {
        0 => kept.insert.execute((bytes.no, &bytes.key, AT.0, seq, digest, 7, &bytes.body))?,
        stage if stage == STAGES - 1 => {
            kept.end.execute((bytes.no, turn, AT.0, seq, digest, 7, &bytes.body, &bytes.key))?
        }
        _ => kept.update.execute((bytes.no, turn, AT.0, seq, digest, 7, &bytes.body))?,
    };
    if stage > 0 {
        kept.drop_timer.execute((bytes.no, turn - 2))?;
    }
    if stage < STAGES - 1 {
        kept.set_timer.execute((bytes.no, turn - 1))?;
        kept.start_timer.execute((bytes.no, turn - 1, 31_000))?;
    }
    Ok(seq)
}
