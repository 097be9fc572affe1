//! The tests that need more than one module: one crate, so that it is linked once.

mod cli;
mod amqp;
mod broker;
mod documents;
mod simulate;
mod definitions;
mod documents;
mod scenarios;
mod store;
mod tidy;
