//! The tests that need more than one module: one crate, so that it is linked once.

mod amqp;
mod broker;
mod documents;
mod definitions;
mod store;
mod tidy;
mod scenarios;
