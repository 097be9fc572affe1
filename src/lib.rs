//! `sagad` as a library: everything the binary is made of.

pub mod saga;
