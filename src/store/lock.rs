//! Which process owns a database: an advisory lock on a file beside it, which the system releases however the process
//! ends. Not on the database's own file: locks on that vanish when any descriptor of it closes.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::error::StoreError;

/// Somebody who looks whether the lock is held has it for an instant; so one try is not enough.
const TRIES: u32 = 10;
const BETWEEN_TRIES: Duration = Duration::from_millis(10);
/// A lock file holds a line; what is longer is not ours.
const MOST_BYTES: u64 = 4096;

/// Who holds a database, as the lock's file tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// 0 where the file does not tell.
    pub pid: u32,
    /// RFC 3339.
    pub started_at: String,
    /// Where it listens; `None`: it does not (a verb that acts by itself).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<PathBuf>,
    /// Which database it is, once that is open: a copy elsewhere has the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
}

/// The right to write to a database, until it is dropped or the process ends.
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// Takes the lock of the database at `database`, or says who has it.
    pub fn take(database: &Path, holder: &Holder) -> Result<Lock, StoreError> {
        let path = lock_path(database);
        let failed = |reason: String| StoreError::Open { path: path.clone(), reason };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|error| failed(error.to_string()))?;
        let mut tries = 1;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if tries < TRIES => {
                    tries += 1;
                    std::thread::sleep(BETWEEN_TRIES);
                }
                Err(TryLockError::WouldBlock) => {
                    let Holder { pid, started_at, .. } = read_holder(&file);
                    let since = Some(started_at).filter(|since| !since.is_empty());
                    return Err(StoreError::Held { path: database.to_owned(), pid, since });
                }
                Err(TryLockError::Error(error)) => return Err(failed(error.to_string())),
            }
        }
        belongs_to_the_owner(&file, database);
        let mut lock = Lock { file, path };
        lock.tell(holder)?;
        Ok(lock)
    }

    /// Writes anew who holds it.
    pub fn tell(&mut self, holder: &Holder) -> Result<(), StoreError> {
        let text = serde_json::to_string(holder).expect("a holder always serialises");
        self.write(&format!("{text}\n"))
            .map_err(|error| StoreError::Open { path: self.path.clone(), reason: error.to_string() })
    }

    /// Who holds the database at `database`; `None`: nobody. For those who look; it takes nothing away.
    pub fn holder(database: &Path) -> Result<Option<Holder>, StoreError> {
        let path = lock_path(database);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::Open { path, reason: error.to_string() }),
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(None),
            Err(TryLockError::WouldBlock) => Ok(Some(read_holder(&file))),
            Err(TryLockError::Error(error)) => Err(StoreError::Open { path, reason: error.to_string() }),
        }
    }

    fn write(&mut self, text: &str) -> std::io::Result<()> {
        self.file.seek(SeekFrom::Start(0))?;
        self.file.set_len(0)?;
        self.file.write_all(text.as_bytes())?;
        self.file.sync_data()
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Only tidiness: who reads the file asks for the lock first.
        let _ = self.file.set_len(0);
    }
}

/// `<db>.lock`.
fn lock_path(database: &Path) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push(".lock");
    PathBuf::from(path)
}

/// What the file tells; after it was taken it may stand empty for an instant.
fn read_holder(file: &File) -> Holder {
    for _ in 0..TRIES {
        if let Some(holder) = try_read_holder(file) {
            return holder;
        }
        std::thread::sleep(BETWEEN_TRIES);
    }
    Holder { pid: 0, started_at: String::new(), socket: None, database: None }
}

fn try_read_holder(mut file: &File) -> Option<Holder> {
    let mut text = String::new();
    file.seek(SeekFrom::Start(0)).ok()?;
    file.take(MOST_BYTES).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

/// Whoever made the file: it belongs to the database's owner, so that a look by the superuser locks nobody out.
fn belongs_to_the_owner(file: &File, database: &Path) {
    if let Ok(owner) = std::fs::metadata(database) {
        // Where it is not allowed, it is not needed: then the owner is who runs this.
        let _ = std::os::unix::fs::fchown(file, Some(owner.uid()), Some(owner.gid()));
    }
}
