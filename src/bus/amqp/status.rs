//! What the bus tells of itself: for `status`, for readiness, and one line in the log for each loss and return.

use std::collections::BTreeSet;

use tokio::sync::watch;

use super::topology::Finding;
use crate::bus::envelope::Binding;
use crate::saga::time::Timestamp;

/// A snapshot, for those who look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BusStatus {
    /// It both consumes and publishes.
    pub connected: bool,
    /// Since when it is so, or not so; `None` before the first try has come to anything.
    pub since: Option<Timestamp>,
    /// Why the broker takes no messages, while it does not.
    pub blocked: Option<String>,
    /// Why it is not connected.
    pub error: Option<String>,
    /// Messages that stood in the queue when it began to consume.
    pub waiting: u64,
    /// Messages in the dead queue that cannot be read, or have not been yet.
    pub dead: Option<u64>,
    /// One message after the other, because one of them cannot be parsed.
    pub quarantine: bool,
    /// What about the topology is not as it should be.
    pub findings: Vec<Finding>,
    /// The bindings that this run has made.
    pub bound: BTreeSet<Binding>,
}

/// Where the tasks of the bus write what they know. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Board {
    board: watch::Sender<BusStatus>,
    clock: fn() -> Timestamp,
}

impl Board {
    pub(super) fn new(clock: fn() -> Timestamp) -> (Board, watch::Receiver<BusStatus>) {
        let (board, seen) = watch::channel(BusStatus::default());
        (Board { board, clock }, seen)
    }

    pub(super) fn now(&self) -> Timestamp {
        (self.clock)()
    }

    pub(super) fn note(&self, change: impl FnOnce(&mut BusStatus)) {
        self.board.send_modify(change);
    }

    pub(super) fn see<T>(&self, look: impl FnOnce(&BusStatus) -> T) -> T {
        look(&self.board.borrow())
    }

    /// It consumes and publishes.
    pub(super) fn up(&self, waiting: u64) {
        let now = self.now();
        self.note(|status| {
            status.connected = true;
            status.since = Some(now);
            status.error = None;
            status.waiting = waiting;
        });
        tracing::info!(waiting, "connected to the broker");
    }

    /// It does not, for this reason. The first time after a connection, and before the first, is a line in the log.
    pub(super) fn down(&self, reason: &str) {
        let now = self.now();
        let mut first = None;
        self.note(|status| {
            if status.connected {
                first = Some("the broker is lost; trying again");
            } else if status.error.is_none() {
                first = Some("waiting for the broker");
            }
            if first.is_some() {
                status.since = Some(now);
            }
            status.connected = false;
            status.error = Some(reason.to_owned());
        });
        if let Some(line) = first {
            tracing::warn!(reason, "{line}");
        } else {
            tracing::debug!(reason, "still without the broker");
        }
    }

    /// Something that trying again does not mend: told once for each reason, whatever was told before.
    pub(super) fn findings(&self, findings: Vec<Finding>) {
        let mut fresh = Vec::new();
        self.note(|status| {
            fresh = findings.iter().filter(|finding| !status.findings.contains(finding)).cloned().collect();
            status.findings = findings;
        });
        for finding in fresh {
            tracing::error!("{finding}");
        }
    }
}
