//! Exit codes, and the one error that every verb may end with: what, why, and what to do about it.

use std::fmt;
use std::process::ExitCode;

/// A contract: scripts test for these numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    Done = 0,
    Failed = 1,
    Usage = 2,
    /// No such instance, or a selector of an acting verb that matches nothing.
    NotFound = 3,
    /// The instance moved on, or the order does not fit.
    Conflict = 4,
    /// No daemon, and the database is locked or missing.
    NoDatabase = 6,
    NotAllowed = 7,
    /// `check`, `test` or `verify` found something.
    Found = 9,
    /// `status --check` found stuck instances.
    Stuck = 10,
    /// Of the daemon: a bug.
    Bug = 70,
    /// Of the daemon: its database failed, or belongs to another one.
    Database = 74,
    /// Of the daemon: configuration or definitions wrong at start.
    Configuration = 78,
}

impl Exit {
    pub fn code(self) -> ExitCode {
        // The discriminants are the codes, all below 256.
        ExitCode::from(self as u8)
    }
}

/// Why a verb could not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub exit: Exit,
    pub message: String,
    pub hint: Option<String>,
    /// Whoever read our output went away: nothing is said, and nothing was wrong.
    pub quiet: bool,
}

impl Failure {
    pub fn new(exit: Exit, message: impl Into<String>) -> Failure {
        Failure { exit, message: message.into(), hint: None, quiet: false }
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }

    pub fn usage(message: impl Into<String>) -> Failure {
        Failure::new(Exit::Usage, message)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Failure { exit: Exit::Done, message: String::new(), hint: None, quiet: true };
        }
        Failure::new(Exit::Failed, error.to_string())
    }
}

pub type Outcome = Result<Exit, Failure>;
