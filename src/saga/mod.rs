//! What a saga is and what it does next. Pure: no clock, no randomness, no logging, no I/O, no async.

pub mod compile;
pub mod answer;
pub mod correlate;
pub mod definition;
pub mod diagnostic;
pub mod duration;
pub mod effect;
pub mod emit;
pub mod event;
pub mod exact;
pub mod expression;
pub mod ids;
pub mod incident;
pub mod instance;
pub mod json;
pub mod lint;
pub mod machine;
pub mod number;
pub mod order;
pub mod path;
pub mod retry;
pub mod step;
pub mod template;
pub mod time;
pub mod unwind;
pub mod walk;
