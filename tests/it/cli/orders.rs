//! Orders over the socket and without a daemon: what they do, what they refuse, and that they act once.

use serde_json::Value;

use super::stage::{Came, Stage};

fn stuck(stage: &Stage, key: &str) {
    stage.start(key);
    stage.answer(key, "BookingRefused");
}

fn standing(stage: &Stage, key: &str) -> (Value, Value) {
    let shown = stage.json(&["show", &format!("hire/{key}")]);
    (shown["status"].clone(), shown["stuck"].clone())
}

#[test]
fn a_stuck_instance_is_found_and_tried_again() {
    let stage = Stage::new();
    let daemon = stage.daemon();
    stage.start("other");
    stuck(&stage, "a");
    stage.sagad(&["status", "--check"]).exits(10);
    let status = stage.json(&["status"]);
    assert_eq!(status["stuck"], 1);
    assert!(status["oldest_stuck_at"].is_string());
    let found = stage.sagad(&["list", "--stuck", "-o", "id"]).exits(0).out;
    assert_eq!(found.lines().count(), 1);
    let shown = stage.json(&["show", found.trim()]);
    assert_eq!(shown["incidents"][0]["kind"], "raised");
    assert_eq!(shown["incidents"][0]["error"], "the car red is gone");
    assert!(shown["may"].as_array().unwrap().contains(&Value::from("retry")), "{shown:#}");
    assert!(shown["why"].as_str().unwrap().contains("the car red is gone"));
    for selector in [
        &["--incident", "raised"][..],
        &["--error", "car red"],
        &["--stuck-for", "0s"],
        &["--state", "book", "--stuck"],
    ] {
        let arguments: Vec<&str> = ["list", "-o", "id"].iter().chain(selector).copied().collect();
        assert_eq!(stage.sagad(&arguments).exits(0).out, found, "{selector:?}");
    }
    for selector in
        [&["--incident", "panic"][..], &["--error", "car blue"], &["--stuck-for", "1h"], &["--state", "pay"]]
    {
        let arguments: Vec<&str> = ["list", "-o", "id"].iter().chain(selector).copied().collect();
        assert_eq!(stage.sagad(&arguments).exits(0).out, "", "{selector:?}");
    }
    let done = stage.json(&["retry", "hire/a", "--reason", "another car is there"]);
    let result = &done["results"][0];
    assert_eq!(result["ok"], true, "{done:#}");
    let sent: Vec<&str> = result["messages"].as_array().unwrap().iter().map(|m| m["type"].as_str().unwrap()).collect();
    assert_eq!(sent, ["Book"]);
    stage.sagad(&["status", "--check"]).exits(0);
    let turns = stage.json(&["journal", "hire/a"])["turns"].clone();
    let cause = &turns.as_array().unwrap().last().unwrap()["cause"];
    assert_eq!((&cause["kind"], &cause["verb"]), (&Value::from("order"), &Value::from("retry")));
    assert_eq!((&cause["by"], &cause["reason"]), (&Value::from("tester"), &Value::from("another car is there")));
    daemon.stop();
}

#[test]
fn an_order_is_the_same_with_and_without_a_daemon() {
    for offline in [false, true] {
        let stage = Stage::new();
        let mut daemon = Some(stage.daemon());
        stage.start("a");
        stage.answer("a", "Booked");
        if offline {
            daemon.take().unwrap().stop();
        }
        let before = stage.json(&["show", "hire/a"]);
        // A dry run tells what would go out, and changes nothing.
        let dry = stage.json(&["compensate", "hire/a", "--dry-run"]);
        assert_eq!(dry["dry_run"], true);
        assert_eq!(dry["results"][0]["to"]["status"], "compensating");
        let after = stage.json(&["show", "hire/a"]);
        assert_eq!((&before["turn"], &before["status"]), (&after["turn"], &after["status"]));
        // Somebody was quicker.
        let turn = before["turn"].as_u64().unwrap();
        let late = ["compensate", "hire/a", "--expect-turn", &(turn - 1).to_string(), "--json"];
        let refused = stage.sagad(&late).exits(4).json();
        assert_eq!(refused["results"][0]["ok"], false);
        assert_eq!(refused["results"][0]["error"]["code"], "conflict");
        // The same request twice acts once.
        let order = ["compensate", "hire/a", "--expect-turn", &turn.to_string(), "--request-id", "q1", "--by", "anna"];
        let done = stage.json(&order);
        assert_eq!(done["results"][0]["from"]["status"], "running");
        assert_eq!(done["results"][0]["to"]["status"], "compensating");
        assert_eq!(dry["results"][0]["messages"], done["results"][0]["messages"]);
        let moved = stage.json(&["show", "hire/a"])["turn"].clone();
        let again = stage.json(&["compensate", "hire/a", "--request-id", "q1"]);
        assert_eq!(again["results"][0]["ok"], true);
        assert_eq!(stage.json(&["show", "hire/a"])["turn"], moved);
        // It is compensating already.
        let came = stage.sagad(&["compensate", "hire/a"]).exits(4);
        assert!(came.err.contains("hire/a"), "{}", came.err);
        stage.sagad(&["journal", "--verify", "--all"]).exits(0);
        // What it caused is there when the daemon starts.
        let daemon = daemon.unwrap_or_else(|| stage.daemon());
        let waits = stage.json(&["outbox"]);
        let undo = waits["messages"].as_array().unwrap().iter().any(|message| message["kind"] == "undo");
        assert!(undo, "{waits:#}");
        daemon.stop();
    }
}

