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
    /// What the thread ran into. Locked while it copies, so that the writer can wait for it.
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
        let connection =
            Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
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
        let mut slot = failure.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = copy(connection) {
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

    /// Before a batch: what the thread ran into, and the writer's own part of copying. Only where the writer waits for
    /// the thread and copies the rest while nobody writes, can the WAL begin anew.
    pub(super) fn help_checkpointer(&mut self) -> Result<(), StoreError> {
        let Some(checkpointer) = &mut self.checkpointer else { return Ok(()) };
        let pages = checkpointer.pages.load(Ordering::Relaxed);
        if pages < HELP_PAGES {
            checkpointer.help_at = HELP_PAGES;
            return match checkpointer.failure.try_lock() {
                Ok(mut slot) => slot.take().map_or(Ok(()), Err),
                // It is copying; it will tell the next batch.
                Err(_) => Ok(()),
            };
        }
        let mut slot = checkpointer.failure.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = slot.take() {
            return Err(error);
        }
        if pages >= checkpointer.help_at {
            checkpointer.help_at = pages.saturating_add(BEGIN_PAGES);
            copy(&self.connection)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::*;
    use crate::saga::time::Timestamp;
    use crate::store::{Aside, AsideKind};

    #[test]
    fn the_log_written_ahead_is_folded_in_while_the_writer_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sagad.db");
        let mut store = Store::create_or_open(&path).unwrap();
        let body = vec![b'x'; 1024 * 1024];
        let empty = Map::new();
        let mut largest = 0;
        for at in 0..150 {
            let mut batch = store.batch().unwrap();
            let aside = Aside {
                kind: AsideKind::Dead,
                reason: "not-json",
                error: None,
                message_type: None,
                message_id: None,
                source: "",
                correlation_id: None,
                exchange: "",
                routing_key: "",
                received_at: Timestamp(at),
                properties: &empty,
                headers: &empty,
                body: &body,
                near: &[],
            };
            batch.set_aside(&aside).unwrap();
            batch.commit().unwrap();
            largest = largest.max(std::fs::metadata(folder.path().join("sagad.db-wal")).unwrap().len());
        }
        let page = 4096 + 24;
        assert!(largest < u64::from(HELP_PAGES + BEGIN_PAGES) * page, "{largest} bytes");
        assert!(std::fs::metadata(&path).unwrap().len() > 64 * 1024 * 1024);
    }
}
