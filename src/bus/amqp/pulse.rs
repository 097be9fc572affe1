//! Whether the broker still answers, asked over the connection that consumes; and whether we are alone on the queue.
//!
//! A frozen broker keeps its connections open until the heartbeat ends them. Until then an answer that cannot come
//! must not be taken for silence, so the engine is told as soon as the broker misses a question.

use std::time::Duration;

use lapin::Channel;
use tokio::sync::watch;

use super::topology;

/// How often it is asked.
const EVERY: Duration = Duration::from_secs(1);
/// How long an answer may take before the broker counts as away. A busy one takes some hundred milliseconds.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Beat {
    silent: bool,
    /// Ready in the queue, and consumers of it, when it was last asked.
    messages: u64,
    consumers: u32,
}

/// Ends when dropped.
#[derive(Debug)]
pub(super) struct Pulse {
    beat: watch::Receiver<Beat>,
    task: tokio::task::JoinHandle<()>,
}

pub(super) fn start(channel: Channel, queue: &str) -> Pulse {
    let (beat, seen) = watch::channel(Beat::default());
    let task = tokio::spawn(ask(channel, queue.to_owned(), beat));
    Pulse { beat: seen, task }
}

async fn ask(channel: Channel, queue: String, beat: watch::Sender<Beat>) {
    loop {
        let answer = topology::look(&channel, &queue);
        tokio::pin!(answer);
        let answered = tokio::select! {
            answered = &mut answer => answered,
            () = tokio::time::sleep(PATIENCE) => {
                beat.send_if_modified(|beat| !std::mem::replace(&mut beat.silent, true));
                // The question stays asked: its answer is the sign that the broker is back.
                answer.await
            }
        };
        // Whatever ended the channel, the reader's own will tell it.
        let Ok(state) = answered else { return };
        beat.send_if_modified(|beat| {
            beat.messages = state.messages;
            let counted = std::mem::replace(&mut beat.consumers, state.consumers) != state.consumers;
            std::mem::take(&mut beat.silent) || counted
        });
        tokio::time::sleep(EVERY).await;
    }
}

impl Pulse {
    pub(super) async fn changed(&mut self) -> Result<(), watch::error::RecvError> {
        self.beat.changed().await
    }

    pub(super) fn trouble(&self) -> Option<String> {
        self.beat.borrow().silent.then(|| format!("the broker has not answered for {} s", PATIENCE.as_secs()))
    }

    pub(super) fn consumers(&self) -> u32 {
        self.beat.borrow().consumers
    }

    pub(super) fn messages(&self) -> u64 {
        self.beat.borrow().messages
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.task.abort();
    }
}
