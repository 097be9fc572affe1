//! The store from outside: what survives a kill, what is found when it rots, what is kept beside the instances, and old
//! files. Everything through the writer and the reader, as the daemon uses them.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking, and so may what only tests use")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use proptest::prelude::*;
use sagad::saga::effect::{CommandPart, Destination, Json, Outgoing};
use sagad::saga::event::{Given, Input, Message, Subject};
use sagad::saga::ids::{CommandId, DatabaseId, InstanceId, InstanceNo};
use sagad::saga::incident::{Incident, IncidentKind};
use sagad::saga::instance::{Instance, Marks, Status, Timer, TimerKind, TimerStart};
use sagad::saga::machine::Digest;
use sagad::saga::time::Timestamp;
use sagad::store::{
    Aside, AsideFilter, AsideKind, Batch, Clock, DefinitionText, Head, Holder, JournalOrder, Lock, Memory, MessageKey,
    MessageRef, OrderRecord, Reader, Selector, Store, StoreError, Stored, Straggle, StragglerOutcome, TurnRow, Wanted,
    Weight,
};
use serde_json::json;
use uuid::Uuid;

const START: Timestamp = Timestamp(1_893_456_000_000);

#[test]
fn what_was_committed_survives_a_kill_and_what_was_not_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sagad.db");
    let mut child = writer_in_a_process(&path);
    let mut said = BufReader::new(child.stdout.take().unwrap());
    let committed = loop {
        let mut line = String::new();
        assert_ne!(said.read_line(&mut line).unwrap(), 0, "the child ended by itself");
        // The test runner may print before it on the same line.
        if let Some((_, number)) = line.trim().split_once("committed ") {
            let number: u64 = number.parse().unwrap();
            if number == 40 {
                break number;
            }
        }
    };
    // It goes on writing: this falls anywhere, within a transaction for the most part.
    child.kill().unwrap();
    child.wait().unwrap();
    let mut later = String::new();
    said.read_to_string(&mut later).unwrap();
    let committed = later
        .lines()
        .filter_map(|line| line.trim().strip_prefix("committed ")?.parse().ok())
        .next_back()
        .unwrap_or(committed);

    let lock = Lock::take(&path, &holder()).expect("a killed process holds no lock");
    let store = Store::create_or_open(&path).unwrap();
    let reader = Reader::open(&path).unwrap();
    let page = reader.instances(&Selector::default(), None, 1000).unwrap();
    let stored = store.instance(page.rows[0].no).unwrap().unwrap();
    // The one that was under way when the child died may have become durable before it could say so.
    assert!([committed, committed + 1].contains(&stored.instance.turn), "{committed} {}", stored.instance.turn);
    assert_eq!(page.rows.len(), 1);
    assert_eq!(reader.broken_chain(page.rows[0].no).unwrap(), None);
    assert_eq!(counted(&reader), recounted(&reader));
    drop(lock);
}

/// What the test above starts in a process of its own; without the variable it has nothing to do.
#[test]
fn a_process_that_writes_until_it_is_killed() {
    let Some(path) = std::env::var_os("SAGAD_TEST_WRITER").map(PathBuf::from) else { return };
    let _lock = Lock::take(&path, &holder()).unwrap();
    let mut store = Store::create_or_open(&path).unwrap();
    let mut out = std::io::stdout();
    let mut batch = store.batch().unwrap();
    let mut stored = start(&mut batch, "join-group", "k", "reserve");
    batch.commit().unwrap();
    loop {
        let mut batch = store.batch().unwrap();
        let mut after = stored.instance.clone();
        after.turn += 1;
        stored = save(&mut batch, Some(&stored), after, &[]);
        batch.commit().unwrap();
        writeln!(out, "committed {}", stored.instance.turn).unwrap();
        out.flush().unwrap();
    }
}

fn writer_in_a_process(path: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "store::a_process_that_writes_until_it_is_killed", "--nocapture"])
        .env("SAGAD_TEST_WRITER", path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn a_second_process_is_told_who_holds_the_database() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sagad.db");
    assert_eq!(Lock::holder(&path).unwrap(), None);
    let mut child = writer_in_a_process(&path);
    let mut said = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("committed") {
        line.clear();
        assert_ne!(said.read_line(&mut line).unwrap(), 0, "the child ended by itself");
    }
    let Err(StoreError::Held { pid, .. }) = Lock::take(&path, &holder()) else { panic!("taken twice") };
    assert_eq!(pid, child.id());
    assert_eq!(Lock::holder(&path).unwrap().map(|holder| holder.pid), Some(child.id()));
    // Looking needs no lock.
    assert_eq!(Reader::open(&path).unwrap().instances(&Selector::default(), None, 10).unwrap().rows.len(), 1);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(Lock::holder(&path).unwrap(), None);
    Lock::take(&path, &holder()).unwrap();
}

#[test]
fn the_lock_is_free_again_when_it_is_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sagad.db");
    let mut lock = Lock::take(&path, &holder()).unwrap();
    let named = Holder { database: Some("d".to_owned()), ..holder() };
    lock.tell(&named).unwrap();
    assert_eq!(Lock::holder(&path).unwrap(), Some(named));
    assert!(matches!(Lock::take(&path, &holder()), Err(StoreError::Held { .. })));
    drop(lock);
    Lock::take(&path, &holder()).unwrap();
}

#[test]
fn a_batch_that_is_dropped_leaves_nothing() {
    let memory = memory();
    let mut store = Store::open_in(&memory).unwrap();
    let mut batch = store.batch().unwrap();
    let stored = start(&mut batch, "join-group", "a", "reserve");
    batch.remember(&MessageKey::of("", "T", "1"), 7).unwrap();
    drop(batch);
    assert_eq!(store.instance(stored.instance.id.no()).unwrap(), None);
    assert_eq!(store.seen(&MessageKey::of("", "T", "1")).unwrap(), None);
    // Names that it gave are given again, and everything can be written as if for the first time.
    let mut batch = store.batch().unwrap();
    let stored = start(&mut batch, "join-group", "a", "reserve");
    batch.commit().unwrap();
    let reader = Reader::open_in(&memory).unwrap();
    assert_eq!(reader.instance(stored.instance.id.no()).unwrap(), Some(stored));
    assert_eq!(counted(&reader), recounted(&reader));
}

#[test]
fn a_savepoint_takes_back_its_own_part_alone() {
    let memory = memory();
    let mut store = Store::open_in(&memory).unwrap();
    let mut batch = store.batch().unwrap();
    let kept = start(&mut batch, "join-group", "a", "reserve");
    let rehearsal = batch.savepoint().unwrap();
    start(&mut batch, "another-saga", "b", "another-state");
    batch.count_foreign(5);
    batch.roll_back(rehearsal).unwrap();
    let second = batch.savepoint().unwrap();
    let more = start(&mut batch, "another-saga", "c", "another-state");
    batch.release(second).unwrap();
    batch.commit().unwrap();
    assert_eq!(store.foreign(), 0);
    let reader = Reader::open_in(&memory).unwrap();
    let rows = reader.instances(&Selector::default(), None, 10).unwrap().rows;
    assert_eq!(rows.iter().map(|row| row.no).collect::<Vec<_>>(), [more.instance.id.no(), kept.instance.id.no()]);
    assert_eq!(counted(&reader), recounted(&reader));
}

