//! AMQP 0-9-1 over lapin. The only place that knows the client library.

pub mod url;
