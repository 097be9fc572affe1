//! The command line from outside: the real binary, its exit codes, documents and tables. No broker is needed: events
//! come in over the daemon's socket.

mod documents;
mod lifecycle;
mod orders;
mod stage;
mod usage;