#[test]
fn an_instances_number_is_never_given_twice() {
    let memory = memory();
    let first = {
        let mut store = Store::open_in(&memory).unwrap();
        let mut batch = store.batch().unwrap();
        let first = start(&mut batch, "join-group", "a", "reserve");
        let ended = end(&mut batch, &first, Status::Completed, START);
        batch.keep_cursor(ended.head.seq).unwrap();
        assert_eq!(batch.purge_ended(Timestamp(START.0 + 1), 10).unwrap().items, 1);
        batch.commit().unwrap();
        first.instance.id.no()
    };
    let mut store = Store::open_in(&memory).unwrap();
    let mut batch = store.batch().unwrap();
    // The clock went back, and nothing of the first is left but the memory of its number.
    assert!(batch.next_instance_no(Timestamp(START.0 - 1000)).unwrap() > first);
}

#[test]
fn a_turn_that_does_not_follow_is_refused_and_spoils_nothing() {
    let mut store = Store::open_in(&memory()).unwrap();
    let mut batch = store.batch().unwrap();
    let stored = start(&mut batch, "join-group", "a", "reserve");
    let mut skipped = stored.instance.clone();
    skipped.turn += 2;
    let error = try_save(&mut batch, Some(&stored), &skipped, &[], 0).unwrap_err();
    assert!(matches!(error, StoreError::Defect { .. }) && !error.is_fatal(), "{error}");
    batch.commit().unwrap();
    assert!(store.instance(stored.instance.id.no()).unwrap().is_some());
}

#[test]
fn a_flipped_bit_is_found_wherever_it_falls_and_never_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sagad.db");
    let no = {
        let mut store = Store::create_or_open(&path).unwrap();
        let mut batch = store.batch().unwrap();
        let first = start(&mut batch, "join-group", "a-key-to-find", "reserve");
        let mut after = first.instance.clone();
        after.turn += 1;
        after.data = json!({"what": "a-value-to-find"});
        let stored = save(&mut batch, Some(&first), after, &[command("a-command-to-find", 0)]);
        batch.commit().unwrap();
        stored.instance.id.no()
    };
    let good = std::fs::read(&path).unwrap();
    assert_eq!(Reader::open(&path).unwrap().broken_chain(no).unwrap(), None);
    for (text, in_instance) in [
        ("a-value-to-find", true),
        ("a-key-to-find\"", true),
        ("a-command-to-find", false),
        ("an-input-to-find", false),
    ] {
        let places: Vec<usize> = find(&good, text.as_bytes());
        assert!(!places.is_empty(), "{text} is not in the file");
        for place in places {
            let mut rotten = good.clone();
            rotten[place + 3] ^= 0x04;
            std::fs::write(&path, &rotten).unwrap();
            let reader = Reader::open(&path).unwrap();
            match reader.broken_chain(no) {
                Ok(broken) => assert!(broken.is_some(), "{text} at {place} went unnoticed"),
                Err(StoreError::Corrupt { .. }) => {}
                Err(error) => panic!("{error}"),
            }
            drop(reader);
            if in_instance {
                let mut store = Store::create_or_open(&path).unwrap();
                let error = store.instance(no).unwrap_err();
                assert!(matches!(error, StoreError::Corrupt { .. }) && error.is_fatal(), "{error}");
                // A writer that had read it before the rot cannot find out; one that reads it does not get to write.
                drop(store.batch().unwrap());
                drop(store);
                assert!(std::fs::read(&path).unwrap() == rotten, "the rotten file was changed");
            }
        }
    }
}

#[test]
fn a_newer_a_foreign_and_a_missing_file_are_refused_untouched() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sagad.db");
    assert!(matches!(Reader::open(&path), Err(StoreError::Missing { .. })));
    drop(Store::create_or_open(&path).unwrap());
    let mut newer = std::fs::read(&path).unwrap();
    // `user_version` stands at byte 60 of the file, big-endian.
    newer[60..64].copy_from_slice(&99_u32.to_be_bytes());
    std::fs::write(&path, &newer).unwrap();
    let error = Store::create_or_open(&path).unwrap_err();
    assert!(matches!(error, StoreError::Newer { found: 99, .. }), "{error}");
    assert!(matches!(Reader::open(&path), Err(StoreError::Newer { .. })));
    assert!(std::fs::read(&path).unwrap() == newer);

    std::fs::write(&path, "this is a text of somebody's and no database at all, whatever it is called".repeat(40))
        .unwrap();
    assert!(matches!(Store::create_or_open(&path), Err(StoreError::Foreign { .. })));
    assert!(matches!(Reader::open(&path), Err(StoreError::Foreign { .. })));

    let nowhere = folder.path().join("no-folder").join("sagad.db");
    let error = Store::create_or_open(&nowhere).unwrap_err();
    assert!(error.to_string().contains("No such file"), "{error}");
}

#[test]
fn files_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sagad.db");
    let _lock = Lock::take(&path, &holder()).unwrap();
    let mut store = Store::create_or_open(&path).unwrap();
    let mut batch = store.batch().unwrap();
    start(&mut batch, "join-group", "a", "reserve");
    batch.commit().unwrap();
    let modes = std::fs::read_dir(folder.path()).unwrap().map(|entry| {
        let entry = entry.unwrap();
        (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().permissions().mode() & 0o777)
    });
    let modes: BTreeMap<String, u32> = modes.collect();
    assert!(
        modes.contains_key("sagad.db") && modes.contains_key("sagad.db-wal") && modes.contains_key("sagad.db.lock")
    );
    assert!(modes.values().all(|mode| *mode == 0o600), "{modes:?}");
}

#[test]
fn timers_come_in_order_of_due_time_each_on_its_clock() {
    let mut store = Store::open_in(&memory()).unwrap();
    let mut batch = store.batch().unwrap();
    let one =
        with_timers(&mut batch, "a", &[TimerStart::At(Timestamp(300)), TimerStart::Listening { after_ms: 50 }], 1000);
    let other =
        with_timers(&mut batch, "b", &[TimerStart::At(Timestamp(100)), TimerStart::Confirm { after_ms: 20 }], 1000);
    let saga = batch.name_saga("join-group").unwrap();
    let listening = Clock::Listening(saga);
    assert_eq!(due(&batch, Clock::Wall, 400), [(other.no(), 0, 100), (one.no(), 0, 300)]);
    assert_eq!(due(&batch, Clock::Wall, 299), [(other.no(), 0, 100)]);
    assert_eq!(batch.next_due(listening).unwrap(), Some(1050));
    // A limit begins with the confirm, once.
    assert!(batch.start_limit(other.no(), 1, 1010, 20).unwrap());
    assert!(!batch.start_limit(other.no(), 1, 1999, 20).unwrap());
    assert!(!batch.start_limit(other.no(), 9, 1999, 20).unwrap());
    assert_eq!(due(&batch, listening, 2000), [(other.no(), 1, 1030), (one.no(), 1, 1050)]);
    batch.spend_timer(other.no(), 1).unwrap();
    assert_eq!(due(&batch, listening, 2000), [(one.no(), 1, 1050)]);
    batch.keep_listening(saga, 1234).unwrap();
    batch.commit().unwrap();
    assert_eq!(store.listening().unwrap(), [(saga, 1234)]);
}

