//! The daemon's life: start, second start, kill, stop, reload.

use std::os::unix::fs::PermissionsExt;

use super::stage::{HIRE, Stage};

#[test]
fn two_daemons_cannot_own_one_database() {
    let stage = Stage::new();
    let daemon = stage.daemon();
    let second = stage.sagad(&["run"]).exits(74);
    assert!(second.err.contains(&format!("pid {}", daemon.child.id())), "{}", second.err);
    // The first is none the worse for it.
    assert_eq!(stage.json(&["status"])["daemon"]["pid"], daemon.child.id());
    daemon.stop();
}

#[test]
fn a_database_that_cannot_be_made_is_told_with_exit_74() {
    let stage = Stage::new();
    stage.sagad(&["run", "--db", "no/such/folder/sagad.db"]).exits(74).says("no/such/folder");
    stage.write(
        "letter.txt",
        "Dear Sir, this is no database, and it is longer than a header of one has to be at least.",
    );
    stage.sagad(&["run", "--db", "letter.txt"]).exits(74).says("letter.txt");
    assert!(std::fs::read_to_string(stage.path("letter.txt")).unwrap().starts_with("Dear Sir"));
}

#[test]
fn what_a_killed_daemon_leaves_behind_is_replaced() {
    let stage = Stage::new();
    let mut daemon = stage.daemon();
    stage.start("a");
    daemon.signal("KILL");
    daemon.ended();
    assert!(stage.path("sagad.db.sock").exists());
    // Looking needs neither lock nor daemon.
    assert_eq!(stage.json(&["status"])["daemon"], serde_json::Value::Null);
    assert_eq!(stage.json(&["list"])["instances"][0]["key"], "a");
    let daemon = stage.daemon();
    assert_eq!(stage.json(&["list"])["instances"][0]["key"], "a");
    daemon.stop();
    assert!(!stage.path("sagad.db.sock").exists());
}

#[test]
fn database_and_socket_are_for_the_own_user_alone() {
    let stage = Stage::new();
    let daemon = stage.daemon();
    for file in ["sagad.db", "sagad.db-wal", "sagad.db.sock", "sagad.db.lock"] {
        let mode = std::fs::metadata(stage.path(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    daemon.stop();
}

#[test]
fn a_path_that_is_too_long_for_a_socket_works_all_the_same() {
    let stage = Stage::new();
    let deep = "a-folder-with-a-rather-long-name/".repeat(4);
    std::fs::create_dir_all(stage.path(&deep)).unwrap();
    let database = format!("{deep}sagad.db");
    let mut command = stage.command(&["run", "--db", &database]);
    let mut child = command.env("XDG_RUNTIME_DIR", stage.path("")).stderr(std::process::Stdio::null()).spawn().unwrap();
    let began = std::time::Instant::now();
    let status = loop {
        let came = stage.sagad(&["status", "--db", &database, "--json"]);
        if came.code == 0 && came.json()["daemon"]["pid"] == child.id() {
            break came.json();
        }
        assert!(began.elapsed().as_secs() < 60, "{}{}", came.out, came.err);
        std::thread::sleep(std::time::Duration::from_millis(50));
    };
    drop(child.kill());
    drop(child.wait());
    assert_eq!(status["daemon"]["version"], env!("CARGO_PKG_VERSION"));
    let sockets = std::fs::read_dir(stage.path(""))
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("sagad-"));
    assert_eq!(sockets.count(), 1);
}

#[test]
fn definitions_are_loaded_again_whole_or_not_at_all() {
    let stage = Stage::new();
    let daemon = stage.daemon();
    stage.write("sagas/hire.yaml", &HIRE.replace("car: \"${event.car}\"", "car: \"${event.car}\", more: 1"));
    let reloaded = stage.json(&["reload"]);
    assert_eq!(reloaded["loaded"], 1);
    assert_eq!(stage.json(&["definitions"])["definitions"].as_array().unwrap().len(), 2);
    stage.write("sagas/hire.yaml", "saga: hire\n");
    let refused = stage.sagad(&["reload", "--json"]).exits(9).json();
    assert!(!refused["diagnostics"].as_array().unwrap().is_empty());
    let status = stage.json(&["status"]);
    assert_eq!(status["definitions"]["loaded"], 1);
    assert!(status["definitions"]["error"].as_str().unwrap().contains("hire.yaml"), "{status:#}");
    // The old one still starts.
    stage.start("a");
    assert_eq!(stage.json(&["list"])["instances"][0]["key"], "a");
    stage.write("sagas/hire.yaml", HIRE);
    daemon.signal("HUP");
    let began = std::time::Instant::now();
    while stage.json(&["status"])["definitions"]["error"] != serde_json::Value::Null {
        assert!(began.elapsed().as_secs() < 30, "{}", stage.log());
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    daemon.stop();
    stage.sagad(&["reload"]).exits(6);
}

#[test]
fn without_a_broker_it_lives_but_is_not_ready() {
    let stage = Stage::new();
    let daemon = stage.daemon();
    assert_eq!(stage.get("/healthz").unwrap().0, 200);
    assert_eq!(stage.get("/readyz").unwrap().0, 503);
    let broker = &stage.json(&["status"])["broker"];
    assert_eq!(broker["connected"], false);
    // What waits goes out when the broker comes; what was said to be published is among it.
    let id = stage.json(&["publish", "Anything", "--id", "m1"])["message_id"].clone();
    assert_eq!(id, "m1");
    assert_eq!(stage.json(&["outbox"])["messages"][0]["message_id"], "m1");
    daemon.stop();
    // Without a daemon it would go straight to the broker.
    stage.sagad(&["publish", "Anything"]).exits(1).says("not published");
}

#[test]
fn logs_may_be_json() {
    let stage = Stage::new();
    let mut command = stage.command(&["run"]);
    command.env("SAGAD_TELEMETRY__FORMAT", "json").stderr(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    let began = std::time::Instant::now();
    while !stage.path("sagad.db.sock").exists() && began.elapsed().as_secs() < 60 {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    child.wait().unwrap();
    let mut log = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut log).unwrap();
    assert!(log.lines().count() > 0);
    for line in log.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(line["level"].is_string(), "{line}");
    }
}
