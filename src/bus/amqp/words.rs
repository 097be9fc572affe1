//! What the client library and the broker say, in words for an operator.

use lapin::ErrorKind;

/// An error of the client, without its wrapping.
pub(super) fn plain(error: &lapin::Error) -> String {
    match error.kind() {
        ErrorKind::IOError(io) if io.kind() == std::io::ErrorKind::ConnectionAborted => {
            "the broker closed the connection".to_owned()
        }
        ErrorKind::IOError(io) => format!("the connection broke: {io}"),
        ErrorKind::MissingHeartbeatError => "the broker has not been heard for too long".to_owned(),
        ErrorKind::ProtocolError(amqp) => format!("the broker says {} {}", amqp.get_id(), amqp.get_message()),
        ErrorKind::InvalidChannelState(..) | ErrorKind::InvalidConnectionState(_) => "the connection is gone".to_owned(),
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
