//! A disk that is full, for real: a small file system of the test's own. The daemon stops and says so; with room again
//! it goes on where it was, and what it had taken is there.

use std::path::PathBuf;
use std::process::Command;

use serde_json::json;

use super::stage::Stage;

/// Small enough to be full after some hundred events.
const SMALL: &str = "size=3m";
const LARGE: &str = "size=64m";
/// More than the small one takes, less than the large one.
const EVENTS: usize = 2_000;

/// Ends with the test.
struct FileSystem {
    folder: PathBuf,
}

impl FileSystem {
    fn mount(folder: PathBuf) -> FileSystem {
        std::fs::create_dir(&folder).unwrap();
        let options = format!("{SMALL},mode=700");
        as_root(&["mount", "-t", "tmpfs", "-o", &options, "none", folder.to_str().unwrap()]);
        FileSystem { folder }
    }

    fn make_room(&self) {
        let options = format!("remount,{LARGE}");
        as_root(&["mount", "-o", &options, self.folder.to_str().unwrap()]);
    }
}

impl Drop for FileSystem {
    fn drop(&mut self) {
        as_root(&["umount", "--lazy", self.folder.to_str().unwrap()]);
    }
}

/// A file system needs root; where the tests do not run as root, `sudo` is asked.
fn as_root(words: &[&str]) {
    let command: Vec<&str> = if rustix::process::geteuid().is_root() {
        words.to_vec()
    } else {
        ["sudo", "-n"].iter().chain(words).copied().collect()
    };
    let status = Command::new(command[0]).args(&command[1..]).status().unwrap();
    assert!(status.success(), "{command:?}: {status}");
}

#[test]
fn a_full_disk_stops_the_daemon_and_with_room_again_it_goes_on() {
    let stage = Stage::new();
    let disk = FileSystem::mount(stage.path("disk"));
    let stage = stage.with_database("disk/sagad.db");
    let mut daemon = stage.daemon();
    let mut taken = 0;
    for number in 0..EVENTS {
        let body = json!({
            "type": "HireRequested", "id": format!("m{number}"),
            "data": { "id": format!("k{number}"), "car": "x".repeat(4_000) },
        });
        match stage.try_post("/v1/events", &body) {
            Some((202, _)) => taken = number + 1,
            _ => break,
        }
    }
    assert!(taken > 10 && taken < EVENTS, "{taken} events were taken");
    assert_eq!(daemon.ended(), 74, "{}", stage.log());
    let log = stage.log();
    assert!(log.contains("full"), "what is wrong is not said:\n{log}");
    drop(daemon);
    assert_eq!(stage.sagad(&["list", "--json"]).code, 0, "looking goes on");

    disk.make_room();
    let daemon = stage.daemon();
    let list = stage.json(&["list"]);
    let there = list["instances"].as_array().unwrap().len();
    // One more may have become durable without the answer that says so.
    assert!(there == taken || there == taken + 1, "{taken} were taken, {there} are there");
    stage.start("after");
    assert_eq!(stage.json(&["show", "hire/after"])["status"], "running");
    daemon.stop();
    let verified = stage.json(&["journal", "--all", "--verify"]);
    assert_eq!(verified["broken"], json!([]));
    assert!(verified["checked"].as_u64().unwrap() > 0);
}