#[test]
fn what_a_person_found_out_settles_a_step() {
    let stage = Stage::new();
    let daemon = stage.daemon();
    stage.start("a");
    stage.write("reply.json", r#"{"booking": 7}"#);
    let resolve =
        ["resolve", "hire/a", "--step", "book", "--as", "done", "--with", "reply.json", "--reason", "asked them"];
    let done = stage.json(&resolve);
    assert_eq!(done["results"][0]["to"]["state"], "pay", "{done:#}");
    stage.sagad(&["resolve", "hire/a", "--step", "nothing", "--as", "done"]).exits(4);
    stage.sagad(&["resolve", "hire/a", "--step", "pay", "--as", "refused", "--with", "reply.json"]).exits(2);
    stage.json(&["resolve", "hire/a", "--step", "pay", "--as", "refused"]);
    assert_eq!(standing(&stage, "a"), (Value::from("compensating"), Value::from(false)));
    stage.answer_undo("a", "book", "Cancelled");
    assert_eq!(standing(&stage, "a").0, "compensated");
    stage.sagad(&["compensate", "hire/a"]).exits(4);
    daemon.stop();
}

#[test]
fn a_reason_can_be_made_mandatory() {
    let stage = Stage::new();
    stage.write("strict.toml", "[admin]\nrequire_reason = true\n");
    let daemon = stage.daemon();
    stage.start("a");
    daemon.stop();
    let strict = |arguments: &[&str]| -> Came {
        let whole: Vec<&str> = arguments.iter().copied().chain(["--config", "strict.toml"]).collect();
        stage.sagad(&whole)
    };
    strict(&["compensate", "hire/a"]).exits(2).says("reason");
    strict(&["compensate", "hire/a", "--reason", "because"]).exits(0);
}

#[test]
fn while_somebody_else_has_the_database_nobody_acts() {
    let stage = Stage::new();
    let mut daemon = stage.daemon();
    stage.start("a");
    // It still has the lock, and answers no more.
    std::fs::remove_file(stage.path("sagad.db.sock")).unwrap();
    let pid = daemon.child.id().to_string();
    stage.sagad(&["compensate", "hire/a"]).exits(6).says(&pid);
    assert_eq!(stage.json(&["list"])["instances"].as_array().unwrap().len(), 1);
    daemon.signal("TERM");
    assert_eq!(daemon.ended(), 0);
}

#[test]
fn http_takes_the_flags_names_and_answers_with_the_same_documents() {
    let stage = Stage::new();
    let daemon = stage.daemon();
    stage.start("a");
    let (status, text) = stage.get("/v1/instances?saga=hire&status=running").unwrap();
    assert_eq!(status, 200);
    let listed: Value = serde_json::from_str(&text).unwrap();
    let id = listed["instances"][0]["id"].as_str().unwrap();
    assert_eq!(stage.get(&format!("/v1/instances/{id}")).unwrap().0, 200);
    let (status, text) = stage.get("/v1/sagas/hire/a").unwrap();
    let process: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, &process["data"]["car"], &process["failure"]), (200, &Value::from("red"), &Value::Null));
    for (path, expected) in [
        ("/v1/sagas/hire/nobody", 404),
        ("/v1/instances/0192f1c2", 404),
        ("/v1/dance", 404),
        ("/nothing", 404),
        ("/v1/list?sagga=x", 400),
        ("/v1/list?limit=x", 400),
    ] {
        let (status, text) = stage.get(path).unwrap();
        assert_eq!(status, expected, "{path}: {text}");
        let error: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(error["format"], 1);
        assert!(error["error"]["code"].is_string() && error["error"]["message"].is_string(), "{error}");
    }
    let (status, done) = stage.post("/v1/compensate", &serde_json::json!({ "id": id, "by": "bea", "dry-run": true }));
    assert_eq!((status, &done["results"][0]["ok"]), (200, &Value::from(true)), "{done}");
    let (status, wrong) = stage.post("/v1/compensate", &serde_json::json!({}));
    assert_eq!((status, &wrong["error"]["code"]), (400, &Value::from("usage")));
    daemon.stop();
}
