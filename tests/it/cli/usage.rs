//! What a person may get wrong, and what the binary says of itself.

use super::stage::Stage;

#[test]
fn a_wrong_use_is_told_and_exits_2() {
    let stage = Stage::new();
    for arguments in [
        &["dance"][..],
        &[],
        &["show"],
        &["list", "--status", "runing"],
        &["list", "--older-than", "5"],
        &["list", "--json", "-o", "id"],
        &["count", "--by", "colour"],
        &["resolve", "hire/x", "--step", "book", "--as", "maybe"],
        &["check", "nowhere"],
        &["journal", "--verify"],
        &["demo", "--requests", "0"],
        &["publish", "X", "--header", "x"],
    ] {
        let came = stage.sagad(arguments).exits(2);
        assert!(came.out.is_empty() && !came.err.is_empty(), "{arguments:?}: {}", came.out);
    }
}

#[test]
fn an_acting_verb_needs_to_know_which_instance() {
    let stage = Stage::new();
    let daemon = stage.daemon();
    stage.sagad(&["compensate"]).exits(2).says("which instance");
    stage.sagad(&["compensate", "hire/x"]).exits(3).says("no instance 'hire/x'");
    stage.sagad(&["compensate", "--saga", "hire"]).exits(3);
    stage.start("a");
    stage.start("b");
    stage.sagad(&["compensate", "--saga", "hire", "--yes"]).exits(2).says("2 instances");
    stage.sagad(&["compensate", "--saga", "hire", "--key", "a"]).exits(0);
    daemon.stop();
}

#[test]
fn without_a_database_there_is_nothing_to_see() {
    let stage = Stage::new();
    for arguments in [
        &["list"][..],
        &["status"],
        &["show", "hire/x"],
        &["count"],
        &["inbox"],
        &["outbox"],
        &["definitions"],
        &["compensate", "hire/x"],
        &["reload"],
    ] {
        stage.sagad(arguments).exits(6).says("no database");
        assert!(!stage.path("sagad.db").exists(), "{arguments:?} made one");
    }
}

#[test]
fn a_password_in_the_url_is_refused_and_never_shown() {
    let stage = Stage::new();
    let came = stage.sagad(&["run", "--amqp-url", "amqp://me:geheim@localhost"]).exits(2);
    assert!(!came.err.contains("geheim"), "{}", came.err);
    let explained =
        stage.command(&["check", "--explain"]).env("SAGAD_BUS__URL", "amqp://me:geheim@localhost/v").output();
    let came = super::stage::Came::from(explained.unwrap()).exits(0);
    assert!(came.out.contains("amqp://me:***@localhost/v") && came.out.contains("$SAGAD_BUS__URL"), "{}", came.out);
    assert!(!came.out.contains("geheim") && !came.err.contains("geheim"));
}

#[test]
fn a_wrong_configuration_stops_the_start_and_is_found_by_check() {
    let stage = Stage::new();
    stage.write("wrong.toml", "[bus]\nprefech = 3\n");
    let came = stage.sagad(&["run", "--config", "wrong.toml"]).exits(78);
    assert!(came.err.contains("wrong.toml:2:1") && came.err.contains("prefetch"), "{}", came.err);
    assert!(!stage.path("sagad.db").exists());
    let came = stage.sagad(&["check", "--config", "wrong.toml", "--json"]).exits(9);
    let diagnostic = &came.json()["diagnostics"][0];
    assert_eq!(diagnostic["file"], "wrong.toml");
    assert_eq!(diagnostic["line"], 2);
    stage.sagad(&["list", "--config", "wrong.toml"]).exits(78);
    stage.sagad(&["run", "--config", "missing.toml"]).exits(78).says("missing.toml");
}

#[test]
fn wrong_definitions_are_told_all_at_once_and_alike_by_check_and_run() {
    let stage = Stage::new();
    stage.write(
        "sagas/hire.yaml",
        &super::stage::HIRE.replace("success: Booked", "sucess: Booked").replace("1d", "1 day"),
    );
    stage.write("sagas/other.yaml", "saga: [\n");
    let checked = stage.sagad(&["check", "--json"]).exits(9).json();
    let diagnostics = checked["diagnostics"].as_array().unwrap();
    assert!(diagnostics.len() >= 3, "{checked:#}");
    let ran = stage.sagad(&["run"]).exits(78);
    let text = stage.sagad(&["check"]).exits(9).out;
    for diagnostic in diagnostics {
        for field in ["severity", "code", "message", "hint", "file"] {
            assert!(diagnostic[field].as_str().is_some_and(|text| !text.is_empty()), "{diagnostic}");
        }
        let field = |name: &str| diagnostic[name].as_str().unwrap().to_owned();
        let place = format!("{}:{}:{}:", field("file"), diagnostic["line"], diagnostic["column"]);
        for shown in [&text, &ran.err] {
            assert!(shown.contains(&place) && shown.contains(&field("code")), "{place}\n{shown}");
        }
    }
    assert!(!stage.path("sagad.db").exists(), "nothing was started");
}

#[test]
fn a_folder_that_somebody_named_has_to_be_there() {
    let stage = Stage::empty();
    stage.sagad(&["check"]).exits(0);
    stage.sagad(&["check", "--sagas", "nowhere"]).exits(2).says("nowhere");
    stage.sagad(&["run", "--sagas", "nowhere"]).exits(78).says("nowhere");
}

#[test]
fn warnings_fail_only_where_that_is_asked_for() {
    let stage = Stage::new();
    stage.write("sagas/hire.yaml", &super::stage::HIRE.replace("about: A car is booked, and paid for.\n", ""));
    let checked = stage.sagad(&["check", "--json"]).exits(0).json();
    if checked["diagnostics"].as_array().unwrap().is_empty() {
        // Nothing warns of anything yet.
        return;
    }
    stage.sagad(&["check", "--deny", "warnings"]).exits(9);
}

#[test]
fn the_binary_tells_of_itself() {
    let stage = Stage::empty();
    let version = stage.sagad(&["--version"]).exits(0);
    assert_eq!(version.out.trim(), format!("sagad {}", env!("CARGO_PKG_VERSION")));
    let help = stage.sagad(&["compensate", "--help"]).exits(0);
    assert!(help.out.contains("Examples:") && help.out.contains("--expect-turn"), "{}", help.out);
    let bash = stage.sagad(&["completions", "bash"]).exits(0);
    assert!(bash.out.contains("compensate"));
    let page = stage.sagad(&["man"]).exits(0);
    assert!(page.out.contains(".TH sagad"));
    stage.sagad(&["man", "--dir", "."]).exits(0);
    assert!(stage.path("sagad-show.1").exists());
}

#[test]
fn the_demo_runs_anywhere_and_leaves_nothing() {
    let stage = Stage::empty();
    let shown = stage.json(&["demo", "--requests", "40", "--seed", "3"]);
    assert_eq!(shown["seed"], 3);
    let sum: u64 = shown["sagas"]
        .as_array()
        .unwrap()
        .iter()
        .map(|saga| saga["completed"].as_u64().unwrap() + saga["compensated"].as_u64().unwrap())
        .sum();
    assert_eq!(sum, 40, "{shown:#}");
    assert!(shown["invariants"].as_array().unwrap().iter().all(|invariant| invariant["holds"] == true), "{shown:#}");
    assert_eq!(std::fs::read_dir(stage.path("")).unwrap().count(), 0);
}
