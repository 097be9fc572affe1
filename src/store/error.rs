//! What can go wrong with the database, each with a sentence that a person can act on.

use std::path::PathBuf;

/// Why the database did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the database {} belongs to another process: pid {pid}{}", path.display(), since_text(since.as_deref()))]
    Held { path: PathBuf, pid: u32, since: Option<String> },
    #[error("there is no database at {}", path.display())]
    Missing { path: PathBuf },
    #[error("cannot open the database {}: {reason}", path.display())]
    Open { path: PathBuf, reason: String },
    #[error("{} is no database of this program", path.display())]
    Foreign { path: PathBuf },
    #[error(
        "the database has schema version {found}, this program knows {known}: use the program that wrote it, or a later one"
    )]
    Newer { found: i64, known: i64 },
    #[error(
        "the database has schema version {found}, this program reads {known}: starting the daemon brings it up to date"
    )]
    Older { found: i64, known: i64 },
    #[error("another process is writing to the database: {reason}")]
    Busy { reason: String },
    #[error("no space is left for the database: {reason}")]
    Full { reason: String },
    #[error("the database cannot be written: {reason}")]
    ReadOnly { reason: String },
    #[error("the disk failed under the database: {reason}")]
    Io { reason: String },
    #[error("the database is damaged: {what}")]
    Corrupt { what: String },
    /// A read went past its limit of work.
    #[error("the question takes too much reading; narrow it")]
    TooMuch,
    #[error("the transaction is gone: an error before this one took it back")]
    Gone,
    /// A mistake of the caller's that spoils nothing.
    #[error("{what}")]
    Defect { what: String },
    #[error("the database failed: {reason}")]
    Other { reason: String },
}

impl StoreError {
    /// Whether the daemon has to stop (exit code 74): all but what a reader or a mistaken call ran into.
    pub fn is_fatal(&self) -> bool {
        !matches!(self, StoreError::TooMuch | StoreError::Defect { .. })
    }

    pub(super) fn corrupt(what: impl Into<String>) -> StoreError {
        StoreError::Corrupt { what: what.into() }
    }

    pub(super) fn defect(what: impl Into<String>) -> StoreError {
        StoreError::Defect { what: what.into() }
    }
}

fn since_text(since: Option<&str>) -> String {
    since.map_or_else(String::new, |since| format!(", since {since}"))
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> StoreError {
        use rusqlite::ErrorCode;
        let reason = error.to_string();
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::Busy { reason },
            Some(ErrorCode::DiskFull) => StoreError::Full { reason },
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => StoreError::ReadOnly { reason },
            Some(ErrorCode::SystemIoFailure) => StoreError::Io { reason },
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreError::Corrupt { what: reason },
            Some(ErrorCode::OperationInterrupted) => StoreError::TooMuch,
            _ => match error {
                rusqlite::Error::InvalidColumnType(..)
                | rusqlite::Error::FromSqlConversionFailure(..)
                | rusqlite::Error::IntegralValueOutOfRange(..)
                | rusqlite::Error::Utf8Error(..) => StoreError::Corrupt { what: reason },
                _ => StoreError::Other { reason },
            },
        }
    }
}
