//! The command line from outside: the real binary, its exit codes, documents and tables. No broker is needed: events
//! come in over the daemon's socket.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and waits by the clock"
)]

mod disk;
mod documents;
mod lifecycle;
mod orders;
mod stage;
mod usage;
