//! The core: what a saga is and what it does next. No clock, no randomness, no logging, no input or output.

pub mod duration;
pub mod expression;
pub mod json;
pub mod machine;
pub mod number;
pub mod template;
pub mod time;
