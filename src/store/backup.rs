//! A copy of the database while it is in use: in steps, from a connection that only reads, so that the writer never waits.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use rusqlite::backup::Backup;
use rusqlite::{Connection, OpenFlags};

use super::error::StoreError;
use super::reader::Reader;

/// Pages copied in one step: 4 MiB, some ten milliseconds.
const STEP_PAGES: i32 = 1_000;
const PAUSE: Duration = Duration::from_millis(2);

/// What was copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    pub bytes: u64,
}

impl Reader {
    /// Copies the database as it stands now into a file that is not there yet.
    pub fn backup(&self, path: &Path) -> Result<Copied, StoreError> {
        let failed = |error: std::io::Error| StoreError::Open { path: path.to_owned(), reason: error.to_string() };
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
        // A read transaction: the steps see one state, and the writer's commits do not begin the copy anew.
        self.snapshot_without_limit(|reader| {
            let mut copy =
                Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
            {
                let backup = Backup::new(&reader.connection, &mut copy)?;
                backup.run_to_completion(STEP_PAGES, PAUSE, None)?;
            }
            copy.close().map_err(|(_, error)| StoreError::from(error))
        })?;
        let file = std::fs::File::open(path).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        Ok(Copied { bytes: file.metadata().map_err(failed)?.len() })
    }
}
