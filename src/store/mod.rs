//! What the daemon keeps: instances, turns, timers and messages in one SQLite file. SQL, row types and the names of the
//! database library live in this folder and nowhere else; nothing here decides what a saga does next.
//!
//! # The shape
//!
//! * [`Store`] is the writer. One thread owns it. [`Store::batch`] begins a transaction, [`Batch::commit`] ends it with
//!   one fsync, dropping the [`Batch`] takes everything back. [`Batch::savepoint`] is for inputs that move several
//!   instances and for dry runs. After an error of a batch (but [`StoreError::Defect`]) drop it: nothing of it was kept.
//! * [`Reader`] looks, over a connection of its own, in short reads that never wait for the writer and end after a fixed
//!   amount of work.
//! * [`Lock`] keeps a second daemon out. Take it before [`Store::create_or_open`]; looking never needs it.
//! * [`Memory`] is a database without a file, for worlds: `Store::open_in(&memory)` and `Reader::open_in(&memory)` share
//!   it, and it outlives a dropped store, so that a world can let the daemon die and start it again. There alone a reader
//!   has to wait for the writer: look between two batches.
//!
//! One turn, as the engine writes it:
//!
//! ```text
//! let mut batch = store.batch()?;
//! let stored = batch.instance(no)?;                  // checked against its checksum
//! let turn = step(machine, &stored.instance, &given);
//! let head = batch.save_turn(&TurnRow { before: Some(&stored), after: &turn.instance, given: &given, messages: &out,
//!     weight: Weight::Moved, changed: &turn.changed, notes: &turn.notes, listening_ms })?;
//! // The messages are (MessageRef { seq: head.seq, place: 0.. }, &out[place]): published only after the commit.
//! batch.commit()?;
//! ```
//!
//! `save_turn` appends to the log (journal and outbox at once), writes the instance's row, and keeps timers, incidents and
//! tally by the difference of `before` and `after`. For several turns of one instance in a batch, give the `Stored` made
//! of the instance and head of the turn before.
//!
//! # Clocks
//!
//! A timer row belongs to [`Clock::Wall`] or to the listening clock of its saga, [`Clock::Listening`]. The engine does the
//! arithmetic of listening clocks and writes them with the commits ([`Batch::keep_listening`]). A limit that begins with
//! the broker's confirm has a row without a due time until [`Batch::start_limit`]. When a turn makes an instance held
//! (paused, or wholly stopped), `save_turn` keeps the remainder of its listening timers, and starts them again when a turn
//! frees it. A due wall timer of a held instance is parked like an event: [`Batch::park`], then [`Batch::spend_timer`].
//!
//! # The outbox
//!
//! Everything up to the cursor is with the broker, or is a straggler (nacked, returned, rejected). After a start or a
//! reconnect [`Batch::unsent`] gives what stands behind the cursor and is no straggler, in order of the commits.
//! [`Batch::settle`] says that a straggler is confirmed or withdrawn.

mod aside;
mod backup;
mod batch;
mod chain;
mod checkpoint;
mod codes;
mod error;
mod inbox;
mod incidents;
mod lock;
mod names;
mod open;
mod orders;
mod outbox;
mod parked;
mod reader;
mod retention;
mod rows;
mod schema;
mod tally;
mod timers;
mod turns;

pub use aside::{Aside, AsideKind, Near};
pub use backup::Copied;
pub use batch::{Batch, Savepoint};
pub use chain::{Broken, BrokenLink, verify_chain};
pub use error::StoreError;
pub use inbox::{MessageKey, body_digest};
pub use incidents::normalize;
pub use lock::{Holder, Lock};
pub use names::{DefinitionText, StoredDefinition};
pub use open::{Memory, Store};
pub use orders::{OrderRecord, OrderRow};
pub use outbox::{DueStraggler, MessageRef, Straggle, Straggler, StragglerOutcome, Unsent};
pub use parked::Parked;
pub use reader::{
    AsideFilter, AsideRow, Count, DefinitionRow, Figures, IncidentGroup, IncidentRow, InstanceRow, JournalOrder,
    JournalRow, OutboxRow, Page, Reader, Selector, TimerView, Wanted,
};
pub use retention::Purged;
pub use rows::{ChainDigest, Clock, DueTimer, Head, SagaNo, Stand, Stored, TimerRow, TurnRow, Weight};
