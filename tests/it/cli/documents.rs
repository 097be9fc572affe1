//! Documents field by field against the contract, and tables against the width of the terminal.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::stage::{Came, Stage};

const INSTANCE: &str = "id saga key status state stuck paused settling incident outcome turn definition started_at \
                        updated_at ended_at";
const MESSAGE: &str = "kind exchange routing_key type message_id command_id body";

#[track_caller]
fn has(document: &Value, fields: &str) {
    let there: BTreeSet<&str> =
        document.as_object().unwrap_or_else(|| panic!("{document}")).keys().map(String::as_str).collect();
    let wanted: BTreeSet<&str> = fields.split_whitespace().collect();
    assert_eq!(there, wanted, "{document:#}");
}

#[track_caller]
fn document(document: &Value, fields: &str) {
    assert_eq!(document["format"], 1);
    has(document, &format!("format {fields}"));
}

/// One that goes on, one that is stuck, one that was compensated, and a message that found nobody.
fn populated(stage: &Stage) {
    stage.start("goes-on");
    stage.start("stuck");
    stage.answer("stuck", "BookingRefused");
    stage.start("back");
    stage.answer("back", "Booked");
    stage.answer("back", "Broke");
    stage.answer_undo("back", "book", "Cancelled");
    let id = stage.json(&["show", "hire/back"])["id"].as_str().unwrap().to_owned();
    stage.event("Paid", &json!({ "n": 1 }), Some("no-such-command"));
    assert_eq!(id.len(), 36);
}