#[test]
fn a_held_instance_keeps_what_is_left_of_its_limits() {
    let mut store = Store::open_in(&memory()).unwrap();
    let mut batch = store.batch().unwrap();
    let starts = [
        TimerStart::Listening { after_ms: 500 },
        TimerStart::Confirm { after_ms: 70 },
        TimerStart::Confirm { after_ms: 90 },
        TimerStart::At(Timestamp(5)),
    ];
    let no = with_timers(&mut batch, "a", &starts, 1000).no();
    let listening = Clock::Listening(batch.name_saga("join-group").unwrap());
    let mut held = batch.instance(no).unwrap().unwrap();
    let mut paused = held.instance.clone();
    paused.turn += 1;
    paused.paused = true;
    held.head = try_save(&mut batch, Some(&held), &paused, &[], 1200).unwrap();
    held.instance = paused;
    assert_eq!(batch.next_due(listening).unwrap(), None);
    assert_eq!(due(&batch, Clock::Wall, 10), [(no, 3, 5)], "wall time does not stop");
    // A confirm comes meanwhile: its limit begins when the instance goes on.
    assert!(batch.start_limit(no, 1, 1300, 70).unwrap());
    let mut freed = held.instance.clone();
    freed.turn += 1;
    freed.paused = false;
    try_save(&mut batch, Some(&held), &freed, &[], 5000).unwrap();
    assert_eq!(due(&batch, listening, 9000), [(no, 1, 5070), (no, 0, 5300)]);
    assert!(batch.start_limit(no, 2, 6000, 90).unwrap());
    assert_eq!(due(&batch, listening, 9000).last(), Some(&(no, 2, 6090)));
}

#[test]
fn the_inbox_knows_a_message_for_its_retention_and_forgets_it_later() {
    let memory = memory();
    let mut store = Store::open_in(&memory).unwrap();
    let key = MessageKey::of("shop", "OrderPlaced", "17");
    assert_ne!(key, MessageKey::of("shopO", "rderPlaced", "17"));
    let day = 86_400_000;
    let mut turn = |days: i64| {
        let mut batch = store.batch().unwrap();
        let turned = batch.turn_inbox(Timestamp(START.0 + days * day), 7 * day.unsigned_abs()).unwrap();
        if days == 6 {
            batch.remember(&key, u64::MAX).unwrap();
        }
        batch.commit().unwrap();
        (turned, store.seen(&key).unwrap())
    };
    assert_eq!(turn(0), (false, None));
    assert_eq!(turn(6), (false, Some(u64::MAX)));
    assert_eq!(turn(7), (true, Some(u64::MAX)));
    assert_eq!(turn(13), (false, Some(u64::MAX)), "seven days have not gone by");
    assert_eq!(turn(14), (true, None));
    drop(store);
    let mut store = Store::open_in(&memory).unwrap();
    let mut batch = store.batch().unwrap();
    assert!(!batch.turn_inbox(Timestamp(START.0 + 20 * day), 7 * day.unsigned_abs()).unwrap(), "it knows since when");
}

#[test]
fn ids_that_are_ordered_by_time_keep_their_order() {
    let id =
        |ms: u64| Uuid::from_u128((u128::from(ms) << 80) | (7 << 76) | (0b10 << 62) | u128::from(ms % 7)).to_string();
    let keys: Vec<MessageKey> = (0..100).map(|at| MessageKey::of("s", "T", &id(1_893_456_000_000 + at))).collect();
    assert!(keys.is_sorted());
    assert_ne!(keys[0], MessageKey::of("s", "U", &id(1_893_456_000_000)));
}

#[test]
fn what_the_broker_does_not_have_is_handed_out_in_the_order_of_the_commits() {
    let memory = memory();
    let mut store = Store::open_in(&memory).unwrap();
    let mut batch = store.batch().unwrap();
    let first = start_with(&mut batch, "join-group", "a", "reserve", &[command("One", 0), command("Two", 1)]);
    let silent = start(&mut batch, "join-group", "b", "reserve");
    let loose = batch.append_loose(START, &[command("Three", 0)]).unwrap();
    batch.commit().unwrap();

    let unsent = store.unsent(0, 100).unwrap();
    let names: Vec<&str> = unsent.messages.iter().map(|(_, message)| message.kind.as_str()).collect();
    assert_eq!((names.as_slice(), unsent.reached, unsent.whole), (["One", "Two", "Three"].as_slice(), loose, true));
    assert_eq!(unsent.messages[0].1.stamp, Some(first.instance.stamp()), "the instance's names are filled in");
    assert_eq!(unsent.messages[2].1.stamp, None);
    let piece = store.unsent(0, 1).unwrap();
    assert_eq!((piece.messages.len(), piece.reached, piece.whole), (2, first.head.seq, false), "whole rows");

    // The first is returned, the second nacked; then the first is withdrawn. The cursor is still before them.
    let (one, two) = (MessageRef { seq: first.head.seq, place: 0 }, MessageRef { seq: first.head.seq, place: 1 });
    let mut batch = store.batch().unwrap();
    assert!(batch.straggle(&straggle(one, &first.instance, 0, StragglerOutcome::Returned)).unwrap());
    assert!(batch.straggle(&straggle(two, &first.instance, 1, StragglerOutcome::Nacked)).unwrap());
    let no = first.instance.id.no();
    assert_eq!(batch.unreached(no).unwrap(), [Subject::Step { index: 0, attempt: 1 }], "a nack says nothing");
    assert_eq!(batch.stragglers_of(no, Subject::Step { index: 0, attempt: 1 }).unwrap(), [one]);
    assert!(batch.settle(one).unwrap());
    assert!(!batch.settle(one).unwrap());
    batch.commit().unwrap();
    assert_eq!(store.unsent(0, 100).unwrap().messages.len(), 1, "neither a straggler nor a withdrawn one is unsent");
    assert_eq!(store.instances_unsent().unwrap().into_iter().collect::<Vec<_>>(), [no]);
    assert_eq!(Reader::open_in(&memory).unwrap().count_outbox().unwrap(), 2);
    let rows = Reader::open_in(&memory).unwrap().outbox(10).unwrap();
    assert_eq!(rows.iter().map(|row| row.message.seq).collect::<Vec<_>>(), [first.head.seq, loose]);
    assert_eq!(rows[0].straggler.as_ref().map(|straggler| straggler.tries), Some(1));

    let mut batch = store.batch().unwrap();
    batch.keep_cursor(loose).unwrap();
    batch.commit().unwrap();
    assert_eq!(store.unsent(0, 100).unwrap().messages, []);
    assert_eq!(store.count_stragglers().unwrap(), 1);
    assert!(silent.head.seq < loose);
}

