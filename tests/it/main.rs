//! The tests that need more than one module: one crate, so that it is linked once.

mod documents;
mod tidy;
mod scenarios;
