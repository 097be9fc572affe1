//! Folding the WAL into the database, off the path of the commits: a thread with a connection of its own copies while the
//! writer goes on. Only where the writer is so busy that the thread never catches up does the writer copy the rest itself,
//! between two batches.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rusqlite::hooks::Wal;
use rusqlite::{Connection, OpenFlags};

use super::error::StoreError;
use super::open::Store;

/// Pages in the WAL at which the thread begins to copy: 16 MiB.
const BEGIN_PAGES: u32 = 4_000;
/// Pages at which the writer helps, so that the WAL can begin anew: 64 MiB.
const HELP_PAGES: u32 = 16_000;

#[derive(Debug)]
pub(super) struct Checkpointer {
    /// Pages in the WAL after the last commit.
    pages: Arc<AtomicU32>,
    /// Dropped first, which ends the thread.
    wake: Option<SyncSender<()>>,
    failure: Arc<Mutex<Option<StoreError>>>,
    /// Pages at which the writer helps next: a reader may stand in the way, and then trying each time is in vain.
    help_at: u32,
    thread: Option<JoinHandle<()>>,
}

impl Checkpointer {
    pub(super) fn start(path: &Path, writer: &mut Connection) -> Result<Checkpointer, StoreError> {
        let pages = Arc::new(AtomicU32::new(0));
        let seen = Arc::clone(&pages);
        writer.wal_hook(Some(move |_: &mut Wal, count: std::ffi::c_int| {
            seen.store(u32::try_from(count).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        }))?;
        let connection = Connection::open_with_flags(
            path,
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        // One is enough: a wish to copy that is already waiting covers this one.
        let (wake, woken) = sync_channel(1);
        let failure = Arc::new(Mutex::new(None));
        let reported = Arc::clone(&failure);
        let thread = std::thread::Builder::new()
            .name("checkpoint".to_owned())
            .spawn(move || copy_when_woken(&connection, &woken, &reported))
            .map_err(|error| StoreError::Other { reason: error.to_string() })?;
        Ok(Checkpointer { pages, wake: Some(wake), failure, help_at: HELP_PAGES, thread: Some(thread) })
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        self.wake = None;
        if let Some(thread) = self.thread.take() {
            // A panic in it has been printed; there is nothing left that it could spoil.
            let _ = thread.join();
        }
    }
}

fn copy_when_woken(connection: &Connection, woken: &Receiver<()>, failure: &Mutex<Option<StoreError>>) {
    while woken.recv().is_ok() {
        if let Err(error) = copy(connection) {
            let mut slot = failure.lock().unwrap_or_else(PoisonError::into_inner);
            slot.get_or_insert(error);
        }
    }
}

/// As far as readers allow, waiting for nobody.
fn copy(connection: &Connection) -> Result<(), StoreError> {
    match connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", (), |_| Ok(())) {
        Ok(()) => Ok(()),
        Err(error) => match StoreError::from(error) {
            // Somebody else copies just now.
            StoreError::Busy { .. } => Ok(()),
            other => Err(other),
        },
    }
}

impl Store {
    /// After a commit: lets the thread copy where it is worth it.
    pub(super) fn wake_checkpointer(&self) {
        if let Some(checkpointer) = &self.checkpointer
            && checkpointer.pages.load(Ordering::Relaxed) >= BEGIN_PAGES
            && let Some(wake) = &checkpointer.wake
        {
            // Full: it has been asked already.
            let _ = wake.try_send(());
        }
    }

    /// Before a batch: what the thread ran into, and the writer's own part of copying.
    pub(super) fn failed_checkpoint(&mut self) -> Result<(), StoreError> {
        let Some(checkpointer) = &mut self.checkpointer else { return Ok(()) };
        if let Some(error) = checkpointer.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(error);
        }
        let pages = checkpointer.pages.load(Ordering::Relaxed);
        if pages < HELP_PAGES {
            checkpointer.help_at = HELP_PAGES;
        } else if pages >= checkpointer.help_at {
            checkpointer.help_at = pages.saturating_add(BEGIN_PAGES);
            copy(&self.connection)?;
        }
        Ok(())
    }
}