#[test]
fn a_straggler_that_was_under_way_when_the_daemon_died_may_have_arrived() {
    let memory = memory();
    let mut store = Store::open_in(&memory).unwrap();
    let mut batch = store.batch().unwrap();
    let first = start_with(&mut batch, "join-group", "a", "reserve", &[command("One", 0)]);
    let at = MessageRef { seq: first.head.seq, place: 0 };
    let no = first.instance.id.no();
    batch.straggle(&straggle(at, &first.instance, 0, StragglerOutcome::Returned)).unwrap();
    assert_eq!(batch.due_stragglers(999, 10).unwrap().len(), 0);
    assert_eq!(batch.due_stragglers(1000, 10).unwrap().len(), 1);
    batch.straggler_under_way(at).unwrap();
    assert_eq!(batch.unreached(no).unwrap(), [], "it may be arriving just now");
    assert_eq!(batch.due_stragglers(9999, 10).unwrap().len(), 0);
    batch.straggle(&straggle(at, &first.instance, 0, StragglerOutcome::Returned)).unwrap();
    assert_eq!(batch.unreached(no).unwrap().len(), 1, "returned again: nobody has it");
    assert_eq!(batch.straggler_tries(at).unwrap(), 2);
    batch.straggler_under_way(at).unwrap();
    batch.commit().unwrap();
    drop(store);

    let mut store = Store::open_in(&memory).unwrap();
    let due = store.due_stragglers(0, 10).unwrap();
    assert!(due.len() == 1 && due[0].maybe_taken, "due at once, and nobody knows");
    let mut batch = store.batch().unwrap();
    batch.straggle(&straggle(at, &first.instance, 0, StragglerOutcome::Returned)).unwrap();
    assert_eq!(batch.unreached(no).unwrap(), [], "once in doubt, always in doubt");
}

#[test]
fn a_message_that_may_have_gone_out_before_the_start_is_never_called_unreached() {
    let memory = memory();
    let first = {
        let mut store = Store::open_in(&memory).unwrap();
        let mut batch = store.batch().unwrap();
        let first = start_with(&mut batch, "join-group", "a", "reserve", &[command("One", 0)]);
        batch.commit().unwrap();
        first
    };
    let mut store = Store::open_in(&memory).unwrap();
    assert_eq!(store.opened_at_seq(), first.head.seq);
    let mut batch = store.batch().unwrap();
    let at = MessageRef { seq: first.head.seq, place: 0 };
    batch.straggle(&straggle(at, &first.instance, 0, StragglerOutcome::Returned)).unwrap();
    assert_eq!(batch.unreached(first.instance.id.no()).unwrap(), []);
}

#[test]
fn parked_inputs_wait_in_order() {
    let memory = memory();
    let mut store = Store::open_in(&memory).unwrap();
    let mut batch = store.batch().unwrap();
    let no = start(&mut batch, "join-group", "a", "reserve").instance.id.no();
    for serial in [5, 3, 4] {
        batch.park(no, &Input::Timer { serial }).unwrap();
    }
    assert_eq!(batch.instances_with_parked().unwrap(), [no]);
    let mut order = Vec::new();
    while let Some(parked) = batch.first_parked(no).unwrap() {
        let Input::Timer { serial } = parked.input else { panic!("{parked:?}") };
        order.push(serial);
        batch.unpark(no, parked.n).unwrap();
    }
    assert_eq!(order, [5, 3, 4]);
}

#[test]
fn what_is_set_aside_is_kept_once_and_within_its_bounds() {
    let memory = memory();
    let mut store = Store::open_in(&memory).unwrap();
    let mut batch = store.batch().unwrap();
    assert!(batch.set_aside(&aside("not-json", Some("1"), b"\xff\x00{")).unwrap());
    assert!(!batch.set_aside(&aside("not-json", Some("1"), b"\xff\x00{")).unwrap(), "a repetition");
    assert!(batch.set_aside(&aside("not-json", None, b"a")).unwrap());
    assert!(batch.set_aside(&aside("not-json", None, b"a")).unwrap(), "without an id nothing is known to be the same");
    assert!(batch.set_aside(&aside("id-reused", Some("1"), b"other")).unwrap());
    assert!(batch.set_aside(&aside("id-reused", Some("1"), b"another")).unwrap(), "each body counts");
    assert!(!batch.set_aside(&aside("id-reused", Some("1"), b"another")).unwrap());
    batch.commit().unwrap();
    let reader = Reader::open_in(&memory).unwrap();
    let all = reader.aside(&AsideFilter::default(), None, 100).unwrap();
    assert_eq!(all.iter().map(|row| row.n).collect::<Vec<_>>(), [6, 5, 4, 3, 1], "no number is given twice");
    assert_eq!(all[4].body, b"\xff\x00{");
    assert_eq!(all[4].headers.get("trace"), Some(&json!(1)));
    let reused = AsideFilter { reason: Some("id-reused".to_owned()), ..AsideFilter::default() };
    assert_eq!(reader.aside(&reused, None, 1).unwrap()[0].n, 6);
    assert_eq!(reader.aside(&reused, Some(6), 100).unwrap().len(), 1);
    assert_eq!(reader.aside_by_number(3).unwrap().unwrap().reason, "not-json");

    let mut batch = store.batch().unwrap();
    let purged = batch.purge_aside(START, 2, 2).unwrap();
    assert!(purged.items == 2 && purged.more, "{purged:?}");
    let purged = batch.purge_aside(START, 2, 2).unwrap();
    assert!(purged.items == 1 && !purged.more, "{purged:?}");
    batch.commit().unwrap();
    assert_eq!(reader.figures().unwrap().dropped, 3);
    let mut batch = store.batch().unwrap();
    batch.purge_aside(Timestamp(START.0 + 1), 2, 100).unwrap();
    batch.commit().unwrap();
    let figures = reader.figures().unwrap();
    assert_eq!((figures.dropped, figures.dead), (3, 0), "what went in its time is not dropped");
}

#[test]
fn orders_stay_when_their_instance_goes() {
    let memory = memory();
    let mut store = Store::open_in(&memory).unwrap();
    let mut batch = store.batch().unwrap();
    let first = start(&mut batch, "join-group", "a", "reserve");
    let no = first.instance.id.no();
    batch.record_order(&order("retry", Some(no), Some("r-1"))).unwrap();
    batch.record_order(&order("pause", None, None)).unwrap();
    let ended = end(&mut batch, &first, Status::Completed, START);
    batch.keep_cursor(ended.head.seq).unwrap();
    assert_eq!(batch.purge_ended(Timestamp(START.0 + 1), 10).unwrap().items, 1);
    batch.commit().unwrap();
    let before = store.orders_of_request("r-1").unwrap();
    assert_eq!(before.iter().map(|row| (row.instance, row.result.as_str())).collect::<Vec<_>>(), [(Some(no), "{}")]);
    let reader = Reader::open_in(&memory).unwrap();
    assert_eq!(
        reader.orders(None, 10).unwrap().iter().map(|row| row.verb.as_str()).collect::<Vec<_>>(),
        ["pause", "retry"]
    );
    let mut batch = store.batch().unwrap();
    assert_eq!(batch.purge_orders(Timestamp(START.0 + 1), 1).unwrap().items, 1);
    assert_eq!(batch.purge_orders(START, 10).unwrap().items, 0);
}