#[test]
fn every_document_has_the_fields_of_the_contract_and_no_others() {
    let stage = Stage::new();
    let daemon = stage.daemon();
    populated(&stage);
    for running in [true, false] {
        if !running {
            daemon.signal("TERM");
            let began = std::time::Instant::now();
            while stage.path("sagad.db.sock").exists() {
                assert!(began.elapsed().as_secs() < 60);
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
        }
        instances(&stage);
        figures(&stage, running);
    }
}

fn instances(stage: &Stage) {
    let list = stage.json(&["list"]);
    has(&list, "format instances next");
    assert_eq!(list["instances"].as_array().unwrap().len(), 3);
    list["instances"].as_array().unwrap().iter().for_each(|instance| has(instance, INSTANCE));
    let show = stage.json(&["show", "hire/stuck"]);
    document(&show, &format!("{INSTANCE} why data failure steps timers waiting decision incidents may"));
    has(&show["steps"][0], "name effect command command_id attempt attempts sent_at next_at undo");
    has(&show["timers"][0], "name due_at");
    has(&show["incidents"][0], "kind state step error source opened_at closed_at open stops");
    let back = stage.json(&["show", "hire/back"]);
    has(&back["failure"], "kind state reason");
    has(&back["steps"][0]["undo"], "command command_id effect attempt next_at");
    assert_eq!(back["steps"][0]["effect"], "undone");
    let goes_on = stage.json(&["show", "hire/goes-on"]);
    has(&goes_on["waiting"][0], "event since place");
    document(&stage.json(&["why", "hire/goes-on"]), "id why waiting next near");
    let journal = stage.json(&["journal", "hire/back"]);
    document(&journal, "turns");
    for turn in journal["turns"].as_array().unwrap() {
        has(turn, "turn at cause from to changed notes messages");
        has(&turn["cause"], "kind type body message_id command_id timer verb by reason request_id");
        has(&turn["to"], "status state");
        turn["messages"].as_array().unwrap().iter().for_each(|message| has(message, MESSAGE));
    }
    assert_eq!(journal["turns"][0]["cause"]["kind"], "event");
    assert_eq!(journal["turns"][0]["from"], Value::Null);
    assert_eq!(journal["turns"][1]["cause"]["kind"], "reply");
    document(&stage.json(&["journal", "--verify", "--all"]), "checked other_version broken");
}

fn figures(stage: &Stage, running: bool) {
    let status = stage.json(&["status"]);
    document(
        &status,
        "daemon broker outbox counts stuck paused settling foreign dropped oldest_stuck_at database definitions",
    );
    assert_eq!(status["daemon"].is_null(), !running);
    if running {
        has(&status["daemon"], "pid since version");
    }
    has(&status["broker"], "connected since blocked error findings dead");
    has(&status["database"], "path bytes wal_bytes");
    has(&status["definitions"], "loaded error");
    assert_eq!(status["counts"]["running"], 2);
    assert_eq!(status["counts"]["compensated"], 1);
    let count = stage.json(&["count", "--by", "saga,incident"]);
    document(&count, "groups");
    has(&count["groups"][0], "saga incident count");
    let inbox = stage.json(&["inbox", "--unmatched"]);
    document(&inbox, "messages");
    has(
        &inbox["messages"][0],
        "n kind reason type message_id source correlation_id routing_key received_at expires_at headers body \
         body_base64 near",
    );
    assert_eq!(inbox["messages"][0]["reason"], "no-instance");
    assert_eq!(inbox["messages"][0]["body"], r#"{"n":1}"#);
    assert_eq!(stage.json(&["inbox", "--dead"])["messages"], json!([]));
    let n = inbox["messages"][0]["n"].to_string();
    assert_eq!(stage.json(&["inbox", "show", &n]), inbox);
    stage.sagad(&["inbox", "show", "999"]).exits(3);
    let outbox = stage.json(&["outbox"]);
    document(&outbox, "messages");
    has(&outbox["messages"][0], &format!("{MESSAGE} instance since tries returned"));
    let definitions = stage.json(&["definitions"]);
    document(&definitions, "definitions");
    has(&definitions["definitions"][0], "saga digest loaded_at newest live ended");
    let order = stage.json(&["compensate", "hire/goes-on", "--dry-run"]);
    document(&order, "operation dry_run results");
    has(&order["results"][0], "id saga key ok error from to messages");
    order["results"][0]["messages"].as_array().unwrap().iter().for_each(|message| has(message, MESSAGE));
    let checked = stage.json(&["check"]);
    document(&checked, "diagnostics");
}

#[test]
fn the_documents_of_definitions_and_demo_have_their_fields() {
    let stage = Stage::new();
    stage.write("sagas/hire.yaml", "saga: hire\nstart: 3\n");
    let checked = stage.sagad(&["check", "--json"]).exits(9).json();
    has(&checked["diagnostics"][0], "severity code message hint file line column end_line end_column");
    let demo = stage.json(&["demo", "--requests", "20"]);
    document(&demo, "seed sagas invariants");
    has(&demo["sagas"][0], "saga completed compensated stuck abandoned");
    has(&demo["invariants"][0], "saga what holds found");
}

#[test]
fn a_table_fits_into_the_terminal_and_json_is_never_cut() {
    let stage = Stage::new();
    let daemon = stage.daemon();
    populated(&stage);
    let long = "k".repeat(300);
    stage.start(&long);
    for arguments in [
        &["list"][..],
        &["list", "-o", "wide"],
        &["show", "hire/stuck"],
        &["journal", "hire/back", "-o", "wide"],
        &["status"],
        &["inbox"],
        &["outbox"],
        &["definitions", "-o", "wide"],
        &["count", "--by", "saga,status,state,incident"],
        &["check", "--explain"],
        &["demo", "--requests", "20"],
    ] {
        for (said, columns) in [(Some("80"), 80), (Some("160"), 160), (None, 160)] {
            let mut command = stage.command(arguments);
            if let Some(said) = said {
                command.env("COLUMNS", said);
            }
            let came = Came::from(command.output().unwrap()).exits(0);
            let widest = came.out.lines().map(|line| line.chars().count()).max().unwrap_or(0);
            assert!(widest <= columns, "{arguments:?} at {columns}:\n{}", came.out);
            assert!(!came.out.contains('\u{1b}'), "colour without a terminal");
        }
    }
    assert!(stage.sagad(&["list", "--json"]).out.contains(&long));
    daemon.stop();
}

#[test]
fn ids_go_from_one_verb_to_the_next() {
    let stage = Stage::new();
    let daemon = stage.daemon();
    populated(&stage);
    let ids = stage.sagad(&["list", "-o", "id"]).exits(0).out;
    assert_eq!(ids.lines().count(), 3);
    stage.write("ids", &ids);
    let mut command = stage.command(&["list", "-", "-o", "id"]);
    let again = command.stdin(std::fs::File::open(stage.path("ids")).unwrap()).output().unwrap();
    assert_eq!(Came::from(again).exits(0).out, ids);
    let first = ids.lines().next().unwrap();
    assert_eq!(stage.json(&["show", &first[..18]])["id"], first);
    stage.sagad(&["show", &first[..7]]).exits(3);
    stage.sagad(&["show", "hire/nobody"]).exits(3).says("hire/nobody");
    assert_eq!(stage.json(&["list", "hire/nobody"])["instances"], json!([]));
    assert_eq!(stage.sagad(&["list", "--limit", "2", "-o", "jsonl"]).exits(0).out.lines().count(), 2);
    let reverse = stage.json(&["journal", "hire/back", "--reverse"])["turns"].clone();
    let numbers: Vec<u64> = reverse.as_array().unwrap().iter().map(|turn| turn["turn"].as_u64().unwrap()).collect();
    assert!(numbers.is_sorted_by(|a, b| a > b) && numbers.last() == Some(&1), "{numbers:?}");
    daemon.stop();
}

#[test]
fn nobody_reading_any_more_is_no_error() {
    let stage = Stage::new();
    let daemon = stage.daemon();
    populated(&stage);
    let mut child = stage
        .command(&["list", "--json"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let came = Came::from(child.wait_with_output().unwrap());
    assert_eq!((came.code, came.err.as_str()), (0, ""));
    daemon.stop();
}

#[test]
fn a_journal_that_was_tampered_with_is_found() {
    let stage = Stage::new();
    let daemon = stage.daemon();
    populated(&stage);
    daemon.stop();
    assert_eq!(stage.json(&["journal", "--verify", "--all"])["broken"], json!([]));
    let database = rusqlite::Connection::open(stage.path("sagad.db")).unwrap();
    let turn = "(SELECT max(seq) FROM log WHERE turn = 2 AND instance = (SELECT no FROM instance WHERE key = 'back'))";
    let changed = database.execute(&format!("UPDATE log SET notes = '[\"nothing happened\"]' WHERE seq = {turn}"), ());
    assert_eq!(changed.unwrap(), 1);
    drop(database);
    let verified = stage.sagad(&["journal", "--verify", "--all", "--json"]).exits(9).json();
    let broken = verified["broken"].as_array().unwrap();
    assert_eq!(broken.len(), 1, "{verified:#}");
    has(&broken[0], "id turn what");
    assert_eq!(broken[0]["turn"], 2);
    stage.sagad(&["journal", "--verify", "hire/goes-on"]).exits(0);
    stage.sagad(&["journal", "--verify", "hire/back"]).exits(9);
    stage.sagad(&["journal", "--verify", "hire/nobody"]).exits(3);
}
