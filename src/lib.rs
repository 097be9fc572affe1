//! sagad: a saga orchestrator for services that talk over RabbitMQ.
//!
//! Three stages, left to right: intake (`bus`, `http`) → one `engine` thread → outflow (`bus`). The pure core in
//! `saga` decides, `store` keeps, and everything else carries. Modules in reading order:

pub mod api;
pub mod config;
pub mod saga;
pub mod telemetry;

pub mod store;

pub mod engine;

pub mod bus;

pub mod world;

pub mod scenario;

pub mod demo;

pub mod desk;
pub mod http;

pub mod daemon;

pub mod cli;
