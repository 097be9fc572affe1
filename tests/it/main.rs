//! The tests that need more than one module: one crate, so that it is linked once.

mod amqp;
mod broker;
mod cli;
mod definitions;
mod documents;
mod end_to_end;
mod engine;
mod readme;
mod scenarios;
mod simulate;
mod store;
mod tidy;
