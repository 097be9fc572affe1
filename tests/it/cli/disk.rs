//! The disk is full: on a small file system of the test's own, in a mount namespace of its own.

use std::process::{Command, Stdio};

use super::stage::Stage;

/// Fills the file system through a daemon until that ends, makes room, and starts it again.
const STORY: &str = r#"
sagad=$1
listens() {
    until test -S small/sagad.db.sock; do kill -0 "$1" 2>/dev/null || return; sleep 0.05; done
}
mkdir small
mount -t tmpfs -o size=1m tmpfs small || exit 99
"$sagad" run --db small/sagad.db 2>first.log & pid=$!
listens $pid
: >taken
for n in $(seq 1000); do
    "$sagad" publish Filler --id "m$n" --body body.json --db small/sagad.db >>taken 2>refused || break
done
wait $pid; echo $? >first.code
"$sagad" status --db small/sagad.db --json >full.json
mount -o remount,size=32m small
"$sagad" run --db small/sagad.db 2>second.log & pid=$!
listens $pid
"$sagad" outbox --db small/sagad.db -o id >kept
"$sagad" publish Filler --id after --db small/sagad.db >after
kill -TERM $pid
wait $pid; echo $? >second.code
"#;

#[test]
fn a_full_disk_stops_the_daemon_and_loses_nothing() {
    let stage = Stage::new();
    stage.write("body.json", &format!("{{\"filler\": \"{}\"}}", "x".repeat(8_000)));
    let told = stage.command(&[]);
    let mut story = Command::new("unshare");
    // An ordinary user may mount within a user namespace of its own.
    let own_users: &[&str] = if rustix::process::geteuid().is_root() { &[] } else { &["--user", "--map-root-user"] };
    story.args(own_users).args(["--mount", "sh", "-c", STORY, "sh", env!("CARGO_BIN_EXE_sagad")]);
    for (name, value) in told.get_envs() {
        match value {
            Some(value) => story.env(name, value),
            None => story.env_remove(name),
        };
    }
    let ended = story.current_dir(stage.path("")).stdin(Stdio::null()).output().unwrap();
    let read = |name: &str| std::fs::read_to_string(stage.path(name)).unwrap_or_default();
    assert!(ended.status.success(), "mount namespaces are needed: {ended:?}");
    assert_eq!(read("first.code").trim(), "74", "{}", read("first.log"));
    assert!(read("first.log").contains("no space is left"), "{}", read("first.log"));
    assert!(read("full.json").contains("\"daemon\": null"), "looking works on a full disk");
    let (taken, kept) = (read("taken"), read("kept"));
    assert!(taken.lines().count() > 3, "{taken}");
    for id in taken.lines() {
        assert!(kept.lines().any(|known| known == id), "{id} was taken and is not there any more:\n{kept}");
    }
    assert_eq!(read("after").trim(), "after");
    assert_eq!(read("second.code").trim(), "0", "{}", read("second.log"));
}
