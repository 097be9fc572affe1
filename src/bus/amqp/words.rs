//! What the client library and the broker say, in words for an operator.

use std::time::Duration;

use lapin::ErrorKind;
use lapin::types::ShortString;

/// How long the broker may take for a few small requests. After some errors the client never answers them at all.
const ANSWER_TIME: Duration = Duration::from_secs(15);

/// An error of the client, without its wrapping.
pub(super) fn plain(error: &lapin::Error) -> String {
    match error.kind() {
        ErrorKind::IOError(io) if io.kind() == std::io::ErrorKind::ConnectionAborted => {
            "the broker closed the connection".to_owned()
        }
        ErrorKind::IOError(io) => format!("the connection broke: {io}"),
        ErrorKind::MissingHeartbeatError => "the broker has not been heard for too long".to_owned(),
        ErrorKind::ProtocolError(amqp) => format!("the broker says {} {}", amqp.get_id(), amqp.get_message()),
        ErrorKind::InvalidChannelState(..) | ErrorKind::InvalidConnectionState(_) => {
            "the connection is gone".to_owned()
        }
        ErrorKind::ParsingError(_) => "a message that cannot be parsed".to_owned(),
        _ => error.to_string(),
    }
}

/// The code of AMQP, where the broker gave one.
pub(super) fn code(error: &lapin::Error) -> Option<u16> {
    match error.kind() {
        ErrorKind::ProtocolError(amqp) => Some(amqp.get_id()),
        _ => None,
    }
}

/// Whether the client gave up over the bytes of a message, which no reconnect cures.
pub(super) fn is_parsing(error: &lapin::Error) -> bool {
    matches!(error.kind(), ErrorKind::ParsingError(_))
}

/// What a few small requests come to, or that they came to nothing in time.
pub(super) async fn answered<T>(requests: impl Future<Output = lapin::Result<T>>) -> lapin::Result<T> {
    let late = || std::io::Error::other(format!("no answer within {} s", ANSWER_TIME.as_secs()));
    tokio::time::timeout(ANSWER_TIME, requests).await.unwrap_or_else(|_| Err(late().into()))
}

/// A name as AMQP has it. Configuration may be of any length, and the client panics over one that is too long.
pub(super) fn short(name: &str) -> lapin::Result<ShortString> {
    ShortString::try_new(name).map_err(|error| std::io::Error::other(format!("a name is too long: {error}")).into())
}
