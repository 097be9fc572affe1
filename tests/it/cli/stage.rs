//! A folder of its own, the binary in it, and a daemon that ends with the test.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Nothing listens there: the daemon waits for its broker.
const NO_BROKER: &str = "amqp://127.0.0.1:1";
/// The longest that a daemon may take to start on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A saga that gets stuck when it is told so.
pub const HIRE: &str = r#"saga: hire
about: A car is booked, and paid for.
start:
  HireRequested: { key: event.id, data: { car: "${event.car}" } }
deadline: 1d
states:
  book:
    send: cars.Book
    success: Booked
    failure: { BookingRefused: { incident: "the car ${data.car} is gone" } }
    timeout: 1h
    undo: { send: cars.Cancel, success: Cancelled }
  pay:
    send: purse.Pay
    success: Paid
    failure: Broke
    timeout: 1h
    undo: { send: purse.GiveBack, success: GivenBack }
completed:
  publish: { event: Hired, with: { id: "${saga.key}" } }
"#;

pub struct Stage {
    folder: tempfile::TempDir,
}

pub struct Daemon<'a> {
    pub child: Child,
    stage: &'a Stage,
}

/// What a command came to.
pub struct Came {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Came {
    #[track_caller]
    pub fn exits(self, code: i32) -> Came {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.out, self.err);
        self
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}\n{}", self.out, self.err))
    }

    #[track_caller]
    pub fn says(self, text: &str) -> Came {
        assert!(self.err.contains(text), "'{text}' is not in:\n{}", self.err);
        self
    }
}

impl From<Output> for Came {
    fn from(output: Output) -> Came {
        Came {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Stage {
    /// A folder with the saga `hire`.
    pub fn new() -> Stage {
        let stage = Stage::empty();
        std::fs::create_dir(stage.path("sagas")).unwrap();
        stage.write("sagas/hire.yaml", HIRE);
        stage
    }

    pub fn empty() -> Stage {
        Stage { folder: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sagad"));
        command.args(arguments).current_dir(self.folder.path()).stdin(Stdio::null());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("SAGAD_") {
                command.env_remove(name);
            }
        }
        command.env_remove("COLUMNS").env("SAGAD_BUS__URL", NO_BROKER).env("LOGNAME", "tester");
        command
    }

    pub fn sagad(&self, arguments: &[&str]) -> Came {
        Came::from(self.command(arguments).output().unwrap())
    }

    pub fn json(&self, arguments: &[&str]) -> Value {
        let whole: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
        self.sagad(&whole).exits(0).json()
    }

    /// Starts a daemon and waits until it listens.
    pub fn daemon(&self) -> Daemon<'_> {
        let log = std::fs::File::create(self.path("daemon.log")).unwrap();
        let child = self.command(&["run"]).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let mut daemon = Daemon { child, stage: self };
        let began = Instant::now();
        while self.get("/healthz").is_none_or(|(status, _)| status != 200) {
            if let Some(status) = daemon.child.try_wait().unwrap() {
                panic!("it ended with {status}:\n{}", self.log());
            }
            assert!(began.elapsed() < PATIENCE, "it does not listen:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        daemon
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("daemon.log")).unwrap_or_default()
    }

    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        request(&self.path("sagad.db.sock"), &format!("GET {path}"), "")
    }

    pub fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let (status, text) =
            request(&self.path("sagad.db.sock"), &format!("POST {path}"), &body.to_string()).expect("it listens");
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    /// An event, as if from the bus.
    pub fn event(&self, kind: &str, data: &Value, correlation: Option<&str>) {
        let (status, answer) =
            self.post("/v1/events", &json!({ "type": kind, "data": data, "correlation_id": correlation }));
        assert_eq!(status, 202, "{answer}");
    }

    /// Starts an instance with this key.
    pub fn start(&self, key: &str) {
        self.event("HireRequested", &json!({ "id": key, "car": "red" }), None);
    }

    /// Answers the last command of an instance.
    pub fn answer(&self, key: &str, kind: &str) {
        let shown = self.json(&["show", &format!("hire/{key}")]);
        let step = shown["steps"].as_array().unwrap().last().unwrap();
        self.event(kind, &json!({}), step["command_id"].as_str());
    }

    /// Answers the undo of a step.
    pub fn answer_undo(&self, key: &str, step: &str, kind: &str) {
        let shown = self.json(&["show", &format!("hire/{key}")]);
        let step = shown["steps"].as_array().unwrap().iter().find(|known| known["name"] == step).unwrap();
        let id = step["undo"]["command_id"].as_str();
        assert!(id.is_some(), "{shown:#}");
        self.event(kind, &json!({}), id);
    }
}

impl Daemon<'_> {
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Its exit code.
    pub fn ended(&mut self) -> i32 {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
            }
            assert!(began.elapsed() < PATIENCE, "it does not end:\n{}", self.stage.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn stop(mut self) {
        self.signal("TERM");
        assert_eq!(self.ended(), 0, "{}", self.stage.log());
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn request(socket: &Path, line: &str, body: &str) -> Option<(u16, String)> {
    let mut stream = UnixStream::connect(socket).ok()?;
    let head = format!(
        "{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(body.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}
