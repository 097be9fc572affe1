//! The daemon as a process over a broker, and the participants as another: a folder of their own, started, killed,
//! started again, and ended with the test.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Once;
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long anything may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(180);

pub struct Town {
    folder: tempfile::TempDir,
    pub url: String,
    daemon: Option<Child>,
    starts: u32,
}

impl Town {
    /// With the shipped sagas.
    pub fn new(url: &str) -> Town {
        let town = Town::empty(url);
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("sagas");
        for name in ["join-group.yaml", "allocate-cell.yaml"] {
            std::fs::copy(shipped.join(name), town.path("sagas").join(name)).unwrap();
        }
        town
    }

    /// With no saga yet.
    pub fn empty(url: &str) -> Town {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("sagas")).unwrap();
        Town { folder, url: url.to_owned(), daemon: None, starts: 0 }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn saga(&self, name: &str, text: &str) {
        std::fs::write(self.path("sagas").join(format!("{name}.yaml")), text).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sagad"));
        command.args(arguments).current_dir(self.folder.path()).stdin(Stdio::null());
        command.env("SAGAD_BUS__URL", &self.url).env("LOGNAME", "tester");
        command
    }

    /// Starts the daemon, without waiting for anything.
    pub fn start(&mut self) {
        assert!(self.daemon.is_none(), "it runs already");
        self.starts += 1;
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.path("daemon.log")).unwrap();
        self.daemon = Some(self.command(&["run"]).stdout(Stdio::null()).stderr(log).spawn().unwrap());
    }

    /// Starts the daemon and waits until it consumes and publishes.
    pub fn up(&mut self) {
        self.start();
        self.until("connected", |status| status["broker"]["connected"] == true);
    }

    pub fn kill(&mut self) {
        let mut daemon = self.daemon.take().expect("it runs");
        daemon.kill().unwrap();
        daemon.wait().unwrap();
    }

    pub fn stop(&mut self) {
        let mut daemon = self.daemon.take().expect("it runs");
        let pid = rustix::process::Pid::from_child(&daemon);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let status = daemon.wait().unwrap();
        assert_eq!(status.code(), Some(0), "{}", self.log());
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("daemon.log")).unwrap_or_default()
    }

    /// What a verb prints as JSON; `None` where it fails.
    pub fn try_json(&self, arguments: &[&str]) -> Option<Value> {
        let output = self.command(arguments).arg("--json").output().unwrap();
        if !output.status.success() {
            return None;
        }
        serde_json::from_slice(&output.stdout).ok()
    }

    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let output = self.command(arguments).arg("--json").output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "sagad {arguments:?}: {}\n{out}\n{err}", output.status);
        serde_json::from_str(&out).unwrap()
    }

    /// Waits until something holds of what a verb prints.
    #[track_caller]
    pub fn until_json(&self, what: &str, arguments: &[&str], holds: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let found = self.try_json(arguments);
            if let Some(found) = &found
                && holds(found)
            {
                return found.clone();
            }
            let found = || found.map(|found| format!("{found:#}")).unwrap_or_default();
            assert!(began.elapsed() < PATIENCE, "it does not come to this: {what}\n{}\n{}", found(), self.log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    #[track_caller]
    pub fn until(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        self.until_json(what, &["status"], holds)
    }

    /// Waits until `count` instances have ended and nothing is left to be done for them.
    #[track_caller]
    pub fn until_ended(&self, count: u64) -> Value {
        self.until(&format!("{count} ended"), |status| ended(status) >= count && rests(status))
    }

    /// How many instances have ended; `None` where the daemon cannot be asked.
    pub fn ended(&self) -> Option<u64> {
        self.try_json(&["status"]).map(|status| ended(&status))
    }

    pub fn list(&self, arguments: &[&str]) -> Vec<Value> {
        let whole: Vec<&str> = ["list"].iter().chain(arguments).copied().collect();
        self.json(&whole)["instances"].as_array().unwrap().clone()
    }
}

impl Drop for Town {
    fn drop(&mut self) {
        if let Some(daemon) = &mut self.daemon {
            // One that has ended is ended enough.
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            eprintln!("the daemon's last words:\n{}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
        }
    }
}

fn ended(status: &Value) -> u64 {
    ["completed", "compensated", "abandoned"].iter().filter_map(|end| status["counts"][end].as_u64()).sum()
}

fn rests(status: &Value) -> bool {
    let none = |value: &Value| value.as_u64().unwrap_or(0) == 0;
    none(&status["counts"]["running"])
        && none(&status["counts"]["compensating"])
        && none(&status["settling"])
        && none(&status["outbox"])
}

/// The participants' process.
pub struct Participants {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Participants {
    pub fn start(url: &str, arguments: &[&str]) -> Participants {
        let mut child = Command::new(example())
            .args(["serve", "--amqp-url", url])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut participants = Participants { child, input, output };
        assert_eq!(participants.line()["ready"], true);
        participants
    }

    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }

    /// What they hold, saw and found.
    pub fn report(&mut self) -> Value {
        writeln!(self.input, "report").unwrap();
        self.line()
    }
}

impl Drop for Participants {
    fn drop(&mut self) {
        // One that has ended is ended enough.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Publishes requests in a process of its own; ends when the broker has all of them.
pub fn load(url: &str, arguments: &[&str]) -> Child {
    Command::new(example())
        .args(["load", "--amqp-url", url])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// The example's binary, beside the tests'. A filtered run of the tests does not build it: then it is built now.
fn example() -> PathBuf {
    static BUILT: Once = Once::new();
    let binary = Path::new(env!("CARGO_BIN_EXE_sagad"));
    let profile = binary.parent().unwrap();
    BUILT.call_once(|| {
        let name = profile.file_name().unwrap().to_str().unwrap();
        let profile_name = if name == "debug" { "dev" } else { name };
        let target = profile.parent().unwrap();
        let built = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--example", "participants", "--profile", profile_name, "--target-dir"])
            .arg(target)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status()
            .unwrap();
        assert!(built.success());
    });
    profile.join("examples").join("participants")
}