#[test]
fn only_what_has_ended_and_is_settled_is_purged_with_all_that_belongs_to_it() {
    let memory = memory();
    let mut store = Store::open_in(&memory).unwrap();
    let mut batch = store.batch().unwrap();
    let live = start(&mut batch, "join-group", "live", "reserve");
    let done = start(&mut batch, "join-group", "done", "reserve");
    let stuck = start(&mut batch, "join-group", "stuck", "reserve");
    let left = start(&mut batch, "join-group", "left", "reserve");
    let unsent = start(&mut batch, "join-group", "unsent", "reserve");
    end(&mut batch, &done, Status::Completed, START);
    let mut with_incident = stuck.instance.clone();
    with_incident.turn += 1;
    with_incident.status = Status::Completed;
    with_incident.ended_at = Some(START);
    with_incident.incidents = vec![incident(1, IncidentKind::Unroutable, "no queue")];
    save(&mut batch, Some(&stuck), with_incident, &[]);
    let left = end(&mut batch, &left, Status::Abandoned, START);
    batch.keep_cursor(left.head.seq).unwrap();
    end(&mut batch, &unsent, Status::Compensated, START);
    assert_eq!(batch.purge_ended(START, 10).unwrap().items, 0, "not before its time");
    let purged = batch.purge_ended(Timestamp(START.0 + 1), 10).unwrap();
    assert_eq!((purged.items, purged.rows, purged.more), (1, 2, false));
    assert!(!batch.purge_instance(live.instance.id.no()).unwrap());
    assert!(!batch.purge_instance(stuck.instance.id.no()).unwrap());
    assert!(batch.purge_instance(left.instance.id.no()).unwrap());
    assert_eq!(
        batch.live_after(None, 10).unwrap(),
        [live.instance.id.no(), stuck.instance.id.no()],
        "the sweep looks at what lives or is stuck"
    );
    batch.commit().unwrap();
    let reader = Reader::open_in(&memory).unwrap();
    let keys: Vec<String> =
        reader.instances(&Selector::default(), None, 10).unwrap().rows.into_iter().map(|row| row.key).collect();
    assert_eq!(keys, ["unsent", "stuck", "live"]);
    assert!(reader.journal(done.instance.id.no(), JournalOrder::OldestFirst, None, 10).unwrap().is_empty());
    assert_eq!(counted(&reader), recounted(&reader));
}

#[test]
fn an_instance_is_found_by_id_by_prefix_and_by_key() {
    let memory = memory();
    let mut store = Store::open_in(&memory).unwrap();
    let mut batch = store.batch().unwrap();
    let older = start(&mut batch, "join-group", "g/1", "reserve");
    let newer = start(&mut batch, "join-group", "g/1", "reserve");
    batch.commit().unwrap();
    let reader = Reader::open_in(&memory).unwrap();
    let find = |name: &str| reader.find(name).unwrap();
    let id = older.instance.id.to_string();
    assert_eq!(find(&id), Wanted::One(older.instance.id.no()));
    assert_eq!(find(&id.to_uppercase()), Wanted::One(older.instance.id.no()));
    assert_eq!(find("join-group/g/1"), Wanted::One(newer.instance.id.no()));
    assert_eq!(find("join-group/g/2"), Wanted::Nothing);
    assert_eq!(find(&id[..8]), Wanted::Several(vec![newer.instance.id, older.instance.id]));
    assert_eq!(find(&id[..7]), Wanted::Nothing, "too short to say anything");
    // The counter stands in the third group: from there on they differ.
    assert_eq!(find(&id[..18]), Wanted::One(older.instance.id.no()));
    let mut another = id.clone();
    another.replace_range(35..36, if id.ends_with('0') { "1" } else { "0" });
    assert_eq!(find(&another), Wanted::Nothing, "every digit counts");
}

#[test]
fn a_journal_is_read_in_pages_both_ways() {
    let memory = memory();
    let mut store = Store::open_in(&memory).unwrap();
    let mut batch = store.batch().unwrap();
    let mut stored = start(&mut batch, "join-group", "a", "reserve");
    for _ in 0..6 {
        start(&mut batch, "join-group", "between", "reserve");
        let mut after = stored.instance.clone();
        after.turn += 1;
        stored = save(&mut batch, Some(&stored), after, &[command("Do", 0)]);
    }
    batch.commit().unwrap();
    let reader = Reader::open_in(&memory).unwrap();
    let turns = |order, from, limit| -> Vec<u64> {
        reader.journal(stored.instance.id.no(), order, from, limit).unwrap().iter().map(|row| row.turn).collect()
    };
    assert_eq!(turns(JournalOrder::OldestFirst, None, 3), [1, 2, 3]);
    assert_eq!(turns(JournalOrder::OldestFirst, Some(3), 3), [4, 5, 6]);
    assert_eq!(turns(JournalOrder::OldestFirst, Some(6), 3), [7]);
    assert_eq!(turns(JournalOrder::NewestFirst, None, 3), [7, 6, 5]);
    assert_eq!(turns(JournalOrder::NewestFirst, Some(5), 10), [4, 3, 2, 1]);
    let row = &reader.journal(stored.instance.id.no(), JournalOrder::OldestFirst, Some(6), 1).unwrap()[0];
    assert_eq!(row.given().unwrap(), given(START));
    assert_eq!(row.messages().unwrap()[0].kind, "Do");
    assert_eq!(row.notes().unwrap(), ["a note"]);
    assert!(row.left(&serde_json::to_vec(&stored.instance).unwrap()));
}

#[test]
fn a_backup_is_a_database_that_holds_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sagad.db");
    let mut store = Store::create_or_open(&path).unwrap();
    let mut batch = store.batch().unwrap();
    let stored = start(&mut batch, "join-group", "a", "reserve");
    batch.commit().unwrap();
    let reader = Reader::open(&path).unwrap();
    let copy = folder.path().join("copy.db");
    let copied = reader.backup(&copy).unwrap();
    assert!(copied.bytes > 0);
    let of_copy = Reader::open(&copy).unwrap();
    assert_eq!(of_copy.instance(stored.instance.id.no()).unwrap(), Some(stored));
    assert_eq!(of_copy.database(), reader.database());
    assert!(matches!(reader.backup(&copy), Err(StoreError::Open { .. })), "nothing is written over");
}

