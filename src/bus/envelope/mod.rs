//! Properties and bytes ↔ messages: what stands where on the wire, in plain JSON and in CloudEvents.
//!
//! Pure, and neutral of the client library: [`Raw`](crate::engine::Raw) comes in, [`Wire`] goes out. Nothing here
//! looks at what a body means, and nothing here is stored.

mod cloudevent;
mod decode;
mod encode;
mod types;

pub use decode::decode;
pub use encode::{Addresses, Properties, Wire, WireError, encode};
pub use types::{Binding, Types};

/// The media type of a structured `CloudEvent`.
const CLOUD_EVENT: &str = "application/cloudevents+json";

/// The property `app_id`, and the `source`, of what the daemon itself sends.
pub const APP_ID: &str = "sagad";

/// The longest short string of AMQP: ids, types, routing keys, names of headers.
pub const SHORT_STRING_LIMIT: usize = 255;
