//! Participants that really guard their own rules, and the show that lets some hundreds of sagas run against them.
//!
//! A participant here is what a real one should be: it keeps its own state, guards its own rule in one place, and
//! remembers every command with its answer (the *barrier*), so that repetition and order do it no harm. None of them
//! knows a transport, a clock or the orchestrator: `handle(&Command) -> Option<Answer>` is all there is. The world of
//! [`show`] calls it, and so does `examples/participants` over AMQP.
//!
//! In reading order: the words on the wire, the two building blocks, what is built from them, how a participant
//! misbehaves, what must hold in the end.

pub mod command;

pub mod barrier;
pub mod slots;

pub mod allocate_cell;
pub mod guarded;
pub mod join_group;
pub mod participants;

pub mod dice;
pub mod faults;
pub mod requests;

pub mod actors;
pub mod show;
