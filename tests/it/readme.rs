//! The README's first saga, word by word: its files, its commands, and its participant in Python and in Rust, over a real
//! broker. What a reader types is what runs here.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking, and so may what only tests use")]
#![expect(clippy::disallowed_methods, reason = "a real broker is waited for by the clock")]

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::broker::Broker;
use crate::documents::sagas_in;

/// What any step may take on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn the_first_saga_of_the_readme_runs_with_its_participant_in_python() {
    let python = PathBuf::from(std::env::var_os("SAGAD_TEST_PYTHON").unwrap_or_else(|| "/usr/bin/python3".into()));
    let has_pika = Command::new(&python).args(["-c", "import pika"]).output().is_ok_and(|run| run.status.success());
    assert!(has_pika, "{} has no pika: `scripts/test setup` installs it (python3-pika)", python.display());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/participant.py");
    Reader::new("readme-python", vec![python, script]).walk();
}

#[test]
fn the_first_saga_of_the_readme_runs_with_its_participant_in_rust() {
    let built = Path::new(env!("CARGO_BIN_EXE_sagad")).with_file_name("examples").join("participant");
    assert!(built.exists(), "{} is not there: `cargo test` builds it, `cargo build --examples` too", built.display());
    Reader::new("readme-rust", vec![built]).walk();
}

/// Who follows the README: a folder, a daemon, a participant.
struct Reader {
    folder: tempfile::TempDir,
    url: String,
    participant: Vec<PathBuf>,
    running: Vec<Running>,
}

/// A process that does not outlive its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nobody to kill.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Reader {
    /// Names are the defaults: so each reader has a virtual host of its own.
    fn new(vhost: &str, participant: Vec<PathBuf>) -> Reader {
        let broker = Broker::shared();
        broker.ctl(&["add_vhost", vhost]);
        broker.ctl(&["set_permissions", "-p", vhost, "guest", ".*", ".*", ".*"]);
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("sagas")).unwrap();
        for (name, text) in sagas_in("README.md") {
            fs::write(folder.path().join("sagas").join(name), text).unwrap();
        }
        Reader { folder, url: format!("{}/{vhost}", broker.url()), participant, running: Vec::new() }
    }

    fn walk(mut self) {
        self.sagad(&["check"], "");
        self.sagad(&["test"], "");
        self.start_both();
        self.publish("SignUpWanted", r#"{"request": "r1", "user": "ann", "group": "chess"}"#);
        self.until("r1", "ask-owner", "running");
        self.publish("OwnerDeclined", r#"{"request": "r1", "reason": "the group is closed"}"#);
        let ended = self.until("r1", "ask-owner", "compensated");
        assert_eq!(ended["failure"]["reason"], "the group is closed", "{ended}");
        assert_eq!(ended["steps"][0]["effect"], "undone", "{ended}");

        // Without a participant it waits, also when the daemon is killed meanwhile.
        self.running.pop();
        self.publish("SignUpWanted", r#"{"request": "r2", "user": "ann", "group": "chess"}"#);
        self.until("r2", "acquire-membership", "running");
        self.running.clear();
        self.start_both();
        self.until("r2", "ask-owner", "running");
        self.publish("OwnerAgreed", r#"{"request": "r2"}"#);
        self.until("r2", "ask-owner", "completed");
        for key in ["sign-up/r1", "sign-up/r2"] {
            self.sagad(&["journal", key, "--verify"], "");
        }
    }

    fn start_both(&mut self) {
        let daemon = self.command(Path::new(env!("CARGO_BIN_EXE_sagad"))).arg("run").spawn().unwrap();
        self.running.push(Running(daemon));
        let mut participant = self.command(&self.participant[0]);
        self.running.push(Running(participant.args(&self.participant[1..]).spawn().unwrap()));
        self.wait("the daemon consumes and publishes", |reader| {
            let status = reader.json(&["status", "--json"])?;
            (status["broker"]["connected"] == true).then_some(status)
        });
    }

    /// `echo '<body>' | sagad publish <event> --body -`
    fn publish(&self, event: &str, body: &str) {
        self.sagad(&["publish", event, "--body", "-"], body);
    }

    fn until(&self, key: &str, state: &str, status: &str) -> Value {
        self.wait(&format!("{key} is {status} in {state}"), |reader| {
            let shown = reader.json(&["show", &format!("sign-up/{key}"), "--json"])?;
            (shown["state"] == state && shown["status"] == status).then_some(shown)
        })
    }

    fn wait(&self, what: &str, look: impl Fn(&Reader) -> Option<Value>) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(seen) = look(self) {
                return seen;
            }
            if Instant::now() > until {
                let logs = ["out", "err"].map(|name| fs::read_to_string(self.folder.path().join(name)).unwrap());
                panic!("not after {PATIENCE:?}: {what}\n{}\n{}", self.sagad(&["list", "--json"], ""), logs.join("\n"));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// What a verb that looks prints; `None` where it fails.
    fn json(&self, arguments: &[&str]) -> Option<Value> {
        let Output { status, stdout, .. } = self.run(arguments, "");
        status.success().then(|| serde_json::from_slice(&stdout).expect("--json prints JSON"))
    }

    /// A verb that must succeed, and what it prints.
    fn sagad(&self, arguments: &[&str], input: &str) -> String {
        let Output { status, stdout, stderr } = self.run(arguments, input);
        let printed = String::from_utf8_lossy(&stdout).into_owned();
        assert!(status.success(), "sagad {arguments:?}: {status}\n{printed}{}", String::from_utf8_lossy(&stderr));
        printed
    }

    fn run(&self, arguments: &[&str], input: &str) -> Output {
        let mut verb = self.command(Path::new(env!("CARGO_BIN_EXE_sagad")));
        let piped = verb.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().unwrap();
        // A verb that reads nothing may have closed its input already.
        drop(child.stdin.take().unwrap().write_all(input.as_bytes()));
        child.wait_with_output().unwrap()
    }

    /// In the reader's folder, with the broker's address in the environment; what it says is kept for a failure.
    fn command(&self, program: &Path) -> Command {
        let log =
            |name: &str| fs::File::options().create(true).append(true).open(self.folder.path().join(name)).unwrap();
        let mut command = Command::new(program);
        command
            .current_dir(self.folder.path())
            .env("SAGAD_BUS__URL", &self.url)
            .env("AMQP_URL", &self.url)
            .stdin(Stdio::null())
            .stdout(log("out"))
            .stderr(log("err"));
        command
    }
}