#[test]
fn incidents_that_look_alike_are_counted_together_and_their_history_stays() {
    let memory = memory();
    let mut store = Store::open_in(&memory).unwrap();
    let mut batch = store.batch().unwrap();
    let open = |batch: &mut Batch<'_>, key: &str, at: i64| {
        let first = start(batch, "join-group", key, "reserve");
        let mut after = first.instance.clone();
        after.turn += 1;
        let error = format!("UndoRefused: {key} is not there, 17 tries");
        after.incidents = vec![Incident { opened_at: Timestamp(at), ..incident(1, IncidentKind::UndoFailed, &error) }];
        save(batch, Some(&first), after, &[])
    };
    let one = open(&mut batch, "k-one", 10);
    let two = open(&mut batch, "k-two", 30);
    batch.commit().unwrap();
    let reader = Reader::open_in(&memory).unwrap();
    let groups = reader.incident_groups(10, 10).unwrap();
    assert_eq!(groups.len(), 1);
    assert_eq!((groups[0].count, groups[0].error.as_str()), (2, "UndoRefused: # is not there, # tries"));
    assert_eq!((groups[0].first_at, groups[0].last_at), (Timestamp(10), Timestamp(30)));
    assert_eq!(groups[0].sample, [one.instance.id, two.instance.id]);
    assert_eq!(reader.figures().unwrap().oldest_stuck_at, Some(Timestamp(10)));
    let stuck = Selector { marks: Some(Marks { stuck: true, paused: false, settling: false }), ..Selector::default() };
    assert_eq!(reader.instances(&stuck, None, 10).unwrap().rows.len(), 2);

    let mut batch = store.batch().unwrap();
    let mut after = one.instance.clone();
    after.turn += 1;
    after.incidents.clear();
    save(&mut batch, Some(&one), after, &[]);
    batch.commit().unwrap();
    assert_eq!(reader.incident_groups(10, 10).unwrap()[0].count, 1);
    let history = reader.incidents(one.instance.id.no()).unwrap();
    assert_eq!((history.len(), history[0].closed_at), (1, Some(START)));
    assert_eq!(reader.figures().unwrap().oldest_stuck_at, Some(Timestamp(30)));
}

#[test]
fn a_page_goes_on_where_it_ended_however_little_it_found() {
    let memory = memory();
    let mut store = Store::open_in(&memory).unwrap();
    let mut batch = store.batch().unwrap();
    for n in 0..30 {
        start(&mut batch, if n % 10 == 0 { "rare" } else { "join-group" }, &format!("k{n}"), "reserve");
    }
    batch.commit().unwrap();
    let reader = Reader::open_in(&memory).unwrap();
    for (selector, expected) in [
        (Selector::default(), 30),
        (Selector { saga: Some("rare".to_owned()), ..Selector::default() }, 3),
        (Selector { status: vec![Status::Running], ..Selector::default() }, 30),
        (Selector { status: vec![Status::Completed], ..Selector::default() }, 0),
        (Selector { key: Some("k7".to_owned()), ..Selector::default() }, 1),
        (Selector { state: Some("reserve".to_owned()), saga: Some("rare".to_owned()), ..Selector::default() }, 3),
        (Selector { state: Some("never-heard-of".to_owned()), ..Selector::default() }, 0),
    ] {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = reader.instances(&selector, after, 2).unwrap();
            found.extend(page.rows.iter().map(|row| row.no));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert!(found.len() == expected && found.is_sorted_by(|one, other| one > other), "{selector:?}: {found:?}");
    }
}

#[test]
fn a_definition_is_kept_once_by_its_digest_and_the_last_loaded_is_the_newest() {
    let memory = memory();
    let mut store = Store::open_in(&memory).unwrap();
    let mut batch = store.batch().unwrap();
    let load = |batch: &mut Batch<'_>, digest: u8, at: i64| {
        let text = DefinitionText {
            saga: "join-group",
            digest: Digest([digest; 32]),
            source: "saga: join-group",
            file: "sagas/join-group.yaml",
            loaded_at: Timestamp(at),
        };
        batch.definition_no(&text).unwrap()
    };
    let (one, two) = (load(&mut batch, 1, 10), load(&mut batch, 2, 20));
    assert_ne!(one, two);
    assert_eq!(load(&mut batch, 1, 30), one);
    batch.commit().unwrap();
    let newest: Vec<bool> = store.definitions().unwrap().iter().map(|definition| definition.newest).collect();
    assert_eq!(newest, [true, false]);
    let reader = Reader::open_in(&memory).unwrap();
    assert_eq!(reader.definition_source(two).unwrap().as_deref(), Some("saga: join-group"));
    assert_eq!(reader.definitions().unwrap().len(), 2);
}

/// A file of each schema version, as a released program wrote it. It is opened as a copy, and everything in it holds.
#[test]
fn files_of_every_schema_version_open_and_hold() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/databases");
    let mut versions = 0;
    for entry in std::fs::read_dir(&cases).unwrap() {
        let fixture = entry.unwrap().path();
        if fixture.extension().is_none_or(|ending| ending != "sqlite") {
            continue;
        }
        versions += 1;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sagad.db");
        std::fs::copy(&fixture, &path).unwrap();
        let mut store = Store::create_or_open(&path).unwrap();
        let reader = Reader::open(&path).unwrap();
        let rows = reader.instances(&Selector::default(), None, 100).unwrap().rows;
        let keys: Vec<&str> = rows.iter().map(|row| row.key.as_str()).collect();
        assert_eq!(keys, ["stuck", "done", "live"], "{}", fixture.display());
        for row in &rows {
            assert_eq!(reader.broken_chain(row.no).unwrap(), None, "{}", fixture.display());
        }
        assert_eq!(counted(&reader), recounted(&reader));
        assert_eq!(reader.timers(rows[2].no).unwrap().len(), 2);
        assert_eq!(store.unsent(0, 100).unwrap().messages.len(), 2);
        assert_eq!(store.seen(&MessageKey::of("shop", "OrderPlaced", "1")).unwrap(), Some(42));
        assert_eq!(reader.aside(&AsideFilter::default(), None, 10).unwrap().len(), 1);
        let mut batch = store.batch().unwrap();
        let stored = batch.instance(rows[2].no).unwrap().unwrap();
        let mut after = stored.instance.clone();
        after.turn += 1;
        save(&mut batch, Some(&stored), after, &[]);
        batch.commit().unwrap();
    }
    assert!(versions > 0, "no fixture in {}", cases.display());
}

/// Writes the fixture of the present version where it is asked for, never otherwise: a released one does not change.
#[test]
fn the_fixture_of_this_version_is_written_when_asked_for() {
    let Some(path) = std::env::var_os("SAGAD_WRITE_FIXTURE").map(PathBuf::from) else { return };
    let mut store = Store::create_or_open(&path).unwrap();
    let mut batch = store.batch().unwrap();
    batch
        .definition_no(&DefinitionText {
            saga: "join-group",
            digest: Digest([7; 32]),
            source: "saga: join-group\n",
            file: "sagas/join-group.yaml",
            loaded_at: START,
        })
        .unwrap();
    let live = with_timers(
        &mut batch,
        "live",
        &[TimerStart::At(Timestamp(START.0 + 60_000)), TimerStart::Confirm { after_ms: 30_000 }],
        1000,
    );
    let stored = batch.instance(live.no()).unwrap().unwrap();
    let mut after = stored.instance.clone();
    after.turn += 1;
    save(&mut batch, Some(&stored), after, &[command("ReserveSeat", 0), command("HoldSeat", 1)]);
    let done = start(&mut batch, "join-group", "done", "reserve");
    end(&mut batch, &done, Status::Completed, START);
    let stuck = start(&mut batch, "join-group", "stuck", "reserve");
    let mut after = stuck.instance.clone();
    after.turn += 1;
    after.incidents = vec![incident(1, IncidentKind::NoWayBack, "SeatRefused: none left")];
    save(&mut batch, Some(&stuck), after, &[]);
    batch.remember(&MessageKey::of("shop", "OrderPlaced", "1"), 42).unwrap();
    batch.set_aside(&aside("not-json", Some("1"), b"{")).unwrap();
    batch.park(stuck.instance.id.no(), &Input::Timer { serial: 1 }).unwrap();
    batch.record_order(&order("retry", Some(stuck.instance.id.no()), Some("r-1"))).unwrap();
    batch.commit().unwrap();
}

