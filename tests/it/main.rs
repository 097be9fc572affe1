//! The tests that need more than one module: one crate, so that it is linked once.

mod store;
mod definitions;
mod documents;
mod documents;
mod definitions;
mod store;
mod simulate;
mod tidy;
mod scenarios;