/// What a random run does to a random instance.
#[derive(Clone, Debug)]
enum Act {
    Start { saga: usize, key: u8 },
    Turn { which: usize, status: usize, state: usize, paused: bool, incidents: Vec<(u32, usize)>, timers: Vec<u32> },
    Commit,
    Drop,
    Rehearse { which: usize, state: usize },
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let turn = (
        any::<usize>(),
        0..5_usize,
        0..4_usize,
        prop::bool::weighted(0.2),
        prop::collection::btree_map(1..6_u32, 0..11_usize, 0..3),
        prop::collection::btree_set(0..6_u32, 0..4),
    );
    let act = prop_oneof![
        2 => (0..3_usize, any::<u8>()).prop_map(|(saga, key)| Act::Start { saga, key }),
        6 => turn.prop_map(|(which, status, state, paused, incidents, timers)| Act::Turn {
            which,
            status,
            state,
            paused,
            incidents: incidents.into_iter().collect(),
            timers: timers.into_iter().collect(),
        }),
        2 => Just(Act::Commit),
        1 => Just(Act::Drop),
        1 => (any::<usize>(), 0..4_usize).prop_map(|(which, state)| Act::Rehearse { which, state }),
    ];
    prop::collection::vec(act, 1..60)
}

const STATES: [&str; 4] = ["reserve", "pay", "confirm", "done"];

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn what_is_kept_beside_the_instances_always_agrees_with_them(acts in acts()) {
        let memory = memory();
        let mut store = Store::open_in(&memory).unwrap();
        let mut known: BTreeMap<InstanceNo, Stored> = BTreeMap::new();
        let mut pending = acts.into_iter().peekable();
        while pending.peek().is_some() {
            let mut batch = store.batch().unwrap();
            let mut now = known.clone();
            let mut keep = true;
            for act in pending.by_ref() {
                match act {
                    Act::Commit => break,
                    Act::Drop => {
                        keep = false;
                        break;
                    }
                    act => perform(&mut batch, &mut now, act),
                }
            }
            if keep {
                batch.commit().unwrap();
                known = now;
            } else {
                drop(batch);
            }
        }
        agree(&memory, &store, &known);
        drop(store);
        agree(&memory, &Store::open_in(&memory).unwrap(), &known);
    }
}

fn perform(batch: &mut Batch<'_>, known: &mut BTreeMap<InstanceNo, Stored>, act: Act) {
    match act {
        Act::Start { saga, key } => {
            let stored = start(batch, ["join-group", "allocate-cell", "rare"][saga], &format!("k{key}"), "reserve");
            known.insert(stored.instance.id.no(), stored);
        }
        Act::Turn { which, status, state, paused, incidents, timers } => {
            let Some(stored) = pick(known, which) else { return };
            let mut after = stored.instance.clone();
            after.turn += 1;
            after.status = Status::ALL[status];
            after.ended_at = after.status.is_end().then_some(START);
            STATES[state].clone_into(&mut after.state);
            after.paused = paused;
            after.incidents = incidents
                .into_iter()
                .map(|(number, kind)| incident(number, IncidentKind::ALL[kind], &format!("error {kind}")))
                .collect();
            after.timers = timers.into_iter().map(|serial| timer(serial, start_of(serial))).collect();
            let stored = save(batch, Some(&stored), after, &[]);
            known.insert(stored.instance.id.no(), stored);
        }
        Act::Rehearse { which, state } => {
            let savepoint = batch.savepoint().unwrap();
            perform(batch, &mut known.clone(), Act::Start { saga: state % 3, key: 1 });
            let turn = Act::Turn { which, status: 1, state, paused: false, incidents: vec![], timers: vec![1] };
            perform(batch, &mut known.clone(), turn);
            batch.roll_back(savepoint).unwrap();
        }
        Act::Commit | Act::Drop => unreachable!("they end a batch"),
    }
}

fn start_of(serial: u32) -> TimerStart {
    match serial % 3 {
        0 => TimerStart::At(Timestamp(i64::from(serial))),
        1 => TimerStart::Listening { after_ms: u64::from(serial) },
        _ => TimerStart::Confirm { after_ms: u64::from(serial) },
    }
}

fn pick(known: &BTreeMap<InstanceNo, Stored>, which: usize) -> Option<Stored> {
    (!known.is_empty()).then(|| known.values().nth(which % known.len()).cloned())?
}

fn agree(memory: &Memory, store: &Store, known: &BTreeMap<InstanceNo, Stored>) {
    let reader = Reader::open_in(memory).unwrap();
    assert_eq!(reader.instances(&Selector::default(), None, 10_000).unwrap().rows.len(), known.len());
    for (no, stored) in known {
        assert_eq!(store.instance(*no).unwrap().as_ref(), Some(stored));
        assert_eq!(reader.broken_chain(*no).unwrap(), None);
        let kept: Vec<u32> = reader.timers(*no).unwrap().iter().map(|timer| timer.row.serial).collect();
        let mut serials: Vec<u32> = stored.instance.timers.iter().map(|timer| timer.serial).collect();
        serials.sort_unstable();
        assert_eq!(kept, serials);
        for view in reader.timers(*no).unwrap() {
            let held_back = view.row.clock != Clock::Wall && stored.instance.is_held();
            assert!(!(held_back && view.row.due.is_some()), "{view:?} runs while its instance is held");
        }
        let open: Vec<u32> = reader
            .incidents(*no)
            .unwrap()
            .iter()
            .filter(|incident| incident.closed_at.is_none())
            .map(|incident| incident.number)
            .collect();
        assert_eq!(open, stored.instance.incidents.iter().map(|incident| incident.number).collect::<Vec<_>>());
    }
    assert_eq!(counted(&reader), recounted(&reader));
    let open: u64 = reader.incident_groups(1000, 0).unwrap().iter().map(|group| group.count).sum();
    assert_eq!(open, known.values().map(|stored| stored.instance.incidents.len() as u64).sum::<u64>());
    let live = known.values().filter(|stored| {
        let marks = stored.instance.marks();
        !stored.instance.status.is_end() || marks.stuck || marks.paused || marks.settling
    });
    assert_eq!(store.live_after(None, 10_000).unwrap(), live.map(|stored| stored.instance.id.no()).collect::<Vec<_>>());
}

type Sort = (String, Status, String, (bool, bool, bool), Option<IncidentKind>);

fn sort(saga: &str, status: Status, state: &str, marks: Marks, incident: Option<IncidentKind>) -> Sort {
    (saga.to_owned(), status, state.to_owned(), (marks.stuck, marks.paused, marks.settling), incident)
}

/// What the tally says.
fn counted(reader: &Reader) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for count in reader.counts().unwrap() {
        let sort = sort(&count.saga, count.status, &count.state, count.marks, count.incident);
        *counts.entry(format!("{sort:?}")).or_default() += count.count;
    }
    counts
}

/// The same, counted one by one from the stored bodies.
fn recounted(reader: &Reader) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for row in reader.instances(&Selector::default(), None, 10_000).unwrap().rows {
        let instance = reader.instance(row.no).unwrap().unwrap().instance;
        let first = instance.incidents.first().map(|incident| incident.kind);
        let whole = sort(&instance.saga, instance.status, &instance.state, instance.marks(), first);
        assert_eq!(sort(&row.saga, row.status, &row.state, row.marks, row.incident), whole);
        *counts.entry(format!("{whole:?}")).or_default() += 1;
    }
    counts
}

fn memory() -> Memory {
    Memory::new(DatabaseId(Uuid::from_u128(0x5a6a_d000_0000_4000_8000_0000_0000_beef))).unwrap()
}

fn holder() -> Holder {
    Holder {
        pid: std::process::id(),
        started_at: "2030-01-01T00:00:00Z".to_owned(),
        socket: Some(PathBuf::from("/tmp/sagad.db.sock")),
        database: None,
    }
}

fn instance(id: InstanceId, saga: &str, key: &str, state: &str) -> Instance {
    serde_json::from_value(json!({
        "id": id, "definition": 1, "saga": saga, "key": key, "started_at": START, "updated_at": START, "turn": 1,
        "moved": 1, "status": "running", "state": state, "entry": 1, "entered_at": START, "data": {"key": key},
        "serial": 0, "origin": {}
    }))
    .unwrap()
}

fn given(at: Timestamp) -> Given {
    let message = Message {
        kind: "an-input-to-find".to_owned(),
        id: Some("1".to_owned()),
        source: String::new(),
        correlation_id: None,
        reply_to: None,
        time: at,
        traceparent: None,
        headers: serde_json::Map::new(),
        routing_key: String::new(),
        body: json!({"n": 1}),
    };
    Given { at, input: Input::Event(message), unreached: Vec::new() }
}

fn command(kind: &str, index: u32) -> Outgoing {
    serde_json::from_value(json!({
        "to": {"Command": {"address": "seats"}}, "type": kind, "message_id": Uuid::from_u128(index.into()),
        "correlation_id": "c", "at": START, "body": {"seat": index},
    }))
    .map(|message: Outgoing| Outgoing {
        command: Some(CommandPart {
            subject: Subject::Step { index, attempt: 1 },
            state: "reserve".to_owned(),
            attempt: 1,
            undoes: None,
            limit: None,
            awaits: true,
        }),
        body: Json::of(&json!({"seat": index})),
        to: Destination::Command { address: "seats".to_owned() },
        correlation_id: CommandId(Uuid::nil()).to_string(),
        ..message
    })
    .unwrap()
}

fn timer(serial: u32, start: TimerStart) -> Timer {
    Timer { serial, what: TimerKind::Deadline, start }
}

fn incident(number: u32, kind: IncidentKind, error: &str) -> Incident {
    serde_json::from_value(json!({
        "number": number, "kind": kind, "state": "reserve", "error": error, "opened_at": START
    }))
    .unwrap()
}

fn start(batch: &mut Batch<'_>, saga: &str, key: &str, state: &str) -> Stored {
    let no = batch.next_instance_no(START).unwrap();
    let digest = saga.bytes().fold(7_u8, u8::wrapping_add);
    let text = DefinitionText { saga, digest: Digest([digest; 32]), source: "", file: "", loaded_at: START };
    let definition = batch.definition_no(&text).unwrap();
    let instance = Instance { definition, ..instance(InstanceId::new(no, batch.database()), saga, key, state) };
    save(batch, None, instance, &[])
}

fn start_with(batch: &mut Batch<'_>, saga: &str, key: &str, state: &str, messages: &[Outgoing]) -> Stored {
    let no = batch.next_instance_no(START).unwrap();
    let instance = instance(InstanceId::new(no, batch.database()), saga, key, state);
    save(batch, None, instance, messages)
}

fn end(batch: &mut Batch<'_>, stored: &Stored, status: Status, at: Timestamp) -> Stored {
    let mut after = stored.instance.clone();
    after.turn += 1;
    after.status = status;
    after.ended_at = Some(at);
    save(batch, Some(stored), after, &[])
}

fn with_timers(batch: &mut Batch<'_>, key: &str, starts: &[TimerStart], listening_ms: u64) -> InstanceId {
    let stored = start(batch, "join-group", key, "reserve");
    let mut after = stored.instance.clone();
    after.turn += 1;
    after.timers = (0..).zip(starts).map(|(serial, start)| timer(serial, *start)).collect();
    try_save(batch, Some(&stored), &after, &[], listening_ms).unwrap();
    after.id
}

fn save(batch: &mut Batch<'_>, before: Option<&Stored>, after: Instance, messages: &[Outgoing]) -> Stored {
    let head = try_save(batch, before, &after, messages, 0).unwrap();
    Stored { instance: after, head }
}

fn try_save(
    batch: &mut Batch<'_>,
    before: Option<&Stored>,
    after: &Instance,
    messages: &[Outgoing],
    listening_ms: u64,
) -> Result<Head, StoreError> {
    batch.save_turn(&TurnRow {
        before,
        after,
        given: &given(START),
        messages,
        weight: Weight::Moved,
        changed: &[],
        notes: &["a note".to_owned()],
        listening_ms,
    })
}

fn due(batch: &Batch<'_>, clock: Clock, upto: i64) -> Vec<(InstanceNo, u32, i64)> {
    let timers = batch.due_timers(clock, upto, 100).unwrap();
    timers.into_iter().map(|timer| (timer.instance, timer.serial, timer.due)).collect()
}

fn straggle<'a>(at: MessageRef, instance: &Instance, index: u32, outcome: StragglerOutcome) -> Straggle<'a> {
    Straggle {
        at,
        instance: Some(instance.id.no()),
        subject: Some(Subject::Step { index, attempt: 1 }),
        outcome,
        reason: Some("NO_ROUTE"),
        maybe_taken: false,
        since: START,
        next_at: Some(1000),
    }
}

fn aside<'a>(reason: &'a str, id: Option<&'a str>, body: &'a [u8]) -> Aside<'a> {
    static HEADERS: std::sync::LazyLock<serde_json::Map<String, serde_json::Value>> =
        std::sync::LazyLock::new(|| [("trace".to_owned(), json!(1))].into_iter().collect());
    Aside {
        kind: AsideKind::Dead,
        reason,
        error: None,
        message_type: None,
        message_id: id,
        source: "shop",
        correlation_id: None,
        exchange: "events",
        routing_key: "OrderPlaced",
        received_at: START,
        properties: &HEADERS,
        headers: &HEADERS,
        body,
        near: &[],
    }
}

fn order<'a>(verb: &'a str, instance: Option<InstanceNo>, request_id: Option<&'a str>) -> OrderRecord<'a> {
    OrderRecord {
        at: START,
        verb,
        by: "ada",
        reason: None,
        request_id,
        instance,
        saga: None,
        key: None,
        asked: "{}",
        result: "{}",
    }
}

fn find(bytes: &[u8], text: &[u8]) -> Vec<usize> {
    bytes.windows(text.len()).enumerate().filter(|(_, window)| *window == text).map(|(place, _)| place).collect()
}
